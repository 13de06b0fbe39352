"""The HTML parts of pages, without external resources."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yt8m_gat.report.drawing.chart import STYLE
from yt8m_gat.report.source import number, pair

# Figure name -> <svg>.
Figures = dict[str, str]

PERCENT_METRICS = {
    "gap": "GAP",
    "map": "MAP",
    "map_all_scores": "MAP (all scores)",
    "segment_map": "segment MAP",
    "perr": "PERR",
    "hit_at_1": "Hit@1",
    "top_5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
}
_PAGE_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; } .note { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, th.text, th.name { text-align: left; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
thead th:first-child { background: var(--shade); }
td.text { white-space: normal; text-align: left; min-width: 16rem; }
td.bad { color: var(--bad); font-weight: 700; } td.quiet { color: var(--soft); }
td.lines { white-space: pre; } td.true { font-weight: 700; }
td.name { text-align: left; white-space: normal; min-width: 7.5rem; }
thead th { white-space: normal; min-width: 4rem; }
details { margin: .1rem 0; } summary { cursor: pointer; font-weight: 600; padding: .2rem 0; }
.warning { border-left: 4px solid var(--bad); padding: .1rem 0 .1rem .8rem; }
thead th { background: var(--shade); vertical-align: bottom; }
tr.ours td, tr.ours th { font-weight: 600; }
.figures { display: grid; gap: 1rem; margin: .6rem 0 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 6px; padding: .4rem; }
figure svg { display: block; width: 100%; height: auto; }
@media (max-width: 40rem) {
  th, td { padding: .28rem .4rem; }
  tbody th span { display: block; white-space: normal; width: max-content; max-width: 8.5rem; }
}
"""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell with classes of the page's style: `bad`, `quiet`, `text`, `name`, `true`,
    `lines`."""

    text: str
    kind: str


def table(
    heads: Sequence[str | Cell],
    rows: Sequence[Sequence[str | Cell]],
    row_classes: Sequence[str] = (),
) -> str:
    """Returns a `<table>` of escaped plain text; the first cell of a row is its heading."""
    classes = row_classes or [""] * len(rows)
    head = "".join(_table_cell(cell, 'th scope="col"') for cell in heads)
    body = []
    for row, row_class in zip(rows, classes, strict=True):
        cells = "".join(map(_table_cell, row[1:]))
        kind = f' class="{row_class}"' if row_class else ""
        body.append(f'<tr{kind}><th scope="row"><span>{escape(row[0])}</span></th>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(body)
        + "</tbody></table></div>"
    )


def _table_cell(cell: str | Cell, tag: str = "td") -> str:
    text, kind = (cell, "") if isinstance(cell, str) else (cell.text, f' class="{cell.kind}"')
    return f"<{tag}{kind}>{escape(text)}</{tag.split()[0]}>"


def folded(title: str, parts: Sequence[str], is_open: bool = False) -> list[str]:
    """Returns parts below a title that the reader can unfold; nothing if there are no parts."""
    if not parts:
        return []
    start = "<details open>" if is_open else "<details>"
    return [f"{start}<summary>{escape(title)}</summary>", *parts, "</details>"]


def note(text: str) -> str:
    """Returns a paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>'


def warning(text: str) -> str:
    """Returns a note that must not be overlooked."""
    return f'<div class="warning">{note(text)}</div>'


def percent(value: Any) -> str:
    """Returns a metric in percent with two decimals; a dash if there is none."""
    figure = number(value)
    return "-" if figure is None else f"{100 * figure:.2f}"


def with_interval(row: Mapping[str, Any], metric: str) -> Cell:
    """Returns a metric in percent and, below it, its bootstrap interval if the row has one."""
    ends = interval_of(row, metric)
    text = percent(row.get(metric))
    if ends is not None:
        text += f"\n({percent(ends[0])} to {percent(ends[1])})"
    return Cell(text, "lines")


def interval_of(row: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    """Returns the bootstrap interval of a row's metric; None if the row has none."""
    intervals = row.get("intervals")
    return pair(intervals.get(metric)) if isinstance(intervals, dict) else None


def plain(value: Any) -> str:
    """Returns a number with four digits; a dash if there is none."""
    figure = number(value)
    return "-" if figure is None else f"{figure:.4g}"


def shown(value: Any) -> str:
    """Returns a setting or a count as text."""
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def mean_and_deviation(values: Sequence[Any], in_percent: bool = True) -> str:
    """Returns the mean, with the deviation of several; a dash if `values` has no number."""
    figures = [value for value in map(number, values) if value is not None]
    if not figures:
        return "-"
    mean = statistics.fmean(figures)
    text = percent(mean) if in_percent else plain(mean)
    if len(figures) > 1:
        deviation = statistics.stdev(figures)
        text += f"±{100 * deviation:.2f}" if in_percent else f"±{deviation:.2g}"
    return text


def document(title: str, body: Sequence[str], style: str = "") -> str:
    """Returns the HTML page around `body`, without external resources; `style` is added CSS."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}{_PAGE_STYLE}{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>\n",
        ]
    )


def section(title: str, text: str, parts: Sequence[str]) -> list[str]:
    """Returns a heading, a note and the parts below it; nothing if there are no parts."""
    if not parts:
        return []
    return [f"<h2>{escape(title)}</h2>", *([note(text)] if text else []), *parts]


def gallery(figures: Figures) -> list[str]:
    """Returns the figures side by side if there is room."""
    if not figures:
        return []
    drawn = "\n".join(f"<figure>{svg}</figure>" for svg in figures.values())
    return [f'<div class="figures">{drawn}</div>']
