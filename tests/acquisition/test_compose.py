"""Composed clips: their frames, labels and spans are those of their places."""

import csv

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.acquisition.compose import SILENCE, ComposeConfig, SourceClip, compose, plan
from yt8m_gat.commands import compose as command
from yt8m_gat.config import ConfigError
from yt8m_gat.data import RecordSchema, write_records
from yt8m_gat.explanation.true_spans import read_true_spans

SCHEMA = RecordSchema({"rgb": 2, "audio": 1}, num_classes=9)
# Clip n has the labels LABELS[n], and all its bytes are n; clip 6 is shorter, clip 7 longer.
LABELS = [(0,), (1, 2), (2,), (3,), (), (1, 3), (0,), (0,)]
LENGTHS = [3, 3, 3, 3, 3, 3, 2, 4]


def source_clips(kept=None):
    return [
        SourceClip(
            f"s{number}",
            tuple(label for label in LABELS[number] if kept is None or label in kept),
            {name: np.full((3, size), number, np.uint8) for name, size in SCHEMA.feature_sizes},
        )
        for number in range(6)
    ]


def composed(folder):
    """Returns id -> (labels, the byte of each place), in the order of the shards."""
    videos = {}
    for path in sorted(folder.glob("composed*.tfrecord")):
        for payload in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            record = tf.train.SequenceExample.FromString(payload)
            context = record.context.feature
            lists = record.feature_lists.feature_list
            rgb, audio = (
                np.array([list(frame.bytes_list.value[0]) for frame in lists[name].feature])
                for name in ("rgb", "audio")
            )
            assert (rgb == audio).all()
            places = audio.reshape(-1, 3)
            assert (places == places[:, :1]).all()
            video_id = context["id"].bytes_list.value[0].decode()
            videos[video_id] = (list(context["labels"].int64_list.value), places[:, 0].tolist())
    return videos


