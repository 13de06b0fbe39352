"""Paired tests of two models on the same clips.

Hit@1: the exact test of McNemar. Clips that both models get right, or wrong, say nothing of their
difference; of the others, as many should fall to each side as heads to a coin. GAP pools all clips,
so that no clip has a share of it; its test is the bootstrap's: the clips are drawn with
replacement, for both models the same ones, and p is twice the share of resamples on whose other
side of 0 the difference lies.

Reference: McNemar, "Note on the sampling error of the difference between correlated proportions or
percentages", 1947; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 13 and
15.4.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from yt8m_gat.metrics.bootstrap import interval
from yt8m_gat.robustness.worst_case import unpacked, unpacked_values


def paired_test(ours: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Compares two rows that were measured on the same clips in the same order.

    Args:
        ours: A row with `gap`, `hit_at_1`, `hits` (see `packed`) and `resampled` (metric ->
            `packed_values` of its values on all resamples).
        baseline: The baseline's row.

    Returns:
        `gap` and `hit_at_1`, each with `ours`, `baseline`, `difference` (ours minus the
        baseline's), `interval` (of the difference, by the bootstrap; None if it has none) and `p`
        (two-sided). `hit_at_1` also has `only_ours` and `only_baseline`, the numbers of clips
        that only one of the two gets right. `gap` is None where a row has none.

    Raises:
        ValueError: The rows have different numbers of clips.
    """
    hits, theirs = unpacked(ours["hits"]), unpacked(baseline["hits"])
    if len(hits) != len(theirs):
        raise ValueError(
            f"the rows must be of the same clips. Received: {len(hits)} and {len(theirs)} clips"
        )
    differences = {
        name: unpacked_values(ours["resampled"][name])
        - unpacked_values(baseline["resampled"][name])
        for name in ("gap", "hit_at_1")
    }
    only_ours, only_baseline = int((hits & ~theirs).sum()), int((theirs & ~hits).sum())
    return {
        "gap": None
        if None in (ours["gap"], baseline["gap"])
        else {
            **_difference(ours["gap"], baseline["gap"], differences["gap"]),
            "p": bootstrap_p(differences["gap"]),
        },
        "hit_at_1": {
            **_difference(ours["hit_at_1"], baseline["hit_at_1"], differences["hit_at_1"]),
            "p": mcnemar_p(only_ours, only_baseline),
            "only_ours": only_ours,
            "only_baseline": only_baseline,
        },
    }


def mcnemar_p(only_ours: int, only_baseline: int) -> float:
    """Returns the two-sided p of the exact test, from the clips that only one model gets right.

    Examples:
        >>> from yt8m_gat.robustness.paired_test import mcnemar_p
        >>> mcnemar_p(8, 1)  # 2 (1 + 9) / 2 ** 9
        0.0390625
    """
    count = only_ours + only_baseline
    return float(stats.binomtest(only_ours, count).pvalue) if count else 1.0


def bootstrap_p(differences: np.ndarray) -> float | None:
    """Returns the two-sided p of a difference of 0, from the differences on all resamples.

    It is at least 2 / (R + 1) of R resamples: 0.01 of 200.

    Args:
        differences: [R]; NaN where a resample has none.

    Returns:
        The value; None unless more than half of the resamples have a difference.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.robustness.paired_test import bootstrap_p
        >>> bootstrap_p(np.array([0.1] * 18 + [-0.1]))  # 2 (1 + 1) / 20
        0.2
    """
    defined = differences[~np.isnan(differences)]
    if 2 * len(defined) <= len(differences):
        return None
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, float(2 * (1 + beyond) / (len(defined) + 1)))


def _difference(ours: float, baseline: float, differences: np.ndarray) -> dict[str, Any]:
    return {
        "ours": ours,
        "baseline": baseline,
        "difference": ours - baseline,
        "interval": interval(differences),
    }
