"""One self-contained HTML page about one or several runs."""

import statistics
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from yt8m_gat.report.chart import STYLE, Series, line_chart
from yt8m_gat.report.published import TABLES, Column, PublishedTable
from yt8m_gat.report.source import ReportedRun, number

_PERCENT = {
    "gap": "GAP",
    "map": "MAP",
    "map_all_scores": "MAP (all scores)",
    "segment_map": "segment MAP",
    "perr": "PERR",
    "hit_at_1": "Hit@1",
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
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; }
thead th { background: var(--shade); vertical-align: bottom; }
tr.ours td, tr.ours th { font-weight: 600; }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 6px; padding: .4rem; }
figure svg { display: block; width: 100%; height: auto; }
"""

Figures = dict[str, str]


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], row_classes: Sequence[str] = ()
) -> str:
    """A `<table>` of plain text, escaped; the first cell of a row names it."""
    classes = row_classes or [""] * len(rows)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = []
    for row, row_class in zip(rows, classes, strict=True):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        kind = f' class="{row_class}"' if row_class else ""
        body.append(f'<tr{kind}><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(body)
        + "</tbody></table></div>"
    )


def document(title: str, body: Sequence[str]) -> str:
    """The page around `body`: no script and no resource from anywhere."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}{_PAGE_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>\n",
        ]
    )


def section(title: str, note: str, parts: Sequence[str]) -> list[str]:
    """A heading and what is below it; nothing at all when there is nothing below."""
    if not parts:
        return []
    return [f"<h2>{escape(title)}</h2>", f'<p class="note">{escape(note)}</p>', *parts]


def gallery(figures: Figures) -> list[str]:
    """The figures side by side where there is room."""
    if not figures:
        return []
    drawn = "\n".join(f"<figure>{svg}</figure>" for svg in figures.values())
    return [f'<div class="figures">{drawn}</div>']


def build_page(runs: Sequence[ReportedRun], title: str = "yt8m_gat: report") -> tuple[str, Figures]:
    """The page and its figures.

    Args:
        runs: At least one; each keeps its colour on the whole page.
        title: Its heading.

    Returns:
        The HTML, and `{figure name: <svg>}`.
    """
    robustness, corruption = _robustness_curves(runs), _corruption_curves(runs)
    training = _training_curves(runs)
    body = [
        *section(
            "Runs",
            "What was trained. A dash: the recipe's own value.",
            [_settings(runs)],
        ),
        *section(
            "Results",
            "Percent, over the whole evaluation set; loss, and the norm that the perturbation "
            "really had, as they are. A dash: not measured.",
            _results(runs),
        ),
        *section(
            "Beside the papers",
            "The papers' figures are for YouTube-8M with label spaces of their own: they stand "
            "here for the order of the columns and the size of the differences, not to be equalled "
            "on other data. A run stands in the column of its kind of attention and objective, "
            "whatever the width of its local window. Ours: mean over the matching runs, with their "
            "deviation when there are several.",
            [part for published in TABLES for part in _beside(published, runs)],
        ),
        *section(
            "Attention",
            "Entropy over log n is 1, and the distance to uniform 0, for a map that attends to "
            "all frames alike: such a map cannot be moved by an attack.",
            _attention_table(runs),
        ),
        *section(
            "Robustness over epsilon",
            "GAP under each attack; epsilon 0 is the clean evaluation. A curve that rises is a "
            "sign of masked gradients.",
            gallery(robustness),
        ),
        *section(
            "Natural corruptions",
            "GAP over severity; 0 is the clean evaluation.",
            gallery(corruption),
        ),
        *section("Training", "From metrics.jsonl.", gallery(training)),
    ]
    return document(title, body), {**robustness, **corruption, **training}


def build_explanation(explanation: dict[str, Any]) -> tuple[str, Figures]:
    """The page about one label of one clip, and its figures.

    Args:
        explanation: What `yt8m_gat.pipeline.explain` gives.
    """
    figures = {}
    for kind, curves in explanation["curves"].items():
        series = [
            Series(
                name, tuple((float(t), y) for t, y in enumerate(values)), index, len(values) < 61
            )
            for index, (name, values) in enumerate(curves.items())
        ]
        if series:
            name = kind.lower().replace(" ", "_").replace("+", "p")
            figures[name] = line_chart(kind, "frame (one a second)", kind, series)
    note = (
        f"Label {explanation['label']} of clip {explanation['video_id']}: probability "
        f"{percent(explanation['probability'])} %. Real frames only; padding is exactly 0 in all. "
        "Saliency is the largest gradient of the label's logit within a frame, SmoothGrad its mean "
        "over noisy copies; Grad-CAM++ is of the contextual frames before pooling; the attention "
        "profile is the share of attention that a frame gets, whatever the label."
    )
    return document("yt8m_gat: explanation", section("Over time", note, gallery(figures))), figures


