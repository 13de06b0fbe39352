"""Frames of a clip in a row, with values over their time below them, as SVG."""

import dataclasses
from collections.abc import Sequence

from yt8m_gat.report.drawing.chart import (
    NUM_COLORS,
    TEXT_HEIGHT,
    WIDTH,
    Range,
    opening,
    text_lines,
    wrapped,
)

_LEFT = 12
_LENGTH = WIDTH - 2 * _LEFT
_TOP = 30
_STRIP_HEIGHT = 40
_LETTERS = 58


@dataclasses.dataclass(frozen=True)
class Film:
    """A row of square pictures.

    Attributes:
        words: Above them; may be empty.
        pictures: Data URIs, checked by the caller; at least one.
    """

    words: str
    pictures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Strip:
    """A value per frame, as an area above and below a line at 0.

    Attributes:
        words: Above it.
        values: [T]; none draws the words only.
        index: Its colour.
        mark: A level at which a thin line is drawn.
    """

    words: str
    values: tuple[float, ...]
    index: int = 0
    mark: float = 0.0


def film_chart(title: str, rows: Sequence[Film | Strip], scale: Range) -> str:
    """Returns an `<svg>` of films and strips, from top to bottom; all have the same width.

    Args:
        title: Above them.
        rows: At least one.
        scale: Least and greatest value that a strip has room for; others are cut off.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError(f"there must be at least one row. Received none for {title!r}")
    parts = []
    y = float(_TOP)
    for row in rows:
        if row.words:
            lines = wrapped(row.words, _LETTERS)
            parts.append(text_lines(lines, _LEFT, y + 12, 'class="key"'))
            y += TEXT_HEIGHT * len(lines) + 3
        if isinstance(row, Film):
            side = _LENGTH / len(row.pictures)
            parts += [
                f'<image x="{_LEFT + place * side:.2f}" y="{y:g}" width="{side:.2f}" '
                f'height="{side:.2f}" href="{picture}"/>'
                for place, picture in enumerate(row.pictures)
            ]
            y += round(side) + 4
        elif row.values:
            parts.append(_area(row, scale, y))
            y += _STRIP_HEIGHT + 4
    return "\n".join([opening(title, y + 6), *parts, "</svg>"])


def _area(strip: Strip, scale: Range, top: float) -> str:
    low, high = min(scale[0], 0.0), max(scale[1], 0.0)
    unit = _STRIP_HEIGHT / ((high - low) or 1.0)
    zero = top + unit * high
    step = _LENGTH / len(strip.values)
    drawn = [f"M{_LEFT} {zero:.1f}"]
    for place, value in enumerate(strip.values, start=1):
        level = zero - unit * max(low, min(high, value))
        drawn.append(f"V{level:.1f}H{_LEFT + step * place:.1f}")
    marked = zero - unit * strip.mark
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _LEFT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        for y in dict.fromkeys((zero, marked))
    )
    return (
        f'<path style="fill: var(--series-{strip.index % NUM_COLORS})" '
        f'd="{"".join(drawn)}V{zero:.1f}Z"/>{lines}'
    )
