"""Class by class, what one model does better than another."""

from collections.abc import Mapping
from typing import Any

import numpy as np

EXTREMES = 5


def compare_classes(
    average_precision: np.ndarray,
    baseline: np.ndarray,
    names: Mapping[int, str],
    num_extremes: int = EXTREMES,
) -> dict[str, Any]:
    """Differences in average precision, ours minus the baseline's, and the classes at both ends.

    A class without a positive has no average precision and no part in this.

    Args:
        average_precision: [C], NaN where a class has none.
        baseline: [C], on the same videos.
        names: Class -> name, as far as they are known.
        num_extremes: How many classes are listed at each end.

    Returns:
        `{"top": [[class, name or None, difference]], "bottom": [...], "differences": [C]}`; the
        largest gains first, and the largest losses first. Of equal differences the lower class
        comes first.

    Raises:
        ValueError: The two have other classes.

    Reference: GAT, figure 8.
    """
    ours, theirs = np.asarray(average_precision), np.asarray(baseline)
    if ours.shape != theirs.shape or ours.ndim != 1:
        raise ValueError(
            "the average precisions must have the same shape [C]. "
            f"Received: {ours.shape} and {theirs.shape}"
        )
    differences = ours - theirs
    known = np.flatnonzero(np.isfinite(differences))

    def listed(order: np.ndarray) -> list[list[Any]]:
        return [
            [int(index), names.get(int(index)), float(differences[index])]
            for index in known[order][:num_extremes]
        ]

    return {
        "top": listed(np.argsort(-differences[known], kind="stable")),
        "bottom": listed(np.argsort(differences[known], kind="stable")),
        "differences": differences.tolist(),
    }
