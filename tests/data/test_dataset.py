import itertools
import os
import time
from pathlib import Path

import handmade_records as hand
import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data import (
    BadRecordError,
    Reader,
    RecordSchema,
    Shuffle,
    as_pairs,
    count_records,
    find_files,
    make_dataset,
)
from yt8m_gat.data import dataset as dataset_module

SCHEMA = RecordSchema({"r": 4, "u": 2}, 5, 20)
RECORDS_PER_FILE = (13, 7, 20, 9)
TOTAL = sum(RECORDS_PER_FILE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(1)
    return [
        hand.write(
            folder / f"f{number}.tfrecord",
            [hand.clip(f"{number}-{i:02}", int(rng.integers(1, 21))) for i in range(num_records)],
        )
        for number, num_records in enumerate(RECORDS_PER_FILE)
    ]


def in_file_order():
    return [
        f"{number}-{i:02}".encode()
        for number, num_records in enumerate(RECORDS_PER_FILE)
        for i in range(num_records)
    ]


def batches(files, batch_size=8, **options):
    return [
        b["video_id"].numpy().tolist() for b in make_dataset(files, SCHEMA, batch_size, **options)
    ]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def ids(files, **options):
    return flat(batches(files, **options))


def test_without_shuffle_the_order_is_that_of_the_input(files):
    assert ids(files) == in_file_order()
    assert ids(files[::-1])[:9] == [f"3-{i:02}".encode() for i in range(9)]
    assert [len(b) for b in batches(files)] == [8] * 6 + [1]


@pytest.mark.parametrize(
    ("options", "window"),
    [
        pytest.param({}, None, marks=pytest.mark.slow),
        pytest.param({"buffer": 0}, None, marks=pytest.mark.slow),
        ({"buffer": 5}, 16),
    ],
)
def test_order_is_a_permutation_that_is_a_function_of_seed_and_epoch(
    files, monkeypatch, options, window
):
    if window is not None:
        monkeypatch.setattr(dataset_module, "BUCKET_WINDOW", window)
    shuffle = Shuffle(seed=3, epoch=2, **options)
    first = batches(files, shuffle=shuffle)
    assert sorted(flat(first)) == in_file_order()
    assert flat(first) != in_file_order()
    assert [len(b) for b in first] == [8] * 6 + [1]
    tf.random.set_seed(99)
    try:
        assert batches(files, shuffle=shuffle) == first
    finally:
        tf.random.set_seed(None)
    assert batches(files, shuffle=Shuffle(seed=4, epoch=2, **options)) != first
    assert batches(files, shuffle=Shuffle(seed=3, epoch=3, **options)) != first


def test_two_passes_over_one_dataset_are_the_same(files):
    dataset = make_dataset(files, SCHEMA, 8, shuffle=Shuffle())
    first, second = ([b["video_id"].numpy().tolist() for b in dataset] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("shuffle", [pytest.param(None, marks=pytest.mark.slow), Shuffle()])
def test_skipping_is_dropping_the_first_batches(files, monkeypatch, shuffle):
    monkeypatch.setattr(dataset_module, "BUCKET_WINDOW", 16)
    every = batches(files, shuffle=shuffle)
    assert len(every) == 7
    for skipped in (1, 5, 9):
        assert batches(files, skip_batches=skipped, shuffle=shuffle) == every[skipped:]


def test_the_smaller_last_batch_is_not_of_the_longest_clips(files):
    lengths = {
        i: int(n)
        for b in make_dataset(files, SCHEMA, 8)
        for i, n in zip(b["video_id"].numpy(), b["num_frames"].numpy(), strict=True)
    }
    longest = max(lengths.values())
    last = set()
    for seed in range(4):
        (rest,) = [b for b in batches(files, shuffle=Shuffle(seed=seed)) if len(b) < 8]
        last |= set(rest)
    assert any(lengths[i] < longest / 2 for i in last)


def test_buckets_pad_less_and_only_to_their_longest_clip(files):
    def padding(shuffle):
        total = 0
        for batch in make_dataset(files, SCHEMA, 8, shuffle=shuffle):
            num_frames = batch["num_frames"].numpy()
            num_steps = batch["features"]["r"].shape[1]
            assert num_steps == num_frames.max()
            total += (num_steps - num_frames).sum()
        return total

    assert padding(Shuffle()) < 0.5 * padding(None)


def test_sorted_windows_are_cut_into_runs_of_like_length(files):
    found = [
        sorted(b["num_frames"].numpy())
        for b in make_dataset(files, SCHEMA, 8, shuffle=Shuffle())
        if len(b["num_frames"]) == 8
    ]
    assert found != sorted(found), "the batches of a window must not come by ascending length"
    found.sort()
    assert all(a[-1] <= b[0] for a, b in itertools.pairwise(found))


def test_the_batches_of_each_window_have_an_order_of_their_own(tmp_path, monkeypatch):
    """Six windows of four batches of two, each with the same lengths: 24 orders are possible."""
    lengths = [1, 1, 5, 5, 9, 9, 13, 13] * 6
    records = [hand.clip(f"{i:02}", frames) for i, frames in enumerate(lengths)]
    files = [hand.write(tmp_path / "same.tfrecord", records)]
    # A window holds whole batches: 8 records.
    monkeypatch.setattr(dataset_module, "BUCKET_WINDOW", 9)
    batches = make_dataset(files, SCHEMA, 2, shuffle=Shuffle(buffer=0))
    found = [tuple(b["num_frames"].numpy().tolist()) for b in batches]
    windows = [tuple(found[start : start + 4]) for start in range(0, 24, 4)]
    assert all(sorted(window) == [(1, 1), (5, 5), (9, 9), (13, 13)] for window in windows)
    assert len(set(windows)) >= 3


def test_padding_is_zero_and_frames_are_in_place(files):
    for batch in make_dataset(files, SCHEMA, 8, shuffle=Shuffle()):
        for row, num_frames in zip(
            batch["features"]["r"].numpy(), batch["num_frames"].numpy(), strict=True
        ):
            np.testing.assert_array_equal(row[:num_frames, 0], np.arange(num_frames))
            assert not row[num_frames:].any()


def test_fixed_number_of_frames(files):
    dataset = make_dataset(files, SCHEMA, 8, shuffle=Shuffle(), fixed_num_frames=True)
    assert dataset.element_spec["features"]["u"].shape.as_list() == [None, 20, 2]
    assert {b["features"]["u"].shape[1] for b in dataset} == {20}


@pytest.mark.parametrize("shuffle", [None, Shuffle()])
def test_an_empty_file_is_refused_by_name(files, tmp_path, shuffle):
    empty = hand.write(tmp_path / "empty.tfrecord", [])
    found = [*files, empty]
    with pytest.raises(BadRecordError, match=r"empty\.tfrecord: the file is empty.*delete it if"):
        list(Reader(found, SCHEMA, 8, shuffle=shuffle))
    with pytest.raises(BadRecordError, match="the file is empty"):
        count_records(found)
    assert count_records(found, skip_damage=True) == TOTAL


def test_count_records(files):
    assert count_records(files) == TOTAL


def test_without_labels(files):
    assert "labels" not in make_dataset(files, SCHEMA, 8, with_labels=False).element_spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1. Received: 0"),
        ({"skip_batches": -1}, "skip_batches must be at least 0. Received: -1"),
    ],
)
def test_refuses(files, options, message):
    options = {"batch_size": 8, **options}
    with pytest.raises(ValueError, match=message):
        make_dataset(files, SCHEMA, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0. Received: -1"),
        ({"epoch": -1}, "epoch must be at least 0"),
        ({"buffer": -1}, "buffer must be at least 0"),
        ({"num_readers": 0}, "num_readers must be at least 1"),
    ],
)
def test_an_order_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Shuffle(**options)


