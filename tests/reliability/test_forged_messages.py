"""Names from outside take the place of no message, and have no power over the terminal."""

import csv
import sys

import pytest
import tensorflow as tf

from yt8m_gat import cli
from yt8m_gat.commands import inspect as inspect_command
from yt8m_gat.commands import kaggle as kaggle_command
from yt8m_gat.config import ConfigError
from yt8m_gat.data import (
    BadRecordError,
    Fault,
    LabelMap,
    Reader,
    RecordSchema,
    read_label_names,
)
from yt8m_gat.evaluation.class_groups import read_class_groups
from yt8m_gat.report.table import format_evaluation

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
    "TensorFlow's": (record(x=WRONG_TYPE), Fault.WRONG_TYPE, "feature x is no float_list"),
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
        list(Reader([path], SCHEMA, 2))
    error = caught.value
    assert (error.fault, error.file, error.record) == (fault, path, 1)
    assert reason in error.reason
    assert str(error).startswith(f"{path!r}, record 1 (byte offset ")


def test_damage_of_the_framing_is_of_that_file(tmp_path):
    path = write(tmp_path / NAMES[0], [record()])
    with open(path, "ab") as file:
        file.write(b"\x08")
    with pytest.raises(BadRecordError, match="the file is truncated") as caught:
        list(Reader([path], SCHEMA, 2))
    assert (caught.value.file, caught.value.record) == (path, 1)


def test_skipping_counts_the_record_that_is_bad(tmp_path):
    path = write(tmp_path / NAMES[1], [record(), record(label=9), record()])
    reader = Reader([path], SCHEMA, 4, on_bad_record="skip", max_bad_fraction=1.0)
    batches = list(reader)
    skipped = reader.skipped
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


ESCAPES = "a\x1b[2J\x9b\u202eb"
SHOWN = "a\\x1b[2J\\x9b\\u202eb"


def test_inspect_shows_names_of_files_features_and_labels_in_one_line_each(tmp_path, capsys):
    feature = {ESCAPES: floats(1, 2), "id": tf.train.Feature(), "labels": tf.train.Feature()}
    feature["id"].bytes_list.value.append(b"v")
    feature["labels"].int64_list.value.append(0)
    good = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    write(tmp_path / f"{ESCAPES}.tfrecord", [good, record()])
    names = tmp_path / "names.csv"
    names.write_text(f"label_id,label_name\n0,{ESCAPES}\n")
    code = inspect_command.main([f"{tmp_path}/*.tfrecord", f"--label_names={names}"])
    text = capsys.readouterr().out
    assert code == 1  # The second record has another feature than the first.
    assert text.replace("\n", "").isprintable()
    for line in (f"{SHOWN}.tfrecord", f"feature {SHOWN}: ", f"records  {SHOWN}", "BAD "):
        assert line in text


def test_names_of_classes_come_without_control_characters(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text(f'source_index,target_index,target_name\n0,0,"{ESCAPES}\nb"\n')
    assert LabelMap.load(path).names == (f"{SHOWN}\\nb",)
    assert read_label_names(path) == {0: f"{SHOWN}\\nb"}
    path.write_text(f'index,group\n0,"{ESCAPES}\nb"\n')
    assert read_class_groups(path, 1) == {f"{SHOWN}\\nb": [0]}
    path.write_text("label_id,label_name\n0,caf\u00e9\u00a0noir\n", encoding="utf-8")
    assert read_label_names(path) == {0: "caf\u00e9\u00a0noir"}


def test_a_table_of_an_evaluation_moves_no_cursor():
    clip = {"video_id": ESCAPES, "labels": [[0, ESCAPES]], "clean": {"top": [[0, ESCAPES, 0.5]]}}
    clean = {"gap": 0.5, "num_videos": 1}
    text = format_evaluation({"clean": clean, "attacks": [], "clips": [clip]})
    assert text.count(SHOWN) == 3
    assert text.replace("\n", "").isprintable()


IDS = [f"=1+2{ESCAPES}", "+1", "-1", "@SUM(A1)", "v", '"=1"', "a,b"]


@pytest.fixture
def submission(tmp_path):
    path = tmp_path / "submission.csv"
    ids = ['"' + name.replace('"', '""') + '"' for name in IDS]
    lines = ["VideoId,LabelConfidencePairs", *(f"{name},1 0.5 0 0.25" for name in ids)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_kaggle_show_moves_no_cursor(submission, capsys):
    assert kaggle_command.main(["show", str(submission)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"=1+2{SHOWN}\n  0.5000  1\n")
    assert shown.replace("\n", "").isprintable()


def test_in_a_sheet_no_id_is_a_formula(submission, tmp_path):
    before = submission.read_bytes()
    sheet = tmp_path / "sheet.csv"
    assert kaggle_command.main(["sheet", str(submission), f"--output_file={sheet}"]) == 0
    with open(sheet, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["VideoId", "LabelConfidencePairs"]
    assert [row[0] for row in rows[1:]] == [
        *(f"'{name}" for name in IDS[:4]),
        *("v", '"=1"', "a,b"),
    ]
    assert {row[1] for row in rows[1:]} == {"1 0.5 0 0.25"}
    assert submission.read_bytes() == before


def test_a_segment_at_the_start_of_a_cell_is_no_formula_either(tmp_path):
    path, sheet = tmp_path / "segments.csv", tmp_path / "sheet.csv"
    path.write_text("Class,Segments\n0,=v:5 w:0\n1,w:5\n")
    assert kaggle_command.main(["sheet", str(path), f"--output_file={sheet}"]) == 0
    assert sheet.read_text() == "Class,Segments\n0,'=v:5 w:0\n1,w:5\n"


def test_a_label_of_five_thousand_digits_is_a_violation(tmp_path, capsys):
    path = tmp_path / "submission.csv"
    path.write_text(f"VideoId,LabelConfidencePairs\nv,1{'0' * 5000} 0.5\n")
    assert kaggle_command.main(["check", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "line 2: a label must be an integer in 0 .. 3861" in printed
    assert len(printed) < 400
