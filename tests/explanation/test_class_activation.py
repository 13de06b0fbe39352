"""Class activation of chosen classes, and the seconds that carry them."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.explanation import class_activation as module
from yt8m_gat.explanation.class_activation import (
    Span,
    carrying_spans,
    class_activation,
    frame_edges,
)
from yt8m_gat.models import ModelOutputs, build_model

SIZES = {"rgb": 6, "audio": 4}


def test_examples_run():
    assert doctest.testmod(module).failed == 0


def test_it_is_the_gradient_of_each_logit_times_the_frames_before_pooling():
    """The model pools u_i = x_i^2 to z = W^T mean(u); so C_ki = sum_d W_dk u_id / n."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 5)).astype("float32")
    clip = rng.normal(size=(1, 4, 3)).astype("float32")
    mask = np.array([[True, True, True, False]])

    def forward(features, frame_mask):
        frames = tf.square(features["x"])
        shares = tf.cast(frame_mask, tf.float32)[..., tf.newaxis] / 3.0
        return ModelOutputs(tf.reduce_sum(frames * shares, axis=1) @ weights, frames, {})

    found = class_activation(
        forward, {"x": tf.constant(clip)}, tf.constant(mask), lambda _: tf.constant([[4, 1]])
    )
    expected = (clip[0] ** 2 @ weights[:, [4, 1]] / 3).T
    expected[:, 3] = 0.0  # Padding.
    np.testing.assert_allclose(found.activation[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["GAT", "FrameLevelLogisticModel"])
def test_every_model_has_one_and_padding_is_exactly_0(name):
    keras.utils.set_random_seed(1)
    options = (
        {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8, "local_masks": ("bd2",)}
        if name == "GAT"
        else {}
    )
    model = build_model(name, SIZES, num_classes=5, **options)
    mask = tf.constant([[True] * 4 + [False] * 2])
    features = {
        key: tf.where(mask[..., tf.newaxis], tf.random.normal((1, 6, size), seed=3), 0.0)
        for key, size in SIZES.items()
    }
    found = class_activation(
        model.forward, features, mask, lambda logits: tf.math.top_k(logits, 2).indices
    )
    activation = found.activation.numpy()
    assert activation.shape == (1, 2, 6)
    assert (activation[..., 4:] == 0).all() and (activation[..., :4] != 0).all()


def test_a_model_whose_logits_do_not_depend_on_its_frames_has_none():
    def forward(features, frame_mask):
        return ModelOutputs(tf.reduce_sum(features["x"], 1), tf.ones_like(features["x"]), {})

    clip = {"x": tf.ones((1, 2, 3))}
    found = class_activation(
        forward, clip, tf.constant([[True, True]]), lambda _: tf.constant([[0]])
    )
    assert found.activation is None


def test_frames_last_until_the_next_one_and_the_last_until_the_end_at_most():
    assert frame_edges([0.0, 0.5, 1.0], 9.0).tolist() == [0, 0.5, 1, 1.5]
    assert frame_edges([0.0, 0.5, 1.0], 1.2).tolist() == [0, 0.5, 1, 1.2]
    assert frame_edges([3.0], 3.4).tolist() == [3, 3.4]
    # A duration that is not known, or wrong, does not turn the last frame around.
    assert frame_edges([0.0, 1.0], 0.0).tolist() == [0, 1, 2]


def test_no_positive_activation_carries_nothing():
    assert carrying_spans([-1.0, 0.0], [0, 1, 2]) == []
    assert carrying_spans([], [0]) == []
    assert carrying_spans([0.1, 0.1], [0.0, 1.0, 1.5]) == [Span(0.0, 1.5)]
