"""Names of files cannot take the place of what a message says."""

import sys

import pytest
import tensorflow as tf

from yt8m_gat import cli
from yt8m_gat.config import ConfigError
from yt8m_gat.data import BadRecordError, Fault, RecordSchema, SkippedRecords, iterate, make_dataset

SCHEMA = RecordSchema({"x": 2}, 5, frame_level=False)
NAMES = [
    "x:record 5: y. Remedy: z. Fault: label.tfrecord",
    "Bad record a:record 7: b. Remedy: c. Fault: no_frames.",
    "Name: a:record 7, b",
    "x, example id: a:record 7",
    "line\nBad record a:record 7: b. Remedy: c. Fault: no_frames.",
    'it\'s "100%" a\\:b\x1b[2J\u202e %3A ü',
]


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def record(label=0, x=None):
    feature = {
        "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"v"])),
        "labels": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "x": floats(1, 2) if x is None else x,
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


WRONG_TYPE = tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 2]))
BAD = {
    "ours": (record(label=9), Fault.LABEL, "label 9 is outside 0 .. 4"),
    "TensorFlow's": (record(x=WRONG_TYPE), Fault.WRONG_TYPE, "Data types don't match"),
    "undecodable": (b"\xff\xff", Fault.UNDECODABLE, "the payload is no tf.Example"),
}


def write(path, payloads):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
    return str(path)


@pytest.mark.parametrize(("name", "kind"), zip(NAMES, [*BAD] * 2, strict=True))
def test_the_message_is_about_the_file_and_the_record_that_are_bad(tmp_path, name, kind):
    payload, fault, reason = BAD[kind]
    path = write(tmp_path / name, [record(), payload])
    with pytest.raises(BadRecordError) as caught:
        list(iterate(make_dataset([path], SCHEMA, 2), [path]))
    error = caught.value
    assert (error.fault, error.file, error.record) == (fault, path, 1)
    assert reason in error.reason
    assert str(error).startswith(f"{path!r}, record 1 (byte offset ")


def test_damage_of_the_framing_is_of_that_file(tmp_path):
    path = write(tmp_path / NAMES[0], [record()])
    with open(path, "ab") as file:
        file.write(b"\x08")
    with pytest.raises(BadRecordError, match="the file is truncated") as caught:
        list(iterate(make_dataset([path], SCHEMA, 2), [path]))
    assert (caught.value.file, caught.value.record) == (path, 1)


def test_skipping_counts_the_record_that_is_bad(tmp_path):
    path = write(tmp_path / NAMES[1], [record(), record(label=9), record()])
    skipped = SkippedRecords(1.0)
    batches = list(iterate(make_dataset([path], SCHEMA, 4, skipped=skipped), [path], skipped))
    assert [len(batch["labels"]) for batch in batches] == [2]
    assert [(bad.file, bad.record, bad.fault) for bad in skipped.first] == [(path, 1, Fault.LABEL)]


def test_an_error_on_the_terminal_has_no_control_characters_and_no_second_beginning(
    capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py"])
    with pytest.raises(SystemExit) as ended, cli.reported_errors():
        raise ConfigError("run\x1b[2J\u202e is bad\ntrain.py: error: forged\x07")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "train.py: error: run\\x1b[2J\\u202e is bad\n  train.py: error: forged\\x07\n"
    )
