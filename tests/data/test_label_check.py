"""Files without labels, or with labels in another form, are refused; and labels are read by key."""

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf
from handmade_records import bytes_feature, floats_feature, ints_feature

from yt8m_gat.config import ConfigError, DataConfig
from yt8m_gat.data import (
    LabelMap,
    RecordSchema,
    check_labels,
    describe_record,
    label_check,
    parse_frame_batch,
    parse_video_batch,
)
from yt8m_gat.data.description import find_fault
from yt8m_gat.data.record_files import read_records

SIZES = {"m": 2}


def schema(num_classes=4, **options):
    return RecordSchema(SIZES, num_classes, frame_level=False, **options)


def video(number, **labels):
    ids = {"id": bytes_feature(f"v{number}".encode())}
    lists = {name: ints_feature(*values) for name, values in labels.items()}
    return hand.example(**ids, **lists, m=floats_feature(number, 1.0))


def files(tmp_path, *of_each_file):
    return [
        hand.write(tmp_path / f"{number}.tfrecord", payloads)
        for number, payloads in enumerate(of_each_file)
    ]


def test_labels_under_another_key():
    payloads = [video(0, **{"clip/label/index": (1, 3), "labels": (2,)}), video(1, labels=(2,))]
    batch = parse_video_batch(tf.constant(payloads), schema(labels_key="clip/label/index"))
    np.testing.assert_array_equal(batch["labels"], [[0, 1, 0, 1], [0, 0, 0, 0]])
    clip = hand.sequence_example(
        {"id": bytes_feature(b"c"), "label": ints_feature(1)}, r=[b"abcd"], u=[b"xy"]
    )
    frames = RecordSchema({"r": 4, "u": 2}, 3, labels_key="label")
    np.testing.assert_array_equal(parse_frame_batch([clip], frames)["labels"], [[0, 1, 0]])


def test_labels_as_vectors():
    payloads = [video(0, labels=(0, 1, 0, 1)), video(1, labels=(0,) * 4), video(2)]
    batch = parse_video_batch(tf.constant(payloads), schema(labels_are="multi_hot"))
    np.testing.assert_array_equal(batch["labels"], [[0, 1, 0, 1], [0] * 4, [0] * 4])
    # Class 2 of the three in the records is target 1.
    label_map = LabelMap(((0, 0), (2, 1)), 3, ("", ""))
    mapped = schema(2, label_map=label_map, labels_are="multi_hot")
    batch = parse_video_batch([video(0, labels=(0, 1, 1))], mapped)
    np.testing.assert_array_equal(batch["labels"], [[0, 1]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((0, 1, 0), "it has 3 labels instead of 4, one a class"),
        ((0, 1, 0, 2), r"label 2 is outside 0 \.\. 1"),
        ((0, 1, 0, -1), "label -1 is"),
    ],
)
def test_vectors_that_are_none(labels, message):
    of_vectors = schema(labels_are="multi_hot")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        parse_video_batch([video(0, labels=(0, 1, 0, 0)), video(1, labels=labels)][1:], of_vectors)
    fault, reason = find_fault(describe_record(video(1, labels=labels)), of_vectors)
    assert fault == "label" and reason.startswith(message[:10])


def test_files_without_labels_are_refused_and_their_lists_named(tmp_path):
    payloads = [video(n, **{"clip/label/index": (n % 3,), "time\n": (9, 10)}) for n in range(5)]
    message = (
        r"--train_data_pattern: none of 5 records checked has a label under 'labels'\. They hold "
        r"'clip/label/index' \(1 values from 0 to 2\); 'time\\n' \(2 values from 9 to 10\); name "
        r".* --labels_key"
    )
    with pytest.raises(ConfigError, match=message):
        check_labels(files(tmp_path, payloads), schema(), "train_data_pattern")
    check_labels(files(tmp_path, payloads), schema(labels_key="clip/label/index"), "x")
    check_labels(files(tmp_path, payloads), schema(labels_are="indices"), "x")
    with pytest.raises(ConfigError, match="They hold no int64 list"):
        check_labels(files(tmp_path, [video(0)]), schema(), "x")


