"""Metrics as tables: clean, attacked, over partitions and per group of classes."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from yt8m_gat.report.drawing.markup import (
    PERCENT_METRICS,
    Cell,
    folded,
    note,
    percent,
    plain,
    shown,
    table,
)
from yt8m_gat.report.source import ReportedRun, find_row, number, pair
from yt8m_gat.report.spec import attack_title, spec_title

# A metric row of a table: the run, what was done to the clips, the metrics.
Row = tuple[str, str, dict[str, Any]]

_CLEAN = "clean"


def result_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a clean table, a folded one per attack, and one over partitions if there are any."""
    parts = _metric_table("", [(run.title, "", run.clean) for run in runs if run.clean])
    if parts:
        parts = [f"<h3>{_CLEAN}</h3>", *parts]
    partitions = _partition_table(runs)
    attacks = dict.fromkeys(row["attack"] for run in runs for row in run.attacks)
    for attack in attacks:
        rows = [
            (run.title, number(row["epsilon"]), row)
            for run in runs
            for row in run.attacks
            if row["attack"] == attack
        ]
        # Sorted by radius, so that the runs can be compared at each.
        rows.sort(key=lambda row: row[1] or 0.0)
        radius = "epsilon" if any(epsilon is not None for _, epsilon, _ in rows) else ""
        cells = [(title, plain(epsilon) if radius else "", row) for title, epsilon, row in rows]
        few = len(attacks) == 1
        title = attack_title(rows[0][2])
        parts += folded(f"{title}: {attack}", _metric_table(radius, cells), few)
    return parts + partitions


def _metric_table(second: str, rows: list[Row]) -> list[str]:
    """Returns a table with the columns that some row has; the second one needs a heading."""
    if not rows:
        return []
    present = {key for *_, metrics in rows for key in metrics}
    names = [name for name in PERCENT_METRICS if name in present]
    fooled = ["success"] if "success" in present else []
    numbers = [name for name in ("loss", "norm", "relative_norm") if name in present]
    counts = [name for name in ("num_videos", "num_segments") if name in present]
    heads = ["run", *([second] if second else []), *(PERCENT_METRICS[name] for name in names)]
    heads += ["fooled" for _ in fooled] + [name.replace("_", " ") for name in numbers]
    heads += [name.removeprefix("num_") for name in counts]
    cells = [
        [
            title,
            *([kind] if second else []),
            *(percent(metrics.get(name)) for name in (*names, *fooled)),
            *(plain(metrics.get(name)) for name in numbers),
            *(shown(metrics.get(name)) for name in counts),
        ]
        for title, kind, metrics in rows
    ]
    return [table(heads, cells)]


