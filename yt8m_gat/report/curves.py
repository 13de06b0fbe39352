"""Curves over epsilon, over severity and over the steps of training."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from yt8m_gat.report.bar_chart import bar_chart
from yt8m_gat.report.chart import Series, line_chart
from yt8m_gat.report.markup import Figures, mean_and_deviation, table
from yt8m_gat.report.results import class_name, gains
from yt8m_gat.report.source import ReportedRun, RunGroup, number
from yt8m_gat.report.spec import spec_title

# From this ratio of the largest to the smallest radius, radii stand at equal distances.
_WIDE = 12.0


def robustness_curves(runs: Sequence[ReportedRun]) -> Figures:
    """A figure per attack that was run at two radii or more."""
    return _curves(runs, lambda run: run.attacks, "attack", "epsilon", spec_title)


def corruption_curves(runs: Sequence[ReportedRun]) -> Figures:
    """A figure per corruption."""
    return _curves(
        runs,
        lambda run: run.corruptions,
        "corruption",
        "severity",
        lambda name: name.replace("_", " "),
    )


def corruption_table(groups: Sequence[RunGroup]) -> list[str]:
    """GAP under each corruption, the mean over its severities."""
    names = dict.fromkeys(
        row["corruption"] for group in groups for run in group.runs for row in run.corruptions
    )
    if not names:
        return []

    def mean_gap(run: ReportedRun, wanted: Iterable[str]) -> float | None:
        """Over all severities of `wanted`; None where one of them was not run."""
        rows = [row for row in run.corruptions if row["corruption"] in wanted]
        gaps = [gap for row in rows if (gap := number(row.get("gap"))) is not None]
        complete = {row["corruption"] for row in rows} == set(wanted)
        return statistics.fmean(gaps) if gaps and complete else None

    rows = [
        [
            "clean",
            *(mean_and_deviation([r.clean.get("gap") for r in group.runs]) for group in groups),
        ]
    ]
    for name in names:
        cells = [
            mean_and_deviation([mean_gap(run, [name]) for run in group.runs]) for group in groups
        ]
        rows.append([name.replace("_", " "), *cells])
    everything = [mean_and_deviation([mean_gap(r, names) for r in group.runs]) for group in groups]
    rows.append(["mean over all", *everything])
    classes = ["", *("" for _ in names), "ours"]
    heads = ["GAP, %, mean over severities", *(group.title for group in groups)]
    return [table(heads, rows, classes)]


def gain_figures(runs: Sequence[ReportedRun]) -> Figures:
    """A figure per run that was compared with a baseline, class by class."""
    figures = {}
    for run in runs:
        bars = [
            (class_name(index, name), 100 * difference)
            for index, name, difference in gains(run)
            if difference is not None
        ]
        if bars:
            figures[f"gains_{run.name}"] = bar_chart(f"{run.title}: gain in AP, points", bars)
    return figures


def training_curves(runs: Sequence[ReportedRun]) -> Figures:
    """Losses, validation GAP, learning rate and attention entropy over the steps."""
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
                series.append(Series(run.title, tuple(points), index, markers=len(points) <= 30))
        if series:
            # What the title says of the feature need not stand along the axis too.
            y_label = label.removeprefix("Attention ").partition(",")[0]
            figures[f"{kind}_{key}"] = line_chart(label, "step", y_label, series)
    return figures


def _curves(
    runs: Sequence[ReportedRun],
    rows_of: Callable[[ReportedRun], list[dict[str, Any]]],
    kind: str,
    x_key: str,
    words: Callable[[str], str],
) -> Figures:
    """A figure of GAP over `x_key` per value of `kind` which has at least two of it, clean at 0."""
    figures = {}
    for name in dict.fromkeys(row[kind] for run in runs for row in rows_of(run)):
        lines = []
        for index, run in enumerate(runs):
            points = {}
            for row in rows_of(run):
                x, y = number(row[x_key]), number(row.get("gap"))
                if row[kind] == name and x is not None and y is not None:
                    points[x] = 100 * y
            clean = number(run.clean.get("gap"))
            if len(points) >= 2:
                if clean is not None:
                    points.setdefault(0.0, 100 * clean)
                lines.append((run.title, index, dict(sorted(points.items()))))
        if not lines:
            continue
        places = sorted({x for *_, points in lines for x in points})
        positive = [x for x in places if x > 0]
        spread = len(positive) > 1 and positive[-1] / positive[0] > _WIDE
        at = {x: float(i) if spread else x for i, x in enumerate(places)}
        series = [
            Series(title, tuple((at[x], y) for x, y in points.items()), index)
            for title, index, points in lines
        ]
        x_ticks = {at[x]: f"{x:g}" for x in places} if spread else None
        figures[f"{x_key}_{name}"] = line_chart(words(name), x_key, "GAP, %", series, x_ticks)
    return figures
