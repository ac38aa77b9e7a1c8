"""The live view in a terminal. The only place of the board that imports rich."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgectl.output import clean
from edgectl.telemetry.reading import Reading
from edgectl.telemetry.show import rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def show(readings: Iterable[Reading], *, console: Console | None = None) -> None:
    """Draw each reading over the one before, until there are no more."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        for reading in readings:
            live.update(table(reading), refresh=True)


def table(reading: Reading) -> Table:
    """One reading: what is bad stands out, what is unknown steps back."""
    from rich.table import Table
    from rich.text import Text

    made = Table("what", "now", "remark", title="edgectl telemetry", caption="Ctrl-C ends")
    for name, value, remark in rows(reading):
        style = "dim" if value == "unknown" else "bold red" if _is_bad(reading, name) else ""
        made.add_row(Text(name, style), Text(value, style), Text(clean(remark), "dim"))
    return made


def _is_bad(reading: Reading, name: str) -> bool:
    return (name == "throttled" and bool(reading.throttled)) or (
        name == "under-voltage" and bool(reading.under_voltage)
    )
