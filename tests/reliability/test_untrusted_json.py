"""JSON that anyone may have written ends in a line, whatever it holds."""

import json
import math

import pytest
from json_mutations import HOSTILE, mutations

from yt8m_gat import pipeline
from yt8m_gat.acquisition.download import DownloadError, read_plan
from yt8m_gat.config import ConfigError, DataConfig, RunConfig
from yt8m_gat.data import read_class_ids
from yt8m_gat.data.label_space import ontology_map
from yt8m_gat.evaluation.record import EvaluationRecord, as_json
from yt8m_gat.prediction.submission import SubmissionWriter, partial_file
from yt8m_gat.robustness.protocol import sceptic_attacks
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.distribution import read_tf_config
from yt8m_gat.training.state import TrainingState
from yt8m_gat.untrusted import MAX_DEPTH, fits, parse_json, printable, quoted, read_json


def test_every_mutation_of_a_configuration_is_read_or_refused(tmp_path):
    values = json.loads(RunConfig().to_json())
    num_refused = 0
    for text in mutations(values, 8):
        (tmp_path / "config.json").write_text(text)
        try:
            config = RunConfig.load(tmp_path)
        except ConfigError as error:
            assert len(str(error)) < 800
            num_refused += 1
        else:
            assert RunConfig.from_json(config.to_json()) == config
    assert num_refused > 300


def test_every_mutation_of_a_state_of_training_is_read_or_refused():
    for text in mutations(json.loads(TrainingState().to_json()), len(HOSTILE)):
        try:
            state = TrainingState.from_json(text)
        except ConfigError:
            continue
        state.learning_rate(RunConfig().training)
        state.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" + "0" * 400, "must fit in 64 bits"),
        ("-9223372036854775808", "must fit in 64 bits"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} deep"),
        ("[" * 100_000, "more than 64 deep"),
        ("{", "Expecting property name"),
        (b"\xff", "utf-8"),
    ],
)
def test_json_beyond_the_bounds_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_json_within_the_bounds_is_what_it_says(tmp_path):
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deepest)) == deepest
    assert parse_json(b'{"a": 9223372036854775807, "b": -0.5}') == {"a": 2**63 - 1, "b": -0.5}
    (tmp_path / "x.json").write_text("[1, 2]")
    assert read_json(tmp_path / "x.json", max_bytes=6) == [1, 2]
    with pytest.raises(ValueError, match="at most 5 bytes"):
        read_json(tmp_path / "x.json", max_bytes=5)


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        ([{"a": 1}], [{"a": int, "b?": str}], True),
        ([{"a": 1, "b": 2}], [{"a": int, "b?": str}], False),
        ([{"b": "x"}], [{"a": int}], False),
        ({"x": [1, None]}, {str: [(int, type(None))]}, True),
        ({"x": [1, "y"]}, {str: [(int, type(None))]}, False),
        (True, int, False),
        ({}, [int], False),
    ],
)
def test_fits(value, shape, expected):
    assert fits(value, shape) is expected


@pytest.mark.parametrize(
    ("text", "shown", "in_a_sentence"),
    [
        ("data/train-01.tfrecord", "data/train-01.tfrecord", "data/train-01.tfrecord"),
        ("vidéo.tfrecord", "vidéo.tfrecord", "vidéo.tfrecord"),
        ("a b", "a b", "'a b'"),
        ("it's", "it's", '"it\'s"'),
        ("\x1b[2J\x9b", "\\x1b[2J\\x9b", "'\\x1b[2J\\x9b'"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066", "'a\\u202eb\\u2066'"),
        ("a\r\nb", "a\\r\\nb", "'a\\r\\nb'"),
        ("\udcff", "\\udcff", "'\\udcff'"),
        ("", "", "''"),
    ],
)
def test_what_is_shown_has_no_power_over_the_terminal(text, shown, in_a_sentence):
    assert printable(text) == shown
    assert quoted(text) == in_a_sentence
    assert shown.isprintable()
    assert in_a_sentence.isprintable()


def test_metrics_are_read_up_to_a_line_that_a_kill_cut(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == []
    folder.append_metrics({"step": 1, "loss": math.nan})
    folder.append_metrics({"step": 2})
    folder.metrics.write_bytes(folder.metrics.read_bytes() + b'{"step": 3, "ids": ["\xc3')
    assert [record["step"] for record in folder.read_metrics()] == [1, 2]
    folder.forget_metrics_after(1, 0)
    assert folder.metrics.read_text() == '{"step": 1, "loss": NaN}\n'


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "kind": []}',
        '{"step": 1, "kind": "bad_records", "epoch": "2"}',
        "{}",
        "3",
        "[]",
        '{"step": "4"}',
        '{"step": null}',
        '{"step": true}',
        "{",
        "\udcff",
    ],
)
def test_a_line_of_metrics_without_a_step_is_named(tmp_path, line):
    folder = RunFolder(tmp_path)
    content = f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'.encode(errors="surrogateescape")
    folder.metrics.write_bytes(content)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl, line 2: must be"):
        folder.forget_metrics_after(1, 0)
    assert folder.metrics.read_bytes() == content


