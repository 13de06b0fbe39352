"""GAP, MAP, PERR and Hit@1 of the YouTube-8M starter code, exact over a whole data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yt8m_gat.metrics.average_precision import (
    average_precision,
    mean_average_precision,
    per_class_average_precision,
)
from yt8m_gat.metrics.bootstrap import (
    NUM_RESAMPLES,
    RankedPairs,
    intervals_of,
    resample_counts,
)
from yt8m_gat.metrics.class_accuracy import class_accuracy, mean_class_accuracy
from yt8m_gat.metrics.score_columns import ScoreColumns
from yt8m_gat.metrics.top_k import top_k_indices

# The number of columns of the score matrix that the all-scores MAP reads at once; this limits its
# extra memory to 32 * N scores.
_COLUMN_BLOCK = 32


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    top_k: int = 20,
    label_weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Computes the metrics of one array of predictions; `EvaluationMetrics` defines them.

    Args:
        labels: Multi-hot, `[N, C]`, bool or numeric; an entry above 0 is a positive.
        probabilities: Scores, `[N, C]`; only their order matters.
        top_k: The number of pairs of each video that enter GAP and MAP.
        label_weights: `[N, C]`, above 0 at the pairs that count; None: all of them.

    Returns:
        A dict with the keys `gap`, `map`, `map_all_scores`, `perr` and `hit_at_1`, and `top_5` and
        `mean_class_accuracy` if every video has one label.

    Raises:
        ValueError: If the shapes are not `[N, C]` and equal, N is 0, or a score is NaN.

    Examples:
        >>> from yt8m_gat.metrics import evaluate
        >>> labels = [[1, 0, 0], [0, 1, 1]]
        >>> probabilities = [[0.9, 0.2, 0.1], [0.7, 0.8, 0.6]]
        >>> {name: round(value, 3) for name, value in evaluate(labels, probabilities).items()}
        {'gap': 0.917, 'map': 1.0, 'map_all_scores': 1.0, 'perr': 0.75, 'hit_at_1': 1.0}
    """
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise ValueError(f"`labels` must have the shape [N, C]. Received: shape={labels.shape}")
    metrics = EvaluationMetrics(labels.shape[1], top_k=top_k)
    metrics.update(labels, probabilities, label_weights)
    result = metrics.result()
    del result["num_videos"]
    return result


@dataclass
class _Videos:
    """What is kept of n videos apart from their full score rows; each array is `[n, ...]`.

    Their labels are stored as class indices, one video after the other; `label_counts` holds the
    number of labels of each video.
    """

    top_classes: np.ndarray
    top_scores: np.ndarray
    top_hits: np.ndarray
    hits_at_5: np.ndarray
    perr: np.ndarray
    label_counts: np.ndarray
    label_classes: np.ndarray

    def every(self, start: int, step: int) -> "_Videos":
        """Returns the videos start, start + step, start + 2 * step, ..."""
        rows = slice(start, None, step)
        label_rows = np.repeat(np.arange(len(self.perr)), self.label_counts)
        return _Videos(
            self.top_classes[rows],
            self.top_scores[rows],
            self.top_hits[rows],
            self.hits_at_5[rows],
            self.perr[rows],
            self.label_counts[rows],
            self.label_classes[label_rows % step == start],
        )