def percent(value: Any) -> str:
    """A metric in percent, two places; a dash when there is none."""
    found = number(value)
    return "-" if found is None else f"{100 * found:.2f}"


def _plain(value: Any) -> str:
    found = number(value)
    return "-" if found is None else f"{found:.4g}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _settings(runs: Sequence[ReportedRun]) -> str:
    rows: list[tuple[str, Callable[[Any], Any]]] = [
        ("model", lambda c: c.model.name),
        ("options", lambda c: ", ".join(f"{k}={_shown(v)}" for k, v in c.model.options.items())),
        (
            "features",
            lambda c: ", ".join(f"{name} ({size})" for name, size in c.data.sizes.items()),
        ),
        ("classes", lambda c: c.data.num_classes),
        ("most frames", lambda c: c.data.max_frames if c.data.frame_features else None),
        ("normalize", lambda c: c.data.normalize),
        ("adversarial", lambda c: c.objective.adversarial),
        ("epsilon of training", lambda c: c.objective.epsilon),
        ("norm scope", lambda c: c.objective.norm_scope),
        ("alpha", lambda c: c.objective.alpha),
        ("beta", lambda c: c.objective.beta),
        ("reduction over classes", lambda c: c.objective.class_reduction),
        ("learning rate", lambda c: c.training.base_learning_rate),
        ("batch size", lambda c: c.training.batch_size),
        ("epochs, at most", lambda c: c.training.num_epochs),
        ("seed", lambda c: c.training.seed),
    ]
    return table(
        ["", *(run.name for run in runs)],
        [[name, *(_shown(read(run.config)) or "-" for run in runs)] for name, read in rows],
    )


def _results(runs: Sequence[ReportedRun]) -> list[str]:
    attacks = dict.fromkeys(str(row["attack"]) for run in runs for row in run.attacks)
    parts = _metric_table("clean", [(run.name, None, run.clean) for run in runs if run.clean])
    for attack in attacks:
        rows = [
            (run.name, number(row["epsilon"]), row)
            for run in runs
            for row in run.attacks
            if str(row["attack"]) == attack
        ]
        # A radius at a time, so that the runs stand below each other.
        parts += _metric_table(attack, sorted(rows, key=lambda row: row[1] or 0.0))
    return parts


def _metric_table(title: str, rows: list[tuple[str, float | None, dict[str, Any]]]) -> list[str]:
    """Of (run, epsilon, metrics); the columns that some row has."""
    if not rows:
        return []
    found = {key for *_, metrics in rows for key in metrics}
    radius = ["epsilon"] if any(epsilon is not None for _, epsilon, _ in rows) else []
    names = [name for name in _PERCENT if name in found]
    plain = [name for name in ("loss", "norm") if name in found]
    counts = [name for name in ("num_videos", "num_segments") if name in found]
    heads = ["run", *radius, *(_PERCENT[name] for name in names), *plain]
    heads += [name.removeprefix("num_") for name in counts]
    cells = [
        [
            name,
            *(_plain(epsilon) for _ in radius),
            *(percent(metrics.get(metric)) for metric in names),
            *(_plain(metrics.get(metric)) for metric in plain),
            *(_shown(metrics.get(metric)) for metric in counts),
        ]
        for name, epsilon, metrics in rows
    ]
    return [f"<h3>{escape(title)}</h3>", table(heads, cells)]


def _value_of(run: ReportedRun, column: Column, metric: str) -> float | None:
    """The run's own figure for a published column: fast gradient, epsilon 0.5, if adversarial."""
    if not column.adversarial:
        return number(run.clean.get(metric))
    for row in run.attacks:
        if row["attack"] == "fgm" and number(row["epsilon"]) == 0.5:
            return number(row.get(metric))
    return None


