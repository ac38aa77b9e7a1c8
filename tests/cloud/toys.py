"""A toy task, a pool for it, a board's hand, and a real server: what tests of the cloud, and tests with a cloud, share.

data = toys.published(tmp_path / "cloud")          # a data folder with task 'toy', pool, base and publication
with toys.serving(data) as server:                 # the real `cloud-aug serve`, TLS on a free loopback port
    server.url, server.authorities, server.pid
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloud_aug import auth, cloud, index, pool, pretrain, tasks
from cloud_aug.cloud import Cloud, Stores
from edgewire.decoding import encode, plain
from edgewire.messages import AccessRequest, EnrolRequest
from edgewire.signing import SigningKey, Statement, seal
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task
from edgewire.trust import public_text

TASK = Task(
    "toy",
    "Three blobs in the plane",
    InputSchema((2,)),
    ("left", "right", "top"),
    ModelSpec("mlp", width=8, embedding=8),
    privacy=Privacy(modes=("directory", "embedding"), min_cohort=2),
)
HOSTS = ("localhost", "127.0.0.1")
FAR = 4e9  # a consent that holds for long
CENTRES = np.array([[-3.0, -2.0], [3.0, -2.0], [0.0, 3.0]])


def people(count: int = 6, per_class: int = 6, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of a data file: every other person's samples are shifted the other way."""
    rng = np.random.default_rng(seed)
    y = np.tile(np.repeat(np.arange(3), per_class), count)
    person = np.repeat(np.arange(count), 3 * per_class)
    shift = np.where(person % 2 == 0, 1.0, -1.0)[:, None] * np.array([1.0, 0.5])
    x = rng.normal(CENTRES[y] + shift, 0.4).astype(np.float32)
    names = np.asarray([f"person-{i}" for i in range(count)])
    return {"x": x, "y": np.asarray(TASK.labels)[y], "user": names[person]}


def data_file(path: Path, columns: dict[str, np.ndarray] | None = None) -> Path:
    """A data file (NPZ)."""
    np.savez(path, **(people() if columns is None else columns))
    return path


def empty(folder: Path, stores: Stores | None = None, *, hosts: Sequence[str] = HOSTS) -> Cloud:
    """A cloud with keys and nothing else."""
    url, now = f"https://{hosts[0]}:8443", time.time()
    return cloud.create(folder, url=url, hosts=hosts, offline=None, stores=stores, now=now)[0]


def filled(folder: Path, stores: Stores | None = None, *, hosts: Sequence[str] = HOSTS) -> Cloud:
    """A cloud with the toy task and a pool."""
    made = empty(folder, stores, hosts=hosts)
    tasks.publish(made, TASK, now=time.time())
    file = data_file(folder / "people.npz")
    pool.ingest(made, file, "toy", pool.Consent("packs", FAR), now=time.time())
    return made


def published(folder: Path, stores: Stores | None = None, *, hosts: Sequence[str] = HOSTS) -> Path:
    """A data folder with the toy task, its pool, a base model and a publication; about three seconds."""
    made = filled(folder, stores, hosts=hosts)
    settings = pretrain.TrainSettings(epochs=60, rehearse=False)
    pretrain.train(made, "toy", settings, now=time.time(), on_progress=quiet)
    index.build(made, "toy", seed=0, now=time.time(), on_progress=quiet)
    made.database.close()
    return folder


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass
class Clock:
    """A clock that tests set."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass
class Board:
    """What a board does to get in, over any client with `post(path, content=...)`."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    id: str = ""
    trust: tuple[str, ...] = ()

    def statement(self, kind: str, body: Any, *, now: float, lifetime_s: float = 120.0) -> bytes:
        """A request signed by this board."""
        return seal(self.key, Statement(kind, "", 0, 0, now, now + lifetime_s, plain(body)))

    def enrolment(self, token: str, *, now: float) -> bytes:
        """The signed request that introduces this board."""
        body = EnrolRequest(token, "board-1", "generic", public_text(self.key.public))
        return self.statement("enroll", body, now=now)

    def access(self, *, now: float, nonce: str | None = None) -> bytes:
        """A signed request for an access token."""
        return self.statement("access", AccessRequest(self.id, nonce or secrets.token_hex(16)), now=now)

    def enroll(self, client: Any, cloud_: Cloud, *, tasks_: tuple[str, ...] = ("toy",), now: float) -> Board:
        """Enroll with a new token."""
        token = auth.make_enrolment_token(cloud_, tasks_, now=now, valid_for_s=3600)
        answer = client.post("/v1/enroll", content=self.enrolment(token, now=now))
        assert answer.status_code == 200, answer.text
        self.id, self.trust = answer.json()["board"], tuple(answer.json()["trust"])
        return self

    def headers(self, client: Any, *, now: float) -> dict[str, str]:
        """The header that shows a new access token."""
        answer = client.post("/v1/access", content=self.access(now=now))
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['token']}"}


@dataclass
class Server:
    """A running `cloud-aug serve`."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


def command(*arguments: str, data: Path) -> list[str]:
    """A `cloud-aug` command line for a data folder."""
    return [sys.executable, "-m", "cloud_aug", *arguments, "--data", str(data)]


def run(*arguments: str, data: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a `cloud-aug` command to its end."""
    line = command(*arguments, data=data)
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False)


def report(*arguments: str, data: Path) -> dict[str, Any]:
    """What a command that must succeed says with --json."""
    done = run(*arguments, "--json", data=data)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def environment() -> dict[str, str]:
    """Ours, with this source tree in front."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def serving(data: Path, *options: str) -> Iterator[Server]:
    """The real server on a free port, ended by its pid. `settings.toml` gets the port, for new enrolment files."""
    line = command("serve", "--bind", "127.0.0.1", "--port", "0", *options, data=data)
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment())
    server = Server(process, 0, [])
    ready = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for text in process.stderr:
            server.lines.append(text)
            if found := re.search(r"serving https://\S+:(\d+)", text):
                server.port = int(found[1])
                ready.set()
        ready.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        ready.wait(180)
        assert server.port, "".join(server.lines)
        set_url(data, server.url)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        if process.poll() is None:
            process.kill()
            process.wait(10)
        thread.join(10)


def set_url(data: Path, url: str) -> None:
    """For enrolment files that are made from now on."""
    file = data / "settings.toml"
    file.write_text(re.sub(r'^url = ".*"$', f'url = "{url}"', file.read_text(), flags=re.M))


def publish_changed(made: Cloud, **privacy: Any) -> None:
    """Publish the toy task with another privacy policy."""
    changed = {**plain(TASK), "privacy": {**plain(TASK.privacy), **privacy}}
    tasks.publish(made, tasks.read(encode(changed)), now=time.time())
