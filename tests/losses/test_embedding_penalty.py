"""The distance of embeddings: values by hand, its gradient, and its numbers in half precision."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.losses import embedding_distance

CLEAN = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
MOVED = np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 0.0]])


def test_values_by_hand():
    """1 / 25, 4 / 4, and 0 for a clean embedding of zeros."""
    np.testing.assert_allclose(embedding_distance(CLEAN, MOVED), [0.04, 1.0, 0.0])


def test_the_gradient_is_by_the_second_alone():
    """2 (e' - e) / |e|^2; the target gets none."""
    clean, moved = tf.constant(CLEAN), tf.constant(MOVED)
    with tf.GradientTape() as tape:
        tape.watch((clean, moved))
        total = tf.reduce_sum(embedding_distance(clean, moved))
    of_clean, of_moved = tape.gradient(total, (clean, moved))
    assert of_clean is None
    np.testing.assert_allclose(of_moved, [[0, -0.08], [1, 0], [0, 0]])


def test_it_is_free_of_scale():
    np.testing.assert_allclose(
        embedding_distance(7 * CLEAN, 7 * MOVED), embedding_distance(CLEAN, MOVED)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_does_not_overflow(dtype):
    """300^2 is above float16's largest number."""
    clean, moved = (tf.cast([[300.0, value]], dtype) for value in (0.0, 300.0))
    distance = embedding_distance(clean, moved)
    assert distance.dtype == tf.float32
    np.testing.assert_allclose(distance, [1.0])


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3, 4), (2, 3, 4))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"must have one shape \[B, E\]"):
        embedding_distance(*map(np.ones, shapes))
