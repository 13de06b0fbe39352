"""The attack that sees only decisions, where the nearest broken point is known."""

import numpy as np
import pytest
import tensorflow as tf
from attack_models import SIZES, CountedCalls, LinearModel, cross_entropy

from yt8m_gat.attacks import Ball, Criterion, HopSkipJump
from yt8m_gat.attacks.hop_skip_jump import HALVINGS, PROBES, STARTS, STEP_SIZES

FRAMES = (5, 3, 1, 4)


@pytest.fixture(scope="module")
def linear():
    """Two classes: one plane between them, so that a walk cannot end at a further one."""
    return LinearModel(np.random.default_rng(1), num_classes=2)


def clips(linear, batch):
    """Four clips whose one label is their top class."""
    features = {name: value[:4] for name, value in batch.features.items()}
    mask = batch.frame_mask[:4]
    labels = tf.one_hot(tf.argmax(linear(features, mask), axis=1), 2)
    return features, mask, labels


def nearest(linear, features, mask, ball):
    """The closed form: the margin over the dual norm of its slope."""
    margin = np.abs(np.diff(linear(features, mask))[:, 0])
    slopes = [np.diff(kernel)[:, 0] for kernel in linear.kernels.values()]
    if ball.norm == "linf":
        return margin / sum(np.abs(slope).sum() for slope in slopes)
    if ball.scope == "frame":
        return margin / sum(np.linalg.norm(slope) for slope in slopes)
    # In each frame, the slope of the mean over the frames.
    return margin * np.sqrt(FRAMES) / np.linalg.norm(np.concatenate(slopes))


@pytest.mark.parametrize(
    "ball",
    [
        Ball("l2"),
        pytest.param(Ball("linf"), marks=pytest.mark.slow),
        pytest.param(Ball("l2", "joint"), marks=pytest.mark.slow),
    ],
)
def test_the_distance_approaches_the_closed_form(ball, linear, batch):
    features, mask, labels = clips(linear, batch)
    expected = nearest(linear, features, mask, ball)
    # Epsilon between the distances: the attack breaks exactly the clips that can be broken.
    epsilon = float(np.sort(expected)[1:3].mean())
    attack = tf.function(HopSkipJump(ball, epsilon, queries=1000).attack, autograph=False)
    found = attack(linear, cross_entropy, features, mask, labels, 1)
    distance = found.figures["distance"].numpy()
    assert np.all(distance >= expected * (1 - 1e-4))
    assert np.all(distance <= expected * 1.1), distance / expected
    np.testing.assert_array_equal(found.success, expected < epsilon)
    np.testing.assert_allclose(found.norm, epsilon, rtol=1e-4)
    early, late = (found.figures[f"success_after_{n}_queries"].numpy() for n in (100, 300))
    assert np.all(early <= late) and np.all(late <= (expected < epsilon))


def test_it_sees_decisions_and_nothing_else(linear, batch):
    """The same points on a model that shows only its top class, and has no gradient."""
    features, mask, labels = clips(linear, batch)

    @tf.custom_gradient
    def without_gradient(logits):
        def backward(gradient):
            raise AssertionError("a gradient was asked for")

        return tf.identity(logits), backward

    def decisions(features, mask):
        return without_gradient(tf.one_hot(tf.argmax(linear(features, mask), 1), 2))

    attack = HopSkipJump(Ball("l2"), 0.3, queries=97)
    model = CountedCalls(decisions)
    found = attack.attack(model, lambda labels, logits: logits[:, 0] * 0, features, mask, labels)
    expected = attack.attack(linear, cross_entropy, features, mask, labels)
    for name in SIZES:
        np.testing.assert_array_equal(found.features[name], expected.features[name])
    assert model.calls == 100 == attack.cost.forward and attack.cost.backward == 0


@pytest.mark.parametrize("queries", [1, 10, 20, 40, 200, 5000])
def test_no_query_is_left_over(queries):
    starts, halvings, probes = HopSkipJump(Ball("l2"), 0.3, queries)._plan()
    assert starts + halvings + sum(probes) + len(probes) * (STEP_SIZES + HALVINGS) == queries
    assert starts == min(STARTS, queries) and all(count >= PROBES for count in probes)


def test_a_clip_that_nothing_breaks_has_no_distance(linear, batch):
    features, mask, _ = clips(linear, batch)
    labels = [[0.0, 1.0, 0.0]] * 4

    def second(features, mask):
        """The label comes second, for every clip."""
        del features, mask
        return tf.constant([[9.0, 5.0, 0.0]] * 4)

    attack = HopSkipJump(Ball("l2"), 0.3, queries=30, criterion=Criterion("any", k=2))
    found = attack.attack(second, cross_entropy, features, mask, labels)
    assert np.all(np.isinf(found.figures["distance"])) and not np.any(found.success)
    np.testing.assert_allclose(found.norm, 0.3, rtol=1e-5)
    # Not the top class: broken as it stands.
    attack = HopSkipJump(Ball("l2"), 0.3, queries=1)
    found = attack.attack(second, cross_entropy, features, mask, labels)
    np.testing.assert_array_equal(found.figures["distance"], 0.0)
    np.testing.assert_array_equal(found.norm, 0.0)
