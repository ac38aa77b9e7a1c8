"""What a cloud may stand on: servers that are started once for each run, by the first test that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import places
from tests.cloud import postgres_server
from tests.cloud.backends import Backend, Files, ObjectStore, Services
from tests.cloud.postgres_server import PostgresServer


def pytest_configure() -> None:
    """Before any folder is made."""
    places.choose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this run's own."""
    programs = postgres_server.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server of this run's own."""
    made = ObjectStore()
    yield made
    made.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that needs a backend runs once on each, unless its module (BACKENDS) or `files_only` says otherwise."""
    marked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "backend" in metafunc.fixturenames and not any("backend" in names for names in marked):
        names = getattr(metafunc.module, "BACKENDS", ("files", "services"))
        metafunc.parametrize("backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """What a cloud stands on."""
    if request.param == "files":
        return Files()
    server, store = request.getfixturevalue("postgres"), request.getfixturevalue("object_store")
    return Services(server, store.endpoint)
