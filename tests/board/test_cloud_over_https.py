"""What can go wrong between a board and a server, one by one, each with its own error."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgectl.cloud import HttpCloud, Limits
from edgectl.partial import Parts
from edgectl.rounds.service import RoundsOverHttp
from edgewire import errors
from edgewire.decoding import encode
from edgewire.files import digest
from edgewire.rounds import UpdateMeta
from edgewire.signing import SigningKey
from tests.board.loopback import Answer, Authority, Request, Server, close_after, drip, refusal, reply

IMPATIENT = Limits(connect_s=2, read_s=0.5, attempts=3, backoff_s=0.01, wait_s=1)
BOARD = "b" + "0" * 16
TRUST = reply(encode({"trust": ["one", "two"]}))
DATA = bytes(range(256)) * 1000
NAME = digest(DATA)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


Serve = Callable[..., Server]


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    running: list[Server] = []

    def start(answer: Answer, certificate: Path | None = None) -> Server:
        running.append(Server(certificate or authority.issue(), answer))
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


def connect(server: Server, authority: Authority, **settings: object) -> HttpCloud:
    options = {"limits": IMPATIENT, "ca_bundle": authority.bundle, **settings}
    return HttpCloud(server.url, **options)  # type: ignore[arg-type]


def member(server: Server, authority: Authority, **settings: object) -> HttpCloud:
    return connect(server, authority, key=SigningKey.generate(), board=BOARD, **settings)


def granting(answer: Answer) -> Answer:
    """A server that gives every board a token and asks `answer` about the rest."""

    def both(request: Request) -> bytes | Iterator[bytes]:
        if request.line.startswith("POST /v1/access"):
            return reply(encode({"token": "t" * 43, "expires_at": time.time() + 600, "tasks": ["digits"]}))
        return answer(request)

    return both


def in_turn(*answers: bytes | Iterator[bytes]) -> Answer:
    waiting = iter(answers)
    return lambda _: next(waiting)


# Certificates and clocks


def test_a_server_of_the_pinned_authority_is_believed(serve: Serve, authority: Authority) -> None:
    assert connect(serve(lambda _: TRUST), authority).trust(0) == [b"one", b"two"]


def test_a_certificate_of_another_authority_is_refused(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(errors.UntrustedServer, match="not signed by the authority"):
        connect(serve(lambda _: TRUST, stranger.issue("localhost")), authority).trust(0)


def test_a_certificate_for_another_host_is_refused(serve: Serve, authority: Authority) -> None:
    with pytest.raises(errors.UntrustedServer, match="certificate for another name"):
        connect(serve(lambda _: TRUST, authority.issue("example.org")), authority).trust(0)


@pytest.mark.parametrize(("start", "end", "words"), [(1, 2, "is not valid yet"), (-2, -1, "has expired")])
def test_a_certificate_out_of_its_time_is_reported_as_a_wrong_clock(
    serve: Serve, authority: Authority, start: float, end: float, words: str
) -> None:
    server = serve(lambda _: TRUST, authority.issue(start_days=start, end_days=end))
    with pytest.raises(errors.WrongClock, match=words):
        connect(server, authority).trust(0)


def test_a_clock_that_differs_from_the_servers_is_named_with_both_times(serve: Serve, authority: Authority) -> None:
    server = serve(lambda _: reply(encode({"trust": []}), Edge_Time="1893456000"))
    with pytest.raises(errors.WrongClock, match=r"clock says 2026-06-01 .* cloud's says 2030-01-01"):
        connect(server, authority, clock=lambda: 1780272000.0).trust(0)


def test_a_wrong_clock_is_named_even_where_the_server_refuses_for_it(serve: Serve, authority: Authority) -> None:
    server = serve(lambda _: refusal("401 Unauthorized", "expired", Edge_Time=str(time.time() + 4000)))
    with pytest.raises(errors.WrongClock):
        member(server, authority).tasks()


def test_a_server_that_does_not_speak_tls_is_not_trusted(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        cloud = HttpCloud(
            f"https://127.0.0.1:{listening.getsockname()[1]}", ca_bundle=authority.bundle, limits=IMPATIENT
        )
        import threading

        def speak_http() -> None:
            connection, _ = listening.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        threading.Thread(target=speak_http, daemon=True).start()
        with pytest.raises(errors.UntrustedServer, match="no secure connection"):
            cloud.trust(0)


def test_plain_http_is_never_spoken(authority: Authority) -> None:
    with pytest.raises(errors.EdgeError):
        HttpCloud("http://127.0.0.1:1", ca_bundle=authority.bundle, limits=IMPATIENT).trust(0)


# Down, slow, cut off, junk


def test_a_server_that_is_down_means_offline(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(errors.Offline):
        HttpCloud(f"https://127.0.0.1:{port}", ca_bundle=authority.bundle, limits=IMPATIENT).trust(0)


def test_a_silent_server_is_a_timeout(serve: Serve, authority: Authority) -> None:
    def silent(_: Request) -> bytes:
        time.sleep(5)
        return TRUST

    with pytest.raises(errors.TimedOut, match="silent"):
        connect(serve(silent), authority, limits=Limits(read_s=0.2, attempts=1)).trust(0)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_drips_bytes_is_cut_off_at_the_deadline(serve: Serve, authority: Authority, part: str) -> None:
    head, body = TRUST.split(b"\r\n\r\n")

    def slow(_: Request) -> Iterator[bytes]:
        if part == "body":
            yield head + b"\r\n\r\n"
        yield from drip(TRUST if part == "head" else body, every_s=0.1)

    started = time.monotonic()
    with pytest.raises(errors.TimedOut, match="too slow"):
        connect(serve(slow), authority, deadline=started + 0.6).trust(0)
    assert time.monotonic() - started < 2


def test_what_failed_for_a_moment_is_tried_again(serve: Serve, authority: Authority) -> None:
    busy = refusal("503 Service Unavailable", "not_ready")
    server = serve(in_turn(busy, close_after(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"), TRUST))
    assert connect(server, authority).trust(0) == [b"one", b"two"]
    assert len(server.requests) == 3


def test_the_pause_a_server_asks_for_is_kept(serve: Serve, authority: Authority) -> None:
    slept: list[float] = []
    server = serve(in_turn(refusal("429 Too Many Requests", "rate_limited", Retry_After="1"), TRUST))
    connect(server, authority, sleep=slept.append).trust(0)
    assert slept == [1.0]


def test_a_pause_longer_than_our_patience_ends_the_run(serve: Serve, authority: Authority) -> None:
    server = serve(lambda _: refusal("429 Too Many Requests", "rate_limited", Retry_After="900"))
    with pytest.raises(errors.RateLimited) as caught:
        connect(server, authority).trust(0)
    assert caught.value.retry_after_s == 900
    assert len(server.requests) == 1


def test_junk_is_a_malformed_message(serve: Serve, authority: Authority) -> None:
    with pytest.raises(errors.InvalidMessage):
        connect(serve(lambda _: reply(b"<html>hotel wifi</html>")), authority).trust(0)


def test_an_answer_that_is_not_http_means_offline(serve: Serve, authority: Authority) -> None:
    with pytest.raises(errors.Offline):
        connect(serve(lambda _: close_after(b"\x00\xffjunk\r\n\r\n")), authority).trust(0)


def test_an_endless_answer_is_cut_off(serve: Serve, authority: Authority) -> None:
    def endless(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    with pytest.raises(errors.TooLarge):
        connect(serve(endless), authority).trust(0)


def test_a_redirect_is_not_followed(serve: Serve, authority: Authority) -> None:
    server = serve(lambda _: reply(status="302 Found", Location="https://elsewhere.example/"))
    with pytest.raises(errors.EdgeError, match="redirects"):
        connect(server, authority).trust(0)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("403 Forbidden", "revoked", errors.Revoked),
        ("403 Forbidden", "not_granted", errors.NotGranted),
        ("426 Upgrade Required", "upgrade_required", errors.UpgradeRequired),
        ("410 Gone", "gone", errors.Gone),
        ("422 Unprocessable", "invalid_samples", errors.InvalidSamples),
    ],
)
def test_a_refusal_keeps_its_code(
    serve: Serve, authority: Authority, status: str, code: str, expected: type[errors.EdgeError]
) -> None:
    with pytest.raises(expected, match="the cloud says: because of"):
        member(serve(granting(lambda _: refusal(status, code))), authority).manifest("digits", None)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "426 Upgrade Required"])
def test_that_a_board_is_refused_only_the_cloud_itself_can_say(serve: Serve, authority: Authority, status: str) -> None:
    server = serve(granting(lambda _: reply(b"<h1>under maintenance</h1>", status=status)))
    with pytest.raises(errors.EdgeError, match=f"answered {status[:3]}; it is not the cloud") as caught:
        member(server, authority).manifest("digits", None)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone", "403 Forbidden", "200 OK"])
def test_what_a_proxy_says_of_an_upload_is_no_refusal_of_it(serve: Serve, authority: Authority, status: str) -> None:
    """What the cloud refuses leaves the outbox for good."""
    cloud = member(serve(granting(lambda _: reply(b"<h1>under maintenance</h1>", status=status))), authority)
    update = UpdateMeta("a" * 16, 1, BOARD, "b" * 32, samples=3, steps=3)
    for send in (
        lambda: cloud.contribute("digits", "a" * 32, b"samples", consent="v1", until=0.0),
        lambda: cloud.withdraw("digits"),
        lambda: RoundsOverHttp(cloud).update("digits", update, b"update"),
    ):
        with pytest.raises(errors.EdgeError) as caught:
            send()
        assert (caught.value.exit_code, caught.value.http_status) in ((1, 500), (8, 500))


def test_a_web_server_that_hands_out_files_may_say_that_one_is_not_there(serve: Serve, authority: Authority) -> None:
    server = serve(granting(lambda _: reply(b"<h1>Not Found</h1>", status="404 Not Found")))
    with pytest.raises(errors.NotFound):
        member(server, authority).manifest("digits", None)


def test_a_proxys_error_page_is_told_by_its_status(serve: Serve, authority: Authority) -> None:
    server = serve(lambda _: reply(b"<h1>Bad Gateway</h1>", status="502 Bad Gateway"))
    with pytest.raises(errors.RetryLater):
        connect(server, authority).trust(0)


# Access


def test_a_token_is_asked_for_once_and_kept_on_disk(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    server = serve(granting(lambda _: reply(b"m", ETag='"1"')))
    key, cache = SigningKey.generate(), tmp_path / "access.json"
    for _ in range(2):
        cloud = connect(server, authority, key=key, board=BOARD, token_cache=cache)
        assert cloud.manifest("digits", None) == (b"m", '"1"')
        cloud.manifest("digits", None)
    assert sum("/v1/access" in request.line for request in server.requests) == 1
    assert cache.stat().st_mode & 0o777 == 0o600


def test_a_token_the_server_forgot_is_replaced_once(serve: Serve, authority: Authority) -> None:
    answers = in_turn(refusal("401 Unauthorized", "unauthorized"), reply(b"m"))
    server = serve(granting(answers))
    assert member(server, authority).manifest("digits", None) == (b"m", "")
    assert sum("/v1/access" in request.line for request in server.requests) == 2


def test_a_board_that_is_refused_with_a_new_token_too_gives_up(serve: Serve, authority: Authority) -> None:
    server = serve(granting(lambda _: refusal("401 Unauthorized", "unauthorized")))
    with pytest.raises(errors.Unauthorized):
        member(server, authority).manifest("digits", None)
    assert len(server.requests) == 4


def test_every_attempt_to_get_a_token_has_a_nonce_of_its_own(serve: Serve, authority: Authority) -> None:
    granted = granting(lambda _: reply(b"m"))
    busy = iter([refusal("503 Service Unavailable", "not_ready")])
    server = serve(lambda request: next(busy, None) or granted(request))
    member(server, authority).manifest("digits", None)
    assert server.requests[0].body != server.requests[1].body


def test_without_a_key_a_board_is_not_enrolled(serve: Serve, authority: Authority) -> None:
    with pytest.raises(errors.NotEnrolled):
        connect(serve(lambda _: TRUST), authority).manifest("digits", None)


def test_a_request_carries_few_headers(serve: Serve, authority: Authority) -> None:
    server = serve(granting(lambda _: reply(b"m")))
    member(server, authority).manifest("digits", '"1"')
    assert set(server.requests[-1].headers) == {"host", "edge-wire", "authorization", "if-none-match"}
    assert server.requests[-1].raw_bytes < 220


def test_a_netrc_file_does_not_replace_the_token(
    serve: Serve, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    server = serve(granting(lambda _: reply(b"m")))
    member(server, authority).manifest("digits", None)
    assert server.requests[-1].headers["authorization"].startswith("Bearer ")


# Blobs


def ranged(request: Request) -> bytes:
    start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    if not start:
        return reply(DATA)
    return reply(DATA[start:], status="206 Partial Content", Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")


def test_a_blob_that_is_cut_off_goes_on_with_a_range(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    first = close_after(reply(DATA[:100_000], length=len(DATA)))
    cut = iter([first])
    server = serve(granting(lambda request: next(cut, None) or ranged(request)))
    cloud = member(server, authority)
    assert cloud.blob(NAME, len(DATA), tmp_path / "blob") == len(DATA)
    assert (tmp_path / "blob").read_bytes() == DATA
    assert server.requests[-1].headers["range"].startswith("bytes=")
    assert server.requests[-1].headers["if-range"] == f'"{NAME}"'


def test_a_later_run_fetches_only_what_is_missing(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "blob.part").write_bytes(DATA[:1000])
    cloud = member(serve(granting(ranged)), authority)
    assert cloud.blob(NAME, len(DATA), tmp_path / "blob") == len(DATA) - 1000


def test_a_whole_part_needs_no_request(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "blob.part").write_bytes(DATA)
    server = serve(granting(ranged))
    assert member(server, authority).blob(NAME, len(DATA), tmp_path / "blob") == 0
    assert (tmp_path / "blob").read_bytes() == DATA


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "blob.part").write_bytes(DATA[:1000])
    cloud = member(serve(granting(lambda _: reply(DATA))), authority)
    cloud.blob(NAME, len(DATA), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == DATA


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"!", DATA + b"more"])
def test_bytes_of_another_digest_leave_nothing(
    serve: Serve, authority: Authority, tmp_path: Path, wrong: bytes
) -> None:
    (tmp_path / "target").mkdir()
    cloud = member(serve(granting(lambda _: reply(wrong))), authority)
    with pytest.raises(errors.DigestMismatch):
        cloud.blob(NAME, len(DATA), tmp_path / "target" / "blob")
    assert list((tmp_path / "target").iterdir()) == []


def test_an_endless_blob_never_fills_the_disk(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    def endless(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    cloud = member(serve(granting(endless)), authority)
    with pytest.raises(errors.DigestMismatch, match="more than"):
        cloud.blob(NAME, len(DATA), tmp_path / "blob")
    assert cloud.bytes_down < len(DATA) + 200_000


def test_a_dripping_blob_ends_at_the_deadline_and_keeps_its_part(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    def slow(_: Request) -> Iterator[bytes]:
        yield reply(b"", length=len(DATA))
        yield from drip(DATA, every_s=0.05)

    cloud = member(serve(granting(slow)), authority, deadline=time.monotonic() + 0.7)
    with pytest.raises(errors.TimedOut):
        cloud.blob(NAME, len(DATA), tmp_path / "blob")
    assert DATA.startswith((tmp_path / "blob.part").read_bytes())
    assert (tmp_path / "blob.part").stat().st_size > 0


def test_whoever_counts_its_bytes_may_end_a_blob_and_what_came_stays(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    def enough(_received: int) -> None:
        raise ZeroDivisionError

    server = serve(granting(ranged))
    cloud = member(server, authority)
    with pytest.raises(ZeroDivisionError):
        cloud.blob(NAME, len(DATA), tmp_path / "blob", on_bytes=enough)
    came = (tmp_path / "blob.part").stat().st_size
    assert 0 < came < len(DATA)
    assert cloud.blob(NAME, len(DATA), tmp_path / "blob") == len(DATA) - came


def test_uploads_are_counted_with_their_answers(serve: Serve, authority: Authority) -> None:
    cloud = member(serve(granting(lambda _: reply(encode({"accepted": 2, "duplicates": 1})))), authority)
    before = cloud.bytes_up, cloud.bytes_down
    cloud.tasks()
    asked = cloud.bytes_up
    answer = cloud.contribute("digits", "0" * 32, b"12345", consent="packs", until=2e9)
    assert (answer.accepted, answer.duplicates) == (2, 1)
    assert before == (0, 0)
    assert cloud.bytes_up - asked == 5


# What comes along with a manifest


def test_what_was_cut_off_along_with_a_manifest_is_kept_and_not_asked_for_again(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    parts, listed = Parts(tmp_path), f"8, {NAME}:{len(DATA)}"
    cut = close_after(reply(b"manifest" + DATA[:100_000], length=8 + len(DATA), Edge_Parts=listed))
    manifests = iter([cut, reply(b"manifest", ETag='"1"', Edge_Parts="8")])
    server = serve(granting(lambda asked: next(manifests) if "/manifest" in asked.line else ranged(asked)))
    cloud = member(server, authority)
    assert cloud.manifest("digits", None, parts) == (b"manifest", '"1"')
    assert cloud.blob(NAME, len(DATA), tmp_path / "blob") == len(DATA)  # another name: nothing of it is there
    assert cloud.blob(NAME, len(DATA), tmp_path / NAME) == len(DATA) - parts.received_bytes < len(DATA)
    asked = [request.headers.get("edge-have") for request in server.requests if "/manifest" in request.line]
    assert asked == ["", NAME[:16]]


def test_a_cloud_that_sends_the_manifest_alone_is_understood(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    server = serve(granting(lambda _: reply(b"manifest", ETag='"1"')))
    assert member(server, authority).manifest("digits", None, Parts(tmp_path)) == (b"manifest", '"1"')


@pytest.mark.parametrize("keys", [(), (None, None), ("k" * 43,), ("!" * 44,)])
def test_keys_that_do_not_answer_the_question_are_refused(serve: Serve, authority: Authority, keys: tuple) -> None:
    server = serve(granting(lambda _: reply(encode({"keys": keys}))))
    with pytest.raises((errors.InvalidMessage, errors.Forged)):
        member(server, authority).pack_keys("digits", ("0" * 64,))