def test_every_mutation_of_a_cluster_is_read_or_refused():
    values = {
        "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
        "task": {"type": "worker", "index": 1},
    }
    assert read_tf_config(json.dumps(values)) == (values["cluster"], "worker", 1)
    for text in mutations(values, len(HOSTILE)):
        try:
            cluster, _, index = read_tf_config(text)
        except ConfigError:
            continue
        assert fits(cluster, {str: [str]})
        assert isinstance(index, int)


def test_every_mutation_of_a_download_plan_is_read_or_refused():
    values = {"files": {"train00.tfrecord": "0" * 32, "train01.tfrecord": "1" * 32}}
    for text in mutations(values, len(HOSTILE)):
        try:
            plan = read_plan(text.encode(), "url")
        except DownloadError:
            continue
        assert plan == values["files"]


def test_every_mutation_of_an_ontology_is_read_or_refused(tmp_path):
    ontology, labels = tmp_path / "ontology.json", tmp_path / "labels.csv"
    labels.write_text("index,mid,display_name\n0,/m/1,One\n")
    values = [
        {"id": "/m/0", "name": "All", "child_ids": ["/m/1"]},
        {"id": "/m/1", "name": "One", "child_ids": []},
    ]
    for text in mutations(values, len(HOSTILE)):
        ontology.write_text(text)
        try:
            label_map = ontology_map(ontology, labels)
        except ConfigError:
            continue
        assert all(name.isprintable() for name in label_map.names)


def test_every_mutation_of_the_progress_of_inference_is_taken_up_or_dropped(tmp_path, capsys):
    """What is taken up is what was written: nothing else is known to be whole."""
    path = tmp_path / "submission.csv"
    rows, progress = partial_file(path), partial_file(path).with_suffix(".partial.json")
    content = "VideoId,LabelConfidencePairs\nv,0 0.5\n"
    counts = {"bytes": len(content), "batches": 1, "rows": 1}
    values = {"settings": {"weights": "abc", "files": [["x", 1, 2]]}, "counts": counts}
    num_taken_up = 0
    for text in [json.dumps(values), *mutations(values, 12)]:
        rows.write_text(content)
        progress.write_text(text)
        with SubmissionWriter(path, 1, values["settings"]) as writer:
            if (writer.num_batches, writer.num_rows) != (0, 0):
                num_taken_up += 1
                assert parse_json(text)["settings"] == values["settings"]
                assert writer.num_batches > 0
                assert writer.num_rows >= 0
    assert num_taken_up > 1


@pytest.mark.parametrize("text", ["9" * 5000, "1" + "0" * 400, "-1", "\u00b2", "x"])
def test_a_class_that_is_no_index_is_named_with_its_line(tmp_path, text):
    path = tmp_path / "ids.csv"
    path.write_text(f"Class\n3\n{text}\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"line 3: a class must be an integer in 0 \.\. 9"
    ) as error:
        read_class_ids(path, 10)
    assert len(str(error.value)) < 500


def test_deepfool_on_one_class_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "x.tfrecord").write_bytes(b"")
    RunConfig(data=DataConfig(num_classes=1)).save(tmp_path)
    with pytest.raises(ConfigError, match=r"deepfool .* at least two classes"):
        pipeline.evaluate(
            RunFolder(tmp_path),
            eval_data_pattern=f"{tmp_path}/x.tfrecord",
            attacks=("pgd", "deepfool:steps=2"),
        )


@pytest.mark.parametrize("deepfool", [True, False])
def test_the_sceptic_asks_for_deepfool_where_there_are_two_classes(deepfool):
    specs = sceptic_attacks(
        [0.5], transfer=True, surrogate=True, adaptive=True, rounded=True, deepfool=deepfool
    )
    assert ("deepfool" in {spec.name for spec in specs}) is deepfool


@pytest.mark.parametrize("with_checksum", [True, False])
def test_every_mutation_of_an_evaluation_is_left_alone_or_harmless(tmp_path, capsys, with_checksum):
    """A file that says what it should hold is continued as it was written, or not at all."""
    path = tmp_path / "x.json"
    groups = {"even": [0, 2], "odd": [1]}
    record = EvaluationRecord({"top_k": 20}, path, groups)
    record.add("clean", {}, {"gap": 0.5, "num_videos": 2}, {"even": {"num_videos": 2}, "odd": None})
    record.add("attacks", {"attack": "fgm", "epsilon": 0.5}, {"gap": 0.25}, {"even": {"gap": 1.0}})
    values = record.finish()
    if not with_checksum:  # As an older version wrote it.
        del values["checksum"]
    num_continued = 0
    for text in mutations(values, 3):
        path.write_text(text)
        again = EvaluationRecord({"top_k": 20}, path, groups)
        if again.take_over("clean", {}):
            num_continued += 1
            assert not with_checksum or as_json(parse_json(text)) == values
        again.add("corruptions", {"corruption": "noise", "severity": 1}, {"gap": 0.5})
        again.finish()
    assert "starting over; it is kept as x.json.old" in capsys.readouterr().err
    assert num_continued > (0 if with_checksum else 20)


def test_a_figure_changed_by_hand_is_not_taken_over(tmp_path, capsys):
    path = tmp_path / "x.json"
    EvaluationRecord({}, path).add("clean", {}, {"gap": 0.5})
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert not EvaluationRecord({}, path).take_over("clean", {})
    assert "x.json was changed since eval.py wrote it" in capsys.readouterr().err
