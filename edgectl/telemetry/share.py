"""Tell the cloud how this board is, where the site wants that: a bounded message per sync, made once and sent until the
cloud has it. Numbers only: no names of zones, no reasons, no free text."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from typing import Any

from edgectl.cloud import Cloud
from edgectl.store import Store
from edgectl.telemetry.reading import Reading, by_heat
from edgectl.telemetry.ring import Place, Ring
from edgewire.decoding import convert, plain
from edgewire.errors import Conflict, InvalidMessage, TooLarge, UsageError
from edgewire.messages import MAX_TELEMETRY_POINTS, Telemetry, TelemetryPoint

_WAITING, _SENT = "telemetry.waiting", "telemetry.sent"
_FIELDS = tuple(field.name for field in fields(TelemetryPoint))


def tell(store: Store, cloud: Cloud, ring: Ring, read: Callable[[], Reading]) -> int:
    """Send what was logged since the last time; where nothing was, how the board is now. How many readings were told.

    Raises what `Cloud` raises; the same message then waits for the next sync.
    """
    told, place = _waiting(store) or _make(store, ring, read)
    if told is None:
        return 0
    try:
        cloud.telemetry(told)
    except (Conflict, TooLarge, UsageError):  # it will never be taken: the next sync makes another
        store.meta_set(_WAITING, "")
        raise
    with store.transaction():
        store.meta_set(_WAITING, "")
        if place is not None:
            store.meta_set(_SENT, json.dumps(vars(place)))
    return len(told.points)


def _waiting(store: Store) -> tuple[Telemetry, Place | None] | None:
    text = store.meta_get(_WAITING)
    try:
        value = json.loads(text or "null")
        return value and (convert(Telemetry, value["told"], what="telemetry"), _place(value["place"]))
    except (ValueError, KeyError, TypeError, InvalidMessage):
        return None


def _make(store: Store, ring: Ring, read: Callable[[], Reading]) -> tuple[Telemetry | None, Place | None]:
    after = _place(json.loads(store.meta_get(_SENT) or "null"))
    if after is not None and ring.ends_before(after):
        after = None
    points, place = _thinned(ring, after)
    if not points:
        points, place = [point for point in [_point(read().plain())] if point is not None], after
    if not points:
        return None, None
    told = Telemetry(secrets.token_hex(16), tuple(points))
    store.meta_set(_WAITING, json.dumps({"told": plain(told), "place": None if place is None else vars(place)}))
    return told, place


def _thinned(ring: Ring, after: Place | None) -> tuple[list[TelemetryPoint], Place | None]:
    """The hottest reading of each of at most 60 equal parts, and where the last one stands: means would hide what
    matters."""
    count = sum(1 for _ in ring.read(after))
    size = max(1, -(-count // MAX_TELEMETRY_POINTS))
    points, place, part = [], after, list[TelemetryPoint]()
    for number, (here, value) in enumerate(islice(ring.read(after), count), start=1):
        place, point = here, _point(value)
        part += [point] if point is not None else []
        if part and (number % size == 0 or number == count):
            points.append(max(part, key=lambda one: one.temperature_c or float("-inf")))
            part = []
    return points[-MAX_TELEMETRY_POINTS:], place


def _point(value: dict[str, Any]) -> TelemetryPoint | None:
    """None for what another version logged, or a clock before 1970. A low voltage has a field of its own, and peaks of
    current are not what an operator calls throttled."""
    try:
        told = {name: value[name] for name in _FIELDS}
        told["throttled"] = by_heat(value["throttled"], value["throttle_flags"])
        return convert(TelemetryPoint, told, what="reading")
    except (KeyError, TypeError, InvalidMessage):
        return None


def _place(value: Any) -> Place | None:
    return None if value is None else Place(int(value["segment"]), int(value["offset"]))
