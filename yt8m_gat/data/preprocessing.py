"""From the features of a batch to what a model sees: dequantize, normalize, mask."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from yt8m_gat.config import NORMALIZATIONS
from yt8m_gat.data.quantization import dequantize

NORM_FLOOR = 1e-12
"""Smallest squared l2 norm divided by, as in google/youtube-8m."""


def normalize_features(
    features: Mapping[str, tf.Tensor], normalize: str = "none"
) -> dict[str, tf.Tensor]:
    """l2-normalizes features along their last axis.

    Args:
        features: Name -> float [..., D].
        normalize: `none`; `per_feature`: each by its own norm; `concat`: all by the norm of the
            vector that they form together, as the starter code does.

    Returns:
        Name -> float [..., D]; a zero vector stays zero.

    Raises:
        ValueError: `normalize` is none of these.
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(
            f"--normalize must be one of {', '.join(NORMALIZATIONS)}. Received: {normalize!r}"
        )
    if normalize == "none":
        return dict(features)
    squares = {
        name: tf.reduce_sum(tf.square(x), axis=-1, keepdims=True) for name, x in features.items()
    }
    if normalize == "concat":
        total = tf.add_n(list(squares.values()))
        squares = dict.fromkeys(features, total)
    return {
        name: x * tf.math.rsqrt(tf.maximum(squares[name], NORM_FLOOR))
        for name, x in features.items()
    }


def preprocess(
    features: Mapping[str, tf.Tensor],
    num_frames: tf.Tensor | None = None,
    normalize: str = "none",
    frame_mask: tf.Tensor | None = None,
) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
    """Turns a batch's features into a model's inputs.

    Used by training, evaluation, inference and the export alike; only graph operations, so that
    it also runs inside `tf.function` and under XLA.

    Args:
        features: Frame level: name -> [B, T, D] of one T, uint8 as stored, or floats that are
            dequantized already. Video level: name -> float [B, D].
        num_frames: int32 [B], the number of real frames of each clip, the first ones.
        normalize: See `normalize_features`.
        frame_mask: [B, T], true at real frames, which may be any; in place of `num_frames`. With
            neither, the features are video-level ones.

    Returns:
        (features, frame_mask). Frame level: name -> float32 [B, T, D], exactly 0 on padding, and
        bool [B, T], True at real frames. Video level: name -> float32 [B, D], and None.

    Raises:
        ValueError: No features, an unknown `normalize`, both `num_frames` and `frame_mask`, or a
            dtype or a rank that does not fit the level.
    """
    if not features:
        raise ValueError("`features` must hold at least one feature. Received: {}")
    if num_frames is not None and frame_mask is not None:
        raise ValueError(
            "`num_frames` and `frame_mask` both say which frames are real; give one of them"
        )
    frame_level = num_frames is not None or frame_mask is not None
    for name, x in features.items():
        if frame_level and x.shape.rank not in (3, None):
            raise ValueError(
                f"frame-level features must be [B, T, D]. Received: shape {x.shape} for {name!r}; "
                "video-level features go without num_frames and frame_mask"
            )
        if frame_level and x.dtype != tf.uint8 and not x.dtype.is_floating:
            raise ValueError(
                "frame-level features must be uint8, as stored, or floats, dequantized already. "
                f"Received: {x.dtype.name} for {name!r}"
            )
        if not frame_level and not x.dtype.is_floating:
            raise ValueError(
                f"video-level features must be floats. Received: {x.dtype.name} for {name!r}; "
                "frame-level features need num_frames or frame_mask"
            )
    floats = {
        name: dequantize(x) if x.dtype == tf.uint8 else tf.cast(x, tf.float32)
        for name, x in features.items()
    }
    if not frame_level:
        return normalize_features(floats, normalize), None
    if frame_mask is None:
        first = next(iter(features.values()))
        frame_mask = tf.sequence_mask(num_frames, tf.shape(first)[1])  # [B, T]
    frame_mask = tf.cast(frame_mask, tf.bool)
    # Selected, not multiplied: NaN times 0 is NaN.
    frames = {name: tf.where(frame_mask[:, :, tf.newaxis], x, 0.0) for name, x in floats.items()}
    return normalize_features(frames, normalize), frame_mask
