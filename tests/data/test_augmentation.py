"""Raw clips mixed with each other, and RandAugment: shares, shapes, the same each time."""

import dataclasses
import functools

import numpy as np
import pytest
import raw_clips as raw
import tensorflow as tf

from yt8m_gat.config import CLIP_MIXINGS, ClipConfig
from yt8m_gat.data import RecordSchema, augmentation, parse_clip_batch
from yt8m_gat.data.augmentation import mix, rand_augment

VALUES = np.array([0, 250, 100, 180, 30, 60, 220, 140], np.uint8)
CLIPS = np.broadcast_to(VALUES[:, None, None, None, None], (8, 6, 10, 14, 3))
LABELS = tf.eye(8)


@functools.cache
def mixed(name, seed):
    clips, labels = mix(name, tf.constant(CLIPS), LABELS, tf.constant([seed, 7]))
    return clips.numpy(), labels.numpy()


@pytest.mark.parametrize("name", CLIP_MIXINGS)
def test_labels_are_mixed_by_the_shares_of_the_pixels(name):
    shares = []
    for seed in range(4):
        clips, labels = mixed(name, seed)
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
        # Each clip has one color, so that a mixed one's mean tells the shares of both.
        np.testing.assert_allclose(
            clips.astype(float).mean((1, 2, 3, 4)), labels @ VALUES.astype(float), atol=0.51
        )
        shares += (1 - labels.diagonal()).tolist()
    assert 0.1 < np.mean(shares) < 0.6 and len(set(np.round(shares, 3))) > 10


def box_of(changed):
    """The box [T, H, W] that a mask fills; fails if it is no box."""
    spans = []
    for axis in range(3):
        places = np.flatnonzero(changed.any(tuple({0, 1, 2} - {axis})))
        assert (np.diff(places) == 1).all()
        spans.append(len(places))
    assert changed.sum() == np.prod(spans)
    return tuple(spans)


def boxes(name):
    found = []
    for seed in range(4):
        clips, _ = mixed(name, seed)
        changed = (clips != CLIPS).any(-1)
        found += [box_of(mask) for mask in changed if mask.any()]
    assert len(found) > 15
    return np.array(found)


def test_where_each_way_of_mixing_mixes():
    assert (boxes("mixup") == (6, 10, 14)).all()
    of_cutmix = boxes("cutmix")
    assert (of_cutmix[:, 0] == 6).all() and len(set(of_cutmix[:, 1])) > 4
    of_frames = boxes("framemixup")
    assert (of_frames[:, 1:] == (10, 14)).all() and len(set(of_frames[:, 0])) > 3
    of_cubes = boxes("cubemixup")
    volumes = np.cbrt(of_cubes / (6, 10, 14))
    assert len({tuple(box) for box in of_cubes.tolist()}) > 8
    np.testing.assert_allclose(volumes[:, 1], volumes[:, 2], atol=0.06)


def test_cutmix_takes_the_other_clips_own_pixels():
    clips, _ = mixed("cutmix", 0)
    for clip, value in zip(clips, VALUES, strict=True):
        assert set(np.unique(clip)) <= {value, *VALUES} and len(np.unique(clip)) <= 2


def test_all_operations_treat_the_frames_of_a_clip_alike():
    picture = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3))
    frames = tf.constant(np.repeat(picture, 3, 0), tf.float32)
    for operation in augmentation._operations():
        result = operation(frames, tf.constant([3, 4])).numpy()
        assert result.shape == (3, 12, 16, 3) and result.min() >= 0 and result.max() <= 255
        assert (result == result[:1]).all()
        np.testing.assert_array_equal(result, operation(frames, tf.constant([3, 4])))


@pytest.mark.slow
def test_randaugment_draws_for_each_clip():
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    clips = tf.constant(np.broadcast_to(picture, (6, 3, 12, 16, 3)))
    augment = tf.function(rand_augment, autograph=False)
    result = augment(clips, tf.constant([1, 2])).numpy()
    assert (result == result[:, :1]).all()
    assert len({clip.tobytes() for clip in result}) == 6
    np.testing.assert_array_equal(result, augment(clips, tf.constant([1, 2])))
    assert (result != augment(clips, tf.constant([1, 3])).numpy()).any()


def test_training_is_augmented_and_evaluation_is_not():
    settings = ClipConfig(num_segments=2, crop_size=8, augmentation=("mixup",))
    schema = RecordSchema({"image": 3}, 8, 2, labels_key="clip/label/index", clips=settings)
    plain = dataclasses.replace(schema, clips=dataclasses.replace(settings, augmentation=()))
    records = tf.constant(
        [raw.record(f"{i}", [raw.flat(value)] * 2, [i]) for i, value in enumerate(VALUES)]
    )
    seed = tf.constant([1, 2])
    batch, again = (parse_clip_batch(records, schema, seed=seed) for _ in range(2))
    shares = batch["labels"].numpy()
    assert ((shares > 0) & (shares < 1)).any()
    for part in ("labels", "video_id"):
        np.testing.assert_array_equal(batch[part], again[part])
    pixels = batch["features"]["image"].numpy()
    np.testing.assert_array_equal(pixels, again["features"]["image"])
    np.testing.assert_allclose(pixels.mean((1, 2, 3, 4)), shares @ VALUES, atol=0.51)
    # Another batch of the epoch draws differently.
    other = parse_clip_batch(records[:-1], schema, seed=seed)["labels"].numpy()
    assert (other != shares[:-1]).any()
    np.testing.assert_array_equal(
        parse_clip_batch(records, schema)["features"]["image"],
        parse_clip_batch(records, plain)["features"]["image"],
    )
