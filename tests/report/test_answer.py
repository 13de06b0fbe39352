"""The page opens with the answer and says nothing that is not so."""

import json
import re

import pytest
from test_report import EVALUATION, Page, write_run

from yt8m_gat.report.drawing.chart import Series, line_chart
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import read_run
from yt8m_gat.report.spec import attack_title, ball_of

FRAME = {"norm_scope": "frame", "round": False, "steps": 20}
CLEAN = {
    **EVALUATION["clean"],
    "intervals": {"level": 0.95, "resamples": 200, "gap": [0.31, 0.42], "hit_at_1": None},
}
ATTACKS = [
    {"attack": "fgm", "epsilon": 0.5, "options": FRAME, "gap": 0.27, "hit_at_1": 0.4},
    {
        **{"attack": "pgd", "epsilon": 0.5, "options": FRAME, "gap": 0.2, "hit_at_1": 0.3},
        "intervals": {"level": 0.95, "resamples": 200, "gap": [0.15, 0.24]},
    },
    # Lower figures, in other balls.
    {"attack": "pgd", "epsilon": 8.0, "options": FRAME, "gap": 0.01},
    {"attack": "pgd_linf", "epsilon": 0.5, "options": {"round": False, "steps": 20}, "gap": 0.02},
    {"attack": "pgd:round=true", "epsilon": 0.5, "options": {**FRAME, "round": True}, "gap": 0.03},
    {"attack": "deepfool", "epsilon": None, "options": {}, "gap": 0.0},
]
SETTINGS = {"max_videos": 0, "top_k": 20, "files": "f0", "on_bad_record": "error", "num_files": 2}
PROVENANCE = {
    "measured_at": "2026-01-31T12:00:00+00:00",
    "command": ["eval.py", "--train_dir=runs/x y"],
    "version": "1.2.3",
    "pattern": "validate*.tfrecord",
    "num_files": 2,
    "num_records": 900,
    "step": 150,
    "checkpoint": "best",
    "weights": "0123456789abcdef" * 4,
    "earlier_calls": [{}],
}


def run_of(folder, settings=None, provenance=None, attacks=ATTACKS, adversarial="none", **changes):
    write_run(folder, adversarial=adversarial)
    evaluation = {"clean": CLEAN, "attacks": attacks, **changes}
    if settings is not None:
        evaluation["settings"] = settings
    if provenance is not None:
        evaluation["provenance"] = provenance
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return read_run(folder)


def table_of(text, head):
    (found,) = [t for t in Page(text).tables if head in t[0] or t[0][0] == head]
    return found


def rows_below(text, title):
    """The table in the section of that title, first cell -> the others."""
    tables = Page(text[text.index(f"<h2>{title}</h2>") :].partition("</body>")[0]).tables
    return {row[0]: row[1:] for row in tables[0]}


def test_it_opens_with_each_run_clean_and_under_its_strongest_attack(tmp_path):
    worst = [{"axes": "frame", "round": False, "epsilon": 0.5, "attacks": [], "hit_at_1": 0.25}]
    runs = [run_of(tmp_path / "a", worst_cases=worst), run_of(tmp_path / "b", attacks=ATTACKS[:1])]
    text, figures = build_page(runs)
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles[:2] == ["In short", "The sceptic&#x27;s table"] and titles[-1] == "Settings"
    assert titles[-2] == "Where the figures come from"
    table = table_of(text, "GAP, attacked")
    assert table[1] == [
        *("a", "37.03\n(31.00 to 42.00)", "20.00\n(15.00 to 24.00)", "55.20", "30.00", "25.00"),
        *("PGD, 20 steps", "77 videos"),
    ]
    assert table[2][2:7] == ["27.00", "55.20", "40.00", "-", "fast gradient, 20 steps"]
    assert "Attacked: of the attacks run at epsilon 0.5, l2 norm of each frame" in text
    assert "95 % intervals over the choice of the clips (200 bootstrap resamples)" in text
    # Three points have an interval, each about its point.
    svg = figures["answer"]
    spans = re.findall(r'class="interval" style="[^"]*" x1="([\d.]+)" x2="([\d.]+)"', svg)
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert len(spans) == 3 and len(dots) == 4
    for (low, high), dot in zip(spans, dots[:3], strict=True):
        assert float(low) < dot < float(high)


