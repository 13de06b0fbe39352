"""Preprocessing of a batch's features to a model's inputs: dequantize, mask, normalize."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from yt8m_gat.config import NORMALIZATIONS
from yt8m_gat.data.quantization import dequantize

NORM_FLOOR = 1e-12
"""The floor of the squared L2 norm in the division, as in google/youtube-8m."""


def normalize_features(
    features: Mapping[str, tf.Tensor], normalize: str = "none"
) -> dict[str, tf.Tensor]:
    """Normalizes features to unit L2 norm along their last axis.

    Args:
        features: Name -> float [..., D].
        normalize: `none`; `per_feature`: each by its own norm; `concat`: all by the norm of their
            concatenation, as the starter code does.

    Returns:
        Name -> float [..., D]; a zero vector stays zero.

    Raises:
        ValueError: `normalize` is unknown.
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
    """Converts a batch's features to a model's inputs.

    Training, evaluation, inference and export all use this function. It consists of graph
    operations only, so it also runs inside `tf.function` and under XLA.

    Args:
        features: Frame level: name -> [B, T, D] with the same T, uint8 as stored, or floats that
            are dequantized already. Raw clips: name -> [B, T, H, W, C], pixels from 0 to 255.
            Video level: name -> float [B, D].
        num_frames: int32 [B]; the first `num_frames` frames of each clip are real.
        normalize: See `normalize_features`.
        frame_mask: [B, T], true at real frames, in place of `num_frames`; the real frames need not
            come first. With neither, the features are video-level ones.

    Returns:
        (features, frame_mask). Frame level: name -> float32 [B, T, D], dequantized, exactly 0 on
        padding, and bool [B, T], True at real frames; raw clips likewise, pixels from 0 to 255.
        Video level: name -> float32 [B, D], and None.

    Raises:
        ValueError: There are no features, `normalize` is unknown, `num_frames` and `frame_mask`
            are both given, or a dtype or rank does not fit the level.
    """
    if not features:
        raise ValueError("`features` must hold at least one feature. Received: {}")
    if num_frames is not None and frame_mask is not None:
        raise ValueError(
            "`num_frames` and `frame_mask` both say which frames are real; give one of them"
        )
    frame_level = num_frames is not None or frame_mask is not None
    for name, x in features.items():
        if frame_level and x.shape.rank not in (3, 5, None):
            raise ValueError(
                "frame-level features must be [B, T, D], or [B, T, H, W, C] for raw clips. "
                f"Received: shape {x.shape} for {name!r}; video-level features go without "
                "num_frames and frame_mask"
            )
        if x.shape.rank == 5 and normalize != "none":
            raise ValueError("raw clips are not l2-normalized: `normalize` must be none")
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
        # Bytes of raw clips are the pixels' own values.
        name: dequantize(x) if x.dtype == tf.uint8 and x.shape.rank != 5 else tf.cast(x, tf.float32)
        for name, x in features.items()
    }
    if not frame_level:
        return normalize_features(floats, normalize), None
    if frame_mask is None:
        first = next(iter(features.values()))
        frame_mask = tf.sequence_mask(num_frames, tf.shape(first)[1])  # [B, T]
    frame_mask = tf.cast(frame_mask, tf.bool)
    # A selection, not a product with the mask: NaN times 0 is NaN.
    frames = {}
    for name, x in floats.items():
        real = frame_mask[(...,) + (tf.newaxis,) * ((x.shape.rank or 3) - 2)]
        frames[name] = tf.where(real, x, 0.0)
    return normalize_features(frames, normalize), frame_mask
