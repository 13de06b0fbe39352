"""The ensemble: the worst of all that its attacks have looked at, and when it stops looking."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from attack_models import cross_entropy

from yt8m_gat.attacks import APGD, AutoAttack, Ball, Criterion, margin_loss

SMALL = AutoAttack(Ball(), 0.3, steps=2, targets=2, queries=4, early_exit=False)


@pytest.mark.parametrize("criterion", [Criterion(), Criterion("any", 3)])
def test_each_clip_ends_at_the_highest_margin_of_all_that_was_looked_at(
    criterion, attentive, batch
):
    margins = []

    def model(features, frame_mask):
        logits = attentive(features, frame_mask)
        margins.append(criterion.margin(batch.labels, logits).numpy())
        return logits

    attack = dataclasses.replace(SMALL, criterion=criterion)
    result = attack.attack(model, cross_entropy, *batch, 3)
    assert len(margins) == attack.cost.forward
    assert attack.cost == (1 + 4 * 3 + 4 + 2 + 1, 4 * 3)
    reached = criterion.margin(batch.labels, result.logits)
    np.testing.assert_allclose(reached, np.max(margins, axis=0), rtol=1e-5, atol=1e-6)
    labelled = batch.labels.numpy().any(axis=1)
    np.testing.assert_array_equal(result.success, (np.max(margins, axis=0) > 0) & labelled)
    assert result.success.numpy().any()


def right_at_first(model, batch):
    """The top class is the label, but for clip 0, which is wrong before any attack."""
    logits = model(batch.features, batch.frame_mask).numpy()
    best = logits.argmax(axis=1)
    best[0] = logits[0].argmin()
    return np.eye(12, dtype=np.float32)[best]


def test_broken_clips_take_no_further_part(attentive, batch):
    labels = right_at_first(attentive, batch)
    sizes = []

    def model(features, frame_mask):
        sizes.append(len(features["rgb"]))
        return attentive(features, frame_mask)

    def weighted(num_clips):
        """A loss that knows the whole batch, as that of rated segments does."""
        weights = tf.range(1.0, num_clips + 1.0)
        return lambda labels, logits: weights * cross_entropy(labels, logits)

    attack = dataclasses.replace(SMALL, early_exit=True)
    result = attack.attack(model, weighted(5), batch.features, batch.frame_mask, labels, 3)
    # All look at the clean clips and at the result; clip 0 is broken from the first.
    assert sizes[0] == sizes[-1] == 5 and max(sizes[1:-1]) == 4
    assert result.success[0] and result.norm[0] == 0
    # The clip without frames cannot be moved: the attacks go on for it to the end.
    assert not result.success[4] and sizes[-2] < 4
    without = dataclasses.replace(attack, epsilon=60.0)
    four = [batch.features[name][:4] for name in ("rgb", "audio")]
    sizes.clear()
    without.attack(
        model, weighted(4), dict(zip(("rgb", "audio"), four, strict=True)),
        batch.frame_mask[:4], labels[:4], 3,
    )  # fmt: skip
    assert len(sizes) < without.cost.forward / 3


@pytest.mark.slow
def test_it_breaks_a_model_without_gradients(attentive, batch):
    """A staircase: its gradient is 0, so only the search without gradients finds a way."""

    def staircase(features, frame_mask):
        steps = {name: tf.round(4.0 * value) / 4.0 for name, value in features.items()}
        return attentive(steps, frame_mask) + 0.0 * attentive(features, frame_mask)

    labels = tf.constant(right_at_first(staircase, batch))
    args = (batch.features, batch.frame_mask, labels)
    climbed = APGD(Ball(), 0.6, steps=1, objective="margin").attack(staircase, margin_loss, *args)
    attack = AutoAttack(Ball(), 0.6, steps=1, targets=1, queries=40)
    found = attack.attack(staircase, cross_entropy, *args, 3)
    clean = margin_loss(labels, staircase(batch.features, batch.frame_mask))
    np.testing.assert_allclose(climbed.loss, clean, rtol=1e-6)
    assert found.success.numpy()[1:4].any() and not climbed.success.numpy()[1:4].any()


def test_classes_that_were_not_rated_neither_break_nor_save_a_clip(attentive, batch):
    labels = right_at_first(attentive, batch)
    # Only the label is rated: there is no other class to pass it.
    result = AutoAttack(Ball(), 0.3, steps=1, targets=1, queries=1).attack(
        attentive, cross_entropy, batch.features, batch.frame_mask, labels, 3, tf.constant(labels)
    )
    assert not result.success.numpy().any()


@pytest.mark.slow
def test_a_graph_agrees_with_eager(attentive, batch):
    attack = dataclasses.replace(SMALL, early_exit=True)
    spec = {k: tf.TensorSpec([None, None, v.shape[-1]]) for k, v in batch.features.items()}

    @tf.function(
        input_signature=[
            spec,
            tf.TensorSpec([None, None], tf.bool),
            tf.TensorSpec([None, 12], tf.float32),
        ]
    )
    def success(features, mask, labels):
        result = attack.attack(attentive, cross_entropy, features, mask, labels)
        return result.success, result.logits

    got, logits = success(*batch)
    want = attack.attack(attentive, cross_entropy, *batch)
    np.testing.assert_array_equal(got, want.success)
    np.testing.assert_allclose(logits, want.logits, rtol=1e-3, atol=1e-4)
