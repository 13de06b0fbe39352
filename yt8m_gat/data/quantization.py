"""The 8-bit quantization of frame features and its inverse.

Each byte x represents `x * (4 / 255) + (4 / 512 - 2)`: 255 steps over a range of 4, shifted by
half of one 256th of that range (google/youtube-8m). So 0 -> -1.9921875 and 255 -> 2.0078125.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import tensorflow as tf

MIN_VALUE = -2.0
"""Lower end of the quantized range."""

MAX_VALUE = 2.0
"""Upper end of the quantized range."""

STEP = (MAX_VALUE - MIN_VALUE) / 255
"""Distance between neighbouring quantization levels: 4/255."""

OFFSET = (MAX_VALUE - MIN_VALUE) / 512 + MIN_VALUE
"""The value of the byte 0: 4/512 - 2."""

Array = TypeVar("Array", np.ndarray, tf.Tensor)


def dequantize(x: Array) -> Array:
    """Converts bytes to features: `x * (4 / 255) + (4 / 512 - 2)`.

    Args:
        x: uint8 (or any real) array or tensor of any shape.

    Returns:
        float32 of the same shape and library.
    """
    if tf.is_tensor(x):
        return tf.cast(x, tf.float32) * STEP + OFFSET
    return np.asarray(x).astype(np.float32) * np.float32(STEP) + np.float32(OFFSET)


def quantize(x: Array) -> Array:
    """Converts features to bytes: the level nearest to x, clipped to 0 .. 255.

    `quantize(dequantize(b)) == b` for each byte b.

    Args:
        x: Float array or tensor of any shape.

    Returns:
        uint8 of the same shape and library.
    """
    if tf.is_tensor(x):
        levels = tf.round((tf.cast(x, tf.float32) - OFFSET) / STEP)
        return tf.cast(tf.clip_by_value(levels, 0.0, 255.0), tf.uint8)
    levels = np.rint((np.asarray(x, dtype=np.float32) - np.float32(OFFSET)) / np.float32(STEP))
    return np.clip(levels, 0, 255).astype(np.uint8)


def quantize_as_youtube8m(x: np.ndarray, *, truncate: bool = False) -> np.ndarray:
    """Converts features to bytes by YouTube-8M's own arithmetic, `(clip(x, -2, 2) + 2) * 255 / 4`.

    Its extractor of pictures rounds this, VGGish's drops the fraction. `quantize` is the inverse of
    `dequantize` instead, from which rounding is half a level away and dropping within 2 %.

    Args:
        x: Float array of any shape.
        truncate: Drop the fraction instead of rounding.

    Returns:
        uint8 of the same shape.

    Reference: google/youtube-8m, feature_extractor/extract_tfrecords_main.py; tensorflow/models,
    research/audioset/vggish/vggish_postprocess.py.
    """
    levels = (np.clip(x, MIN_VALUE, MAX_VALUE) - MIN_VALUE) * (255.0 / (MAX_VALUE - MIN_VALUE))
    return (levels if truncate else np.rint(levels)).astype(np.uint8)
