"""The JSON of an evaluation: whole after each row, and taken up under equal settings alone."""

import json

import pytest

from yt8m_gat.evaluation.record import EvaluationRecord, as_json

SETTINGS = {"weights": "abc", "top_k": 20, "radii": (1.0, 2.0)}
FGM = {"attack": "fgm", "epsilon": 0.5, "options": {"norm_scope": "frame"}}
GROUPS = {"Games": [0, 1], "Finance": [2]}
OF_GROUPS = {"Games": {"gap": 0.75, "num_videos": 3}, "Finance": None}


def written(path):
    return json.loads(path.read_text())


def filled(path, **options):
    record = EvaluationRecord(SETTINGS, path, **options)
    record.add("clean", {}, {"gap": 0.5, "loss": float("inf")}, OF_GROUPS)
    record.add("attacks", FGM, {"gap": 0.25}, OF_GROUPS)
    return record


def test_the_file_is_whole_after_each_row(tmp_path):
    path = tmp_path / "x.json"
    record = EvaluationRecord(SETTINGS, path)
    assert not path.exists()
    record.add("clean", {}, {"gap": 0.5}, classes={"ap": [float("nan"), 1.0]})
    assert written(path)["complete"] is False
    assert written(path)["clean"] == {"gap": 0.5}
    assert written(path)["classes"] == {"ap": [None, 1.0]}
    record.add("corruptions", {"corruption": "frame_drop", "severity": 2}, {"gap": 0.1})
    assert written(path)["corruptions"] == [{"corruption": "frame_drop", "severity": 2, "gap": 0.1}]
    result = record.finish()
    assert result["complete"] is True
    assert written(path) == result
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_rows_of_equal_settings_are_taken_over(tmp_path):
    filled(tmp_path / "x.json", groups=GROUPS)
    record = EvaluationRecord(SETTINGS, tmp_path / "x.json", GROUPS)
    assert record.take_over("clean", {})
    assert not record.take_over("clean", {}, "zero_gradient_share")
    assert not record.take_over("attacks", {**FGM, "epsilon": 1.0})
    assert not record.take_over("attacks", {**FGM, "options": {"norm_scope": "joint"}})
    assert not record.take_over("corruptions", {"corruption": "frame_drop", "severity": 1})
    assert record.take_over("attacks", FGM)
    assert record.result["clean"] == {"gap": 0.5, "loss": None}
    assert record.result["attacks"] == [{**FGM, "gap": 0.25}]
    games, finance = record.result["verticals"]
    assert games == {
        "vertical": "Games",
        "num_classes": 2,
        "num_videos": 3,
        "clean": {"gap": 0.75, "num_videos": 3},
        "attacks": [{"attack": "fgm", "epsilon": 0.5, "gap": 0.75, "num_videos": 3}],
        "corruptions": [],
    }
    assert (finance["num_videos"], finance["clean"], finance["attacks"]) == (0, None, [])


def test_nothing_is_taken_over_when_asked_to_start_over(tmp_path):
    filled(tmp_path / "x.json")
    assert not EvaluationRecord(SETTINGS, tmp_path / "x.json", start_over=True).take_over(
        "clean", {}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "def"}, "other settings (weights: 'abc' != 'def'): starting anew"),
        ({"more": 1}, "other settings (more: None != 1): starting anew"),
    ],
)
def test_other_settings_start_anew_and_say_so(tmp_path, capsys, change, message):
    filled(tmp_path / "x.json")
    record = EvaluationRecord({**SETTINGS, **change}, tmp_path / "x.json")
    assert not record.take_over("clean", {})
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"clean": {}}', "\x00"])
def test_what_is_no_evaluation_is_replaced(tmp_path, capsys, text):
    (tmp_path / "x.json").write_text(text)
    record = filled(tmp_path / "x.json")
    assert "no evaluation that could be continued" in capsys.readouterr().err
    assert written(tmp_path / "x.json") == record.result


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert filled(None).finish()["complete"] is True
    assert not list(tmp_path.iterdir())


def test_json_is_what_reading_it_gives_back():
    value = {"a": (1, 2.5, float("nan")), 3: {"b": None}, "c": [True, "x"]}
    found = as_json(value)
    assert found == {"a": [1, 2.5, None], "3": {"b": None}, "c": [True, "x"]}
    assert json.loads(json.dumps(found)) == found
