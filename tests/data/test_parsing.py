import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf
from handmade_records import bytes_feature, floats_feature, ints_feature

from yt8m_gat.data import (
    BadRecordError,
    Reader,
    RecordSchema,
    describe_record,
    make_dataset,
    parse_frame_batch,
    parse_video_batch,
)
from yt8m_gat.data.description import UndecodableRecordError, find_fault

SMALL = RecordSchema({"r": 4, "u": 2}, 5)
VIDEO = RecordSchema({"m": 3}, 5, frame_level=False)


def parse(*payloads, schema=SMALL, **options):
    return parse_frame_batch(tf.constant(payloads), schema, **options)


def test_a_batch_of_clips():
    batch = parse(hand.clip("a", 3, (1, 4)), hand.clip("b", 1, (), 9))
    np.testing.assert_array_equal(batch["video_id"], [b"a", b"b"])
    np.testing.assert_array_equal(batch["num_frames"], [3, 1])
    np.testing.assert_array_equal(batch["labels"], [[0, 1, 0, 0, 1], [0, 0, 0, 0, 0]])
    assert batch["labels"].dtype == tf.float32
    assert batch["num_frames"].dtype == tf.int32
    rgb = np.zeros([2, 3, 4])
    rgb[0] = np.arange(3)[:, None]
    rgb[1, 0] = 9
    np.testing.assert_array_equal(batch["features"]["r"], rgb)
    audio = np.zeros([2, 3, 2])
    audio[0] = 255 - np.arange(3)[:, None]
    audio[1, 0] = 255
    np.testing.assert_array_equal(batch["features"]["u"], audio)
    assert batch["features"]["r"].dtype == tf.uint8
    assert list(batch["features"]) == ["r", "u"]


def test_either_name_of_the_id():
    older = hand.sequence_example({"video_id": bytes_feature(b"x")}, r=[b"abcd"], u=[b"xy"])
    both = hand.sequence_example(
        {"id": bytes_feature(b"y"), "video_id": bytes_feature(b"z")}, r=[b"abcd"], u=[b"xy"]
    )
    batch = parse(older, both, hand.clip("w", 1))
    np.testing.assert_array_equal(batch["video_id"], [b"x", b"y", b"w"])


def test_a_label_twice_counts_once():
    np.testing.assert_array_equal(parse(hand.clip("a", 1, (2, 2)))["labels"], [[0, 0, 1, 0, 0]])


def test_features_that_are_not_named_are_not_read():
    batch = parse(hand.clip("a", 2), schema=RecordSchema({"u": 2}, 5))
    assert list(batch["features"]) == ["u"]


def test_long_clips_are_cut():
    batch = parse(hand.clip("a", 5), hand.clip("b", 2), schema=RecordSchema({"r": 4}, 5, 3))
    np.testing.assert_array_equal(batch["num_frames"], [3, 2])
    np.testing.assert_array_equal(batch["features"]["r"][0, :, 0], [0, 1, 2])


def test_fixed_number_of_frames():
    schema = RecordSchema({"r": 4, "u": 2}, 5, 6)
    batch = tf.function(lambda x: parse_frame_batch(x, schema, fixed_num_frames=True))(
        tf.constant([hand.clip("a", 2)])
    )
    assert batch["features"]["r"].shape == [1, 6, 4]
    np.testing.assert_array_equal(batch["features"]["r"][0, :, 0], [0, 1, 0, 0, 0, 0])


def test_without_labels_even_wrong_ones_pass():
    batch = parse(hand.clip("a", 1, (99,)), with_labels=False)
    assert "labels" not in batch


def test_no_records():
    batch = parse_frame_batch(tf.zeros([0], tf.string), SMALL)
    assert batch["features"]["r"].shape == [0, 0, 4]
    assert batch["labels"].shape == [0, 5]


def test_segment_level_records_read_as_frame_level_ones():
    payload = hand.sequence_example(
        {
            "id": bytes_feature(b"s"),
            "labels": ints_feature(1),
            "segment_start_times": ints_feature(0, 5),
            "segment_labels": ints_feature(1, 2),
            "segment_scores": floats_feature(1.0, 0.0),
        },
        r=[b"abcd"] * 10,
        u=[b"xy"] * 10,
    )
    np.testing.assert_array_equal(parse(payload)["num_frames"], [10])
    assert describe_record(payload).segment_labels == (1, 2)


