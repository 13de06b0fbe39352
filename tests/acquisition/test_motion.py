"""The generated sample of raw clips: only the order of the frames tells two classes apart."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.acquisition import motion
from yt8m_gat.acquisition.motion import (
    LABEL_NAMES,
    MotionConfig,
    draw_clip,
    draw_frames,
    generate_motion_sample,
)
from yt8m_gat.commands import sample as command
from yt8m_gat.config import ClipConfig
from yt8m_gat.data import Reader, RecordSchema, read_label_names

TINY = MotionConfig(
    num_train=16, num_validate=8, num_test=8, max_frames=10, num_shards=2, size=24, seed=3
)
QUIET = dataclasses.replace(TINY, noise=0.0)


def frames_of(label, seed=0):
    return draw_frames(QUIET, label, np.random.default_rng(seed)).astype(float)


def test_the_second_class_of_a_pair_is_the_first_one_backwards():
    for pair in range(4):
        forwards, backwards = frames_of(2 * pair), frames_of(2 * pair + 1)
        np.testing.assert_array_equal(forwards, backwards[::-1])
        assert np.abs(forwards[0] - forwards[-1]).max() > 20


@pytest.mark.parametrize(("label", "axis"), [(0, 2), (1, 2), (2, 1), (3, 1)])
def test_a_moving_shape_goes_the_way_that_its_class_says(label, axis):
    for seed in range(5):
        frames = frames_of(label, seed)
        # The background is what most frames agree on, where the shape passes at all.
        moved = np.abs(frames - np.median(frames, axis=0)).sum(-1)  # [T, H, W]
        place = np.indices(moved.shape)[axis]
        centers = (moved * place).sum((1, 2)) / moved.sum((1, 2))
        assert (centers[-1] > centers[0]) == (label % 2 == 0)


def test_a_growing_shape_grows_and_an_appearing_one_appears():
    for label in (4, 6):
        frames = frames_of(label)
        changed = np.abs(frames - frames[0]).sum((1, 2, 3))
        assert (np.diff(changed) > 0).all()


def test_clips_are_balanced_in_each_file_and_have_other_frames():
    labels = [draw_clip(TINY, "train", index).label for index in range(64)]
    assert np.bincount(labels).tolist() == [8] * 8
    assert all(sorted(labels[i : i + 8]) == list(range(8)) for i in range(0, 64, 8))
    assert len(set(labels[::2])) == len(set(labels[::4])) == 8
    lengths = {len(draw_clip(TINY, split, i).frames) for split in motion.SPLITS for i in range(8)}
    assert lengths == set(range(5, 11))


def test_the_command_writes_records_that_the_reader_reads(tmp_path, capsys):
    flags = [f"--{field.name}={getattr(TINY, field.name)}" for field in dataclasses.fields(TINY)]
    command.main([f"--output_dir={tmp_path / 'a'}", "--kind=motion", *flags])
    assert "16 train, 8 validate and 8 test clips of 8 classes" in capsys.readouterr().out
    assert read_label_names(tmp_path / "a" / "label_names.csv") == dict(enumerate(LABEL_NAMES))
    schema = RecordSchema(
        {"image": 3},
        8,
        4,
        labels_key="clip/label/index",
        clips=ClipConfig(num_segments=4, crop_size=16),
    )
    files = sorted(map(str, (tmp_path / "a").glob("train*.tfrecord")))
    (batch,) = Reader(files, schema, 16)
    assert len(files) == 2 and batch["features"]["image"].shape == (16, 4, 16, 16, 3)
    expected = {
        clip.video_id: clip.label for clip in (draw_clip(TINY, "train", i) for i in range(16))
    }
    found = dict(zip(batch["video_id"].numpy(), batch["labels"].numpy().argmax(1), strict=True))
    assert {key.decode(): label for key, label in found.items()} == expected
    generate_motion_sample(tmp_path / "b", TINY)
    for path in (tmp_path / "a").glob("*.tfrecord"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    record = next(iter(tf.data.TFRecordDataset(files[0]))).numpy()
    context = tf.train.SequenceExample.FromString(record).context.feature
    assert context["image/width"].int64_list.value[0] == 32
    assert context["clip/label/text"].bytes_list.value[0] == b"moves right"


def test_settings_of_the_other_kind_are_refused(tmp_path, capsys):
    for kind, flag in (("motion", "--cue_norm=1"), ("features", "--noise=1")):
        with pytest.raises(SystemExit) as caught:
            command.main([f"--output_dir={tmp_path}", f"--kind={kind}", flag])
        assert caught.value.code == 2
        assert f"is no setting of --kind={kind}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="`size` must be a whole number from 16"):
        MotionConfig(size=8)
