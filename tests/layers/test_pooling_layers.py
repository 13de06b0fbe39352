"""Batch normalization over real frames, context gating and the VLAD layers, against loops."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import (
    ContextGating,
    DualBatchNormalization,
    NetVLAD,
    NeXtVLAD,
    SoftBagOfFrames,
)

NORM_EPSILON = 1e-3  # Keras' default.


def randomize(layer, rng):
    """Random weights; positive ones too, as variances are, and none that is symmetric."""
    for weight in layer.weights:
        weight.assign(rng.uniform(0.3, 1.7, weight.shape) * rng.choice([-1, 1], weight.shape))
        if "variance" in weight.path:
            weight.assign(np.abs(weight))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def normalized(x, layer):
    """Batch normalization at inference, of the first set of a `DualBatchNormalization`."""
    gamma, beta, mean, variance = (w.numpy() for w in layer.normalization.weights)
    return gamma * (x - mean) / np.sqrt(variance + NORM_EPSILON) + beta


def test_moments_are_those_of_the_real_frames(clips):
    x, frame_mask = clips
    layer = DualBatchNormalization()
    result = layer(x, frame_mask=frame_mask, training=True).numpy()
    real = x[frame_mask].astype("float64")
    expected = (x - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + NORM_EPSILON)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    # The averages start at 0 and 1 and keep 0.9 of that.
    np.testing.assert_allclose(layer.normalization.moving_mean, 0.1 * real.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        layer.normalization.moving_variance, 0.9 + 0.1 * real.var(axis=0), atol=1e-5
    )


def test_the_auxiliary_set_is_apart_and_can_start_as_a_copy(clips):
    x, _ = clips
    layer = DualBatchNormalization(dual_normalization=True)
    layer(x, training=True)
    assert np.any(layer(x) != layer(x, auxiliary_normalization=True))
    layer.copy_normalization_to_auxiliary()
    np.testing.assert_array_equal(layer(x), layer(x, auxiliary_normalization=True))
    before = layer.normalization.get_weights()
    layer(x, training=True, auxiliary_normalization=True)
    for weight, expected in zip(layer.normalization.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    with pytest.raises(ValueError, match="construct the model with dual_normalization=True"):
        DualBatchNormalization()(x, auxiliary_normalization=True)


@pytest.mark.parametrize("reduction", [None, 3])
def test_context_gating_is_that_of_the_formula(reduction):
    rng = np.random.default_rng(0)
    layer = ContextGating(reduction)
    layer.build((None, 6))
    randomize(layer, rng)
    x = rng.normal(size=(4, 6))
    gates = normalized(x @ layer.kernel.numpy(), layer.normalization)
    if reduction:
        assert layer.kernel.shape == (6, 2)
        gates = np.maximum(gates, 0) @ layer.expanding_kernel.numpy()
    np.testing.assert_allclose(layer(x.astype("float32")), sigmoid(gates) * x, atol=1e-5)


@pytest.mark.parametrize("reduction", [0, 7])
def test_a_reduction_that_cannot_work(reduction):
    with pytest.raises(ValueError, match=f"`reduction` must be .*Received: reduction={reduction}"):
        ContextGating(reduction).build((None, 6))


def slow_next_vlad(layer, frames):
    """One clip's [n, D] real frames, by the equations of the paper: loops over t, g and k."""
    expanded = frames @ layer.expansion_kernel.numpy() + layer.expansion_bias.numpy()
    size = expanded.shape[1] // layer.groups
    centres = layer.centres.numpy()
    vlad = np.zeros((layer.num_clusters, size))
    for x in expanded:
        attention = sigmoid(x @ layer.attention_kernel.numpy() + layer.attention_bias.numpy())
        scores = normalized(x @ layer.cluster_kernel.numpy(), layer.cluster_normalization)
        for g in range(layer.groups):
            part = x[g * size : (g + 1) * size]
            assignment = softmax(scores[g * layer.num_clusters : (g + 1) * layer.num_clusters])
            for k in range(layer.num_clusters):
                vlad[k] += attention[g] * assignment[k] * (part - centres[k])
    for k in range(layer.num_clusters):
        vlad[k] /= max(np.linalg.norm(vlad[k]), 1e-6)
    return normalized(vlad.ravel(), layer.normalization)


