import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from attack_models import (
    FrameOutputs,
    assert_padding_is_zero,
    cross_entropy,
    difference,
    mean_over_frames,
)

from yt8m_gat.attacks import (
    QUANTIZATION_LEVEL,
    Ball,
    FastGradient,
    Problem,
    TemporalAugmentation,
    target_labels,
    top1_is_label,
)


def run(augmentation, model, batch, seed=0):
    return augmentation.augment(Problem(model, cross_entropy, *batch, seed))


def cosine(a, b):
    a, b = (np.concatenate([v.ravel() for v in x.values()]) for x in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def plain(linear):
    """Frames through tanh, mean-pooled, no bias: z_k is the sum of the frames' activations."""

    def forward(features, frame_mask):
        frames = tf.tanh(tf.concat([features["rgb"], features["audio"]], -1))
        head = tf.concat([linear.kernels["rgb"], linear.kernels["audio"]], 0)
        return FrameOutputs(mean_over_frames(frames, frame_mask) @ head, frames)

    return forward


@pytest.fixture(scope="module")
def wrong(batch, attentive, plain):
    """The batch with labels that neither model has on top: y^ is the labels."""
    labels = np.zeros(batch.labels.shape, np.float32)
    for model in (attentive.forward, plain):
        logits = model(batch.features, batch.frame_mask)[0].numpy()
        labels[np.arange(5), logits.argsort(1)[:, 5]] = 1
    return batch._replace(labels=tf.constant(labels))


def activation_oracle(model, batch):
    """Class activation [B, T] of the summed label logits, NumPy after one tape."""
    with tf.GradientTape() as tape:
        tape.watch(batch.features)
        logits, frames = model(batch.features, batch.frame_mask)
        score = tf.reduce_sum(logits * batch.labels)
    return (tape.gradient(score, frames) * frames).numpy().sum(-1)


def loss_oracle(activation, mask, num_non_key):
    losses = []
    for row, real in zip(activation, mask, strict=True):
        row = row[real]
        if len(row) == 0 or row.max() == row.min():
            losses.append(0.0)
            continue
        normalized = np.sort((row - row.min()) / (row.max() - row.min()))
        losses.append(normalized[:num_non_key].mean())
    return np.array(losses)


@pytest.mark.parametrize("num_non_key", [None, 1, 2, 4, 9])
def test_activation_loss_equals_a_loop(num_non_key, attentive, wrong):
    activation = activation_oracle(attentive.forward, wrong)
    augmentation = TemporalAugmentation(num_non_key=num_non_key)
    got = augmentation.activation_loss(tf.constant(activation), wrong.frame_mask)
    want = loss_oracle(activation, wrong.frame_mask.numpy(), num_non_key)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("num_non_key", [None, 2])
def test_the_step_is_the_sign_of_a_numerical_derivative(num_non_key, attentive, wrong):
    augmentation = TemporalAugmentation(num_non_key=num_non_key)
    change = difference(run(augmentation, attentive.forward, wrong), wrong)
    radius = 6 * QUANTIZATION_LEVEL
    mask = wrong.frame_mask.numpy()

    def loss(features):
        moved = wrong._replace(features=features)
        return loss_oracle(activation_oracle(attentive.forward, moved), mask, num_non_key)

    checked = 0
    for frame, channel in [(0, 0), (1, 3), (2, 5), (0, 2), (1, 1)]:
        shift = np.zeros(wrong.features["rgb"].shape, np.float32)
        shift[:, frame, channel] = 3e-3
        up = loss(dict(wrong.features, rgb=wrong.features["rgb"] + shift))
        down = loss(dict(wrong.features, rgb=wrong.features["rgb"] - shift))
        slope = (up - down) / 6e-3
        for clip in range(5):
            if mask[clip, frame] and abs(slope[clip]) > 1e-2:
                got = change["rgb"][clip, frame, channel]
                np.testing.assert_allclose(got, radius * np.sign(slope[clip]), atol=1e-5)
                checked += 1
    assert checked >= 5


def test_without_normalization_in_the_gradient_it_is_a_targeted_attack(plain, wrong):
    augmentation = TemporalAugmentation(normalize_in_gradient=False)
    change = difference(run(augmentation, plain, wrong), wrong)
    targeted = FastGradient(Ball("linf"), 6 * QUANTIZATION_LEVEL).attack(
        lambda *inputs: plain(*inputs)[0],
        lambda labels, logits: tf.reduce_sum(labels * logits, -1),
        *wrong,
    )
    # The clips of one frame and of none have no spread, and stay as they are.
    several = [0, 1, 3]
    real = wrong.frame_mask.numpy()[several]
    a, b = (
        {k: v[several][real] for k, v in values.items()}
        for values in (change, difference(targeted.features, wrong))
    )
    np.testing.assert_allclose(cosine(a, b), 1.0, atol=1e-4)
    within = difference(run(TemporalAugmentation(), plain, wrong), wrong)
    assert cosine({k: v[several][real] for k, v in within.items()}, b) < 0.9


def test_the_gradient_of_the_loss_has_the_other_sign(attentive, wrong):
    """At the logit's gradient the low frames support the class least, at the loss's most."""
    logit, loss = (
        difference(
            run(
                TemporalAugmentation(cam_loss=cam_loss, normalize_in_gradient=False),
                attentive.forward,
                wrong,
            ),
            wrong,
        )
        for cam_loss in (None, cross_entropy)
    )
    real = wrong.frame_mask.numpy()
    a, b = ({k: v[:4][real[:4]] for k, v in x.items()} for x in (logit, loss))
    assert cosine(a, b) < 0


def test_the_gradient_of_the_loss_sees_a_target_that_nobody_rated(attentive, wrong):
    augmentation = TemporalAugmentation(cam_loss=cross_entropy)
    expected = run(augmentation, attentive.forward, wrong)
    # The call's loss counts no class at all.
    found = augmentation.augment(
        Problem(attentive.forward, lambda y, z: 0 * cross_entropy(y, z), *wrong)
    )
    np.testing.assert_array_equal(found["rgb"], expected["rgb"])
    assert np.abs(difference(found, wrong)["rgb"][0]).max() > 0


@pytest.mark.parametrize("num_steps", [1, 3])
def test_radius_padding_and_clips_of_one_frame(num_steps, attentive, wrong):
    augmentation = TemporalAugmentation(epsilon=4.0, num_steps=num_steps, step_size=3.0)
    result = run(augmentation, attentive.forward, wrong)
    assert_padding_is_zero(result, wrong.frame_mask)
    change = difference(result, wrong)
    real = wrong.frame_mask.numpy()
    sizes = np.abs(change["rgb"])
    reached = min(3.0 * num_steps, 4.0) * QUANTIZATION_LEVEL
    assert sizes[real].max() == pytest.approx(reached, rel=1e-4)
    np.testing.assert_allclose(change["rgb"][2, 0], 0.0, atol=1e-7)
    # All real frames of the others move.
    assert np.all(sizes[[0, 1, 3]].max(-1)[real[[0, 1, 3]]] > 0)


def test_more_steps_raise_the_activation_loss(attentive, wrong):
    mask = wrong.frame_mask.numpy()
    values = []
    for num_steps in (0, 1, 8):
        features = wrong.features
        if num_steps:
            augmentation = TemporalAugmentation(num_steps=num_steps)
            features = run(augmentation, attentive.forward, wrong)
        moved = wrong._replace(features=features)
        values.append(loss_oracle(activation_oracle(attentive.forward, moved), mask, None).mean())
    assert values[0] < values[1] < values[2]


def test_target_labels():
    labels = tf.constant([[1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], tf.float32)
    logits = tf.constant([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [9.0, 0, 0, 0], [9.0, 0, 0, 0]])
    np.testing.assert_array_equal(top1_is_label(labels, logits), [True, False, True, False])
    drawn = np.stack([target_labels(labels, logits, seed) for seed in range(40)])
    # Right: one class that is no label, either of the two; wrong, all or none: the labels.
    assert np.all(drawn[:, 0].sum(-1) == 1) and np.all(drawn[:, 0, [0, 2]] == 0)
    assert 5 < drawn[:, 0, 1].sum() < 35
    np.testing.assert_array_equal(drawn[:, 1:], np.broadcast_to(labels[1:], (40, 3, 4)))


@pytest.mark.parametrize("temporal_loss", ["cam", "ce", "random_noise"])
def test_examples_selects_clips(temporal_loss, attentive, batch):
    logits = attentive(batch.features, batch.frame_mask)
    labels = batch.labels.numpy().copy()
    labels[0] = 0
    labels[0, logits.numpy()[0].argmax()] = 1
    mixed = batch._replace(labels=tf.constant(labels))
    correct = top1_is_label(mixed.labels, logits).numpy()
    assert correct[0] and not correct.all()
    real = batch.frame_mask.numpy()[..., None]
    both, right, not_right = (
        {
            k: v * real
            for k, v in difference(
                run(
                    TemporalAugmentation(temporal_loss=temporal_loss, examples=kind),
                    attentive.forward,
                    mixed,
                ),
                mixed,
            ).items()
        }
        for kind in ("both", "correct", "wrong")
    )
    for name in both:
        chosen = correct[:, None, None]
        np.testing.assert_array_equal(right[name], np.where(chosen, both[name], 0))
        np.testing.assert_array_equal(not_right[name], np.where(chosen, 0, both[name]))
    assert np.abs(both["rgb"][0]).max() > 0


def test_cross_entropy_in_place_of_the_activation_is_the_signed_fast_gradient(attentive, batch):
    change = run(TemporalAugmentation(temporal_loss="ce"), attentive.forward, batch)
    fgsm = FastGradient(Ball("linf"), 6 * QUANTIZATION_LEVEL).attack(
        attentive, cross_entropy, *batch
    )
    for name, value in change.items():
        np.testing.assert_allclose(value, fgsm.features[name], atol=1e-6)


def test_random_noise_asks_nothing_of_the_model(batch):
    noise = TemporalAugmentation(temporal_loss="random_noise", num_steps=3)

    def never(*_):
        raise RuntimeError

    first, second = (difference(run(noise, never, batch, seed), batch)["rgb"] for seed in (1, 2))
    real = batch.frame_mask.numpy()
    assert np.abs(first - second)[real].max() > QUANTIZATION_LEVEL
    # Three steps of 2 levels, each up or down: 6, 2, -2 or -6 levels.
    levels = np.unique(np.round(first[real] / QUANTIZATION_LEVEL, 3))
    np.testing.assert_allclose(levels, [-6, -2, 2, 6], atol=1e-2)


def test_the_result_is_a_constant(attentive, batch):
    augmentation = TemporalAugmentation(examples="both")
    with tf.GradientTape() as tape:
        tape.watch(batch.features)
        tape.watch(attentive.head)
        result = run(augmentation, attentive.forward, batch)
        total = tf.add_n([tf.reduce_sum(value) for value in result.values()])
    assert tape.gradient(total, attentive.head) is None


def test_logits_that_do_not_depend_on_the_frames_are_an_error(attentive, batch):
    def detached(features, frame_mask):
        logits, frames = attentive.forward(features, frame_mask)
        return FrameOutputs(logits, tf.identity(frames))

    with pytest.raises(ValueError, match="return the very tensor that the head pools"):
        run(TemporalAugmentation(), detached, batch)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temporal_loss", "mse", "one of cam, ce, random_noise"),
        ("examples", "all", "one of both, correct, wrong"),
        ("num_steps", 0, "`num_steps` must be at least 1"),
        ("num_non_key", 0, "`num_non_key` must be at least 1"),
        ("step_size", 0.0, "`step_size` must be positive"),
        ("epsilon", -1.0, "`epsilon` must be at least 0"),
    ],
)
def test_bad_arguments_are_errors(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TemporalAugmentation(), **{field: value})
