"""The frames of one raw clip as small pictures, and the class activation over them."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.explanation.activation_statistics import (
    activation_entropy,
    activation_shares,
    activation_spread,
)

SHOWN_SIDE = 96
"""Side of the pictures in pixels; smaller frames keep their size."""


def frame_pictures(frames: Any) -> list[str]:
    """Returns each frame as a data URI of a JPEG.

    Args:
        frames: [T, S, S, 3], RGB from 0 to 255.
    """
    pixels = tf.cast(frames, tf.float32)
    side = min(SHOWN_SIDE, pixels.shape[1])
    if side < pixels.shape[1]:
        pixels = tf.image.resize(pixels, (side, side), method="area")
    pictures = tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    encoded = (tf.io.encode_jpeg(picture, quality=90).numpy() for picture in pictures)
    return [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in encoded]


def shown_activations(
    classes: Sequence[int], activation: np.ndarray, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Returns the class activation over time of some classes, each once.

    Args:
        classes: [K].
        activation: [K, T], see `yt8m_gat.explanation.class_activation`; all frames are real.
        names: Class -> name.

    Returns:
        `{"class", "name", "values": [T], "entropy", "spread"}` of each; the last two are None if
        no frame speaks for the class, or if there is one frame only.
    """
    shown = {}
    for index, values in zip(classes, np.asarray(activation), strict=True):
        shares = activation_shares(values, np.ones(len(values), bool))
        measured = shares is not None and len(values) > 1
        shown[int(index)] = {
            "class": int(index),
            "name": names.get(int(index)),
            "values": values.tolist(),
            "entropy": activation_entropy(shares) if measured else None,
            "spread": activation_spread(shares) if measured else None,
        }
    return list(shown.values())