def _beside(published: PublishedTable, runs: Sequence[ReportedRun]) -> list[str]:
    rows, classes, used = [], [], set()
    for metric in published.metrics:
        ours = []
        for column in published.columns:
            values = []
            for run in runs:
                value = _value_of(run, column, metric) if column.matches(run.config) else None
                if value is not None:
                    values.append(value)
                    used.add(run.name)
            text = percent(statistics.fmean(values)) if values else "-"
            if len(values) > 1:
                text += f"±{100 * statistics.stdev(values):.2f} (n={len(values)})"
            ours.append(text)
        rows.append([f"{_PERCENT[metric]}, paper", *(c.figures[metric] for c in published.columns)])
        rows.append([f"{_PERCENT[metric]}, ours", *ours])
        classes += ["", "ours"]
    if not used:
        return []
    heads = ["", *(c.title + (", adversarial" if c.adversarial else "") for c in published.columns)]
    return [
        f"<h3>{escape(published.title)}</h3>",
        f'<p class="note">{escape(published.caption)} Ours: {escape(", ".join(sorted(used)))}.</p>',
        table(heads, rows, classes),
    ]


def _attention_table(runs: Sequence[ReportedRun]) -> list[str]:
    prefixes = {"attention_entropy_": "entropy / log n", "distance_to_uniform_": "to uniform"}
    keys = []
    for run in runs:
        keys += [k for k in run.clean if k.startswith(tuple(prefixes)) and k not in keys]
    rows = [
        [run.name, *(_plain(run.clean.get(key)) for key in keys)]
        for run in runs
        if any(key in run.clean for key in keys)
    ]
    heads = ["run"]
    for key in keys:
        prefix = next(p for p in prefixes if key.startswith(p))
        heads.append(f"{prefixes[prefix]}, {key.removeprefix(prefix)}")
    return [table(heads, rows)] if rows else []


def _curves(
    runs: Sequence[ReportedRun],
    rows_of: Callable[[ReportedRun], list[dict[str, Any]]],
    kind: str,
    x_key: str,
    x_label: str,
) -> Figures:
    """A figure of GAP over `x_key` per value of `kind` which has at least two of it, clean at 0."""
    figures = {}
    for name in dict.fromkeys(str(row[kind]) for run in runs for row in rows_of(run)):
        series = []
        for index, run in enumerate(runs):
            points = {}
            for row in rows_of(run):
                x, y = number(row[x_key]), number(row.get("gap"))
                if str(row[kind]) == name and x is not None and y is not None:
                    points[x] = 100 * y
            clean = number(run.clean.get("gap"))
            if len(points) >= 2:
                if clean is not None:
                    points.setdefault(0.0, 100 * clean)
                series.append(Series(run.name, tuple(sorted(points.items())), index))
        if series:
            figures[f"{x_key}_{name}"] = line_chart(name, x_label, "GAP, %", series)
    return figures


def _robustness_curves(runs: Sequence[ReportedRun]) -> Figures:
    return _curves(runs, lambda run: run.attacks, "attack", "epsilon", "epsilon")


def _corruption_curves(runs: Sequence[ReportedRun]) -> Figures:
    return _curves(runs, lambda run: run.corruptions, "corruption", "severity", "severity")


def _training_curves(runs: Sequence[ReportedRun]) -> Figures:
    wanted = [
        ("train", "loss", "Training loss", 1.0),
        ("validation", "loss", "Validation loss", 1.0),
        ("validation", "gap", "Validation GAP, %", 100.0),
        ("train", "learning_rate", "Learning rate", 1.0),
    ]
    entropies = {
        key: None
        for run in runs
        for record in run.history
        for key in record
        if key.startswith("attention_entropy_")
    }
    for key in entropies:
        feature = key.removeprefix("attention_entropy_")
        wanted.append(("validation", key, f"Attention entropy / log n, {feature}", 1.0))
    figures = {}
    for kind, key, label, scale in wanted:
        series = []
        for index, run in enumerate(runs):
            points = []
            for record in run.history:
                y = number(record.get(key)) if record.get("kind") == kind else None
                if y is not None:
                    points.append((float(record["step"]), scale * y))
            if points:
                series.append(Series(run.name, tuple(points), index, markers=len(points) <= 30))
        if series:
            figures[f"{kind}_{key}"] = line_chart(label, "step", label, series)
    return figures
