"""Exact metrics over a whole data set, in NumPy."""

from yt8m_gat.metrics.average_precision import (
    average_precision,
    mean_average_precision,
    per_class_average_precision,
)
from yt8m_gat.metrics.bootstrap import interval
from yt8m_gat.metrics.class_accuracy import mean_class_accuracy
from yt8m_gat.metrics.class_subset import restrict_to_classes
from yt8m_gat.metrics.evaluation_metrics import EvaluationMetrics, evaluate
from yt8m_gat.metrics.segment_map import SegmentMeanAveragePrecision
from yt8m_gat.metrics.top_k import top_k_indices

__all__ = [
    "EvaluationMetrics",
    "SegmentMeanAveragePrecision",
    "average_precision",
    "evaluate",
    "interval",
    "mean_average_precision",
    "mean_class_accuracy",
    "per_class_average_precision",
    "restrict_to_classes",
    "top_k_indices",
]
