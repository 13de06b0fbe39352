"""Line charts as SVG, without scripts, fonts or external resources."""

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 12, 34, 44
_LINE_HEIGHT = 17
TEXT_HEIGHT = 15
# Readable on white and on near-black; after Okabe and Ito, who chose them for the colour-blind.
_LIGHT = ("#0072b2", "#c04f00", "#00805e", "#a8488a", "#8a6d00", "#2f7fb5", "#7a3fb0", "#666666")
_DARK = ("#56b4e9", "#ff9348", "#2fc79b", "#e79bc8", "#e8d44d", "#9fd0f0", "#c39bf0", "#b0b0b0")
NUM_COLORS = len(_LIGHT)
_DASHES = ("none", "7 3", "2 3", "9 3 2 3")
# Number of colours of heat maps: one hue, from the brightness of the paper to the strongest.
NUM_HEATS = 12
# Lines with more points than this have no dots.
MOST_MARKERS = 30
_LIGHT_HEATS = ((246, 248, 250), (120, 180, 220), (8, 48, 107))
_DARK_HEATS = ((27, 32, 38), (40, 110, 160), (200, 232, 255))


def _palette(colors: Sequence[str]) -> str:
    return " ".join(f"--series-{index}: {color};" for index, color in enumerate(colors))


def _heats(colors: Sequence[tuple[int, int, int]]) -> str:
    """Returns the declarations of `NUM_HEATS` colours, from the first, middle and last one."""
    low, middle, high = colors
    declarations = []
    for index in range(NUM_HEATS):
        place = 2 * index / (NUM_HEATS - 1)
        begin, end, share = (low, middle, place) if place < 1 else (middle, high, place - 1)
        mixed = [round(a + share * (b - a)) for a, b in zip(begin, end, strict=True)]
        declarations.append("--heat-{}: #{:02x}{:02x}{:02x};".format(index, *mixed))
    return " ".join(declarations)


# Shared by the page and by standalone figures.
STYLE = f"""
:root {{ color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #5b6470;
  --rule: #d8dde3; --shade: #f4f6f8; --bad: #b3261e;
  {_palette(_LIGHT)}
  {_heats(_LIGHT_HEATS)} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14171b; --ink: #e8ebee; --soft: #a3acb8; --rule: #363d46; --shade: #1d2127;
    --bad: #ff8a80; {_palette(_DARK)}
    {_heats(_DARK_HEATS)} }}
}}
svg.chart {{ font: 12px system-ui, sans-serif; background: var(--paper); }}
svg.chart text {{ fill: var(--soft); }}
svg.chart text.title {{ fill: var(--ink); font-weight: 600; font-size: 13px; }}
svg.chart text.key {{ fill: var(--ink); }}
svg.chart .grid {{ stroke: var(--rule); stroke-width: 1; }}
svg.chart .interval {{ stroke-width: 5; stroke-opacity: .35; }}
svg.chart .whisker {{ stroke: var(--ink); stroke-width: 1.5; }}
svg.chart .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
"""


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: Its name in the legend.
        points: (x, y), in the order of x.
        index: Its colour and dash, the same for one run in all charts.
        markers: Whether each point gets a dot.
        dash: An additional dash pattern, for a second line of the same run.
        intervals: (x, low, high) of the points whose interval is known, drawn as a bar.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    index: int = 0
    markers: bool = True
    dash: int = 0
    intervals: tuple[tuple[float, float, float], ...] = ()

    @property
    def heights(self) -> list[float]:
        """All its y values, intervals included."""
        return [y for _, y in self.points] + [y for _, *ends in self.intervals for y in ends]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= count:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


Range = tuple[float, float]


def padded(values: Sequence[float], pad: float) -> Range:
    """Returns an axis range that holds all values, with a share `pad` of it free at each end."""
    low, high = min(values), max(values)
    if low == high:
        half = abs(low) / 10 or 0.5
        return low - half, high + half
    return low - pad * (high - low), high + pad * (high - low)


def shared_heights(panels: Iterable[Sequence[Series]], from_zero: bool = False) -> Range:
    """Returns a common y range for charts that are compared; at least one has a point."""
    heights = [y for panel in panels for line in panel for y in line.heights]
    low, high = padded([*heights, 0.0] if from_zero else heights, 0.06)
    return (0.0 if from_zero and low < 0 <= min(heights) else low), high


