"""Entries of a leaderboard against the evaluation that they are made of."""

import json

from test_report import EVALUATION, write_run

from yt8m_gat.commands import report
from yt8m_gat.report.leaderboard import FORMAT

INTERVALS = {"level": 0.95, "resamples": 200, "hit_at_1": [0.1, 0.3], "gap": [0.2, 0.4]}
FRAME = {"norm_scope": "frame", "steps": 20}
ATTACKS = [
    {"attack": "pgd", "epsilon": 0.5, "options": FRAME, "gap": 0.2, "hit_at_1": 0.25},
    {"attack": "fgm", "epsilon": 0.5, "options": {"norm_scope": "frame"}, "gap": 0.27},
    {"attack": "pgd_linf", "epsilon": 0.1, "options": {"steps": 20}, "gap": 0.1, "hit_at_1": 0.2},
    {"attack": "pgd:epsilon_audio=0.1", "epsilon": 0.5, "options": {**FRAME, "epsilon_audio": 0.1}},
    {"attack": "deepfool", "epsilon": None, "options": {}, "gap": 0.3},
]
WORST = {"axes": "frame", "round": False, "epsilon": 0.5, "attacks": ["pgd", "fgm"]}
FULL = {
    "clean": {**EVALUATION["clean"], "intervals": INTERVALS, "num_videos": 40},
    "attacks": [{**row, "passes": {"forward": 22, "backward": 20}} for row in ATTACKS],
    "worst_cases": [{**WORST, "hit_at_1": 0.2, "gap": 0.18, "intervals": INTERVALS}],
    "sanity": [{"check": "gradient", "verdict": "pass", "detail": "x"}],
    "provenance": {"parameters": 123, "step": 7, "version": "9", "earlier_calls": []},
}


def test_an_entry_has_the_figures_of_the_evaluation(tmp_path, capsys):
    first, plain = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    (first / "evaluation.json").write_text(json.dumps(FULL))
    (plain / "evaluation.json").unlink()
    file = tmp_path / "board.json"
    page = str(tmp_path / "page.html")
    assert report.main([str(first), str(plain), "-o", page, f"--leaderboard={file}"]) == 0
    assert f"{file}: 1 entries" in capsys.readouterr().out
    board = json.loads(file.read_text())
    assert board["format"] == FORMAT
    [entry] = board["entries"]
    assert (entry["name"], entry["parameters"]) == ("a", 123)
    assert (entry["training"]["step"], entry["version"], entry["weights"]) == (7, "9", None)
    assert entry["training"]["objective"]["adversarial"] is not None
    assert entry["data"] == {"files": None, "num_files": None, "unit": "video", "num_clips": 40}
    assert entry["clean"]["gap"] == FULL["clean"]["gap"]
    assert entry["clean"]["intervals"] == INTERVALS
    assert entry["checks"] == {"gradient": "pass"}
    frame, own, linf = entry["threat_models"]
    assert (frame["norm"], frame["scope"], frame["epsilon"]) == ("l2", "frame", 0.5)
    assert frame["space"] == "dequantized features" and frame["rounded"] is False
    assert [row["attack"] for row in frame["attacks"]] == ["pgd", "fgm"]
    assert frame["attacks"][0]["passes"] == {"forward": 22, "backward": 20}
    assert [frame["attacks"][0][name] for name in ("gap", "hit_at_1")] == [0.2, 0.25]
    assert frame["worst_case"] == {
        **{"attacks": ["pgd", "fgm"], "hit_at_1": 0.2, "gap": 0.18, "intervals": INTERVALS}
    }
    # Without several attacks, the only one is the worst.
    assert (linf["norm"], linf["scope"]) == ("linf", None)
    assert linf["worst_case"]["attacks"] == ["pgd_linf"] and linf["worst_case"]["gap"] == 0.1
    assert (own["scope"], own["epsilon_of"]) == ("frame", {"audio": 0.1})
