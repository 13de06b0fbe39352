"""The best k of each row, with a tie rule."""

import numpy as np


def top_k_indices(scores: np.ndarray, k: int) -> np.ndarray:
    """Returns the indices of the k largest scores of each row, by descending score.

    Tie rule: of equal scores, the lower index comes first, in the choice and in the order.

    Args:
        scores: `[N, C]`, without NaN.
        k: The number of indices per row, 0 <= k <= C.

    Returns:
        `[N, k]` integer indices into the rows.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import top_k_indices
        >>> top_k_indices(np.array([[0.1, 0.5, 0.5, 0.9]]), 3)
        array([[3, 1, 2]])
    """
    num_columns = scores.shape[1]
    if k == 0 or scores.shape[0] == 0:
        return np.zeros((scores.shape[0], k), dtype=np.intp)
    if k == num_columns:
        return np.argsort(-scores, axis=1, kind="stable")
    chosen = np.argpartition(scores, num_columns - k, axis=1)[:, num_columns - k :]
    # argpartition picks arbitrary columns among those that share the k-th score: such rows get a
    # stable sort of the whole row.
    chosen_scores = np.take_along_axis(scores, chosen, axis=1)
    kth = chosen_scores.min(axis=1, keepdims=True)
    cut_through_ties = np.flatnonzero(np.count_nonzero(scores >= kth, axis=1) > k)
    if cut_through_ties.size:
        chosen[cut_through_ties] = np.argsort(-scores[cut_through_ties], axis=1, kind="stable")[
            :, :k
        ]
    chosen.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
