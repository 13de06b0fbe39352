"""Calibration of probabilities: temperature, thresholds for tags, and reliability.

All functions take the pairs of N examples and C classes. `weights` [N, C] are 0 for the pairs that
do not count (classes that a segment was not rated for) and positive for those that do; None: all
pairs count alike.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, log_softmax, softmax

TEMPERATURES = (0.01, 100.0)
"""The least and the greatest temperature that `fit_temperature` returns."""

NUM_BINS = 15
"""Bins of `reliability`, as many as in Guo et al."""

_ROWS = 4096  # Examples whose float64 values are in memory at once.


def negative_log_likelihood(
    labels: np.ndarray,
    logits: np.ndarray,
    temperature: float = 1.0,
    weights: np.ndarray | None = None,
    exclusive: bool = False,
) -> float:
    """Returns the mean of -log p, p the probability that logits / temperature give the label.

    ```
    independent classes:  mean over pairs of  -y log s(z / T) - (1 - y) log s(-z / T),  s = sigmoid
    exclusive classes:    mean over examples of  -sum_c y_c / sum(y) * log softmax(z / T)_c
    ```

    Args:
        labels: [N, C], above 0 where the class is a label.
        logits: [N, C].
        temperature: T.
        weights: [N, C], see the module; only for independent classes.
        exclusive: Whether probabilities are a softmax. Examples without a label do not count.

    Examples:
        >>> round(negative_log_likelihood(np.array([[1, 0]]), np.array([[0.0, 0.0]])), 4)
        0.6931
    """
    total = count = 0.0
    for y, z, w in _rows(labels, logits, weights):
        if exclusive:
            known = y.sum(axis=1) > 0
            total -= np.sum(_shares(y[known]) * log_softmax(z[known] / temperature, axis=1))
            count += known.sum()
        else:
            total -= np.sum(w * log_expit(np.where(y, z, -z) / temperature))
            count += w.sum()
    return float(total / count) if count else 0.0


def fit_temperature(
    labels: np.ndarray,
    logits: np.ndarray,
    weights: np.ndarray | None = None,
    exclusive: bool = False,
) -> float:
    """Returns the temperature T of least `negative_log_likelihood`.

    In 1 / T that is a convex function, whose only root of the derivative is found by bracketing. A
    root outside of `TEMPERATURES` gives the nearer end: labels that the logits separate without an
    error would be given with certainty, T = 0.

    Args:
        labels: [N, C], above 0 where the class is a label.
        logits: [N, C], finite.
        weights: See the module.
        exclusive: See `negative_log_likelihood`.

    Raises:
        ValueError: A logit is not finite.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2. The paper
    has one label per example; with several, each class is a decision of its own.

    Examples:
        >>> labels = np.array([[1], [1], [1], [0]])  # 3 of 4, and a logit of log 3 says 3 of 4.
        >>> round(fit_temperature(labels, np.full((4, 1), 2 * np.log(3))), 6)
        2.0
    """
    if not all(np.isfinite(z).all() for _, z, _ in _rows(labels, logits, weights)):
        raise ValueError("`logits` must be finite. Received: NaN or infinity")

    def slope(log_inverse: float) -> float:
        """The derivative of the summed likelihood by 1 / T."""
        inverse = np.exp(log_inverse)
        total = 0.0
        for y, z, w in _rows(labels, logits, weights):
            if exclusive:
                known = y.sum(axis=1) > 0
                errors = softmax(z[known] * inverse, axis=1) - _shares(y[known])
                total += np.sum(errors * z[known])
            else:
                total += np.sum(w * (expit(z * inverse) - y) * z)
        return total

    hottest, coldest = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])
    if slope(hottest) >= 0:
        return TEMPERATURES[1]
    if slope(coldest) <= 0:
        return TEMPERATURES[0]
    return float(np.exp(-brentq(slope, hottest, coldest, xtol=1e-9)))


class Thresholds(NamedTuple):
    """From which probability on a class is a tag.

    Attributes:
        of_classes: [C] float64; that of a class with too few positives is `shared`.
        shared: The threshold of all classes together.
        has_own: Bool [C], whether the class has a threshold of its own.
    """

    of_classes: np.ndarray
    shared: float
    has_own: np.ndarray


def fit_thresholds(
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None = None,
    min_positives: int = 10,
) -> Thresholds:
    """Returns the threshold of greatest F1 of each class, see `best_threshold`.

    A class with fewer positives than `min_positives` gets the threshold of greatest F1 of the pairs
    of all classes together: its own would follow a handful of examples.

    Args:
        labels: [N, C], above 0 where the class is a label; at least one is.
        probabilities: [N, C].
        weights: See the module.
        min_positives: Examples of a class from which on it has a threshold of its own.

    Raises:
        ValueError: There is no positive pair.
    """
    labels = labels > 0
    counts = np.ones(labels.shape, bool) if weights is None else weights > 0
    shared = best_threshold(labels[counts], probabilities[counts])
    has_own = np.sum(labels & counts, axis=0) >= max(min_positives, 1)
    of_classes = np.full(labels.shape[1], shared)
    for index in np.flatnonzero(has_own):
        rows = counts[:, index]
        of_classes[index] = best_threshold(labels[rows, index], probabilities[rows, index])
    return Thresholds(of_classes, shared, has_own)


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the threshold t for which tags, score >= t, have the greatest F1.

    F1 = 2 TP / (tags + positives). Of thresholds with equal F1 the highest is taken, which gives
    the fewest tags. It lies midway between the lowest score that is a tag and the next lower one,
    or 0; pairs of equal score are on one side.

    Args:
        labels: Bool [N], at least one true.
        scores: [N], at least 0.

    Raises:
        ValueError: There is no positive.

    Examples:
        >>> best_threshold(np.array([True, False, True, False]), np.array([0.9, 0.3, 0.7, 0.1]))
        0.5
    """
    if not labels.any():
        raise ValueError("`labels` must have at least one positive. Received: none")
    # No score below the lowest positive one can be a tag at the best threshold.
    below = scores[~labels & (scores < scores[labels].min())].max(initial=0)
    in_reach = scores >= scores[labels].min()
    labels, scores = labels[in_reach], scores[in_reach]
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order].astype(np.float64)
    last = np.append(scores[1:] < scores[:-1], True)  # Of the pairs of equal score.
    hits = np.cumsum(labels)
    f1 = np.where(last, 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1]), -1.0)
    best = int(np.argmax(f1))
    lower = scores[best + 1] if best + 1 < len(scores) else float(below)
    return float((scores[best] + lower) / 2)


