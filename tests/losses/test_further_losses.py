"""Focal and asymmetric loss and smoothed labels, against Keras and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, ObjectiveConfig
from yt8m_gat.losses import get_loss
from yt8m_gat.training.objective import build_loss


def example():
    rng = np.random.default_rng(0)
    labels = (rng.random((6, 9)) < 0.3).astype(np.float64)
    labels[0] = 0
    return labels, rng.normal(0, 3, (6, 9)), rng.integers(0, 3, (6, 9)).astype(np.float64)


def reference_terms(name, labels, logits, **options):
    p = 1 / (1 + np.exp(-logits))
    if name == "AsymmetricLoss":
        options = {"positive_gamma": 0.0, "negative_gamma": 4.0, "margin": 0.05, **options}
        q = np.maximum(p - options["margin"], 0)
        positive = (1 - p) ** options["positive_gamma"] * np.log(p)
        return -labels * positive - (1 - labels) * q ** options["negative_gamma"] * np.log(1 - q)
    smoothing = options["label_smoothing"]
    if name == "SoftmaxLoss":
        count = labels.sum(1, keepdims=True)
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        smooth = labels / np.maximum(count, 1) * (1 - smoothing) + smoothing / labels.shape[1]
        return np.where(count > 0, -smooth * np.log(softmax), 0)
    smooth = labels * (1 - smoothing) + smoothing / 2
    return -smooth * np.log(p) - (1 - smooth) * np.log(1 - p)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AsymmetricLoss", {}),
        ("AsymmetricLoss", {"positive_gamma": 1.0, "negative_gamma": 2.5, "margin": 0.0}),
        ("CrossEntropyLoss", {"label_smoothing": 0.2}),
        ("SoftmaxLoss", {"label_smoothing": 0.2}),
    ],
)
def test_is_the_definition_also_of_rated_pairs(name, options):
    labels, logits, weights = example()
    terms = reference_terms(name, labels, logits, **options)
    loss = get_loss(name, "sum", **options)
    np.testing.assert_allclose(loss(labels, logits), terms.sum(1), rtol=1e-10)
    again = type(loss).from_config(loss.get_config())
    np.testing.assert_allclose(again(labels, logits), terms.sum(1), rtol=1e-10)
    if name != "SoftmaxLoss":  # Which labels are known changes its targets.
        rated = (terms * weights).sum(1) / weights.sum(1)
        mean = get_loss(name, "mean", **options)
        np.testing.assert_allclose(mean(labels, logits, weights), rated, rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"gamma": 1.5, "alpha": 0.3}, {"gamma": 0}])
def test_focal_is_that_of_keras(options):
    labels, logits, weights = example()
    theirs = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing="alpha" in options,
        alpha=options.get("alpha", 0.25),
        gamma=options.get("gamma", 2.0),
        from_logits=True,
        reduction="none",
        dtype="float64",
    )
    terms = np.array(theirs(labels[..., None], logits[..., None]))
    loss = get_loss("FocalLoss", "mean", **options)
    np.testing.assert_allclose(loss(labels, logits), terms.mean(1), rtol=1e-5)
    rated = (terms * weights).sum(1) / weights.sum(1)
    np.testing.assert_allclose(loss(labels, logits, weights), rated, rtol=1e-5)
    again = type(loss).from_config(loss.get_config())
    np.testing.assert_allclose(again(labels, logits), loss(labels, logits))


def test_smoothed_labels_are_those_of_keras():
    labels, logits, _ = example()
    options = {"from_logits": True, "label_smoothing": 0.3, "reduction": "none", "dtype": "float64"}
    binary = keras.losses.BinaryCrossentropy(**options)(labels, logits)
    ours = get_loss("CrossEntropyLoss", "mean", label_smoothing=0.3)(labels, logits)
    np.testing.assert_allclose(ours, binary, rtol=1e-10)
    single = np.eye(9)[[0, 3, 3, 8, 2, 1]]
    categorical = keras.losses.CategoricalCrossentropy(**options)(single, logits)
    ours = get_loss("SoftmaxLoss", "sum", label_smoothing=0.3)(single, logits)
    np.testing.assert_allclose(ours, categorical, rtol=1e-10)


@pytest.mark.parametrize("name", ["FocalLoss", "AsymmetricLoss"])
def test_a_confident_error_keeps_its_gradient_and_nothing_is_nan(name):
    logits = tf.constant([[100.0, -100.0, 100.0, -100.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = get_loss(name, "sum")([[1.0, 0.0, 0.0, 1.0]], logits)
    gradient = tape.gradient(value, logits).numpy()[0]
    assert np.isfinite(value.numpy()).all() and np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[:2], 0, atol=1e-6)
    assert gradient[3] == pytest.approx(-1.0)
    # 1 - q is at least the margin, so that a negative's gradient vanishes there.
    assert gradient[2] == pytest.approx(1.0 if name == "FocalLoss" else 0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_loss": "HingeLoss", "label_loss_options": {"gamma": 1}}, "it has none"),
        ({"label_loss_options": {"gama": 1}}, "'gama' is no option of CrossEntropyLoss; it has"),
        ({"label_loss_options": {"label_smoothing": "0.1"}}, "must be a number. Received: '0.1'"),
        ({"label_loss_options": {"label_smoothing": 1.5}}, r"must be in \[0, 1\]"),
        ({"label_loss": "FocalLoss", "label_loss_options": {"gamma": 0.5}}, "0, or at least 1"),
        ({"label_loss": "a:b", "label_loss_options": {"gamma": 1}}, "losses of this package"),
    ],
)
def test_options_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(ObjectiveConfig(**settings))