def test_checks_stand_before_details(tmp_path):
    sanity = [{"check": "unbounded", "verdict": "pass", "detail": "GAP 0.40 %"}]
    text = build_page([run_of(tmp_path / "a", sanity=sanity)])[0]
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles[:2] == ["In short", "Can the attacks be trusted?"]


def test_a_run_without_attacks_has_its_clean_figures(tmp_path):
    text = build_page([run_of(tmp_path / "a", attacks=[])])[0]
    assert table_of(text, "GAP, clean") == [
        ["run", "GAP, clean", "Hit@1, clean", "of"],
        ["a", "37.03\n(31.00 to 42.00)", "55.20", "77 videos"],
    ]


@pytest.mark.parametrize(
    ("settings", "provenance", "words"),
    [
        ({}, {"num_records": 900}, "77 videos, all of the files"),
        ({"on_bad_record": "skip"}, {}, "77 videos, all of the files that could be read"),
        ({"max_videos": 77}, PROVENANCE, "77 videos, of the first 77 of 900 videos of the files"),
        ({"max_videos": 900}, PROVENANCE, "77 videos, all of the files"),
        ({"max_videos": None}, {}, "77 videos; whether those are all is not known"),
    ],
)
def test_how_many_clips_is_said_as_it_was(tmp_path, settings, provenance, words):
    text = build_page([run_of(tmp_path / "a", {**SETTINGS, **settings}, provenance)])[0]
    assert rows_below(text, "Where the figures come from")["clips"][0].startswith(words)
    assert "whole evaluation set" not in text


def test_where_the_figures_come_from(tmp_path):
    runs = [run_of(tmp_path / "a", SETTINGS, PROVENANCE), run_of(tmp_path / "b")]
    text = build_page(runs, command=["python", "-m", "yt8m_gat.report", "a b"])[0]
    rows = rows_below(text, "Where the figures come from")
    older = "not known: written by an older eval.py"
    assert rows["measured at"] == ["2026-01-31T12:00:00+00:00", older]
    assert rows["by yt8m_gat"] == ["1.2.3", older]
    assert rows["command"] == ["eval.py '--train_dir=runs/x y'", older]
    assert rows["files"] == ["validate*.tfrecord (2 files)", older]
    assert rows["weights"] == ["0123456789abcdef… (SHA-256), best, step 150", older]
    assert rows["earlier calls"] == ["1 before measured some of the rows", "-"]
    assert re.search(r"Written \d{4}-\d\d-\d\dT[\d:]+\+00:00 by yt8m_gat [\d.]+: python -m", text)
    assert "yt8m_gat.report &#x27;a b&#x27;</p>" in text


