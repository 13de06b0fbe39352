"""DbofModel: which frames it sees, when, and its closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import Ball
from yt8m_gat.losses import CrossEntropyLoss
from yt8m_gat.models import FRAME_MASK, build_model
from yt8m_gat.training import AdversarialModel, GradientPerturbation, Objective


def small(**options):
    keras.utils.set_random_seed(0)
    sizes = {"dbof_cluster_size": 7, "dbof_hidden_size": 6}
    return build_model("DbofModel", {"x": 3}, 4, **{**sizes, "iterations": 4, **options})


def positions(model, num_real, training):
    return np.asarray(model.sampled_positions(tf.constant(num_real, tf.int32), training))


def test_at_evaluation_frames_are_evenly_spaced():
    """(2 k + 1) n // 8 for n = 8: the middles of four pairs; for 2 each frame twice."""
    result = positions(small(), [8, 4, 2, 1, 0, 300], training=False)
    np.testing.assert_array_equal(
        result,
        [[1, 3, 5, 7], [0, 1, 2, 3], [0, 0, 1, 1], [0] * 4, [0] * 4, [37, 112, 187, 262]],
    )


def test_at_evaluation_a_sequence_is_in_the_middle():
    result = positions(small(sample_random_frames=False), [8, 5, 4, 2, 0], training=False)
    np.testing.assert_array_equal(
        result, [[2, 3, 4, 5], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 1, 1], [0] * 4]
    )


def test_in_training_each_real_frame_is_as_likely():
    """4000 draws of 5 frames: 800 each, of standard deviation 25.3; five of those allowed."""
    result = positions(small(), [5] * 1000, training=True)
    counts = np.bincount(result.ravel(), minlength=5)
    assert counts.size == 5
    assert np.all(np.abs(counts - 800) < 127)
    # With replacement: four draws of five differ with probability 5 * 4 * 3 * 2 / 5^4 = 0.192.
    all_differ = np.mean([len(set(row)) == 4 for row in result])
    assert all_differ == pytest.approx(0.192, abs=5 * np.sqrt(0.192 * 0.808 / 1000))


def test_in_training_a_sequence_starts_anywhere_and_ends_in_the_clip():
    """n = 6 and K = 4: it starts at 0, 1 or 2, each 1000 times of 3000."""
    result = positions(small(sample_random_frames=False), [6] * 3000, training=True)
    np.testing.assert_array_equal(result - result[:, :1], np.tile(np.arange(4), (3000, 1)))
    starts = np.bincount(result[:, 0], minlength=3)
    assert starts.size == 3
    assert np.all(np.abs(starts - 1000) < 5 * np.sqrt(3000 * 2 / 9))


def test_draws_are_new_each_time_and_those_of_the_seed():
    first, second = (positions(model, [50], True) for model in [small()] * 2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, positions(small(), [50], True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sample_random_frames", [True, False])
def test_only_real_frames_are_taken(training, sample_random_frames):
    """Frames hold their own time; the mask has holes and padding."""
    model = small(sample_random_frames=sample_random_frames, iterations=20)
    mask = np.array([[0, 1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], bool)
    times = np.broadcast_to(np.arange(7, dtype="float32")[None, :, None], (3, 7, 3))
    sampled = np.asarray(model.sample(tf.constant(times), tf.constant(mask), training))
    assert sampled.shape == (3, 20, 3)
    for row, real in zip(sampled[..., 0], mask, strict=True):
        assert set(row) <= set(np.flatnonzero(real))
    if not training:
        # Twenty samples of few frames, in order of time.
        assert set(sampled[0, :, 0]) == {1, 3, 4}
        assert np.all(np.diff(sampled[..., 0], axis=1) >= 0)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_the_code_is_that_of_the_formula(pooling):
    rng = np.random.default_rng(0)
    model = small(
        dbof_add_batch_norm=False,
        dbof_pooling_method=pooling,
        dbof_activation="relu6",
        video_level_classifier_model="LogisticModel",
    )
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    (w, b), (v, c), (kernel, bias) = (
        layer.get_weights() for layer in (model.clusters, model.hidden, model.head)
    )
    # As many frames as are sampled: each is seen once.
    x = rng.normal(size=(2, 4, 3))
    codes = np.clip(x @ w + b, 0, 6)
    pooled = codes.max(axis=1) if pooling == "max" else codes.mean(axis=1)
    expected = np.clip(pooled @ v + c, 0, 6) @ kernel + bias
    logits = model({"x": x.astype("float32"), FRAME_MASK: np.ones((2, 4), bool)})
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def stored_batch(count=16):
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.integers(0, 256, (count, 6, 3)).astype(np.uint8),
        "num_frames": np.full(count, 6, np.int32),
    }
    labels = rng.integers(0, 2, (count, 4)).astype("float32")
    return tf.nest.map_structure(tf.constant, (inputs, labels))


@pytest.mark.slow
def test_a_step_moves_the_averages_once_and_draws_once():
    """After one step the input's moving mean is 0.9 * 0 + 0.1 * the sampled frames' mean."""
    data = stored_batch()
    objective = Objective(
        CrossEntropyLoss("mean"),
        perturbation=GradientPerturbation(Ball("l2", "frame"), 0.5),
        adversarial_weight=1.0,
    )
    model = small()
    trained = AdversarialModel(model, objective)
    trained.compile(optimizer=keras.optimizers.SGD(0.0))
    tf.function(trained.optimize)(data)

    twin = small()
    features, mask = trained.prepare(data[0])
    sampled = np.asarray(twin.sample(features["x"], mask, training=True))
    moving_mean = model.normalizations[0].moving_mean
    np.testing.assert_allclose(moving_mean, 0.1 * sampled.mean(axis=(0, 1)), atol=1e-5)
    # The seed generator has advanced by one draw.
    np.testing.assert_array_equal(model.frame_seeds.state, twin.frame_seeds.state)


def test_moving_averages_follow_within_forty_steps():
    """The starter code's DBoF is evaluated with averages still near their initial values."""
    model = small()
    trained = AdversarialModel(model, Objective(CrossEntropyLoss("mean")))
    trained.compile(optimizer=keras.optimizers.SGD(0.0))
    step = tf.function(trained.optimize)
    data = stored_batch(64)
    for _ in range(40):
        step(data)
    features, _ = trained.prepare(data[0])
    frames = np.asarray(features["x"])
    norm = model.normalizations[0]
    np.testing.assert_allclose(norm.moving_variance, frames.var(axis=(0, 1)), rtol=0.1)
    np.testing.assert_allclose(norm.moving_mean, frames.mean(axis=(0, 1)), atol=0.1)


def test_the_auxiliary_path_has_normalization_layers_of_its_own():
    features = {"x": tf.random.stateless_normal((2, 5, 3), (0, 0))}
    model = small(dual_normalization=True)
    model.copy_normalization_to_auxiliary()
    mask = tf.ones((2, 5), tf.bool)
    clean = model.forward(features, mask).logits
    np.testing.assert_array_equal(
        clean, model.forward(features, mask, auxiliary_normalization=True).logits
    )
    model.auxiliary_normalizations[2].beta.assign(np.full(6, 3.0))
    np.testing.assert_array_equal(clean, model.forward(features, mask).logits)
    assert np.any(clean != model.forward(features, mask, auxiliary_normalization=True).logits)
    with pytest.raises(ValueError, match="construct it with dual_normalization=True"):
        small().forward(features, mask, auxiliary_normalization=True)