def test_refuses_no_files():
    with pytest.raises(ValueError, match="at least one file"):
        make_dataset([], SCHEMA, 8)


def test_find_files(tmp_path):
    for name in ("b1", "a1", "a2", "c1"):
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("a1", "a2", "b1")]
    assert find_files(f"{tmp_path}/b*, {tmp_path}/a*,{tmp_path}/a1", "x") == expected
    assert find_files([f"{tmp_path}/b*", f"{tmp_path}/a*"], "x") == expected


@pytest.mark.parametrize("pattern", ["", " , ", []])
def test_find_files_refuses_an_empty_pattern(pattern):
    with pytest.raises(ConfigError, match="--train_data_pattern must name the records"):
        find_files(pattern, "train_data_pattern")


def test_find_files_names_the_pattern_that_matches_nothing(tmp_path):
    (tmp_path / "a1").touch()
    with pytest.raises(ConfigError, match=r"--train_data_pattern: no file matches '.*/zz\*'"):
        find_files(f"{tmp_path}/a*,{tmp_path}/zz*", "train_data_pattern")


@pytest.mark.parametrize(
    "name", ["run[1]", "a,b", "back\\slash", "st*r", "wh?t", "a{b}", " blank ", "[!a]", "new\nline"]
)
@pytest.mark.parametrize("relative", [False, True])
def test_a_name_that_exists_is_no_pattern(tmp_path, monkeypatch, name, relative):
    monkeypatch.chdir(tmp_path)
    base = Path() if relative else tmp_path
    for folder in (tmp_path / name, tmp_path / "run1", tmp_path / "stuff"):
        folder.mkdir()
        (folder / "t1").touch()
        (folder / f"{name}.x").touch()
    file = base / name / f"{name}.x"
    assert find_files(str(file), "x") == [str(file)]
    if name not in ("a,b", " blank "):
        other = str(base / "run1" / "t1")
        assert find_files(f"{file},{other}", "x") == sorted([str(file), other])
        assert find_files(f"{base / name}/t*", "x") == [str(base / name / "t1")]
    assert find_files([f"{base / name}/t*"], "x") == [str(base / name / "t1")]