def test_settings_are_those_that_were_used(tmp_path):
    runs = [run_of(tmp_path / "ce"), run_of(tmp_path / "art", adversarial="output")]
    lines = [
        {"kind": "train", "step": step, "epoch": step // 60, "loss": 0.5, "learning_rate": rate}
        for step, rate in ((1, 0.001), (50, 0.001), (100, 0.0001), (150, 0.0001))
    ]
    start = {"kind": "start", "step": 0, "time": "2026-01-31T12:00:00+00:00", "version": "1.2.3"}
    start["command"] = ["train.py", "--train_dir=x y"]
    end = {"kind": "end", "step": 150, "reason": "--max_steps=150 reached", "seconds": 61.2}
    lines = [start, *lines, end]
    for run in runs:
        (tmp_path / run.name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    runs = [read_run(tmp_path / run.name) for run in runs]
    rows = rows_below(build_page(runs)[0], "Settings")
    assert rows["epsilon of training"] == ["-", "0.5"]
    assert rows["alpha, of the adversarial loss"] == ["-", "1"]
    assert "beta, of the attention penalty" not in rows and "steps of TAF" not in rows
    assert rows["learning rate, as logged"] == ["0.001 at step 1, 0.0001 at step 100"] * 2
    assert rows["last step logged"] == ["150", "150"]
    assert rows["epochs finished by then"] == ["2", "2"]
    assert rows["ended"] == ["--max_steps=150 reached, after 61 s of training"] * 2
    assert rows["started"][0] == "2026-01-31T12:00:00+00:00 by yt8m_gat 1.2.3, step 0"
    assert rows["command, the last"][0] == "train.py '--train_dir=x y'"
    assert not any("at most" in name for name in rows)  # No limit that nothing came near.
    assert "epsilon of training" not in rows_below(build_page(runs[:1])[0], "Settings")


def test_what_was_not_alike_is_said(tmp_path):
    runs = [run_of(tmp_path / "a", SETTINGS), run_of(tmp_path / "b", SETTINGS)]
    assert "Compare with care" not in build_page(runs)[0]
    longer = [{**row, "options": {**FRAME, "steps": 50}} for row in ATTACKS[:2]]
    runs.append(run_of(tmp_path / "c", {**SETTINGS, "files": "f1", "top_k": 5}, attacks=longer))
    text = build_page(runs)[0]
    assert "Compare with care. The runs were evaluated on different files (a, b, c)." in text
    assert "different numbers of predictions a clip (a: 20, b: 20, c: 5)." in text
    assert "Attacks of one name had other options: fgm, pgd." in text


def tick_places(svg):
    """Label -> height on the y axis."""
    found = re.findall(r'<text x="62" y="([\d.]+)" text-anchor="end">([^<]*)</text>', svg)
    return {label: float(y) for y, label in found}


def test_charts_that_are_compared_share_their_axes(tmp_path):
    attacks = [
        {"attack": attack, "epsilon": epsilon, "options": FRAME, "gap": gap}
        for attack, gaps in (("fgm", (0.36, 0.35, 0.34)), ("pgd", (0.2, 0.1, 0.001)))
        for epsilon, gap in zip((0.25, 0.5, 1.0), gaps, strict=True)
        if (attack, epsilon) != ("fgm", 1.0)
    ]
    _, figures = build_page([run_of(tmp_path / "a", attacks=attacks)])
    one, twenty = figures["epsilon_fgm"], figures["epsilon_pgd"]
    assert tick_places(one) == tick_places(twenty) != {}
    places = [re.findall(r'cx="([\d.]+)"[^>]*><title>a: ([\d.]+),', svg) for svg in (one, twenty)]
    assert {x for x, radius in places[0] if radius == "0.5"} == {
        x for x, radius in places[1] if radius == "0.5"
    }
    # The clean interval from 31 to 42 % is drawn in both.
    assert one.count('class="interval"') == twenty.count('class="interval"') == 1


def test_losses_of_other_objectives_are_other_charts(tmp_path):
    runs = [
        run_of(tmp_path / name, adversarial=kind)
        for name, kind in (("ce", "none"), ("ce2", "none"), ("art", "output"))
    ]
    _, figures = build_page(runs)
    losses = [svg for name, svg in figures.items() if name.startswith("train_loss")]
    assert [svg.count("<polyline") for svg in losses] == [2, 1]
    title = re.search(r'aria-label="([^"]*)"', losses[1])[1]
    assert title == (
        "Training loss: CrossEntropyLoss, mean over the classes, output, epsilon 0.5 by frame"
    )
    # The loss of the labels alone is the same function in all three.
    assert figures["validation_loss"].count("<polyline") == 3


def test_no_label_is_cut():
    name = "a run whose name says all about it, its seed, its epsilon and its data"
    title = "Training loss: CrossEntropyLoss, mean over the classes, frobenius, beta 0.001"
    lines = [Series(name, ((0.0, 1.0), (1.0, 2.0))), Series("b", ((0.0, 1.0),))]
    svg = line_chart(title, "x", "y", lines)
    texts = re.findall(r'<text class="[a-z]+" x="[\d.]+" y="([-\d.]+)">(.*?)</text>', svg)
    heights = {re.sub(r"<tspan[^>]*>", " ", t).replace("</tspan>", ""): float(y) for y, t in texts}
    assert {title, name, "b"} == set(heights) and "…" not in svg
    # Below the lines of the long name.
    assert heights["b"] >= heights[name] + 30


def test_an_attacks_title_has_the_steps_that_it_had():
    assert attack_title({"attack": "pgd", "epsilon": 1, "options": FRAME}) == "PGD, 20 steps"
    assert attack_title({"attack": "pgd:steps=5", "options": {"steps": 5}}) == "PGD, 5 steps"
    assert attack_title({"attack": "square", "options": {"queries": 9}}) == (
        "square search, 9 queries"
    )
    assert attack_title({"attack": "pgd"}) == "PGD"
    assert ball_of({"attack": "deepfool", "epsilon": None}) is None
    assert ball_of({"attack": "pgd_linf:steps=3", "epsilon": 0.1}) == ("linf", False, 0.1)
