"""Several processes, and several services, on one pool: what one knows the others know."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cloud_aug import auth, boards, cloud, index, pool, publications, workers
from cloud_aug.cloud import Cloud
from edgewire.files import exclusive
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.test_cloud_serve import connect, shaken

PATIENCE_S = 60


def limited(data: Path, **limits: float) -> None:
    """Set limits in settings.toml."""
    file = data / "settings.toml"
    file.write_text(file.read_text() + "".join(f"{name} = {value}\n" for name, value in limits.items()))


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Any) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.fixture
def made(data: Path) -> Iterator[Cloud]:
    opened = cloud.open_cloud(data)
    yield opened
    opened.database.close()


@contextlib.contextmanager
def each(servers: list[toys.Server], made: Cloud) -> Iterator[list[httpx2.Client]]:
    """A client for each of several services."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(server.url, made.trust().authorities)) for server in servers]


def test_two_services_on_one_pool_answer_as_one(data: Path, made: Cloud) -> None:
    limited(data, requests_per_board_per_minute=6)
    with toys.serving(data) as one, toys.serving(data) as two, each([one, two], made) as (first, second):
        board = toys.Board().enroll(first, made, now=time.time())
        request = board.access(now=time.time())
        headers = {"Authorization": f"Bearer {second.post('/v1/access', content=request).json()['token']}"}
        assert first.post("/v1/access", content=request).json()["error"]["code"] == "replayed"
        manifest = "/v1/tasks/toy/manifest"
        assert first.get(manifest, headers=headers).content == second.get(manifest, headers=headers).content
        answers = [client.get(manifest, headers=headers) for client in (first, second) * 5]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) in range(4, 7), "ten more were sent, at most in two minutes"
        assert 1 <= int(refused[0].headers["retry-after"]) <= 60
        boards.revoke(made, board.id, now=time.time())
        assert [client.get(manifest, headers=headers).status_code for client in (first, second)] == [403, 403]


def test_every_worker_answers_with_a_new_publication_at_once(data: Path, made: Cloud, tmp_path: Path) -> None:
    with toys.serving(data, "--workers", "2") as server:
        authorities = made.trust().authorities
        with connect(server.url, authorities) as client:
            headers = toys.Board().enroll(client, made, now=time.time()).headers(client, now=time.time())
        seen = set()
        for version in (1, 2):
            if version == 2:
                file = toys.data_file(tmp_path / "more.npz", toys.people(4, seed=3))
                pool.ingest(made, file, "toy", pool.Consent("packs", toys.FAR), now=time.time())
                index.build(made, "toy", seed=0, now=time.time(), on_progress=toys.quiet)
            assert publications.require(made, "toy").version == version
            found = set()
            for _ in range(12):
                with connect(server.url, authorities) as client:  # a connection of its own: either worker may take it
                    found.add(client.get("/v1/tasks/toy/manifest", headers=headers).headers["etag"])
            assert len(found) == 1
            seen |= found
        assert len(seen) == 2


@files_only
def test_a_killed_worker_is_replaced_and_the_port_stays(data: Path, made: Cloud) -> None:
    with toys.serving(data, "--workers", "2") as server:
        before = children(server.pid)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(children(server.pid)) == 2 and before[0] not in children(server.pid))
        for _ in range(6):
            with connect(server.url, made.trust().authorities) as client:
                assert client.get("/readyz").json() == {"status": "ready"}


@files_only
def test_workers_do_not_outlive_a_killed_parent(data: Path) -> None:
    with toys.serving(data, "--workers", "2") as server:
        orphans = children(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(PATIENCE_S)
        until(lambda: not any(_alive(pid) for pid in orphans))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@files_only
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_lets_a_request_under_way_end_and_refuses_new_ones(data: Path, made: Cloud, workers: str) -> None:
    import ssl

    context = ssl.create_default_context(cadata="\n".join(made.trust().authorities))
    body = b'{"payload": "", "key_id": "", "signature": ""}'
    head = f"POST /v1/access HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with toys.serving(data, "--workers", workers) as server, shaken(server.port, context) as connection:
        connection.sendall(head + body[:10])
        until(lambda: _inside(server, made) == 2)  # it, and the one that asks
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not _listens(server.port))
        connection.sendall(body[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 4"), "an answer, if not the one it hoped for"
        assert server.process.wait(PATIENCE_S) in (0, -signal.SIGTERM)
    assert "shutdown exceeded" not in "".join(server.lines), "this client, which does not close, was waited for"


def _inside(server: toys.Server, made: Cloud) -> float:
    return sum(metric(server, made, "cloud_requests_inside").values())


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def metric(server: toys.Server, made: Cloud, name: str) -> dict[str, float]:
    """The values of a metric, by labels."""
    secret = auth.make_administrator(made, "watcher", metrics_only=True, now=time.time(), valid_for_s=600)
    with connect(server.url, made.trust().authorities) as client:
        text = client.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    found = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.M)
    return {labels: float(value) for labels, value in found}


@files_only
def test_the_metrics_of_all_workers_come_from_any_of_them(data: Path, made: Cloud) -> None:
    with toys.serving(data, "--workers", "2") as server:
        barrier = threading.Barrier(8)

        def ask() -> None:
            with connect(server.url, made.trust().authorities) as client:
                barrier.wait(PATIENCE_S)
                assert client.get("/healthz").status_code == 200

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        answered = {"method": "GET", "route": "/healthz", "status": "200"}
        labels = "{" + ",".join(f'{name}="{value}"' for name, value in answered.items()) + "}"
        assert metric(server, made, "cloud_requests_total")[labels] == 8


def test_counters_of_a_service_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    killed, serving, begun = (tmp_path / f"cloud-aug-metrics-{name}" for name in ("killed", "serving", "begun"))
    for folder in (killed, serving, begun, tmp_path / "other"):
        folder.mkdir()
        (folder / "counter_1.db").touch()
        os.utime(folder, (1, 1) if folder != begun else None)
    with exclusive(serving / "lock", doing="serving"):
        os.utime(serving, (1, 1))
        workers.forget_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {serving.name, begun.name, "other"}