def test_one_label_in_the_share_looked_at_is_enough(tmp_path):
    paths = files(tmp_path, [video(0)] * 9, [video(0)] * 4 + [video(1, labels=(3,))])
    check_labels(paths, schema(), "x", num_records=10)
    with pytest.raises(ConfigError, match="none of 8 records"):
        check_labels(paths, schema(), "x", num_records=8)
    check_labels(paths, schema(), "x", num_records=None)


def test_of_rare_labels_one_is_enough_after_the_share(tmp_path, monkeypatch):
    """Otherwise a whole large evaluation set would be read before the evaluation."""
    read = []

    def recorded(path):
        read.append(path)
        return read_records(path)

    monkeypatch.setattr(label_check, "read_records", recorded)
    monkeypatch.setattr(label_check, "NUM_RECORDS", 4)
    paths = files(tmp_path, [video(0)] * 3, [video(1, labels=(3,))] * 2, [video(0)])
    check_labels(paths, schema(), "x", num_records=None)
    assert read == paths[:2]


def test_records_that_cannot_be_read_are_left_to_the_reader(tmp_path):
    check_labels(files(tmp_path, [b"\xff\xff", b"no record"]), schema(), "x")


def test_a_label_map_that_leaves_no_label_is_named(tmp_path):
    mapped = schema(1, label_map=LabelMap(((3, 0),), 4, ("",)))
    paths = files(tmp_path, [video(0, labels=(0, 1)), video(1, labels=(2,))])
    with pytest.raises(ConfigError, match=r"label map gives a class\. .* hold 1 to 2 values"):
        check_labels(paths, mapped, "x")
    check_labels(files(tmp_path, [video(0, labels=(3,))]), mapped, "x")


def test_segments_need_one_rating_above_zero(tmp_path):
    def rated(score):
        context = {
            "id": bytes_feature(b"s"),
            "labels": ints_feature(1),
            "segment_start_times": ints_feature(0),
            "segment_labels": ints_feature(2),
            "segment_scores": floats_feature(score),
        }
        return hand.sequence_example(context, r=[b"abcd"], u=[b"xy"])

    frames = RecordSchema({"r": 4, "u": 2}, 3)
    with pytest.raises(ConfigError, match="none of 1 records checked has a rating above 0"):
        check_labels(files(tmp_path, [rated(0.0)]), frames, "x", segments=True)
    check_labels(files(tmp_path, [rated(0.5)]), frames, "x", segments=True)


@pytest.mark.parametrize(
    ("lists", "refused"),
    [
        ([(0, 1, 0, 0), (0, 0, 0, 1)], True),
        ([(0, 1, 0, 0), ()], True),
        ([(0, 0, 0, 0, 0)], True),  # Reported although --num_classes is another number.
        ([(0, 1, 0, 0), (0, 2)], False),
        ([(0, 1, 0, 0), (0, 1)], False),
        ([(0, 1), (1, 0)], False),  # These may be lists of both classes.
        ([(1, 2, 3)], False),
    ],
)
def test_vectors_read_as_indices_are_recognized(tmp_path, lists, refused):
    paths = files(tmp_path, [video(n, labels=values) for n, values in enumerate(lists)])
    if not refused:
        check_labels(paths, schema(), "x")
        return
    length = len(lists[0])
    message = f"'labels' look like .*--labels_are=multi_hot --num_classes={length} of train"
    with pytest.raises(ConfigError, match=message):
        check_labels(paths, schema(), "x")
    check_labels(paths, schema(labels_are="indices"), "x")
    if length != schema().num_classes:  # Of a run with one label a clip, they are repeated classes.
        remedy = f"--labels_are=indices, or with --labels_are=multi_hot --num_classes={length} of"
        with pytest.raises(ConfigError, match=remedy):
            check_labels(paths, schema(one_label=True), "x")


@pytest.mark.parametrize("key", ["id", "video_id", "m"])
def test_a_key_that_means_something_else(key):
    with pytest.raises(ConfigError, match="--labels_key must not be the name of an id"):
        schema(labels_key=key)


def test_settings_of_labels():
    with pytest.raises(ConfigError, match="--labels_key must name"):
        DataConfig(labels_key="")
    with pytest.raises(ConfigError, match="--labels_are must be one of indices, multi_hot"):
        DataConfig(labels_are="vectors")
    config = DataConfig(labels_key="k", labels_are="multi_hot")
    found = RecordSchema.from_config(config)
    assert (found.labels_key, found.multi_hot_labels) == ("k", True)
