"""Augmentation of batches of raw clips in training: clips mixed with each other, and RandAugment.

All mixing is one formula. A clip keeps what is outside of a box of its frames, rows and columns,
and is mixed inside with another clip of the batch:

    x = w x + (1 - w) x'   inside,    y = (1 - v (1 - w)) y + v (1 - w) y',

with the box's share v of the clip's pixels.

| name | box | w |
|---|---|---|
| `mixup` | the whole clip | Beta(0.2, 0.2) |
| `cutmix` | a rectangle in all frames, v uniform | 0 |
| `framemixup` | whole frames, in a row, v uniform | uniform |
| `cubemixup` | a cube of frames, rows and columns, v uniform | uniform |

A box lies anywhere inside of the clip, and its sides are rounded to whole frames and pixels. Each
clip of a batch has its own box and weight. The last two are a reading of FrameCutMixUp and
CubeCutMixUp: MixUp within a stretch, or a cube, of the other clip.

Every choice is a function of the seed and of the ids in the batch.

Reference: MixUp (Zhang et al., 2018), CutMix (Yun et al., 2019), "Learning Temporally Invariant and
Localizable Features via Data Augmentation for Video Recognition" (Kim et al., 2020), RandAugment
(Cubuk et al., 2020).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

MIXUP_ALPHA = 0.2
"""Both parameters of MixUp's Beta distribution: the paper's for ImageNet, and Keras' default."""

# Exponents of v that give a box's share of the frames, and of rows and columns.
_SIDES = {
    "mixup": (0.0, 0.0),
    "cutmix": (0.0, 0.5),
    "framemixup": (1.0, 0.0),
    "cubemixup": (1 / 3, 1 / 3),
}
NUM_OPERATIONS = 2
"""RandAugment's N, the operations on each clip."""


