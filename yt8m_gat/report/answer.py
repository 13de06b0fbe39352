"""The opening section of the page: each run clean and under its strongest attack."""

from collections.abc import Sequence
from typing import Any

from yt8m_gat.report.drawing.bar_chart import Bar, point_chart
from yt8m_gat.report.drawing.chart import padded
from yt8m_gat.report.drawing.markup import (
    Cell,
    Figures,
    gallery,
    interval_of,
    note,
    percent,
    shown,
    table,
    with_interval,
)
from yt8m_gat.report.source import ReportedRun, number
from yt8m_gat.report.spec import Ball, attack_title, options_of
from yt8m_gat.report.strongest import main_ball, strongest


def answer(runs: Sequence[ReportedRun]) -> tuple[list[str], Figures]:
    """Returns the table of the runs with a note on how to read it, and its figure."""
    runs = [run for run in runs if run.clean]
    if not runs:
        return [], {}
    ball = main_ball([run.attacks for run in runs])
    rows, bars = [], []
    for index, run in enumerate(runs):
        worst = strongest(run.attacks, ball)
        count = "segments" if run.on_segments else "videos"
        cells: list[str | Cell] = [run.title, with_interval(run.clean, "gap")]
        if ball is not None:
            cells.append(with_interval(worst, "gap"))
        cells.append(with_interval(run.clean, "hit_at_1"))
        if ball is not None:
            cells += [with_interval(worst, "hit_at_1"), percent(_robust_hits(run, ball))]
            cells.append(Cell(attack_title(worst) if worst else "-", "name"))
        rows.append([*cells, f"{shown(run.clean.get(f'num_{count}'))} {count}"])
        for kind, row in (("clean", run.clean), (attack_title(worst) if worst else "", worst)):
            if (gap := number(row.get("gap"))) is not None:
                ends = interval_of(row, "gap")
                ends = ends and (100 * ends[0], 100 * ends[1])
                bars.append(Bar(f"{run.title}: {kind}", 100 * gap, ends, index))
    heads: list[str | Cell] = ["run", "GAP, clean"]
    if ball is None:
        heads += ["Hit@1, clean", "of"]
    else:
        heads += ["GAP, attacked", "Hit@1, clean", "Hit@1, attacked", "Hit@1, all attacks"]
        heads += [Cell("the strongest attack", "name"), "of"]
    figures = {}
    if bars:
        ends = [end for bar in bars for end in bar.ends]
        x_range = (0.0, padded([0.0, *ends], 0.04)[1])
        title = "GAP, clean" + ("" if ball is None else " and under the strongest attack")
        figures["answer"] = point_chart(title, "GAP, %", bars, x_range)
    return [note(_words(runs, ball)), table(heads, rows), *gallery(figures)], figures


def _words(runs: Sequence[ReportedRun], ball: Ball | None) -> str:
    text = ["Percent."]
    if any(interval_of(run.clean, "gap") for run in runs):
        intervals = next(r.clean["intervals"] for r in runs if interval_of(r.clean, "gap"))
        level, count = number(intervals.get("level")), shown(intervals.get("resamples"))
        text.append(
            f"In brackets {percent(level).removesuffix('.00')} % intervals over the choice of the "
            f"clips ({count} bootstrap resamples): how much the figures could vary with another "
            "set of as many clips, not with another seed of training."
        )
    if any(not interval_of(run.clean, "gap") for run in runs):
        text.append("A figure without brackets has no known interval: see below.")
    if ball is None:
        text.append("No attack was run at a radius.")
    else:
        text.append(
            f"Attacked: of the attacks run at {ball.words}, the one that leaves the lowest GAP. "
            "All attacks: clips whose first class is a label clean and under each of those attacks."
        )
    return " ".join(text)


def _robust_hits(run: ReportedRun, ball: Ball) -> Any:
    """Returns Hit@1 over all attacks of a ball, clip by clip; None if there are not several."""
    for case in run.worst_cases:
        same = (case["axes"], case.get("round") is True) == (ball.norm, ball.rounded)
        if same and number(case["epsilon"]) == ball.epsilon:
            return case["hit_at_1"]
    return None


def differences(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns the differences between the evaluations of the runs, each as a sentence."""
    measured = [run for run in runs if run.clean]
    sentences = []
    for key, words in _COMPARABLE.items():
        values = [run.settings.get(key) for run in measured]
        recorded = [value for value in values if value is not None]
        if len({repr(value) for value in recorded}) > 1:
            each = ", ".join(
                run.name if key == "files" else f"{run.name}: {shown(value)}"
                for run, value in zip(measured, values, strict=True)
            )
            sentences.append(f"{words} ({each}).")
    options: dict[tuple[str, Any], set[str]] = {}
    for run in measured:
        for row in run.attacks:
            if options_of(row):
                key = (row["attack"], number(row["epsilon"]))
                options.setdefault(key, set()).add(repr(sorted(options_of(row).items())))
    unlike = dict.fromkeys(attack for (attack, _), kinds in options.items() if len(kinds) > 1)
    if unlike:
        sentences.append(f"Attacks of one name had other options: {', '.join(unlike)}.")
    return sentences


_COMPARABLE = {
    "files": "The runs were evaluated on different files",
    "max_videos": "They were evaluated on different numbers of first videos; 0 is all",
    "segment_labels": "Some were evaluated on rated segments, others on whole videos",
    "top_k": "GAP and MAP count different numbers of predictions a clip",
    "checkpoint": "Different states of the runs were evaluated",
    "on_bad_record": "Bad records were treated differently",
}
