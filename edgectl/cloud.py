"""The cloud as an object. What can go wrong between a board and a server becomes one of our errors here, only here."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import requests
import urllib3

from edgectl import access, partial, tls
from edgectl.partial import Parts
from edgectl.session import session
from edgewire import errors
from edgewire.decoding import JSON_LIMIT_BYTES, decode, encode, plain
from edgewire.errors import (
    DigestMismatch,
    EdgeError,
    IntegrityError,
    InvalidMessage,
    NotEnrolled,
    NotGranted,
    Offline,
    RetryLater,
    TimedOut,
    TooLarge,
    Unauthorized,
)
from edgewire.files import digest_of_file, move_into_place
from edgewire.messages import (
    CLOCK_HEADER,
    FOUND_LIMIT_BYTES,
    HAVE_HEADER,
    PARTS_HEADER,
    SAMPLES_LIMIT_BYTES,
    TASKS_HEADER,
    AccessReply,
    EnrolReply,
    EnrolRequest,
    ErrorReply,
    KeysReply,
    KeysRequest,
    Report,
    Telemetry,
    TrustReply,
    UploadReply,
    WithdrawReply,
)
from edgewire.releases import ORDERS_LIMIT_BYTES, RELEASE_HEADER, OrdersReply, Outcome
from edgewire.signing import SigningKey, Statement, seal, unb64
from edgewire.tasks import TaskId

_LOG = logging.getLogger(__name__)
_SMALL_REPLY_BYTES = 64 << 10
_PIECE_BYTES = 64 << 10
_RANGE_REFUSED = 416  # passed on to the one caller that asks for ranges

T = TypeVar("T")


class Cloud(Protocol):
    """What a board asks of the cloud. Every method may raise what `edgewire.errors` lists for the wire, and Offline."""

    bytes_up: int
    bytes_down: int

    def enroll(self, request: EnrolRequest, key: SigningKey) -> EnrolReply:
        """Introduce this board by the public key of `key`. The same token and key get the same answer again."""
        ...

    def tasks(self) -> tuple[TaskId, ...]:
        """The tasks this board is granted, as far as the cloud has said by now: ask again after other calls."""
        ...

    def trust(self, after: int) -> list[bytes]:
        """Trust statements newer than version `after`, oldest first."""
        ...

    def manifest(self, task_id: str, etag: str | None, parts: Parts | None = None) -> tuple[bytes, str] | None:
        """The sealed manifest and its etag; None if it is still the one with `etag`. parts: where small files that it
        names may come along, for `blob` to find."""
        ...

    def orders(self, task_id: str, known: str) -> tuple[OrdersReply, str] | None:
        """What this board is to install or go back from, with its etag; None if the last manifest told of none, or of
        those with the etag `known`."""
        ...

    def tell_outcome(self, task_id: str, outcome: Outcome) -> UploadReply:
        """Tell how a release went, signed by this board. The same upload id twice changes nothing."""
        ...

    def blob(self, digest: str, size: int, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> int:
        """Bring published bytes to `target`; the bytes received by this call (0: it was there). Resumes `target`.part.
        on_bytes: called with the length of each piece. Raises DigestMismatch for others, and leaves nothing."""
        ...

    def pack_keys(self, task_id: str, packs: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """The key of each encrypted pack, by the digest of its ciphertext; None for one that is not given out."""
        ...

    def search(self, task_id: str, body: bytes) -> bytes:
        """Send query vectors, receive digests and scores of samples, both as safetensors."""
        ...

    def found(self, task_id: str, body: bytes) -> bytes:
        """Send digests that a search found, receive their samples."""
        ...

    def contribute(
        self, task_id: str, upload_id: str, body: bytes, *, consent: str, until: float, after: int = 0
    ) -> UploadReply:
        """Share samples under a consent that ends at `until`, given after that withdrawal; Gone: there was a later."""
        ...

    def withdraw(self, task_id: str) -> WithdrawReply:
        """Have all that this board shared for a task deleted. Again, it changes nothing."""
        ...

    def report(self, report: Report) -> UploadReply:
        """Tell about a run. The same upload id twice changes nothing."""
        ...

    def telemetry(self, told: Telemetry) -> UploadReply:
        """Tell how this board is. The same upload id twice changes nothing. NotFound: the cloud is too old for it."""
        ...


@dataclass(frozen=True)
class Limits:
    """Patience. read_s: silence on the connection; attempts: in a row without any progress; wait_s: longest pause that
    a server may ask for within one run, beyond it the board gives up until its next."""

    connect_s: float = 10.0
    read_s: float = 20.0
    attempts: int = 4
    backoff_s: float = 0.5
    wait_s: float = 30.0


class HttpCloud:
    """The cloud over HTTPS. deadline: on the monotonic clock, for all calls together; then TimedOut."""

    def __init__(
        self,
        url: str,
        *,
        ca_bundle: Path,
        key: SigningKey | None = None,
        board: str | None = None,
        token_cache: Path | None = None,
        limits: Limits | None = None,
        deadline: float | None = None,
        use_proxy: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.deadline = url.rstrip("/"), deadline
        self.bytes_up = self.bytes_down = 0
        self._ca_bundle = ca_bundle
        self._limits = limits or Limits()
        self._clock, self._monotonic, self._sleep = clock, monotonic, sleep
        self._key = key
        self._tokens = None if key is None or board is None else self._tokens_of(board, key, token_cache)
        self._ordered: dict[str, str] = {}  # by task: the etag of the orders that the last manifest told of
        self._session = session(self.url, tls.pinned_context(ca_bundle, self._may_block_s), use_proxy=use_proxy)

    def close(self) -> None:
        """Hang up. A server that stops waits for connections that are open."""
        self._session.close()

    # The endpoints

    def enroll(self, request: EnrolRequest, key: SigningKey) -> EnrolReply:
        def body() -> bytes:
            now = self._clock()
            return seal(key, Statement("enroll", "", 0, 0, now, now + access.REQUEST_LIFETIME_S, plain(request)))

        raw = self._retrying(lambda: self._call("POST", "/v1/enroll", body=body())[0])
        return decode(EnrolReply, raw, what="the answer to the enrolment")

    def tasks(self) -> tuple[TaskId, ...]:
        return self._retrying(lambda: self._enrolled().tasks(self._clock()))

    def trust(self, after: int) -> list[bytes]:
        raw = self._retrying(lambda: self._call("GET", f"/v1/trust?after={after}")[0])
        return [text.encode() for text in decode(TrustReply, raw, what="the trust chain").trust]

    def manifest(self, task_id: str, etag: str | None, parts: Parts | None = None) -> tuple[bytes, str] | None:
        path = f"/v1/tasks/{task_id}/manifest"
        known = {"If-None-Match": etag} if etag else {}

        def ask(bearer: dict[str, str]) -> tuple[bytes, str] | None:
            have = {} if parts is None else {HAVE_HEADER: parts.have()}
            with self._exchange("GET", path, headers=bearer | known | have) as response:
                self._ordered[task_id] = response.headers.get(RELEASE_HEADER, "")
                listed = response.headers.get(PARTS_HEADER)
                if response.status_code == 304:
                    return None
                if parts is None or listed is None:
                    raw = self._read_all(response, JSON_LIMIT_BYTES)
                else:
                    raw = parts.receive(listed, self._pieces(response))
                return raw, response.headers.get("ETag", "")

        return self._authorized(ask)

    def orders(self, task_id: str, known: str) -> tuple[OrdersReply, str] | None:
        if self._ordered.get(task_id, "") in ("", known):
            return None
        path = f"/v1/tasks/{task_id}/orders"
        raw, response = self._authorized(
            lambda bearer: self._call("GET", path, headers=bearer, limit_bytes=ORDERS_LIMIT_BYTES)
        )
        return decode(OrdersReply, raw, what="the orders"), response.headers.get("ETag", "").strip('"')

    def tell_outcome(self, task_id: str, outcome: Outcome) -> UploadReply:
        def tell(bearer: dict[str, str]) -> bytes:  # signed anew each time: the server takes no old signatures
            body = access.sealed_outcome(self._key, task_id, outcome, now=self._clock())
            return self._call("PUT", f"/v1/tasks/{task_id}/outcomes", body=body, headers=bearer)[0]

        return taken(UploadReply, self._authorized(tell), what="the answer to the outcome")

    def blob(self, digest: str, size: int, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> int:
        if target.exists() and digest_of_file(target) == digest:
            return 0
        received = 0

        def count(length: int) -> None:
            nonlocal received
            received += length
            if on_bytes:
                on_bytes(length)

        part = target.with_name(target.name + ".part")
        self._authorized(lambda bearer: self._fetch(digest, size, part, count, bearer))
        if digest_of_file(part) != digest:
            part.unlink()
            raise DigestMismatch(
                f"what the cloud sent is not {digest[:16]}…", hint="nothing was kept; sync again later"
            )
        with partial.writing(target):
            move_into_place(part, target)
        return received

    def pack_keys(self, task_id: str, packs: tuple[str, ...]) -> tuple[bytes | None, ...]:
        path, body = f"/v1/tasks/{task_id}/keys", encode(KeysRequest(packs))
        raw = self.send("POST", path, body, limit_bytes=JSON_LIMIT_BYTES)
        keys = decode(KeysReply, raw, what="the keys of packs").keys
        if len(keys) != len(packs):
            raise InvalidMessage(f"the cloud sent {len(keys)} keys, {len(packs)} were asked for")
        return tuple(None if key is None else unb64(key) for key in keys)

    def search(self, task_id: str, body: bytes) -> bytes:
        return self.send("POST", f"/v1/tasks/{task_id}/search", body, limit_bytes=FOUND_LIMIT_BYTES)

    def found(self, task_id: str, body: bytes) -> bytes:
        return self.send("POST", f"/v1/tasks/{task_id}/found", body, limit_bytes=SAMPLES_LIMIT_BYTES)

    def contribute(
        self, task_id: str, upload_id: str, body: bytes, *, consent: str, until: float, after: int = 0
    ) -> UploadReply:
        path = f"/v1/tasks/{task_id}/contributions/{upload_id}?consent={consent}&until={int(until)}"
        path += f"&after={after}" if after else ""
        return taken(UploadReply, self.send("PUT", path, body), what="the answer to the contribution")

    def withdraw(self, task_id: str) -> WithdrawReply:
        path = f"/v1/tasks/{task_id}/contributors/me"
        raw = self._authorized(lambda bearer: self._call("DELETE", path, headers=bearer))[0]
        return taken(WithdrawReply, raw, what="the answer to the withdrawal")

    def report(self, report: Report) -> UploadReply:
        path = f"/v1/tasks/{report.task}/reports/{report.upload_id}"
        return taken(UploadReply, self.send("PUT", path, encode(report)), what="the answer to the report")

    def telemetry(self, told: Telemetry) -> UploadReply:
        path = f"/v1/telemetry/{told.upload_id}"
        return taken(UploadReply, self.send("PUT", path, encode(told)), what="the answer to the telemetry")

    def send(self, method: str, path: str, body: bytes, *, limit_bytes: int = _SMALL_REPLY_BYTES) -> bytes:
        """A body of this board's, and what is answered."""
        return self._authorized(
            lambda bearer: self._call(method, path, body=body, headers=bearer, limit_bytes=limit_bytes)
        )[0]

    # Access

    def _authorized(self, action: Callable[[dict[str, str]], T]) -> T:
        """Run with the access token; once more with a new one if the cloud does not take it (a token names the tasks
        of when it was issued, so a grant since then needs a new one too)."""
        try:
            return self._retrying(lambda: action(self._bearer()))
        except (Unauthorized, NotGranted):
            self._enrolled().drop()
            return self._retrying(lambda: action(self._bearer()))

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._enrolled().current(self._clock()).token}"}

    def _enrolled(self) -> access.Tokens:
        if self._tokens is None:
            raise NotEnrolled("this board is not enrolled", hint="edgectl enroll FILE")
        return self._tokens

    def _tokens_of(self, board: str, key: SigningKey, path: Path | None) -> access.Tokens:
        def ask() -> AccessReply:
            raw, _ = self._call("POST", "/v1/access", body=access.request(key, board, now=self._clock()))
            return decode(AccessReply, raw, what="the access token")

        return access.Tokens(path, url=self.url, board=board, ask=ask)

    # Blobs

    def _fetch(self, digest: str, size: int, part: Path, count: Callable[[int], None], bearer: dict[str, str]) -> None:
        """Add to `part` what it lacks. What arrived before a failure stays there for the next attempt."""
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        if have == size and part.exists():
            return
        resume = {"Range": f"bytes={have}-", "If-Range": f'"{digest}"'} if have else {}
        with self._exchange("GET", f"/v1/blobs/{digest}", headers=bearer | resume) as response:
            if response.status_code == _RANGE_REFUSED:
                part.unlink()
                raise DigestMismatch("the cloud's blob has another size than it signed for", hint="sync again later")
            if response.status_code != 206:
                have = 0
            elif response.headers.get("Content-Range") != f"bytes {have}-{size - 1}/{size}":
                part.unlink()
                raise DigestMismatch("the cloud sent another range than was asked for", hint="sync again")
            partial.append(self._pieces(response), part, have=have, size=size, on_bytes=count)

    # One exchange

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        limit_bytes: int = JSON_LIMIT_BYTES,
    ) -> tuple[bytes, requests.Response]:
        with self._exchange(method, path, body=body, headers=headers) as response:
            return self._read_all(response, limit_bytes), response

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """Send one request and check what came back but its body. The body must be read inside the block."""
        if self._may_block_s() <= 0:
            raise self._too_late()
        self.bytes_up += len(body or b"")
        connect_s = max(0.001, min(self._limits.connect_s, self._may_block_s()))
        with self._network():
            response = self._session.request(
                method,
                self.url + path,
                data=body,
                headers=headers,
                timeout=(connect_s, self._limits.read_s),
                verify=str(self._ca_bundle),
                allow_redirects=False,  # a redirect would take the token to another place
                stream=True,
            )
        with contextlib.closing(response):
            tls.check_clock(response.headers.get(CLOCK_HEADER), now=self._clock())
            if self._tokens is not None:
                self._tokens.hear(response.headers.get(TASKS_HEADER))
            if response.status_code >= 400 and response.status_code != _RANGE_REFUSED:
                raise self._refusal(response)
            if 300 <= response.status_code < 400 and response.status_code != 304:
                raise EdgeError(f"{self.url} redirects elsewhere", hint="enroll with the address that it redirects to")
            yield response

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it arrives. read1: what is here now, not after a whole piece has come together."""
        while True:
            with self._network():
                piece: bytes = response.raw.read1(_PIECE_BYTES, decode_content=False)
            if not piece:
                return
            self.bytes_down += len(piece)
            yield piece

    def _read_all(self, response: requests.Response, limit_bytes: int) -> bytes:
        whole = bytearray()
        for piece in self._pieces(response):
            whole += piece
            if len(whole) > limit_bytes:
                raise TooLarge(f"the cloud's answer is larger than {limit_bytes} bytes")
        return bytes(whole)

    def _refusal(self, response: requests.Response) -> EdgeError:
        """The error that the cloud names; by status alone where something in between answered (a proxy, a portal)."""
        after = _seconds(response.headers.get("Retry-After"))
        try:
            said = decode(ErrorReply, self._read_all(response, _SMALL_REPLY_BYTES), what="error").error
        except (errors.InvalidMessage, TooLarge):
            known = _OF_ANYBODY | (_OF_FILES if response.request.method == "GET" else {})
            kind, hint = known.get(response.status_code, EdgeError), "it is not the cloud that says so: a proxy?"
            return kind(f"{self.url} answered {response.status_code}", hint=hint, retry_after_s=after)
        return errors.from_code(said.code, f"the cloud says: {said.message}", hint=said.hint, retry_after_s=after)

    # Failure and patience

    @contextlib.contextmanager
    def _network(self) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> EdgeError:
        if self._may_block_s() <= 0:
            return self._too_late()
        known = tls.explain(error, url=self.url, ca_bundle=self._ca_bundle, now=self._clock())
        if known is not None:
            return known
        if isinstance(error, requests.ConnectTimeout):
            return Offline(f"{self.url} does not answer", hint="check the network; try again later")
        if isinstance(error, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
            return TimedOut(f"{self.url} was silent for {self._limits.read_s:g} s", hint="try again later")
        return Offline(f"no connection to {self.url}: {_innermost(error)}", hint="check the network; try again later")

    def _retrying(self, action: Callable[[], T]) -> T:
        """Try again, with growing and jittered pauses, what may work later. An attempt that brought bytes starts the
        count anew: over a bad link a large blob needs many."""
        failed = 0
        while True:
            before = self.bytes_down
            try:
                return action()
            except (RetryLater, TimedOut) as error:
                failed = 1 if self.bytes_down - before > _PIECE_BYTES else failed + 1
                pause_s = self._pause_s(error, failed)
                if pause_s is None:
                    raise
                _LOG.info("%s; trying again in %.1f s", error.message, pause_s)
                self._sleep(pause_s)

    def _pause_s(self, error: EdgeError, failed: int) -> float | None:
        """How long to wait before the next attempt; None to give up."""
        limits = self._limits
        jitter = random.random()  # noqa: S311  (no secret: it keeps a fleet from marching in step)
        backoff_s = limits.backoff_s * 2 ** (failed - 1) * (0.5 + jitter)
        told_s = error.retry_after_s or 0.0
        left_s = float("inf") if self.deadline is None else self.deadline - self._monotonic()
        most_s = min(limits.wait_s, left_s)
        if failed >= limits.attempts or max(backoff_s, told_s) > most_s:
            return None
        # a fleet that was sent away together must not come back together: up to half as long again, never sooner
        pause_s: float = min(max(backoff_s, told_s * (1.0 + jitter / 2)), most_s)
        return pause_s

    def _may_block_s(self) -> float:
        if self.deadline is None:
            return self._limits.read_s
        return min(self._limits.read_s, self.deadline - self._monotonic())

    def _too_late(self) -> TimedOut:
        return TimedOut(
            f"{self.url} was too slow for the time allowed", hint="run it again: it goes on where it stopped"
        )


# What a proxy may say, too. That it wants nothing of this board, or of what it sent, only the cloud itself can.
_OF_ANYBODY: dict[int, type[EdgeError]] = {
    413: errors.TooLarge,
    429: errors.RateLimited,
    **dict.fromkeys((500, 502, 503, 504), RetryLater),
}
_OF_FILES: dict[int, type[EdgeError]] = {404: errors.NotFound, 410: errors.Gone}  # a web server may hand them out


def taken(kind: type[T], raw: bytes, *, what: str) -> T:
    """The answer to what was sent. Raises IntegrityError for what is none: then nobody knows that it was refused."""
    try:
        return decode(kind, raw, what=what)
    except InvalidMessage as error:
        raise IntegrityError(error.message, hint="it is sent again later") from None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