def test_brackets_that_are_no_name_are_alternatives(tmp_path):
    for name in ("t1", "t2", "t3"):
        (tmp_path / name).touch()
    assert find_files(f"{tmp_path}/t[13]", "x") == [f"{tmp_path}/t1", f"{tmp_path}/t3"]


def test_brackets_and_commas_that_match_nothing_get_a_remedy(tmp_path):
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "t1").touch()
    with pytest.raises(ConfigError, match=r"no file matches '.*/a'.* write \? for each comma"):
        find_files(f"{tmp_path}/a,b/t*", "x")
    assert find_files(f"{tmp_path}/a?b/t*", "x") == [f"{tmp_path}/a,b/t1"]


def test_one_file_in_two_spellings_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    spellings = ["d/a", "d/../d/a", "./d//a", "link/a", f"{tmp_path}/d/a", "d/*"]
    assert len(find_files(",".join(spellings), "x")) == 1
    assert find_files("link/a,d/a", "x") == find_files("d/a,link/a", "x") == ["d/a"]


def test_folders_are_left_out_of_a_pattern_and_refused_by_name(tmp_path):
    (tmp_path / "a1").touch()
    (tmp_path / "a2").mkdir()
    assert find_files(f"{tmp_path}/a*", "x") == [f"{tmp_path}/a1"]
    with pytest.raises(ConfigError, match=r"must name files. Received a folder: '.*/a2'; .*tf"):
        find_files(f"{tmp_path}/a1,{tmp_path}/a2", "x")
    with pytest.raises(ConfigError, match=r"--x: only folders match '.*/\*2'"):
        find_files(f"{tmp_path}/*2", "x")


