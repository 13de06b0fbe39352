"""Tags of more than 32 bits at each level of a record, beside Python's protocol buffer library."""

import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_gat.data.wire_format import read_records
from yt8m_gat.data.wire_tags import have_long_tags


def field(tag, content, top=None):
    """A field with a length; its tag has five bytes, the last of them `top`, if that is given."""
    tag = bytes([tag]) if top is None else bytes([tag | 0x80, 0x80, 0x80, 0x80, top])
    return tag + bytes([len(content)]) + content


def nested(level=None, top=None, number=b"\x08\x05"):
    """A record with one label; one of its seven levels has a long tag."""
    tops = [top if index == level else None for index in range(7)]
    numbers = field(0x0A, b"\x05", tops[0]) + number
    feature = field(0x1A, numbers, tops[1])
    entry = field(0x0A, b"labels", tops[2]) + field(0x12, feature, tops[3])
    context = field(0x0A, entry, tops[4])
    return field(0x0A, context, tops[5]) + field(0x12, b"", tops[6])


LOOKS_LIKE_ONE = b"\x8a\x80\x80\x80\x7f\x00"
RECORDS = {
    "short": nested(),
    "value": field(0x0A, field(0x0A, field(0x12, field(0x0A, field(0x0A, LOOKS_LIKE_ONE))))),
    "unknown bytes": nested() + field(0x7A, LOOKS_LIKE_ONE),
    "unknown number": nested() + b"\xf8\x80\x80\x80\x0f\x05",
    "unknown number, bit 32": nested() + b"\xf8\x80\x80\x80\x10\x05",
    "number, bit 33": nested(number=b"\x88\x80\x80\x80\x20\x05"),
    "4 bytes, then a tag": nested() + b"\x7d" + LOOKS_LIKE_ONE[:4] + b"\x78\x01",
    "8 bytes, then a tag": nested() + b"\x79" + LOOKS_LIKE_ONE + b"ab" + LOOKS_LIKE_ONE,
    "in a group": nested() + b"\x7b\x7b\x7c\x78\x01\xf8\x80\x80\x80\x40\x05\x7c",
    "in a group as if a message": nested() + b"\x7b" + field(0x0A, LOOKS_LIKE_ONE) + b"\x7c",
    "after a group": nested() + b"\x7b\x7c" + LOOKS_LIKE_ONE,
    "empty": b"",
    **{f"level {i}, {top}": nested(i, top) for i in range(7) for top in (0, 15, 16, 0x7F)},
}


def refused(record):
    try:
        tf.train.SequenceExample.FromString(record)
    except DecodeError:
        return True
    return False


@pytest.fixture(scope="module")
def expected():
    return {name: refused(record) for name, record in RECORDS.items()}


def test_a_long_tag_is_found_wherever_it_is(expected):
    assert sum(expected.values()) == 5 + 2 * 7
    records = tf.constant(list(RECORDS.values()))
    verdicts = have_long_tags(records).numpy().tolist()
    assert dict(zip(RECORDS, verdicts, strict=True)) == expected


@pytest.mark.slow
def test_records_are_refused_one_by_one_and_among_others(expected):
    for names in ["short"], ["level 4, 16"], ["unknown number, bit 32"], list(RECORDS):
        records = tf.constant([RECORDS[name] for name in names])
        decodable = read_records(records, tf.constant(True)).decodable.numpy().tolist()
        assert decodable == [not expected[name] for name in names]


def test_what_an_example_holds_in_place_of_lists_is_not_read():
    """Field 2 of a `tf.Example` is unknown to the library: bytes that need not be a message."""
    records = [nested(), field(0x12, LOOKS_LIKE_ONE), field(0x12, b"\xff"), nested(5, 16)]
    for record in records[:-1]:
        tf.train.Example.FromString(record)
    decodable = read_records(tf.constant(records), tf.constant(False), "Example").decodable
    assert decodable.numpy().tolist() == [True, True, True, False]
