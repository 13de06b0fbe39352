"""Weights of classes by their frequency: numbers by hand, the loss, and the counts of records."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, ObjectiveConfig
from yt8m_gat.losses import ClassWeightedLoss, CrossEntropyLoss, class_weights
from yt8m_gat.training import build_objective
from yt8m_gat.training.objective import build_loss


def test_the_weights_are_those_of_the_formulas():
    # 1 / 4, 1, 1 (no clip counts as one): sum 2.25, so times 3 / 2.25.
    np.testing.assert_allclose(class_weights("inverse", [4, 1, 0]), [1 / 3, 4 / 3, 4 / 3])
    # (1 - 0.9^2) / 0.1 = 1.9 and (1 - 0.9^3) / 0.1 = 2.71.
    raw = np.array([1 / 1.9, 1 / 2.71])
    np.testing.assert_allclose(class_weights("effective", [2, 3], 0.9), 2 * raw / raw.sum())
    # Near beta = 1 the effective number is n, and with beta = 0 it is 1.
    inverse = class_weights("inverse", [7, 90, 1])
    np.testing.assert_allclose(class_weights("effective", [7, 90, 1], 1 - 1e-9), inverse, rtol=1e-5)
    np.testing.assert_array_equal(class_weights("effective", [7, 90, 1], 0.0), np.ones(3))
    with pytest.raises(ValueError, match="inverse, effective"):
        class_weights("log", [1])
    with pytest.raises(ValueError, match="`beta` must be in"):
        class_weights("effective", [1], 1.0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_multiplies_the_term_of_each_class(reduction):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, (4, 3)).astype("f8"), rng.normal(size=(4, 3))
    w, rated = np.array([0.5, 2.0, 0.5]), rng.integers(1, 3, (4, 3)).astype("f8")
    terms = (np.logaddexp(0, logits) - labels * logits) * w
    loss = ClassWeightedLoss(CrossEntropyLoss(reduction), w)
    divisors = (3, rated.sum(1)) if reduction == "mean" else (1, 1)
    np.testing.assert_allclose(loss(labels, logits), terms.sum(1) / divisors[0])
    np.testing.assert_allclose(loss(labels, logits, rated), (terms * rated).sum(1) / divisors[1])
    again = ClassWeightedLoss.from_config(loss.get_config())
    np.testing.assert_array_equal(again(labels, logits), loss(labels, logits))


def test_the_objective_is_weighted_and_evaluation_is_not():
    config = ObjectiveConfig(class_weights="inverse", teacher=("a",), adversarial="trades")
    objective = build_objective(config, class_counts=[3, 1])
    assert objective.loss.weights == [0.5, 1.5]
    labels, logits = tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 0.0]])
    np.testing.assert_allclose(objective.loss(labels, logits), [np.log(2)])
    assert isinstance(build_loss(config), CrossEntropyLoss)
    assert isinstance(objective.distillation.loss, CrossEntropyLoss)
    assert not isinstance(objective.divergence, ClassWeightedLoss)
    with pytest.raises(ValueError, match="`class_counts` must be given"):
        build_objective(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": "log"}, "--class_weights must be one of none, inverse, effective"),
        ({"class_weights": "effective", "class_weights_beta": 1.0}, r"in \[0, 1\)"),
        ({"class_weights_beta": 0.9}, "is for --class_weights=effective"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)
