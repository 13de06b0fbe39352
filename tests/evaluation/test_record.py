"""The JSON of an evaluation: whole after each row, and taken up under equal settings alone."""

import datetime
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert record.result["complete"] is False
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
        ({"weights": "def"}, "(weights: 'abc' != 'def'): starting over; it is kept as x.json.old"),
        ({"more": 1}, "other settings (more: None != 1): starting over; it is kept as x.json.old"),
    ],
)
def test_other_settings_start_anew_and_say_so(tmp_path, capsys, change, message):
    filled(tmp_path / "x.json")
    record = EvaluationRecord({**SETTINGS, **change}, tmp_path / "x.json")
    assert not record.take_over("clean", {})
    assert message in capsys.readouterr().err
    before = written(tmp_path / "x.json")
    record.add("clean", {}, {"gap": 0.75})
    record.add("attacks", FGM, {"gap": 0.125})
    assert written(tmp_path / "x.json.old") == before
    assert written(tmp_path / "x.json") == record.result


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"clean": {}}', "\x00", "[" * 100_000),
        *('{"settings": 3}', '{"settings": {}, "clean": 3, "attacks": [], "corruptions": []}'),
        '{"settings": {}, "clean": {}, "attacks": [[]], "corruptions": [], "verticals": [3]}',
    ],
)
def test_what_is_no_evaluation_is_replaced_and_kept(tmp_path, capsys, text):
    (tmp_path / "x.json").write_text(text)
    record = filled(tmp_path / "x.json")
    assert "no evaluation that could be continued" in capsys.readouterr().err
    assert written(tmp_path / "x.json") == record.result
    assert (tmp_path / "x.json.old").read_text() == text


class Killed(Exception):
    """In place of a signal."""


def evaluated(path, attacks, dies_after):
    """A call of eval.py in small; killed after so many writes.

    Returns:
        What the file held after each of them.
    """
    seen = []

    class Record(EvaluationRecord):
        def _write(self):
            before = self._text
            super()._write()
            if self._text == before:
                return
            seen.append(written(path))
            if len(seen) == dies_after:
                raise Killed

    record = Record(SETTINGS, path, GROUPS)
    try:
        if not record.take_over("clean", {}):
            sections = {"classes": {"ap": [0.5]}}
            record.add("clean", {}, {"gap": 0.5, "num_videos": 3}, OF_GROUPS, **sections)
        for name in attacks:
            identity = {"attack": name, "epsilon": 0.5}
            if not record.take_over("attacks", identity):
                record.add("attacks", identity, {"gap": 0.25}, OF_GROUPS)
        corruption = {"corruption": "frame_drop", "severity": len(attacks)}
        if not record.take_over("corruptions", corruption):
            record.add("corruptions", corruption, {"gap": 0.1}, OF_GROUPS)
        record.set(worst_cases=[{"attacks": sorted(attacks)}])
        result = record.finish()
    except Killed:
        return seen
    assert result["complete"] is True and written(path) == result
    assert [row["attack"] for row in result["attacks"]][: len(attacks)] == list(attacks)
    return seen


def rows_of(found):
    """What was measured: rows, rows of groups, and other parts."""
    rows = {(kind, *row.values()) for kind in ("attacks", "corruptions") for row in found[kind]}
    if found["clean"]:
        rows |= {("clean", *found["clean"].values())}
    for group in found["verticals"]:
        of_group = {**found, **group, "verticals": []}
        rows |= {(group["vertical"], *row) for row in rows_of(of_group)}
    return rows | {name for name in ("classes", "worst_cases") if name in found}


_CALLS = st.lists(
    st.tuples(st.permutations("abcd"), st.integers(0, 4), st.integers(1, 8)), min_size=1, max_size=5
)


