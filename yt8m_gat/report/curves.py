"""Curves over epsilon, over severity and over the steps of training."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from yt8m_gat.report.drawing.bar_chart import Bar, bar_chart, range_of
from yt8m_gat.report.drawing.chart import (
    MOST_MARKERS,
    Range,
    Series,
    line_chart,
    padded,
    shared_heights,
)
from yt8m_gat.report.drawing.markup import Figures, interval_of, mean_and_deviation, shown, table
from yt8m_gat.report.results import Gain, class_name, gains
from yt8m_gat.report.source import ReportedRun, RunGroup, number
from yt8m_gat.report.spec import attack_title, ball_of

# Above this ratio of the largest to the smallest radius, radii are placed at equal distances.
_WIDE = 12.0


def robustness_curves(runs: Sequence[ReportedRun]) -> Figures:
    """Returns a figure per attack that was run at two radii or more."""
    titles = {row["attack"]: attack_title(row) for run in runs for row in reversed(run.attacks)}
    norms = {
        row["attack"]: ball.norm
        for run in runs
        for row in run.attacks
        if (ball := ball_of(row)) is not None
    }
    return _curves(
        runs, lambda run: run.attacks, "attack", "epsilon", titles.__getitem__, norms.get
    )


def corruption_curves(runs: Sequence[ReportedRun]) -> Figures:
    """Returns a figure per corruption."""
    return _curves(
        runs,
        lambda run: run.corruptions,
        "corruption",
        "severity",
        lambda name: name.replace("_", " "),
        lambda name: "",
    )


def corruption_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of GAP under each corruption, the mean over its severities."""
    names = dict.fromkeys(
        row["corruption"] for group in groups for run in group.runs for row in run.corruptions
    )
    if not names:
        return []

    # Severities of every corruption of every run: means over different ones do not compare.
    severities = set.intersection(
        *(
            {row["severity"] for row in run.corruptions if row["corruption"] == name}
            for group in groups
            for run in group.runs
            for name in {row["corruption"] for row in run.corruptions}
        )
    )
    if not severities:
        return []

    def mean_gap(run: ReportedRun, wanted: Iterable[str]) -> float | None:
        """Returns the mean over the severities; None if one of `wanted` was not run."""
        rows = [
            row
            for row in run.corruptions
            if row["corruption"] in wanted and row["severity"] in severities
        ]
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
    listed = ", ".join(map(shown, sorted(severities, key=lambda severity: number(severity) or 0.0)))
    heads = [f"GAP, %, mean over severities {listed}", *(group.title for group in groups)]
    return [table(heads, rows, classes)]


def gain_figures(runs: Sequence[ReportedRun]) -> Figures:
    """Returns a figure per run that was compared with a baseline, class by class, on one axis."""
    panels = []
    for run in runs:
        bars = [
            Bar(class_name(gain.index, gain.name), 100 * gain.difference, _in_points(gain))
            for gain in gains(run)
            if gain.difference is not None
        ]
        if bars:
            panels.append((run, bars))
    if not panels:
        return {}
    x_range = range_of(bar for _, bars in panels for bar in bars)
    return {
        f"gains_{run.name}": bar_chart(f"{run.title}: gain in AP, points", bars, x_range)
        for run, bars in panels
    }


def _in_points(gain: Gain) -> Range | None:
    return gain.interval and (100 * gain.interval[0], 100 * gain.interval[1])


