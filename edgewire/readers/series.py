"""A table with a row per step of a sensor -> windows of a task. Windows never cross recordings, labels or gaps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from edgewire.errors import InvalidSamples
from edgewire.readers.tables import Columns
from edgewire.tasks import InputSchema, Windows

GAP_STEPS = 8  # a pause of more steps of the task's rate ends a stretch
_KEYS = ("user", "group", "y", "part")


def is_series(columns: Columns, schema: InputSchema) -> bool:
    """Whether a row is a step in time, and not a whole sample written flat."""
    x = columns["x"]
    return isinstance(schema.windows, Windows) and x.ndim == 2 and x.shape[1] == _channels(schema) != schema.values


def cut_rows(
    columns: Columns, times: np.ndarray | None, schema: InputSchema, *, name: str, limit_bytes: int
) -> Columns:
    """Columns with a row per window. columns: x (steps, channels), and user, group, y, part where there are any;
    times: seconds (steps,) or None.

    With times, the values are first interpolated (linearly) to the task's rate; without, the rows are taken to have it.
    Without a column 'group' the table is one recording, of that name. Raises InvalidSamples.
    """
    windows = schema.windows
    assert isinstance(windows, Windows)  # noqa: S101 -- is_series
    if "group" not in columns:
        columns = {**columns, "group": np.full(len(columns["x"]), name)}
    keys = [key for key in _KEYS if key in columns]
    cut: list[np.ndarray] = []
    first: list[int] = []  # of each window's stretch
    began: list[np.ndarray] = []
    size = 0
    for start, stop in _stretches(columns, keys, times, windows.rate_hz):
        grid = None if times is None else _grid(times[start:stop], windows.rate_hz)
        steps = stop - start if grid is None else len(grid)
        count = max(0, (steps - schema.shape[0]) // windows.hop + 1)
        size += count * schema.values * 8
        if size > limit_bytes:
            raise InvalidSamples(f"the windows are more than {limit_bytes} bytes", hint="add it in smaller pieces")
        if count:
            values = columns["x"][start:stop].astype(np.float64)
            if grid is not None and times is not None:
                values = np.stack([np.interp(grid, times[start:stop], channel) for channel in values.T], axis=1)
                began.append(grid[: count * windows.hop : windows.hop][:count])
            cut.append(_windows(_in_kind(values * windows.scale, schema.dtype), schema.shape[0], windows.hop))
            first += [start] * count
    _check_none_empty(columns, first, schema)
    found = {key: columns[key][first] for key in keys}
    if began:
        found["time"] = np.concatenate(began)
    return {"x": np.concatenate(cut), **found}


def _channels(schema: InputSchema) -> int:
    return schema.values // schema.shape[0] if len(schema.shape) <= 2 else 0


def _stretches(columns: Columns, keys: list[str], times: np.ndarray | None, rate_hz: float) -> list[tuple[int, int]]:
    """Rows [start, stop) of one recording and label without a gap."""
    ends = np.zeros(max(0, len(columns["x"]) - 1), bool)
    for key in keys:
        ends |= columns[key][1:] != columns[key][:-1]
    if times is not None:
        if not np.isfinite(times).all():
            raise InvalidSamples(f"row {int(np.argmin(np.isfinite(times)))} of a recording has no time")
        step = np.diff(times)
        if (backward := ~ends & (step <= 0)).any():
            raise InvalidSamples(
                f"time does not rise after row {int(np.argmax(backward))}", hint="sort each recording by its time"
            )
        ends |= step * rate_hz > GAP_STEPS
    edges = [0, *(np.flatnonzero(ends) + 1).tolist(), len(columns["x"])]
    return list(pairwise(edges))


def _grid(times: np.ndarray, rate_hz: float) -> np.ndarray:
    """Moments one step apart, from the first time to the last (a hundredth of a step of jitter is forgiven)."""
    return np.asarray(times[0] + np.arange(int((times[-1] - times[0]) * rate_hz + 0.01) + 1) / rate_hz)


def _in_kind(values: np.ndarray, dtype: str) -> np.ndarray:
    """What the task's dtype can hold, before windows overlap and everything is there several times."""
    if dtype != "float32":
        return np.asarray(np.rint(values))
    with np.errstate(over="ignore"):  # becomes infinite, and is refused with its row
        return values.astype(np.float32)


def _windows(values: np.ndarray, length: int, hop: int) -> np.ndarray:
    """(steps, channels) -> (windows, length, channels)"""
    view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)[::hop]
    return np.moveaxis(view, -1, 1)


def _check_none_empty(columns: Columns, first: list[int], schema: InputSchema) -> None:
    lost = np.setdiff1d(columns["group"], columns["group"][first])
    if len(lost):
        raise InvalidSamples(
            f"recording '{lost[0]}' has no stretch of {schema.shape[0]} steps with one label and without a gap",
            hint="remove it, or record for longer",
        )