@settings(max_examples=30, deadline=None)
@given(_CALLS)
def test_what_is_on_disk_only_grows(tmp_path_factory, calls):
    """Calls that are killed after any write, and ask for any of the attacks in any order."""
    path = tmp_path_factory.mktemp("grows") / "x.json"
    states = []
    for attacks, count, dies_after in calls:
        states += evaluated(path, attacks[:count], dies_after)
    for before, after in itertools.pairwise(states):
        assert rows_of(before) <= rows_of(after)
        groups = [group["attacks"] for group in after["verticals"]]
        assert [len(rows) for rows in groups] == [len(after["attacks"]), 0]


def test_a_call_that_measures_nothing_leaves_the_file_alone(tmp_path):
    path = tmp_path / "x.json"
    evaluated(path, "ab", None)
    before, changed = path.read_bytes(), path.stat().st_mtime_ns
    assert evaluated(path, "ab", None) == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, changed)


def test_a_row_of_the_same_name_stays_until_it_is_measured_again(tmp_path):
    path = tmp_path / "x.json"
    filled(path)
    record = EvaluationRecord(SETTINGS, path)
    record.add("clean", {}, {"gap": 0.5, "hits": 7})
    assert written(path)["clean"] == {"gap": 0.5, "loss": None, "hits": 7}
    assert written(path)["attacks"] == [{**FGM, "gap": 0.25}]
    others = {**FGM, "options": {"norm_scope": "joint"}}
    record.add("attacks", others, {"gap": 0.125})
    assert written(path)["attacks"] == [{**others, "gap": 0.125}]


def test_clips_stay_until_they_are_shown_again(tmp_path):
    path = tmp_path / "x.json"
    EvaluationRecord(SETTINGS, path).show([{"video_id": "a", "top": 1}, {"video_id": "b"}])
    record = EvaluationRecord(SETTINGS, path)
    record.show([{"video_id": "c"}, {"video_id": "a", "top": 2}])
    assert record.finish()["clips"] == [
        {"video_id": "c"},
        {"video_id": "a", "top": 2},
        {"video_id": "b"},
    ]


def test_provenance_names_each_call_that_measured(tmp_path):
    path = tmp_path / "x.json"
    known = {"version": "1", "pattern": "validate*", "num_files": 2}

    def call(number, attacks):
        about = {**known, "command": ["eval.py", str(number)]}
        record = EvaluationRecord(SETTINGS, path, provenance=about)
        if not record.take_over("clean", {}):
            record.add("clean", {}, {"num_videos": 5})
        for name in attacks:
            if not record.take_over("attacks", {"attack": name, "epsilon": 1}):
                record.add("attacks", {"attack": name, "epsilon": 1}, {})
        return record.finish()["provenance"]

    first = call(1, "a")
    when = datetime.datetime.fromisoformat(first["measured_at"])
    assert 0 <= (datetime.datetime.now(datetime.UTC) - when).total_seconds() < 60
    assert first == {
        "measured_at": first["measured_at"],
        "command": ["eval.py", "1"],
        **known,
        "num_videos": 5,
        "earlier_calls": [],
    }
    third = [call(2, "a"), call(3, "ab")][1]  # The second call measured nothing.
    assert third["command"] == ["eval.py", "3"]
    called = {name: first[name] for name in ("measured_at", "command", "version")}
    assert third["earlier_calls"] == [called]
    # A file of a version that did not write it down.
    old = written(path)
    del old["provenance"], old["checksum"]
    path.write_text(json.dumps(old))
    unknown = dict.fromkeys(called)
    assert call(4, "a").items() >= {**unknown, "earlier_calls": []}.items()
    assert call(5, "c")["earlier_calls"] == [unknown]


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert filled(None).finish()["complete"] is True
    assert not list(tmp_path.iterdir())


def test_json_is_what_reading_it_gives_back():
    value = {"a": (1, 2.5, float("nan")), 3: {"b": None}, "c": [True, "x"]}
    found = as_json(value)
    assert found == {"a": [1, 2.5, None], "3": {"b": None}, "c": [True, "x"]}
    assert json.loads(json.dumps(found)) == found
