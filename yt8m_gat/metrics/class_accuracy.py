"""Accuracy of videos that have one label each."""

import numpy as np


def class_accuracy(label_classes: np.ndarray, hits: np.ndarray, num_classes: int = 0) -> np.ndarray:
    """Returns, per class, the share of hits of the videos with that label; NaN without a video.

    Args:
        label_classes: [N], the one label of each video.
        hits: Bool [N], whether it is the best-scored class.
        num_classes: C; 0: up to the largest class that has a video.

    Returns:
        Float64 [C].
    """
    totals = np.bincount(label_classes, minlength=num_classes)
    hit = np.bincount(label_classes, weights=np.asarray(hits, np.float64), minlength=num_classes)
    return np.divide(hit, totals, out=np.full(len(totals), np.nan), where=totals > 0)


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
    of_classes = class_accuracy(label_classes, hits)
    return float(of_classes[~np.isnan(of_classes)].mean())
