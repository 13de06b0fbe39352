"""The mean of several classifiers: probabilities, gradients, a round trip."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, ModelConfig
from yt8m_gat.models import build_model
from yt8m_gat.models.ensemble import EnsembleClassifier

SIZES = {"rgb": 3, "audio": 2}


def member(seed):
    keras.utils.set_random_seed(seed)
    model = build_model("FrameLevelLogisticModel", SIZES, 4)
    for weight in model.weights:
        weight.assign(np.random.default_rng(seed).normal(0, 3, weight.shape))
    return model


def inputs(seed=9):
    rng = np.random.default_rng(seed)
    features = {n: tf.constant(rng.normal(size=(5, 6, d)), tf.float32) for n, d in SIZES.items()}
    return features, tf.sequence_mask([6, 1, 3, 5, 2], 6)


def test_probabilities_are_the_weighted_mean():
    members = [member(seed) for seed in range(3)]
    ensemble = EnsembleClassifier(members, [1, 2, 5])
    features, mask = inputs()
    p = [1 / (1 + np.exp(-m.forward(features, mask).logits.numpy().astype("f8"))) for m in members]
    outputs = ensemble.forward(features, mask)
    expected = (p[0] + 2 * p[1] + 5 * p[2]) / 8
    np.testing.assert_allclose(ensemble.probabilities(outputs.logits), expected, rtol=1e-5)
    assert outputs.frames.shape == (5, 6, 15)
    assert ensemble.member_weights == [0.125, 0.25, 0.625]


def test_logits_are_exact_where_probabilities_round_to_1_and_0():
    members = [member(0), member(1)]
    for model, bias in zip(members, (30.0, 40.0), strict=True):
        for weight in model.weights:
            weight.assign(tf.zeros_like(weight))
        model.weights[-1].assign([bias, -bias, bias, -bias])
    logits = EnsembleClassifier(members).forward(*inputs()).logits.numpy()
    # log((s(30) + s(40)) / (s(-30) + s(-40))), and its negative.
    z = np.log(2) - np.log(np.exp(-30.0) + np.exp(-40.0))
    np.testing.assert_allclose(logits, np.tile([z, -z], (5, 2)), rtol=1e-6)


def test_the_gradient_reaches_the_features_through_every_member():
    members = [member(0), member(1)]
    features, mask = inputs()

    def slope(model):
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = model.forward(features, mask).logits
            p = tf.reduce_sum(model.probabilities(logits)[:, 1])
        return tape.gradient(p, features)

    of_ensemble, first, second = map(slope, (EnsembleClassifier(members, [3, 1]), *members))
    for name in SIZES:
        expected = 0.75 * first[name] + 0.25 * second[name]
        np.testing.assert_allclose(of_ensemble[name], expected, rtol=1e-4, atol=1e-6)


def test_exclusive_classes_stay_a_softmax():
    class Exclusive(type(member(0))):
        exclusive_classes = True

    models = [member(seed) for seed in range(2)]
    for model in models:
        model.__class__ = Exclusive
    ensemble = EnsembleClassifier(models)
    features, mask = inputs()
    p = [tf.nn.softmax(m.forward(features, mask).logits).numpy() for m in models]
    found = ensemble.probabilities(ensemble.forward(features, mask).logits)
    np.testing.assert_allclose(found, (p[0] + p[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(np.sum(found, axis=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="same `exclusive_classes`"):
        EnsembleClassifier([models[0], member(1)])


def test_it_survives_a_keras_file(tmp_path):
    ensemble = EnsembleClassifier([member(0), member(1)], [1, 3])
    ensemble.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    features, mask = inputs()
    np.testing.assert_array_equal(
        loaded.forward(features, mask).logits, ensemble.forward(features, mask).logits
    )


def test_wrong_members_are_refused():
    with pytest.raises(ValueError, match="at least one classifier"):
        EnsembleClassifier([])
    with pytest.raises(ValueError, match="same `num_classes`"):
        EnsembleClassifier([member(0), build_model("FrameLevelLogisticModel", SIZES, 5)])
    for weights in ([1], [1, 0], [1, float("nan")]):
        with pytest.raises(ValueError, match="`member_weights` must be 2 positive numbers"):
            EnsembleClassifier([member(0), member(1)], weights)
    with pytest.raises(ConfigError, match="made of trained runs by `yt8m-gat ensemble`"):
        ModelConfig(name="Ensemble")
