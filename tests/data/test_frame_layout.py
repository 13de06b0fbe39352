"""Records of every form, read in one piece and by TensorFlow's parser, give the same."""

import re

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf
from handmade_records import bytes_feature, floats_feature, ints_feature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yt8m_gat.data import RecordSchema, dataset, frame_layout, parse_frame_batch, parsing
from yt8m_gat.data.frame_layout import FrameLayout, Frames

SCHEMA = RecordSchema({"r": 4, "u": 2}, 5, 3)
NAMES = ("r", "u", "other")
RECORDS = tf.TensorSpec([None], tf.string)


def varint(number, extra=0):
    """Encodes a length with `extra` digits more than it needs."""
    digits = []
    while number >= 128:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes(
        [*digits, number + (128 if extra else 0), *[128] * (extra - 1), *[0] * (extra > 0)]
    )


def field(content, tag=0x0A, extra=0):
    return bytes([tag]) + varint(len(content), extra) + content


def frame(content, extra=0):
    return field(field(field(content, extra=extra)))


def entry(name, frames, reverse=False):
    parts = [field(name.encode()), field(b"".join(frames), 0x12)]
    return field(b"".join(parts[::-1] if reverse else parts))


def context(**features):
    return tf.train.Features(feature=features).SerializeToString()


CONTEXT = context(id=bytes_feature(b"a"), labels=ints_feature(1, 4))
UNKNOWN = b"\x7a\x01z"  # field 15, one byte


def record(entries, context=CONTEXT):
    return field(context) + field(b"".join(entries), 0x12)


def lists(num_frames=2, first=0):
    r = [frame(bytes([first + t] * 4)) for t in range(num_frames)]
    return entry("r", r), entry("u", [frame(bytes([t, 9])) for t in range(num_frames)])


def outcome(parse, payloads):
    """Returns the values, or the error's text."""
    try:
        batch = parse(tf.constant(payloads))
    except tf.errors.InvalidArgumentError as error:
        # If two lists have a frame of another kind, TensorFlow names either of them.
        nodes = r"\{\{.*?\}\}| \[Op:.*|Feature list: \w+, Index: \d+"
        return re.sub(nodes, "", error.message.split("\n")[0])
    features = batch.pop("features")
    return {key: value.numpy() for key, value in {**batch, **features}.items()}


class Never:
    """Makes a layout that no record has, so that TensorFlow's parser reads all records."""

    def read(self, serialized, fixed_num_frames):
        empty = tuple(tf.zeros([0, 0, size], tf.uint8) for _, size in SCHEMA.feature_sizes)
        return Frames(tf.constant(False), tf.zeros([0], tf.int32), empty)


def traced(fixed):
    return tf.function(
        lambda serialized: parse_frame_batch(serialized, SCHEMA, fixed_num_frames=fixed),
        input_signature=[RECORDS],
        autograph=False,
    ).get_concrete_function()


@pytest.fixture(
    scope="module",
    params=[False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["longest", "fixed"],
)
def parsers(request):
    """Parses as usual, and with only TensorFlow's parser."""
    ours = traced(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "frame_layout", lambda *_: Never())
        return ours, traced(request.param)


LAYOUT = FrameLayout(SCHEMA.feature_sizes, SCHEMA.max_frames)


@tf.function(input_signature=[RECORDS], autograph=False)
def found(serialized):
    return LAYOUT.read(serialized, False).ok


def assert_same(parsers, payloads):
    ours, theirs = (outcome(parse, payloads) for parse in parsers)
    if isinstance(theirs, str):
        assert ours == theirs
        return theirs
    assert isinstance(ours, dict), ours
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value, strict=True)
    return None


