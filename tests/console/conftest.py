"""The console: in this process for what needs no browser, and the real service with the system's Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from cloud_aug import cloud, settings
from cloud_aug.app import create_app
from cloud_aug.cloud import Cloud
from tests.cloud import toys
from tests.console import world
from tests.console.visiting import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def _filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.filled(tmp_path_factory.mktemp("console") / "cloud")


@pytest.fixture
def data(_filled_once: Path, tmp_path: Path) -> Path:
    """A data folder with a fleet and three accounts."""
    return Path(shutil.copytree(_filled_once, tmp_path / "cloud"))


@pytest.fixture
def clock() -> toys.Clock:
    """A clock that stands still until it is set."""
    return toys.Clock()


@pytest.fixture
def client(data: Path, clock: toys.Clock) -> Iterator[TestClient]:
    """The application on that folder, in this process."""
    app = create_app(settings.load(data), clock=clock)
    with TestClient(app, base_url="https://localhost", raise_server_exceptions=False, follow_redirects=False) as made:
        yield made


@pytest.fixture
def made(client: TestClient) -> Cloud:
    """The folder as the application has it open."""
    found: Cloud = client.app.state.cloud  # type: ignore[attr-defined]
    return found


@pytest.fixture
def visit(client: TestClient) -> Visit:
    """Somebody with a browser, not logged in yet."""
    return Visit(client)


@pytest.fixture(scope="module")  # while it is there, nobody else in this process can run an event loop
def browser() -> Iterator[Browser]:
    """The system's Chromium: the tests download none."""
    program = next(
        (path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None
    )
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root, in a container, there is no sandbox to be had; the only pages it opens are ours
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def served(_filled_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[toys.Server, Cloud]]:
    """The real service with two workers, and the folder it serves."""
    folder = Path(shutil.copytree(_filled_once, tmp_path_factory.mktemp("served") / "cloud"))
    opened = cloud.open_cloud(folder)
    with toys.serving(folder, "--workers", "2") as server:
        yield server, opened
    opened.database.close()
    assert not re.search(r"Traceback", "".join(server.lines))
