"""Average precision of scored pairs: the one definition behind GAP and both kinds of MAP."""

import numpy as np


def average_precision(scores: np.ndarray, hits: np.ndarray, num_positives: int) -> float:
    """Computes the average precision of one pool of scored pairs.

        AP = 1 / P * sum over hits h of (hits scored >= s_h) / (pairs scored >= s_h)

    Without ties this is sum over ranks i of precision@i * [pair i is a hit], divided by P.

    Tie rule: pairs of equal score are one threshold, so each hit among them has the precision at
    the end of the group, in any order of the pairs; this is never less than with the group's
    misses first. It is the rule of scikit-learn's `average_precision_score`, which gives the same
    value when P is the number of hits.

    Args:
        scores: Scores of the pairs, `[n]`, any real dtype, compared without rounding.
        hits: Whether each pair is a positive one, bool `[n]`.
        num_positives: P, the number of ALL positives, including those not among the pairs.

    Returns:
        The average precision in [0, 1]; 0.0 where there is no hit.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import average_precision
        >>> scores = np.array([0.9, 0.8, 0.7])
        >>> round(average_precision(scores, np.array([True, False, True]), num_positives=2), 4)
        0.8333
    """
    return _average_precision_of_sorted(np.sort(scores), np.sort(scores[hits]), num_positives)


def per_class_average_precision(
    classes: np.ndarray, scores: np.ndarray, hits: np.ndarray, positives_per_class: np.ndarray
) -> np.ndarray:
    """Computes the average precision of each class over its own share of the pooled pairs.

    Args:
        classes: Class index of each pair, `[n]`; fastest as uint8 or uint16 (radix sort).
        scores: Scores of the pairs, `[n]`.
        hits: Whether each pair is a positive one, bool `[n]`.
        positives_per_class: P of each class, `[C]`, positives outside the pairs included.

    Returns:
        `[C]` float64; NaN for a class without a positive, 0.0 for one whose positives are all
        outside the pairs. The tie rule is that of `average_precision`.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import per_class_average_precision
        >>> per_class_average_precision(
        ...     classes=np.array([0, 0, 1]),
        ...     scores=np.array([0.9, 0.8, 0.7]),
        ...     hits=np.array([False, True, True]),
        ...     positives_per_class=np.array([1, 2, 0]),
        ... )
        array([0.5, 0.5, nan])
    """
    num_classes = len(positives_per_class)
    by_class = np.argsort(classes, kind="stable")
    scores_by_class = scores[by_class]
    ends = np.cumsum(np.bincount(classes, minlength=num_classes))
    hit_classes = classes[hits]
    hits_by_class = scores[hits][np.argsort(hit_classes, kind="stable")]
    hit_ends = np.cumsum(np.bincount(hit_classes, minlength=num_classes))
    result = np.full(num_classes, np.nan)
    start = hit_start = 0
    for index, (end, hit_end) in enumerate(zip(ends.tolist(), hit_ends.tolist(), strict=True)):
        if positives_per_class[index] > 0:
            pairs = scores_by_class[start:end]
            pairs.sort()
            class_hits = hits_by_class[hit_start:hit_end]
            class_hits.sort()
            result[index] = _average_precision_of_sorted(
                pairs, class_hits, positives_per_class[index]
            )
        start, hit_start = end, hit_end
    return result


def mean_average_precision(per_class: np.ndarray) -> float:
    """Averages over the classes that have a positive (are not NaN); 0.0 when none has one.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import mean_average_precision
        >>> mean_average_precision(np.array([1.0, 0.5, np.nan]))
        0.75
    """
    defined = per_class[~np.isnan(per_class)]
    return float(defined.mean()) if defined.size else 0.0


def _average_precision_of_sorted(
    scores: np.ndarray, hit_scores: np.ndarray, num_positives: int
) -> float:
    """Computes `average_precision` from ascending scores of all pairs and of the hits."""
    if hit_scores.size == 0:
        return 0.0
    pairs_above = scores.size - np.searchsorted(scores, hit_scores, side="left")
    hits_above = hit_scores.size - np.searchsorted(hit_scores, hit_scores, side="left")
    return float(np.sum(hits_above / pairs_above) / num_positives)
