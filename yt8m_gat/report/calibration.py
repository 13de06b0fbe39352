"""How far probabilities can be taken at their word: a table of runs, and reliability diagrams."""

from collections.abc import Sequence

from yt8m_gat.report.drawing.chart import Series, line_chart
from yt8m_gat.report.drawing.markup import Figures, shown, table
from yt8m_gat.report.source import ReportedRun

_DIAGONAL = Series("as many as said", ((0.0, 0.0), (1.0, 1.0)), index=3, markers=False, dash=1)


def calibration_table(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns the table of the runs that are calibrated; nothing if none is."""
    rows = [
        [
            run.title,
            shown(found.num_examples),
            f"{found.temperature:.3f}",
            *(
                f"{pair[side]:.4f}"
                for pair in (found.nll, found.ece, found.top_ece)
                for side in (0, 1)
            ),
            f"{found.num_own} of {len(found.thresholds)}",
        ]
        for run in runs
        if (found := run.calibration) is not None
    ]
    heads = [
        *("run", "examples", "temperature", "NLL before", "after", "ECE before", "after"),
        *("ECE of the likeliest before", "after", "classes with a threshold of their own"),
    ]
    return [table(heads, rows)] if rows else []


def calibration_figures(runs: Sequence[ReportedRun]) -> Figures:
    """Returns the reliability diagram of each calibrated run (Guo et al., 2017, figure 1)."""
    figures = {}
    for run in runs:
        if (found := run.calibration) is None:
            continue
        series = [
            Series(name, tuple((confidence, accuracy) for _, confidence, accuracy in bins), index)
            for index, (name, bins) in enumerate(
                {"before": found.bins, "after": found.calibrated_bins}.items()
            )
        ]
        figures[f"reliability_{run.name}"] = line_chart(
            f"{run.title}: reliability",
            "mean probability",
            "share of positives",
            [*series, _DIAGONAL],
        )
    return figures
