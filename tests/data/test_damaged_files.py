import json
import re
import struct
import subprocess
import sys

import handmade_records as hand
import pytest
import tensorflow as tf

from yt8m_gat.commands.inspect import main
from yt8m_gat.data import BadRecordError, Reader, RecordSchema, Shuffle, count_records
from yt8m_gat.data.description import discover
from yt8m_gat.data.tfrecord import masked_crc32c, read_records, walk_frames

SCHEMA = RecordSchema({"r": 4, "u": 2}, 5)


@pytest.fixture
def files(tmp_path):
    return [
        hand.write(tmp_path / f"f{n}.tfrecord", [hand.clip(f"{n}{i}", 3 + i) for i in range(4)])
        for n in range(3)
    ]


def damage(path, change):
    """Applies change(bytearray, offsets) and writes what it returns."""
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(change(bytearray(data), hand.frame_offsets(data)))
    return hand.frame_offsets(data)


def flip_payload(data, offsets):
    data[offsets[2] + 12 + 20] ^= 1
    return data


def cut_payload(data, offsets):
    return data[: offsets[2] + 12 + 20]


def cut_header(data, offsets):
    return data[: offsets[2] + 5]


def flip_length(data, offsets):
    data[offsets[2]] ^= 1
    return data


def huge_length(data, offsets):
    data[offsets[2] : offsets[2] + 8] = struct.pack("<Q", 1 << 40)
    return data


def huge_length_with_checksum(data, offsets):
    length = struct.pack("<Q", 1 << 40)
    data[offsets[2] : offsets[2] + 12] = length + struct.pack("<I", masked_crc32c(length))
    return data


DAMAGE = {
    "flipped payload": (flip_payload, "the payload has a wrong checksum"),
    "cut payload": (cut_payload, "the file is truncated: the record would end at byte"),
    "flipped length": (flip_length, "length has a wrong checksum"),
    "huge length": (huge_length, "length has a wrong checksum"),
}
# TensorFlow's reader allocates as much as a length says; only `walk_frames` survives these.
FRAMING_DAMAGE = {
    **{kind: how for kind, how in DAMAGE.items() if kind != "flipped payload"},
    "cut header": (cut_header, "inside a record's header"),
    "huge length with checksum": (
        huge_length_with_checksum,
        "truncated: the record would end at byte 1099511",
    ),
}


def test_checksum_is_tensorflows(files):
    # RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8a9136aa; masked as TFRecord files do.
    crc = 0x8A9136AA
    expected = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(bytes(32)) == expected
    with open(files[0], "rb") as file:
        header = file.read(12)
    assert struct.unpack("<I", header[8:])[0] == masked_crc32c(header[:8])


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("shuffle", [None, Shuffle()])
def test_iterate_locates_damage(files, kind, shuffle):
    change, message = DAMAGE[kind]
    offsets = damage(files[1], change)
    with pytest.raises(BadRecordError, match=f"{message}.*download or write this file") as caught:
        list(Reader(files, SCHEMA, 3, shuffle=shuffle))
    error = caught.value
    assert (error.file, error.record, error.offset) == (files[1], 2, offsets[2])


@pytest.mark.parametrize("kind", FRAMING_DAMAGE)
def test_framing_damage_is_counted_and_inspected_by_name(files, kind, capsys):
    change, message = FRAMING_DAMAGE[kind]
    damage(files[1], change)
    with pytest.raises(BadRecordError, match=rf"f1.tfrecord, record 2 .*{message}"):
        count_records(files)
    code, report = run_inspect(capsys, *files)
    assert (code, report["num_bad_records"]) == (1, 1)
    assert re.search(message, report["files"][1]["bad_records"][0]["reason"])


def test_frames_are_where_the_lengths_say(files):
    with open(files[0], "rb") as file:
        offsets = hand.frame_offsets(file.read())
    frames = list(walk_frames(files[0]))
    assert [frame.offset for frame in frames] == offsets
    assert [frame.record for frame in frames] == [0, 1, 2, 3]
    assert [frame.length for frame in frames] == [len(hand.clip(f"0{i}", 3 + i)) for i in range(4)]


def test_reading_goes_on_after_a_flipped_payload(files):
    damage(files[0], flip_payload)
    found = [payload for _, payload in read_records(files[0])]
    assert [found[i] for i in (0, 1, 3)] == [hand.clip(f"0{i}", 3 + i) for i in (0, 1, 3)]
    assert isinstance(found[2], BadRecordError)
    assert found[2].record == 2


def test_reading_ends_at_damaged_framing(files):
    damage(files[0], flip_length)
    found = [payload for _, payload in read_records(files[0])]
    assert len(found) == 3
    assert isinstance(found[2], BadRecordError)


def test_discover(files, tmp_path):
    assert discover(files[0]).sizes == {"r": (4,), "u": (2,)}
    assert discover(hand.write(tmp_path / "none.tfrecord", [])) is None
    with open(files[0], "r+b") as file:
        file.seek(20)
        file.write(b"\x00\x00")
    with pytest.raises(BadRecordError, match="record 0"):
        discover(files[0])


