"""Crops in time, lost frames and features, and MixUp, against what was drawn."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ClipConfig, ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.config import TrainingConfig as Training
from yt8m_gat.data.feature_augmentation import (
    augment_features,
    crop_in_time,
    drop_features,
    drop_frames,
    mix_clips,
)
from yt8m_gat.data.quantization import dequantize

NUM_FRAMES = np.array([9, 5, 1, 12], np.int32)
SEED = tf.constant([3, 4])


def batch():
    """Frame t of clip b holds 20 b + t + 1 in one feature, twice that in the other; padding 0."""
    values = 20 * np.arange(4)[:, None] + np.arange(12) + 1
    values = np.where(np.arange(12) < NUM_FRAMES[:, None], values, 0).astype(np.uint8)
    features = {"a": tf.constant(values[..., None]), "b": tf.constant(2 * values[..., None])}
    return {
        "video_id": tf.constant(["p", "q", "r", "s"]),
        "features": features,
        "num_frames": tf.constant(NUM_FRAMES),
        "labels": tf.eye(4),
    }


def frames_of(features, num_frames):
    """The frames of each clip, by their values; the features must agree and the rest be 0."""
    a, b = features["a"].numpy()[..., 0], features["b"].numpy()[..., 0]
    np.testing.assert_array_equal(b, 2 * a)
    for row, count in zip(a, num_frames, strict=True):
        assert (row[count:] == 0).all() and (row[:count] > 0).all()
    return [row[:count].tolist() for row, count in zip(a, num_frames, strict=True)]


def test_a_crop_is_one_stretch_of_at_least_its_share():
    starts, lengths = set(), set()
    for number in range(60):
        seed = tf.constant([number, 0])
        features, found = crop_in_time(batch()["features"], tf.constant(NUM_FRAMES), 0.5, seed)
        for clip, frames in enumerate(frames_of(features, found.numpy())):
            assert frames == list(range(frames[0], frames[0] + len(frames)))
            assert NUM_FRAMES[clip] / 2 <= len(frames) <= NUM_FRAMES[clip]
            assert 0 < frames[0] - 20 * clip <= frames[-1] - 20 * clip <= NUM_FRAMES[clip]
        starts.add(int(features["a"][1, 0, 0]) - 20)
        lengths.add(int(found[1]))
    assert (starts, lengths) == ({1, 2, 3}, {3, 4, 5})  # Of the clip of 5 frames.


def test_frames_are_lost_at_the_rate_in_order_and_never_all():
    kept = np.zeros(4)
    for number in range(60):
        seed = tf.constant([number, 0])
        features, found = drop_frames(batch()["features"], tf.constant(NUM_FRAMES), 0.4, seed)
        for clip, frames in enumerate(frames_of(features, found.numpy())):
            assert frames and frames == sorted(set(frames))
            assert {frame - 20 * clip for frame in frames} <= set(range(1, NUM_FRAMES[clip] + 1))
        kept += found.numpy()
    shares = kept / 60 / NUM_FRAMES
    np.testing.assert_allclose(shares[[0, 3]], 0.6, atol=0.06)
    assert shares[2] == 1


def test_a_mixed_clip_has_its_frames_and_labels_in_the_same_shares():
    given = batch()
    features, labels = mix_clips(given["features"], given["num_frames"], given["labels"], 0.8, SEED)
    labels, mixed = labels.numpy(), features["b"].numpy()[..., 0]
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    assert ((labels > 0.05).sum(1) == 2).any()
    values = given["features"]["b"].numpy()[..., 0].astype(float)
    for clip, shares in enumerate(labels):
        expected = np.zeros(12)
        for time in range(NUM_FRAMES[clip]):
            # A shorter partner starts again.
            expected[time] = sum(
                share * values[other, time % NUM_FRAMES[other]]
                for other, share in enumerate(shares)
                if other != clip
            ) + (shares[clip] * values[clip, time])
        np.testing.assert_allclose(mixed[clip], np.round(expected), atol=1)
    assert features["b"].dtype == tf.uint8


def test_choices_follow_from_seed_epoch_and_ids():
    def augmented(given, seed=1, epoch=2):
        found = augment_features(
            given, seed=seed, epoch=epoch, least_share=0.5, drop_rate=0.2, mixup_alpha=0.4
        )
        return [np.array(value).tolist() for value in tf.nest.flatten(found)]

    again, given = augmented(batch()), batch()
    graph = next(
        iter(
            tf.data.Dataset.from_tensors(given).map(
                lambda b: augment_features(
                    b, seed=1, epoch=2, least_share=0.5, drop_rate=0.2, mixup_alpha=0.4
                )
            )
        )
    )
    assert [np.array(value).tolist() for value in tf.nest.flatten(graph)] == again
    assert augmented(given, seed=2) != again != augmented(given, epoch=3)
    others = {**given, "video_id": tf.constant(["p", "q", "r", "t"])}
    assert augmented(others)[0:2] != again[0:2]
    same = augment_features(given, seed=1, epoch=2)
    for ours, theirs in zip(tf.nest.flatten(same), tf.nest.flatten(given), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_noise_has_its_deviation_on_real_frames_of_dequantized_features():
    clips = {name: tf.repeat(value, 500, axis=2) for name, value in batch()["features"].items()}
    noisy = augment_features({**batch(), "features": clips}, seed=1, epoch=2, noise=0.25)
    assert list(noisy["num_frames"].numpy()) == list(NUM_FRAMES)
    real = np.arange(12) < NUM_FRAMES[:, None]
    noise = {}
    for name, value in noisy["features"].items():
        added = value.numpy() - dequantize(clips[name].numpy())
        assert value.dtype == tf.float32 and (value.numpy()[~real] == 0).all()
        # 27 frames of 500 entries: the mean is known to 0.002, the deviation to 0.0015.
        noise[name] = added[real]
        assert abs(noise[name].mean()) < 0.01
        assert noise[name].std() == pytest.approx(0.25, abs=0.007)
    # Of its own in each feature, each clip and each epoch.
    assert abs(np.corrcoef(noise["a"].ravel(), noise["b"].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(noise["a"][0], noise["a"][9])[0, 1]) < 0.2
    later = augment_features({**batch(), "features": clips}, seed=1, epoch=3, noise=0.25)
    assert (later["features"]["a"].numpy() != noisy["features"]["a"].numpy())[real].mean() > 0.99


def test_lost_features_are_0_in_their_share_of_the_clips():
    count = 4000
    clips = {name: tf.fill([count, 2, size], np.uint8(255)) for name, size in (("a", 3), ("b", 1))}
    lengths = np.full([count], 2, np.int32)
    lengths[:10] = 1

    def kept(rates, seed=5):
        features = drop_features(clips, tf.constant(lengths), rates, tf.constant([1, seed]))
        for name, value in features.items():
            values = value.numpy()
            assert (values[:10, 1] == 0).all()  # Padding.
            assert np.isin(values, [0, dequantize(np.uint8(255))]).all()
            assert (values[10:] == values[10:, :1, :1]).all()  # All frames of a clip or none.
            assert value.shape == clips[name].shape
        return {name: value.numpy()[:, 0, 0] > 0 for name, value in features.items()}

    one = kept({"a": 0.3})
    assert one["b"].all() and one["a"].mean() == pytest.approx(0.7, abs=0.03)
    both = kept({"a": 0.5, "b": 0.8})
    # Lost alone: a .5 x .2, b .8 x .5; the .4 that would lose both keep both.
    assert (~both["a"]).mean() == pytest.approx(0.1, abs=0.02)
    assert (~both["b"]).mean() == pytest.approx(0.4, abs=0.03)
    assert (both["a"] | both["b"]).all()
    assert (kept({"a": 0.3})["a"] == one["a"]).all()
    assert (kept({"a": 0.3}, seed=6)["a"] != one["a"]).any()


def test_losing_features_is_one_of_the_augmentations_and_leaves_the_others_draws():
    given = batch()
    whole = augment_features(given, seed=1, epoch=2, least_share=0.5)
    lost = augment_features(given, seed=1, epoch=2, least_share=0.5, feature_rates={"a": 0.9})
    assert (whole["num_frames"].numpy() == lost["num_frames"].numpy()).all()
    gone = ~lost["features"]["a"].numpy().any((1, 2))
    expected = dequantize(whole["features"]["a"].numpy())
    real = np.arange(12) < whole["num_frames"].numpy()[:, None]
    expected[~real | gone[:, None]] = 0
    assert gone.any()
    np.testing.assert_array_equal(lost["features"]["a"], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Training(frame_dropout=1.0), r"--frame_dropout must be in \[0, 1\)"),
        (lambda: Training(temporal_crop=0.0), r"--temporal_crop must be in \(0, 1\]"),
        (lambda: Training(mixup_alpha=-1.0), "--mixup_alpha must be at least 0"),
        (lambda: Training(feature_dropout=("rgb",)), "takes NAME:PROBABILITY"),
        (lambda: Training(feature_dropout=("rgb:1",)), "takes NAME:PROBABILITY"),
        (lambda: Training(feature_dropout=("rgb:.1", "rgb:.2")), "each feature once"),
        (
            lambda: RunConfig(data=DataConfig(), training=Training(feature_dropout=("rbg:.1",))),
            "must name features of --feature_names: rgb, audio. Received: rbg",
        ),
        (
            lambda: RunConfig(
                data=DataConfig(feature_names=("rgb",), feature_sizes=(4,)),
                training=Training(feature_dropout=("rgb:.1",)),
            ),
            "needs another feature",
        ),
        (lambda: Training(frame_noise=-1.0), "--frame_noise must be at least 0"),
        (
            lambda: RunConfig(
                data=DataConfig(normalize="concat"), training=Training(frame_noise=0.2)
            ),
            "--frame_noise is added to dequantized features",
        ),
        (
            lambda: RunConfig(
                data=DataConfig(segment_labels=True), training=Training(mixup_alpha=0.2)
            ),
            "needs clips whose labels are all known",
        ),
        (
            lambda: RunConfig(
                data=DataConfig(
                    feature_names=("image",), feature_sizes=(3,), max_frames=8, clips=ClipConfig()
                ),
                model=ModelConfig(name="TSM"),
                training=Training(frame_dropout=0.1),
            ),
            "are about frames of features",
        ),
    ],
)
def test_settings_that_cannot_work(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
