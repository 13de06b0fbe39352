"""Natural corruptions of clips, severities 1 to 5: of feature sequences, and of raw clips.

Those of pictures are in `yt8m_gat.attacks.pixel_corruptions`. The image corruptions of the TAF
paper (tables 3 and 7; Hendrycks and Dietterich, 2018) have no pixel meaning over frame features,
which have only analogues here: entry-wise noise at the image benchmark's shares of the range of
values, a blur over time instead of space, and faults of a stream of frames.

Space: dequantized features, whose values span a range of 4, [-2, 2], and which are not clipped to
it; or pixels from 0 to 255, which are. Padding stays exactly 0. The same seed gives the same
corruption.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.ball import Tensors, mask_frames, normal_like, seed_pair
from yt8m_gat.attacks.pixel_corruptions import PIXEL_CORRUPTIONS, corrupt_pixels

LOWEST, HIGHEST = -2.0, 2.0
FEATURE_RANGE = HIGHEST - LOWEST
SEVERITIES = (1, 2, 3, 4, 5)

# (amount, features, frame_mask, seed [2]) -> (features, frame_mask).
CorruptFn = Callable[[float, Tensors, tf.Tensor, tf.Tensor], tuple[Tensors, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A corruption and its amount at each severity."""

    function: CorruptFn
    amounts: tuple[float, float, float, float, float]


def corrupt(
    name: str,
    severity: int,
    features: Mapping[str, Any],
    frame_mask: Any,
    seed: Any = 0,
    per_frame: bool = True,
) -> tuple[Tensors, tf.Tensor]:
    """Corrupts a batch of clips.

    Args:
        name: One of `corruptions_of(pixels)`.
        severity: 1 to 5.
        features: {name: float [B, T, D]}, dequantized, or one raw clip, {name: float
            [B, T, H, W, 3]} in [0, 255].
        frame_mask: Bool [B, T], True = real frame; real frames come first.
        seed: Integer.
        per_frame: Whether corruptions of pictures draw for each frame; else once for a clip.

    Returns:
        Features of the same shapes, and the frame mask, which `frame_drop` shortens.

    Raises:
        ValueError: If the name or the severity is unknown.

    Examples:
        >>> from yt8m_gat.attacks import corrupt
        >>> clip = {"x": [[[1.0], [2.0], [3.0], [0.0]]]}
        >>> features, frame_mask = corrupt("frame_drop", 5, clip, [[True, True, True, False]])
        >>> int(frame_mask.numpy().sum()) < 3, features["x"].shape
        (True, TensorShape([1, 4, 1]))
    """
    clips = {key: tf.convert_to_tensor(value) for key, value in features.items()}
    pixels = any(clip.shape.rank == 5 for clip in clips.values())
    if name not in corruptions_of(pixels):
        raise ValueError(
            f"a corruption must be one of {', '.join(corruptions_of(pixels))}. Received: {name!r}"
        )
    if severity not in SEVERITIES:
        raise ValueError(f"`severity` must be 1, 2, 3, 4 or 5. Received: severity={severity}")
    frame_mask = tf.convert_to_tensor(frame_mask)
    clean = mask_frames(clips, frame_mask)
    if pixels and name in PIXEL_CORRUPTIONS:
        corrupted = {
            key: corrupt_pixels(name, severity, clip, seed_pair(seed), per_frame)
            for key, clip in clean.items()
        }
        return mask_frames(corrupted, frame_mask), frame_mask
    corruption = (_OF_FRAMES if pixels else CORRUPTIONS)[name]
    amount = corruption.amounts[severity - 1]
    corrupted, frame_mask = corruption.function(amount, clean, frame_mask, seed_pair(seed))
    return mask_frames(corrupted, frame_mask), frame_mask


