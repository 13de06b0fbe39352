import contextlib
import re

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data import (
    BadRecordError,
    Fault,
    LabelMap,
    Reader,
    RecordSchema,
    Shuffle,
    as_pair,
    make_dataset,
    parse_rated_segments,
    parse_windows,
    read_class_ids,
)
from yt8m_gat.prediction.submission import SegmentSubmissionWriter

SCHEMA = RecordSchema({"r": 4, "u": 2}, 5, 40)


def rated_clip(video_id, num_frames, ratings, **context):
    """`ratings`: (start, class, score) triples; byte t of both features is t."""
    columns = list(zip(*ratings, strict=True)) or [(), (), ()]
    return hand.sequence_example(
        {
            "id": hand.bytes_feature(video_id.encode()),
            "labels": hand.ints_feature(0),
            "segment_start_times": hand.ints_feature(*columns[0]),
            "segment_end_times": hand.ints_feature(*(start + 5 for start in columns[0])),
            "segment_labels": hand.ints_feature(*columns[1]),
            "segment_scores": hand.floats_feature(*columns[2]),
            **context,
        },
        r=[bytes([t] * 4) for t in range(num_frames)],
        u=[bytes([100 + t] * 2) for t in range(num_frames)],
    )


def numpy(batch):
    return tf.nest.map_structure(lambda x: x.numpy(), batch)


def test_distinct_starts_in_order_of_first_appearance_are_the_segments():
    records = [
        rated_clip("a", 20, [(10, 1, 1.0), (0, 2, 0.0), (10, 3, 0.25), (0, 2, 0.5)]),
        hand.clip("none", 7),
        rated_clip("b", 12, [(10, 4, 1.0)]),
        rated_clip("empty", 6, []),
        rated_clip("c", 30, [(25, 0, 0.0)]),
    ]
    batch = numpy(parse_rated_segments(tf.constant(records), SCHEMA))
    assert batch["video_id"].tolist() == [b"a", b"a", b"b", b"c"]
    assert batch["segment_start_time"].tolist() == [10, 0, 10, 25]
    assert batch["num_frames"].tolist() == [5, 5, 2, 5]  # "b" ends within its segment
    frames = [[10, 11, 12, 13, 14], [0, 1, 2, 3, 4], [10, 11], [25, 26, 27, 28, 29]]
    for row, expected in enumerate(frames):
        padding = [0] * (5 - len(expected))
        for name, first in (("r", 0), ("u", 100)):
            wanted = [first + t for t in expected] + padding
            np.testing.assert_array_equal(
                batch["features"][name][row],
                np.tile(np.array(wanted)[:, None], (1, SCHEMA.sizes[name])),
            )
    labels, weights = np.zeros((4, 5)), np.zeros((4, 5))
    labels[0, 1], labels[0, 3], labels[1, 2], labels[2, 4] = 1, 0.25, 0.5, 1
    for row, column in ((0, 1), (0, 3), (1, 2), (2, 4), (3, 0)):
        weights[row, column] = 1
    np.testing.assert_array_equal(batch["labels"], labels)
    np.testing.assert_array_equal(batch["label_weights"], weights)


def test_windows_cover_each_clip_once():
    lengths = [1, 5, 6, 14, 40, 63]  # the last is cut at max_frames, 40
    records = [hand.clip(f"v{n}", n, first_byte=n) for n in lengths]
    batch = numpy(parse_windows(tf.constant(records), SCHEMA))
    assert "labels" not in batch
    expected_ids, expected_starts = [], []
    for length in lengths:
        starts = range(0, min(length, 40), 5)
        expected_starts += starts
        expected_ids += [f"v{length}".encode()] * len(starts)
    assert batch["video_id"].tolist() == expected_ids
    assert batch["segment_start_time"].tolist() == expected_starts
    for length in lengths:
        rows = batch["video_id"] == f"v{length}".encode()
        real = np.arange(5) < batch["num_frames"][rows][:, None]
        cut = batch["features"]["r"][rows]
        np.testing.assert_array_equal(
            cut[real][:, 0], [(length + t) % 256 for t in range(min(length, 40))]
        )
        assert not cut[~real].any()


def with_map(pairs):
    names = ("",) * (1 + max(target for _, target in pairs))
    label_map = LabelMap(pairs, 5, names)
    return RecordSchema({"r": 4, "u": 2}, label_map.num_targets, 40, label_map=label_map)


