"""Augmentation of frame features in training: crops, lost frames and features, MixUp, noise.

Every choice is a function of a seed and of the ids in the batch, so that a resumed run makes the
same ones, and so does any number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.data.preprocessing import preprocess

# Tells these draws from those of the order of the data, which have the same seed and epoch.
_STREAM = 1

Frames = dict[str, tf.Tensor]


def crop_in_time(
    features: Mapping[str, tf.Tensor], num_frames: tf.Tensor, least_share: float, seed: tf.Tensor
) -> tuple[Frames, tf.Tensor]:
    """Keeps a stretch of each clip, whose share of the clip is uniform in [`least_share`, 1].

    Args:
        features: {name: [B, T, D]}.
        num_frames: int32 [B].
        least_share: The least share, in (0, 1].
        seed: int [2].

    Returns:
        The features, with the stretch moved to the front and 0 behind it, and its lengths (at
        least 1 where a clip has a frame).

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.data.feature_augmentation import crop_in_time
        >>> clip = {"x": tf.reshape(tf.range(1.0, 5.0), [1, 4, 1])}
        >>> cropped, lengths = crop_in_time(clip, tf.constant([4]), 0.5, tf.constant([0, 1]))
        >>> int(lengths[0]) in (2, 3, 4)
        True
    """
    of_share, of_start = tf.unstack(tf.random.split(seed, 2, alg="philox"))
    count = tf.shape(num_frames)
    share = tf.random.stateless_uniform(count, of_share, least_share, 1.0, alg="philox")
    whole = tf.cast(num_frames, tf.float32)
    lengths = tf.minimum(tf.cast(tf.math.ceil(share * whole), tf.int32), num_frames)
    places = tf.random.stateless_uniform(count, of_start, alg="philox")
    starts = tf.cast(places * tf.cast(num_frames - lengths + 1, tf.float32), tf.int32)
    frames = tf.range(tf.shape(next(iter(features.values())))[1])
    kept = (frames >= starts[:, None]) & (frames < (starts + lengths)[:, None])
    return _kept_in_front(features, kept), lengths


def drop_frames(
    features: Mapping[str, tf.Tensor], num_frames: tf.Tensor, rate: float, seed: tf.Tensor
) -> tuple[Frames, tf.Tensor]:
    """Leaves out each frame with probability `rate`, but not all frames of a clip.

    Args:
        features: {name: [B, T, D]}.
        num_frames: int32 [B].
        rate: The probability, in [0, 1).
        seed: int [2].

    Returns:
        The features, with the kept frames in their order and 0 behind them, and their numbers.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.data.feature_augmentation import drop_frames
        >>> clip = {"x": tf.ones([1, 3, 1])}
        >>> drop_frames(clip, tf.constant([3]), 0.999, tf.constant([0, 1]))[1].numpy()
        array([1], dtype=int32)
    """
    size = tf.shape(next(iter(features.values())))[1]
    shape = tf.stack([tf.shape(num_frames)[0], size])
    draw = tf.random.stateless_uniform(shape, seed, alg="philox")
    real = tf.sequence_mask(num_frames, size)
    # The frame of the highest draw always stays.
    highest = tf.reduce_max(tf.where(real, draw, -1.0), axis=1, keepdims=True)
    kept = real & ((draw >= rate) | (draw == highest))
    return _kept_in_front(features, kept), tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)


def mix_clips(
    features: Mapping[str, tf.Tensor],
    num_frames: tf.Tensor,
    labels: tf.Tensor,
    alpha: float,
    seed: tf.Tensor,
) -> tuple[Frames, tf.Tensor]:
    """Mixes each clip of a batch with another one: x = w x + (1 - w) x', y = w y + (1 - w) y'.

    w is drawn from Beta(alpha, alpha), one a clip. A clip keeps its length; a shorter partner is
    repeated from its start, and a longer one cut. Bytes are mixed as the values that they stand
    for, which are linear in them, and rounded.

    Args:
        features: {name: [B, T, D]}, bytes or floats.
        num_frames: int32 [B].
        labels: float32 [B, classes].
        alpha: Both parameters of the Beta distribution.
        seed: int [2].

    Returns:
        Features and labels of the same shapes and types.

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.data.feature_augmentation import mix_clips
        >>> clip, length = {"x": tf.ones([1, 3, 1])}, tf.constant([3])
        >>> _, labels = mix_clips(clip, length, tf.constant([[1.0, 0.0]]), 0.2, tf.constant([0, 1]))
        >>> labels.numpy()  # A batch of one clip has no other.
        array([[1., 0.]], dtype=float32)
    """
    seeds = tf.unstack(tf.random.split(seed, 3, alg="philox"))
    count = tf.shape(num_frames)[0]
    partners = tf.random.experimental.stateless_shuffle(tf.range(count), seeds[0], "philox")
    gammas = [tf.random.stateless_gamma([count], of_gamma, alpha) for of_gamma in seeds[1:]]
    # Both gammas can underflow to 0 at a small alpha: such a clip stays as it is.
    total = gammas[0] + gammas[1]
    weights = tf.where(total > 0, gammas[0] / tf.where(total > 0, total, 1.0), 1.0)
    size = tf.shape(next(iter(features.values())))[1]
    real = tf.sequence_mask(num_frames, size)[..., None]
    lengths = tf.maximum(tf.gather(num_frames, partners), 1)
    places = tf.range(size)[None] % lengths[:, None]
    mixed = {}
    for name, value in features.items():
        own = tf.cast(value, tf.float32)
        other = tf.gather(tf.gather(own, partners), places, batch_dims=1)
        blend = own + (1.0 - weights)[:, None, None] * (other - own)
        if value.dtype.is_integer:
            blend = tf.round(blend)
        mixed[name] = tf.where(real, tf.saturate_cast(blend, value.dtype), value)
    of_own = weights[:, None]
    return mixed, of_own * labels + (1.0 - of_own) * tf.gather(labels, partners)


def drop_features(
    features: Mapping[str, tf.Tensor],
    num_frames: tf.Tensor,
    rates: Mapping[str, float],
    seed: tf.Tensor,
) -> Frames:
    """Takes features from clips, each with its own probability; a clip that lost all keeps all.

    A model so trained relies less on a feature that fits the training clips alone, and can do
    without it. What is lost is 0 in all frames, the mean of whitened features.

    Args:
        features: {name: [B, T, D]}, bytes or floats.
        num_frames: int32 [B].
        rates: Feature -> probability, in [0, 1).
        seed: int [2].

    Returns:
        Dequantized features of the same shapes, float32, 0 on padding.

    Reference: Neverova et al., "ModDrop: Adaptive Multi-Modal Gesture Recognition", 2016.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.data.feature_augmentation import drop_features
        >>> clip = {"rgb": tf.ones([1, 1, 1]), "audio": tf.ones([1, 1, 1])}
        >>> kept = drop_features(clip, tf.constant([1]), {"rgb": 0.999}, tf.constant([0, 1]))
        >>> {name: value.numpy().item() for name, value in kept.items()}
        {'rgb': 0.0, 'audio': 1.0}
    """
    frames, _ = preprocess(features, num_frames)
    draws = tf.random.stateless_uniform([len(frames), tf.shape(num_frames)[0]], seed, alg="philox")
    lost = draws < tf.constant([[rates.get(name, 0.0)] for name in frames])
    lost &= ~tf.reduce_all(lost, axis=0)
    return {
        name: tf.where(of_clips[:, None, None], 0.0, value)
        for (name, value), of_clips in zip(frames.items(), tf.unstack(lost), strict=True)
    }


def add_noise(
    features: Mapping[str, tf.Tensor], num_frames: tf.Tensor, deviation: float, seed: tf.Tensor
) -> Frames:
    """Adds normal noise to each entry of each real frame.

    Args:
        features: {name: [B, T, D]}, bytes or floats.
        num_frames: int32 [B].
        deviation: The standard deviation, in units of dequantized features.
        seed: int [2].

    Returns:
        Dequantized features of the same shapes, float32, 0 on padding. They are not rounded to
        levels or cut to their range: randomized smoothing needs models for the whole noise.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.data.feature_augmentation import add_noise
        >>> clip = {"x": tf.zeros([1, 3, 1])}
        >>> (add_noise(clip, tf.constant([2]), 0.5, tf.constant([0, 1]))["x"][0, :, 0] != 0).numpy()
        array([ True,  True, False])
    """
    frames, real = preprocess(features, num_frames)
    seeds = tf.unstack(tf.random.split(seed, len(frames), alg="philox"))
    return {
        name: tf.where(
            real[..., None],
            value + tf.random.stateless_normal(tf.shape(value), of, stddev=deviation, alg="philox"),
            0.0,
        )
        for (name, value), of in zip(frames.items(), seeds, strict=True)
    }


def augment_features(
    batch: Mapping[str, Any],
    *,
    seed: int,
    epoch: int,
    least_share: float = 1.0,
    drop_rate: float = 0.0,
    mixup_alpha: float = 0.0,
    feature_rates: Mapping[str, float] | None = None,
    noise: float = 0.0,
) -> dict[str, Any]:
    """Augments a batch of features: crops, lost frames, MixUp, lost features, noise, in that order.

    Args:
        batch: A batch of `yt8m_gat.data`, with labels.
        seed: The run's seed.
        epoch: The epoch.
        least_share: See `crop_in_time`; 1: no crops.
        drop_rate: See `drop_frames`; 0: none.
        mixup_alpha: See `mix_clips`; 0: no mixing.
        feature_rates: See `drop_features`; None or empty: none.
        noise: Standard deviation, see `add_noise`; 0: none.

    Returns:
        A batch of the same form; with lost features or noise, its features are dequantized.
    """
    together = tf.strings.reduce_join(batch["video_id"], separator="\n")
    fingerprint = tf.bitcast(tf.fingerprint(together[tf.newaxis]), tf.int64)[0]
    of_epoch = np.random.SeedSequence([seed, epoch, _STREAM]).generate_state(2) & 0x7FFFFFFF
    of_batch = tf.random.experimental.stateless_fold_in(
        tf.constant(of_epoch, tf.int32), fingerprint, alg="philox"
    )
    seeds = tf.unstack(tf.random.split(of_batch, 3, alg="philox"))
    features, num_frames, labels = batch["features"], batch["num_frames"], batch["labels"]
    if least_share < 1:
        features, num_frames = crop_in_time(features, num_frames, least_share, seeds[0])
    if drop_rate > 0:
        features, num_frames = drop_frames(features, num_frames, drop_rate, seeds[1])
    if mixup_alpha > 0:
        features, labels = mix_clips(features, num_frames, labels, mixup_alpha, seeds[2])
    # These are split off after the others, whose draws stay as they were.
    if feature_rates:
        of_loss = tf.random.experimental.stateless_fold_in(of_batch, 2, alg="philox")
        features = drop_features(features, num_frames, feature_rates, of_loss)
    if noise > 0:
        of_noise = tf.random.experimental.stateless_fold_in(of_batch, 1, alg="philox")
        features = add_noise(features, num_frames, noise, of_noise)
    # XLA needs the static shapes, which these operations lose.
    features = {
        name: tf.ensure_shape(value, batch["features"][name].shape)
        for name, value in features.items()
    }
    labels = tf.ensure_shape(labels, batch["labels"].shape)
    return {**batch, "features": features, "num_frames": num_frames, "labels": labels}


def _kept_in_front(features: Mapping[str, tf.Tensor], kept: tf.Tensor) -> Frames:
    """Moves the frames where `kept` [B, T] to the front of each clip, and puts 0 behind them."""
    order = tf.argsort(tf.cast(kept, tf.int32), axis=1, direction="DESCENDING", stable=True)
    inside = tf.sequence_mask(tf.reduce_sum(tf.cast(kept, tf.int32), 1), tf.shape(kept)[1])
    return {
        name: tf.where(
            inside[..., None], tf.gather(value, order, batch_dims=1), tf.zeros_like(value)
        )
        for name, value in features.items()
    }
