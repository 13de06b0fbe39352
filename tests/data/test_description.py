"""What a record is said to hold."""

import handmade_records as hand

from yt8m_gat.data.description import describe_record
from yt8m_gat.data.errors import Fault

CONTEXT = {"id": hand.bytes_feature(b"v")}


def test_the_text_names_sizes_and_frames():
    record = hand.sequence_example(
        CONTEXT,
        even=[b"abc", b"def"],
        uneven=[b"abc", b"d"],
        floats=[hand.floats_feature(1.0, 2.0)],
    )
    assert set(str(describe_record(record)).split("; ")) == {
        "even, 2 frames of 3 bytes",
        "uneven, 2 frames of 1 or 3 bytes",
        "floats, 1 frames of 2 floats",
    }
    assert str(describe_record(hand.sequence_example(CONTEXT))) == "no features"


def test_a_second_value_of_the_id_is_a_fault():
    two = hand.sequence_example({"id": hand.bytes_feature(b"v", b"w")}, rgb=[b"abc"])
    expected = ((Fault.VIDEO_ID, "it has more than one value of id"),)
    assert describe_record(two).faults == expected
    assert describe_record(hand.sequence_example(CONTEXT, rgb=[b"abc"])).faults == ()
