"""A student of a model's answers, and the perturbations that it gives."""

import maskers
import numpy as np
import pytest
import tensorflow as tf
from maskers import MASK, clips

from yt8m_gat.attacks import PGD, Ball, Transfer
from yt8m_gat.robustness.surrogate import Clips, Surrogate

BALL = Ball("l2")


def losses(labels, logits):
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1)


def student(model, steps):
    features, labels = clips()
    made = Surrogate(
        lambda point, mask: tf.sigmoid(model(point, mask)),
        lambda: [Clips(features, MASK, labels)],
        BALL,
        1.0,
        steps,
    )
    made.train()
    return made


def loss_under(attack, model):
    features, labels = clips()
    attacked = tf.function(attack.attack, autograph=False)
    return float(np.mean(attacked(model, losses, features, MASK, labels).loss))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bent", "Shattered"])
def test_a_student_of_a_masked_model_breaks_it_more_than_its_own_gradient(name):
    model = getattr(maskers, name)()
    own = PGD(BALL, 1.0)
    assert loss_under(Transfer(own, student(model, 150)), model) > 1.1 * loss_under(own, model)


@pytest.mark.slow
def test_of_an_honest_model_its_own_gradient_is_stronger():
    model = maskers.Plain()
    own = PGD(BALL, 1.0)
    assert loss_under(Transfer(own, student(model, 150)), model) < loss_under(own, model)


def test_the_model_is_asked_twice_a_step_and_never_for_a_gradient():
    """On the clips and epsilon away; the same steps give the same student."""
    features, _ = clips()
    asked = []

    @tf.custom_gradient
    def without_gradient(logits):
        def backward(gradient):
            raise AssertionError("a gradient was asked for")

        return tf.identity(logits), backward

    class Watched(maskers.Plain):
        def __call__(self, point, mask):
            change = BALL.norm_of({"rgb": point["rgb"] - features["rgb"]}, mask)
            tf.py_function(lambda size: asked.append(size.numpy()), [change], [])
            return without_gradient(super().__call__(point, mask))

    first, second = student(Watched(), 3), student(maskers.Plain(), 3)
    np.testing.assert_allclose(np.max(asked, axis=1), [0.0, 1.0] * 3, rtol=1e-5)
    np.testing.assert_array_equal(first(features, MASK), second(features, MASK))
    with pytest.raises(ValueError, match=r"`steps` must be at least 1\. Received: steps=0"):
        student(maskers.Plain(), 0)
