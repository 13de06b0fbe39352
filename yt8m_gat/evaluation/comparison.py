"""Compares two models class by class."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.job_settings import EvaluationSettings
from yt8m_gat.metrics import interval

EXTREMES = 5


def compare_classes(
    average_precision: np.ndarray,
    baseline: np.ndarray,
    names: Mapping[int, str],
    positives: np.ndarray,
    min_positives: int = EvaluationSettings.min_positives,
    num_extremes: int = EXTREMES,
) -> dict[str, Any]:
    """Computes differences in average precision, ours minus the baseline's, and lists the extremes.

    Classes with few positives have the largest differences by mere chance; they are not ranked.

    Args:
        average_precision: [C], NaN where a class has none.
        baseline: [C], on the same videos.
        names: Class -> name, for the classes whose names are known.
        positives: [C], examples of each class.
        min_positives: Number of positives that a class needs to be ranked.
        num_extremes: Number of classes listed at each end.

    Returns:
        `{"top": [[class, name or None, difference]], "bottom": [...], "differences": [C],
        "min_positives", "num_ranked"}`; `top` has the largest gains first, `bottom` the largest
        losses first. Of equal differences the lower class comes first.

    Raises:
        ValueError: The two have different classes.

    Reference: GAT, figure 8.
    """
    ours, theirs = np.asarray(average_precision), np.asarray(baseline)
    if not ours.shape == theirs.shape == np.shape(positives) or ours.ndim != 1:
        raise ValueError(
            "the average precisions and the positives must have the same shape [C]. "
            f"Received: {ours.shape}, {theirs.shape} and {np.shape(positives)}"
        )
    differences = ours - theirs
    ranked = np.flatnonzero(np.isfinite(differences) & (np.asarray(positives) >= min_positives))

    def listed(order: np.ndarray) -> list[list[Any]]:
        return [
            [int(index), names.get(int(index)), float(differences[index])]
            for index in ranked[order][:num_extremes]
        ]

    return {
        "top": listed(np.argsort(-differences[ranked], kind="stable")),
        "bottom": listed(np.argsort(differences[ranked], kind="stable")),
        "differences": differences.tolist(),
        "min_positives": min_positives,
        "num_ranked": len(ranked),
    }


def accuracy_gains(accuracy: Any, baseline: Any) -> dict[str, list[float]]:
    """Returns `accuracy_gains` [C], ours minus the baseline's, and `baseline_accuracy` [C].

    Args:
        accuracy: [C], of clips of one label each; NaN or None for a class without a clip.
        baseline: [C], on the same clips.

    Reference: TAF, figure 4.
    """
    ours, theirs = np.array(accuracy, np.float64), np.array(baseline, np.float64)
    return {"accuracy_gains": (ours - theirs).tolist(), "baseline_accuracy": theirs.tolist()}


def difference_intervals(
    comparison: Mapping[str, Any], ours: Measurement, baseline: Measurement
) -> dict[str, list[float] | None]:
    """Computes paired bootstrap intervals of the differences that a comparison lists.

    Args:
        comparison: The result of `compare_classes`.
        ours: The measurement behind its `average_precision`.
        baseline: The baseline's measurement, of the same videos in the same order.

    Returns:
        Class, as text, -> `[low, high]`, or None where too few resamples have a positive of it.
    """
    classes = [entry[0] for entry in (*comparison["top"], *comparison["bottom"])]
    classes = list(dict.fromkeys(classes))
    resampled = [one.resampled_average_precision(classes) for one in (ours, baseline)]
    differences = resampled[0] - resampled[1]
    return {
        str(index): interval(values) for index, values in zip(classes, differences.T, strict=True)
    }
