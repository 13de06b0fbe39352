"""Attention maps as SVG, side by side on one scale."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from yt8m_gat.report.drawing.chart import NUM_HEATS, WIDTH, opening

Matrix = Sequence[Sequence[float]]

_SIDE = 176
_TOP = 50
_LEFT = 20


def shared_scale(maps: Iterable[tuple[Matrix, int]]) -> float:
    """Returns where the scale of maps that are compared ends.

    It is the largest of 99 in 100 weights, but at least twice the uniform one: a map without a
    pattern is then a flat middle tone instead of noise blown up.

    Args:
        maps: Each with the frames that it stands for; 0 is given for none.
    """
    maps = list(maps)
    weights = sorted(value for rows, _ in maps for row in rows for value in row)
    if not weights:
        return 0.0
    most = weights[min(len(weights) - 1, math.ceil(0.99 * len(weights)) - 1)]
    return max(most, *(2.0 / num_frames for _, num_frames in maps))


def heat_maps(
    title: str, maps: Mapping[str, Matrix], num_frames: int, top_weight: float | None = None
) -> str:
    """Returns an `<svg>` of square maps, two to a row, darker (or, on dark, brighter) for more.

    All share one scale from 0; weights above it have its last colour.

    Args:
        title: Above the maps.
        maps: Name -> a square of weights, row i what frame i attends to.
        num_frames: Frames n that the maps stand for, more than their rows where those are blocks.
        top_weight: Where the scale ends, see `shared_scale`; None: that of these maps.

    Raises:
        ValueError: There is no map, or one is empty.
    """
    if not maps or not all(map(len, maps.values())):
        raise ValueError(f"there must be maps, of at least one row. Received for {title!r}: {maps}")
    uniform = 1.0 / num_frames
    top_weight = top_weight or shared_scale((rows, num_frames) for rows in maps.values())
    num_rows = math.ceil(len(maps) / 2)
    height = _TOP + num_rows * (_SIDE + 40) + 34
    parts = [opening(title, height)]
    for index, (name, rows) in enumerate(maps.items()):
        x = _LEFT + index % 2 * (_SIDE + 12)
        y = _TOP + index // 2 * (_SIDE + 40)
        parts.append(f'<text class="key" x="{x}" y="{y - 6}">{escape(name)}</text>')
        parts.append(_cells(rows, top_weight, x, y))
        parts.append(f'<text x="{x}" y="{y + _SIDE + 15}">0</text>')
        parts.append(
            f'<text x="{x + _SIDE}" y="{y + _SIDE + 15}" text-anchor="end">{num_frames}</text>'
        )
        parts.append(
            f'<text x="{x + _SIDE / 2}" y="{y + _SIDE + 15}" text-anchor="middle">'
            "frame attended to</text>"
        )
    middle = _TOP + _SIDE / 2
    parts.append(
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">frame</text>'
    )
    parts.append(_scale(top_weight, uniform, height - 26))
    parts.append("</svg>")
    return "\n".join(parts)


def _cells(rows: Matrix, top_weight: float, x: float, y: float) -> str:
    """A path per colour, equal neighbours of a row as one rectangle: a fifth of a cell each."""
    runs: dict[int, list[str]] = {}
    for row, weights in enumerate(rows):
        shares = [max(0.0, min(1.0, weight / top_weight)) for weight in weights]
        heats = [min(NUM_HEATS - 1, int(NUM_HEATS * share)) for share in shares]
        begin = 0
        for column in range(1, len(heats) + 1):
            if column == len(heats) or heats[column] != heats[begin]:
                width = column - begin
                runs.setdefault(heats[begin], []).append(f"M{begin} {row}h{width}v1h-{width}z")
                begin = column
    # The lowest colour is the ground under all.
    runs.pop(0, None)
    paths = "".join(
        f'<path style="fill: var(--heat-{heat})" d="{"".join(drawn)}"/>'
        for heat, drawn in sorted(runs.items())
    )
    return (
        f'<g transform="translate({x} {y}) scale({_SIDE / len(rows):.5f})" '
        'shape-rendering="crispEdges">'
        f'<rect width="{len(rows)}" height="{len(rows)}" style="fill: var(--heat-0)"/>{paths}</g>'
    )


def _scale(top_weight: float, uniform: float, y: float) -> str:
    """Returns the colours in order, with 0, the uniform weight and the end of the scale."""
    left, right = _LEFT, WIDTH - _LEFT - 12
    step = (right - left) / NUM_HEATS
    boxes = "".join(
        f'<rect x="{left + index * step:.1f}" y="{y}" width="{step:.2f}" height="8" '
        f'style="fill: var(--heat-{index})"/>'
        for index in range(NUM_HEATS)
    )
    at_uniform = left + (right - left) * uniform / top_weight
    # The end's own text needs room; a uniform weight near 0 would lie on that of 0.
    marks = [(left, "0", "start"), (right, f"{top_weight:.2g} or more", "end")]
    if at_uniform - left > 16:
        marks.append((at_uniform, f"1/n = {uniform:.2g}", "middle"))
    texts = "".join(
        f'<text x="{x:.1f}" y="{y + 21}" text-anchor="{anchor}">{text}</text>'
        for x, text, anchor in marks
    )
    tick = (
        f'<line class="grid" x1="{at_uniform:.1f}" x2="{at_uniform:.1f}" y1="{y}" y2="{y + 10}"/>'
    )
    return boxes + tick + texts
