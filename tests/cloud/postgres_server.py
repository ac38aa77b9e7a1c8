"""A real PostgreSQL, on a Unix socket in a folder of its own, started by the tests and stopped by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests import places

NOBODY = 65534


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`: Debian keeps them off the PATH. None: not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return debian[-1].parent if debian else Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """Databases at `address(name)`. It refuses to run as root, so root starts it as nobody."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=places.for_sockets()))
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        self._run("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", **quiet)
        self.process = self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server (again) and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        line = [*self._as_nobody(), str(self._bin / "postgres"), "-D", self._data, *options]
        self.process = subprocess.Popen(line, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 60
        while self._run("pg_isready", "-h", self.folder, "-q").returncode != 0:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)
        return self.process

    def stop(self) -> None:
        """Stop it at once: connections are cut, what was committed stays."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def address(self, name: str) -> str:
        """For `database_url`."""
        return f"postgresql+psycopg://tester@/{name}?host={self.folder}"

    def create(self, name: str, *, copy_of: str = "template0") -> str:
        """A new database, empty or like one that nobody uses now; returns its address."""
        self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{copy_of}"')
        return self.address(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self._administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _administer(self, statement: str) -> None:
        """Not by createdb and the like: their start takes longer than the work."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="tester", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        line = [*self._as_nobody(), str(self._bin / program), *map(str, arguments)]
        return subprocess.run(line, cwd=self.folder, **{"check": False, **options})  # type: ignore[call-overload,no-any-return]

    def _as_nobody(self) -> list[str]:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return drop if os.geteuid() == 0 else []
