"""Intervals of metrics over the choice of the clips, by the bootstrap."""

import dataclasses
from collections.abc import Iterator

import numpy as np

LEVEL = 0.95
NUM_RESAMPLES = 200


def resample_counts(num_examples: int, num_resamples: int = NUM_RESAMPLES) -> Iterator[np.ndarray]:
    """How often each example is in each resample: N draws with replacement from N examples.

    The seed is fixed: metrics of the same examples, clean and attacked or of two models, are
    resampled alike, so that their differences are paired.

    Args:
        num_examples: N, at least 1.
        num_resamples: How many resamples.

    Yields:
        `[N]` of a small integer type, whose sum is N.
    """
    rng = np.random.default_rng(0)
    for _ in range(num_resamples):
        drawn = rng.integers(num_examples, size=num_examples)
        counts = np.bincount(drawn, minlength=num_examples)
        yield counts.astype(np.min_scalar_type(counts.max()))


def interval(values: np.ndarray) -> list[float] | None:
    """The percentile interval of a metric over its resamples, `[low, high]` of `LEVEL`.

    Args:
        values: The metric on each resample; NaN where it has none.

    Returns:
        None where fewer than half of the resamples have a value.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import interval
        >>> [round(bound, 3) for bound in interval(np.linspace(0, 1, 201))]
        [0.025, 0.975]
    """
    known = values[~np.isnan(values)]
    if 2 * len(known) <= len(values):
        return None
    tail = 50 * (1 - LEVEL)
    return np.percentile(known, [tail, 100 - tail]).tolist()


@dataclasses.dataclass(frozen=True)
class RankedPairs:
    """Scored pairs of (example, class) in the order of their scores, for any counts of examples.

    `average_precision` sorts; this sorts once for all resamples. With counts of 1 both are equal,
    and with counts k to the average precision of the examples repeated k times: copies are ties.

    Attributes:
        examples: `[n]`, the example of each pair, from the best score down.
        hits: `[h]`, the places in that order at which a pair is a positive one.
        last_tied: `[h]`, for each of them the last place of the same score.
        last_tied_hit: `[h]`, the same as a place among the hits.
    """

    examples: np.ndarray
    hits: np.ndarray
    last_tied: np.ndarray
    last_tied_hit: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, hits: np.ndarray, examples: np.ndarray) -> "RankedPairs":
        """Ranks pairs.

        Args:
            scores: `[n]`.
            hits: Bool `[n]`, whether each pair is a positive one.
            examples: Int `[n]`, the example that each pair is of.
        """
        order = np.argsort(scores, kind="stable")[::-1]
        ascending = scores[order[::-1]]
        hit_places = np.flatnonzero(hits[order])
        hit_scores = scores[order[hit_places]]
        last = len(scores) - 1 - np.searchsorted(ascending, hit_scores, side="left")
        last_hit = len(hit_scores) - 1 - np.searchsorted(hit_scores[::-1], hit_scores, side="left")
        return cls(examples[order], hit_places, last, last_hit)

    def average_precision(self, counts: np.ndarray, num_positives: float) -> float:
        """The average precision where each example counts so often.

        Args:
            counts: `[N]`, how often each example is there.
            num_positives: All positives, as often as their examples are there.

        Returns:
            NaN without a positive; else as `average_precision`.
        """
        if num_positives == 0:
            return float("nan")
        weights = counts[self.examples]
        hit_weights = weights[self.hits].astype(np.int64)
        pairs_above = np.cumsum(weights, dtype=np.int64)[self.last_tied]
        hits_above = np.cumsum(hit_weights)[self.last_tied_hit]
        # A hit whose example is not there has weight 0, and perhaps no pair above it.
        precision = hits_above / np.maximum(pairs_above, 1)
        return float(hit_weights @ precision / num_positives)
