"""The same attacks by foolbox, through the wrapper that docs/EXTENDING.md shows."""

import re
from pathlib import Path

import eagerpy as ep
import foolbox
import numpy as np
import pytest
import tensorflow as tf
from attack_models import FrameOutputs, cross_entropy

from yt8m_gat.attacks import PGD, Ball, FastGradient

EPSILON = 0.4
STEPS = 4


def for_foolbox():
    """Returns the page's function."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "EXTENDING.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(import foolbox\n.*?)```", text, re.DOTALL)
    names = {}
    exec(block, names)
    return names["for_foolbox"]


def with_cross_entropy(attack_class, labels):
    class Attack(attack_class):
        def get_loss_fn(self, model, labels_of_foolbox):
            return lambda inputs: ep.astensor(
                tf.reduce_sum(cross_entropy(labels, model(inputs).raw))
            )

    return Attack


@pytest.mark.parametrize(
    ("theirs", "options", "ours"),
    [
        ("L2FastGradientAttack", {}, FastGradient(Ball("l2", "joint"), EPSILON)),
        ("LinfFastGradientAttack", {}, FastGradient(Ball("linf"), EPSILON)),
        (
            "L2ProjectedGradientDescentAttack",
            {"steps": STEPS, "abs_stepsize": 0.15},
            PGD(Ball("l2", "joint"), EPSILON, steps=STEPS, step_size=0.15),
        ),
        (
            "LinfProjectedGradientDescentAttack",
            {"steps": STEPS, "abs_stepsize": 0.15},
            PGD(Ball("linf"), EPSILON, steps=STEPS, step_size=0.15),
        ),
    ],
)
def test_equals_foolbox(theirs, options, ours, linear, batch):
    # Without the clip that has no frames, whose zero gradient foolbox cannot normalize.
    features = {name: value[:4] for name, value in batch.features.items()}
    mask, labels = batch.frame_mask[:4], batch.labels[:4]
    wrapped, clean = for_foolbox()(
        lambda parts, mask: FrameOutputs(linear(parts, mask), None), features, mask
    )
    attack = with_cross_entropy(getattr(foolbox.attacks, theirs), labels)(
        random_start=False, **options
    )
    # `run`, not the call: the call judges success by a function that NumPy 2 has no more.
    criterion = foolbox.criteria.Misclassification(tf.zeros([4], tf.int32))
    expected = attack.run(wrapped, clean, criterion, epsilon=EPSILON)
    result = ours.attack(linear, cross_entropy, features, mask, labels)
    got = np.concatenate([value.numpy() for value in result.features.values()], -1)
    np.testing.assert_allclose(got, expected.numpy(), atol=2e-5)