def training_curves(runs: Sequence[ReportedRun]) -> Figures:
    """Returns figures of losses, validation GAP, learning rate and attention entropy over steps.

    Losses share an axis if they are the same function: the minimized loss for each objective, the
    loss of the clean clips for each form. Of raw clips the latter has training and validation in
    one figure (figure 5 of TAF), where over-fitting is the gap between the two.
    """
    steps = [float(record["step"]) for run in runs for record in run.history]
    if not steps:
        return {}
    draw = functools.partial(_history, runs, padded(steps, 0.02))
    figures = {}
    for place, (words, members) in enumerate(_by(runs, _objective).items()):
        name = "train_loss" + (f"_{place}" if place else "")
        figures |= draw(name, "train", "loss", f"Training loss: {words}", members)
    for place, (words, members) in enumerate(_by(runs, _label_loss).items()):
        suffix = f"_{place}" if place else ""
        if any(run.config.data.clips is not None for run in members):
            figures |= _losses(runs, padded(steps, 0.02), f"losses{suffix}", words, members)
            continue
        for kind, key, title in (
            ("train", "clean_loss", "Training loss of the clean clips"),
            ("validation", "loss", "Validation loss"),
        ):
            figures |= draw(f"{kind}_{key}{suffix}", kind, key, f"{title}: {words}", members)
    figures |= draw("validation_gap", "validation", "gap", "Validation GAP, %", scale=100.0)
    figures |= draw(
        "train_learning_rate", "train", "learning_rate", "Learning rate", from_zero=True
    )
    prefix = "attention_entropy_"
    entropies = dict.fromkeys(
        key for run in runs for record in run.history for key in record if key.startswith(prefix)
    )
    for key in entropies:
        title = f"Attention entropy / log n, {key.removeprefix(prefix)}"
        figures |= draw(f"validation_{key}", "validation", key, title)
    return figures


def _by(
    runs: Sequence[ReportedRun], words: Callable[[ReportedRun], str]
) -> dict[str, list[ReportedRun]]:
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(words(run), []).append(run)
    return groups


def _label_loss(run: ReportedRun) -> str:
    objective = run.config.objective
    words = [objective.label_loss]
    words += [f"{name} {value}" for name, value in objective.label_loss_options.items()]
    words += [f"{objective.class_reduction} over the classes"]
    if objective.unrated_as_negative:
        words.append("unrated classes as negatives")
    return ", ".join(words)


def _objective(run: ReportedRun) -> str:
    """Returns a description of all terms of the minimized sum."""
    objective = run.config.objective
    kind = objective.adversarial
    if kind == "none":
        return _label_loss(run)
    words = [_label_loss(run), kind]
    if kind == "temporal":
        words += [
            f"{key}={value}"
            for key, value in dataclasses.asdict(objective).items()
            if key.startswith("temporal_")
        ]
    else:
        words.append(f"epsilon {objective.epsilon:g} by {objective.norm_scope}")
    if objective.alpha is not None:
        words.append(f"alpha {objective.alpha:g}")
    if objective.ascent_steps:
        words.append(f"{objective.ascent_steps} steps of {objective.ascent_step_size:g}")
    if kind == "trades":
        words.append(f"beta {objective.penalty_weight:g} on predictions")
    if kind == "embedding":
        words.append(f"beta {objective.penalty_weight:g} on embeddings")
    if objective.clean_weight is not None:
        words.append(f"clean loss times {objective.clean_weight:g}")
    if kind in ("frobenius", "jensen_shannon"):
        words.append(
            f"beta {objective.penalty_weight:g} on {', '.join(objective.penalized_levels)}"
        )
    return ", ".join(words)


def _history(
    runs: Sequence[ReportedRun],
    x_range: Range,
    name: str,
    kind: str,
    key: str,
    title: str,
    members: Sequence[ReportedRun] | None = None,
    scale: float = 1.0,
    from_zero: bool = False,
) -> Figures:
    """Returns the figure of one number of metrics.jsonl over steps; empty if no run has it."""
    series = []
    for index, run in enumerate(runs):
        if members is not None and run not in members:
            continue
        series += _line_of(run, run.title, index, kind, key, scale)
    if not series:
        return {}
    # The axis need not repeat the feature, which the title names.
    y_label = title.removeprefix("Attention ").partition(",")[0].partition(":")[0]
    heights = shared_heights([series], from_zero)
    return {name: line_chart(title, "step", y_label, series, y_range=heights, x_range=x_range)}