R, U = lists()
PLAIN = {
    "two features": record([R, U]),
    "in other order": record([U, R]),
    "one frame": record(lists(1)),
    "300 frames": record([entry(n, [frame(b"x" * s)] * 300) for n, s in SCHEMA.feature_sizes]),
    "long context": record(
        lists(), context(id=bytes_feature(b"a"), labels=ints_feature(*[1] * 20_000))
    ),
    "length of the context too long": field(CONTEXT, extra=2)
    + record([R, U])[len(field(CONTEXT)) :],
    "of the library": hand.clip("a", 3),
}
ODD = {
    "lists first": record([R, U])[len(field(CONTEXT)) :] + field(CONTEXT),
    "context twice": field(CONTEXT) + record([R, U]),
    "lists twice": field(CONTEXT) + field(R, 0x12) + field(U, 0x12),
    "no context": field(R + U, 0x12),
    "unknown field": record([R, U]) + UNKNOWN,
    "unknown field in the lists": record([R, UNKNOWN, U]),
    "unknown field in an entry": record([field(R[2:] + UNKNOWN), U]),
    "another feature": record([R, U, entry("other", [frame(b"o")])]),
    "a feature twice": record([R, U, R]),
    "a feature twice, differing": record([R, U, lists(2, 7)[0]]),
    "one feature twice alone": record([R, R]),
    "missing": record([R]),
    "empty list": record([R, entry("u", [])]),
    "no lists": field(CONTEXT),
    "empty lists": record([]),
    "unequal": record([R, entry("u", [frame(b"xy")])]),
    "empty frames": record([entry("r", [frame(b"")] * 2), U]),
    "frame of another size": record([entry("r", [frame(b"abcd"), frame(b"abc")]), U]),
    "sizes that make up for it": record([entry("r", [frame(b"abc"), frame(b"abcde")]), U]),
    "long varint in a frame": record([entry("r", [frame(b"abcd", extra=1)] * 2), U]),
    "long varint of a list": record([field(R[2:], extra=1), U]),
    "value before key": record([entry("r", [frame(b"abcd")] * 2, reverse=True), U]),
    "two values in a frame": record([entry("r", [field(field(field(b"abcd") * 2))] * 2), U]),
    "frames of floats": record([entry("r", [field(floats_feature(1).SerializeToString())] * 2), U]),
    "301 frames": record([entry(n, [frame(b"x" * s)] * 301) for n, s in SCHEMA.feature_sizes]),
    "empty": b"",
    "cut": record([R, U])[:-1],
    "context past the end": b"\x0a\xff\xff\x7f" + record([R, U]),
    "five digits": b"\x0a\xff\xff\xff\xff\x07" + record([R, U]),
    "one byte": b"\x0a",
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_records_are_read_in_one_piece(parsers, kind):
    assert bool(found(tf.constant([PLAIN[kind]])))
    assert assert_same(parsers, [PLAIN[kind], PLAIN["in other order"]]) is None


@pytest.mark.parametrize("kind", ODD)
def test_others_are_left_to_the_parser(parsers, kind):
    payloads = [PLAIN["two features"], ODD[kind]]
    assert not bool(found(tf.constant(payloads)))
    assert bool(found(tf.constant(payloads[:1])))
    assert_same(parsers, payloads)


def test_every_byte_beside_the_frames_counts():
    """If any byte outside the context and the frames differs, a record is not read in one piece."""
    plain = bytearray(PLAIN["two features"])
    data = {i for i in range(len(plain)) if plain[i : i + 4] in (b"\0" * 4, b"\1" * 4)}
    data = {i + k for i in data for k in range(4)}
    data |= {
        i + k
        for i in range(len(plain) - 1)
        if plain[i : i + 2] in (b"\0\t", b"\1\t")
        for k in range(2)
    }
    begin = len(field(CONTEXT))
    for i in set(range(len(plain))) - data:
        for flip in (1, 0x80):
            other = bytes(plain[:i]) + bytes([plain[i] ^ flip]) + bytes(plain[i + 1 :])
            assert bool(found(tf.constant([other]))) == (2 <= i < begin), i


def test_batches_of_unequal_clips_are_padded(parsers):
    payloads = [record(lists(n, n)) for n in (2, 3, 1)] + [hand.clip("b", 3)]
    assert bool(found(tf.constant(payloads)))
    assert assert_same(parsers, payloads) is None


@pytest.mark.parametrize(
    "features",
    [
        {"id": bytes_feature(b"a", b"b")},
        {"id": ints_feature(1)},
        {"labels": ints_feature(1)},
        {"id": bytes_feature(b"a"), "labels": ints_feature(5)},
        {"id": bytes_feature(b"a"), "labels": floats_feature(1)},
        {"id": bytes_feature(b"\n")},
    ],
)
def test_faults_of_the_context_are_named_the_same(parsers, features):
    payloads = [PLAIN["two features"], record([R, U], context(**features))]
    assert bool(found(tf.constant(payloads)))
    message = assert_same(parsers, payloads)
    assert "the given batch:record 1" in message


def test_sizes_up_to_large_frames(monkeypatch):
    """Headers of 6 to 12 bytes."""
    for size in (1, 117, 121, 122, 125, 126, 128, 16_377, 16_384, 20_000, 2_097_152):
        schema = RecordSchema({"f": size}, 5)
        content = np.arange(3 * size, dtype=np.uint8).tobytes()
        payload = hand.sequence_example(
            {"id": bytes_feature(b"a")}, f=[content[i * size : (i + 1) * size] for i in range(3)]
        )
        layout = FrameLayout(schema.feature_sizes, 300)
        read = layout.read(tf.constant([payload]), False)
        assert bool(read.ok), size
        assert read.features[0].numpy().tobytes() == content


frames = st.lists(
    st.one_of(
        st.builds(frame, st.binary(min_size=4, max_size=4)),
        st.builds(frame, st.binary(min_size=2, max_size=2)),
        st.builds(frame, st.binary(max_size=5), st.integers(0, 2)),
        st.just(field(UNKNOWN)),
    ),
    max_size=4,
)
same_frames = st.integers(0, 4).flatmap(
    lambda n: st.sampled_from((2, 4)).map(lambda size: [frame(bytes(range(size)))] * n)
)
entries = st.lists(
    st.one_of(
        st.builds(entry, st.sampled_from(NAMES), st.one_of(frames, same_frames), st.booleans()),
        st.sampled_from([R, U, R, U, UNKNOWN]),
    ),
    max_size=4,
)
whole_lists = st.integers(1, 4).flatmap(lambda n: st.permutations(lists(n)))
records = st.builds(record, st.one_of(entries, whole_lists))
odd_orders = st.builds(
    lambda parts, lists: b"".join(parts) + field(b"".join(lists), 0x12),
    st.lists(st.sampled_from([field(CONTEXT), UNKNOWN]), max_size=2),
    st.one_of(entries, whole_lists),
)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(payloads=st.lists(st.one_of(records, odd_orders), min_size=1, max_size=3))
def test_any_form_reads_as_through_the_parser_alone(parsers, payloads):
    assert_same(parsers, payloads)


def labels(*parts, more=b""):
    """An entry of labels in which each part is a separate field."""
    lists = b"".join(field(field(bytes(part)), 0x1A) for part in parts)
    return field(field(b"labels") + field(lists, 0x12) + more)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            record(
                lists(), field(field(b"id") + field(field(field(b"a")), 0x12)) + labels([1], [4])
            ),
            [1, 4],
        ),
        (record(lists(), CONTEXT + UNKNOWN) + UNKNOWN, [1, 4]),
        (record(lists(), CONTEXT + labels([2], more=UNKNOWN)), [1, 4]),
        (record(lists(), CONTEXT + labels([2])), [2]),
    ],
    ids=["split list", "unknown fields", "entry with an unknown field", "key twice"],
)
def test_a_record_says_what_the_library_reads(payload, expected):
    read = tf.train.SequenceExample.FromString(payload)
    assert list(read.context.feature["labels"].int64_list.value) == expected
    batch = parse_frame_batch(tf.constant([payload]), SCHEMA)
    assert np.flatnonzero(batch["labels"][0]).tolist() == expected
    assert batch["num_frames"].numpy().tolist() == [2]


