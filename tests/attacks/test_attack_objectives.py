"""The difference of logits ratio: its value, and that no scaling of the logits hides a model."""

import numpy as np
import pytest
import tensorflow as tf
from attack_models import cross_entropy

from yt8m_gat.attacks import PGD, Ball, Criterion, dlr_loss, margin_loss, normalized_loss

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


def met_by_hand(name, k, labels, logits):
    """Read off the ranks of the labels."""
    ranks = [int((logits > value).sum()) for value in logits[labels > 0]]
    if not ranks:
        return False
    if name == "any":
        return max(ranks) >= max(k, len(ranks))
    return min(ranks) >= (k if name == "all" else 1)


@pytest.mark.parametrize(
    ("name", "k"), [("top1", 5), ("any", 1), ("any", 3), ("all", 1), ("all", 2)]
)
def test_a_criterion_is_met_where_the_ranks_say_so(name, k):
    rng = np.random.default_rng(6)
    labels, logits = (rng.random((200, 6)) < 0.3) * 1.0, rng.normal(size=(200, 6))
    # With fewer other classes than k, the lowest one counts: not for this table of ranks.
    enough = (labels == 0).sum(axis=1) >= k
    labels, logits = labels[enough], logits[enough]
    criterion = Criterion(name, k)
    expected = [met_by_hand(name, k, *clip) for clip in zip(labels, logits, strict=True)]
    np.testing.assert_array_equal(criterion.met(labels, logits), expected)
    labelled = labels.any(axis=1)
    np.testing.assert_array_equal(criterion.margin(labels, logits)[labelled] > 0,
                                  np.array(expected)[labelled])  # fmt: skip
    ratio = criterion.ratio(labels, logits).numpy()
    np.testing.assert_array_equal(ratio > 0, expected)
    leading = labels * 100 + logits  # All labels above all others: within [-1, 0], as in the paper.
    in_range = criterion.ratio(labels, leading).numpy()
    assert in_range.min() >= -1 and in_range.max() <= 0


def test_a_target_is_raised_above_the_label():
    """Eq. 4: -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), t the second of the other classes."""
    z, criterion = LOGITS[:1], Criterion("top1")
    target = criterion.target(LABELS[:1], z, 1).numpy()
    others = np.argsort(-np.where(LABELS[0] > 0, -np.inf, z[0]))
    np.testing.assert_array_equal(np.flatnonzero(target), others[1:2])
    ordered = np.sort(z[0])[::-1]
    expected = (z[0, others[1]] - z[0, 1]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)
    np.testing.assert_allclose(criterion.ratio(LABELS[:1], z, None, target), [expected], rtol=1e-5)
    # Two classes have to pass the label: the lower of them is the term to raise.
    both = Criterion("all", k=2)
    target = both.target(LABELS[:1], z, 1).numpy()
    assert set(np.flatnonzero(target)) == set(others[1:3])
    lower = z[0, others[1:3]].min()
    np.testing.assert_allclose(both.margin(LABELS[:1], z, None, target), [lower - z[0, 1]], 1e-5)


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
        result = PGD(Ball(), 0.6, steps=4, objective=objective).attack(
            model, loss, batch.features, batch.frame_mask, labels
        )
        return margin_loss(labels, attentive(result.features, batch.frame_mask)).numpy()[:4]

    plain = margins(attentive, dlr_loss, "dlr")
    np.testing.assert_allclose(margins(scaled, dlr_loss, "dlr"), plain, atol=2e-2)
    # The cross-entropy of the scaled model is 0, and so is its gradient.
    assert margins(scaled, cross_entropy, "loss").mean() < plain.mean() - 0.5


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e30])
def test_normalized_logits_have_a_deviation_of_two_over_the_rated_classes(factor):
    weights = np.array([1, 1, 0, 1, 1, 0], np.float32) * np.ones_like(LOGITS)
    rated = LOGITS[:, weights[0] > 0]
    scaled = 2 * rated / rated.std(axis=1, keepdims=True)
    terms = np.log1p(np.exp(scaled)) - LABELS[:, weights[0] > 0] * scaled
    with tf.GradientTape() as tape:
        logits = tf.Variable(np.float32(factor) * LOGITS)
        losses = normalized_loss(LABELS, logits, weights)
    np.testing.assert_allclose(losses, terms.mean(axis=1), rtol=1e-5)
    # A function that no factor changes has no slope along its logits.
    gradient = tf.convert_to_tensor(tape.gradient(losses, logits)).numpy() * factor
    along = np.sum(gradient * LOGITS, axis=1) / np.abs(gradient * LOGITS).sum(axis=1)
    np.testing.assert_allclose(along, 0.0, atol=1e-5)
    assert np.all(gradient[:, weights[0] == 0] == 0)


def test_normalized_logits_that_are_equal_have_a_value_and_no_gradient():
    logits = tf.Variable(np.full((1, 4), 3.0, np.float32))
    with tf.GradientTape() as tape:
        loss = normalized_loss(LABELS[:1, :4], logits)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    assert np.all(tape.gradient(loss, logits) == 0)