def _losses(
    runs: Sequence[ReportedRun],
    x_range: Range,
    name: str,
    words: str,
    members: Sequence[ReportedRun],
) -> Figures:
    """Returns the figure of the label loss in training and, dashed, in validation."""
    series = []
    for index, run in enumerate(runs):
        if run in members:
            series += _line_of(run, f"{run.title}, training", index, "train", "clean_loss")
            series += _line_of(run, f"{run.title}, validation", index, "validation", "loss", dash=1)
    if not series:
        return {}
    title = f"Loss of the clean clips: {words}"
    heights = shared_heights([series])
    return {name: line_chart(title, "step", "Loss", series, y_range=heights, x_range=x_range)}


def _line_of(
    run: ReportedRun,
    name: str,
    index: int,
    kind: str,
    key: str,
    scale: float = 1.0,
    dash: int = 0,
) -> list[Series]:
    """Returns the line of one number of metrics.jsonl; nothing if the run does not have it."""
    points = tuple(
        (float(record["step"]), scale * y)
        for record in run.history
        if record.get("kind") == kind and (y := number(record.get(key))) is not None
    )
    markers = len(points) <= MOST_MARKERS
    return [Series(name, points, index, markers=markers, dash=dash)] if points else []


def _curves(
    runs: Sequence[ReportedRun],
    rows_of: Callable[[ReportedRun], list[dict[str, Any]]],
    kind: str,
    x_key: str,
    words: Callable[[str], str],
    family: Callable[[str], str | None],
) -> Figures:
    """Returns a figure of GAP over `x_key` per value of `kind` with two or more; clean is at 0.

    All share one y axis; those of a family, whose `x_key` means the same, also one x axis.
    """
    panels: dict[str, list[tuple[ReportedRun, int, dict[float, dict[str, Any]]]]] = {}
    for name in dict.fromkeys(row[kind] for run in runs for row in rows_of(run)):
        for index, run in enumerate(runs):
            rows = {
                x: row
                for row in rows_of(run)
                if row[kind] == name
                and (x := number(row[x_key])) is not None
                and number(row.get("gap")) is not None
            }
            if len(rows) >= 2:
                if number(run.clean.get("gap")) is not None:
                    rows.setdefault(0.0, run.clean)
                panels.setdefault(name, []).append((run, index, dict(sorted(rows.items()))))
    axes = {
        of: _Axis.of(
            x for name, lines in panels.items() if family(name) == of for *_, r in lines for x in r
        )
        for of in dict.fromkeys(map(family, panels))
    }
    drawn = {
        name: [_line(run, index, rows, axes[family(name)]) for run, index, rows in lines]
        for name, lines in panels.items()
    }
    if not drawn:
        return {}
    heights = shared_heights(drawn.values(), from_zero=True)
    return {
        f"{x_key}_{name}": line_chart(
            words(name),
            x_key,
            "GAP, %",
            series,
            axes[family(name)].ticks,
            heights,
            axes[family(name)].range,
        )
        for name, series in drawn.items()
    }


def _line(
    run: ReportedRun, index: int, rows: Mapping[float, Mapping[str, Any]], axis: "_Axis"
) -> Series:
    intervals = {x: interval_of(row, "gap") for x, row in rows.items()}
    return Series(
        run.title,
        tuple((axis.at[x], 100 * row["gap"]) for x, row in rows.items()),
        index,
        intervals=tuple(
            (axis.at[x], 100 * ends[0], 100 * ends[1]) for x, ends in intervals.items() if ends
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Axis:
    """An x axis of radii or severities.

    Attributes:
        at: Value -> place.
        ticks: Place -> its label; None: round numbers.
    """

    at: dict[float, float]
    ticks: dict[float, str] | None

    @classmethod
    def of(cls, values: Iterable[float]) -> "_Axis":
        """Builds the axis of some values; a wide range is placed at equal distances."""
        places = sorted(set(values))
        positive = [x for x in places if x > 0]
        if len(positive) < 2 or positive[-1] / positive[0] <= _WIDE:
            return cls({x: x for x in places}, None)
        at = {x: float(index) for index, x in enumerate(places)}
        return cls(at, {at[x]: f"{x:g}" for x in places})

    @property
    def range(self) -> Range:
        return padded(list(self.at.values()), 0.02)
