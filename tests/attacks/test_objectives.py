"""The difference of logits ratio: its value, and that no scaling of the logits hides a model."""

import numpy as np
import pytest
import tensorflow as tf
from attack_models import cross_entropy

from yt8m_gat.attacks import PGD, Ball, dlr_loss, margin_loss

RNG = np.random.default_rng(4)
LOGITS = RNG.normal(size=(7, 6)).astype(np.float32)
# One label; two; P + 2 > C; all classes; none.
LABELS = np.array(
    [
        *([0, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1] * 6, [0] * 6),
        *([0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]),
    ],
    np.float32,
)


def by_hand(labels, logits, rated):
    """The docstring's formula for one clip."""
    labels, logits = labels[rated] > 0, logits[rated]
    if labels.all() or not labels.any():
        return 0.0
    ordered = sorted(logits, reverse=True)
    spread = ordered[0] - ordered[min(labels.sum() + 1, len(ordered) - 1)]
    return (logits[~labels].max() - logits[labels].max()) / spread


@pytest.mark.parametrize("rated", [1.0, 0.7])
def test_dlr_is_the_margin_over_the_spread(rated):
    weights = (np.random.default_rng(5).random(LOGITS.shape) < rated).astype(np.float32)
    expected = [by_hand(*clip, w > 0) for *clip, w in zip(LABELS, LOGITS, weights, strict=True)]
    np.testing.assert_allclose(dlr_loss(LABELS, LOGITS, weights), expected, rtol=1e-5)
    if rated == 1.0:
        np.testing.assert_allclose(dlr_loss(LABELS, LOGITS), expected, rtol=1e-5)


def test_one_label_gives_the_paper_s_formula():
    """Eq. 3: -(z_y - max of the others) / (z_(1) - z_(3))."""
    z = LOGITS[0]
    first, _, third = np.sort(z)[::-1][:3]
    expected = -(z[1] - np.delete(z, 1).max()) / (first - third)
    np.testing.assert_allclose(dlr_loss(LABELS[:1], LOGITS[:1]), [expected], rtol=1e-6)


def slope(logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_sum(dlr_loss(LABELS, logits))
    return tape.gradient(value, logits).numpy()


def test_scaling_and_shifting_change_neither_value_nor_direction():
    np.testing.assert_allclose(
        dlr_loss(LABELS, 1e4 * LOGITS + 7), dlr_loss(LABELS, LOGITS), atol=1e-3
    )
    np.testing.assert_allclose(1e4 * slope(1e4 * LOGITS), slope(LOGITS), rtol=1e-3, atol=1e-6)


def test_gradients_are_finite_and_are_there_where_a_margin_is():
    gradient = slope(LOGITS)
    assert (np.abs(gradient).sum(axis=1) > 0).tolist() == [True] * 3 + [False] * 2 + [True] * 2
    np.testing.assert_array_equal(slope(np.zeros_like(LOGITS)), 0.0)


def test_pgd_on_dlr_does_not_see_that_logits_are_scaled(attentive, batch):
    def scaled(features, frame_mask):
        return 1e4 * attentive(features, frame_mask)

    def labelled_at_top(model):
        """One label, the top class: a model that is sure, and right."""
        top = tf.argmax(model(batch.features, batch.frame_mask), axis=-1)
        return tf.one_hot(top, batch.labels.shape[1])

    labels = labelled_at_top(attentive)

    def margins(model, loss, objective):
        result = PGD(Ball(), 0.6, steps=8, objective=objective).attack(
            model, loss, batch.features, batch.frame_mask, labels
        )
        return margin_loss(labels, attentive(result.features, batch.frame_mask)).numpy()[:4]

    plain = margins(attentive, dlr_loss, "dlr")
    np.testing.assert_allclose(margins(scaled, dlr_loss, "dlr"), plain, atol=2e-2)
    # The cross-entropy of the scaled model is 0, and so is its gradient.
    assert margins(scaled, cross_entropy, "loss").mean() < plain.mean() - 0.5