def test_next_vlad_is_that_of_the_equations_and_ignores_padding(clips):
    x, frame_mask = clips
    layer = NeXtVLAD(num_clusters=3, expansion=2, groups=4)
    layer.build((None, None, 8))
    randomize(layer, np.random.default_rng(0))
    expected = [slow_next_vlad(layer, x[i, mask]) for i, mask in enumerate(frame_mask)]
    np.testing.assert_allclose(layer(x, frame_mask=frame_mask), expected, atol=1e-4)
    assert layer.compute_output_shape((4, None, 8)) == (4, 12)
    # Without a mask all frames are real.
    np.testing.assert_allclose(layer(x)[1], slow_next_vlad(layer, x[1]), atol=1e-4)


def slow_shares(layer, x):
    return softmax(normalized(x @ layer.cluster_kernel.numpy(), layer.cluster_normalization))


def slow_net_vlad(layer, frames):
    """One clip's [n, D] real frames, by eq. 4 of NetVLAD: loops over t and k."""
    centres = layer.centres.numpy()
    vlad = np.zeros(centres.shape)
    for x in frames:
        shares = slow_shares(layer, x)
        for k in range(layer.num_clusters):
            vlad[k] += shares[k] * (x - centres[k])
    for k in range(layer.num_clusters):
        vlad[k] /= max(np.linalg.norm(vlad[k]), 1e-6)
    return vlad.ravel() / max(np.linalg.norm(vlad), 1e-6)


def slow_bag(layer, frames):
    bag = sum((slow_shares(layer, x) for x in frames), np.zeros(layer.num_clusters))
    return bag / max(np.linalg.norm(bag), 1e-6)


@pytest.mark.parametrize(
    ("kind", "oracle", "size"), [(NetVLAD, slow_net_vlad, 24), (SoftBagOfFrames, slow_bag, 3)]
)
def test_poolings_are_those_of_the_equations_and_ignore_padding(kind, oracle, size, clips):
    x, frame_mask = clips
    layer = kind(num_clusters=3)
    layer.build((None, None, 8))
    randomize(layer, np.random.default_rng(0))
    expected = [oracle(layer, x[i, mask]) for i, mask in enumerate(frame_mask)]
    result = layer(x, frame_mask=frame_mask).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.all(result[3] == 0)
    assert layer.compute_output_shape((4, None, 8)) == (4, size)
    np.testing.assert_allclose(layer(x)[1], oracle(layer, x[1]), atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_clusters": 0}, "`num_clusters` must be positive. Received: num_clusters=0"),
        ({"num_clusters": 2, "expansion": 0}, "`expansion` must be positive"),
        ({"num_clusters": 2, "groups": 0}, "`groups` must be positive"),
        ({"num_clusters": 2, "groups": 3}, r"`groups` must divide .*groups=3, expansion=2"),
    ],
)
def test_sizes_that_cannot_work(sizes, message):
    with pytest.raises(ValueError, match=message):
        NeXtVLAD(**sizes).build((None, None, 8))


def test_gradients_of_gradients_are_finite_at_a_clip_without_frames(clips):
    """The norm of an empty cluster is 0; both derivatives of its quotient must stay finite."""
    x, frame_mask = clips
    layer = NeXtVLAD(num_clusters=3, groups=4)
    x = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            total = tf.reduce_sum(layer(x, frame_mask=frame_mask)[:, :5])
        slope = inner.gradient(total, x)
        steepness = tf.reduce_sum(slope**2)
    curvature = outer.gradient(steepness, x)
    for gradient in (slope, curvature):
        assert np.isfinite(gradient).all()
        assert np.all(gradient.numpy()[~frame_mask] == 0)
        assert np.any(gradient.numpy()[0] != 0)
