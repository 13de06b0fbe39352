"""Records and files of records, damaged at random: what an accident or a forger makes of them."""

import struct

import numpy as np
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


def make_video_record(rng, video_id):
    """A video-level record, with now and then something that it must not hold."""
    record = tf.train.Example()
    features = record.features.feature
    features[("id", "video_id")[int(rng.integers(2))]].bytes_list.value.append(video_id)
    features["labels"].int64_list.value.extend(rng.integers(0, NUM_CLASSES, 3).tolist())
    for name, size in SIZES.items():
        features[name].float_list.value.extend(rng.normal(size=size).tolist())
    name = _name(rng)
    wrong = int(rng.integers(12))
    if wrong == 0:
        features[name].float_list.value.append(1.0)
    elif wrong == 1:
        features[name].float_list.value[0] = (np.nan, np.inf)[int(rng.integers(2))]
    elif wrong == 2:
        features[name].int64_list.value.append(1)
    elif wrong == 3:
        features[name].Clear()
    elif wrong == 4:
        features["labels"].int64_list.value.append(NUM_CLASSES)
    elif wrong == 5:
        features["id"].bytes_list.value.append(b"")
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


# Of the protocol buffer, whose meaning is for its library to say: forms that a writer may choose,
# and some that none would.


def varint(number, extra=0):
    """A number, with so many digits more than it needs."""
    digits = []
    while number >= 128:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes(
        [*digits, number + (128 if extra else 0), *[128] * (extra - 1), *[0] * (extra > 0)]
    )


def fields_of(message):
    """(tag, content) of each field of a message that the library wrote; all have a length."""
    fields, place = [], 0
    while place < len(message):
        tag, length, shift = message[place], 0, 0
        place += 1
        while True:
            digit = message[place]
            place += 1
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        fields.append((tag, message[place : place + length]))
        place += length
    return fields


def _written(fields, rng=None, often=0.0):
    """A message of such fields, and of bytes that are whole fields already."""
    message = b""
    for field in fields:
        if isinstance(field, bytes):
            message += field
            continue
        extra = int(rng.integers(1, 5)) if rng is not None and rng.random() < often else 0
        message += bytes([field[0]]) + varint(len(field[1]), extra) + field[1]
    return message


# Levels of a record: what its fields hold, by tag.
_LEVELS = {
    "record": {0x0A: "features", 0x12: "feature_lists"},
    "features": {0x0A: "features_entry"},
    "feature_lists": {0x0A: "lists_entry"},
    "features_entry": {0x12: "feature"},
    "lists_entry": {0x12: "feature_list"},
    "feature_list": {0x0A: "feature"},
    "feature": {0x0A: "bytes_list", 0x12: "float_list", 0x1A: "int64_list"},
    "bytes_list": {},
    "float_list": {},
    "int64_list": {},
}

_UNKNOWN = (
    b"\x7a\x01z",  # field 15: bytes
    b"\x78\x05",  # a number
    b"\x7dabcd",  # 4 bytes
    b"\x79abcdefgh",  # 8 bytes
    b"\x7b\x78\x01\x7c",  # a group
    b"\xfa\xff\xff\xff\x0f\x00",  # the largest field number
    b"\xa2\x06\x00",  # field 100, empty
)
_NO_FIELD = (
    b"\x00\x01",
    b"\x7b",
    b"\x7c",
    b"\x0e",
    b"\x7a\x7f",
    b"\x7a" + b"\xff" * 9 + b"\x01",
    b"\x80",
    b"\xf8\x80\x80\x80\x10\x05",  # A tag with bit 32,
    b"\x7b\xf8\x80\x80\x80\x70\x05\x7c",  # also in a group.
)


def _numbers(content, level):
    """The values of a list of numbers, each as a field of its own."""
    if level == "float_list":
        return [b"\x0d" + content[i : i + 4] for i in range(0, len(content), 4)]
    values, first = [], 0
    for place, byte in enumerate(content):
        if byte < 128:
            values.append(b"\x08" + content[first : place + 1])
            first = place + 1
    return values


