"""The sum with a gradient of its own is TensorFlow's sum, both orders of gradients included."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.reduction import sum_over


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("compilation", [None, {}, {"jit_compile": True}])
def test_values_and_both_orders_of_gradients_are_tensorflows(axis, compilation):
    x = tf.random.stateless_normal((2, 3, 4), [1, 2])

    def orders(sum_along):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = sum_along(x**3, axis)
                value = tf.reduce_sum(total**2)
            gradient = inner.gradient(value, x)
        return total, gradient, outer.gradient(gradient, x)

    run = orders if compilation is None else tf.function(orders, autograph=False, **compilation)
    expected = orders(lambda x, axis: tf.reduce_sum(x, axis=axis))
    for found, wanted in zip(run(sum_over), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_sizes_may_be_unknown():
    function = tf.function(
        lambda x: sum_over(x, -1), input_signature=[tf.TensorSpec([None, None])], autograph=False
    )
    np.testing.assert_allclose(function(tf.ones((2, 3))), [3, 3])