def mix(
    name: str, clips: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each clip of a batch with another one.

    Args:
        name: `mixup`, `cutmix`, `framemixup` or `cubemixup`.
        clips: uint8 [B, T, H, W, C].
        labels: float32 [B, classes].
        seed: int32 or int64 [2].

    Returns:
        Clips and labels of the same shapes and types.
    """
    seeds = tf.unstack(tf.random.split(seed, 5, alg="philox"))
    num_clips = tf.shape(clips)[0]
    uniform = functools.partial(tf.random.stateless_uniform, alg="philox")
    partners = tf.random.experimental.stateless_shuffle(tf.range(num_clips), seeds[0], "philox")
    if name == "mixup":
        gammas = [
            tf.random.stateless_gamma([num_clips], of_gamma, MIXUP_ALPHA) for of_gamma in seeds[1:3]
        ]
        weights = tf.math.divide_no_nan(gammas[0], gammas[0] + gammas[1])
    elif name == "cutmix":
        weights = tf.zeros([num_clips])
    else:
        weights = uniform([num_clips], seeds[1])
    volumes = uniform([num_clips], seeds[3])
    of_frames, of_pixels = (volumes**exponent for exponent in _SIDES[name])
    shares = tf.stack([of_frames, of_pixels, of_pixels], axis=1)  # [B, 3]
    sides = tf.cast(tf.shape(clips)[1:4], tf.float32)
    lengths = tf.round(shares * sides)
    starts = tf.floor(uniform([num_clips, 3], seeds[4]) * (sides - lengths + 1))

    def mix_one(parts: tuple[tf.Tensor, ...]) -> tf.Tensor:
        own, partner, weight, start, length = parts
        inside = tf.ones([1, 1, 1, 1])
        for axis in range(3):
            places = tf.range(sides[axis])
            within = (places >= start[axis]) & (places < start[axis] + length[axis])
            shape = [1, 1, 1, 1]
            shape[axis] = -1
            inside = inside * tf.reshape(tf.cast(within, tf.float32), shape)
        others = (1 - weight) * inside
        own, other = tf.cast(own, tf.float32), tf.cast(clips[partner], tf.float32)
        return tf.saturate_cast(tf.round(own + others * (other - own)), tf.uint8)

    mixed = tf.map_fn(
        mix_one,
        (clips, partners, weights, starts, lengths),
        fn_output_signature=tf.TensorSpec(clips.shape[1:], tf.uint8),
    )
    others = (1 - weights) * tf.reduce_prod(lengths / sides, axis=1)  # [B]
    others = others[:, tf.newaxis]
    return mixed, (1 - others) * labels + others * tf.gather(labels, partners)


def rand_augment(clips: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Applies two random operations to each clip, the same to all of its frames.

    The operations are Keras' layers, with the ranges of the paper.

    Args:
        clips: uint8 [B, T, H, W, 3].
        seed: int32 or int64 [2].

    Returns:
        uint8 [B, T, H, W, 3].
    """
    num_clips = tf.shape(clips)[0]
    with tf.init_scope():  # The layers have variables, which are not used.
        operations = _operations()

    # A function of its own is traced once for all operations on a clip.
    @functools.partial(tf.function, autograph=False)
    def operate(frames: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        chosen = tf.random.stateless_uniform([], seed, 0, len(operations), tf.int32, "philox")
        branches = [functools.partial(operation, frames, seed) for operation in operations]
        return tf.ensure_shape(tf.switch_case(chosen, branches), clips.shape[1:])

    def augment_one(parts: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        number, clip = parts
        of_clip = tf.random.experimental.stateless_fold_in(seed, number, alg="philox")
        frames = tf.cast(clip, tf.float32)
        for of_operation in tf.unstack(tf.random.split(of_clip, NUM_OPERATIONS, alg="philox")):
            frames = operate(frames, of_operation)
        return tf.saturate_cast(tf.round(frames), tf.uint8)

    return tf.map_fn(
        augment_one,
        (tf.range(num_clips), clips),
        fn_output_signature=tf.TensorSpec(clips.shape[1:], tf.uint8),
    )


@functools.cache
def _operations() -> list[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """Makes the operations: functions of frames [T, H, W, 3] and a seed."""
    import keras

    class Draws(keras.random.SeedGenerator):
        """Seeds that follow from a tensor, in place of a variable that remembers a count."""

        def __init__(self, seed: tf.Tensor) -> None:
            self._seeds = iter(tf.unstack(tf.random.split(seed, 8, alg="philox")))

        def next(self, ordered: bool = True) -> tf.Tensor:
            return next(self._seeds)

    # Without a seed a layer would draw one, and the model's weights would be others.
    levels = {"value_range": (0, 255), "seed": 0}
    still = {"fill_mode": "constant", "seed": 0}
    layers = [
        keras.layers.RandomShear(0.3, 0.0, **still),
        keras.layers.RandomShear(0.0, 0.3, **still),
        keras.layers.RandomTranslation(0.0, 0.3, **still),
        keras.layers.RandomTranslation(0.3, 0.0, **still),
        keras.layers.RandomRotation(30 / 360, **still),
        keras.layers.RandomBrightness(0.5, **levels),
        keras.layers.RandomContrast(0.5, **levels),
        keras.layers.RandomColorDegeneration(0.9, **levels),
        keras.layers.RandomSharpness(0.9, **levels),
        keras.layers.RandomPosterization(4, **levels),
        keras.layers.Solarization(threshold_factor=1.0, **levels),
        keras.layers.AutoContrast(value_range=(0, 255)),
        keras.layers.Equalization(value_range=(0, 255)),
    ]

    def operation(layer: keras.layers.Layer) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        def apply(frames: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            # Drawn for one frame, and so the same for all.
            drawn = layer.get_random_transformation(frames[:1], training=True, seed=Draws(seed))
            return tf.cast(layer.transform_images(frames, drawn, training=True), tf.float32)

        return apply

    return [operation(layer) for layer in layers]


def augment(
    names: tuple[str, ...], clips: tf.Tensor, labels: tf.Tensor, ids: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments a batch: first each clip by RandAugment, then clips with each other.

    Args:
        names: See `ClipConfig.augmentation`.
        clips: uint8 [B, T, H, W, 3].
        labels: float32 [B, classes].
        ids: string [B]; with the seed they determine every choice.
        seed: int32 [2].

    Returns:
        Clips and labels of the same shapes and types.
    """
    together = tf.strings.reduce_join(ids, separator="\n")
    fingerprint = tf.bitcast(tf.fingerprint(together[tf.newaxis]), tf.int64)[0]
    seeds = tf.random.split(
        tf.random.experimental.stateless_fold_in(seed, fingerprint, alg="philox"), 2, alg="philox"
    )
    if "randaugment" in names:
        clips = rand_augment(clips, seeds[0])
    for name in names:
        if name in _SIDES:
            clips, labels = mix(name, clips, labels, seeds[1])
    return clips, labels
