"""Tracks over the seconds of one video, as SVG: all of one width share a time axis."""

import math
from collections.abc import Sequence

from yt8m_gat.report.drawing.chart import NUM_HEATS, Range, ticks

UNITS = 1000.0
"""Width of a track in its own units; the page stretches it to the width of the frames."""

Edges = Sequence[float]
"""[T + 1]: where each frame begins, and where the last one ends, in seconds."""


def places(edges: Edges) -> list[float]:
    """Returns the edges in the units of a track, from 0 to `UNITS`."""
    first, length = edges[0], (edges[-1] - edges[0]) or 1.0
    return [UNITS * (edge - first) / length for edge in edges]


def percent_of(second: float, edges: Edges) -> float:
    """Returns where a second is on the axis, in percent of its width, from 0 to 100."""
    length = (edges[-1] - edges[0]) or 1.0
    return min(100.0, max(0.0, 100.0 * (second - edges[0]) / length))


def step_track(values: Sequence[float], edges: Edges, scale: Range, color: int) -> str:
    """Returns an `<svg>` of a value per frame, as an area above and below a line at 0.

    Args:
        values: [T].
        edges: See `Edges`.
        scale: Least and greatest value that the track has room for, the same for tracks that are
            compared; others are cut off.
        color: Index of the colour.
    """
    at = places(edges)
    low, high = min(scale[0], 0.0), max(scale[1], 0.0)
    unit = 100.0 / ((high - low) or 1.0)
    drawn = [f"M{at[0]:.1f} 0"]
    for value, right in zip(values, at[1:], strict=True):
        drawn.append(f"V{-unit * max(low, min(high, value)):.1f}H{right:.1f}")
    return (
        _opening("steps", -unit * high, 100)
        + f'<path style="fill: var(--series-{color})" d="{"".join(drawn)}V0Z"/>'
        + f'<line class="zero" x1="0" x2="{UNITS:g}" y1="0" y2="0"/></svg>'
    )


def heat_track(values: Sequence[float], edges: Edges, largest: float) -> str:
    """Returns an `<svg>` of a value per frame, as colours; darker (on dark: brighter) is more.

    Args:
        values: [T], at least 0.
        edges: See `Edges`.
        largest: The value of the strongest colour, for tracks that are compared.
    """
    at = places(edges)
    paths: dict[int, list[str]] = {}
    for value, left, right in zip(values, at, at[1:], strict=False):
        share = value / largest if largest > 0 else 0.0
        heat = min(NUM_HEATS - 1, max(0, int(NUM_HEATS * share)))
        paths.setdefault(heat, []).append(f"M{left:.1f} 0H{right:.1f}V1H{left:.1f}Z")
    drawn = "".join(
        f'<path style="fill: var(--heat-{heat})" d="{"".join(parts)}"/>'
        for heat, parts in sorted(paths.items())
    )
    return f'{_opening("heats", 0, 1)}<g shape-rendering="crispEdges">{drawn}</g></svg>'


def _opening(kind: str, top: float, height: float) -> str:
    return (
        f'<svg class="{kind}" xmlns="http://www.w3.org/2000/svg" aria-hidden="true" '
        f'viewBox="0 {top:g} {UNITS:g} {height:g}" preserveAspectRatio="none">'
    )


def clock(second: float) -> str:
    """Returns a time in a video: `7.5 s`, or `2:05` from the first minute on.

    Examples:
        >>> clock(7.5), clock(59.96), clock(125.0), clock(125.4)
        ('7.5 s', '1:00', '2:05', '2:05.4')
    """
    tenths = round(10 * second)
    if tenths < 600:
        return f"{tenths / 10:g} s"
    minutes, rest = divmod(tenths, 600)
    whole, tenth = divmod(rest, 10)
    return f"{minutes}:{whole:02}" + (f".{tenth}" if tenth else "")


def time_ticks(edges: Edges) -> list[tuple[float, str]]:
    """Returns (percent of the width, text) of round times on the axis."""
    first, last = edges[0], edges[-1]
    if not (math.isfinite(first) and math.isfinite(last) and first < last):
        return []
    return [(percent_of(tick, edges), clock(tick)) for tick in ticks(first, last, 8)]
