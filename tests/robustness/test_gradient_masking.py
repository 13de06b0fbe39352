"""The sanity checks on models that hide their gradients, and on honest ones.

Real attacks on small models: nothing of the rows is written by hand.
"""

import functools

import maskers
import numpy as np
import pytest
import tensorflow as tf
from maskers import CLASSES, FRAMES, MASK, clips

from yt8m_gat.attacks import OBJECTIVE_LOSSES, PGD, AttackOptions, Ball, margin_loss
from yt8m_gat.attacks.attack import Problem, loss_and_gradients
from yt8m_gat.metrics import EvaluationMetrics
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.gradient_check import (
    FACTORS,
    GradientFigures,
    measure_slopes,
    passes_differ,
)
from yt8m_gat.robustness.sanity import UNBOUNDED_EPSILON, failed, sanity_checks, sanity_specs

EPSILON = 1.0
BALL = Ball("l2", "frame")

HONEST = {
    "plain": maskers.Plain(),
    "kinked": maskers.Kinked(),
    "bounded": maskers.Bounded(),
    "sharp": maskers.Sharp(),
}
# A model -> the check that catches it.
MASKERS = {
    "logits times 30": (maskers.Scaled(30.0), "logit_scale"),
    "logits times 10,000": (maskers.Scaled(1e4), "zero_gradients"),
    "bent gradient": (maskers.Bent(), "gradient"),
    "turned where PGD ends": (maskers.TurnedWhereUnsure(), "gradient"),
    "half of the gradient": (maskers.PartlyBlind(), "gradient"),
    "quantized inputs": (maskers.QuantizedInputs(), "zero_gradients"),
    "straight-through": (maskers.StraightThrough(), "gradient"),
    "saturated": (maskers.Saturated(), "zero_gradients"),
    "staircase": (maskers.Staircase(), "zero_gradients"),
    "noise": (maskers.Noisy(), "deterministic"),
    "clipped gradients": (maskers.ClippedGradients(), "gradient"),
    "distracting": (maskers.Distracting(), "white_box_over_decisions"),
    "shattered": (maskers.Shattered(), "white_box_over_gradient_free"),
}


def losses(labels, logits):
    labels = tf.cast(labels, logits.dtype)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1)


def slopes_at(model, point, labels):
    def gradient_at(at):
        return loss_and_gradients(Problem(model, losses, at, MASK, labels), at)[:2]

    def loss_at(at):
        return losses(labels, model(at, MASK))

    return measure_slopes(gradient_at, loss_at, point, MASK, BALL, EPSILON)


def gradient_figures(model, *, at_the_end=True):
    features, labels = clips()
    slopes = {"clean": slopes_at(model, features, labels)}
    if at_the_end:
        end = PGD(BALL, EPSILON).perturb(Problem(model, losses, features, MASK, labels))
        slopes["pgd"] = slopes_at(model, end.features, labels)
    figures = GradientFigures(EPSILON)
    logits = model(features, MASK)
    by_factor = np.array([losses(labels, factor * logits) for factor in FACTORS])
    figures.update(passes_differ(logits, model(features, MASK)), by_factor, slopes)
    return figures.result()


def evaluation(model, specs):
    """(clean row, attacked rows) as `eval.py` has them, attacked white-box and from a twin."""
    features, labels = clips()

    def row(logits):
        metrics = EvaluationMetrics(CLASSES, 20, all_scores=False)
        metrics.update(labels.numpy(), logits.numpy())
        figures = {"loss": losses(labels, logits), "margin": margin_loss(labels, logits)}
        means = {name: float(tf.reduce_mean(value)) for name, value in figures.items()}
        return {**metrics.result(), **means}

    problem = Problem(model, losses, features, MASK, labels)
    _, gradients, outputs = loss_and_gradients(problem, features)
    clean = row(outputs)
    zero = np.all(gradients["rgb"] == 0, axis=(1, 2))
    clean["zero_gradient_share"] = float(np.mean(zero))
    attacks = []
    for text, epsilon in specs:
        spec = AttackSpec.parse(text)
        attack = spec.build(epsilon, AttackOptions(), maskers.Plain(seed=9))
        climbed = {"loss": losses, **OBJECTIVE_LOSSES}[attack.objective]
        attacked = functools.partial(attack.attack, model, climbed)
        if "=1" in text:  # Many steps: a graph is faster.
            attacked = tf.function(attacked, autograph=False)
        found = row(attacked(features, MASK, labels).logits)
        options = spec.settings(AttackOptions())
        attacks.append({**found, "attack": text, "options": options, "epsilon": epsilon})
    return clean, attacks


def verdicts(model, *, attacked=True):
    positives = clips()[1].numpy().sum(axis=0)
    specs = sanity_specs(EPSILON, True, sweep=(UNBOUNDED_EPSILON,)) if attacked else ()
    clean, attacks = evaluation(model, specs)
    gradients = gradient_figures(model)
    return sanity_checks(
        clean, attacks, max_frames=FRAMES, num_features=1, gradients=gradients, positives=positives
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_passes_every_check(name):
    found = verdicts(HONEST[name])
    assert {v["verdict"] for v in found} == {"pass"}, found


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKERS)
def test_a_masked_model_fails_the_check_that_is_named(name):
    model, check = MASKERS[name]
    # Most are caught before any attack.
    found = verdicts(model, attacked=check.startswith("white_box"))
    assert check in failed(found), found


@pytest.mark.parametrize(
    ("model", "ratio"), [(maskers.Plain(), 1.0), (maskers.Kinked(), 1.0), (maskers.Bent(), 0.0)]
)
def test_slopes_tell_a_bent_gradient(model, ratio):
    """Without any attack: differences of the loss along the direction that one would take."""
    found = gradient_figures(model, at_the_end=False)
    assert found["precision"] == "float64"
    along, across = found["points"]
    assert (along["direction"], across["direction"]) == ("attack", "random")
    outside = float(ratio == 0.0)
    assert (along["outside_share"], across["outside_share"]) == (outside, outside)
    assert along["ratio"] == pytest.approx(ratio, abs=1e-4 if ratio else 0.1)


def test_a_part_without_gradient_shows_in_random_directions_alone():
    along, across = gradient_figures(maskers.PartlyBlind(), at_the_end=False)["points"]
    assert along["outside_share"] == 0.0 and across["outside_share"] > 0.5


@pytest.mark.slow
def test_a_gradient_that_is_wrong_only_where_pgd_ends_is_right_when_clean():
    points = gradient_figures(maskers.TurnedWhereUnsure())["points"]
    shares = {(of["point"], of["direction"]): of["outside_share"] for of in points}
    assert shares["clean", "attack"] <= 0.05 < shares["pgd", "attack"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Staircase", "Shattered", "QuantizedInputs", "Bent"])
def test_the_masked_models_answer_like_the_plain_one(name):
    plain, model = maskers.Plain(), getattr(maskers, name)()
    features, labels = clips()
    difference = model(features, MASK) - plain(features, MASK)
    assert float(tf.reduce_max(tf.abs(difference))) < 1.0
    top = tf.argmax(plain(features, MASK), axis=1)
    assert float(tf.reduce_mean(tf.gather(labels, top, axis=1, batch_dims=1))) > 0.9
