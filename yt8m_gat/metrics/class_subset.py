"""Restriction of predictions to some of the classes, for example a vertical."""

from collections.abc import Sequence

import numpy as np


def restrict_to_classes(
    labels: np.ndarray, probabilities: np.ndarray, class_indices: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Selects the columns of `class_indices` and the videos that have one of them as a label.

    Tables 2 and 3 of the A-ART paper evaluate a vertical in this way. Give the result, batch by
    batch, to an `EvaluationMetrics(len(class_indices))`; the top k are then the best k of the
    vertical, and its class i is `class_indices[i]`.

    Args:
        labels: Multi-hot, `[B, C]`.
        probabilities: Scores, `[B, C]`.
        class_indices: Distinct classes in 0 .. C - 1, at least one.

    Returns:
        `(labels, probabilities)`, both `[b, len(class_indices)]`, b <= B.

    Raises:
        ValueError: If the shapes differ, or the classes are none, repeated or out of range.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import restrict_to_classes
        >>> labels = np.array([[1, 0, 0], [0, 1, 1]])
        >>> scores = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.6]])
        >>> restrict_to_classes(labels, scores, [1, 2])
        (array([[1, 1]]), array([[0.8, 0.6]]))
    """
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities)
    if labels.ndim != 2 or labels.shape != probabilities.shape:
        raise ValueError(
            "`labels` and `probabilities` must have the same shape [B, C]. "
            f"Received: labels {labels.shape}, probabilities {probabilities.shape}"
        )
    columns = np.asarray(class_indices, dtype=np.int64)
    num_classes = labels.shape[1]
    if (
        columns.size == 0
        or np.unique(columns).size != columns.size
        or columns.min() < 0
        or columns.max() >= num_classes
    ):
        raise ValueError(
            f"`class_indices` must be distinct and in 0 .. {num_classes - 1}, at least one. "
            f"Received: {columns.tolist()}"
        )
    rows = (labels[:, columns] > 0).any(axis=1)
    selected = np.ix_(rows, columns)
    return labels[selected], probabilities[selected]