def spans(folder):
    with (folder / "spans.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_places_are_labelled(tmp_path):
    # Of the six clips five have labels: two pairs, and one that is left.
    assert compose(source_clips(), tmp_path, ComposeConfig(2, None, 3, num_shards=9)) == 2
    videos = composed(tmp_path)
    sources = [source for _, places in videos.values() for source in places]
    assert len(set(sources)) == 4
    assert set(sources) <= {0, 1, 2, 3, 5}
    for labels, places in videos.values():
        assert labels == sorted({label for source in places for label in LABELS[source]})
    expected = [
        (video_id, str(label), str(3 * place), str(3 * place + 3), "6", f"s{source}")
        for video_id, (_, places) in videos.items()
        for place, source in enumerate(places)
        for label in LABELS[source]
    ]
    assert [tuple(row.values()) for row in spans(tmp_path)] == expected
    read = read_true_spans(tmp_path / "spans.csv")
    assert {video_id: len(of_video) for video_id, of_video in read.items()} == {
        video_id: sum(len(LABELS[source]) for source in places)
        for video_id, (_, places) in videos.items()
    }


def test_silence_and_kept_labels(tmp_path):
    config = ComposeConfig(4, 1, 3, kept_labels=(1,), num_shards=1)
    assert compose(source_clips({1}), tmp_path, config) == 2
    videos = composed(tmp_path)
    for labels, places in videos.values():
        assert labels == [1]
        # 0 lies between the bytes 127 and 128.
        assert sorted(places)[0] in (1, 5)
        assert sorted(places)[1:] in ([127] * 3, [128] * 3)
    for row in spans(tmp_path):
        assert row["label"] == "1"
        labels, places = videos[row["video_id"]]
        assert f"s{places[int(row['start']) // 3]}" == row["source"]


def test_clips_that_fill_have_none_of_the_kept_labels(tmp_path):
    config = ComposeConfig(3, 1, 3, fill="clips", kept_labels=(2, 3), num_shards=2)
    assert compose(source_clips({2, 3}), tmp_path, config) == 4
    labelled = set()
    for labels, places in composed(tmp_path).values():
        kept = [source for source in places if set(LABELS[source]) & {2, 3}]
        assert len(kept) == 1
        assert sorted(set(places) - set(kept)) == [0, 4]
        assert labels == sorted(set(LABELS[kept[0]]) & {2, 3})
        labelled |= set(kept)
    assert labelled == {1, 2, 3, 5}


def test_the_seed_fixes_every_byte(tmp_path):
    def made(name, seed):
        compose(source_clips(), tmp_path / name, ComposeConfig(5, 2, 3, seed=seed))
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.*")}

    first = made("a", 0)
    assert set(first) == {"composed00.tfrecord", "composed01.tfrecord", "spans.csv"}
    assert made("b", 0) == first == made("a", 0)
    assert made("c", 1) != first


def test_places_are_even():
    # 6,000 clips with one labelled place of 3: each place has 2,000, deviation 36.5.
    videos = plan([(0,)] * 6000, ComposeConfig(3, 1))
    counts = np.sum([[place.labelled for place in video] for video in videos], axis=0)
    assert np.abs(counts - 2000).max() < 5 * 36.5
    assert all(p.labelled != (p.source == SILENCE) for video in videos for p in video)
    assert sorted(p.source for video in videos for p in video if p.labelled) == list(range(6000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labelled_clips": 31}, r"--labelled_clips must be 1 to --clips_per_video=30. .*: 31"),
        ({"labelled_clips": 0}, "--labelled_clips must be 1"),
        ({"labelled_clips": 1, "fill": "clips"}, "--fill=clips needs --kept_labels"),
        ({"fill": "noise"}, "--fill must be one of silence, clips"),
        ({"frames_per_clip": 0}, "--frames_per_clip must be positive"),
        ({"seed": -1}, "--seed must not be negative"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        ComposeConfig(**settings)


def test_too_few_source_clips():
    with pytest.raises(ValueError, match=r"needs 3 source clips with a kept label .*: 2"):
        plan([(0,), (1,), ()], ComposeConfig(3))
    with pytest.raises(ValueError, match=r"needs 2 source clips without a kept label .*: 1"):
        plan([(0,), ()], ComposeConfig(3, 1, fill="clips", kept_labels=(0,)))


@pytest.mark.slow
def test_the_command_reads_records(tmp_path, capsys):
    path, out = tmp_path / "source.tfrecord", tmp_path / "out"
    # Clip 6 is shorter, clip 7 longer.
    examples = [
        {"id": f"s{number}", "labels": labels}
        | {name: np.full((length, size), number, np.uint8) for name, size in SCHEMA.feature_sizes}
        for number, (labels, length) in enumerate(zip(LABELS, LENGTHS, strict=True))
    ]
    write_records(path, examples, SCHEMA)
    flags = ["--clips_per_video=2", "--feature_names=rgb,audio", "--feature_sizes=2,1"]
    flags += [str(path), f"--output_dir={out}", "--num_classes=9", "--frames_per_clip=3"]
    command.main(flags)
    printed = capsys.readouterr().out
    assert "2 clips of 6 frames, and spans.csv" in printed
    assert "Left out: 2 source clips that do not have 3 frames, and 1 that fill no" in printed
    compose(source_clips(), tmp_path / "same", ComposeConfig(2, None, 3))
    for file in ("composed00.tfrecord", "composed01.tfrecord", "spans.csv"):
        assert (out / file).read_bytes() == (tmp_path / "same" / file).read_bytes()
    with pytest.raises(SystemExit) as stopped:
        command.main([*flags, "--kept_labels=9"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "--kept_labels must be 0 to 8, below --num_classes. Received: 9" in error


def test_shards_of_another_set_are_refused(tmp_path):
    (tmp_path / "composed07.tfrecord").touch()
    with pytest.raises(FileExistsError, match=r"holds composed07\.tfrecord"):
        compose(source_clips(), tmp_path, ComposeConfig(2, None, 3))


def test_a_source_is_not_replaced(tmp_path):
    source = tmp_path / "composed00.tfrecord"
    source.write_bytes(b"records")
    with pytest.raises(ConfigError, match=r"composed00\.tfrecord of --output_dir must be a file"):
        compose(source_clips(), tmp_path, ComposeConfig(2, None, 3), sources=[str(source)])
    assert source.read_bytes() == b"records"