def test_video_level():
    payloads = [
        hand.example(id=bytes_feature(b"a"), labels=ints_feature(3), m=floats_feature(1, 2, 3)),
        hand.example(video_id=bytes_feature(b"b"), m=floats_feature(4, 5, 6)),
    ]
    batch = parse_video_batch(tf.constant(payloads), VIDEO)
    assert "num_frames" not in batch
    np.testing.assert_array_equal(batch["video_id"], [b"a", b"b"])
    np.testing.assert_array_equal(batch["features"]["m"], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(batch["labels"], [[0, 0, 0, 1, 0], [0] * 5])


def test_schema_of_the_other_level():
    with pytest.raises(ValueError, match="needs a frame-level schema"):
        parse_frame_batch(tf.constant([b""]), VIDEO)
    with pytest.raises(ValueError, match="needs a video-level schema"):
        parse_video_batch(tf.constant([b""]), SMALL)


ID = {"id": bytes_feature(b"a")}
R, U = [b"abcd"] * 3, [b"xy"] * 3
BAD_CLIPS = {
    "size of a frame": (
        hand.sequence_example(ID, r=[b"abcd", b"abc"], u=[b"xy"] * 2),
        r"feature r, frame 1 has 3 bytes instead of 4 \(the frame-level record holds: r, 2 frames "
        r"of 3 or 4 bytes; u, 2 frames of 2 bytes\).*--feature_sizes",
    ),
    "feature missing": (
        hand.sequence_example(ID, r=R),
        "feature u is missing or empty; each of r, u is needed.*--feature_names",
    ),
    "first feature missing": (
        hand.sequence_example(ID, u=U, other=R),
        r"feature r is missing.*-level record holds: other, 3 frames of 4 bytes.*--feature_names",
    ),
    "no frames": (
        hand.sequence_example(ID, r=[], u=[]),
        r"no frames of any of the features needed \(r, u\).*--feature_names",
    ),
    "lengths": (
        hand.sequence_example(ID, r=R, u=U[:2]),
        "feature u has 2 frames, feature r has 3.*write the record again",
    ),
    "no id": (
        hand.sequence_example({}, r=R, u=U),
        "none of the ids id, video_id, clip/media_id, clip/data_path",
    ),
    "two ids": (
        hand.sequence_example({"id": bytes_feature(b"a", b"b")}, r=R, u=U),
        "more than one value of id",
    ),
    "id of another kind": (
        hand.sequence_example({"id": ints_feature(1)}, r=R, u=U),
        "feature id is no bytes_list",
    ),
    "label too large": (
        hand.sequence_example({**ID, "labels": ints_feature(1, 5)}, r=R, u=U),
        r"label 5 is outside 0 \.\. 4.*--num_classes",
    ),
    "negative label": (
        hand.sequence_example({**ID, "labels": ints_feature(-1)}, r=R, u=U),
        r"label -1 is outside 0 \.\. 4.*--num_classes",
    ),
    "labels of another kind": (
        hand.sequence_example({**ID, "labels": floats_feature(1)}, r=R, u=U),
        "feature labels is no int64_list",
    ),
    "frames of another kind": (
        hand.sequence_example(ID, r=[floats_feature(1)] * 3, u=U),
        "feature r, frame 0 is not one value of bytes",
    ),
    "two values in a frame": (
        hand.sequence_example(ID, r=[bytes_feature(b"abcd", b"abcd")] * 3, u=U),
        "feature r, frame 0 is not one value of bytes",
    ),
    "not a record": (b"\xff\xfe nonsense", "the payload is no tf.Example or tf.SequenceExample"),
    "empty": (b"", "none of the ids"),
    "video level": (
        hand.example(**ID, m=floats_feature(1, 2, 3)),
        r"the video-level record holds: m, 3 floats\).*video-level --model \(LogisticModel, Moe",
    ),
}


@pytest.mark.parametrize("kind", BAD_CLIPS)
def test_bad_clip(kind, tmp_path):
    payload, message = BAD_CLIPS[kind]
    good = hand.clip("good", 3)
    # Quotes and other letters: TensorFlow escapes some of what a message holds.
    first = hand.write(tmp_path / "first.tfrecord", [good] * 2)
    path = hand.write(tmp_path / "it's ä.tfrecord", [good, good, payload, good])
    reader = Reader([first, path], SMALL, 3)
    with pytest.raises(BadRecordError, match=message) as caught:
        list(reader)
    error = caught.value
    assert (error.file, error.record) == (path, 2)
    assert error.offset == 2 * (len(good) + 16)
    assert str(error).startswith(f'"{path}", record 2 (byte offset {error.offset}): ')
    assert "node" not in str(error)
    # The description in Python, which `inspect` uses, finds the same fault.
    try:
        assert find_fault(describe_record(payload), SMALL)
    except UndecodableRecordError:
        assert kind == "not a record"
    assert find_fault(describe_record(good), SMALL) is None


BAD_VIDEOS = {
    "feature missing": (
        hand.example(**ID, other=floats_feature(1)),
        "feature m is missing or empty.*-level record holds: other, 1 floats.*--feature_names",
    ),
    "size": (
        hand.example(**ID, m=floats_feature(1, 2)),
        "feature m has 2 values instead of 3.*--feature_sizes",
    ),
    "kind": (hand.example(**ID, m=ints_feature(1, 2, 3)), "feature m is no float_list"),
    "not finite": (
        hand.example(**ID, m=floats_feature(1, float("nan"), 3)),
        "feature m has a value that is not finite",
    ),
    "label": (
        hand.example(**ID, m=floats_feature(1, 2, 3), labels=ints_feature(7)),
        "label 7 is outside.*--num_classes",
    ),
    "no id": (hand.example(m=floats_feature(1, 2, 3)), "none of the ids"),
    "not a record": (b"\xff\xfe nonsense", "the payload is no tf.Example"),
    "frame level": (
        hand.clip("a", 3),
        r"feature m is missing.*the frame-level record holds.*frame-level --model \(.*GAT, ",
    ),
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_bad_video(kind, tmp_path):
    payload, message = BAD_VIDEOS[kind]
    good = hand.example(id=bytes_feature(b"a"), m=floats_feature(1, 2, 3))
    path = hand.write(tmp_path / "v.tfrecord", [good, payload])
    with pytest.raises(BadRecordError, match=message) as caught:
        list(Reader([path], VIDEO, 2))
    assert (caught.value.file, caught.value.record) == (path, 1)
    try:
        assert find_fault(describe_record(payload), VIDEO)
    except UndecodableRecordError:
        assert kind == "not a record"
    assert find_fault(describe_record(good), VIDEO) is None


@pytest.mark.parametrize(
    ("schema", "kind"),
    [(SMALL, kind) for kind, (_, message) in BAD_CLIPS.items() if "--" in message]
    + [(VIDEO, kind) for kind, (_, message) in BAD_VIDEOS.items() if "--" in message],
)
def test_a_remedy_that_is_a_flag_says_whose_and_what_holds_without_it(schema, kind, tmp_path):
    """eval.py and inference.py print it too, but do not have these flags."""
    payload, _ = (BAD_CLIPS if schema is SMALL else BAD_VIDEOS)[kind]
    path = hand.write(tmp_path / "f.tfrecord", [payload])
    with pytest.raises(BadRecordError) as caught:
        list(Reader([path], schema, 1))
    remedy = caught.value.remedy
    assert " of train.py" in remedy and "a trained run needs records like those" in remedy
    assert "--frame_features" not in remedy  # No model takes the records of the other level.


def test_message_without_iterate_names_record_and_remedy(tmp_path):
    path = hand.write(tmp_path / "f.tfrecord", [hand.clip("a", 1, (9,))])
    expected = rf"Bad record {path}:record 0: label 9 is outside 0 \.\. 4\. Remedy: .*--num_classes"
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        list(make_dataset([path], SMALL, 1))


def test_records_without_names_are_numbered():
    with pytest.raises(tf.errors.InvalidArgumentError, match="the given batch:record 1: label 9"):
        parse(hand.clip("a", 1), hand.clip("b", 1, (9,)))


def test_other_errors_pass_through(tmp_path):
    dataset = tf.data.Dataset.from_tensors(0.0).map(
        lambda x: tf.debugging.check_numerics(x / x, "something else")
    )
    path = hand.write(tmp_path / "one.tfrecord", [hand.clip("a", 1)])
    reader = Reader([path], SMALL, 1)
    reader.dataset = dataset
    with pytest.raises(tf.errors.InvalidArgumentError, match="something else"):
        list(reader)
