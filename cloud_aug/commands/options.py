"""Options that commands share, and how days and spans are written."""

from __future__ import annotations

import contextlib
import datetime
import enum
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.settings import DATA_VARIABLE, default_data_folder
from edgewire.errors import UsageError

if TYPE_CHECKING:
    from cloud_aug.cloud import Cloud


class EngineName(str, enum.Enum):
    """Who does what is much."""

    plain = "plain"
    ray = "ray"


_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Data = Annotated[
    Path | None,
    typer.Option("--data", envvar=DATA_VARIABLE, help="The data folder.", show_default="/var/lib/cloud-aug, or XDG"),
]
Json = Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")]
TaskOption = Annotated[str, typer.Option("--task", help="The task's id.")]
Offline = Annotated[
    Path | None, typer.Option("--offline", help="The folder with the root and CA keys, where it is not the usual one.")
]

EngineOption = Annotated[
    EngineName, typer.Option("--engine", help="plain: this process does it all; ray: a Ray cluster does (extra scale).")
]
Address = Annotated[
    str,
    typer.Option(
        "--address", help="HOST:PORT of the Ray cluster that this machine is in.  [default: one for this run]"
    ),
]


@contextlib.contextmanager
def engine(name: EngineName, address: str) -> Iterator[bool]:
    """Whether Ray does it; it is there within the context. Raises UsageError for an address that nobody asks for."""
    if name is EngineName.plain:
        if address:
            raise UsageError("--address is of a Ray cluster", hint="add --engine ray")
        yield False
        return
    from cloud_aug.on_ray import cluster

    with cluster(address):
        yield True


# Of federated learning, played or real.
Sets = Annotated[list[str] | None, typer.Option("--set", help="An option of the algorithm, NAME=NUMBER; repeatable.")]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Passes of a board over its samples.")]
Batch = Annotated[int, typer.Option("--batch-size", min=0, help="0: all samples of a board.")]
Rate = Annotated[float, typer.Option("--learning-rate", min=1e-9, help="Of a board.")]
Noise = Annotated[float, typer.Option("--noise", min=0, help="Of each board's own, over twice the clip; 0: none.")]
Clip = Annotated[float, typer.Option("--clip", min=1e-9, help="Longest update that is sent with noise.")]
Compression = Annotated[str, typer.Option(help="Of updates: none, topk, dgc, eight-bit, one-bit or sparse.")]
Down = Annotated[
    str, typer.Option("--down", help="How weights go to boards: none (whole), eight-bit, or changes since last time.")
]


def opened(data: Path | None, *, offline: Path | None = None) -> Cloud:
    """The data folder, opened."""
    from cloud_aug.cloud import open_cloud

    return open_cloud(data or default_data_folder(), offline=offline)


def span_s(text: str) -> float:
    """'24h', '10m', '7d' in seconds. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"'{text}' is not a span of time", hint="write for example 24h, 30m or 7d")
    return float(found[1]) * _UNITS_S[found[2]]


def numbers(text: str) -> tuple[int, ...]:
    """'1,3,10' as numbers in order. Raises UsageError."""
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1:
        raise UsageError(f"'{text}' is not a list of numbers", hint="write for example --shots 1,3,10")
    return found


def day(text: str) -> float:
    """'2027-01-31' (its end, UTC), or a date and time, as seconds since 1970. Raises UsageError."""
    try:
        when = datetime.datetime.fromisoformat(text)
        when += datetime.timedelta(days=1 if len(text) <= len("2027-12-31") else 0)
    except ValueError:
        raise UsageError(f"'{text}' is not a date", hint="write for example 2027-12-31") from None
    except OverflowError:
        raise UsageError(f"'{text}' is too far away", hint="write for example 2099-12-31") from None
    return (when if when.tzinfo else when.replace(tzinfo=datetime.timezone.utc)).timestamp()


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as people write it, UTC."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def option_of(text: str) -> tuple[str, float]:
    """'mu=0.1' as name and number. Raises UsageError."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"'{text}' is no option of an algorithm", hint="write for example --set mu=0.1") from None
