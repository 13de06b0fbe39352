"""Records and files of records, damaged at random: what an accident or a forger makes of them."""

import struct

import tensorflow as tf
from record_oracle import crc32c, masked

SIZES = {"r": 4, "u": 2}
NUM_CLASSES = 5
MAX_FRAMES = 8


def make_record(rng, video_id):
    num_frames = int(rng.integers(1, MAX_FRAMES + 1))
    record = tf.train.SequenceExample()
    key = ("id", "video_id")[int(rng.integers(2))]
    record.context.feature[key].bytes_list.value.append(video_id)
    record.context.feature["labels"].int64_list.value.extend(
        rng.integers(0, NUM_CLASSES, int(rng.integers(4))).tolist()
    )
    for name, size in SIZES.items():
        for _ in range(num_frames):
            frame = record.feature_lists.feature_list[name].feature.add()
            frame.bytes_list.value.append(rng.bytes(size))
    return record


# Of the content, each changing the message in place.


def _drop_feature(rng, record):
    del record.feature_lists.feature_list[_name(rng)]


def _empty_feature(rng, record):
    del record.feature_lists.feature_list[_name(rng)].feature[:]


def _no_frames(rng, record):
    record.feature_lists.Clear()


def _other_length(rng, record):
    record.feature_lists.feature_list[_name(rng)].feature.add().bytes_list.value.append(b"ab")


def _drop_frame(rng, record):
    name = _name(rng)
    frames = record.feature_lists.feature_list[name].feature
    del frames[int(rng.integers(len(frames)))]


def _other_size(rng, record):
    _frame(rng, record).bytes_list.value[0] = rng.bytes(int(rng.integers(9)))


def _other_kind(rng, record):
    frame = _frame(rng, record)
    if rng.integers(2):
        frame.float_list.value.append(1.0)
    else:
        frame.int64_list.value.append(1)


def _two_values(rng, record):
    _frame(rng, record).bytes_list.value.append(b"abcd")


def _no_value(rng, record):
    _frame(rng, record).Clear()


def _label(rng, record):
    wrong = (-1, NUM_CLASSES, 2**31, 2**62, -(2**63), 3)[int(rng.integers(6))]
    record.context.feature["labels"].int64_list.value.append(wrong)


def _label_kind(rng, record):
    record.context.feature["labels"].float_list.value.append(1.0)


def _id(rng, record):
    record.context.feature.pop("video_id", None)
    values = (
        b"",
        b"\xff\xfe",
        b"a\x00b",
        b"line\nbreak",
        "ünï ✓ 動画".encode(),
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\x7f",
        rng.bytes(4),
        b'com,ma "quote"',
    )
    value = values[int(rng.integers(len(values)))]
    record.context.feature["id"].bytes_list.value[:] = [value]


def _two_ids(rng, record):
    record.context.feature["id"].bytes_list.value.extend([b"x", b"y"])


def _no_id(rng, record):
    for key in ("id", "video_id"):
        record.context.feature.pop(key, None)


def _id_kind(rng, record):
    record.context.feature["id"].int64_list.value.append(7)


def _long_clip(rng, record):
    extra = int(rng.integers(1, 200))
    for name, size in SIZES.items():
        for _ in range(extra):
            # What is cut away may be anything of one value.
            size = size if rng.integers(2) else 0
            frame = record.feature_lists.feature_list[name].feature.add()
            frame.bytes_list.value.append(bytes(size))


def _unknown_features(rng, record):
    record.context.feature["other"].float_list.value.extend([1.0, float("nan")])
    record.feature_lists.feature_list["more"].feature.add().int64_list.value.append(1)


def _nothing(rng, record):
    pass


CONTENT = (
    *(_drop_feature, _empty_feature, _no_frames, _other_length, _drop_frame, _other_size),
    *(_other_kind, _two_values, _no_value, _label, _label_kind, _id, _two_ids, _no_id, _id_kind),
    *(_long_clip, _unknown_features, _nothing),
)


def _name(rng):
    return list(SIZES)[int(rng.integers(len(SIZES)))]


def _frame(rng, record):
    frames = record.feature_lists.feature_list[_name(rng)].feature
    return frames[int(rng.integers(len(frames)))]


# Of serialized bytes, whatever they are.


def _flip_bits(rng, data):
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _set_bytes(rng, data):
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] = (0, 0x7F, 0x80, 0xFF)[int(rng.integers(4))]
    return bytes(data)


def _cut(rng, data):
    return data[: int(rng.integers(len(data)))]


def _insert(rng, data):
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 20))) + data[place:]


def _remove(rng, data):
    first = int(rng.integers(len(data)))
    return data[:first] + data[first + int(rng.integers(1, 20)) :]


def _repeat(rng, data):
    first = int(rng.integers(len(data)))
    return data[: first + int(rng.integers(1, 40))] + data[first:]


def _noise(rng, data):
    return rng.bytes(int(rng.integers(0, 60)))


BYTES = (_flip_bits, _set_bytes, _cut, _insert, _remove, _repeat, _noise)


def mutated_payload(rng, video_id):
    """A serialized record, damaged in its content or its bytes; now and then not at all."""
    record = make_record(rng, video_id)
    if rng.integers(2):
        CONTENT[int(rng.integers(len(CONTENT)))](rng, record)
        return record.SerializeToString()
    return BYTES[int(rng.integers(len(BYTES)))](rng, record.SerializeToString())


def _forge_length(rng, data):
    """A length that is wrong, its checksum right, of the first record."""
    length = (0, 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1, 2**64 - 16)[int(rng.integers(8))]
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked(crc32c(packed))) + data[12:]


def _nothing_left(rng, data):
    return b""


FILES = (*BYTES, _flip_bits, _flip_bits, _cut, _forge_length, _forge_length, _nothing_left)


def mutated_file(rng, framed_records):
    """A file's bytes: damage begins at one of the records."""
    place = int(rng.integers(len(framed_records)))
    damaged = FILES[int(rng.integers(len(FILES)))](rng, b"".join(framed_records[place:]))
    if damaged == b"":
        return b""
    return b"".join(framed_records[:place]) + damaged
