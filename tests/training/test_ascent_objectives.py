"""PGD, TRADES and fast: a step worked out by hand on a linear model, and their settings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import PIXEL_RANGE, Ball
from yt8m_gat.config import ConfigError, ObjectiveConfig
from yt8m_gat.losses import BernoulliDivergence, SoftmaxDivergence, get_divergence
from yt8m_gat.models import ModelOutputs, VideoClassifier
from yt8m_gat.training import AdversarialModel, AscentPerturbation, Objective, build_objective

EPSILON, RATE = 0.5, 0.1
NUM_FRAMES = np.array([4, 2])
LABELS = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32)
# Class 2 of the first clip and class 3 of the second were not rated.
WEIGHTS = np.array([[1, 1, 0, 1], [1, 1, 1, 0]], np.float32)


@keras.saving.register_keras_serializable(package="tests")
class Linear(VideoClassifier):
    """z = mean over real frames of x, times W."""

    def __init__(self, feature_sizes, num_classes, **kwargs):
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        self.kernel = self.add_weight(shape=(3, num_classes), name="kernel")
        self.build_all()

    def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
        mask = tf.cast(frame_mask, tf.float32)[..., None]
        frames = features["x"] * mask
        mean = tf.reduce_sum(frames, axis=1) / tf.reduce_sum(mask, axis=1)
        return ModelOutputs(mean @ self.kernel.value, frames, {})


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)


def make_model(**settings):
    settings = {"epsilon": EPSILON, "class_reduction": "mean", **settings}
    classifier = Linear({"x": 3}, 4)
    classifier.kernel.assign(np.random.default_rng(1).normal(size=(3, 4)))
    model = AdversarialModel(classifier, build_objective(ObjectiveConfig(**settings)))
    model.compile(optimizer=keras.optimizers.SGD(RATE))
    return model


def data_of(frames, weights=None):
    inputs = {"x": tf.constant(frames), "num_frames": tf.constant(NUM_FRAMES)}
    data = (inputs, tf.constant(LABELS))
    return data if weights is None else (*data, tf.constant(weights))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softplus(z):
    return np.logaddexp(0, z)


def hand_step(frames, kernel, kind, steps, step_size, weights):
    """The gradient by the kernel, worked out on paper, in float64.

    A real frame of a clip of n frames moves z by W^T x / n, so the steepest ascent of the loss is
    along W v, the same at each real frame: for the cross-entropy v = w (p' - y), for TRADES'
    divergence KL(p || p') v = w (p' - p), w the weights of the classes. The start is Ball's draw.
    By the kernel, cross-entropy gives xbar' w (p' - y)^T / sum w. The divergence, which is
    sum of w (p (z - z') + log(1 + e^z') - log(1 + e^z)), gives xbar' w (p' - p)^T, and by its
    first argument xbar w (p (1 - p) (z - z'))^T, both divided by sum w.
    """
    mask = np.arange(4) < NUM_FRAMES[:, None]
    start = Ball("l2").random_start({"x": tf.constant(frames * mask[..., None])}, mask, EPSILON, 0)
    gradient, terms = np.zeros_like(kernel), {"clean_loss": 0, "adversarial_loss": 0, "penalty": 0}
    for x, r, n, y, w in zip(
        frames.astype(float), start["x"].numpy(), NUM_FRAMES, LABELS, weights, strict=True
    ):
        x, r = x[:n], r[:n].astype(float)
        z = x.mean(0) @ kernel
        target = sigmoid(z) if kind == "trades" else y
        for _ in range(steps):
            v = kernel @ (w * (sigmoid((x + r).mean(0) @ kernel) - target))
            r = r + step_size * v / np.linalg.norm(v)
            r = r * np.minimum(1, EPSILON / np.linalg.norm(r, axis=1, keepdims=True))
        moved = (x + r).mean(0)
        z_adv = moved @ kernel
        p, p_adv, scale = sigmoid(z), sigmoid(z_adv), 2 * w.sum()
        terms["clean_loss"] += w @ (softplus(z) - y * z) / scale
        terms["adversarial_loss"] += w @ (softplus(z_adv) - y * z_adv) / scale
        terms["penalty"] += w @ (p * (z - z_adv) + softplus(z_adv) - softplus(z)) / scale
        if kind == "trades":
            gradient += np.outer(x.mean(0), w * (p - y)) / scale
            gradient += 6.0 * np.outer(moved, w * (p_adv - p)) / scale
            gradient += 6.0 * np.outer(x.mean(0), w * p * (1 - p) * (z - z_adv)) / scale
        else:
            gradient += np.outer(moved, w * (p_adv - y)) / scale
    return gradient, terms


CASES = {
    "pgd": ({"adversarial_steps": 3, "adversarial_step_size": 0.3}, 3, 0.3),
    "trades": ({"adversarial_steps": 2}, 2, 2.5 * EPSILON / 2),
    "fast": ({}, 1, 1.25 * EPSILON),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("rated", [False, True])
def test_the_updated_weight_is_that_worked_out_by_hand(kind, rated, frames):
    settings, steps, step_size = CASES[kind]
    model = make_model(adversarial=kind, **settings)
    kernel = model.classifier.kernel.numpy().astype(float)
    weights = WEIGHTS if rated else np.ones_like(WEIGHTS)
    gradient, terms = hand_step(frames, kernel, kind, steps, step_size, weights)
    logs = model.train_step(data_of(frames, WEIGHTS if rated else None))
    np.testing.assert_allclose(model.classifier.kernel, kernel - RATE * gradient, atol=2e-6)
    total = terms["adversarial_loss"]
    if kind == "trades":
        total = terms["clean_loss"] + 6.0 * terms["penalty"]
    else:
        terms["penalty"] = 0.0
    for name, value in {**terms, "loss": total}.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)


def test_a_step_in_a_graph_is_that_step(frames):
    settings, steps, step_size = CASES["pgd"]
    model = make_model(adversarial="pgd", **settings)
    kernel = model.classifier.kernel.numpy().astype(float)
    gradient, _ = hand_step(frames, kernel, "pgd", steps, step_size, np.ones_like(WEIGHTS))
    update = tf.function(model.update_of, autograph=False)(data_of(frames))
    np.testing.assert_allclose(update.gradients[0], gradient, atol=1e-6)


@pytest.mark.slow
def test_xla_compiles_the_step(frames):
    """XLA draws other starts, which long steps forget: each one ends where the gradient points."""
    model = make_model(adversarial="pgd", adversarial_steps=20, adversarial_step_size=1e4)
    expected = model.update_of(data_of(frames))
    update = tf.function(model.update_of, autograph=False, jit_compile=True)(data_of(frames))
    np.testing.assert_allclose(update.gradients[0], expected.gradients[0], atol=1e-4)


def test_the_clean_loss_counts_as_asked(frames):
    updates = {}
    for settings in ({}, {"alpha": 0.0, "clean_weight": 1.0}, {"alpha": 2.0, "clean_weight": 3.0}):
        model = make_model(adversarial="fast", **settings)
        before = model.classifier.kernel.numpy()
        model.optimize(data_of(frames))
        updates[len(updates)] = model.classifier.kernel.numpy() - before
    np.testing.assert_allclose(updates[2], 2 * updates[0] + 3 * updates[1], atol=2e-6)


def test_each_step_starts_elsewhere_and_a_repeated_one_where_it_did(frames):
    losses = []
    for iterations in (0, 1, 0):
        model = make_model(adversarial="pgd", adversarial_steps=1, adversarial_step_size=1e-9)
        model.optimizer.iterations.assign(iterations)
        losses.append(float(model.optimize(data_of(frames)).adversarial_loss))
    assert losses[0] == losses[2] != losses[1]


def test_it_costs_a_clean_pass_k_of_the_ascent_and_one_of_the_update(frames):
    for kind, steps in (("pgd", 7), ("trades", 10), ("fast", 1)):
        model, calls = make_model(adversarial=kind), []
        forward = model.classifier.forward

        def counted(*args, forward=forward, calls=calls, **kwargs):
            calls.append(1)
            return forward(*args, **kwargs)

        model.classifier.forward = counted
        model.update_of(data_of(frames))
        assert len(calls) == steps + 2


def test_settings_in_pixels_and_of_a_softmax():
    objective = build_objective(
        ObjectiveConfig(adversarial="pgd", label_loss="SoftmaxLoss", epsilon=400.0), pixels=True
    )
    assert objective.perturbation.attack.clip_to_range == PIXEL_RANGE
    assert objective.perturbation.attack.length_of_step == 1000 / 7
    objective = build_objective(ObjectiveConfig(adversarial="trades", label_loss="SoftmaxLoss"))
    assert isinstance(objective.divergence, SoftmaxDivergence)


def test_the_objective_comes_back_from_its_config():
    for kind in CASES:
        config = ObjectiveConfig(adversarial=kind)
        objective = build_objective(config, pixels=True)
        again = Objective.from_config(objective.get_config())
        assert again.perturbation == objective.perturbation
        assert isinstance(again.perturbation, AscentPerturbation)
        assert again.penalty_weight == (6.0 if kind == "trades" else 0.0)
        assert (again.divergence is None) == (kind != "trades")


@pytest.mark.parametrize("kind", [BernoulliDivergence, SoftmaxDivergence])
def test_divergences_are_those_of_scipy(kind):
    from scipy.special import log_softmax, rel_entr, softmax

    rng = np.random.default_rng(0)
    z, z_adv = rng.normal(0, 3, (2, 5, 4))
    if kind is BernoulliDivergence:
        p, q = sigmoid(z), sigmoid(z_adv)
        expected = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
    else:
        expected = softmax(z, 1) * (log_softmax(z, 1) - log_softmax(z_adv, 1))
    np.testing.assert_allclose(kind("sum")(z, z_adv), expected.sum(1), rtol=1e-10)
    weights = (rng.random(z.shape) < 0.5).astype(float)
    weights[0] = 0
    rated = np.sum(expected * weights, 1) / np.maximum(weights.sum(1), 1)
    np.testing.assert_allclose(kind("mean")(z, z_adv, weights), rated, rtol=1e-10)


def test_the_divergence_is_finite_and_has_a_gradient_at_any_logits():
    z, z_adv = tf.constant([[90.0, -90.0, 0.0]]), tf.constant([[-90.0, 90.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([z, z_adv])
        value = get_divergence("CrossEntropyLoss", "sum")(z, z_adv)
    np.testing.assert_allclose(value, [180.0], rtol=1e-6)
    by_clean, by_adversarial = tape.gradient(value, [z, z_adv])
    np.testing.assert_allclose(by_clean, [[0.0, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(by_adversarial, [[-1.0, 1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "fast", "adversarial_steps": 2}, "fast takes a single step"),
        ({"adversarial": "pgd", "adversarial_steps": 0}, "--adversarial_steps must be at least 1"),
        ({"adversarial_step_size": 0.0}, "--adversarial_step_size must be positive"),
        ({"adversarial": "pgd", "clean_weight": -1.0}, "--clean_weight must be at least 0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)
