"""SVG charts with a row per value: bars to both sides of 0, and points with intervals."""

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape

from yt8m_gat.report.drawing.chart import (
    NUM_COLORS,
    TEXT_HEIGHT,
    WIDTH,
    Range,
    opening,
    padded,
    text_lines,
    ticks,
    wrapped,
)

_NAME_LENGTH = 25
_NAME_WIDTH = 160
_VALUE_WIDTH = 54
_ROW_HEIGHT = 22
_TOP = 34


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of a chart.

    Attributes:
        name: Its label; a long one takes several lines.
        value: Its value.
        interval: `(low, high)`, if known.
        index: The colour of its point.
    """

    name: str
    value: float
    interval: Range | None = None
    index: int = 0

    @property
    def ends(self) -> tuple[float, ...]:
        """All its values on the axis."""
        return (self.value, *(self.interval or ()))


def range_of(bars: Iterable[Bar]) -> Range:
    """Returns an axis range that holds 0 and all the bars, also those of several charts."""
    return padded([0.0, *(end for bar in bars for end in bar.ends)], 0.0)


class _Rows:
    """The names and places of a chart's rows, and the scale beside them."""

    def __init__(
        self, title: str, bars: Sequence[Bar], x_range: Range, left: float, below: float
    ) -> None:
        if not bars:
            raise ValueError(f"a chart needs at least one bar. Received none for {title!r}")
        self.low, self.high = x_range
        self.left, self.right = left, WIDTH - _VALUE_WIDTH
        self.tops, names = [], []
        self.bottom = _TOP
        for bar in bars:
            lines = wrapped(bar.name, _NAME_LENGTH)
            self.tops.append(self.bottom)
            names.append(text_lines(lines, 12, self.bottom + 14, 'class="key"'))
            self.bottom += _ROW_HEIGHT + TEXT_HEIGHT * (len(lines) - 1)
        self.parts = [opening(title, self.bottom + below), *names]

    def at(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)


def bar_chart(title: str, bars: Sequence[Bar], x_range: Range | None = None) -> str:
    """Returns an `<svg>` with a row per bar: its name, the bar from a common 0, signed value.

    Args:
        title: Above the chart.
        bars: From top to bottom.
        x_range: The axis, see `range_of`; None: that of these bars.

    Raises:
        ValueError: There is no bar.
    """
    rows = _Rows(title, bars, x_range or range_of(bars), _NAME_WIDTH + _VALUE_WIDTH, 10)
    zero = rows.at(0.0)
    for bar, y in zip(bars, rows.tops, strict=True):
        value = rows.at(bar.value)
        rows.parts.append(
            f'<rect x="{min(zero, value):.1f}" y="{y + 3}" width="{abs(value - zero):.1f}" '
            f'height="{_ROW_HEIGHT - 7}" style="fill: var(--series-{0 if bar.value >= 0 else 1})"/>'
        )
        if bar.interval is not None:
            low, high = map(rows.at, bar.interval)
            rows.parts.append(
                f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" '
                f'y1="{y + 10.5}" y2="{y + 10.5}"/>'
            )
        # The value is beyond the bar and its interval, on the side to which the bar points.
        places = [zero, *map(rows.at, bar.ends)]
        x, anchor = (max(places) + 5, "start") if bar.value >= 0 else (min(places) - 5, "end")
        rows.parts.append(
            f'<text x="{x:.1f}" y="{y + 14}" text-anchor="{anchor}">{bar.value:+.2f}</text>'
        )
    rows.parts.append(
        f'<line class="grid" x1="{zero:.1f}" x2="{zero:.1f}" y1="{_TOP}" y2="{rows.bottom}"/></svg>'
    )
    return "\n".join(rows.parts)


def point_chart(title: str, x_label: str, bars: Sequence[Bar], x_range: Range) -> str:
    """Returns an `<svg>` with a row per value: its name, a point on its interval, the value.

    Args:
        title: Above the chart.
        x_label: Below the axis.
        bars: From top to bottom.
        x_range: The axis.

    Raises:
        ValueError: There is nothing to draw.
    """
    rows = _Rows(title, bars, x_range, _NAME_WIDTH + 20, 40)
    for tick in ticks(*x_range):
        x = rows.at(tick)
        rows.parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{rows.bottom}"/>'
            f'<text x="{x:.1f}" y="{rows.bottom + 15}" text-anchor="middle">{tick:.6g}</text>'
        )
    rows.parts.append(
        f'<text x="{(rows.left + rows.right) / 2:.1f}" y="{rows.bottom + 32}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    for bar, y in zip(bars, rows.tops, strict=True):
        color = f"var(--series-{bar.index % NUM_COLORS})"
        if bar.interval is not None:
            low, high = map(rows.at, bar.interval)
            rows.parts.append(
                f'<line class="interval" style="stroke: {color}" x1="{low:.1f}" x2="{high:.1f}" '
                f'y1="{y + 10}" y2="{y + 10}"/>'
            )
        rows.parts.append(
            f'<circle cx="{rows.at(bar.value):.1f}" cy="{y + 10}" r="4" style="fill: {color}"/>'
            f'<text x="{WIDTH - 8}" y="{y + 14}" text-anchor="end">{bar.value:.2f}</text>'
        )
    rows.parts.append("</svg>")
    return "\n".join(rows.parts)
