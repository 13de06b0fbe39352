"""Bars to both sides of 0 as SVG."""

from collections.abc import Sequence
from html import escape

from yt8m_gat.report.chart import WIDTH, opening, shortened

_NAME_WIDTH = 160
_VALUE_WIDTH = 54
_ROW_HEIGHT = 22
_TOP = 34


def bar_chart(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """An `<svg>` of a row per bar: its name, the bar from a common 0, its value with a sign.

    Args:
        title: Above the chart.
        bars: (name, value) from top to bottom.

    Raises:
        ValueError: There is no bar.
    """
    if not bars:
        raise ValueError(f"a chart needs at least one bar. Received none for {title!r}")
    left, right = _NAME_WIDTH + _VALUE_WIDTH, WIDTH - _VALUE_WIDTH
    low, high = min(0.0, *(v for _, v in bars)), max(0.0, *(v for _, v in bars))
    scale = (right - left) / ((high - low) or 1.0)
    zero = left - low * scale
    height = _TOP + _ROW_HEIGHT * len(bars) + 10
    parts = [opening(title, height)]
    for index, (name, value) in enumerate(bars):
        y = _TOP + _ROW_HEIGHT * index
        x, width = min(zero, zero + value * scale), abs(value) * scale
        series, end, anchor = (0, x + width + 5, "start") if value >= 0 else (1, x - 5, "end")
        parts.append(
            f'<text class="key" x="12" y="{y + 14}">{escape(shortened(name, 25))}'
            f"<title>{escape(name)}</title></text>"
            f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{_ROW_HEIGHT - 7}" '
            f'style="fill: var(--series-{series})"/>'
            f'<text x="{end:.1f}" y="{y + 14}" text-anchor="{anchor}">{value:+.2f}</text>'
        )
    parts.append(
        f'<line class="grid" x1="{zero:.1f}" x2="{zero:.1f}" y1="{_TOP}" y2="{height - 8}"/></svg>'
    )
    return "\n".join(parts)
