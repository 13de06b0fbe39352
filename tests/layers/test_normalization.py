"""The layer normalization with a hand-written gradient against that of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import LayerNormalization

MODES = {
    "eager": lambda f: f,
    "graph": lambda f: tf.function(f, autograph=False),
    "XLA": lambda f: tf.function(f, autograph=False, jit_compile=True),
}


def pair(dtype, shape, **kwargs):
    """Ours and that of Keras with the same weights, and an input."""
    rng = np.random.default_rng(0)
    ours = LayerNormalization(dtype=dtype, **kwargs)
    theirs = keras.layers.LayerNormalization(dtype=dtype, epsilon=ours.epsilon, **kwargs)
    for layer in (ours, theirs):
        layer.build(shape)
    theirs.set_weights([rng.normal(1, 0.5, weight.shape) for weight in theirs.weights])
    ours.set_weights(theirs.get_weights())
    return ours, theirs, tf.constant(rng.normal(3, 2, shape), ours.compute_dtype)


def gradients_of_gradients(layer, x, weights):
    """Output, its gradients, and those of a function of the gradients, as TAF takes them."""
    variables = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y) * weights)
        first = inner.gradient(loss, [x, *variables])
        second_loss = tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in first])
    return [y, *first, *outer.gradient(second_loss, [x, *variables])]


@pytest.mark.parametrize("shape", [(4, 7, 6), (3, 5), (2, 3, 4, 8), (1, 1, 3)])
@pytest.mark.parametrize("mode", MODES)
def test_values_and_both_orders_of_gradients_are_those_of_keras(mode, shape):
    ours, theirs, x = pair("float64", shape)
    weights = tf.constant(np.random.default_rng(1).normal(size=shape))
    found, expected = (
        MODES[mode](lambda x, layer=layer: gradients_of_gradients(layer, x, weights))(x)
        for layer in (ours, theirs)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_the_length_may_be_unknown():
    ours, theirs, x = pair("float32", (4, 7, 6))
    weights = tf.ones(())
    traced = tf.function(
        lambda x: gradients_of_gradients(ours, x, weights),
        input_signature=[tf.TensorSpec([None, None, 6])],
    )
    for a, b in zip(traced(x), gradients_of_gradients(theirs, x, weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(dtype):
    ours, theirs, x = pair(dtype, (4, 7, 64))
    y = ours(x * 1000)
    assert y.dtype == ours.compute_dtype
    np.testing.assert_allclose(
        tf.cast(y, "float32"), tf.cast(theirs(x * 1000), "float32"), rtol=1e-2, atol=1e-2
    )


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize(
    "options",
    [
        {"axis": 1},
        {"axis": (1, 2)},
        {"axis": 2},
        {"center": False},
        {"scale": False},
        {"rms_scaling": True},
    ],
    ids=str,
)
def test_it_takes_the_options_of_keras(options):
    # As many frames as features: a wrong axis does not show in the shapes.
    ours, theirs, x = pair("float64", (2, 4, 4), **options)
    weights = tf.constant(np.random.default_rng(1).normal(size=x.shape))
    found, expected = (gradients_of_gradients(layer, x, weights) for layer in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_a_constant_row_has_finite_gradients():
    ours, _, _ = pair("float32", (2, 3, 8))
    x = tf.ones((2, 3, 8))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ours(x)
    np.testing.assert_allclose(y, np.broadcast_to(ours.beta, y.shape), atol=1e-6)
    assert np.isfinite(tape.gradient(y, x)).all()


def test_it_comes_back_from_its_config():
    layer = LayerNormalization(epsilon=1e-3)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, LayerNormalization) and again.epsilon == 1e-3