def test_the_home_folder_is_known_in_each_part_of_a_pattern(tmp_path, monkeypatch):
    for name in ("a1", "b1"):
        (tmp_path / name).touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_files("~/a*, ~/b*", "x") == [f"{tmp_path}/a1", f"{tmp_path}/b1"]


@pytest.mark.parametrize("pattern", ["foo://a/b*", "hdfs://host/b*", "s3://bucket/b*"])
def test_an_unknown_place_is_a_line(pattern):
    with pytest.raises(ConfigError, match=r"--x: '.*://.*' cannot be looked up: .*copy the files"):
        find_files(pattern, "x")


def test_a_file_name_that_is_no_text_is_a_line(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tfrecord")).touch()
    with pytest.raises(ConfigError, match=r"--x must be text in UTF-8.*udcff.*rename"):
        find_files(f"{tmp_path}/*.tfrecord", "x")


def test_pairs_go_into_fit(files):
    pairs = as_pairs(make_dataset(files, SCHEMA, 8, shuffle=Shuffle()))
    inputs, labels = next(iter(pairs))
    assert set(inputs) == {"r", "u", "num_frames"}
    assert labels.shape == [8, 5]

    class Pooled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(5)

        def call(self, inputs):
            return self.dense(keras.ops.mean(keras.ops.cast(inputs["r"], "float32"), axis=1))

    model = Pooled()
    model.compile("sgd", "binary_crossentropy")
    sized = pairs.apply(tf.data.experimental.assert_cardinality(7))
    history = model.fit(sized, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


needs_audioset = pytest.mark.skipif(
    not (hand.SHARED / "audioset").is_dir(), reason=f"no folder {hand.SHARED / 'audioset'}"
)
needs_videos = pytest.mark.skipif(
    not (hand.SHARED / "yt8m_video").is_dir(), reason=f"no folder {hand.SHARED / 'yt8m_video'}"
)


@needs_audioset
def test_real_audioset():
    found = find_files(str(hand.SHARED / "audioset" / "train*.tfrecord"), "train_data_pattern")
    assert len(found) == 16
    assert count_records(found) == 22_160
    schema = RecordSchema({"audio_embedding": 128}, 527)
    one = make_dataset(found[:1], schema, 64, shuffle=Shuffle())
    seen = [i for batch in one for i in batch["video_id"].numpy()]
    assert len(seen) == len(set(seen)) == 1385
    batch = next(iter(one))
    assert batch["features"]["audio_embedding"].dtype == tf.uint8
    assert batch["num_frames"].numpy().max() <= 10
    assert (batch["labels"].numpy().sum(axis=1) >= 1).all()


@needs_videos
def test_real_videos():
    found = find_files(str(hand.SHARED / "yt8m_video" / "train" / "*.tfrecord"), "x")
    assert len(found) == 40
    assert count_records(found) == 11_790
    schema = RecordSchema({"mean_rgb": 1024, "mean_audio": 128}, 3862, frame_level=False)
    batches = list(make_dataset(found[:1], schema, 100))
    assert sum(len(b["video_id"]) for b in batches) == 284
    assert batches[0]["features"]["mean_rgb"].shape == [100, 1024]
    assert (batches[0]["labels"].numpy().sum(axis=1) >= 1).all()


def test_a_remote_storage_that_does_not_answer_is_told(monkeypatch, capsys):
    def never(_):
        while not (told := capsys.readouterr().err):
            time.sleep(0.01)
        raise tf.errors.UnavailableError(None, None, told)

    monkeypatch.setattr(dataset_module, "_SECONDS_TO_LIST", 0.01)
    monkeypatch.setattr(tf.io.gfile, "glob", never)
    with pytest.raises(ConfigError, match=r"warning: --x: 'gs://b/\*' has not answered for 0.01 s"):
        find_files("gs://b/*", "x")