class EvaluationMetrics:
    """Accumulates predictions and computes the starter code's metrics over all of them.

    The `top_k` best-scored classes of each video are its (score, class) pairs. The metrics are:

    * `gap`: average precision of the pooled pairs of ALL videos, P = all positives, including those
      outside the pairs (GAP@20 for `top_k=20`).
    * `map`: per class, average precision of that class's share of the same pairs, P = all
      positives of the class; mean over the classes with a positive.
    * `map_all_scores`: per class, average precision over the scores of all N videos; mean over
      the classes with a positive (what mAP means elsewhere, for example on AudioSet).
    * `perr`: of a video with n labels, the share of its n best-scored classes that are labels;
      mean over videos.
    * `hit_at_1`: share of videos whose best-scored class is a label.

    If every video has exactly one label, so that `hit_at_1` is the top-1 accuracy, also:

    * `top_5`: share of videos whose label is among their five best-scored classes.
    * `mean_class_accuracy`: per class, of the videos with that label the share whose best-scored
      class it is; mean over the classes with a video.

    Tie rules, the same for every record order and batch cut: within a video, of equal scores the
    lower class index comes first; in an average precision, pairs of equal score are one threshold
    (see `average_precision`). The starter code shuffles with a fixed seed instead; without ties
    the two agree. A video without labels counts 0 in `perr` and `hit_at_1` and its pairs are
    misses. Without any positive, every metric is 0.0.

    GAP and MAP do not decompose over batches: an average of per-batch values is another number.
    The pairs are therefore kept. Memory per video, with float32 scores, at most 65,536 classes and
    k = min(top_k, C): 7 k + 13 bytes and 2 bytes per label (159 bytes at 20 pairs and 3 labels;
    0.18 GB for the 1,112,356 videos of validate). `all_scores` adds 4 C bytes (15 kB at 3,862
    classes; 17 GB for validate), which are on disk above 16 MiB; see `ScoreColumns`. Scores
    narrower than float32 are widened to float32, and float64 is kept.

    Args:
        num_classes: C.
        top_k: The number of pairs of each video that enter `gap` and `map`; at most C are used.
        all_scores: Whether to keep all scores, which `map_all_scores` needs.
        single_label_metrics: Whether to compute `top_5` and `mean_class_accuracy`.

    Raises:
        ValueError: If `num_classes` or `top_k` is not positive.

    Examples:
        >>> from yt8m_gat.metrics import EvaluationMetrics
        >>> metrics = EvaluationMetrics(num_classes=3, top_k=2)
        >>> metrics.update([[1, 0, 0]], [[0.9, 0.2, 0.1]])
        >>> metrics.update([[0, 1, 1]], [[0.7, 0.8, 0.6]])
        >>> result = metrics.result()
        >>> result["num_videos"], result["hit_at_1"], result["perr"]
        (2, 1.0, 0.75)
    """

    def __init__(
        self,
        num_classes: int,
        top_k: int = 20,
        all_scores: bool = True,
        single_label_metrics: bool = True,
    ):
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be positive. Received: num_classes={num_classes}")
        if top_k < 1:
            raise ValueError(f"`top_k` must be positive. Received: top_k={top_k}")
        self.num_classes = num_classes
        self.top_k = top_k
        self.all_scores = all_scores
        self.single_label_metrics = single_label_metrics
        self._class_dtype = np.min_scalar_type(num_classes - 1)
        self._batches: list[_Videos] = []
        self._scores = ScoreColumns()

    @property
    def num_videos(self) -> int:
        """The number of videos seen so far."""
        return sum(len(batch.perr) for batch in self._batches)

    @property
    def hits_at_1(self) -> np.ndarray:
        """Whether each video is a hit at 1, bool [N], in the order seen; `hit_at_1` is its mean."""
        return self._videos().top_hits[:, 0]

    @property
    def top_pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of GAP, best first: scores and hits `[N, k]`, and numbers of labels `[N]`."""
        videos = self._videos()
        return videos.top_scores, videos.top_hits, videos.label_counts

    def per_class_accuracy(self) -> np.ndarray | None:
        """Returns the terms of `mean_class_accuracy`, float64 [C], NaN for a class without a video.

        None if some video has not exactly one label.
        """
        videos = self._videos()
        if not self.single_label_metrics or (videos.label_counts != 1).any():
            return None
        return class_accuracy(videos.label_classes, videos.top_hits[:, 0], self.num_classes)

    def update(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        label_weights: np.ndarray | None = None,
    ) -> None:
        """Adds a batch of videos.

        With `label_weights` only the rated pairs count: a pair with weight 0 is neither a positive
        nor a negative, and a video without a rated pair is left out.

        Args:
            labels: Multi-hot, `[B, C]`, bool or numeric; an entry above 0 is a positive.
            probabilities: Scores, `[B, C]`; B may be 0.
            label_weights: `[B, C]`, above 0 at the rated pairs; None: all are rated.

        Raises:
            ValueError: If the shapes differ or do not end in C, or an entry is NaN.
        """
        labels = np.asarray(labels)
        scores = np.asarray(probabilities)
        if labels.shape != scores.shape or labels.ndim != 2 or labels.shape[1] != self.num_classes:
            raise ValueError(
                f"`labels` and `probabilities` must both have the shape [B, {self.num_classes}]. "
                f"Received: labels {labels.shape}, probabilities {scores.shape}"
            )
        scores = scores.astype(np.result_type(scores.dtype, np.float32), copy=False)
        _check_no_nan("probabilities", scores)
        _check_no_nan("labels", labels)
        if label_weights is not None:
            labels, scores = _keep_rated(labels, scores, np.asarray(label_weights))
        positives = labels > 0
        label_counts = positives.sum(axis=1, dtype=np.int32)
        label_classes = np.nonzero(positives)[1]
        num_pairs = min(self.top_k, self.num_classes)
        num_ranked = max(num_pairs, min(5, self.num_classes), int(label_counts.max(initial=0)))
        ranked = top_k_indices(scores, num_ranked)
        ranked_hits = np.take_along_axis(positives, ranked, axis=1)
        within_label_count = np.arange(num_ranked) < label_counts[:, np.newaxis]
        perr = (ranked_hits & within_label_count).sum(axis=1) / np.maximum(label_counts, 1)
        top = ranked[:, :num_pairs]
        self._batches.append(
            _Videos(
                top_classes=top.astype(self._class_dtype),
                top_scores=np.take_along_axis(scores, top, axis=1),
                top_hits=ranked_hits[:, :num_pairs].copy(),
                hits_at_5=ranked_hits[:, :5].any(axis=1),
                perr=perr,
                label_counts=label_counts,
                label_classes=label_classes.astype(self._class_dtype),
            )
        )
        if self.all_scores:
            self._scores.append(scores)

    def merge(self, other: "EvaluationMetrics") -> None:
        """Adds everything that `other` has seen, after this object's own videos.

        Raises:
            ValueError: If `other` was constructed with different arguments.
        """
        names = ("num_classes", "top_k", "all_scores", "single_label_metrics")
        mine = tuple(getattr(self, name) for name in names)
        theirs = tuple(getattr(other, name) for name in names)
        if mine != theirs:
            raise ValueError(
                f"Merging needs the same ({', '.join(names)}). Received: {theirs}, expected {mine}"
            )
        self._batches += list(other._batches)
        self._scores.extend(other._scores)

    def result(self) -> dict[str, float]:
        """Computes the metrics over all videos seen.

        Returns:
            A dict with `gap`, `map`, `map_all_scores` (only with `all_scores`), `perr`,
            `hit_at_1`, for videos of one label each `top_5` and `mean_class_accuracy`, and the int
            `num_videos`.

        Raises:
            ValueError: If no video was seen.
        """
        return self._result(self._videos(), start=0, step=1)

    def partition_result(self, num_partitions: int = 5) -> dict[str, dict[str, float]]:
        """Computes mean and deviation of each metric over disjoint partitions (GAT, table 1).

        Partition i holds the videos i, i + n, i + 2 n, ... in the order in which they were added,
        so the sizes differ by at most one video.

        Args:
            num_partitions: n, at least 2.

        Returns:
            Two dicts with the metrics as keys: `mean`, and `deviation`, the sample standard
            deviation (squares divided by n - 1).

        Raises:
            ValueError: If n is below 2 or above the number of videos.
        """
        if not 2 <= num_partitions <= self.num_videos:
            raise ValueError(
                "`num_partitions` must be at least 2 and at most the number of videos "
                f"({self.num_videos}). Received: num_partitions={num_partitions}"
            )
        videos = self._videos()
        results = [
            self._result(videos.every(start, num_partitions), start, num_partitions)
            for start in range(num_partitions)
        ]
        names = [name for name in results[0] if name != "num_videos"]
        values = np.array([[result[name] for name in names] for result in results])
        return {
            "mean": dict(zip(names, values.mean(axis=0).tolist(), strict=True)),
            "deviation": dict(zip(names, values.std(axis=0, ddof=1).tolist(), strict=True)),
        }

    def intervals(self) -> dict[str, Any]:
        """Computes bootstrap intervals of `gap`, `perr` and `hit_at_1` over the choice of videos.

        Returns:
            `{"level", "resamples", metric: [low, high] or None}`; see `yt8m_gat.metrics.bootstrap`.

        Raises:
            ValueError: If no video was seen.
        """
        return intervals_of(self.resampled())

    def resampled(self) -> dict[str, np.ndarray]:
        """Computes `gap`, `perr` and `hit_at_1` on each resample of the videos.

        The resamples are the same for all sets of as many videos, so that those of two models on
        the same videos are paired.

        Returns:
            Metric -> `[NUM_RESAMPLES]`, NaN for `gap` where a resample has no positive.

        Raises:
            ValueError: If no video was seen.
        """
        videos = self._videos()
        num_videos, num_pairs = videos.top_scores.shape
        ranked = RankedPairs.of(
            videos.top_scores.ravel(),
            videos.top_hits.ravel(),
            np.repeat(np.arange(num_videos), num_pairs),
        )
        label_counts = videos.label_counts.astype(np.float64)
        hits = videos.top_hits[:, 0].astype(np.float64)
        values = np.array(
            [
                [
                    ranked.average_precision(counts, counts @ label_counts),
                    counts @ videos.perr / num_videos,
                    counts @ hits / num_videos,
                ]
                for counts in resample_counts(num_videos)
            ]
        )
        return dict(zip(("gap", "perr", "hit_at_1"), values.T, strict=True))

    def resampled_average_precision(self, classes: Sequence[int]) -> np.ndarray:
        """Computes the average precision of some classes on each resample of the videos.

        It is over all scores of a class if they are kept, else over its share of the pooled pairs.

        Args:
            classes: The class indices.

        Returns:
            `[NUM_RESAMPLES, len(classes)]`, NaN where a resample has no positive of the class.

        Raises:
            ValueError: If no video was seen.
        """
        videos = self._videos()
        num_videos, num_pairs = videos.top_scores.shape
        label_rows = np.repeat(np.arange(num_videos), videos.label_counts)
        pair_rows = np.repeat(np.arange(num_videos), num_pairs)
        ranked, positive_rows = [], []
        for index in classes:
            rows = label_rows[videos.label_classes == index]
            positive_rows.append(rows)
            if self.all_scores:
                scores = np.ascontiguousarray(self._scores.columns(index, index + 1)[:, 0])
                hits = np.zeros(num_videos, bool)
                hits[rows] = True
                ranked.append(RankedPairs.of(scores, hits, np.arange(num_videos)))
            else:
                pairs = np.flatnonzero(videos.top_classes.ravel() == index)
                ranked.append(
                    RankedPairs.of(
                        videos.top_scores.ravel()[pairs],
                        videos.top_hits.ravel()[pairs],
                        pair_rows[pairs],
                    )
                )
        return np.array(
            [
                [
                    pairs.average_precision(counts, counts[rows].sum(dtype=np.int64))
                    for pairs, rows in zip(ranked, positive_rows, strict=True)
                ]
                for counts in resample_counts(num_videos)
            ]
        ).reshape(NUM_RESAMPLES, len(ranked))

    def per_class_average_precision(self, all_scores: bool = False) -> np.ndarray:
        """Computes the average precision of each class; its mean is `map` or `map_all_scores`.

        Args:
            all_scores: Whether to use all scores of the class instead of the pooled top-k pairs.

        Returns:
            `[C]` float64, NaN for a class without a positive.

        Raises:
            ValueError: If no video was seen, or `all_scores` is True and they were not kept.
        """
        videos = self._videos()
        if not all_scores:
            return self._pooled_average_precision(videos)
        if not self.all_scores:
            raise ValueError(
                "Average precision over all scores needs them kept. "
                "Received: all_scores=False in the constructor; pass all_scores=True there"
            )
        return self._all_scores_average_precision(videos, start=0, step=1)

    def _videos(self) -> _Videos:
        """Concatenates all videos seen and keeps the result in place of the batches."""
        if self.num_videos == 0:
            raise ValueError(
                "Metrics need at least one video. Received: none; check that the data pattern "
                "matches files with records and that update() is called"
            )
        if len(self._batches) > 1:
            self._batches = [
                _Videos(
                    *(
                        np.concatenate([getattr(batch, name) for batch in self._batches])
                        for name in _Videos.__dataclass_fields__
                    )
                )
            ]
        return self._batches[0]

    def _result(self, videos: _Videos, start: int, step: int) -> dict[str, float]:
        """Computes the metrics of `videos`, which are every `step`-th of all from `start` on."""
        num_positives = int(videos.label_counts.sum(dtype=np.int64))
        result = {
            "gap": average_precision(
                videos.top_scores.ravel(), videos.top_hits.ravel(), num_positives
            ),
            "map": mean_average_precision(self._pooled_average_precision(videos)),
        }
        if self.all_scores:
            result["map_all_scores"] = mean_average_precision(
                self._all_scores_average_precision(videos, start, step)
            )
        result["perr"] = float(videos.perr.mean())
        result["hit_at_1"] = float(videos.top_hits[:, 0].mean())
        # All videos decide, so that partitions have the same metrics.
        if self.single_label_metrics and (self._videos().label_counts == 1).all():
            result["top_5"] = float(videos.hits_at_5.mean())
            result["mean_class_accuracy"] = mean_class_accuracy(
                videos.label_classes, videos.top_hits[:, 0]
            )
        result["num_videos"] = len(videos.perr)
        return result

    def _pooled_average_precision(self, videos: _Videos) -> np.ndarray:
        return per_class_average_precision(
            videos.top_classes.ravel(),
            videos.top_scores.ravel(),
            videos.top_hits.ravel(),
            np.bincount(videos.label_classes, minlength=self.num_classes),
        )

    def _all_scores_average_precision(self, videos: _Videos, start: int, step: int) -> np.ndarray:
        # Positives as (class, row), grouped by class.
        rows = np.repeat(np.arange(len(videos.perr)), videos.label_counts)
        rows = rows[np.argsort(videos.label_classes, kind="stable")]
        positives_per_class = np.bincount(videos.label_classes, minlength=self.num_classes)
        ends = np.cumsum(positives_per_class)
        result = np.full(self.num_classes, np.nan)
        for first in range(0, self.num_classes, _COLUMN_BLOCK):
            block = self._scores.columns(first, first + _COLUMN_BLOCK)[start::step]
            for offset in range(block.shape[1]):
                index = first + offset
                count = positives_per_class[index]
                if count:
                    hits = np.zeros(len(block), dtype=bool)
                    hits[rows[ends[index] - count : ends[index]]] = True
                    result[index] = average_precision(
                        np.ascontiguousarray(block[:, offset]), hits, count
                    )
        return result


def _keep_rated(
    labels: np.ndarray, scores: np.ndarray, label_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the videos with a rated pair; their unrated pairs become misses with score -inf.

    A miss ranked below every hit does not enter the precision at any hit, so it has no effect.
    """
    if label_weights.shape != labels.shape:
        raise ValueError(
            f"`label_weights` must have the shape of `labels`, {labels.shape}. "
            f"Received: {label_weights.shape}"
        )
    rated = label_weights > 0
    has_rated = rated.any(axis=1)
    rated = rated[has_rated]
    return (labels[has_rated] > 0) & rated, np.where(rated, scores[has_rated], -np.inf)


def _check_no_nan(name: str, values: np.ndarray) -> None:
    if not np.issubdtype(values.dtype, np.floating):
        return
    rows, columns = np.nonzero(np.isnan(values))
    if rows.size:
        raise ValueError(
            f"`{name}` must not contain NaN. Received: {rows.size} NaN, the first at video "
            f"{rows[0]} of the batch, class {columns[0]}"
        )