def _reform(rng, fields, level):
    """One change of a message's form; may change what it says."""
    kind = int(rng.integers(14))
    some = [i for i, field in enumerate(fields) if isinstance(field, tuple)]
    place = int(rng.choice(some)) if some else None
    if kind == 0:
        fields.insert(
            int(rng.integers(len(fields) + 1)), _UNKNOWN[int(rng.integers(len(_UNKNOWN)))]
        )
    elif kind == 1 and rng.integers(4) == 0:
        fields.insert(
            int(rng.integers(len(fields) + 1)), _NO_FIELD[int(rng.integers(len(_NO_FIELD)))]
        )
    elif kind == 2 and place is not None:  # Twice: the later one counts, or the two are merged.
        fields.insert(int(rng.integers(len(fields) + 1)), fields[place])
    elif kind == 3:
        order = rng.permutation(len(fields))
        fields[:] = [fields[i] for i in order]
    elif kind == 4 and place is not None:
        del fields[place]
    elif kind == 5 and place is not None:  # Of the wire type of numbers.
        tag, content = fields[place]
        fields.insert(int(rng.integers(len(fields) + 1)), bytes([tag & 0xF8, len(content) % 128]))
    elif kind == 6:  # An empty message, key or value.
        tags = [*_LEVELS[level], 0x0A]
        fields.insert(int(rng.integers(len(fields) + 1)), (int(rng.choice(tags)), b""))
    elif kind == 7 and place is not None:  # Split where a message is, between its fields.
        tag, content = fields[place]
        if tag in _LEVELS[level]:
            parts = fields_of_any(content, _LEVELS[level][tag])
            cut = int(rng.integers(len(parts) + 1))
            fields[place : place + 1] = [(tag, _written(parts[:cut])), (tag, _written(parts[cut:]))]
    elif kind == 8 and level in ("int64_list", "float_list"):  # Not packed, in whole or in part.
        for i in reversed(some):
            numbers = _numbers(fields[i][1], level)
            cut = int(rng.integers(len(numbers) + 1))
            packed = b"".join(number[1:] for number in numbers[:cut])
            fields[i : i + 1] = [(0x0A, packed), *numbers[cut:]]
    elif kind == 9 and level == "int64_list" and place is not None:  # A number of too many digits.
        extra = int(rng.integers(1, 11))
        fields.append((0x0A, varint(int(rng.integers(NUM_CLASSES)), extra)))
    elif kind == 10 and level == "feature":  # The last of the three counts.
        other = (0x0A, 0x12, 0x1A)[int(rng.integers(3))]
        fields.insert(int(rng.integers(len(fields) + 1)), (other, b""))
    elif kind == 11 and level.endswith("_entry"):  # Keys that are no text.
        key = (b"\xff", b"\xed\xa0\x80", b"k\x00", "ü".encode(), b"labels", b"r")[
            int(rng.integers(6))
        ]
        fields.insert(int(rng.integers(len(fields) + 1)), (0x0A, key))
    elif kind == 12 and place is not None:  # A tag of more bytes than it needs.
        tag, content = fields[place]
        long_tag = varint(tag, int(rng.integers(1, 6)))
        if len(long_tag) == 5:  # With bits 28 to 34: the library has 32.
            long_tag = long_tag[:4] + (b"\0", b"\x10", b"\x7f")[int(rng.integers(3))]
        fields[place] = long_tag + varint(len(content)) + content
    elif kind == 13 and place is not None:  # As much as a message of another kind.
        tag, content = fields[place]
        fields[place] = (int(rng.choice((0x0A, 0x12, 0x1A, 0x22))), content)


def fields_of_any(content, level):
    """`fields_of`; numbers that are not packed stay whole."""
    try:
        return fields_of(content)
    except IndexError:
        return [content]


def _reformed(rng, message, level, share):
    """A message in which some levels have another form."""
    fields = fields_of_any(message, level)
    for i, field in enumerate(fields):
        if isinstance(field, tuple) and (inner := _LEVELS[level].get(field[0])):
            fields[i] = (field[0], _reformed(rng, field[1], inner, share))
    if rng.random() < share[level]:
        _reform(rng, fields, level)
    return _written(fields, rng, 0.02 if share["digits"] else 0.0)


def _another_form(rng, data):
    """A record that the library wrote, in a form that it would not write."""
    share = dict.fromkeys(_LEVELS, 0.0)
    share |= {level: 0.5 for level in rng.choice(list(_LEVELS), 2)}
    share["digits"] = rng.integers(4) == 0
    if share["feature"]:
        share["feature"] = 0.1  # There are many.
    return _reformed(rng, data, "record", share)


def reformed_payload(rng, video_id):
    """A serialized record of another form, seldom of other content too."""
    record = make_record(rng, video_id)
    if rng.integers(4) == 0:
        CONTENT[int(rng.integers(len(CONTENT)))](rng, record)
    return _another_form(rng, record.SerializeToString(deterministic=True))


def video_payload(rng, video_id):
    """A serialized video-level record, in a form that the library would not write, or damaged."""
    data = make_video_record(rng, video_id).SerializeToString(deterministic=True)
    if rng.integers(3):
        return _another_form(rng, data)
    return BYTES[int(rng.integers(len(BYTES)))](rng, data)


BYTES = (_flip_bits, _set_bytes, _cut, _insert, _remove, _repeat, _noise)


def mutated_payload(rng, video_id):
    """A serialized record, damaged in its content or its bytes; now and then not at all."""
    record = make_record(rng, video_id)
    if rng.integers(2):
        CONTENT[int(rng.integers(len(CONTENT)))](rng, record)
        return record.SerializeToString(deterministic=True)
    return BYTES[int(rng.integers(len(BYTES)))](rng, record.SerializeToString(deterministic=True))


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
