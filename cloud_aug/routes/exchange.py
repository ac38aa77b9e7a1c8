"""What boards send: search queries, contributions, reports and telemetry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from cloud_aug import telemetry, uploads, withdrawals
from cloud_aug.openapi import binary, operation, ref
from cloud_aug.pool import Consent
from cloud_aug.replies import BINARY, reply
from cloud_aug.routes.asking import (
    AskedNow,
    Granted,
    JsonBody,
    Known,
    QueriesBody,
    SamplesBody,
    TaskPath,
    TelemetryBody,
    UploadPath,
    WantedBody,
)
from edgewire.messages import Report, Telemetry, UploadReply, WithdrawReply

router = APIRouter(tags=["exchange"])


@router.post(
    "/v1/tasks/{task}/search",
    openapi_extra=operation(
        body=binary("safetensors: 'queries', float32 (n, dim), embeddings by the base; SearchMeta as metadata."),
        body_media=BINARY,
        answer=binary("safetensors: 'digests', 'rows' and 'scores'; FoundMeta as metadata."),
        media=BINARY,
        security="board",
    ),
)
def search(asked: AskedNow, task: TaskPath, board: Granted, body: QueriesBody) -> Response:
    """Digests and scores of samples like the queries, of every class; never the board's own. Only where the task allows
    mode 'embedding' or 'bits'."""
    return _binary(asked.searcher.search(board, task, body, now=asked.now))


@router.post(
    "/v1/tasks/{task}/found",
    openapi_extra=operation(
        body=binary("safetensors: 'digests', uint8 (n, 32); WantedMeta as metadata."),
        body_media=BINARY,
        answer=binary("Samples, as in a pack."),
        media=BINARY,
        security="board",
    ),
)
def fetch_found(asked: AskedNow, task: TaskPath, board: Granted, body: WantedBody) -> Response:
    """The samples that a search found, as many of them as may still be used."""
    return _binary(asked.searcher.fetch(board, task, body, now=asked.now))


def _binary(content: bytes) -> Response:
    return Response(content, media_type=BINARY, headers={"cache-control": "no-store"})


@router.put(
    "/v1/tasks/{task}/contributions/{upload_id}",
    openapi_extra=operation(
        body=binary("Samples, as in a pack."), body_media=BINARY, answer=ref(UploadReply), security="board"
    ),
)
def contribute(
    asked: AskedNow,
    task: TaskPath,
    upload_id: UploadPath,
    board: Granted,
    body: SamplesBody,
    consent: Annotated[str, Query(max_length=32)],
    until: Annotated[float, Query(ge=0)],
    after: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
) -> Response:
    """Samples shared by consent, into quarantine. On disk before the answer; sent twice under one id, stored once.

    after: the number of the board's last withdrawal that the consent was given after; 410 if there was a later one.
    """
    stated = Consent(consent, until, after)
    return reply(uploads.contribute(asked.cloud, board, task, upload_id, body, stated, now=asked.now))


@router.delete("/v1/tasks/{task}/contributors/me", openapi_extra=operation(answer=ref(WithdrawReply), security="board"))
def withdraw(asked: AskedNow, task: TaskPath, board: Known) -> Response:
    """Delete what this board shared for a task, granted or not any more. From the next request on nobody is given it;
    asked for again, it changes nothing."""
    done = withdrawals.withdraw(asked.cloud, task, board, actor=board, now=asked.now)
    return reply(WithdrawReply(done.number, done.samples))


@router.put(
    "/v1/tasks/{task}/reports/{upload_id}",
    openapi_extra=operation(body=ref(Report), answer=ref(UploadReply), security="board"),
)
def report(asked: AskedNow, task: TaskPath, upload_id: UploadPath, board: Granted, body: JsonBody) -> Response:
    """What a board tells about a run: enumerated fields only."""
    return reply(uploads.report(asked.cloud, board, task, upload_id, body, now=asked.now))


@router.put(
    "/v1/telemetry/{upload_id}",
    openapi_extra=operation(body=ref(Telemetry), answer=ref(UploadReply), security="board"),
)
def tell_state(asked: AskedNow, upload_id: UploadPath, board: Known, body: TelemetryBody) -> Response:
    """How the board is: heat, power, load, memory. The last messages of each board are kept."""
    return reply(telemetry.keep(asked.cloud, board, upload_id, body, now=asked.now))