def wrapped(text: str, width: int) -> list[str]:
    """Returns the lines of a text, wrapped at `width`; nothing is cut off."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def text_lines(lines: Sequence[str], x: float, y: float, attributes: str) -> str:
    """Returns a `<text>` of several lines, the first at `y`."""
    rest = "".join(
        f'<tspan x="{x:g}" dy="{TEXT_HEIGHT}">{escape(line)}</tspan>' for line in lines[1:]
    )
    return f'<text {attributes} x="{x:g}" y="{y:g}">{escape(lines[0])}{rest}</text>'


def opening(title: str, height: float) -> str:
    """Returns the start of a chart's `<svg>` with its title; a long title extends upwards."""
    lines = wrapped(title, 48)
    above = TEXT_HEIGHT * (len(lines) - 1)
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 {-above} {WIDTH} {height + above:g}" '
        f'role="img" aria-label="{escape(title)}">\n'
        + text_lines(lines, 12, 18 - above, 'class="title"')
    )


def _legend(names: Sequence[str]) -> tuple[list[tuple[int, int, list[str]]], int]:
    """Returns (x, row, lines) of each entry, several to a row if they fit, and the row count."""
    places, x, row = [], _LEFT, 0
    for name in names:
        lines = wrapped(name, 44)
        width = 36 + round(6.6 * max(map(len, lines)))
        if x > _LEFT and (x + width > WIDTH - _RIGHT or len(lines) > 1):
            x, row = _LEFT, row + 1
        places.append((x, row, lines))
        x += width
        if len(lines) > 1:
            x, row = _LEFT, row + len(lines)
    return places, places[-1][1] + len(places[-1][2])


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    x_ticks: Mapping[float, str] | None = None,
    y_range: Range | None = None,
    x_range: Range | None = None,
) -> str:
    """Returns an `<svg>` element of lines, with a legend below and values as tooltips on the dots.

    Args:
        title: Above the chart.
        x_label: Under the x axis.
        y_label: Along the y axis.
        series: At least one, each with at least one point.
        x_ticks: Places on the x axis and their labels; None: round numbers.
        y_range: The range of the y axis, for charts that are compared; None: that of the series.
        x_range: The range of the x axis; None: that of the series.

    Raises:
        ValueError: There is no point to draw.
    """
    points = [point for line in series for point in line.points]
    if not points:
        raise ValueError(f"a chart needs at least one point. Received none for {title!r}")
    x_low, x_high = x_range or padded([x for x, _ in points], 0.02)
    y_low, y_high = y_range or shared_heights([series])
    places, num_rows = _legend([line.name for line in series])
    height = HEIGHT + _LINE_HEIGHT * num_rows
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT),
            bottom - (y - y_low) / (y_high - y_low) * (bottom - _TOP),
        )

    parts = [opening(title, height)]
    for tick in ticks(y_low, y_high):
        y = at(x_low, tick)[1]
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>'
        )
    if x_ticks is None:
        x_ticks = {tick: f"{tick:.6g}" for tick in ticks(x_low, x_high)}
    for tick, text in x_ticks.items():
        x = at(tick, y_low)[0]
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>'
        )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for line, (x, row, lines) in zip(series, places, strict=True):
        color = f"var(--series-{line.index % NUM_COLORS})"
        dash = _DASHES[(line.dash + line.index // NUM_COLORS) % len(_DASHES)]
        drawn = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in line.points)
        stroke = f'class="line" style="stroke: {color}" stroke-dasharray="{dash}"'
        parts.append(f'<polyline {stroke} points="{drawn}"/>')
        # A line of one point would be invisible.
        if line.markers or len(line.points) == 1:
            for point in line.points:
                cx, cy = at(*point)
                place = x_ticks.get(point[0], f"{point[0]:g}")
                parts.append(
                    f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" style="fill: {color}"><title>'
                    f"{escape(line.name)}: {escape(place)}, {point[1]:.4g}</title></circle>"
                )
        for place, low, high in line.intervals:
            (cx, bottom_end), (_, top_end) = at(place, low), at(place, high)
            parts.append(
                f'<line class="interval" style="stroke: {color}" x1="{cx:.1f}" x2="{cx:.1f}" '
                f'y1="{bottom_end:.1f}" y2="{top_end:.1f}"/>'
            )
        y = HEIGHT + _LINE_HEIGHT * row + 6
        parts.append(
            f'<line {stroke} x1="{x}" x2="{x + 20}" y1="{y - 4}" y2="{y - 4}"/>'
            + text_lines(lines, x + 25, y, 'class="key"')
        )
    parts.append("</svg>")
    return "\n".join(parts)


def standalone(svg: str) -> str:
    """Returns `svg` as the content of a separate file, with its style inside."""
    head, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}><style>{STYLE}</style>{rest}\n'
