"""What commands print: data on stdout (lines for people, or one JSON document), talk on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCHEMA_VERSION = 1


def emit(report: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print a report. With as_json the report itself, under the version of its schema; else the lines made from it."""
    if as_json:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **report}, ensure_ascii=False, allow_nan=False)
    else:
        text = "\n".join(clean(line) for line in lines)
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Tell a person something that is not the command's result."""
    sys.stderr.write(clean(text) + "\n")


def clean(text: str) -> str:
    """Without control characters: names and messages come from elsewhere and must not steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns; numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))]
    return [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]


def plural(count: int, noun: str) -> str:
    """'1 sample', '2 samples'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