def test_features_that_are_not_read_are_known_beforehand(tmp_path):
    """This way records that hold more features than are read are read in one piece, too."""
    path = hand.write(tmp_path / "f.tfrecord", [hand.clip("a", 3), hand.clip("b", 2)])
    schema = RecordSchema({"u": 2}, 5, 3)
    assert dataset._other_sizes(path, schema) == (("r", 4),)
    payloads = tf.constant([hand.clip("a", 3), hand.clip("b", 2)])
    assert FrameLayout((("u", 2), ("r", 4)), 3).read(payloads, False).ok
    [batch] = dataset.make_dataset([path], schema, 2)
    alone = parse_frame_batch(payloads, schema)
    np.testing.assert_array_equal(batch["features"]["u"], alone["features"]["u"])
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    assert dataset._other_sizes(str(tmp_path / "empty.tfrecord"), schema) == ()


def test_clips_beyond_the_largest_size_do_not_have_the_layout(monkeypatch):
    clips = [hand.sequence_example({}, r=[bytes(100)] * n) for n in (3, 4)]
    monkeypatch.setattr(frame_layout, "_MAX_BYTES", len(clips[0]) - 2)
    layout = FrameLayout((("r", 100),), 10)
    assert layout.read(tf.constant(clips[:1]), fixed_num_frames=False).ok
    assert not layout.read(tf.constant(clips), fixed_num_frames=False).ok
