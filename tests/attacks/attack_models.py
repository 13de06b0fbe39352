"""What the tests of the attacks share: small models as callables, a loss, a batch type."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

NUM_CLASSES = 12
SIZES = {"rgb": 6, "audio": 3}


class Batch(NamedTuple):
    features: dict[str, tf.Tensor]
    frame_mask: tf.Tensor
    labels: tf.Tensor


class FrameOutputs(NamedTuple):
    logits: tf.Tensor
    frames: tf.Tensor


class MapOutputs(NamedTuple):
    logits: tf.Tensor
    attention_maps: tf.Tensor


def mean_over_frames(values, frame_mask):
    weights = tf.cast(frame_mask, values.dtype)[..., tf.newaxis]
    return tf.reduce_sum(values * weights, 1) / tf.maximum(tf.reduce_sum(weights, 1), 1.0)


class LinearModel:
    """Affine in the mean over real frames."""

    def __init__(self, rng, num_classes=NUM_CLASSES):
        self.kernels = {
            name: tf.constant(rng.normal(size=(size, num_classes)), tf.float32)
            for name, size in SIZES.items()
        }
        self.bias = tf.constant(rng.normal(size=num_classes), tf.float32)

    def __call__(self, features, frame_mask):
        return self.bias + tf.add_n(
            [mean_over_frames(features[name], frame_mask) @ self.kernels[name] for name in features]
        )


class AttentiveModel:
    """One softmax attention over tanh features, averaged over real frames, and a linear head."""

    def __init__(self, rng):
        self.inputs = {
            name: tf.constant(rng.normal(size=(size, 8)) * 0.7, tf.float32)
            for name, size in SIZES.items()
        }
        self.head = tf.constant(rng.normal(size=(8, NUM_CLASSES)), tf.float32)

    def forward(self, features, frame_mask):
        hidden = tf.tanh(tf.add_n([features[name] @ self.inputs[name] for name in features]))
        scores = tf.matmul(hidden, hidden, transpose_b=True)
        maps = tf.nn.softmax(tf.where(frame_mask[:, tf.newaxis, :], scores, -1e9), axis=-1)
        frames = maps @ hidden
        return FrameOutputs(mean_over_frames(frames, frame_mask) @ self.head, frames)

    def __call__(self, features, frame_mask):
        return self.forward(features, frame_mask)[0]


class CountedCalls:
    def __init__(self, function):
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)


def cross_entropy(labels, logits):
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits), axis=-1
    )


def difference(result_features, batch):
    """Perturbation of a result as NumPy arrays."""
    return {
        name: value.numpy() - batch.features[name].numpy()
        for name, value in result_features.items()
    }


def assert_padding_is_zero(features, frame_mask):
    for value in features.values():
        np.testing.assert_array_equal(value.numpy()[~frame_mask.numpy()], 0.0)