def _conditions(
    clean: dict[str, Any], attacks: Iterable[dict[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """Returns (condition of the clips, metrics) of each row."""
    named = [(_CLEAN, clean)] if clean else []
    for row in attacks:
        epsilon = number(row["epsilon"])
        radius = "" if epsilon is None else f", {epsilon:g}"
        named.append((f"{attack_title(row)}{radius}", row))
    return named


def _partition_table(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a table of mean and deviation over disjoint parts of the set, as in the papers."""
    rows, present, counts = [], set(), set()
    for run in runs:
        for kind, metrics in _conditions(run.clean, run.attacks):
            parts = metrics.get("partitions")
            if isinstance(parts, dict):
                rows.append((run.title, kind, parts))
                present |= set(parts)
                counts.add(shown(parts.get("count")))
    names = [name for name in PERCENT_METRICS if name in present]
    if not rows or not names:
        return []
    cells = [
        [title, kind, *(partition_text(parts.get(name)) for name in names)]
        for title, kind, parts in rows
    ]
    heads = ["run", "clips", *(PERCENT_METRICS[name] for name in names)]
    text = f"Mean ± deviation over {' or '.join(sorted(counts))} disjoint parts of the set."
    return folded("Over partitions", [note(text), table(heads, cells)])


def partition_text(value: Any) -> str:
    """Formats `{"mean", "deviation"}` in percent."""
    if not isinstance(value, dict):
        return "-"
    return f"{percent(value.get('mean'))}±{percent(value.get('deviation'))}"


def vertical_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a table of all groups with their GAP, then each group with all its metrics."""
    names = dict.fromkeys(group["vertical"] for run in runs for group in run.verticals)
    if not names:
        return []
    groups = {
        name: [(run, g) for run in runs for g in run.verticals if g["vertical"] == name]
        for name in names
    }
    shared = _first_attack(runs)
    heads = ["vertical", "classes", "videos"]
    for run in runs:
        if run.verticals:
            heads.append(run.title)
            if shared:
                heads.append(f"{run.title}, {_words_of(*shared)}")
    rows = []
    for name, members in groups.items():
        counts = [
            " or ".join(dict.fromkeys(shown(group.get(key)) for _, group in members))
            for key in ("num_classes", "num_videos")
        ]
        row = [name, *counts]
        by_run = {run.name: group for run, group in members}
        for run in runs:
            if run.verticals:
                group = by_run.get(run.name, {"clean": {}})
                row.append(percent(group["clean"].get("gap")))
                if shared:
                    row.append(percent(find_row(group.get("attacks", []), *shared).get("gap")))
        rows.append(row)
    parts = [table(heads, rows)]
    for name, members in groups.items():
        cells = [
            (run.title, kind, metrics)
            for run, group in members
            for kind, metrics in _conditions(group["clean"], group.get("attacks", []))
        ]
        parts += folded(name, _metric_table("clips", cells))
    return parts


def _words_of(attack: str, epsilon: float | None) -> str:
    return spec_title(attack) + ("" if epsilon is None else f", epsilon {epsilon:g}")


def _first_attack(runs: Sequence[ReportedRun]) -> tuple[str, float | None] | None:
    """Returns the attack that the overview of verticals shows: the papers' fgm at 0.5 if run."""
    attacks = [
        (row["attack"], number(row["epsilon"]))
        for run in runs
        for group in run.verticals
        for row in group.get("attacks", [])
    ]
    return ("fgm", 0.5) if ("fgm", 0.5) in attacks else (attacks[0] if attacks else None)


@dataclasses.dataclass(frozen=True)
class Gain:
    """A class that a comparison lists.

    Attributes:
        index: The class.
        name: Its name, where it is known.
        difference: Ours minus the baseline's average precision.
        interval: Its bootstrap interval, where it is known.
    """

    index: Any
    name: Any
    difference: float | None
    interval: tuple[float, float] | None


def class_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns the classes of the largest gains and losses of each run that has a baseline."""
    parts = []
    for run in runs:
        comparison = run.evaluation.get("comparison")
        if not comparison:
            continue
        classes = run.evaluation.get("classes", {})
        rows = []
        for gain in gains(run):
            ours = _entry(classes.get("ap"), gain.index)
            difference = gain.difference
            baseline = None if ours is None or difference is None else ours - difference
            rows.append(
                [
                    class_name(gain.index, gain.name),
                    shown(_entry(classes.get("positives"), gain.index)),
                    percent(baseline),
                    percent(ours),
                    "-" if difference is None else f"{100 * difference:+.2f}",
                    "-"
                    if gain.interval is None
                    else " to ".join(f"{100 * end:+.2f}" for end in gain.interval),
                ]
            )
        heads = ["class", "positives", "AP, baseline", "AP, ours", "gain", "95 % interval"]
        parts.append(note(f"{run.title}, over {comparison['baseline']}. {_ranked(comparison)}"))
        if rows:
            parts.append(table(heads, rows))
    return parts


def paired_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a table per baseline: GAP and Hit@1 minus its own, clean and under each attack."""
    parts = []
    for run in runs:
        comparison = run.evaluation.get("comparison", {})
        rows: list[list[str | Cell]] = []
        for test in comparison.get("rows", []):
            epsilon = number(test["epsilon"])
            radius = "" if epsilon is None else f", epsilon {epsilon:g}"
            cells: list[str | Cell] = [f"{test['attack'] or 'clean'}{radius}"]
            for name in ("gap", "hit_at_1"):
                of_metric = test[name] or {}
                cells += [percent(of_metric.get("baseline")), percent(of_metric.get("ours"))]
                cells += [_points(of_metric), plain(of_metric.get("p"))]
            rows.append(cells)
        if rows:
            heads = ["clips"]
            for name in ("GAP", "Hit@1"):
                heads += [f"{name}, baseline", f"{name}, ours", "difference", "p"]
            parts += [note(f"{run.title}, over {comparison['baseline']}."), table(heads, rows)]
    return parts


def _points(of_metric: Mapping[str, Any]) -> Cell:
    """Returns a difference in points and, below it, its interval."""
    difference, ends = number(of_metric.get("difference")), pair(of_metric.get("interval"))
    text = "-" if difference is None else f"{100 * difference:+.2f}"
    if ends is not None:
        text += f"\n({100 * ends[0]:+.2f} to {100 * ends[1]:+.2f})"
    return Cell(text, "lines")


def _ranked(comparison: dict[str, Any]) -> str:
    """Returns a sentence about the classes that were ranked."""
    least = comparison.get("min_positives")
    if least is None:
        return (
            "Ranked: all classes, however few positives they have; without intervals (written by "
            "an older eval.py). The largest differences are those of rare classes, by chance."
        )
    count = shown(comparison.get("num_ranked"))
    return f"Ranked: the {count} classes with {shown(least)} positives or more (--min_positives)."


def gains(run: ReportedRun) -> list[Gain]:
    """Returns the top and bottom classes of the comparison, each once, the largest gain first."""
    comparison = run.evaluation.get("comparison", {})
    intervals = comparison.get("intervals")
    listed = {}
    for entry in [*comparison.get("top", []), *comparison.get("bottom", [])]:
        if len(entry) == 3:
            index, name, difference = entry
            ends = intervals.get(str(index)) if isinstance(intervals, dict) else None
            listed.setdefault(str(index), Gain(index, name, number(difference), pair(ends)))
    return sorted(listed.values(), key=lambda gain: -(gain.difference or 0.0))


def class_name(index: Any, name: Any) -> str:
    """Returns the name of a class on the page."""
    return f"{name} ({index})" if name else f"class {index}"


def _entry(values: Any, index: Any) -> Any:
    fits = isinstance(values, list) and isinstance(index, int) and 0 <= index < len(values)
    return values[index] if fits else None


def heading(text: str) -> str:
    """Returns a heading inside a section."""
    return f"<h3>{escape(text)}</h3>"