def test_a_target_is_rated_where_the_ratings_decide_it():
    # Target 0 from 0 and 1; 1 from 2; 2 has no source; 3 from 3 and 4.
    schema = with_map(((0, 0), (1, 0), (2, 1), (3, 3), (4, 3)))
    record = rated_clip("a", 20, [(0, 0, 1.0), (0, 3, 0.0), (5, 0, 0.0), (5, 1, 0.0), (5, 2, 0.5)])
    batch = numpy(parse_rated_segments(tf.constant([record]), schema))
    np.testing.assert_array_equal(batch["labels"], [[1, 0, 0, 0], [0, 0.5, 0, 0]])
    np.testing.assert_array_equal(batch["label_weights"], [[1, 0, 0, 0], [1, 1, 0, 0]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files, 40 records, 0 to 4 segments each."""
    folder = tmp_path_factory.mktemp("segments")
    rng = np.random.default_rng(3)
    paths = []
    for number, num_records in enumerate((17, 23)):
        records = []
        for i in range(num_records):
            starts = 5 * rng.permutation(6)[: rng.integers(0, 5)]
            ratings = [(int(s), int(rng.integers(5)), float(rng.integers(2))) for s in starts]
            records.append(rated_clip(f"{number}-{i}", int(rng.integers(26, 40)), ratings))
        paths.append(hand.write(folder / f"f{number}.tfrecord", records))
    return paths


def segment_batches(files, batch_size=8, segments="rated", **options):
    return [
        list(zip(b["video_id"].numpy(), b["segment_start_time"].numpy().tolist(), strict=True))
        for b in make_dataset(files, SCHEMA, batch_size, segments=segments, **options)
    ]


@pytest.mark.parametrize("segments", ["rated", "windows"])
def test_batches_are_full_and_hold_every_segment_in_order(files, segments):
    parse = parse_rated_segments if segments == "rated" else parse_windows
    expected = []
    for path in files:
        records = [record.numpy() for record in tf.data.TFRecordDataset(path)]
        batch = numpy(parse(tf.constant(records), SCHEMA))
        expected += zip(batch["video_id"], batch["segment_start_time"].tolist(), strict=True)
    batches = segment_batches(files, segments=segments)
    assert [segment for batch in batches for segment in batch] == expected
    assert len(expected) % 8 and {len(batch) for batch in batches[:-1]} == {8}


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [0, 9])
def test_the_order_is_a_function_of_seed_and_epoch_and_skipping_is_exact(files, buffer):
    shuffle = Shuffle(seed=3, epoch=2, buffer=buffer)
    first = segment_batches(files, shuffle=shuffle)
    flat = [segment for batch in first for segment in batch]
    in_order = [segment for batch in segment_batches(files) for segment in batch]
    assert sorted(flat) == sorted(in_order) and flat != in_order
    tf.random.set_seed(99)
    try:
        assert segment_batches(files, shuffle=shuffle) == first
    finally:
        tf.random.set_seed(None)
    for skipped in (4, 99):
        again = segment_batches(files, shuffle=shuffle, skip_batches=skipped)
        assert again == first[skipped:]
    if buffer:
        other = Shuffle(seed=3, epoch=3, buffer=buffer)
        assert segment_batches(files, shuffle=other) != first


def test_the_weights_are_the_third_part_of_a_pair(files):
    dataset = make_dataset(files, SCHEMA, 8, segments="rated", fixed_num_frames=True)
    batch = next(iter(dataset))
    inputs, labels, label_weights = as_pair(batch)
    assert set(inputs) == {"r", "u", "num_frames"}
    assert labels is batch["labels"] and label_weights is batch["label_weights"]
    assert inputs["r"].shape == (8, 5, 4) and label_weights.shape == (8, 5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            rated_clip("a", 9, [(0, 1, 1.0)], segment_scores=hand.floats_feature()),
            "it has segment_scores for 0 ratings, segment_start_times for 1",
        ),
        (
            rated_clip("a", 9, [(0, 1, 1.0)], segment_labels=hand.ints_feature(1, 2)),
            "it has segment_labels for 2 ratings, segment_start_times for 1",
        ),
        (rated_clip("a", 9, [(0, 1, 1.0), (10, 1, 1.0)]), "second 10 is outside the clip, .* 9"),
        (rated_clip("a", 60, [(45, 1, 1.0)]), "second 45 is outside the clip, which has 40"),
        (rated_clip("a", 9, [(-5, 1, 1.0)]), "second -5 is outside the clip"),
        (rated_clip("a", 9, [(0, 5, 1.0)]), r"segment label 5 is outside 0 \.\. 4"),
        (rated_clip("a", 9, [(0, -1, 1.0)]), r"segment label -1 is outside 0 \.\. 4"),
        (rated_clip("a", 9, [(0, 1, 1.5)]), r"segment score 1.5\d* is outside 0 \.\. 1"),
        (rated_clip("a", 9, [(0, 1, float("nan"))]), r"segment score -?nan is outside 0 \.\. 1"),
        (
            rated_clip("a", 9, [], segment_start_times=hand.floats_feature(1.0)),
            "segment_start_times",
        ),
    ],
)
def test_bad_ratings_are_refused(record, message):
    good = rated_clip("good", 9, [(0, 1, 1.0)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as error:
        parse_rated_segments(tf.constant([good, good, record, good]), SCHEMA)
    assert "the given batch:record 2" in str(error.value)


BREAKING_IDS = ["a b", "a:b", "a,b", 'a"b', "a\u2003b", "\u3000", f"{'ü' * 99}:"]


@pytest.mark.parametrize(
    "video_id",
    [BREAKING_IDS[0], *(pytest.param(x, marks=pytest.mark.slow) for x in BREAKING_IDS[1:])],
)
def test_an_id_that_the_csv_of_segments_cannot_hold_is_a_bad_record_of_windows_alone(
    video_id, tmp_path
):
    good, bad = hand.clip("good-_.ü'", 9), rated_clip(video_id, 9, [(0, 1, 1.0)])
    path = hand.write(tmp_path / "bad.tfrecord", [good, bad, good])
    begins = re.escape(re.split('[\\s:,"]', video_id)[0][:64])
    with pytest.raises(BadRecordError, match=f"a quote after '{begins}', which.*skip") as error:
        list(Reader([path], SCHEMA, 2, segments="windows"))
    assert (error.value.file, error.value.record) == (path, 1)
    assert error.value.fault == Fault.VIDEO_ID
    skipping = {"on_bad_record": "skip", "max_bad_fraction": 0.6}
    reader = Reader([path], SCHEMA, 2, segments="windows", **skipping)
    windows = [name for batch in reader for name in batch["video_id"].numpy()]
    assert windows == ["good-_.ü'".encode()] * 4 and reader.skipped.num_bad == 1
    for segments, count in (("rated", 1), (None, 3)):
        batches = make_dataset([path], SCHEMA, 2, segments=segments)
        assert sum(len(batch["video_id"]) for batch in batches) == count


@pytest.mark.slow
def test_the_reader_and_the_csv_agree_about_the_ids_of_windows(tmp_path):
    """Checks every character up to the last whitespace, except those that the reader refuses."""
    for character in map(chr, [*range(32, 0x100), *range(0x1FF0, 0x2070), 0x1680, 0x3000, 0x3001]):
        video_id = f"a{character}b"
        try:
            parse_windows(tf.constant([hand.clip(video_id, 1)]), SCHEMA)
            read = True
        except tf.errors.InvalidArgumentError:
            read = False
        with contextlib.suppress(ValueError), SegmentSubmissionWriter(tmp_path / "s", [0]) as csv:
            csv.write([video_id], [0], np.array([[0.5]]))
        assert (tmp_path / "s").exists() is read, hex(ord(character))
        (tmp_path / "s").unlink(missing_ok=True)


def test_a_bad_record_of_a_file_is_named_and_whole_clips_need_no_ratings(tmp_path):
    good = rated_clip("good", 9, [(0, 1, 1.0)])
    bad = rated_clip("bad", 9, [(10, 1, 1.0)])
    path = hand.write(tmp_path / "bad.tfrecord", [good, good, bad, good])
    with pytest.raises(BadRecordError, match="second 10 is outside the clip") as error:
        list(Reader([path], SCHEMA, 2, segments="rated"))
    assert (error.value.file, error.value.record) == (path, 2)
    assert sum(len(b["video_id"]) for b in make_dataset([path], SCHEMA, 2)) == 4
    assert list(make_dataset([path], SCHEMA, 2, segments="windows"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": "all"}, "segments must be one of rated, windows"),
        ({"segments": "rated", "with_labels": False}, "is for whole records"),
    ],
)
def test_options_that_cannot_be(files, options, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(files, SCHEMA, 8, **options)


def test_class_ids_are_read_with_and_without_a_header(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("Index,Name\n3,x\n\n0,y\n7\n")
    assert read_class_ids(path, 8) == (3, 0, 7)
    path.write_text("\ufeff4\r\n2")
    assert read_class_ids(path, 8) == (4, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Index\n", "must list at least one class"),
        ("", "must list at least one class"),
        ("Index\n1\nx\n", r"line 3: a class must be an integer in 0 \.\. 7.* 'x'"),
        ("1\n8\n", r"line 2: a class must be an integer in 0 \.\. 7"),
        ("-1\n", "line 1: a class must be an integer"),
        ("5\n2\n5\n", "line 3: a class must be listed once. Received: 5 again, which is in line 1"),
    ],
)
def test_bad_class_ids_name_the_line(tmp_path, text, message):
    path = tmp_path / "ids.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_class_ids(path, 8)


def test_class_ids_that_are_no_text(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="must be a CSV file in UTF-8"):
        read_class_ids(path, 8)
