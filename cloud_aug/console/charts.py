"""Small charts as SVG, drawn here so that a page needs no script and no other host.

Colours are classes, never attributes: the style sheet has one set for light and one for dark. Every text is escaped by
`Markup.format`. A chart says in words what it shows, for whoever does not see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 26
COLOURS = 8  # classes c0 to c7
LONGEST_LABEL = 22
_FINEST = 1e-12  # between ticks: closer ones are the same number to who reads them, or to the machine
_NAMED_FROM = 28.0  # a narrower column has no room for its name

_NOTHING = Markup("")
_STRETCHED = Markup(' preserveAspectRatio="none"')  # a bar may be as wide as there is room

Text = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """points: (x, y), x rising."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Dot:
    """A place in the plane. weight: its area."""

    name: str
    x: float
    y: float
    weight: float


@dataclass(frozen=True)
class Part:
    """A part of a whole. kind: the class of its colour."""

    name: str
    value: float
    kind: str


@dataclass(frozen=True)
class _Frame:
    """From values to places on the drawing."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        share = (value - self.low_x) / ((self.high_x - self.low_x) or 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low_y) / ((self.high_y - self.low_y) or 1.0)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def plain(value: float) -> str:
    """A number as an axis has it."""
    return f"{value:,.6g}"


def lines(title: str, series: Sequence[Series], *, text_x: Text = plain, text_y: Text = plain) -> Markup:
    """A line for each series, with a legend."""
    shown = [one for one in series if one.points]
    xs, ys = ([point[axis] for one in shown for point in one.points] for axis in (0, 1))
    if not xs:
        return _empty(title)
    ticks = _ticks(min(ys), max(ys))
    frame = _Frame(min(xs), max(xs), min(ticks[0], *ys), max(ticks[-1], *ys))
    ends = [frame.low_x] if frame.low_x == frame.high_x else [frame.low_x, frame.high_x]
    drawn = [_axis_y(frame, ticks, text_y), _axis_x(frame, ends, text_x)]
    for number, one in enumerate(shown):
        points = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in one.points)
        drawn.append(Markup('<polyline class="line c{}" points="{}"/>').format(number % COLOURS, points))
        if len(one.points) <= 12:
            drawn += [_dot(frame.x(x), frame.y(y), 2.5, number) for x, y in one.points]
    said = "; ".join(f"{one.name}: from {text_y(one.points[0][1])} to {text_y(one.points[-1][1])}" for one in shown)
    return _figure(title, said, drawn, _legend([one.name for one in shown]) if len(shown) > 1 else Markup(""))


def columns(title: str, bins: Sequence[tuple[str, float]]) -> Markup:
    """A column for each label, side by side."""
    if not bins:
        return _empty(title)
    ticks = _ticks(0.0, max(value for _, value in bins))
    frame, wide = _Frame(0, len(bins), 0.0, ticks[-1]), (WIDTH - LEFT - RIGHT) / len(bins)
    drawn, every = [_axis_y(frame, ticks, plain)], math.ceil(len(bins) / 9)
    for number, (label, value) in enumerate(bins):
        x, top = LEFT + number * wide, frame.y(value)
        drawn.append(_box(x + wide * 0.08, top, wide * 0.84, HEIGHT - BOTTOM - top, "c0", f"{label}: {plain(value)}"))
        if number % every == 0:
            drawn.append(_text(x + wide / 2, HEIGHT - BOTTOM + 14, _short(label), "middle"))
    return _figure(title, _said(bins), drawn)


def bars(title: str, rows: Sequence[tuple[str, float]]) -> Markup:
    """A bar for each label, one below the other, with its value."""
    if not rows:
        return _empty(title)
    most = max((value for _, value in rows), default=0.0) or 1.0
    step, left, right = 20, _room(label for label, _ in rows), 52
    drawn = []
    for number, (label, value) in enumerate(rows):
        y, width = number * step + 4, max(1.0, (WIDTH - left - right) * max(0.0, value) / most)
        drawn.append(_text(left - 6, y + 11, _short(label), "end"))
        drawn.append(_box(left, y, width, step - 6, "c0", f"{label}: {plain(value)}"))
        drawn.append(_text(left + width + 5, y + 11, plain(value), "start"))
    return _figure(title, _said(rows), drawn, height=len(rows) * step + 6)


def scatter(title: str, dots: Sequence[Dot]) -> Markup:
    """Dots in the plane, which has no units: only near and far mean something."""
    if not dots:
        return _empty(title)
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    half = (max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0) * 0.6
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    size, most = 240, max(dot.weight for dot in dots) or 1.0
    drawn = [Markup('<rect class="plane" x="60" y="0" width="{0}" height="{0}" rx="6"/>').format(size)]
    for number, dot in enumerate(sorted(dots, key=lambda one: -one.weight)):
        x, y = ((value / half + 1) * size / 2 for value in (dot.x - middle_x, middle_y - dot.y))
        drawn.append(_dot(60 + x, y, 4 + 10 * math.sqrt(max(0.0, dot.weight) / most), number, title=dot.name))
    return _figure(title, f"{len(dots)} dots", drawn, height=size)


def stack(title: str, parts: Sequence[Part]) -> Markup:
    """The parts of a whole in one bar, with a legend that has the numbers."""
    whole = sum(part.value for part in parts)
    drawn, x = [Markup('<rect class="rest" x="0" y="0" width="{}" height="16" rx="3"/>').format(WIDTH)], 0.0
    for part in parts if whole else ():
        width = WIDTH * part.value / whole
        if part.value:
            drawn.append(_box(x, 0, max(1.0, width), 16, part.kind, f"{part.name}: {plain(part.value)}"))
        x += width
    names = [Markup("<li><span class='swatch {}'></span>{} <b>{}</b></li>").format(p.kind, p.name, plain(p.value))
             for p in parts if p.value]  # fmt: skip
    legend = Markup('<ul class="legend">{}</ul>').format(Markup("").join(names))
    said = _said([(part.name, part.value) for part in parts])
    return _figure(title, said, drawn, legend, height=16, stretched=True)


def grid(title: str, rows: Sequence[str], names: Sequence[str], values: Sequence[Sequence[float]]) -> Markup:
    """A field for each row and column, the darker the larger its value (0 to 1)."""
    left = _room(rows)
    side = min(56.0, (WIDTH - left - 4) / max(1, len(names)))
    high, top = min(20.0, max(side, 12.0)), 16 if side >= _NAMED_FROM else 2
    most = int(side / 5.5)
    drawn = [
        _text(left + (j + 0.5) * side, 10, _short(name, most), "middle") for j, name in enumerate(names) if top > 2
    ]
    for i, row in enumerate(rows):
        drawn.append(_text(left - 6, top + i * high + high * 0.7, _short(row), "end"))
        for j, name in enumerate(names):
            level = min(4, math.ceil(values[i][j] * 4))
            at = (left + j * side + 0.5, top + i * high + 0.5, side - 1, high - 1)
            drawn.append(_box(*at, f"level{level}", f"{row}, {name}: {values[i][j]:.0%}"))
    return _figure(
        title, f"{len(rows)} rows by {len(names)} columns", drawn, height=math.ceil(top + len(rows) * high + 4)
    )


def _figure(
    title: str,
    said: str,
    drawn: Sequence[Markup],
    legend: Markup = _NOTHING,
    *,
    height: int = HEIGHT,
    stretched: bool = False,
) -> Markup:
    kind, how = ("chart stack", _STRETCHED) if stretched else ("chart", _NOTHING)
    return Markup(
        '<figure class="{}"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>{}</figure>'
    ).format(kind, title, WIDTH, height, f"{title}. {said}"[:400], how, Markup("").join(drawn), legend)


def _empty(title: str) -> Markup:
    return Markup('<figure class="chart"><figcaption>{}</figcaption><p class="none">nothing yet</p></figure>').format(
        title
    )


def _legend(names: Sequence[str]) -> Markup:
    rows = [Markup('<li><span class="swatch c{}"></span>{}</li>').format(i % COLOURS, n) for i, n in enumerate(names)]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(rows))


def _axis_y(frame: _Frame, ticks: Sequence[float], text: Text) -> Markup:
    line = Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    rows = [
        line.format(LEFT, WIDTH - RIGHT, frame.y(t), frame.y(t)) + _text(LEFT - 5, frame.y(t) + 3.5, text(t), "end")
        for t in ticks
    ]
    return Markup("").join(rows)


def _axis_x(frame: _Frame, ends: Sequence[float], text: Text) -> Markup:
    anchors = ("start", "end") if len(ends) > 1 else ("middle",)
    rows = [_text(frame.x(end), HEIGHT - 8, text(end), anchor) for end, anchor in zip(ends, anchors, strict=True)]
    return Markup("").join(rows)


def _box(x: float, y: float, width: float, height: float, kind: str, title: str) -> Markup:
    drawn = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    return drawn.format(f"fill {kind}", x, y, max(0.0, width), max(0.0, height), title)


def _dot(x: float, y: float, radius: float, number: int, *, title: str = "") -> Markup:
    told = Markup("<title>{}</title>").format(title) if title else Markup("")
    drawn = Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">{}</circle>')
    return drawn.format(number % COLOURS, x, y, radius, told)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold the values: 1, 2 or 5 times a power of ten apart."""
    rough = max(((high - low) or abs(high) or 1.0) / 4, _FINEST)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _room(labels: Iterable[str]) -> float:
    """How wide the longest label is, about."""
    return 12 + 5.4 * max((min(len(label), LONGEST_LABEL) for label in labels), default=0)


def _said(rows: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label}: {plain(value)}" for label, value in rows)


def _short(text: str, most: int = LONGEST_LABEL) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
