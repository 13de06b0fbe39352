"""Accuracy of videos that have one label each."""

import numpy as np


def mean_class_accuracy(label_classes: np.ndarray, hits: np.ndarray) -> float:
    """Computes the share of hits among the videos of each class, and its mean over the classes.

    Args:
        label_classes: The one label of each video, int `[N]`.
        hits: Whether the best-scored class of each video is that label, bool `[N]`.

    Returns:
        The mean over the classes that have a video.

    Examples:
        >>> from yt8m_gat.metrics import mean_class_accuracy
        >>> float(mean_class_accuracy([0, 0, 3], [True, False, True]))
        0.75
    """
    totals = np.bincount(label_classes)
    hits_of_class = np.bincount(label_classes, weights=np.asarray(hits, np.float64))
    present = totals > 0
    return float((hits_of_class[present] / totals[present]).mean())
