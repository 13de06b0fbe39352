"""The mixture of experts against its formula in double precision, and the heads made of it."""

import keras
import numpy as np
import pytest

from yt8m_gat.models import GatedMixtureOfExperts, MixtureOfExperts
from yt8m_gat.models.classifier_head import build_head


def probabilities_by_the_formula(x, layer):
    """p = sum over m of gate_m sigmoid(expert_m), class by class, in float64."""
    num_classes, mixtures = layer.num_classes, layer.moe_num_mixtures
    gates, (kernel, bias) = layer.gates.get_weights()[0], layer.experts.get_weights()
    result = np.zeros((len(x), num_classes))
    for row, vector in enumerate(x.astype(np.float64)):
        gate_logits = (vector @ gates).reshape(num_classes, mixtures + 1)
        expert_logits = (vector @ kernel + bias).reshape(num_classes, mixtures)
        for c in range(num_classes):
            weights = np.exp(gate_logits[c]) / np.exp(gate_logits[c]).sum()
            for m in range(mixtures):
                result[row, c] += weights[m] / (1 + np.exp(-expert_logits[c, m]))
    return result


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("mixtures", [1, 2, 5])
def test_the_logit_is_that_of_the_formula(mixtures, rng):
    layer = MixtureOfExperts(4, mixtures)
    x = rng.normal(size=(3, 6)).astype("float32")
    layer(x)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    p = probabilities_by_the_formula(x, layer)
    np.testing.assert_allclose(layer(x), np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)


def one_class(gates, experts):
    """A layer of one class and two experts whose gate and expert logits are those given."""
    layer = MixtureOfExperts(1, 2)
    layer.build((None, 1))
    layer.set_weights([np.array([gates]), np.array([experts]), np.zeros(2)])
    return float(layer(np.ones((1, 1), "float32"))[0, 0])


def test_logits_stay_exact_where_probabilities_round():
    """With equal experts e and a dummy gate of weight d: p = (1 - d) sigmoid(e).

    d = 1/3, e = -100:      p = 2/3 exp(-100),     logit = log(2/3) - 100
    d = 1/3, e = +100:      p = 2/3,               logit = log 2
    d = exp(-200), e = 90:  1 - p = exp(-90),      logit = 90
    d = 1 - exp(-200) / 2:  p = exp(-200) / 2 * 1/2 twice = exp(-200)    logit = -200 (two gates)
    """
    assert one_class([0, 0, 0], [-100, -100]) == pytest.approx(np.log(2 / 3) - 100, rel=1e-6)
    assert one_class([0, 0, 0], [100, 100]) == pytest.approx(np.log(2), rel=1e-6)
    assert one_class([0, 0, -200], [90, 90]) == pytest.approx(90, rel=1e-6)
    assert one_class([0, 0, 200], [0, 0]) == pytest.approx(-200, rel=1e-6)


def test_gradients_are_finite_at_the_extremes():
    import tensorflow as tf

    layer = MixtureOfExperts(1, 2)
    layer.build((None, 1))
    layer.set_weights([np.array([[0, 300, -300]]), np.array([[-500, 500]]), np.zeros(2)])
    x = tf.ones((1, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logit = layer(x)
    for gradient in tape.gradient(logit, [x, *(v.value for v in layer.trainable_variables)]):
        assert np.isfinite(gradient).all()


def test_the_penalty_is_the_starters():
    """1e-8 * ||W||^2 / 2 of gates and of experts; none on the bias."""
    layer = MixtureOfExperts(3, 2)
    layer.build((None, 4))
    layer.set_weights([np.full(w.shape, 2.0) for w in layer.get_weights()])
    expected = 1e-8 * 4 / 2 * (4 * 9 + 4 * 6)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-6)


def test_it_stays_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        logits = MixtureOfExperts(3)(np.ones((2, 4), "float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


def test_heads_that_cannot_be():
    with pytest.raises(ValueError, match="must be one of LogisticModel, MoeModel"):
        build_head("SvmModel", 3, 2)
    with pytest.raises(ValueError, match="`moe_num_mixtures` must be positive"):
        build_head("MoeModel", 3, 0)


def test_class_gates_are_those_of_the_formula_and_exact_at_the_ends():
    """p' = sigmoid(BN(p U)) p; a logit of -60 has a probability of e^-60."""
    rng = np.random.default_rng(0)
    layer = GatedMixtureOfExperts(3, 2)
    layer.build((None, 4))
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * np.sign(rng.normal(size=weight.shape)))
    gamma, beta, mean, variance = layer.class_normalization.normalization.weights
    variance.assign(np.abs(variance))
    x = rng.normal(size=(5, 4)).astype("float32")
    log_p, log_not_p = layer.log_probabilities(x)
    p = np.exp(np.asarray(log_p, "float64"))
    np.testing.assert_allclose(p + np.exp(log_not_p), 1, atol=1e-6)
    scores = p @ layer.class_kernel.numpy()
    scores = (scores - mean.numpy()) / np.sqrt(variance.numpy() + 1e-3)
    scores = gamma.numpy() * scores + beta.numpy()
    expected = p / (1 + np.exp(-scores))
    np.testing.assert_allclose(1 / (1 + np.exp(-layer(x).numpy())), expected, atol=1e-6)
    # Gates of e^-60 leave that much of a probability near 1.
    beta.assign(np.full(3, -60.0))
    gamma.assign(np.zeros(3))
    np.testing.assert_allclose(layer(x), log_p - 60.0, atol=1e-4)
