"""The generated sample: its layout, reproducibility by the seed, and the planted structure."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from yt8m_gat.acquisition import sample
from yt8m_gat.acquisition.sample import (
    MAX_DENSE_NORM,
    SampleConfig,
    draw_clip,
    generate_sample,
    label_names,
    planted_structure,
)
from yt8m_gat.commands import sample as command
from yt8m_gat.data.quantization import dequantize

CONFIG = SampleConfig(
    num_train=240, num_validate=10, num_test=9, num_classes=24, max_frames=30, num_shards=3, seed=5
)
TINY = dataclasses.replace(CONFIG, num_train=6, num_validate=3, num_test=3, max_frames=10)


@pytest.fixture(scope="module")
def structure():
    return planted_structure(CONFIG)


@pytest.fixture(scope="module")
def clips(structure):
    return [draw_clip(CONFIG, structure, "train", index) for index in range(CONFIG.num_train)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample")
    generate_sample(path, CONFIG)
    return path


def read(path):
    return [
        tf.train.SequenceExample.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def file_bytes(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_records_have_the_official_layout(folder):
    ids = []
    for split, count in (("train", 240), ("validate", 10), ("test", 9)):
        shards = sorted(folder.glob(f"{split}*.tfrecord"))
        assert [shard.name for shard in shards] == [f"{split}0{i}.tfrecord" for i in range(3)]
        records = [record for shard in shards for record in read(shard)]
        assert len(records) == count
        for record in records:
            assert set(record.context.feature) == {"id", "labels"}
            assert set(record.feature_lists.feature_list) == {"rgb", "audio"}
            ids.extend(record.context.feature["id"].bytes_list.value)
            labels = list(record.context.feature["labels"].int64_list.value)
            assert labels == sorted(set(labels))
            assert all(0 <= label < 24 for label in labels)
            frames = {
                name: [len(frame.bytes_list.value[0]) for frame in frames.feature]
                for name, frames in record.feature_lists.feature_list.items()
            }
            assert set(frames["rgb"]) == {1024}
            assert set(frames["audio"]) == {128}
            assert 12 <= len(frames["rgb"]) == len(frames["audio"]) <= 30
    assert len(set(ids)) == len(ids) == 259


def test_full_size_clips_have_120_to_300_frames():
    config = dataclasses.replace(CONFIG, max_frames=300)
    assert config.min_frames == 120
    structure = planted_structure(config)
    lengths = [len(draw_clip(config, structure, "test", i).features["rgb"]) for i in range(9)]
    assert 120 <= min(lengths) < max(lengths) <= 300


def test_a_record_holds_its_clip_and_shards_take_turns(folder, clips):
    for shard in range(3):
        records = read(folder / f"train0{shard}.tfrecord")
        for record, clip in zip(records, clips[shard::3], strict=True):
            assert record.context.feature["id"].bytes_list.value == [clip.video_id.encode()]
            assert record.context.feature["labels"].int64_list.value == clip.labels.tolist()
            for name, frames in record.feature_lists.feature_list.items():
                stored = b"".join(frame.bytes_list.value[0] for frame in frames.feature)
                assert stored == clip.features[name].tobytes()


def test_label_names_say_the_kind(folder, structure):
    with (folder / "label_names.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["label_id", "label_name"]
    assert [row[0] for row in rows[1:]] == [str(label) for label in range(24)]
    assert rows[1:3] == [["0", "global topic 0"], ["1", "local pair 0"]]
    assert [row[1] for row in rows[1:]] == label_names(structure)
    assert [row[1].startswith("local") for row in rows[1:]] == structure.is_local.tolist()


def test_a_seed_fixes_every_byte(tmp_path):
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        generate_sample(tmp_path / name, dataclasses.replace(TINY, seed=seed))
    one, same, other = (file_bytes(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith("tfrecord"))


def test_splits_share_directions_and_differ_in_clips(structure):
    again = planted_structure(dataclasses.replace(CONFIG, num_train=9, max_frames=60, num_shards=1))
    for name, directions in structure.directions.items():
        np.testing.assert_array_equal(directions.first_cue, again.directions[name].first_cue)
        np.testing.assert_array_equal(directions.dense, again.directions[name].dense)
    first = [draw_clip(CONFIG, structure, split, 0) for split in ("train", "validate", "test")]
    assert len({clip.video_id for clip in first}) == 3
    assert len({clip.features["rgb"][:12].tobytes() for clip in first}) == 3


def test_directions_are_orthonormal_and_dense_and_cues_apart(structure):
    for name, size in (("rgb", 1024), ("audio", 128)):
        directions = structure.directions[name]
        planted = np.concatenate(
            [directions.dense, directions.first_cue, directions.second_cue[structure.is_local]]
        )
        assert planted.shape == (60, size)
        np.testing.assert_allclose(planted @ planted.T, np.eye(60), atol=1e-5)
        assert not directions.second_cue[~structure.is_local].any()


@pytest.mark.parametrize("name, norm", [("rgb", 27.0), ("audio", 13.5)])
def test_frame_norms_are_the_real_ones(name, norm, clips):
    bare = dataclasses.replace(CONFIG, cue_norm=0, dense_norm=0)
    bare_structure = planted_structure(bare)
    bare_clips = [draw_clip(bare, bare_structure, "train", index) for index in range(30)]
    # The sample mean of the squared norm of some 600 frames is good to a fraction of a percent.
    for drawn, tolerance in ((bare_clips, 0.01), (clips, 0.02)):
        frames = np.concatenate([dequantize(clip.features[name]) for clip in drawn])
        norms = np.linalg.norm(frames, axis=1)
        assert np.sqrt(np.mean(norms**2)) == pytest.approx(norm, rel=tolerance)


@pytest.mark.parametrize("smoothness", [0.0, 0.4, 0.8])
def test_background_is_as_smooth_as_asked(smoothness):
    config = dataclasses.replace(CONFIG, smoothness=smoothness, cue_norm=0, dense_norm=0)
    structure = planted_structure(config)
    tail = [
        dequantize(draw_clip(config, structure, "train", i).features["rgb"])[:, -64:]
        for i in range(20)
    ]
    product = np.mean([np.mean(frames[1:] * frames[:-1]) for frames in tail])
    square = np.mean([np.mean(frames**2) for frames in tail])
    assert product / square == pytest.approx(smoothness, abs=0.04)
    # The first frame has the variance of the others.
    first = np.mean([np.mean(frames[0] ** 2) for frames in tail])
    assert first / square == pytest.approx(1.0, abs=0.15)


def test_priors_are_long_tailed_and_the_clips_follow_them(structure, clips):
    priors = structure.priors
    assert priors.sum() == pytest.approx(3.0, abs=1e-6)
    assert np.all(np.diff(priors) < 0)
    assert priors[0] > 6 * priors[-1]
    # s (c + 2)^-0.8, so the ratio of the first to the last is (25 / 2)^0.8.
    assert priors[0] / priors[-1] == pytest.approx(12.5**0.8)
    counts = np.bincount(np.concatenate([clip.true_labels for clip in clips]), minlength=24)
    # Of 240 clips, 72 are the ones in which one class is certain, 3 of them for each class.
    expected = 237 * priors + 3
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(237 * priors * (1 - priors)))


def test_every_class_has_three_positives_when_the_split_allows_it():
    config = dataclasses.replace(TINY, num_train=72, labels_per_clip=0.1)
    structure = planted_structure(config)
    true_labels = [draw_clip(config, structure, "train", i).true_labels for i in range(72)]
    assert np.bincount(np.concatenate(true_labels), minlength=24).min() >= 3


def test_labels_per_clip_is_limited_with_few_classes():
    priors = planted_structure(dataclasses.replace(CONFIG, num_classes=4)).priors
    assert priors.sum() == pytest.approx(1.2, abs=1e-6)


def test_dense_evidence_is_in_every_frame_and_below_epsilon():
    with_dense = dataclasses.replace(CONFIG, cue_norm=0, dense_norm=0.45)
    without = dataclasses.replace(with_dense, dense_norm=0)
    structure = planted_structure(with_dense)
    quantization_noise = 4 / 255 * np.sqrt(256 / 6)
    for index in range(10):
        clip = draw_clip(with_dense, structure, "train", index)
        bare = draw_clip(without, structure, "train", index)
        difference = dequantize(clip.features["rgb"]) - dequantize(bare.features["rgb"])
        assert not difference[:, :768].any()
        norms = np.linalg.norm(difference, axis=1)
        assert norms.max() < np.hypot(MAX_DENSE_NORM, quantization_noise) + 0.02 < 0.5
        response = difference @ structure.directions["rgb"].dense.T
        others = np.setdiff1d(np.arange(24), clip.true_labels)
        assert np.all(response[:, clip.true_labels] > 0.04)
        assert np.abs(response[:, others]).max() < 0.04


def test_dense_evidence_stays_below_epsilon_when_directions_overlap():
    config = dataclasses.replace(
        CONFIG, num_classes=100, labels_per_clip=20, cue_norm=0, dense_norm=0.45
    )
    structure = planted_structure(config)
    without = dataclasses.replace(config, dense_norm=0)
    assert (
        np.abs(
            np.triu(structure.directions["audio"].dense @ structure.directions["audio"].dense.T, 1)
        ).max()
        > 0.1
    )
    for index in range(5):
        clip = draw_clip(config, structure, "train", index)
        bare = draw_clip(without, structure, "train", index)
        difference = dequantize(clip.features["audio"]) - dequantize(bare.features["audio"])
        assert np.linalg.norm(difference.mean(axis=0)) == pytest.approx(MAX_DENSE_NORM, abs=0.02)


def test_a_matched_filter_finds_the_cues_where_they_are_said_to_be(structure, clips):
    directions = structure.directions["rgb"]
    for clip in clips[:60]:
        frames = dequantize(clip.features["rgb"])
        for label in range(24):
            first, second = clip.cue_frames.get(label, ([], []))
            # A cue of norm 12 in a background of deviation one.
            found = np.flatnonzero(frames @ directions.first_cue[label] > 6)
            np.testing.assert_array_equal(found, np.unique(first))
            found = np.flatnonzero(frames @ directions.second_cue[label] > 6)
            np.testing.assert_array_equal(found, np.unique(second))


def test_local_cues_are_near_in_clips_of_the_label_and_far_in_distractors(structure, clips):
    window, gap = CONFIG.cue_window, CONFIG.cue_gap
    assert (window, gap) == (1, 10)
    seen = {"near": 0, "far": 0, "global": 0}
    for clip in clips:
        for label, (first, second) in clip.cue_frames.items():
            distances = np.abs(first[:, None] - second[None, :])
            if not structure.is_local[label]:
                assert label in clip.true_labels
                assert len(second) == 0
                seen["global"] += 1
            elif label in clip.true_labels:
                pairs = np.diagonal(distances)
                assert np.all((pairs >= 1) & (pairs <= window))
                seen["near"] += 1
            else:
                assert distances.min() >= gap
                seen["far"] += 1
            assert len(first) == max(1, round(CONFIG.cue_share * len(clip.features["rgb"])))
    assert min(seen.values()) > 100


def test_full_size_window_fits_the_papers_block_and_the_gap_does_not():
    config = dataclasses.replace(CONFIG, max_frames=300)
    assert config.cue_window < 20 < config.cue_gap < config.min_frames


def test_oracles_separate_global_and_local_labels(structure, clips):
    is_true = np.zeros((len(clips), 24), bool)
    dense, cues, marginal, nearness = (np.zeros((len(clips), 24)) for _ in range(4))
    directions = structure.directions["rgb"]
    for row, clip in enumerate(clips):
        is_true[row, clip.true_labels] = True
        frames = dequantize(clip.features["rgb"])
        dense[row] = frames.mean(axis=0) @ directions.dense.T
        first = frames @ directions.first_cue.T
        second = frames @ directions.second_cue.T
        cues[row] = first.max(axis=0)
        marginal[row] = np.minimum(first.max(axis=0), second.max(axis=0))
        near = np.maximum(first[1:] + second[:-1], first[:-1] + second[1:])
        nearness[row] = near.max(axis=0)
    is_local = structure.is_local
    strong = np.where(is_local, nearness, cues)

    def area(scores, columns):
        return np.mean([roc_auc_score(is_true[:, c], scores[:, c]) for c in columns])

    dense_areas = [area(dense, np.flatnonzero(kind)) for kind in (~is_local, is_local)]
    assert dense_areas[0] > 0.8
    assert 0.6 < dense_areas[1] < dense_areas[0]
    # The distance of the cues shows the label; that both are in the clip is weaker evidence.
    local = np.flatnonzero(is_local)
    assert area(nearness, local) > area(marginal, local) + 0.08
    # One clip in ten shows no cue, which ranks it anywhere: 0.9 + 0.1 / 2.
    assert area(strong, range(24)) == pytest.approx(0.95, abs=0.03)


def test_audio_agrees_as_often_as_asked_and_otherwise_shows_another_clip(structure, clips):
    share = np.mean([clip.audio_agrees for clip in clips])
    assert share == pytest.approx(0.8, abs=5 * np.sqrt(0.16 / len(clips)))
    responses = {True: [], False: []}
    for clip in clips:
        frames = dequantize(clip.features["audio"])
        for label in clip.true_labels.tolist():
            if label in clip.cue_frames:
                at = clip.cue_frames[label][0]
                response = frames[at] @ structure.directions["audio"].first_cue[label]
                responses[clip.audio_agrees].append(response.mean())
    # Clipping at 2 takes a part of the cue's norm of 6.
    assert 3.5 < np.mean(responses[True]) < 6
    assert abs(np.mean(responses[False])) < 1


def test_label_noise_drops_the_share_asked_for():
    clean = dataclasses.replace(TINY, num_train=200, label_noise=0)
    structure = planted_structure(clean)
    noisy = dataclasses.replace(clean, label_noise=0.3)
    kept = added = true = 0
    for index in range(200):
        clip = draw_clip(clean, structure, "train", index)
        np.testing.assert_array_equal(clip.labels, clip.true_labels)
        other = draw_clip(noisy, structure, "train", index)
        np.testing.assert_array_equal(other.true_labels, clip.true_labels)
        kept += len(np.intersect1d(other.labels, other.true_labels))
        added += len(np.setdiff1d(other.labels, other.true_labels))
        true += len(other.true_labels)
    assert kept / true == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / true))
    expected = 200 * np.sum(0.3 * structure.priors * (1 - structure.priors))
    assert added == pytest.approx(expected, abs=5 * np.sqrt(expected))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_train": 0}, r"`num_train` must be a whole number from 1 .* num_train=0"),
        ({"num_classes": 2.5}, r"`num_classes` must be a whole number .* num_classes=2\.5"),
        ({"max_frames": 5}, r"`max_frames` must be a whole number from 6 .* max_frames=5"),
        ({"seed": -1}, r"`seed` must be .* seed=-1"),
        ({"dense_norm": 0.5}, r"`dense_norm` must be a number from 0 to 0\.45.* dense_norm=0\.5"),
        ({"audio_agreement": float("nan")}, r"`audio_agreement` must be .* audio_agreement=nan"),
        ({"label_noise": True}, r"`label_noise` must be .* label_noise=True"),
        ({"num_test": 3, "num_shards": 4}, r"`num_shards` must be at most .* 3.* num_shards=4"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **settings)


def test_cues_that_leave_no_room_for_the_background_are_refused():
    config = dataclasses.replace(CONFIG, cue_norm=25, cue_share=0.2)
    with pytest.raises(ValueError, match=r"half of a frame's variance.*cue_norm=25; lower"):
        planted_structure(config)


def test_unknown_clips_are_refused(structure):
    with pytest.raises(ValueError, match=r"`split` must be one of .*split='valid'"):
        draw_clip(CONFIG, structure, "valid", 0)
    with pytest.raises(ValueError, match=r"below num_test=9.* index=9"):
        draw_clip(CONFIG, structure, "test", 9)


def test_shards_of_another_sample_are_not_mixed_in(tmp_path):
    generate_sample(tmp_path, TINY)
    before = file_bytes(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds test01\.tfrecord, test02\.tfrecord.*remove"):
        generate_sample(tmp_path, dataclasses.replace(TINY, num_shards=1))
    assert file_bytes(tmp_path) == before
    generate_sample(tmp_path, dataclasses.replace(TINY, seed=9))
    assert file_bytes(tmp_path) != before


def test_a_failure_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def fail_late(config, structure, split, index):
        if split == "train" and index == 4:
            raise OSError("disk full")
        return draw_clip(config, structure, split, index)

    monkeypatch.setattr(sample, "draw_clip", fail_late)
    with pytest.raises(OSError, match="disk full"):
        generate_sample(tmp_path, TINY)
    # Clip 4 is the second of shard 1.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "label_names.csv",
        "train00.tfrecord",
    ]


def test_command_line_writes_the_files_and_shows_progress(tmp_path, capsys):
    command.main(
        [
            f"--output_dir={tmp_path / 'new' / 'folder'}",
            *("--num_train=6", "--num_validate=3", "--num_test=3", "--num_classes=24"),
            *("--max_frames=10", "--num_shards=3", "--seed=5"),
        ]
    )
    generate_sample(tmp_path / "library", TINY)
    assert file_bytes(tmp_path / "new" / "folder") == file_bytes(tmp_path / "library")
    printed = capsys.readouterr()
    assert "12/12" in printed.err and "clip/s" in printed.err
    assert "6 train, 3 validate and 3 test clips of 24 classes" in printed.out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--num_train=-1"], r"`num_train` must be a whole number from 1"),
        (["--num_train=many"], r"--num_train: invalid int value: 'many'"),
        (["--num_trains=4"], r"--num_trains: did you mean --num_train?"),
    ],
)
def test_command_line_refuses_wrong_flags(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([f"--output_dir={tmp_path}", *flags])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_command_line_refuses_a_file_as_folder(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(SystemExit, match="2"):
        command.main([f"--output_dir={path}"])
    assert "--output_dir must be a folder" in capsys.readouterr().err


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"--{field.name}" in text for field in dataclasses.fields(SampleConfig))
