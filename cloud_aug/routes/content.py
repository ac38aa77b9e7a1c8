"""What boards fetch: the manifest of a task, blobs by digest, and the keys of packs."""

from __future__ import annotations

import re

from fastapi import APIRouter
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from cloud_aug import packs, publications
from cloud_aug.openapi import binary, operation, ref, sealed
from cloud_aug.releases import orders
from cloud_aug.replies import BINARY, SENT_BYTES, matches, not_modified, reply, sealed_with_parts
from cloud_aug.replies import sealed as sealed_reply
from cloud_aug.rounds.orders import tasks_of_own
from cloud_aug.routes.asking import Asked, AskedNow, DigestPath, Granted, JsonBody, TaskPath
from edgewire.decoding import decode
from edgewire.errors import NotFound, UsageError
from edgewire.files import digest as digest_of
from edgewire.messages import HAVE_HEADER, MAX_HAVE, KeysReply, KeysRequest, Manifest
from edgewire.releases import RELEASE_HEADER

router = APIRouter(tags=["content"])
_ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-[1-9]\d{0,17})")
_ETAG_CHARACTERS = 32  # 128 bits name an envelope well enough, and go over the wire with each sync


@router.get(
    "/v1/tasks/{task}/manifest",
    openapi_extra=operation(answer=sealed(Manifest, "A statement of type 'manifest'."), security="board"),
)
def manifest(asked: AskedNow, task: TaskPath, board: Granted) -> Response:
    """All that a board needs to know of a task, by digest, signed. With If-None-Match: 304 when nothing is new. The
    header Edge-Release says that there are orders for this board, too.

    With Edge-Have (what the board holds already: the first 16 characters of each digest, separated by commas) small
    files that it lacks follow the manifest's bytes; Edge-Parts then says "SIZE OF MANIFEST, DIGEST:SIZE, ...".
    """
    answer = _manifest(asked, task)
    if ordered := orders.etag(asked.cloud, board, task, now=asked.now):
        answer.headers[RELEASE_HEADER] = ordered
    return answer


def _manifest(asked: Asked, task: str) -> Response:
    envelope = publications.manifest(asked.cloud, task, now=asked.now)
    etag = f'"{digest_of(envelope)[:_ETAG_CHARACTERS]}"'
    if matches(asked.headers.get("if-none-match"), etag):
        return not_modified(etag)
    have = asked.headers.get(HAVE_HEADER.lower())
    if have is None:
        return sealed_reply(envelope, etag=etag)
    held = [part.strip() for part in have.split(",", MAX_HAVE)]
    return sealed_with_parts(envelope, publications.parts(asked.cloud, envelope, held), etag=etag)


@router.head("/v1/blobs/{digest}", include_in_schema=False)
@router.get(
    "/v1/blobs/{digest}",
    openapi_extra=operation(
        answer=binary("The bytes whose sha256 is the digest; with Range, 206 and a part of them."),
        media=BINARY,
        security="board",
    ),
)
def blob(asked: AskedNow, digest: DigestPath) -> Response:
    """Published bytes. They never change: strong ETag, ranges, and any cache of the board's own may keep them; those of
    an encrypted pack any cache on the way, too.

    410 for a pack once the consent to some of its samples has ended.
    """
    _check_range(asked.headers.get("range"))
    caller = asked.caller()
    tasks = publications.tasks_of_blob(asked.cloud, digest) or tasks_of_own(asked.cloud, caller.board, digest)
    if not (tasks := tasks & caller.tasks):
        raise NotFound("there is no such blob for this board")
    encrypted = publications.check_consents(asked.cloud, digest, now=asked.now)
    etag = f'"{digest}"'
    if matches(asked.headers.get("if-none-match"), etag):
        return not_modified(etag)
    headers = {"etag": etag, "cache-control": f"{'public' if encrypted else 'private'}, max-age=31536000, immutable"}
    pack = None if encrypted else packs.for_older_boards(asked.cloud, digest, tasks)
    if pack is not None:
        return Response(pack, media_type=BINARY, headers={"etag": etag, "cache-control": "no-store"})
    if location := asked.cloud.settings.offload:  # a web server in front takes it from here
        internal = f"{location}{asked.cloud.blobs.internal_address(digest)}"
        return Response(media_type=BINARY, headers={**headers, "x-accel-redirect": internal})
    return _Blob(asked.cloud.blobs.path(digest), media_type=BINARY, headers=headers)


@router.post(
    "/v1/tasks/{task}/keys",
    openapi_extra=operation(body=ref(KeysRequest), answer=ref(KeysReply), security="board"),
)
def pack_keys(asked: AskedNow, task: TaskPath, _board: Granted, body: JsonBody) -> Response:
    """The keys of encrypted packs, in the order of the question; null for a pack that is not of this task, or whose
    samples were withdrawn."""
    names = decode(KeysRequest, body, what="request for keys").packs
    return reply(KeysReply(packs.keys(asked.cloud, task, names, now=asked.now)))


class _Blob(FileResponse):
    """Read in large pieces, each of which costs a turn of a thread, and sent in smaller ones, which a slow board takes
    in time (`limits.answer_idle_s`)."""

    chunk_size = 1 << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sliced(message: Message) -> None:
            body, more = message.get("body", b""), message.get("more_body", False)
            for start in range(0, max(1, len(body)), SENT_BYTES):
                rest = start + SENT_BYTES < len(body)
                part = {"body": body[start : start + SENT_BYTES], "more_body": more or rest} if body else {}
                await send({**message, **part})

        await super().__call__(scope, receive, sliced)


def _check_range(text: str | None) -> None:
    """Raises UsageError unless it is one range: many cost more to sort out than they save, and nobody needs them."""
    found = _ONE_RANGE.fullmatch(text or "bytes=0-")
    if found is None or (found[2] and int(found[1]) > int(found[2])):
        raise UsageError("a blob is given whole or in one range", hint="write Range: bytes=FROM- or bytes=FROM-TO")