class Bin(NamedTuple):
    """The pairs whose probability is in one stretch of [0, 1].

    Attributes:
        count: Their number.
        confidence: Their mean probability.
        accuracy: The share of positives among them.
    """

    count: int
    confidence: float
    accuracy: float


def reliability(
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None = None,
    num_bins: int = NUM_BINS,
) -> list[Bin]:
    """Returns the bins ((m - 1) / M, m / M] of [0, 1] that hold a pair; 0 is in the first.

    Args:
        labels: [N, C], or [N], above 0 where positive.
        probabilities: As many.
        weights: See the module.
        num_bins: M.

    Reference: Guo et al., 2017, section 2 (there, of the likeliest class of each example).
    """
    counts = np.zeros(num_bins, np.int64)
    confidence, accuracy = np.zeros(num_bins), np.zeros(num_bins)
    for y, p, w in _rows(labels, probabilities, weights):
        index = np.clip(np.ceil(p * num_bins).astype(int) - 1, 0, num_bins - 1)[w > 0]
        counts += np.bincount(index, minlength=num_bins)
        confidence += np.bincount(index, p[w > 0], num_bins)
        accuracy += np.bincount(index, y[w > 0], num_bins)
    return [
        Bin(int(count), float(confidence[m] / count), float(accuracy[m] / count))
        for m, count in enumerate(counts)
        if count
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Returns the mean over the pairs of |accuracy - confidence| of their bin (Guo et al., eq. 3).

    Examples:
        >>> expected_calibration_error([Bin(3, 0.1, 0.0), Bin(1, 0.9, 1.0)])
        0.1
    """
    total = sum(of_bin.count for of_bin in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total


def likeliest(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether the likeliest class of each example is a label, and its probability, [N].

    Args:
        labels: [N, C], above 0 where the class is a label.
        probabilities: [N, C].
        weights: See the module; the likeliest class is one that counts.
    """
    shown = probabilities if weights is None else np.where(weights > 0, probabilities, -1.0)
    best = np.argmax(shown, axis=1)[:, np.newaxis]
    hits = np.take_along_axis(labels, best, axis=1)[:, 0] > 0
    return hits, np.take_along_axis(probabilities, best, axis=1)[:, 0]


def _rows(
    labels: np.ndarray, values: np.ndarray, weights: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields blocks of rows: labels as bool, values as float64, weights as float64 (1 without)."""
    for start in range(0, len(labels), _ROWS):
        block = slice(start, start + _ROWS)
        y = labels[block] > 0
        w = np.ones(y.shape) if weights is None else weights[block].astype(np.float64)
        yield y, values[block].astype(np.float64), w


def _shares(labels: np.ndarray) -> np.ndarray:
    """Returns the labels of each example divided by their number."""
    return labels / labels.sum(axis=1, keepdims=True)
