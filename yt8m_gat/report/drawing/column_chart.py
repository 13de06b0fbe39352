"""An SVG chart with a thin column per value, to both sides of 0, for many values."""

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape

from yt8m_gat.report.drawing.chart import (
    NUM_COLORS,
    TEXT_HEIGHT,
    WIDTH,
    opening,
    padded,
    text_lines,
    ticks,
    wrapped,
)

_LEFT, _RIGHT, _TOP, _HEIGHT = 68, 12, 34, 180


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a chart.

    Attributes:
        name: Its tooltip.
        value: Its value.
        index: Its colour.
    """

    name: str
    value: float
    index: int = 0


def column_chart(
    title: str, x_label: str, y_label: str, columns: Sequence[Column], legend: Mapping[int, str]
) -> str:
    """Returns an `<svg>` of columns from left to right, with a legend below.

    Args:
        title: Above the chart.
        x_label: Below the columns.
        y_label: Along the y axis.
        columns: At least one.
        legend: Index of a colour -> its words.

    Raises:
        ValueError: There is no column.
    """
    if not columns:
        raise ValueError(f"a chart needs at least one column. Received none for {title!r}")
    low, high = padded([0.0, *(column.value for column in columns)], 0.04)
    bottom = _TOP + _HEIGHT
    step = (WIDTH - _LEFT - _RIGHT) / len(columns)

    def at(value: float) -> float:
        return bottom - (value - low) / (high - low) * _HEIGHT

    parts = []
    for tick in ticks(low, high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at(tick):.1f}" '
            f'y2="{at(tick):.1f}"/><text x="{_LEFT - 6}" y="{at(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:.6g}</text>'
        )
    for place, column in enumerate(columns):
        top, end = sorted((at(0.0), at(column.value)))
        parts.append(
            f'<rect x="{_LEFT + step * (place + 0.1):.2f}" y="{top:.1f}" '
            f'width="{0.8 * step:.2f}" height="{end - top:.1f}" '
            f'style="fill: var(--series-{column.index % NUM_COLORS})"><title>'
            f"{escape(column.name)}: {column.value:+.2f}</title></rect>"
        )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{bottom + 17}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    y = bottom + 40
    for index, words in legend.items():
        lines = wrapped(words, 48)
        parts.append(
            f'<rect x="{_LEFT}" y="{y - 10}" width="12" height="12" '
            f'style="fill: var(--series-{index % NUM_COLORS})"/>'
            + text_lines(lines, _LEFT + 20, y, 'class="key"')
        )
        y += TEXT_HEIGHT * len(lines) + 3
    return "\n".join([opening(title, y), *parts, "</svg>"])