def run_inspect(capsys, *arguments):
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_inspect_good_files(files, capsys):
    code, report = run_inspect(capsys, *files)
    assert code == 0
    assert report["level"] == "frame"
    assert (report["num_records"], report["num_bad_records"], report["num_files"]) == (12, 0, 3)
    assert report["features"] == {"r": {"4": 12}, "u": {"2": 12}}
    assert report["frames"] == {"min": 3, "mean": 4.5, "max": 6}
    assert report["labels_per_record"] == {"min": 1, "mean": 1.0, "max": 1}
    assert report["distinct_labels"] == 1


def test_inspect_names_the_most_frequent_labels(files, tmp_path, capsys):
    names = tmp_path / "label_names.csv"
    names.write_text("label_id,label_name\n0,Cat, big\n1,Dog\n")
    _, report = run_inspect(capsys, *files, f"--label_names={names}")
    [entry] = report["most_frequent_labels"]
    assert entry["records"] == 12
    assert entry["name"] == {0: "Cat, big", 1: "Dog"}[entry["label"]]
    main([*files, f"--label_names={names}"])
    assert f"label {entry['label']:>5} in {12:>9} records" in capsys.readouterr().out


def test_inspect_finds_every_bad_record(files, capsys):
    offsets = damage(files[0], flip_payload)
    damage(files[1], flip_length)
    good = hand.clip("x", 3)
    hand.write(files[2], [good, hand.clip("y", 3, (9,)), b"\xff", good])
    code, report = run_inspect(capsys, *files, "--num_classes=5")
    assert code == 1
    assert (report["num_records"], report["num_bad_records"]) == (11, 4)
    bad = [[(b["record"], b["offset"]) for b in f["bad_records"]] for f in report["files"]]
    size = len(good) + 16
    assert bad == [[(2, offsets[2])], [(2, offsets[2])], [(1, size), (2, 2 * size)]]
    reasons = [b["reason"] for f in report["files"] for b in f["bad_records"]]
    for reason, words in zip(
        reasons,
        ("payload has a wrong", "length has a wrong", "label 9", "no tf.Example"),
        strict=True,
    ):
        assert words in reason


def test_inspect_as_text(files, capsys):
    damage(files[0], flip_payload)
    assert main([*files]) == 1
    text = capsys.readouterr().out
    assert f"BAD {files[0]}, record 2 (byte offset " in text
    assert "feature r: 4 bytes a frame in 11 records" in text
    assert "frames: 3 to 6, mean 4.45" in text


def test_inspect_with_a_schema(files, capsys):
    code, report = run_inspect(capsys, files[0], "--feature_names=r", "--feature_sizes=5")
    assert code == 1
    assert report["num_bad_records"] == 4
    assert "feature r has 4 bytes instead of 5" in report["files"][0]["bad_records"][0]["reason"]


def test_inspect_segment_and_video_level(tmp_path, capsys):
    segments = hand.sequence_example(
        {
            "id": hand.bytes_feature(b"s"),
            "segment_labels": hand.ints_feature(1, 2),
            "segment_scores": hand.floats_feature(1, 0),
        },
        r=[b"abcd"] * 5,
    )
    code, report = run_inspect(capsys, hand.write(tmp_path / "s", [segments]))
    assert (code, report["records_with_segments"]) == (0, 1)
    video = hand.example(id=hand.bytes_feature(b"v"), m=hand.floats_feature(1, 2))
    code, report = run_inspect(capsys, hand.write(tmp_path / "v", [video]))
    assert (code, report["level"], report["features"]) == (0, "video", {"m": {"2": 1}})
    reserved = hand.example(
        id=hand.bytes_feature(b"v"), m=hand.floats_feature(1), num_frames=hand.floats_feature(1)
    )
    assert run_inspect(capsys, hand.write(tmp_path / "reserved", [reserved]))[0] == 0
    code, report = run_inspect(capsys, hand.write(tmp_path / "empty", []))
    assert (code, report["num_bad_records"], report["level"]) == (1, 1, None)
    assert report["files"][0]["bad_records"][0]["fault"] == "empty_file"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--feature_names=r"], "go together"),
        (["--feature_names=r", "--feature_sizes=a"], "must be whole numbers"),
        (["--feature_names=r", "--feature_sizes=1,2"], "two lists of the same length"),
        (["--feature_names=r", "--feature_sizes=0"], "must be at least 1"),
    ],
)
def test_inspect_refuses(files, capsys, arguments, message):
    assert main([files[0], *arguments]) == 2
    assert message in capsys.readouterr().err


def test_inspect_names_a_pattern_that_matches_nothing(tmp_path, capsys):
    assert main([f"{tmp_path}/zz*"]) == 2
    assert "no file matches" in capsys.readouterr().err


@pytest.mark.slow
def test_inspect_runs_as_a_module(files):
    result = subprocess.run(
        [sys.executable, "-m", "yt8m_gat.data.inspect", files[0], "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert json.loads(result.stdout)["num_records"] == 4


def test_compressed_files_are_refused_by_name(tmp_path):
    path = str(tmp_path / "z.tfrecord")
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        writer.write(hand.clip("a", 30))
    with pytest.raises(BadRecordError, match="compressed, or no TFRecord file"):
        list(Reader([path], SCHEMA, 1))
