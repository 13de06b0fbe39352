"""The sanity checks on models that hide their gradients, and on one that does not.

Real attacks on small models: nothing of the rows is written by hand.
"""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import (
    PGD,
    AttackOptions,
    Ball,
    FastGradient,
    RandomNoise,
    SquareSearch,
    Transfer,
    margin_loss,
)
from yt8m_gat.attacks.attack import Problem, loss_and_gradients
from yt8m_gat.metrics import EvaluationMetrics
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.sanity import UNBOUNDED_EPSILON, failed, sanity_checks, sanity_specs

pytestmark = pytest.mark.slow

CLIPS, FRAMES, SIZE, CLASSES = 24, 4, 24, 60
EPSILON = 0.5
BALL = Ball("l2", "frame")
MASK = tf.sequence_mask([4, 3, 2] * (CLIPS // 3), FRAMES)


def directions(seed, size=0.0):
    """A unit vector per class, [C, D]; with a `size`, moved from the common ones by that much."""
    common = np.random.default_rng(0).normal(size=(CLASSES, SIZE))
    moved = common + size * np.random.default_rng(seed).normal(size=(CLASSES, SIZE))
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype("float32")


def clips():
    """Clips whose frames lie around twice the direction of their class, and the labels."""
    rng = np.random.default_rng(1)
    classes = rng.permutation(CLASSES)[:CLIPS]
    noise = 0.5 * rng.normal(size=(CLIPS, FRAMES, SIZE))
    values = (2.0 * directions(0)[classes][:, None] + noise) * MASK.numpy()[..., None]
    return {"rgb": tf.constant(values, tf.float32)}, tf.one_hot(classes, CLASSES)


class Plain:
    """How far the mean of the real frames, a little bent, lies along each class's direction.

    Twins (other seeds) have nearly the same directions, as two trainings of one model would.
    """

    def __init__(self, seed):
        self.kernel = tf.constant(directions(seed, size=0.1).T)

    def __call__(self, features, frame_mask):
        weights = tf.cast(frame_mask, tf.float32)[..., None]
        mean = tf.reduce_sum(features["rgb"] * weights, 1) / tf.reduce_sum(weights, 1)
        return 4.0 * (mean + 0.3 * tf.sin(mean)) @ self.kernel - 6.0


class Quantized:
    """The plain model with its logits rounded: the same answers, no gradient at all."""

    def __init__(self, model):
        self.model = model

    def __call__(self, features, frame_mask):
        logits = self.model(features, frame_mask)
        return tf.stop_gradient(tf.round(4.0 * logits) / 4.0) + 0.0 * logits


class Shattered:
    """The plain model with a ripple on its inputs: small, and with a slope that says nothing."""

    def __init__(self, model):
        self.model = model

    def __call__(self, features, frame_mask):
        values = features["rgb"]
        return self.model({"rgb": values + 0.02 * tf.sin(1000.0 * values)}, frame_mask)


def losses(labels, logits):
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1)


def attack_of(spec, epsilon, source):
    return {
        "fgm": lambda: FastGradient(BALL, epsilon),
        "pgd": lambda: PGD(BALL, epsilon, steps=20),
        "pgd:steps=100": lambda: PGD(BALL, epsilon, steps=100),
        "pgd_margin": lambda: PGD(BALL, epsilon, steps=20, objective="margin"),
        "noise": lambda: RandomNoise(BALL, epsilon),
        "square": lambda: SquareSearch(BALL, epsilon, queries=100),
        "transfer": lambda: Transfer(PGD(BALL, epsilon, steps=20), source),
    }[spec]()


def evaluation(model):
    """(clean row, attacked rows) as `eval.py` has them, attacked white-box and from a twin."""
    features, labels = clips()
    logits = model(features, MASK)

    def row(logits, loss):
        metrics = EvaluationMetrics(CLASSES, 20, all_scores=False)
        metrics.update(labels.numpy(), tf.sigmoid(logits).numpy())
        return {"hit_at_1": metrics.result()["hit_at_1"], "loss": float(tf.reduce_mean(loss))}

    problem = Problem(model, losses, features, MASK, labels)
    _, gradients, _ = loss_and_gradients(problem, features)
    clean = row(logits, losses(labels, logits))
    clean["zero_gradient_share"] = float(np.mean(np.all(gradients["rgb"] == 0, axis=(1, 2))))
    attacks = []
    for spec, epsilon in sanity_specs(EPSILON, True, sweep=(0.1, 2.0, UNBOUNDED_EPSILON)):
        attack = attack_of(spec, epsilon, Plain(seed=9))
        climbed = {"loss": losses, "margin": margin_loss}[attack.objective]
        result = attack.attack(model, climbed, features, MASK, labels)
        found = row(result.logits, losses(labels, result.logits))
        options = AttackSpec.parse(spec).settings(AttackOptions())
        attacks.append({"attack": spec, "options": options, "epsilon": epsilon, **found})
    return clean, attacks


def verdicts(model):
    return sanity_checks(*evaluation(model), max_frames=FRAMES, num_features=1)


def test_a_plain_model_passes_every_check():
    found = verdicts(Plain(seed=2))
    assert {v["verdict"] for v in found} == {"pass"}, found


def test_a_model_without_gradients_fails():
    found = verdicts(Quantized(Plain(seed=2)))
    # Both gradient attacks stand still, at every radius alike: that in itself looks like honesty.
    assert set(failed(found)) == {
        "unbounded",
        "white_box_over_transfer",
        "white_box_over_gradient_free",
    }
    assert {v["check"]: v["verdict"] for v in found}["zero_gradients"] == "warning"


def test_a_model_with_shattered_gradients_fails():
    found = verdicts(Shattered(Plain(seed=2)))
    assert {"unbounded", "white_box_over_transfer", "white_box_over_gradient_free"} <= set(
        failed(found)
    ), found
    assert {v["check"]: v["verdict"] for v in found}["zero_gradients"] == "pass"


@pytest.mark.parametrize("model", [Quantized, Shattered])
def test_the_masked_models_answer_like_the_plain_one(model):
    plain = Plain(seed=2)
    features, labels = clips()
    difference = model(plain)(features, MASK) - plain(features, MASK)
    assert float(tf.reduce_max(tf.abs(difference))) < 0.3
    top = tf.argmax(plain(features, MASK), axis=1)
    assert float(tf.reduce_mean(tf.gather(labels, top, axis=1, batch_dims=1))) > 0.9
