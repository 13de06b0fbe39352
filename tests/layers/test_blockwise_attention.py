"""Attention in blocks of queries, and the recomputing gradient that it has."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import AttentionLevel, attend, attend_dense
from yt8m_gat.layers.recomputation import BlockFunction

GLOBAL = AttentionLevel.parse("global")
# Two blocks, of which the second is one frame short.
NUM_FRAMES = 301


def random_heads(num_frames=NUM_FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    return [tf.constant(rng.normal(size=(3, 2, num_frames, 4)) * 1.5, tf.float32) for _ in range(3)]


def padding_mask(num_frames=NUM_FRAMES):
    """All frames of the first clip are real, half of the second's, and none of the third's."""
    return np.arange(num_frames) < np.array([num_frames, num_frames // 2, 0])[:, None]


def blockwise(query, key, value, frame_mask):
    return attend(query, key, value, GLOBAL, frame_mask, blockwise=True)[0]


def dense(query, key, value, frame_mask):
    return attend_dense(query, key, value, GLOBAL, frame_mask)[0]


def with_gradients(function, query, key, value, frame_mask):
    """Returns the output, its gradients, and the gradients of their squared norm."""
    inputs = query, key, value
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            output = function(*inputs, frame_mask)
            loss = tf.reduce_sum(tf.sin(output + tf.range(4.0)))
        first = inner.gradient(loss, inputs)
        norm = tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in first])
    return output, *first, *outer.gradient(norm, inputs)


def assert_all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(other))))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("masked", [True, False])
def test_output_and_two_gradients_are_those_of_the_dense_reference(masked):
    arguments = *random_heads(), padding_mask() if masked else None
    found = with_gradients(blockwise, *arguments)
    assert_all_close(found, with_gradients(dense, *arguments))
    assert not masked or all((gradient[2].numpy() == 0).all() for gradient in found[1:])


@pytest.mark.parametrize(
    "compiled",
    [
        {
            "input_signature": [tf.TensorSpec((None, 2, None, 4))] * 3
            + [tf.TensorSpec((None, None), tf.bool)]
        },
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=["unknown sizes", "xla"],
)
def test_graphs_give_the_same(compiled):
    function = functools.partial(with_gradients, blockwise)
    graph = tf.function(function, autograph=False, **compiled)
    for num_frames in (2, 256, 601):
        arguments = *random_heads(num_frames), padding_mask(num_frames)
        assert_all_close(graph(*arguments), with_gradients(dense, *arguments))


def test_the_uniform_map_is_the_mean_of_the_real_frames():
    value, frame_mask = random_heads()[2], padding_mask()
    output, _ = attend(None, None, value, GLOBAL, frame_mask, blockwise=True)
    for clip, length in enumerate(frame_mask.sum(axis=1)):
        sums = value[clip].numpy()[:, :length].sum(axis=1, keepdims=True)
        expected = np.where(frame_mask[clip][:, None], sums / max(length, 1), 0)
        np.testing.assert_allclose(output[clip], expected, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_its_softmax_and_its_sums_in_float32(dtype):
    query, key, _ = random_heads()
    arguments = [tf.cast(x * 0.01, dtype) for x in (query, key)]
    # Equal values add up to 512 times their type's precision in the sum over the queries.
    value = tf.ones_like(arguments[0])
    with tf.GradientTape() as tape:
        tape.watch(value)
        output, _ = attend(*arguments, value, GLOBAL, blockwise=True)
    gradient = tape.gradient(output, value)
    assert output.dtype == gradient.dtype == dtype
    precision = 2.0**-10 if dtype == "float16" else 2.0**-7
    np.testing.assert_allclose(tf.cast(output, "float32"), 1, atol=2 * precision)
    np.testing.assert_allclose(tf.reduce_mean(tf.cast(gradient, "float32")), 1, atol=2 * precision)


def test_what_needs_the_map_gets_it():
    query, key, value = random_heads(9)
    _, rows = attend(query, key, value, GLOBAL, return_map=True, blockwise=True)
    np.testing.assert_allclose(tf.reduce_sum(rows, -1), np.ones((3, 2, 9)), rtol=1e-6)
    output, _ = attend(
        query, key, value, GLOBAL, dropout=lambda weights: 0 * weights, blockwise=True
    )
    np.testing.assert_array_equal(output, np.zeros_like(output))


def largest_tensor(function, num_frames):
    """Counts the elements of the largest tensor in the graph of a gradient of a gradient."""
    head = tf.TensorSpec((1, 1, num_frames, 4))
    traced = tf.function(functools.partial(with_gradients, function), autograph=False)
    graph = traced.get_concrete_function(
        head, head, head, tf.TensorSpec((1, num_frames), tf.bool)
    ).graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    shapes = [
        tf.TensorShape(shape) for node in nodes for shape in node.attr["_output_shapes"].list.shape
    ]
    assert any(shape.rank == 4 and shape[-1] == num_frames for shape in shapes)
    return max(shape.num_elements() or 0 for shape in shapes if shape.rank is not None)


def test_no_tensor_grows_with_the_square_of_the_frames():
    assert largest_tensor(blockwise, 4800) <= 256 * 4800
    assert largest_tensor(blockwise, 9600) <= 256 * 9600
    assert largest_tensor(dense, 600) == 600**2  # So the lines above can fail.


def test_a_block_function_against_differences():
    """Result and sum of a function of both kinds of arguments, first and second order."""
    rng = np.random.default_rng(0)
    blocked, shared = rng.normal(size=(1, 1, 5, 2)), rng.normal(size=(2, 2))

    def function(blocked, shared):
        product = tf.tanh(tf.matmul(blocked, shared))
        return product, tf.reduce_sum(tf.square(product), axis=(0, 1, 2))

    @tf.function(autograph=False)
    def run(blocked, shared):
        like = tf.zeros((1, 1, 5, 2), tf.float64), shared[0]
        results, sums = BlockFunction(function, 3)(blocked, shared, like)
        return tf.reduce_sum(tf.sin(results)) + tf.reduce_sum(tf.sin(sums))

    @tf.function(autograph=False)
    def slope(blocked, shared):
        with tf.GradientTape() as tape:
            tape.watch((blocked, shared))
            value = run(blocked, shared)
        return tf.concat(
            [tf.reshape(x, [-1]) for x in tape.gradient(value, (blocked, shared))], axis=0
        )

    whole = tf.tanh(blocked @ shared).numpy()
    expected = np.sin(whole).sum() + np.sin((whole**2).sum(axis=(0, 1, 2))).sum()
    arguments = [tf.constant(blocked), tf.constant(shared)]
    np.testing.assert_allclose(run(*arguments), expected, rtol=1e-12)
    for differentiated in (run, slope):
        exact, numeric = tf.test.compute_gradient(differentiated, arguments, delta=1e-5)
        for one, other in zip(exact, numeric, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-8)
