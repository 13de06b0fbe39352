"""Attention maps, and similarities of frames, as SVG, side by side on one scale."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from yt8m_gat.report.drawing.chart import NUM_HEATS, WIDTH, opening

Matrix = Sequence[Sequence[float]]

_SIDE = 176
_TOP = 50
_LEFT = 20


def shared_scale(maps: Iterable[tuple[Matrix, int]]) -> float:
    """Returns the end of a common scale for maps that are compared.

    It is the 99th percentile of the weights, but at least twice the uniform weight: a map without
    a pattern is then a flat middle tone instead of amplified noise. Without maps it is 0.

    Args:
        maps: Each map with the number of frames that it represents.
    """
    maps = list(maps)
    weights = sorted(value for rows, _ in maps for row in rows for value in row)
    if not weights:
        return 0.0
    most = weights[min(len(weights) - 1, math.ceil(0.99 * len(weights)) - 1)]
    return max(most, *(2.0 / num_frames for _, num_frames in maps))


def heat_maps(
    title: str,
    maps: Mapping[str, Matrix],
    num_frames: int,
    top_weight: float | None = None,
    *,
    similarities: bool = False,
) -> str:
    """Returns an `<svg>` of square maps, two to a row; darker (on dark: brighter) means more.

    All share one scale from 0; weights above it get its last colour, similarities below 0 its
    first.

    Args:
        title: Above the maps.
        maps: Name -> a square of weights, row i what frame i attends to.
        num_frames: Frames n that the maps represent, more than their rows if those are blocks.
        top_weight: End of the scale, see `shared_scale`; None: that of these maps.
        similarities: The maps hold cosines, whose scale ends at 1, in place of weights.

    Raises:
        ValueError: There is no map, or one is empty.
    """
    if not maps or not all(map(len, maps.values())):
        raise ValueError(f"there must be maps, of at least one row. Received for {title!r}: {maps}")
    uniform = None if similarities else 1.0 / num_frames
    if similarities:
        top_weight = 1.0
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
            f"{'frame' if similarities else 'frame attended to'}</text>"
        )
    middle = _TOP + _SIDE / 2
    parts.append(
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">frame</text>'
    )
    parts.append(_scale(top_weight, uniform, height - 26))
    parts.append("</svg>")
    return "\n".join(parts)


def _cells(rows: Matrix, top_weight: float, x: float, y: float) -> str:
    """Returns a path per colour; equal neighbours of a row share a rectangle, to save space."""
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
    # The lowest colour is the background.
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


def _scale(top_weight: float, uniform: float | None, y: float) -> str:
    """Returns the colour scale, marked at 0, the uniform weight (of weights) and its end."""
    left, right = _LEFT, WIDTH - _LEFT - 12
    step = (right - left) / NUM_HEATS
    boxes = "".join(
        f'<rect x="{left + index * step:.1f}" y="{y}" width="{step:.2f}" height="8" '
        f'style="fill: var(--heat-{index})"/>'
        for index in range(NUM_HEATS)
    )
    if uniform is None:
        marks = [(left, "0 or less", "start"), (right, f"{top_weight:.2g}", "end")]
        tick = ""
    else:
        at_uniform = left + (right - left) * uniform / top_weight
        marks = [(left, "0", "start"), (right, f"{top_weight:.2g} or more", "end")]
        # A uniform weight near 0 is not marked: its text would cover that of 0.
        if at_uniform - left > 16:
            anchor = "middle" if at_uniform - left > 50 else "start"
            marks.append((at_uniform, f"1/n = {uniform:.2g}", anchor))
        tick = (
            f'<line class="grid" x1="{at_uniform:.1f}" x2="{at_uniform:.1f}" y1="{y}" '
            f'y2="{y + 10}"/>'
        )
    texts = "".join(
        f'<text x="{x:.1f}" y="{y + 21}" text-anchor="{anchor}">{text}</text>'
        for x, text, anchor in marks
    )
    return boxes + tick + texts
