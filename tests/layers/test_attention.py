import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from yt8m_gat.layers import AttentionLevel, attend, attend_dense, expand_attention_map

FORMS = ["global", "bd3", "bd50", "tp2", "tp17", "tp50", "td4x2", "td7x3", "td60x3"]


def random_heads(num_frames, clips=3, heads=2, size=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        tf.constant(rng.normal(size=(clips, heads, num_frames, size)) * 1.5, tf.float32)
        for _ in range(3)
    ]


def padding_mask(num_frames):
    lengths = np.array([num_frames, (num_frames + 1) // 2, 0])
    return np.arange(num_frames) < lengths[:, None]


# Toeplitz levels are cut into chunks if a copy is long enough for two.
@pytest.mark.parametrize(
    ("form", "num_frames"),
    [*itertools.product(FORMS, (1, 23)), ("tp2", 97), ("tp33", 200), ("td7x2", 195)],
)
def test_attend_is_the_slow_loop_of_the_paper(form, num_frames, slow_attention_map):
    query, key, value = random_heads(num_frames)
    frame_mask = padding_mask(num_frames)
    level = AttentionLevel.parse(form)
    output, rows = attend(query, key, value, level, frame_mask, return_map=True)
    expected_map = np.array(
        [
            [
                slow_attention_map(form, query[b, n].numpy(), key[b, n].numpy(), length)
                for n in range(2)
            ]
            for b, length in enumerate(frame_mask.sum(axis=1))
        ]
    )
    np.testing.assert_allclose(expand_attention_map(rows, level), expected_map, atol=2e-6)
    np.testing.assert_allclose(output, expected_map @ value.numpy(), atol=5e-6)


forms = st.one_of(
    st.just("global"),
    st.builds("bd{}".format, st.integers(1, 40)),
    st.builds("tp{}".format, st.integers(1, 40)),
    st.integers(1, 6).flatmap(
        lambda dilation: st.builds("td{}x{}".format, st.integers(dilation, 60), st.just(dilation))
    ),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(form=forms, num_frames=st.integers(1, 260), masked=st.booleans())
def test_local_forms_equal_the_dense_reference(form, num_frames, masked):
    level = AttentionLevel.parse(form)
    query, key, value = random_heads(num_frames)
    frame_mask = padding_mask(num_frames) if masked else None
    output, rows = attend(query, key, value, level, frame_mask, return_map=True)
    expected, expected_map = attend_dense(query, key, value, level, frame_mask)
    np.testing.assert_allclose(output, expected, rtol=0, atol=5e-6)
    np.testing.assert_allclose(expand_attention_map(rows, level), expected_map, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", ["bd5", "tp3", "tp32", "td5x1", "td33x2"])
def test_first_and_second_gradients_equal_those_of_the_dense_reference(form):
    """Temporal adversarial augmentation differentiates through the second gradient."""
    level = AttentionLevel.parse(form)
    arguments = random_heads(200)
    frame_mask = padding_mask(200)
    direction = random_heads(200, seed=1)[0]

    @tf.function
    def gradients(function, *arguments):
        with tf.GradientTape() as outer:
            outer.watch(arguments)
            with tf.GradientTape() as inner:
                inner.watch(arguments)
                loss = tf.reduce_sum(function(*arguments, level, frame_mask)[0] * direction)
            first = inner.gradient(loss, arguments)
            norm = sum(tf.reduce_sum(tf.square(gradient)) for gradient in first)
        return first, outer.gradient(norm, arguments)

    for local, dense in zip(
        gradients(attend, *arguments), gradients(attend_dense, *arguments), strict=True
    ):
        for one, other in zip(local, dense, strict=True):
            scale = max(1.0, float(tf.reduce_max(tf.abs(other))))
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale)
            assert np.abs(other[0]).max() > 1e-3
            assert (one[2].numpy() == 0).all()


@pytest.mark.parametrize(
    ("form", "frames"),
    # In the middle of a chunk and at its ends, at the ends of a clip, before the padding.
    [("bd20", (0, 19, 20, 99)), ("tp30", (0, 73, 74, 99, 109)), ("td6x2", (0, 1, 109, 110, 99))],
)
def test_nothing_outside_the_window_and_no_padding_has_any_influence(form, frames):
    """The gradient of one output frame is exactly 0 outside the level, and not 0 inside."""
    num_frames, length = 220, 100
    level = AttentionLevel.parse(form)
    query, key, value = (heads[:1] for heads in random_heads(num_frames))
    for frame_mask in (np.arange(num_frames)[None] < length, None):
        real = np.ones(num_frames, bool) if frame_mask is None else frame_mask[0]
        for frame in frames:
            with tf.GradientTape() as tape:
                tape.watch((query, key, value))
                output = attend(query, key, value, level, frame_mask)[0][:, :, frame]
                loss = tf.reduce_sum(output * [1.0, -2.0, 3.0, -4.0])
            gradients = tape.gradient(loss, (query, key, value))
            reached = [np.abs(gradient[0]).max(axis=(0, 2)) > 0 for gradient in gradients]
            expected = level.dense_mask(num_frames)[frame] & real & real[frame]
            np.testing.assert_array_equal(reached[1], expected)
            np.testing.assert_array_equal(reached[2], expected)
            np.testing.assert_array_equal(
                reached[0], (np.arange(num_frames) == frame) & real[frame]
            )


@pytest.mark.parametrize("form", ["global", "bd4", "tp3", "td9x2"])
def test_unknown_sizes_and_xla_give_the_eager_result(form):
    level = AttentionLevel.parse(form)

    def function(query, key, value, frame_mask):
        with tf.GradientTape() as tape:
            tape.watch((query, key, value))
            output, rows = attend(query, key, value, level, frame_mask, return_map=True)
            loss = tf.reduce_sum(tf.sin(output))
        arguments = query, key, value
        return output, rows, tape.gradient(loss, arguments, unconnected_gradients="zero")

    head = tf.TensorSpec((None, 2, None, 4))
    graph = tf.function(
        function, input_signature=[head, head, head, tf.TensorSpec((None, None), tf.bool)]
    )
    xla = tf.function(function, jit_compile=True)
    for num_frames, compiled, tolerance in [
        (1, graph, 2e-6),
        (5, graph, 2e-6),
        (97, graph, 2e-6),
        (200, graph, 2e-6),
        (101, xla, 1e-5),
    ]:
        arguments = (*random_heads(num_frames), padding_mask(num_frames))
        output, rows, gradients = compiled(*arguments)
        expected, expected_rows, expected_gradients = function(*arguments)
        np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance)
        for one, other in zip(gradients, expected_gradients, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=tolerance)
        np.testing.assert_allclose(
            expand_attention_map(rows, level),
            expand_attention_map(expected_rows, level),
            rtol=0,
            atol=tolerance,
        )


@pytest.mark.parametrize("form", FORMS)
def test_padded_queries_give_exactly_zero(form):
    query, key, value = random_heads(23)
    frame_mask = padding_mask(23)
    output, rows = attend(
        query, key, value, AttentionLevel.parse(form), frame_mask, return_map=True
    )
    padded = np.broadcast_to(~frame_mask[:, None], (3, 2, 23))
    assert (output.numpy()[padded] == 0).all()
    assert (rows.numpy()[padded] == 0).all()
    np.testing.assert_allclose(rows.numpy()[~padded].sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_frames", [1, 23])
def test_uniform_map_is_one_over_the_real_frames_in_reach(form, num_frames, neighbours_of):
    level = AttentionLevel.parse(form)
    value = random_heads(num_frames)[2]
    frame_mask = padding_mask(num_frames)
    output, rows = attend(None, None, value, level, frame_mask, return_map=True)
    expected = np.zeros((3, 1, num_frames, num_frames))
    for clip, length in enumerate(frame_mask.sum(axis=1)):
        for i in range(length):
            reach = [j for j in neighbours_of(form, i, num_frames) if j < length]
            expected[clip, 0, i, reach] = 1 / len(reach)
    np.testing.assert_allclose(expand_attention_map(rows, level), expected, atol=1e-6)
    np.testing.assert_allclose(output, expected @ value.numpy(), atol=2e-6)


@pytest.mark.parametrize("form", ["global", "tp3"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_softmax_is_taken_in_float32(form, dtype):
    """Scores of a few thousand (representable in float16) between masked neighbours."""
    query, key, value = (tf.cast(x * 40, dtype) for x in random_heads(23))
    frame_mask = padding_mask(23)
    level = AttentionLevel.parse(form)
    output, rows = attend(query, key, value, level, frame_mask, return_map=True)
    assert output.dtype == dtype
    assert rows.dtype == "float32"
    assert np.isfinite(tf.cast(output, "float32")).all()
    np.testing.assert_allclose(rows.numpy().sum(axis=-1)[:, 0], frame_mask, atol=1e-6)


def test_dropout_acts_on_the_map_but_not_on_the_map_returned():
    query, key, value = random_heads(9)
    level = AttentionLevel.parse("tp2")
    _, rows = attend(query, key, value, level, return_map=True)
    output, rows_beside_dropout = attend(
        query, key, value, level, return_map=True, dropout=lambda weights: weights * 0
    )
    np.testing.assert_array_equal(output, np.zeros_like(output))
    np.testing.assert_array_equal(rows_beside_dropout, rows)


def test_map_of_another_level_is_refused():
    query, key, value = random_heads(90)
    _, rows = attend(query, key, value, AttentionLevel.parse("bd20"), return_map=True)
    with pytest.raises(ValueError, match=r"'bd30' over T=90 frames has 30 columns.*2, 90, 20\)"):
        expand_attention_map(rows, AttentionLevel.parse("bd30"))


def largest_tensor(function, num_frames):
    """Counts the elements of the largest tensor in the graph of function and gradient, one head."""
    head = tf.TensorSpec((1, 1, num_frames, 2))

    def with_gradient(query, key, value, frame_mask):
        with tf.GradientTape() as tape:
            tape.watch((query, key, value))
            output = function(query, key, value, frame_mask)
        return tape.gradient(output, (query, key, value))

    graph = tf.function(with_gradient).get_concrete_function(
        head, head, head, tf.TensorSpec((1, num_frames), tf.bool)
    )
    shapes = [output.shape for op in graph.graph.get_operations() for output in op.outputs]
    assert all(shape.is_fully_defined() for shape in shapes if shape.rank)
    return max(shape.num_elements() for shape in shapes if shape.rank is not None)


@pytest.mark.parametrize("form", ["bd20", "tp30", "td60x4"])
def test_no_tensor_of_a_local_level_grows_with_the_square_of_the_frames(form):
    level = AttentionLevel.parse(form)

    def local(*arguments):
        return attend(*arguments[:3], level, arguments[3])[0]

    assert largest_tensor(local, 4800) <= 4800 * 4 * level.window
    assert largest_tensor(local, 9600) <= 2 * largest_tensor(local, 4800)


def test_the_dense_reference_does_make_a_map_of_frames_by_frames():
    """The dense form does build such a tensor, so the test above can fail."""
    level = AttentionLevel.parse("bd20")

    def dense(*arguments):
        return attend_dense(*arguments[:3], level, arguments[3])[0]

    assert largest_tensor(dense, 600) == 600**2
