"""PGD that also moves the attention map: what it shares with PGD, and what it finds beyond it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from attack_models import (
    CountedCalls,
    MapOutputs,
    assert_padding_is_zero,
    cross_entropy,
    difference,
    mean_over_frames,
)

from yt8m_gat.attacks import PGD, AdaptivePGD, Ball, margin_loss

FRAME = Ball("l2", "frame")


def squared_distance(clean, perturbed, frame_mask):
    del frame_mask
    return tf.reduce_sum(tf.square(clean - perturbed), axis=[1, 2])


@pytest.fixture(scope="module")
def with_maps(attentive):
    """The attentive model, its maps beside its logits."""

    def forward(features, frame_mask):
        hidden = tf.tanh(tf.add_n([features[name] @ attentive.inputs[name] for name in features]))
        scores = tf.matmul(hidden, hidden, transpose_b=True)
        maps = tf.nn.softmax(tf.where(frame_mask[:, tf.newaxis, :], scores, -1e9), axis=-1)
        return MapOutputs(mean_over_frames(maps @ hidden, frame_mask) @ attentive.head, maps)

    return forward


def map_step(with_maps):
    """A model whose logits see its map through a step: they move, but have no gradient."""

    def forward(features, frame_mask):
        logits, maps = with_maps(features, frame_mask)
        clean_like = tf.stop_gradient(tf.round(50.0 * maps[:, 0, :1]) / 50.0)
        return MapOutputs(0.0 * logits + 10.0 * clean_like, maps)

    return forward


def attack(weight=1.0, **options):
    return AdaptivePGD(
        FRAME, 0.5, steps=6, restarts=2, map_distance=squared_distance, weight=weight, **options
    )


@pytest.mark.parametrize("climbed", [cross_entropy, margin_loss])
def test_without_weight_it_is_pgd(with_maps, attentive, batch, climbed):
    plain = PGD(FRAME, 0.5, steps=6, restarts=2)
    expected = plain.attack(attentive, climbed, *batch, 3)
    found = attack(0.0).attack(with_maps, climbed, *batch, 3)
    for name, value in expected.features.items():
        np.testing.assert_allclose(found.features[name], value, atol=1e-5)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)


def test_a_step_follows_the_gradient_of_the_sum(with_maps, batch):
    # One step of epsilon from a random point, written out.
    ball = Ball("l2", "joint")
    adaptive = AdaptivePGD(
        ball, 0.5, steps=1, random_start=True, step_size=10.0,
        map_distance=squared_distance, weight=3.0,
    )  # fmt: skip
    real = tf.cast(batch.frame_mask, tf.float32)[..., tf.newaxis]
    clean = {name: value * real for name, value in batch.features.items()}
    drawn = ball.random_start(clean, batch.frame_mask, 0.5, 7, 0)
    start = {name: clean[name] + drawn[name] for name in clean}
    clean_maps = with_maps(clean, batch.frame_mask)[1]
    with tf.GradientTape() as tape:
        tape.watch(start)
        logits, maps = with_maps(start, batch.frame_mask)
        total = tf.reduce_sum(cross_entropy(batch.labels, logits))
        total += 3.0 * tf.reduce_sum(tf.square(maps - clean_maps))
    slope = ball.steepest_ascent(tape.gradient(total, start), batch.frame_mask, 10.0)
    moved = {name: drawn[name] + slope[name] for name in clean}
    end = ball.project(moved, batch.frame_mask, 0.5)
    end = {name: clean[name] + end[name] for name in clean}
    at_start, at_end = (
        cross_entropy(batch.labels, with_maps(point, batch.frame_mask)[0]) for point in (start, end)
    )
    found = adaptive.attack(with_maps, cross_entropy, *batch, 7)
    np.testing.assert_allclose(found.loss, np.maximum(at_start, at_end), rtol=1e-4)
    assert np.any(at_end > at_start)


def test_it_finds_what_the_loss_alone_cannot(with_maps, batch):
    model = map_step(with_maps)
    labels = tf.zeros_like(batch.labels)
    clean = cross_entropy(labels, model(batch.features, batch.frame_mask)[0]).numpy()
    alone, both = (
        attack(weight, random_start=True).attack(
            model, cross_entropy, batch.features, batch.frame_mask, labels, 1
        )
        for weight in (0.0, 1.0)
    )
    assert both.loss[0] > alone.loss[0] + 0.1
    assert both.loss[0] > clean[0] + 0.1


def test_it_keeps_the_highest_loss_not_the_highest_sum(with_maps, batch):
    # However heavy the map: never below the clean clip, at which the first restart sets out.
    clean = cross_entropy(batch.labels, with_maps(batch.features, batch.frame_mask)[0])
    found = attack(1e6).attack(with_maps, cross_entropy, *batch, 2)
    assert np.all(found.loss.numpy() >= clean.numpy() - 1e-6)


@pytest.mark.slow
def test_it_keeps_the_promises_of_an_attack(with_maps, batch):
    adaptive = attack()
    assert adaptive.name == "adaptive"
    assert dataclasses.replace(adaptive, ball=Ball("linf")).name == "adaptive_linf"
    model = CountedCalls(with_maps)
    found = adaptive.attack(model, cross_entropy, *batch, 5)
    # Inside `while_loop` in eager mode each pass is a call.
    assert model.calls == adaptive.cost.forward
    assert_padding_is_zero(found.features, batch.frame_mask)
    assert np.all(found.norm.numpy() <= 0.5 * (1 + 1e-5))
    compiled = tf.function(lambda *inputs: adaptive.attack(with_maps, cross_entropy, *inputs, 5))
    np.testing.assert_allclose(compiled(*batch).loss, found.loss, rtol=1e-4)
    still = dataclasses.replace(adaptive, epsilon=0.0).attack(with_maps, cross_entropy, *batch, 5)
    change = difference(still.features, batch)
    real = batch.frame_mask.numpy()[..., None]
    assert all(np.all(value * real == 0) for value in change.values())


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="weight=-1"):
        attack(-1.0)
