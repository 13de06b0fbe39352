"""Limits features to what dequantization can produce: a range, and levels within it."""

from collections.abc import Mapping

import tensorflow as tf

Tensors = dict[str, tf.Tensor]

PIXEL_RANGE = (0.0, 255.0)
PIXEL_LEVELS = (1.0, 0.0)
"""The bounds of a pixel, and (step, offset) of its levels."""


def clip_features(
    perturbed: Mapping[str, tf.Tensor],
    features: Mapping[str, tf.Tensor],
    clip_to_range: tuple[float, float],
) -> Tensors:
    """Clips `perturbed` to [low, high], widened where the clean entry itself lies outside.

    No entry moves away from its clean value, so a point in a ball around `features` stays in it.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import PIXEL_RANGE, clip_features
        >>> clean = {"x": tf.constant([[250.0, 3.0]])}
        >>> moved = {"x": tf.constant([[260.0, -5.0]])}
        >>> clip_features(moved, clean, PIXEL_RANGE)["x"].numpy()
        array([[255.,   0.]], dtype=float32)
    """
    low, high = clip_to_range
    return {
        name: tf.clip_by_value(
            value, tf.minimum(features[name], low), tf.maximum(features[name], high)
        )
        for name, value in perturbed.items()
    }


def round_features(
    features: Mapping[str, tf.Tensor],
    round_to_levels: tuple[float, float],
    clip_to_range: tuple[float, float] | None = None,
) -> Tensors:
    """Rounds each entry to its nearest level offset + k * step, within [low, high] if given.

    With the step and the offset of the dequantization, the result equals storing the features as
    uint8 and reading them back.
    """
    step, offset = round_to_levels
    rounded = {}
    for name, value in features.items():
        index = tf.round((value - offset) / step)
        if clip_to_range is not None:
            low, high = clip_to_range
            index = tf.clip_by_value(
                index, round((low - offset) / step), round((high - offset) / step)
            )
        rounded[name] = index * step + offset
    return rounded
