"""Attacks on raw clips, [B, T, H, W, C]: balls, bounds, blocks, and TAF on convolutional maps."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import (
    PGD,
    PIXEL_LEVELS,
    PIXEL_RANGE,
    Ball,
    DeepFool,
    FastGradient,
    RandomSearch,
    SquareSearch,
    TemporalAugmentation,
    frame_activation,
    margin_loss,
)
from yt8m_gat.attacks.recorded_pass import RecordedPass
from yt8m_gat.models import ModelOutputs

SHAPE = (2, 3, 4, 5, 3)  # B, T, H, W, C
MASK = np.array([[True, True, True], [True, True, False]])
LABELS = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(*SHAPE[1:], 2)).astype(np.float32)


def pixels(seed=0, low=0, high=256):
    drawn = np.random.default_rng(seed).integers(low, high, SHAPE)
    return {"image": tf.constant(drawn, tf.float32)}


def model(features, frame_mask):
    """Logits from a map that mixes the frames, so that class activations depend on all of them."""
    x = features["image"] / 255.0 * tf.cast(frame_mask, tf.float32)[:, :, None, None, None]
    maps = tf.square(x + 0.5 * tf.reduce_mean(x, axis=1, keepdims=True))
    return ModelOutputs(tf.einsum("bthwc,thwck->bk", maps, WEIGHTS), maps, attention_maps={})


def test_the_ball_of_a_frame_is_over_all_its_pixels():
    gradients = {"image": tf.constant(np.random.default_rng(0).normal(size=SHAPE), tf.float32)}
    step = Ball("l2", "frame").steepest_ascent(gradients, MASK, epsilon=7.0)["image"].numpy()
    norms = np.sqrt((step**2).sum(axis=(2, 3, 4)))
    np.testing.assert_allclose(norms, [[7, 7, 7], [7, 7, 0]], rtol=1e-5)
    expected = 7.0 * gradients["image"][0, 1] / tf.norm(gradients["image"][0, 1])
    np.testing.assert_allclose(step[0, 1], expected, rtol=1e-5)
    of_clip = Ball("l2", "example").steepest_ascent(gradients, MASK, epsilon=7.0)["image"].numpy()
    np.testing.assert_allclose(np.sqrt((of_clip**2).sum(axis=(1, 2, 3, 4))), [7, 7], rtol=1e-5)
    np.testing.assert_allclose(Ball("l2", "frame").norm_of({"image": step}, MASK), [7, 7], 1e-5)


@pytest.mark.parametrize(
    "attack",
    [
        FastGradient(Ball("linf"), 8.0, clip_to_range=PIXEL_RANGE, round_to_levels=PIXEL_LEVELS),
        PGD(Ball("linf"), 8.0, steps=5, clip_to_range=PIXEL_RANGE, round_to_levels=PIXEL_LEVELS),
        PGD(Ball("l2"), 40.0, steps=5, clip_to_range=PIXEL_RANGE),
        SquareSearch(Ball("linf"), 8.0, queries=12, clip_to_range=PIXEL_RANGE),
        SquareSearch(Ball("l2"), 40.0, queries=12, clip_to_range=PIXEL_RANGE),
        RandomSearch(Ball("l2"), 40.0, queries=12, clip_to_range=PIXEL_RANGE),
        TemporalAugmentation(epsilon=8.0, level_size=1.0, clip_to_range=PIXEL_RANGE),
    ],
    ids=lambda attack: f"{attack.name}-{attack.ball.norm}",
)
def test_attacks_stay_in_the_ball_and_among_the_values_of_pixels(attack):
    clips = pixels()
    result = attack.attack(model, margin_loss, clips, MASK, LABELS, seed=3)
    found = result.features["image"].numpy()
    assert found.min() >= 0 and found.max() <= 255
    assert not found[1, 2].any()
    change = found - np.where(MASK[:, :, None, None, None], clips["image"], 0)
    if attack.ball.norm == "linf":
        assert np.abs(change).max() == pytest.approx(8.0, abs=1e-3)
    else:
        assert np.sqrt((change**2).sum(axis=(2, 3, 4))).max() <= 40.0 + 1e-3
    if attack.round_to_levels:
        np.testing.assert_array_equal(found, np.round(found))
    clean = margin_loss(LABELS, model(clips, tf.constant(MASK)).logits)
    if attack.name != "temporal":
        assert (result.loss.numpy() > clean.numpy()).all()


def test_deepfool_crosses_the_boundary_of_a_linear_model_by_its_distance():
    def linear(features, frame_mask):
        masked = features["image"] * tf.cast(frame_mask, tf.float32)[:, :, None, None, None]
        return tf.einsum("bthwc,thwck->bk", masked, WEIGHTS)

    clips = pixels()
    result = DeepFool(candidates=2).attack(linear, margin_loss, clips, MASK, LABELS)
    logits = linear(clips, tf.constant(MASK)).numpy()
    slope = (WEIGHTS[..., 0] - WEIGHTS[..., 1]) * MASK[:, :, None, None, None]
    lengths = np.sqrt((slope**2).sum(axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(
        result.norm, 1.02 * np.abs(logits[:, 0] - logits[:, 1]) / lengths, rtol=1e-4
    )


def test_a_square_is_a_block_in_time_and_space_of_one_sign_for_each_color():
    attack = SquareSearch(Ball("linf"), 8.0, queries=100, first_share=0.3)
    ones = {"image": tf.ones([1, 8, 10, 10, 3])}
    change = attack._change(ones, tf.ones([1, 8], tf.bool), tf.constant(1), tf.constant([4, 5]))
    change = change["image"].numpy()[0]
    touched = (change != 0).any(axis=-1)
    times, rows, columns = (
        np.flatnonzero(touched.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))
    )
    for places in (times, rows, columns):
        np.testing.assert_array_equal(places, np.arange(places[0], places[-1] + 1))
    assert touched.sum() == len(times) * len(rows) * len(columns)
    side = (0.3 * 10 ** (-0.02)) ** (1 / 3)
    assert len(times) == np.ceil(8 * side) and len(rows) == len(columns) == np.ceil(10 * side)
    for color in range(3):
        values = np.unique(change[..., color][touched])
        assert len(values) == 1 and abs(values[0]) == pytest.approx(2.0)


def test_class_activation_of_a_map_is_its_mean_over_height_and_width():
    rng = np.random.default_rng(0)
    slope, maps = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    expected = [[(slope[b, t] * maps[b, t]).sum(-1).mean() for t in range(3)] for b in range(2)]
    np.testing.assert_allclose(frame_activation(tf.constant(slope), maps), expected, rtol=1e-5)
    rows, frames = slope[:, :, 0, 0], maps[:, :, 0, 0]
    expected = (rows * frames).sum(axis=-1)
    np.testing.assert_allclose(frame_activation(tf.constant(rows), frames), expected, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_taf_raises_the_activation_of_the_frames_where_it_is_lowest(steps):
    attack = TemporalAugmentation(
        epsilon=12.0, num_steps=steps, step_size=4.0, num_non_key=2, level_size=1.0,
        clip_to_range=PIXEL_RANGE,
    )  # fmt: skip
    clips, mask = pixels(low=20, high=230), tf.ones([2, 3], tf.bool)
    result = attack.attack(model, margin_loss, clips, mask, LABELS, seed=2)
    change = (result.features["image"] - clips["image"]).numpy()
    assert set(np.unique(np.abs(change))) <= {0.0, 4.0, 8.0, 12.0}
    assert np.abs(change).max() == 4.0 * steps
    target = tf.constant([[0.0, 1.0], [1.0, 0.0]])

    def loss_at(features):
        recorded = RecordedPass(model, features, mask)
        return attack.activation_loss(attack._class_activation(recorded, target), mask).numpy()

    # The target is drawn where the clip is classified correctly, so that both are tried.
    raised = loss_at(result.features) - loss_at(clips)
    target = 1.0 - target
    raised_other = loss_at(result.features) - loss_at(clips)
    assert (np.maximum(raised, raised_other) > 0).all()


def test_the_printed_normalization_divides_by_the_maximum():
    activation = tf.constant([[1.0, 3.0, 4.0], [-1.0, -2.0, -4.0], [-1.0, 0.0, -2.0]])
    mask = tf.ones([3, 3], tf.bool)
    printed = TemporalAugmentation(cam_normalization="maximum").activation_loss(activation, mask)
    np.testing.assert_allclose(printed, [(0 + 2 + 3) / 4 / 3, (3 + 2 + 0) / -1 / 3, 0.0], rtol=1e-6)
    ranged = TemporalAugmentation().activation_loss(activation, mask)
    np.testing.assert_allclose(ranged, [5 / 9, 5 / 9, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="`cam_normalization` must be one of range, maximum"):
        TemporalAugmentation(cam_normalization="sum")
