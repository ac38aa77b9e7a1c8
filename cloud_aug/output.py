"""How commands talk: data on stdout, talk on stderr, progress only where somebody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from edgewire.decoding import encode, plain
from edgewire.errors import EdgeError
from edgewire.messages import ErrorBody, RecipeFigure

SCHEMA_VERSION = 1
LINE_EVERY_S = 10.0

Progress = Callable[[str, int, int], None]


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Report a result: JSON with a schema version, or text for people."""
    if as_json:
        sys.stdout.write(encode({"schema_version": SCHEMA_VERSION, **plain(value)}).decode() + "\n")
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def figures_table(figures: Iterable[RecipeFigure]) -> str:
    """What recipes gained in a rehearsal."""
    rows: list[tuple[object, ...]] = [
        (f.shots, f.recipe, f"{f.gain:+.3f}", f"{f.spread:.3f}", f"{f.harm:.0%}", f.boards)
        for f in sorted(figures, key=lambda f: (f.shots, f.recipe))
    ]
    return table(rows, ("shots", "recipe", "gain", "spread", "harmed", "boards"))


def say(text: str) -> None:
    """Talk, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show_error(error: EdgeError, *, as_json: bool) -> None:
    """What failed and what to do next: for people on stderr, with --json as data too."""
    say(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
    if as_json:
        body = ErrorBody(error.code, error.message, error.hint)
        sys.stdout.write(encode({"schema_version": SCHEMA_VERSION, "error": plain(body)}).decode() + "\n")
        sys.stdout.flush()


@contextmanager
def progress() -> Iterator[Progress]:
    """A function (stage, done, total) that shows bars on a terminal, elsewhere a line per stage and now and then."""
    if sys.stderr.isatty():
        with _bars() as on_progress:
            yield on_progress
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in known:
                for earlier in known.values():
                    bars.update(earlier, completed=bars.tasks[earlier].total)
                known[stage] = bars.add_task(stage, total=total)
            bars.update(known[stage], completed=done, total=total)

        yield on_progress
        for last in known.values():
            bars.update(last, completed=bars.tasks[last].total)


def _lines() -> Progress:
    stages: dict[str, float] = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage not in stages or now - stages[stage] > LINE_EVERY_S:
            stages[stage] = now
            say(f"{stage}: {done} of {total}" if total > 1 else stage)

    return on_progress


def table(rows: list[tuple[object, ...]], header: tuple[str, ...]) -> str:
    """Columns for people."""
    cells = [header, *[tuple("-" if cell is None else str(cell) for cell in row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
