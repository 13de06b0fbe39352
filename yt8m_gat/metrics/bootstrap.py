"""Bootstrap confidence intervals of metrics over the choice of the clips."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

LEVEL = 0.95
NUM_RESAMPLES = 200


def resample_counts(num_examples: int, num_resamples: int = NUM_RESAMPLES) -> Iterator[np.ndarray]:
    """Draws N of N examples with replacement and yields how often each was drawn.

    The seed is fixed: metrics of the same examples (clean and attacked, or of two models) get the
    same resamples, so that their differences are paired.

    Args:
        num_examples: N, at least 1.
        num_resamples: The number of resamples.

    Yields:
        For each resample, `[N]` of a small integer type with the sum N.
    """
    rng = np.random.default_rng(0)
    for _ in range(num_resamples):
        drawn = rng.integers(num_examples, size=num_examples)
        counts = np.bincount(drawn, minlength=num_examples)
        yield counts.astype(np.min_scalar_type(counts.max()))


def interval(values: np.ndarray) -> list[float] | None:
    """Computes the percentile interval of a metric over its resamples, `[low, high]`, at `LEVEL`.

    Args:
        values: The metric on each resample; NaN where it has none.

    Returns:
        The interval; None unless more than half of the resamples have a value.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.metrics import interval
        >>> [round(bound, 3) for bound in interval(np.linspace(0, 1, 201))]
        [0.025, 0.975]
    """
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values):
        return None
    tail = 50 * (1 - LEVEL)
    return np.percentile(defined, [tail, 100 - tail]).tolist()


def intervals_of(resampled: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns `{"level", "resamples", metric: interval}` of metrics on all resamples."""
    return {
        "level": LEVEL,
        "resamples": NUM_RESAMPLES,
        **{name: interval(values) for name, values in resampled.items()},
    }


@dataclasses.dataclass(frozen=True)
class RankedPairs:
    """Scored (example, class) pairs sorted by score, once for all resamples.

    With counts of 1 its average precision equals the function `average_precision`; with counts k
    it equals that of a set in which the examples are repeated k times (copies are ties).

    Attributes:
        examples: `[n]`, the example of each pair, by descending score.
        hits: `[h]`, the ranks of the positive pairs.
        last_tied: `[h]`, for each of them the last rank with the same score.
        last_tied_hit: `[h]`, the index in `hits` of the last hit with the same score.
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
            examples: Int `[n]`, the example that each pair belongs to.
        """
        order = np.argsort(scores, kind="stable")[::-1]
        ascending = scores[order[::-1]]
        hit_places = np.flatnonzero(hits[order])
        hit_scores = scores[order[hit_places]]
        last = len(scores) - 1 - np.searchsorted(ascending, hit_scores, side="left")
        last_hit = len(hit_scores) - 1 - np.searchsorted(hit_scores[::-1], hit_scores, side="left")
        return cls(examples[order], hit_places, last, last_hit)

    def average_precision(self, counts: np.ndarray, num_positives: float) -> float:
        """Computes the average precision with each example repeated `counts` times.

        Args:
            counts: `[N]`, how often each example occurs.
            num_positives: The number of all positives, counted as often as their examples occur.

        Returns:
            The value of `average_precision`; NaN without a positive.
        """
        if num_positives == 0:
            return float("nan")
        weights = counts[self.examples]
        hit_weights = weights[self.hits].astype(np.int64)
        pairs_above = np.cumsum(weights, dtype=np.int64)[self.last_tied]
        hits_above = np.cumsum(hit_weights)[self.last_tied_hit]
        # A hit whose example does not occur has weight 0, and there may be no pair above it.
        precision = hits_above / np.maximum(pairs_above, 1)
        return float(hit_weights @ precision / num_positives)
