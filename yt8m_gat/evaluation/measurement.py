"""The measurement of one pass over a data set, and the totals over its batches."""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.metrics import EvaluationMetrics, SegmentMeanAveragePrecision, restrict_to_classes


@dataclasses.dataclass
class Measurement:
    """The measurement of one pass over a data set.

    Attributes:
        metrics: Metrics of all videos, or of all rated segments.
        segment_map: Only for rated segments, if all scores are kept; else None.
        figures: Means over the videos, and the figures of a perturbation: see `Evaluator.measure`.
        num_examples: Number of videos, or segments.
        rated: Whether the examples were rated segments.
        positives: Int [C], examples of each class.
        groups: Metrics of each group of classes, over the examples that have one of its classes.
    """

    metrics: EvaluationMetrics
    segment_map: SegmentMeanAveragePrecision | None
    figures: dict[str, float | None]
    num_examples: int
    rated: bool
    positives: np.ndarray
    groups: dict[str, EvaluationMetrics]

    def result(self, num_partitions: int = 0) -> dict[str, Any]:
        """Returns the metrics and figures as one row.

        Args:
            num_partitions: Above 0: also `partitions`, `{"count": n, metric: {"mean",
                "deviation"}}`, over this number of disjoint parts.

        Raises:
            ValueError: There are fewer examples than parts.
        """
        row: dict[str, Any] = {"map_all_scores": None, **self.metrics.result(), **self.figures}
        if self.rated:
            del row["map_all_scores"], row["num_videos"]
            row |= {"segment_map": None, "num_segments": self.num_examples}
            if self.segment_map is not None:
                row |= self.segment_map.result()
        if num_partitions:
            parts = self.metrics.partition_result(num_partitions)
            row["partitions"] = {
                "count": num_partitions,
                **{
                    name: {"mean": mean, "deviation": parts["deviation"][name]}
                    for name, mean in parts["mean"].items()
                },
            }
        return row

    def group_results(self) -> dict[str, dict[str, Any] | None]:
        """Returns the metrics of each group; None if no example has one of its classes."""
        return {
            name: metrics.result() if metrics.num_videos else None
            for name, metrics in self.groups.items()
        }

    def per_class_average_precision(self) -> np.ndarray:
        """Returns float64 [C], NaN without a positive: over all scores if they are kept, else over
        the pooled best of each video; see `EvaluationMetrics`."""
        if self.segment_map is not None:
            return self.segment_map.per_class_average_precision()
        return self.metrics.per_class_average_precision(self.metrics.all_scores)

    def resampled_average_precision(self, classes: Sequence[int]) -> np.ndarray:
        """Returns the same for `classes` on each resample of the examples; see
        `yt8m_gat.metrics`."""
        return (self.segment_map or self.metrics).resampled_average_precision(classes)


class PassTotals:
    """Adds up the batches of one pass.

    Args:
        num_classes: C.
        top_k: Predictions per example that GAP and MAP count.
        all_scores: Whether to keep every score.
        groups: Name -> classes, for metrics over those classes.
        under_deepfool: Whether the figures are DeepFool's, which also gives `rho_mean`,
            `rho_median` and `share_not_flipped`.

    Attributes:
        num_examples: Videos or segments so far.
    """

    def __init__(
        self,
        num_classes: int,
        top_k: int,
        all_scores: bool,
        groups: Mapping[str, Sequence[int]],
        under_deepfool: bool = False,
    ) -> None:
        self.num_examples = 0
        self._num_classes = num_classes
        self._top_k = top_k
        self._all_scores = all_scores
        self._groups = groups
        self._group_metrics = {
            name: EvaluationMetrics(
                len(classes), top_k, all_scores=False, single_label_metrics=False
            )
            for name, classes in groups.items()
        }
        self._distances = _Distances() if under_deepfool else None
        self._metrics: EvaluationMetrics | None = None
        self._segment_map: SegmentMeanAveragePrecision | None = None
        self._rated = False
        self._positives = np.zeros(num_classes, np.int64)
        self._sums: collections.Counter[str] = collections.Counter()
        self._counts: collections.Counter[str] = collections.Counter()

    def add(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        weights: np.ndarray | None,
        figures: Mapping[str, tf.Tensor],
    ) -> None:
        """Adds one batch.

        Args:
            labels: [B, C].
            probabilities: [B, C].
            weights: [B, C] for rated segments (pairs with weight 0 do not count); else None.
            figures: {name: [B]}, averaged over the examples.
        """
        if self._metrics is None:
            self._begin(rated=weights is not None)
        if self._distances is not None:
            self._distances.update(figures["relative_norm"], figures["success"])
        self._metrics.update(labels, probabilities, weights)
        positive = labels > 0 if weights is None else (labels > 0) & (weights > 0)
        self._positives += positive.sum(axis=0)
        if self._segment_map is not None:
            self._segment_map.update(labels, weights, probabilities)
        for name, classes in self._groups.items():
            _update_group(self._group_metrics[name], classes, labels, probabilities, weights)
        for name, values in figures.items():
            self._sums[name] += float(values.numpy().sum(dtype=np.float64))
            self._counts[name] += len(labels)
        self.num_examples += len(labels)

    def _begin(self, rated: bool) -> None:
        self._rated = rated
        self._metrics = EvaluationMetrics(
            self._num_classes, self._top_k, all_scores=self._all_scores and not rated
        )
        if rated and self._all_scores:
            self._segment_map = SegmentMeanAveragePrecision(self._num_classes)

    def measurement(self) -> Measurement:
        """Returns the measurement over all batches.

        Raises:
            ConfigError: There was no batch.
        """
        if self._metrics is None:
            raise ConfigError(
                "there is nothing to evaluate: the files hold no records or, of a run on segments, "
                "no rated ones; --nosegment_labels evaluates whole clips"
            )
        # A figure that some batches lack (frames were dropped there) is left out.
        means: dict[str, float | None] = {
            name: value / self.num_examples if math.isfinite(value) else None
            for name, value in self._sums.items()
            if self._counts[name] == self.num_examples
        }
        if self._distances is not None:
            means |= self._distances.result()
        return Measurement(
            self._metrics,
            self._segment_map,
            means,
            self.num_examples,
            self._rated,
            self._positives,
            self._group_metrics,
        )


class _Distances:
    """DeepFool's rho of each example, and whether its decision changed: 5 bytes per example."""

    def __init__(self) -> None:
        self._relative_norms: list[np.ndarray] = []
        self._flipped: list[np.ndarray] = []

    def update(self, relative_norm: tf.Tensor, success: tf.Tensor) -> None:
        self._relative_norms.append(relative_norm.numpy())
        self._flipped.append(success.numpy() > 0)

    def result(self) -> dict[str, float | None]:
        flipped = np.concatenate(self._flipped)
        rho = np.concatenate(self._relative_norms)[flipped]
        return {
            "rho_mean": float(rho.mean(dtype=np.float64)) if rho.size else None,
            "rho_median": float(np.median(rho)) if rho.size else None,
            "share_not_flipped": float(1.0 - flipped.mean()),
        }


def _update_group(
    metrics: EvaluationMetrics,
    classes: Sequence[int],
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None,
) -> None:
    if weights is not None:
        labels = np.where(weights > 0, labels, 0.0)
        # Select the same rows and columns of the weights.
        _, weights = restrict_to_classes(labels, weights, classes)
    labels, probabilities = restrict_to_classes(labels, probabilities, classes)
    if len(labels):
        metrics.update(labels, probabilities, weights)
