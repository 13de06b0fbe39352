import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import jensenshannon

from yt8m_gat.losses import (
    average_over_heads,
    distance_to_uniform,
    frobenius_distance,
    jensen_shannon_divergence,
    normalized_entropy,
)

BETWEEN_TWO = [frobenius_distance, jensen_shannon_divergence]
OF_ONE = [normalized_entropy, distance_to_uniform]
NUM_FRAMES = np.array([5, 3, 1])
FRAME_MASK = np.arange(5) < NUM_FRAMES[:, None]


def random_maps(seed, padding=0.0):
    """Row-stochastic `[3, 5, 5]` on the real frames; `padding` elsewhere."""
    maps = np.full((3, 5, 5), padding)
    rng = np.random.default_rng(seed)
    for example, n in enumerate(NUM_FRAMES):
        maps[example, :n] = 0
        maps[example, :n, :n] = rng.dirichlet(np.full(n, 0.5), n)
    return maps


def gradients(function, *maps):
    variables = [tf.Variable(array) for array in maps]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(function(*variables))
    return [gradient.numpy() for gradient in tape.gradient(total, variables)]


def check_by_finite_differences(function, *maps, step=1e-6, tolerance=1e-6):
    for position, gradient in enumerate(gradients(function, *maps)):
        numeric = np.zeros_like(gradient)
        for index in np.ndindex(gradient.shape):
            moved = [array.copy() for array in maps]
            moved[position][index] += step
            up = np.sum(function(*moved))
            moved[position][index] -= 2 * step
            numeric[index] = (up - np.sum(function(*moved))) / (2 * step)
        np.testing.assert_allclose(gradient, numeric, atol=tolerance)


def test_average_over_heads():
    maps = np.random.default_rng(0).random((2, 3, 4, 5))
    np.testing.assert_allclose(average_over_heads(maps), (maps[:, 0] + maps[:, 1] + maps[:, 2]) / 3)
    compact = maps.reshape(2, 3, 2, 2, 5)
    np.testing.assert_allclose(average_over_heads(compact), compact.mean(axis=1))
    with pytest.raises(ValueError, match=r"\[B, N, ..., S\]. Received: shape=\(2, 4, 5\)"):
        average_over_heads(maps[:, 0])


def test_frobenius_distance_is_numpys_over_the_real_rows():
    clean, adversarial = random_maps(0, padding=0.3), random_maps(1, padding=-0.4)
    expected = [np.linalg.norm(clean[i, :n] - adversarial[i, :n]) for i, n in enumerate(NUM_FRAMES)]
    np.testing.assert_allclose(frobenius_distance(clean, adversarial, FRAME_MASK), expected)
    np.testing.assert_allclose(
        frobenius_distance(clean, adversarial), np.linalg.norm(clean - adversarial, axis=(1, 2))
    )


def test_jensen_shannon_divergence_is_scipys_squared():
    clean, adversarial = random_maps(0, padding=0.3), random_maps(1, padding=0.2)
    expected = [
        np.mean([jensenshannon(clean[i, t], adversarial[i, t]) ** 2 for t in range(n)])
        for i, n in enumerate(NUM_FRAMES)
    ]
    np.testing.assert_allclose(
        jensen_shannon_divergence(clean, adversarial, FRAME_MASK), expected, atol=1e-12
    )


def test_jensen_shannon_divergence_by_hand():
    # Rows (1, 0) and (1/2, 1/2): M = (3/4, 1/4);
    # 1/2 log(4/3) + 1/2 (1/2 log(2/3) + 1/2 log 2) = 3/4 log(4/3).
    value = jensen_shannon_divergence(np.array([[[1.0, 0.0]]]), np.array([[[0.5, 0.5]]]))
    np.testing.assert_allclose(value, 0.75 * np.log(4 / 3))


def test_jensen_shannon_divergence_is_bounded_by_ln_2():
    one_hot = np.eye(4, dtype="float32")[None]
    disjoint = np.roll(one_hot, 1, axis=1)
    np.testing.assert_allclose(jensen_shannon_divergence(one_hot, disjoint), np.log(2), rtol=1e-6)
    rng = np.random.default_rng(0)
    clean = rng.dirichlet(np.full(30, 0.3), (50, 6)).astype("float32")
    nudged = clean * rng.uniform(1 - 1e-6, 1 + 1e-6, clean.shape).astype("float32")
    assert (jensen_shannon_divergence(clean, nudged).numpy() >= 0).all()