def gaussian_noise(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Adds normal noise whose standard deviation is `amount` of the range."""
    noise = normal_like(features, seed)
    return {
        name: value + amount * FEATURE_RANGE * tf.cast(noise[name], value.dtype)
        for name, value in features.items()
    }, frame_mask


def impulse_noise(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Sets a share `amount` of the entries to -2 or 2, with equal probability."""
    corrupted = {}
    for index, (name, value) in enumerate(features.items()):
        draw = tf.random.stateless_uniform(tf.shape(value), tf.random.fold_in(seed, index))
        extreme = tf.where(draw < amount / 2, LOWEST, HIGHEST)
        corrupted[name] = tf.where(draw < amount, tf.cast(extreme, value.dtype), value)
    return corrupted, frame_mask


def speckle_noise(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Multiplies each entry by 1 plus normal noise of standard deviation `amount`."""
    noise = normal_like(features, seed)
    return {
        name: value * (1.0 + amount * tf.cast(noise[name], value.dtype))
        for name, value in features.items()
    }, frame_mask


def temporal_blur(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Averages over real frames with Gaussian weights, standard deviation `amount` frames."""
    del seed
    times = tf.range(tf.shape(frame_mask)[1], dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square((times[:, tf.newaxis] - times[tf.newaxis, :]) / amount))
    # [B, T]: the sum of the weights on real frames; at a real frame at least its own weight.
    total = tf.einsum("ts,bs->bt", weights, tf.cast(frame_mask, tf.float32))
    total = tf.where(frame_mask, total, 1.0)[..., tf.newaxis]
    return {
        name: tf.cast(
            tf.einsum("ts,bsd->btd", weights, tf.cast(value, tf.float32)) / total, value.dtype
        )
        for name, value in features.items()
    }, frame_mask


def constant_offset(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Adds `amount` of the range to every entry."""
    del seed
    return {name: value + amount * FEATURE_RANGE for name, value in features.items()}, frame_mask


def frame_drop(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Removes a share `amount` of each clip's frames, the same frames in every modality.

    The remaining frames close up in order, so the clip gets shorter. At least one frame stays.
    """
    count = tf.reduce_sum(tf.cast(frame_mask, tf.int32), axis=1)
    kept_count = tf.maximum(count - _share(amount, count), tf.minimum(count, 1))
    kept = _random_frames(kept_count, frame_mask, seed)
    order = tf.argsort(tf.cast(tf.logical_not(kept), tf.int32), axis=1, stable=True)
    shortened = tf.range(tf.shape(frame_mask)[1])[tf.newaxis, :] < kept_count[:, tf.newaxis]
    return _take(features, order), tf.ensure_shape(shortened, frame_mask.shape)


def frame_freeze(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Replaces a share `amount` of each clip's frames by the last frame before that did not freeze.

    The first frame never freezes; the same frames freeze in every modality.
    """
    times = tf.range(tf.shape(frame_mask)[1])[tf.newaxis, :]
    later = tf.logical_and(frame_mask, times > 0)
    count = tf.reduce_sum(tf.cast(frame_mask, tf.int32), axis=1)
    limit = tf.maximum(count - 1, 0)
    frozen = _random_frames(tf.minimum(_share(amount, count), limit), later, seed)
    # The last frame that arrived at or before t is the running maximum of these.
    arrived = tf.where(frozen, 0, times + tf.zeros_like(frozen, tf.int32))
    return _take(features, _running_maximum(arrived)), frame_mask


def temporal_shuffle(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Shuffles the frames within each stretch of `amount` frames.

    All modalities get the same order; an infinite amount shuffles the whole clip.
    """
    length = tf.shape(frame_mask)[1]
    times = tf.range(length, dtype=tf.float32)[tf.newaxis, :]
    draw = tf.random.stateless_uniform(tf.shape(frame_mask), seed)
    # The stretches keep their order, and padding sorts last.
    keys = tf.where(frame_mask, tf.floor(times / amount) + draw, float("inf"))
    return _take(features, tf.argsort(keys, axis=1, stable=True)), frame_mask


def temporal_reversal(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Reverses the frames within each stretch of `amount` frames; infinite: the whole clip."""
    del seed
    times = tf.range(tf.shape(frame_mask)[1], dtype=tf.float32)[tf.newaxis, :]
    # Within a stretch keys fall with time; the stretches keep their order, padding sorts last.
    within = -times / tf.cast(tf.shape(frame_mask)[1], tf.float32)
    keys = tf.where(frame_mask, tf.floor(times / amount) * 2.0 + within, float("inf"))
    return _take(features, tf.argsort(keys, axis=1, stable=True)), frame_mask


def silent_modality(
    amount: float, features: Tensors, frame_mask: tf.Tensor, seed: tf.Tensor
) -> tuple[Tensors, tf.Tensor]:
    """Sets one modality, drawn for each clip, to 0 over a run of a share `amount` of its frames."""
    count = tf.reduce_sum(tf.cast(frame_mask, tf.int32), axis=1)
    extent = _share(amount, count)
    draws = tf.random.stateless_uniform([2, tf.shape(frame_mask)[0]], seed)
    begin = tf.cast(draws[0] * tf.cast(count - extent + 1, tf.float32), tf.int32)
    begin = tf.minimum(begin, count - extent)[:, tf.newaxis]
    times = tf.range(tf.shape(frame_mask)[1])[tf.newaxis, :]
    silent = tf.logical_and(times >= begin, times < begin + extent[:, tf.newaxis])
    chosen = tf.cast(draws[1] * len(features), tf.int32)[:, tf.newaxis]
    return {
        name: tf.where(
            tf.logical_and(silent, chosen == index)[..., tf.newaxis], tf.zeros_like(value), value
        )
        for index, (name, value) in enumerate(features.items())
    }, frame_mask


# Noise and offset are shares of the range, as in the image benchmark. The last four are our own.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "impulse_noise": Corruption(impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": Corruption(speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "temporal_blur": Corruption(temporal_blur, (1.0, 2.0, 3.0, 4.0, 6.0)),
    "constant_offset": Corruption(constant_offset, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "frame_drop": Corruption(frame_drop, (0.1, 0.25, 0.5, 0.75, 0.9)),
    "frame_freeze": Corruption(frame_freeze, (0.1, 0.25, 0.5, 0.75, 0.9)),
    "temporal_shuffle": Corruption(temporal_shuffle, (2.0, 5.0, 15.0, 60.0, float("inf"))),
    "silent_modality": Corruption(silent_modality, (0.2, 0.4, 0.6, 0.8, 1.0)),
}


# Faults of a stream of frames that leave T as it is, for the 8 or 16 frames of a raw clip.
_OF_FRAMES: dict[str, Corruption] = {
    "frame_freeze": Corruption(frame_freeze, (0.1, 0.25, 0.5, 0.75, 0.9)),
    "temporal_shuffle": Corruption(temporal_shuffle, (2.0, 3.0, 4.0, 6.0, float("inf"))),
    "temporal_reversal": Corruption(temporal_reversal, (2.0, 3.0, 4.0, 6.0, float("inf"))),
}


def corruptions_of(pixels: bool) -> tuple[str, ...]:
    """Returns the names of the corruptions of raw clips, or of frame features.

    Examples:
        >>> from yt8m_gat.attacks import corruptions_of
        >>> "snow" in corruptions_of(pixels=True), "snow" in corruptions_of(pixels=False)
        (True, False)
    """
    return (*PIXEL_CORRUPTIONS, *_OF_FRAMES) if pixels else tuple(CORRUPTIONS)


def _share(amount: float, count: tf.Tensor) -> tf.Tensor:
    """Returns `amount` times `count`, rounded."""
    return tf.cast(tf.round(amount * tf.cast(count, tf.float32)), tf.int32)


def _random_frames(count: tf.Tensor, eligible: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws `count` [B] of the `eligible` frames of each clip without repetition: bool [B, T]."""
    draw = tf.random.stateless_uniform(tf.shape(eligible), seed)
    keys = tf.where(eligible, draw, 2.0)
    rank = tf.argsort(tf.argsort(keys, axis=1, stable=True), axis=1, stable=True)
    return tf.logical_and(eligible, rank < count[:, tf.newaxis])


def _take(features: Tensors, frames: tf.Tensor) -> Tensors:
    """Gathers each clip's frames in the order of `frames` [B, T]."""
    return {
        name: tf.ensure_shape(tf.gather(value, frames, axis=1, batch_dims=1), value.shape)
        for name, value in features.items()
    }


def _running_maximum(values: tf.Tensor) -> tf.Tensor:
    """Returns the running maximum of each row of int32 [B, T], in log2 T steps."""
    length = tf.shape(values)[1]

    def double(shift: tf.Tensor, running: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        times = tf.range(length)
        earlier = tf.gather(running, tf.maximum(times - shift, 0), axis=1)
        running = tf.where(times >= shift, tf.maximum(running, earlier), running)
        return shift * 2, tf.ensure_shape(running, values.shape)

    return tf.while_loop(lambda shift, _: shift < length, double, (tf.constant(1), values))[1]
