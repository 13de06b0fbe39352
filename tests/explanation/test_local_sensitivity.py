"""S_i of eq. 14: closed forms, and a Jacobian taken whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.explanation.local_sensitivity import LocalSensitivity, local_share
from yt8m_gat.models.registry import build_model

SIZES = {"rgb": 8, "audio": 4}
MASK = np.arange(9) < np.array([7, 9])[:, None]


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return {
        name: tf.constant(rng.normal(size=(2, 9, size)) * MASK[..., None], tf.float32)
        for name, size in SIZES.items()
    }


@pytest.fixture(scope="module")
def frames_fn():
    keras.utils.set_random_seed(3)
    model = build_model(
        "GAT", SIZES, 3, 9, local_masks=("bd3",), hidden_size=4, num_heads=2, feed_forward_size=5
    )
    return lambda features, mask: model.forward(features, mask).frames


def clip(features, index):
    return {name: value[index] for name, value in features.items()}, tf.constant(MASK[index])


def whole_jacobian(frames_fn, features, index):
    """G by `tf.GradientTape.jacobian`, with the padding in."""
    one = {name: value[index][None] for name, value in features.items()}
    with tf.GradientTape() as tape:
        tape.watch(one)
        frames = frames_fn(one, tf.constant(MASK[index][None]))[0]
    jacobians = tape.jacobian(frames, one)
    n = MASK[index].sum()
    # [T, F, 1, T, D] -> [n, n]
    return {
        name: np.sqrt(np.square(value.numpy()).sum((1, 2, 4)))[:n, :n]
        for name, value in jacobians.items()
    }


def test_maps_of_raw_clips_count_as_vectors():
    """Y_t = (x_t + 2 x_(t-1)) W at each of 2 x 2 places, so that G is 2 |W| and 4 |W|."""
    weights = tf.constant(np.random.default_rng(0).normal(size=(3, 2)), tf.float32)

    def maps(features, mask):  # [B, T, 4, 4, 3] -> [B, T, 2, 2, 2]
        x = features["image"][:, :, ::2, ::2] @ weights
        return x + 2 * tf.pad(x, [(0, 0), (1, 0), *[(0, 0)] * 3])[:, :-1]

    clip = {"image": tf.zeros((4, 4, 4, 3))}
    expected = np.linalg.norm(weights) * 2 * (np.eye(4) + 2 * np.eye(4, k=-1))  # 2 x 2 places.
    _, norms = LocalSensitivity(maps, exact=True).gradient_norms(clip, np.ones(4, bool))
    np.testing.assert_allclose(norms["image"], expected, rtol=1e-5)


@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_exact_norms_are_those_of_the_whole_jacobian(frames_fn, features, index):
    sensitivity = LocalSensitivity(frames_fn, exact=True, copies=20)
    rows, norms = sensitivity.gradient_norms(*clip(features, index))
    np.testing.assert_array_equal(rows, np.arange(MASK[index].sum()))
    for name, expected in whole_jacobian(frames_fn, features, index).items():
        np.testing.assert_allclose(norms[name], expected, rtol=1e-4, atol=1e-6)


def test_random_probes_come_near(frames_fn, features):
    expected = whole_jacobian(frames_fn, features, 0)
    sensitivity = LocalSensitivity(frames_fn, probes=400, copies=512)
    _, norms = sensitivity.gradient_norms(*clip(features, 0))
    for name, exact in expected.items():
        # Relative deviation of a squared norm from k probes: at most sqrt(2 / k) = 0.07.
        np.testing.assert_allclose(norms[name], exact, rtol=0.2)
        np.testing.assert_allclose(norms[name].mean(), exact.mean(), rtol=0.03)


def test_probes_are_signs(features):
    """Both outputs are the first channel: |v1 + v2|^2 is 2 on average, if v are signs."""
    sensitivity = LocalSensitivity(
        lambda f, mask: tf.repeat(f["rgb"][..., :1], 2, axis=-1), probes=400, copies=512
    )
    _, norms = sensitivity.gradient_norms(*clip(features, 0))
    np.testing.assert_allclose(np.diag(norms["rgb"]), np.sqrt(2), rtol=0.2)


def test_the_deviation_of_one_clip_is_0(features):
    sensitivity = LocalSensitivity(lambda f, mask: f["rgb"], neighbourhood=0, exact=True)
    sensitivity.update({name: x[:1] for name, x in features.items()}, tf.constant(MASK[:1]))
    assert sensitivity.result()["rgb"]["deviation"] == 0.0


def test_a_model_that_looks_at_each_frame_by_itself_is_all_local(features):
    kernel = tf.constant(np.random.default_rng(1).normal(size=(8, 5)), tf.float32)
    sensitivity = LocalSensitivity(lambda f, mask: tf.tanh(f["rgb"] @ kernel), neighbourhood=0)
    sensitivity.update(features, tf.constant(MASK))
    found = sensitivity.result()
    assert found["rgb"] == {"S": 1.0, "deviation": 0.0, "neighbourhood": 0, "num_videos": 2}
    assert "audio" not in found  # It has no gradient anywhere.


def test_a_mean_over_frames_sees_near_and_far_alike(features):
    def mean_of_real(f, mask):
        weights = tf.cast(mask, tf.float32)[..., None]
        mean = tf.reduce_sum(f["rgb"] * weights, 1, keepdims=True)
        return mean / tf.reduce_sum(weights, 1, keepdims=True) * weights

    sensitivity = LocalSensitivity(mean_of_real, neighbourhood=2, exact=True)
    _, norms = sensitivity.gradient_norms(*clip(features, 0))
    # Jacobian: identity / 7 for each of 7 real frames, over 8 channels.
    np.testing.assert_allclose(norms["rgb"], np.full((7, 7), np.sqrt(8) / 7), rtol=1e-5)
    sensitivity.update(features, tf.constant(MASK))
    assert sensitivity.result()["rgb"]["S"] == pytest.approx(0.5)


def test_share_of_a_matrix_written_out():
    norms = np.array([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 3.0]])
    # Row 0: near {0, 1}: 2, far {2, 3}: 1 -> 2/3. Row 2: near {1, 2, 3}: 5/3, far {0}: 1 -> 5/8.
    found = local_share(norms, np.array([0, 2]), 1)
    assert found == pytest.approx((2 / 3 + 5 / 8) / 2)
    # Without anything outside, or any gradient, there is no share.
    assert local_share(norms, np.array([0, 2]), 3) is None
    assert local_share(np.zeros((2, 4)), np.array([0, 2]), 1) is None


@pytest.mark.slow
@pytest.mark.slow
def test_padding_has_no_part(frames_fn, features):
    whole = LocalSensitivity(frames_fn, exact=True).gradient_norms(*clip(features, 0))[1]
    cut = {name: value[0, :7] for name, value in features.items()}
    alone = LocalSensitivity(frames_fn, exact=True).gradient_norms(cut, tf.ones(7, tf.bool))[1]
    spoilt = {name: value[0] + 5.0 * ~MASK[0][:, None] for name, value in features.items()}
    noisy = LocalSensitivity(frames_fn, exact=True).gradient_norms(spoilt, MASK[0])[1]
    for name in SIZES:
        np.testing.assert_allclose(whole[name], alone[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(whole[name], noisy[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_some_output_frames_stand_for_all(frames_fn, features):
    inputs = clip(features, 1)
    every = LocalSensitivity(frames_fn, exact=True).gradient_norms(*inputs)[1]
    rows, some = LocalSensitivity(frames_fn, exact=True, max_frames=3).gradient_norms(*inputs)
    np.testing.assert_array_equal(rows, [1, 4, 7])
    for name in SIZES:
        np.testing.assert_allclose(some[name], every[name][rows], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_results_do_not_depend_on_how_the_passes_are_cut(frames_fn, features):
    found = []
    for copies in (3, 64):
        sensitivity = LocalSensitivity(frames_fn, neighbourhood=1, probes=2, copies=copies, seed=4)
        sensitivity.update(features, tf.constant(MASK))
        found.append(sensitivity.result()["rgb"])
    assert found[0]["S"] == pytest.approx(found[1]["S"], rel=1e-4)
    assert found[0]["deviation"] > 0 and found[0]["num_videos"] == 2


def test_a_clip_without_frames_is_left_out(frames_fn, features):
    sensitivity = LocalSensitivity(frames_fn, neighbourhood=1)
    sensitivity.update(features, tf.zeros((2, 9), tf.bool))
    assert sensitivity.result() == {}


@pytest.mark.parametrize(
    "wrong", [{"neighbourhood": -1}, {"probes": 0}, {"copies": 0}, {"max_frames": 0}]
)
def test_refuses_numbers_too_small(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"Received: {name}={wrong[name]}"):
        LocalSensitivity(lambda features, mask: features["rgb"], **wrong)
