"""What an operator may set, in `settings.toml` inside the data folder. Everything has a default but the address."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edgewire.errors import NotFound, UsageError
from edgewire.files import write_atomic

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

DATA_VARIABLE = "CLOUD_AUG_DATA"
FILE_NAME = "settings.toml"
DATABASE_NAME = "cloud.sqlite3"
DEFAULT_PORT = 8443

Url = Annotated[str, Meta(pattern=r"^https://[^\s/]+$", max_length=300)]


@dataclass(frozen=True)
class Limits:
    """What one board, or all together, may ask for at once."""

    requests_at_once: Annotated[int, Meta(ge=1)] = 64  # in one worker
    live_streams: Annotated[int, Meta(ge=1)] = 16  # of the console, in one worker; they count as requests
    requests_per_board_per_minute: Annotated[int, Meta(ge=1)] = 1200  # over all workers and services
    requests_per_address_per_minute: Annotated[int, Meta(ge=1)] = 1200  # of those without a valid token
    body_idle_s: Annotated[float, Meta(gt=0)] = 30.0
    body_min_bytes_per_s: Annotated[int, Meta(ge=1)] = 4096
    answer_idle_s: Annotated[float, Meta(gt=0)] = 30.0
    shutdown_s: Annotated[float, Meta(gt=0)] = 20.0
    quarantined_samples_per_board: Annotated[int, Meta(ge=1)] = 20_000
    reports_per_board: Annotated[int, Meta(ge=1)] = 10_000
    telemetry_per_board: Annotated[int, Meta(ge=1)] = 48  # messages; older ones are dropped
    samples_per_contributor: Annotated[int, Meta(ge=1)] = 100_000
    pack_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 4 << 20
    pack_samples_per_contributor: Annotated[int, Meta(ge=1)] = 2000
    index_mib: Annotated[int, Meta(ge=1)] = 1024  # memory that the search index of one task may take
    cache_bytes: Annotated[int, Meta(ge=1 << 20)] = 8 << 30  # of blobs, on this machine, where an object store has them


@dataclass(frozen=True)
class Settings:
    """url: where boards reach it; hosts: names in the certificate; database_url: '' is SQLite in the data folder.

    object_store: s3://BUCKET/PREFIX, '' is a folder in the data folder; object_store_endpoint: '' is AWS; offload: the
    location where a web server in front hands out blobs by itself (X-Accel-Redirect), '' is none.
    """

    data: Path
    url: Url
    hosts: tuple[str, ...]
    bind: str = "0.0.0.0"  # noqa: S104  (a service is there to be reached; `serve --bind` narrows it)
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_PORT
    offline: str = ""
    database_url: str = ""
    object_store: str = ""
    object_store_endpoint: str = ""
    offload: Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9_-]+/)?$")] = ""
    limits: Limits = Limits()

    @property
    def database(self) -> str:
        """The database's address for SQLAlchemy."""
        return self.database_url or f"sqlite:///{self.data / DATABASE_NAME}"

    @property
    def offline_folder(self) -> Path:
        """Where the root and CA keys are. Meant to be moved to a medium that is only there while keys are rotated."""
        return Path(self.offline) if self.offline else self.data / "offline"

    @property
    def locks(self) -> Path:
        """The folder of lock files."""
        return self.data / "locks"


def default_data_folder(environment: dict[str, str] | None = None) -> Path:
    """`CLOUD_AUG_DATA`, else `/var/lib/cloud-aug` for root, else the XDG data folder."""
    env = dict(os.environ) if environment is None else environment
    if env.get(DATA_VARIABLE):
        return Path(env[DATA_VARIABLE])
    if os.geteuid() == 0:
        return Path("/var/lib/cloud-aug")
    return Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "cloud-aug"


def load(data: Path) -> Settings:
    """Read a data folder's settings. Raises NotFound if there are none, UsageError for wrong ones."""
    path = data / FILE_NAME
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"there is no cloud in {data}", hint="run 'cloud-aug init', or name its folder with --data"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(values) - set(Settings.__dataclass_fields__) | ({"data"} & set(values)))
    if isinstance(limits := values.get("limits"), dict):
        unknown += sorted(f"limits.{name}" for name in set(limits) - set(Limits.__dataclass_fields__))
    if unknown:
        raise UsageError(f"{path}: unknown setting '{unknown[0]}'")
    try:
        return msgspec.convert({**values, "data": str(data)}, Settings, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from None


def save(settings: Settings) -> None:
    """Write a first settings file that a person can read and edit."""
    # 0600: the address of a database may hold its password
    write_atomic(settings.data / FILE_NAME, _text(settings).encode(), mode=0o600)


def _text(settings: Settings) -> str:
    # a JSON string is a TOML string
    hosts = ", ".join(json.dumps(host) for host in settings.hosts)
    offline = f"offline = {json.dumps(settings.offline)}" if settings.offline else '# offline = "/media/keys"'
    return f"""\
# Where boards reach this service, and the names and addresses its certificate is valid for.
url = "{settings.url}"
hosts = [{hosts}]

bind = "{settings.bind}"
port = {settings.port}

# The folder with the root key and the CA key. Keep it on a medium that is only plugged in while keys are rotated.
{offline}

# Empty: SQLite in this folder. Or for example "postgresql+psycopg://user@host/cloud".
{_line("database_url", settings.database_url)}

# Empty: a folder in this folder. Or for example "s3://bucket/prefix", with the address of a store that is not AWS.
{_line("object_store", settings.object_store)}
{_line("object_store_endpoint", settings.object_store_endpoint)}

# Where a web server in front hands out blobs by itself, see docs/operations.md. Empty: it does not.
{_line("offload", settings.offload)}

[limits]
# requests_at_once = {settings.limits.requests_at_once}
# requests_per_board_per_minute = {settings.limits.requests_per_board_per_minute}
# requests_per_address_per_minute = {settings.limits.requests_per_address_per_minute}
# body_idle_s = {settings.limits.body_idle_s}
"""


def _line(name: str, value: str) -> str:
    """A setting, as a comment where it is the default."""
    return f"{'' if value else '# '}{name} = {json.dumps(value)}"
