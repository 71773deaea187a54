"""Two kinds of plots as SVG text: bars in groups, and lines. No library: a page of bench results needs no more.

Every bar carries its value in words, so that a plot can be read without measuring it, also in black and white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
BAR, GAP, GROUP_GAP = 18, 3, 14
TOP, LABELS, VALUES = 44, 150, 110
"""Pixels above the first bar, left of the bars for their names, right of them for their values."""
LINES_HEIGHT, LEFT, RIGHT, BOTTOM = 300, 60, 130, 40
PALETTE = ("#1f5fa8", "#d9822b", "#7b5aa6", "#2e8b57", "#8a8a8a", "#b83a4b", "#4aa3a3", "#a67c00")
INK, PALE = "#222", "#ddd"


@dataclass(frozen=True, slots=True)
class Bar:
    """One value, and the least and the most of its runs when they are known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each name a colour: the same for the same order of names."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(dict.fromkeys(names))}


def number(value: float) -> str:
    """Write a value with three figures: 0.0231, 1.46, 31.2, 1460."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def bar_plot(title: str, groups: Mapping[str, Sequence[Bar]], *, log: bool = False) -> str:
    """Draw horizontal bars, group under group. `log`: a logarithmic scale, for values that differ by hundreds;
    what is not above zero then gets no bar. The scale is the same for all groups and begins at zero without it.
    """
    bars = [bar for group in groups.values() for bar in group]
    colour = colours([bar.name for bar in bars])
    place = _scale([one for bar in bars for one in (bar.value, bar.high) if one is not None], log)
    parts: list[str] = []
    y = TOP
    for label, group in groups.items():
        parts.append(_text(4, y + 13, label, weight="bold"))
        y += BAR + GAP
        for bar in group:
            parts += _bar(bar, y, place, colour[bar.name])
            y += BAR + GAP
        y += GROUP_GAP
    note = "logarithmic scale" if log else ""
    return _frame(title, note, y, parts)


class _Scale:
    """From values to pixels right of the names."""

    def __init__(self, low: float, high: float, *, log: bool) -> None:
        self._low, self._high, self._log = low, high, log

    def __call__(self, value: float) -> float:
        width = WIDTH - LABELS - VALUES
        if self._log:
            if value <= 0:
                return 0.0
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = value / self._high
        return max(0.0, min(1.0, share)) * width


def _scale(values: Sequence[float], log: bool) -> _Scale:
    above = [value for value in values if value > 0] or [1.0]
    # A log scale begins a factor below the least, so that its bar can still be seen.
    return _Scale(min(above) / 3, max(max(above), min(above) / 3 * 1.001), log=log)


def _bar(bar: Bar, y: int, place: _Scale, colour: str) -> list[str]:
    length = place(bar.value)
    spread, end = "", length
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        left, right, middle = LABELS + place(bar.low), LABELS + place(bar.high), y + BAR / 2
        spread = f'<path d="M{left:.1f} {middle}H{right:.1f}" stroke="{INK}" stroke-width="1.5"/>'
        end = max(end, place(bar.high))
    return [
        _text(LABELS - 6, y + 13, bar.name, anchor="end"),
        f'<rect x="{LABELS}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" fill="{colour}"/>',
        spread,
        _text(LABELS + end + 6, y + 13, number(bar.value)),
    ]


def line_plot(
    title: str,
    x_label: str,
    ticks: Sequence[tuple[float, str]],
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> str:
    """Draw lines over a common x axis, whose marks are `ticks`; y begins at zero.

    Args:
        lines: by name, points (x, y) in order of x.
    """
    xs = [x for points in lines.values() for x, _ in points] + [x for x, _ in ticks] or [0.0, 1.0]
    step_y = _round_step(max([y for points in lines.values() for _, y in points] + [1e-9]) / 4)
    top = 4 * step_y
    width, height = WIDTH - LEFT - RIGHT, LINES_HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        span = max(xs) - min(xs) or 1.0
        return LEFT + (x - min(xs)) / span * width, TOP + height - y / top * height

    parts = []
    for step in range(5):
        _, y = at(min(xs), step * step_y)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{width}" stroke="{PALE}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{step * step_y:g}", anchor="end"))
    for x, label in ticks:
        parts.append(_text(at(x, 0)[0], TOP + height + 16, label, anchor="middle"))
    parts.append(_text(LEFT + width / 2, TOP + height + 32, x_label, anchor="middle"))
    colour = colours(list(lines))
    for index, (name, points) in enumerate(lines.items()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour[name]}" stroke-width="2"/>')
        y = TOP + 14 + index * 18
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 8}" y="{y - 9}" width="10" height="10" fill="{colour[name]}"/>'
        )
        parts.append(_text(WIDTH - RIGHT + 24, y, name))
    return _frame(title, "", LINES_HEIGHT, parts)


def _round_step(least: float) -> float:
    """Return the next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}">'
        f"{escape(text)}</text>"
    )


def _frame(title: str, note: str, height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
            f'<text x="4" y="20" font-size="15" font-weight="bold" fill="{INK}">{escape(title)}</text>',
            _text(4, 36, note),
            *(part for part in parts if part),
            "</svg>",
            "",
        ]
    )
