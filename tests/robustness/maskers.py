"""A zoo of tiny classifiers of clips: honest ones, and ones that hide their gradients."""

import numpy as np
import tensorflow as tf

CLIPS, FRAMES, SIZE, CLASSES = 24, 4, 24, 60
# The two highest logits of clean clips are further apart.
UNSURE = 1.1
MASK = tf.sequence_mask([4, 3, 2] * (CLIPS // 3), FRAMES)


def directions(seed, size=0.0):
    """A unit vector per class, [C, D]; with a `size`, moved from the common ones by that much."""
    common = np.random.default_rng(0).normal(size=(CLASSES, SIZE))
    moved = common + size * np.random.default_rng(seed).normal(size=(CLASSES, SIZE))
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype("float32")


def clips():
    """Clips whose frames lie around twice the direction of their class, and the labels.

    Every other clip has a second label that its frames do not show, as real clips do.
    """
    rng = np.random.default_rng(1)
    classes = rng.permutation(CLASSES)[:CLIPS]
    noise = 0.5 * rng.normal(size=(CLIPS, FRAMES, SIZE))
    values = (2.0 * directions(0)[classes][:, None] + noise) * MASK.numpy()[..., None]
    labels = np.eye(CLASSES, dtype="float32")[classes]
    labels[np.arange(0, CLIPS, 2), (classes[::2] + 7) % CLASSES] = 1.0
    return {"rgb": tf.constant(values, tf.float32)}, tf.constant(labels)


class Plain:
    """How far the mean of the real frames, a little bent, lies along each class's direction.

    Twins (other seeds) have nearly the same directions, as two trainings of one model would. It
    computes in the type of its inputs.
    """

    def __init__(self, seed=2):
        self.kernel = directions(seed, size=0.1).T

    def __call__(self, features, frame_mask):
        values = self.seen(features["rgb"])
        weights = tf.cast(frame_mask, values.dtype)[..., None]
        mean = tf.reduce_sum(values * weights, 1) / tf.reduce_sum(weights, 1)
        kernel = tf.cast(self.kernel, values.dtype)
        return self.answer(4.0 * (mean + 0.3 * tf.sin(mean)) @ kernel - 6.0)

    def seen(self, values):
        """The frames as the model sees them."""
        return values

    def answer(self, logits):
        """The logits that it gives."""
        return logits


class Kinked(Plain):
    """Honest: a loss with kinks."""

    def seen(self, values):
        return values + 0.5 * tf.nn.relu(values)


class Bounded(Plain):
    """Honest: a gentle tanh on the logits."""

    def answer(self, logits):
        return 12.0 * tf.tanh(logits / 12.0)


class Sharp(Plain):
    """Honest: a little more confident than the plain model."""

    def answer(self, logits):
        return 1.5 * logits


class Scaled(Plain):
    """The plain model's logits times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def answer(self, logits):
        return self.factor * logits


@tf.custom_gradient
def bent(values):
    def backward(gradient):
        fixed = np.random.default_rng(5).normal(size=SIZE) / np.sqrt(SIZE)
        length = tf.norm(gradient, axis=-1, keepdims=True)
        return gradient + 4.0 * length * tf.cast(fixed, values.dtype)

    return tf.identity(values), backward


class Bent(Plain):
    """An exact forward pass; backward, four times the gradient's length in a fixed direction."""

    def seen(self, values):
        return bent(values)


@tf.custom_gradient
def turned_where_unsure(logits):
    """Logits whose gradient is turned round where the two highest are close to each other."""

    def backward(gradient):
        highest = tf.math.top_k(logits, 2).values
        is_sure = highest[:, :1] - highest[:, 1:] > UNSURE
        return tf.where(is_sure, gradient, -gradient)

    return tf.identity(logits), backward


class TurnedWhereUnsure(Plain):
    """Its gradient is right where it is sure, as on clean clips, and wrong where PGD gets to."""

    def answer(self, logits):
        return turned_where_unsure(logits)


class PartlyBlind(Plain):
    """Half of the channels have no gradient; along the rest, the gradient is exact."""

    def seen(self, values):
        half = SIZE // 2
        return tf.concat([values[..., :half], tf.stop_gradient(values[..., half:])], axis=-1)


def rounded(values):
    """Quarters, with a gradient that is 0; TensorFlow's rounding has none at all."""
    return tf.round(4.0 * values) / 4.0 + 0.0 * values


class QuantizedInputs(Plain):
    """Inputs rounded to quarters: no gradient at all."""

    def seen(self, values):
        return rounded(values)


@tf.custom_gradient
def straight_through(values):
    return tf.round(values), lambda gradient: gradient


class StraightThrough(Plain):
    """Inputs rounded to integers, backward as if they were not."""

    def seen(self, values):
        return straight_through(values)


class Saturated(Plain):
    """A steep tanh on the logits: the same signs, nearly flat."""

    def answer(self, logits):
        return 6.0 * tf.tanh(10.0 * logits)


class Staircase(Plain):
    """Logits rounded to quarters: the same answers, no gradient."""

    def answer(self, logits):
        return rounded(logits)


class Noisy(Plain):
    """Noise on its inputs, drawn at each pass."""

    def seen(self, values):
        return values + 0.2 * tf.random.normal(tf.shape(values), dtype=values.dtype)


@tf.custom_gradient
def clipped(values):
    return tf.identity(values), lambda gradient: tf.clip_by_value(gradient, -1e-4, 1e-4)


class ClippedGradients(Plain):
    """Each entry of its gradient is at most 1e-4."""

    def seen(self, values):
        return clipped(values)


class Shattered(Plain):
    """A ripple on its inputs: small, and with a slope that says nothing of the way ahead."""

    def seen(self, values):
        return values + 0.02 * tf.sin(1000.0 * values)


class Distracting(Plain):
    """Logits that hardly depend on the frames, but for jumps where the decision changes.

    Between the jumps they slope, truly, with the size of the frames: what follows the loss walks
    there.
    """

    def __call__(self, features, frame_mask):
        top = tf.argmax(super().__call__(features, frame_mask), axis=1)
        size = tf.reduce_sum(features["rgb"] ** 2, axis=[1, 2])[:, None]
        return 6.0 * tf.one_hot(top, CLASSES, dtype=size.dtype) - 3.0 - 0.05 * size
