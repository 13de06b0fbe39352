"""The evaluator of a run, and its figures of attention maps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import RunConfig
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.layers import AttentionLevel, expand_attention_map
from yt8m_gat.losses import (
    average_over_heads,
    distance_to_uniform,
    frobenius_distance,
    normalized_entropy,
)
from yt8m_gat.training.objective import build_loss

Maps = dict[str, dict[str, Any]]

MAP_FIGURES = (
    *("attention_entropy", "distance_to_uniform"),
    *("attention_mse", "attention_frobenius"),
)
"""Figures of the global maps in the rows of an evaluation, each with `_FEATURE`."""


def attention_figures(attention_maps: Maps, frame_mask: Any) -> dict[str, Any]:
    """Measures the global maps (averaged over heads) of each feature: {name: [B]}.

    An attention penalty is satisfied most cheaply by uniform maps, which cannot move: the
    entropy over log n (1 for uniform) and the distance to uniform say whether that happened.
    """
    figures = {}
    for feature, maps in attention_maps.items():
        if "global" in maps:
            mean = average_over_heads(maps["global"])
            figures[f"attention_entropy_{feature}"] = normalized_entropy(mean, frame_mask)
            figures[f"distance_to_uniform_{feature}"] = distance_to_uniform(mean, frame_mask)
    return figures


def attention_distances(clean: Maps, perturbed: Maps, frame_mask: Any) -> dict[str, Any]:
    """Measures how far the global maps (averaged over heads) moved, per feature: {name: [B]}.

    Returns the Frobenius norm of the difference (GAT, 4.3.2), and the mean squared error over the
    n x n entries of real frames (A-ART, 3.2.2), which is that norm's square over n squared.
    """
    num_frames = tf.reduce_sum(tf.cast(frame_mask, tf.float32), axis=1)
    distances = {}
    for feature, distance in _map_distances(clean, perturbed, frame_mask).items():
        squared_error = tf.math.divide_no_nan(tf.square(distance), tf.square(num_frames))
        distances[f"attention_mse_{feature}"] = squared_error
        distances[f"attention_frobenius_{feature}"] = distance
    return distances


def total_map_distance(clean: Maps, perturbed: Maps, frame_mask: Any) -> Any:
    """Returns the Frobenius distances of the global maps, summed over the features: [B]."""
    return tf.add_n(list(_map_distances(clean, perturbed, frame_mask).values()))


def _map_distances(clean: Maps, perturbed: Maps, frame_mask: Any) -> dict[str, Any]:
    return {
        feature: frobenius_distance(
            average_over_heads(maps["global"]),
            average_over_heads(perturbed[feature]["global"]),
            frame_mask,
        )
        for feature, maps in clean.items()
        if "global" in maps
    }


def square_maps(classifier: Any) -> Callable[[str, np.ndarray], np.ndarray]:
    """Returns `(level, maps as its layer returns them) -> maps [B, N, T, T]` of a classifier."""

    def lay_out(level: str, maps: np.ndarray) -> np.ndarray:
        if classifier.has_square_maps:
            return maps
        return expand_attention_map(maps, AttentionLevel.parse(level))

    return lay_out


def build_evaluator(
    classifier: Any, config: RunConfig, with_costly_maps: bool = False, **options: Any
) -> Evaluator:
    """Builds an evaluator of a classifier with the loss and the features of its run.

    Args:
        classifier: The run's classifier.
        config: The run.
        with_costly_maps: Whether to measure `MAP_FIGURES` also where `has_costly_maps`.
        **options: Other arguments of `Evaluator`.
    """
    frames = config.data.frame_features
    frames = frames and (with_costly_maps or not classifier.has_costly_maps)
    return Evaluator(
        classifier,
        build_loss(config.objective),
        config.data.num_classes,
        config.data.normalize,
        attention_figures=attention_figures if frames else None,
        attention_distances=attention_distances if frames else None,
        **options,
    )
