"""What a model reaches that gives every clip the same scores: the frequencies of the labels."""

from collections.abc import Sequence

import numpy as np


def frequency_metrics(
    positives: Sequence[int], num_clips: int, top_k: int = 20
) -> dict[str, float]:
    """Returns `gap` and `hit_at_1` of the scores that are each class's share of the clips.

    No model that ignores its input ranks better. As in `EvaluationMetrics`, the `top_k` classes of
    each clip count, and pairs of equal score, here those of classes as frequent as each other, are
    one threshold.

    Args:
        positives: Int [C], clips with each class.
        num_clips: Number of clips.
        top_k: Classes of each clip that GAP counts.

    Examples:
        >>> from yt8m_gat.robustness.label_frequencies import frequency_metrics
        >>> frequency_metrics([1, 3, 0], num_clips=4, top_k=2)  # 3/4 * 3/4 + 1/4 * 4/8
        {'gap': 0.6875, 'hit_at_1': 0.75}
    """
    counts = np.asarray(positives, np.float64)
    if num_clips == 0 or not counts.any():
        return {"gap": 0.0, "hit_at_1": 0.0}
    highest = np.sort(counts)[::-1][:top_k]
    hits = np.cumsum(highest)
    precision = hits / (num_clips * np.arange(1, len(highest) + 1))
    # The threshold of a class is passed together with those of all classes as frequent.
    last = np.searchsorted(-highest, -highest, side="right") - 1
    gap = float(np.sum(highest * precision[last]) / counts.sum())
    return {"gap": gap, "hit_at_1": float(highest[0] / num_clips)}
