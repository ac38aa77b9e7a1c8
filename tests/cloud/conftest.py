"""Fixtures: one toy cloud is built per session and copied for each test, once for each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cloud_aug import settings
from cloud_aug.app import create_app
from cloud_aug.cloud import Cloud
from tests.cloud import toys
from tests.cloud.backends import Backend


@pytest.fixture(scope="session")
def _published_once(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.published(tmp_path_factory.mktemp("published") / "cloud", backend.stores())


@pytest.fixture
def data(backend: Backend, _published_once: Path, tmp_path: Path) -> Iterator[Path]:
    """A data folder with the toy task, its pool, a base and a publication."""
    with backend.copied(_published_once, tmp_path / "cloud") as copied:
        yield copied


@pytest.fixture
def clock() -> toys.Clock:
    """A clock that stands still until it is set."""
    return toys.Clock()


@pytest.fixture
def client(data: Path, clock: toys.Clock) -> Iterator[TestClient]:
    """The application on that folder, in this process."""
    app = create_app(settings.load(data), clock=clock)
    with TestClient(app, base_url="https://localhost", raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def cloud(client: TestClient) -> Cloud:
    """The folder as the application has it open."""
    found: Cloud = client.app.state.cloud  # type: ignore[attr-defined]
    return found


@pytest.fixture
def board(client: TestClient, cloud: Cloud, clock: toys.Clock) -> toys.Board:
    """An enrolled board with a grant for the toy task."""
    return toys.Board().enroll(client, cloud, now=clock())


@pytest.fixture
def bearer(client: TestClient, board: toys.Board, clock: toys.Clock) -> dict[str, str]:
    """The header with the board's access token."""
    return board.headers(client, now=clock())


@pytest.fixture
def code() -> Callable[[object], tuple[int, str]]:
    """Status and error code of an answer."""
    return lambda answer: (answer.status_code, answer.json()["error"]["code"])  # type: ignore[attr-defined]
