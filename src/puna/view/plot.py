"""Charts as SVG text: lines, bars, and a layered graph. No library, no script, no network.

Colours are CSS variables of the page that holds the chart (`--c0` … `--c5`, `--ink`, `--faint`), so that a chart
follows the page's light or dark dress.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

COLOURS = 6
# A line of so few points shows each: a single one would be no line at all.
_DOTTED = 12
# Pixels of a character and of a line of text, about: what a reader's font makes of them is not known here.
_CHAR_WIDTH, _LINE_HEIGHT = 7, 18


@dataclass(frozen=True, slots=True)
class Series:
    """A named line.

    Attributes:
        name: in the legend.
        points: (x, y) in order of x.
        dashed: drawn with dashes, for a line to compare with.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a chart, in pixels, with room for its labels."""

    width: int = 640
    height: int = 280
    left: int = 56
    right: int = 16
    top: int = 28
    bottom: int = 40

    @property
    def inner_width(self) -> int:
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> int:
        return self.height - self.top - self.bottom


def line_chart(series: Sequence[Series], x_label: str, y_label: str, frame: Frame | None = None) -> str:
    """Lines over one pair of axes. Points that are not finite are left out."""
    frame = frame or Frame()
    series = [Series(s.name, [p for p in s.points if all(map(math.isfinite, p))], s.dashed) for s in series]
    points = [point for s in series for point in s.points]
    if not points:
        return '<p class="faint">No points to draw.</p>'
    legend = _legend_rows([s.name for s in series], frame.inner_width - _CHAR_WIDTH * len(y_label))
    more = _LINE_HEIGHT * (len(legend) - 1)
    frame = replace(frame, top=frame.top + more, height=frame.height + more)
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points], margin=0.05)

    def place(x: float, y: float) -> tuple[float, float]:
        across = frame.left + (x - x_low) / (x_high - x_low) * frame.inner_width
        return across, frame.top + (y_high - y) / (y_high - y_low) * frame.inner_height

    parts = [_open(frame, f"{y_label} over {x_label}")]
    for tick in ticks(y_low, y_high, 5):
        _, y = place(x_low, tick)
        parts.append(_line(frame.left, y, frame.width - frame.right, y, "grid"))
        parts.append(_text(frame.left - 6, y + 4, _number(tick), "end"))
    for tick in ticks(x_low, x_high, 6):
        x, _ = place(tick, y_low)
        parts.append(_text(x, frame.height - frame.bottom + 16, _number(tick), "middle"))
    parts.append(_text(frame.left + frame.inner_width / 2, frame.height - 6, x_label, "middle"))
    parts.append(_text(4, 14, y_label, "start"))
    for i, s in enumerate(series):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in s.points))
        dash = ' stroke-dasharray="5 4"' if s.dashed else ""
        colour = f"var(--c{i % COLOURS})"
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if len(s.points) <= _DOTTED:
            parts += [_dot(*place(*point), colour) for point in s.points]
    parts.append(_legend(legend, frame))
    return "".join([*parts, "</svg>"])


def bar_chart(bars: Sequence[tuple[str, float]], unit: str, best: str = "") -> str:
    """Horizontal bars with their values; the one named `best` is set off. Only numbers above 0 have a length."""
    width, row, label_width = 680, 30, 230
    lengths = [value if math.isfinite(value) and value > 0 else 0.0 for _, value in bars]
    highest = max(lengths, default=0.0) or 1.0
    parts = [f'<svg viewBox="0 0 {width} {row * len(bars) + 6}" class="chart" role="img" aria-label="{escape(unit)}">']
    for i, (name, value) in enumerate(bars):
        y = i * row + 6
        length = (width - label_width - 130) * (lengths[i] / highest)
        colour = "var(--c0)" if name == best else "var(--bar)"
        parts.append(_text(label_width - 10, y + 15, _shortened(name, label_width - 10), "end"))
        parts.append(f'<rect x="{label_width}" y="{y}" width="{length:.1f}" height="20" rx="3" fill="{colour}"/>')
        parts.append(_text(label_width + length + 8, y + 15, f"{_number(value)} {unit}", "start"))
    return "".join([*parts, "</svg>"])


def graph(labels: Mapping[str, Sequence[str]], edges: Sequence[tuple[str, str]]) -> str:
    """A directed graph without circles, drawn in layers from left to right.

    Args:
        labels: node -> lines of text in its box, the first one bold.
        edges: (from, to) pairs of nodes.
    """
    if not labels:
        return '<p class="faint">Nothing to draw.</p>'
    layers = _layers(list(labels), edges)
    box_width, box_height, gap_x, gap_y = 168, 58, 46, 18
    tallest = max(len(layer) for layer in layers)
    place: dict[str, tuple[float, float]] = {}
    for column, layer in enumerate(layers):
        offset = (tallest - len(layer)) * (box_height + gap_y) / 2
        for row, name in enumerate(layer):
            place[name] = column * (box_width + gap_x) + 4, row * (box_height + gap_y) + offset + 4
    width = len(layers) * (box_width + gap_x) - gap_x + 8
    height = tallest * (box_height + gap_y) - gap_y + 8
    parts = [f'<svg viewBox="0 0 {width} {height}" class="chart wide" role="img" aria-label="lineage">']
    for start, end in edges:
        (x0, y0), (x1, y1) = place[start], place[end]
        x0, y0, y1 = x0 + box_width, y0 + box_height / 2, y1 + box_height / 2
        bend = (x0 + x1) / 2
        curve = f"M{x0:.0f},{y0:.0f} C{bend:.0f},{y0:.0f} {bend:.0f},{y1:.0f} {x1:.0f},{y1:.0f}"
        parts.append(f'<path d="{curve}" class="edge"/>')
    for name, lines in labels.items():
        x, y = place[name]
        parts.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{box_width}" height="{box_height}" rx="8" class="node"/>')
        for i, line in enumerate(lines):
            weight = ' font-weight="600"' if i == 0 else ' class="faint"'
            shown = escape(_shortened(line, box_width - 16))
            parts.append(f'<text x="{x + 12:.0f}" y="{y + 18 + 16 * i:.0f}"{weight}>{shown}</text>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two bounds, about so many."""
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _layers(nodes: list[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Nodes by the length of the longest path that leads to them."""
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for start, end in edges:
            depth[end] = max(depth[end], depth[start] + 1)
    return [[n for n in nodes if depth[n] == level] for level in range(max(depth.values()) + 1)]


def _span(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    # Values that no label would tell apart are one value, with room on both sides.
    flat = high - low <= 1e-9 * size + 1e-300
    room = max(0.5, size / 100) if flat else (high - low) * margin
    return low - room, high + room


def _open(frame: Frame, title: str) -> str:
    return f'<svg viewBox="0 0 {frame.width} {frame.height}" class="chart" role="img" aria-label="{escape(title)}">'


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _legend_rows(names: Sequence[str], room: int) -> list[list[tuple[int, str]]]:
    """Numbers and names of the series, in rows of `room` pixels; a name that is wider than a row is cut short."""
    room = max(room, 20 * _CHAR_WIDTH)
    rows: list[list[tuple[int, str]]] = [[]]
    left = room
    for i, name in enumerate(names):
        name = _shortened(name, room - 30)
        width = _CHAR_WIDTH * len(name) + 30
        if width > left and rows[-1]:
            rows.append([])
            left = room
        rows[-1].append((i, name))
        left -= width
    return rows


def _legend(rows: Sequence[Sequence[tuple[int, str]]], frame: Frame) -> str:
    parts = []
    for number, row in enumerate(rows):
        x, y = frame.width - frame.right, 14 + _LINE_HEIGHT * number
        for i, name in reversed(row):
            parts.append(_text(x, y, name, "end"))
            x -= _CHAR_WIDTH * len(name) + 12
            colour = f"var(--c{i % COLOURS})"
            parts.append(f'<rect x="{x}" y="{y - 8}" width="10" height="10" rx="2" fill="{colour}"/>')
            x -= 18
    return "".join(parts)


def _shortened(text: str, room: int) -> str:
    """As much of a text as `room` pixels hold."""
    count = room // _CHAR_WIDTH
    return text if len(text) <= count else text[: count - 1] + "…"


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1e9:
        return f"{value / 1e9:g}G"
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}"