def test_rows_that_attend_to_nothing_are_not_counted_without_a_mask():
    clean = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    adversarial = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    np.testing.assert_allclose(jensen_shannon_divergence(clean, adversarial), np.log(2))
    np.testing.assert_array_equal(jensen_shannon_divergence(clean * 0, adversarial * 0), [0.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", BETWEEN_TWO)
def test_equal_maps_have_distance_and_gradient_zero(function, dtype):
    maps = random_maps(0).astype(dtype)
    np.testing.assert_array_equal(function(maps, maps, FRAME_MASK), np.zeros(3))
    for gradient in gradients(lambda a, b: function(a, b, FRAME_MASK), maps, maps):
        if function is frobenius_distance:
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
        else:
            np.testing.assert_allclose(gradient, np.zeros_like(gradient), atol=1e-7)


def test_frobenius_gradient_is_the_unit_direction():
    clean, adversarial = random_maps(0), random_maps(1)
    adversarial[2] = clean[2]
    first, second = gradients(lambda a, b: frobenius_distance(a, b, FRAME_MASK), clean, adversarial)
    difference = clean - adversarial
    norms = np.linalg.norm(difference, axis=(1, 2), keepdims=True)
    assert (norms[:2] > 0).all()
    assert norms[2] == 0  # An example that did not move, in one batch with two that did.
    expected = difference / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(first, expected)
    np.testing.assert_allclose(second, -expected)


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(2)
    clean, adversarial = rng.dirichlet(np.ones(3), (2, 2, 3))
    mask = np.array([[True, True, False], [True, True, True]])
    for function in BETWEEN_TWO:
        check_by_finite_differences(lambda a, b, f=function: f(a, b, mask), clean, adversarial)
    for function in OF_ONE:
        check_by_finite_differences(lambda a, f=function: f(a, mask), clean)


def test_gradients_are_finite_with_zero_weights():
    maps = [
        np.array([[[1, 0, 0], [0, 1, 0]]], "float32"),
        np.array([[[0, 1, 0], [0, 1, 0]]], "float32"),
    ]
    first, second = gradients(jensen_shannon_divergence, *maps)
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    # Row 0: moving weight to where the other map has it lowers the divergence.
    assert first[0, 0, 1] < first[0, 0, 0]
    assert second[0, 0, 0] < second[0, 0, 1]
    (entropy_gradient,) = gradients(
        lambda a: normalized_entropy(a), np.eye(3, dtype="float32")[None]
    )
    assert np.isfinite(entropy_gradient).all()


@pytest.mark.parametrize("function", BETWEEN_TWO)
def test_gradient_on_padding_is_zero(function):
    padded = [random_maps(seed, padding=0.2) for seed in (0, 1)]
    for gradient in gradients(lambda a, b: function(a, b, FRAME_MASK), *padded):
        np.testing.assert_array_equal(gradient[~FRAME_MASK], 0)
        assert np.abs(gradient[0]).max() > 0


@pytest.mark.parametrize("function", BETWEEN_TWO)
def test_compact_maps_are_the_same_rows_in_another_shape(function):
    clean, adversarial = random_maps(0)[:2, :4], random_maps(1)[:2, :4]
    mask = FRAME_MASK[:2, :4]
    np.testing.assert_allclose(
        function(clean.reshape(2, 2, 2, 5), adversarial.reshape(2, 2, 2, 5), mask.reshape(2, 2, 2)),
        function(clean, adversarial, mask),
        rtol=1e-12,
    )


def test_uniform_maps():
    uniform = FRAME_MASK[:, :, None] * (FRAME_MASK / NUM_FRAMES[:, None])[:, None, :]
    np.testing.assert_allclose(normalized_entropy(uniform, FRAME_MASK), [1, 1, 1], rtol=1e-12)
    np.testing.assert_array_equal(distance_to_uniform(uniform, FRAME_MASK), [0, 0, 0])
    full = np.full((1, 5, 5), 0.2)
    np.testing.assert_allclose(normalized_entropy(full), [1], rtol=1e-12)
    np.testing.assert_array_equal(distance_to_uniform(full), [0])


def test_one_hot_maps():
    maps = np.eye(5)[None] * FRAME_MASK[:, :, None]
    np.testing.assert_allclose(normalized_entropy(maps, FRAME_MASK), [0, 0, 1], atol=1e-12)
    # Each of n rows: (1 - 1/n)^2 + (n - 1)/n^2 = (n - 1)/n.
    np.testing.assert_allclose(
        distance_to_uniform(maps, FRAME_MASK), np.sqrt(NUM_FRAMES - 1), atol=1e-12
    )


def test_entropy_by_hand():
    # Two real frames, rows (1/4, 3/4) and (1/2, 1/2); the padded row does not count.
    maps = np.array([[[0.25, 0.75, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]])
    first = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(2)
    mask = np.array([[True, True, False]])
    np.testing.assert_allclose(normalized_entropy(maps, mask), [(first + 1) / 2])
    np.testing.assert_allclose(distance_to_uniform(maps, mask), [np.sqrt(2 * 0.25**2)])


def test_clip_without_frames():
    maps, mask = np.zeros((1, 4, 4)), np.zeros((1, 4), bool)
    for function in BETWEEN_TWO:
        np.testing.assert_array_equal(function(maps, maps + 1, mask), [0])
    np.testing.assert_array_equal(normalized_entropy(maps, mask), [1])
    np.testing.assert_array_equal(distance_to_uniform(maps, mask), [0])


def test_float16_maps_are_computed_in_float32():
    # The squares of differences around 1e-4 vanish in float16.
    clean = np.full((1, 300, 300), 1 / 300, "float16")
    adversarial = clean + np.float16(1e-4)
    distance = frobenius_distance(clean, adversarial)
    assert distance.dtype == tf.float32
    difference = (adversarial.astype(float) - clean.astype(float))[0, 0, 0]
    np.testing.assert_allclose(distance, 300 * difference, rtol=1e-5)
    assert jensen_shannon_divergence(clean, adversarial).dtype == tf.float32
    np.testing.assert_allclose(normalized_entropy(clean), [1], rtol=1e-3)


@pytest.mark.parametrize("function", BETWEEN_TWO)
def test_shape_mismatch_refused(function):
    maps = np.ones((2, 4, 4))
    with pytest.raises(ValueError, match=r"clean \(2, 4, 4\), adversarial \(2, 4, 3\)"):
        function(maps, np.ones((2, 4, 3)))
    with pytest.raises(ValueError, match=r"without the last axis, \(2, 4\). Received: \(2, 5\)"):
        function(maps, maps, np.ones((2, 5), bool))


@pytest.mark.parametrize("function", OF_ONE)
def test_maps_that_are_not_square_refused(function):
    with pytest.raises(ValueError, match=r"\[B, T, T\]. Received: \(2, 4, 3\)"):
        function(np.ones((2, 4, 3)))


def test_single_rows_are_maps_too():
    rows = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(frobenius_distance(rows, rows[:, ::-1]), [np.sqrt(2), 0], atol=1e-6)
