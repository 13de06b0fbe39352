"""MAP@K over rated segments, the metric of the 2019 YouTube-8M challenge."""

from collections.abc import Sequence

import numpy as np

from yt8m_gat.metrics.average_precision import average_precision, mean_average_precision
from yt8m_gat.metrics.bootstrap import NUM_RESAMPLES, RankedPairs, resample_counts


class SegmentMeanAveragePrecision:
    """Accumulates scored segments of which only some (segment, class) pairs were rated.

    For each class, all segments are ranked by score, cut after the best K and filtered to those
    rated for this class. Their average precision has P = ALL rated positives of the class.
    The metric is the mean over the classes with a rated positive, 0.0 when none has one.

    Tie rule: a segment is within the best K if fewer than K score higher, so ties at the cut all
    stay; in the average precision, equal scores are one threshold (see `average_precision`). The
    value depends neither on the order of the segments nor on the batch cuts; it does not decompose
    over batches. Memory: 4 C bytes per segment with float32 scores, and 17 bytes per rated pair.

    Args:
        num_classes: C.
        top_k: K; the challenge uses 100,000.

    Raises:
        ValueError: If `num_classes` or `top_k` is not positive.

    Examples:
        >>> from yt8m_gat.metrics import SegmentMeanAveragePrecision
        >>> metric = SegmentMeanAveragePrecision(num_classes=1)
        >>> labels, rated = [[1], [0], [1], [0]], [[1], [0], [1], [1]]
        >>> metric.update(labels, rated, [[0.9], [0.8], [0.7], [0.6]])
        >>> metric.result()["segment_map"]  # The segment that nobody rated does not count.
        1.0
    """

    def __init__(self, num_classes: int, top_k: int = 100_000):
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be positive. Received: num_classes={num_classes}")
        if top_k < 1:
            raise ValueError(f"`top_k` must be positive. Received: top_k={top_k}")
        self.num_classes = num_classes
        self.top_k = top_k
        self.num_segments = 0
        self._scores: list[np.ndarray] = []
        self._rated_rows: list[np.ndarray] = []
        self._rated_classes: list[np.ndarray] = []
        self._rated_hits: list[np.ndarray] = []

    def update(
        self, labels: np.ndarray, label_weights: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Adds a batch of segments.

        Args:
            labels: `[S, C]`; above 0 is a positive, counted where the pair is rated.
            label_weights: `[S, C]`; above 0 where the pair is rated.
            probabilities: Scores, `[S, C]`.

        Raises:
            ValueError: If the shapes differ or do not end in C, or a score is NaN.
        """
        labels, weights = np.asarray(labels), np.asarray(label_weights)
        scores = np.asarray(probabilities)
        if not (labels.shape == weights.shape == scores.shape) or scores.shape[1:] != (
            self.num_classes,
        ):
            raise ValueError(
                "`labels`, `label_weights` and `probabilities` must all have the shape "
                f"[S, {self.num_classes}]. Received: {labels.shape}, {weights.shape}, "
                f"{scores.shape}"
            )
        scores = scores.astype(np.result_type(scores.dtype, np.float32))
        if np.isnan(scores).any():
            raise ValueError("`probabilities` must not contain NaN. Received: NaN")
        rows, classes = np.nonzero(weights > 0)
        self._scores.append(scores)
        self._rated_rows.append(rows + self.num_segments)
        self._rated_classes.append(classes)
        self._rated_hits.append(labels[rows, classes] > 0)
        self.num_segments += len(scores)

    def per_class_average_precision(self) -> np.ndarray:
        """Computes the average precision of each class.

        Returns:
            `[C]` float64, NaN for a class without a rated positive.

        Raises:
            ValueError: If no segment was seen.
        """
        if self.num_segments == 0:
            raise ValueError(
                "Metrics need at least one segment. Received: none; check that the data pattern "
                "matches segment-level records"
            )
        rows = np.concatenate(self._rated_rows)
        classes = np.concatenate(self._rated_classes)
        hits = np.concatenate(self._rated_hits)
        by_class = np.argsort(classes, kind="stable")
        ends = np.cumsum(np.bincount(classes, minlength=self.num_classes))
        result = np.full(self.num_classes, np.nan)
        start = 0
        for index, end in enumerate(ends.tolist()):
            rated = by_class[start:end]
            start = end
            class_hits = hits[rated]
            num_positives = int(class_hits.sum())
            if num_positives == 0:
                continue
            all_scores = np.concatenate([batch[:, index] for batch in self._scores])
            scores = all_scores[rows[rated]]
            if self.num_segments > self.top_k:
                cut = np.partition(all_scores, -self.top_k)[-self.top_k]
                scores, class_hits = scores[scores >= cut], class_hits[scores >= cut]
            result[index] = average_precision(scores, class_hits, num_positives)
        return result

    def resampled_average_precision(self, classes: Sequence[int]) -> np.ndarray:
        """Computes the average precision of some classes on each resample of the segments.

        Args:
            classes: The class indices.

        Returns:
            `[NUM_RESAMPLES, len(classes)]`; NaN where a resample has no positive of the class, and
            everywhere if there are more than K segments: the cut depends on all of them.
        """
        if self.num_segments > self.top_k:
            return np.full((NUM_RESAMPLES, len(classes)), np.nan)
        rows = np.concatenate(self._rated_rows)
        rated_classes = np.concatenate(self._rated_classes)
        hits = np.concatenate(self._rated_hits)
        scores = np.concatenate(
            [
                batch[of_batch - start, of_classes]
                for batch, of_batch, of_classes, start in zip(
                    self._scores,
                    self._rated_rows,
                    self._rated_classes,
                    np.cumsum([0, *map(len, self._scores)])[:-1],
                    strict=True,
                )
            ]
        )
        of_classes = [rated_classes == index for index in classes]
        ranked = [RankedPairs.of(scores[of], hits[of], rows[of]) for of in of_classes]
        positive_rows = [rows[of & hits] for of in of_classes]
        return np.array(
            [
                [
                    pairs.average_precision(counts, counts[positive].sum(dtype=np.int64))
                    for pairs, positive in zip(ranked, positive_rows, strict=True)
                ]
                for counts in resample_counts(self.num_segments)
            ]
        ).reshape(NUM_RESAMPLES, len(ranked))

    def result(self) -> dict[str, float]:
        """Computes `segment_map` and the int `num_segments`.

        Raises:
            ValueError: If no segment was seen.
        """
        return {
            "segment_map": mean_average_precision(self.per_class_average_precision()),
            "num_segments": self.num_segments,
        }
