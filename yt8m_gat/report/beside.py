"""Our figures in the papers' tables."""

import statistics
from collections.abc import Sequence
from typing import Any

from yt8m_gat.report.drawing.markup import (
    PERCENT_METRICS,
    mean_and_deviation,
    note,
    percent,
    plain,
    table,
)
from yt8m_gat.report.published import MAP_DISTANCES, TABLES, Column, PublishedTable
from yt8m_gat.report.results import heading, partition_text
from yt8m_gat.report.source import ReportedRun, RunGroup, find_row, number
from yt8m_gat.report.spec import options_of, spec_title

# The attack of the papers.
_PAPERS_ATTACK = ("fgm", 0.5)


def published_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns the published tables in which a run has a column; names runs on segments instead."""
    whole = [run for run in runs if not run.on_segments]
    parts = [part for published in TABLES for part in _beside(published, whole)]
    columns = [column for published in TABLES for column in published.columns]
    left_out = [
        run.title
        for run in runs
        if run.on_segments and any(column.matches(run.config) for column in columns)
    ]
    if left_out:
        text = (
            f"Left out: {', '.join(left_out)}. Evaluated on rated segments: figures over rated "
            "pairs of segment and class, not over whole videos as the papers'."
        )
        parts.append(note(text))
    return parts


def _row_of(run: ReportedRun, column: Column, vertical: str | None) -> dict[str, Any]:
    """Returns the run's own row for a published column; empty when it was not measured."""
    clean, attacks = run.clean, run.attacks
    if vertical is not None:
        for group in run.verticals:
            if group["vertical"].lower() == vertical.lower():
                clean, attacks = group["clean"], group.get("attacks", [])
                break
        else:
            return {}
    if not column.adversarial:
        return clean
    row = find_row(attacks, *_PAPERS_ATTACK)
    # The papers' radius is that of each frame.
    norm = options_of(row).get("norm_scope")
    return row if norm in (None, "frame") else {}


def _ours(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """Mean and deviation over runs; of one run, over its partitions if there are any."""
    values = [value for row in rows if (value := number(row.get(metric))) is not None]
    if len(values) == 1:
        (row,) = [row for row in rows if number(row.get(metric)) is not None]
        parts = row.get("partitions")
        if isinstance(parts, dict) and metric in parts:
            return partition_text(parts[metric])
    if len(values) < 2:
        return percent(values[0]) if values else "-"
    deviation = percent(statistics.stdev(values))
    return f"{percent(statistics.fmean(values))}±{deviation} (n={len(values)})"


def _beside(published: PublishedTable, runs: Sequence[ReportedRun]) -> list[str]:
    cells = [
        [
            (run, row)
            for run in runs
            if column.matches(run.config) and (row := _row_of(run, column, published.vertical))
        ]
        for column in published.columns
    ]
    used = {
        run.title
        for column in cells
        for run, row in column
        if any(number(row.get(metric)) is not None for metric in published.metrics)
    }
    if not used:
        return []
    rows, classes = [], []
    for metric in published.metrics:
        name = PERCENT_METRICS[metric]
        rows.append([f"{name}, paper", *(c.figures[metric] for c in published.columns)])
        rows.append([f"{name}, ours", *(_ours([row for _, row in c], metric) for c in cells)])
        classes += ["", "ours"]
    heads = ["", *(c.title + (", adversarial" if c.adversarial else "") for c in published.columns)]
    about = "" if published.vertical is None else f": {published.vertical}"
    return [
        heading(published.title + about),
        note(f"{published.caption} Ours: {', '.join(sorted(used))}."),
        table(heads, rows, classes),
    ]


def map_distance_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of how far an attack moved the maps, beside the papers' figures."""
    keys: dict[str, None] = {}
    attacks: dict[tuple[str, float | None], None] = {}
    for group in groups:
        for run in group.runs:
            for row in run.attacks:
                of_row = [
                    k for k in row if k.startswith(("attention_mse_", "attention_frobenius_"))
                ]
                if of_row:
                    keys.update(dict.fromkeys(sorted(of_row, reverse=True)))
                    attacks[row["attack"], number(row["epsilon"])] = None
    if not keys:
        return []
    attack = _PAPERS_ATTACK if _PAPERS_ATTACK in attacks else next(iter(attacks))
    metrics = dict.fromkeys(distance.metric for distance in MAP_DISTANCES)
    rows = []
    for group in groups:
        figures = [run.attacked(*attack) for run in group.runs]
        row = [group.title]
        row += [mean_and_deviation([f.get(key) for f in figures], in_percent=False) for key in keys]
        for metric in metrics:
            theirs = [
                distance.figure
                for distance in MAP_DISTANCES
                if distance.metric == metric and distance.matches(group.runs[0].config)
            ]
            row.append(theirs[0] if theirs else "-")
        rows.append(row)
    heads = ["", *(_distance_words(key) for key in keys)]
    heads += [f"{_distance_words(metric)}, paper" for metric in metrics]
    radius = "" if attack[1] is None else f", epsilon {plain(attack[1])}"
    sources = "; ".join(
        dict.fromkeys(f"{_distance_words(d.metric)}: {d.source}" for d in MAP_DISTANCES)
    )
    text = (
        f"Between the global maps, averaged over the heads, of clean and attacked clips "
        f"({spec_title(attack[0])}{radius}). The papers' figures ({sources}) are of 300 frames "
        "and name no modality: a squared error is a mean over n x n weights that are each around "
        "1/n, so it falls with the square of the length by itself."
    )
    return [heading("How far the maps move"), note(text), table(heads, rows)]


def _distance_words(key: str) -> str:
    for prefix, words in (("attention_mse", "squared error"), ("attention_frobenius", "Frobenius")):
        if key.startswith(prefix):
            feature = key.removeprefix(prefix).removeprefix("_")
            return f"{words}, {feature}" if feature else words
    return key
