"""The gain of every class over a baseline, and the classes of --mark_classes apart."""

import json
import re

import pytest
from test_report import EVALUATION, write_run

from yt8m_gat.commands.report import main
from yt8m_gat.config import ConfigError
from yt8m_gat.report.class_gains import MarkedClasses
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import read_run

NAMES = {"0": "Pushing a <b>", "1": "Holding", "2": "Dropping", "3": "Folding"}
COMPARED = {
    "classes": {"ap": [0.1, 0.2, 0.3, 0.4, None], "names": NAMES},
    "comparison": {
        "baseline": "runs/tsm",
        "top": [],
        "bottom": [],
        "differences": [0.01, 0.02, 0.03, 0.04, None],
        "accuracy_gains": [0.25, -0.5, 0.125, 0.0, None],
    },
}


def write(folder, evaluation):
    write_run(folder)
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, **evaluation}))
    return read_run(folder)


def without_accuracy():
    comparison = {k: v for k, v in COMPARED["comparison"].items() if k != "accuracy_gains"}
    return {**COMPARED, "comparison": comparison}


def columns(svg):
    """(color, value) from left to right."""
    found = re.findall(r'<rect [^>]*--series-(\d)\)"><title>[^<]*: ([+-][\d.]+)<', svg)
    return [(int(color), float(value)) for color, value in found]


def keys(svg):
    return re.findall(r'class="key"[^>]*>([^<]+)<', svg)


def test_the_gains_in_accuracy_of_all_classes(tmp_path):
    text, figures = build_page([write(tmp_path / "taf", COMPARED)])
    svg = figures["class_gains_taf"]
    assert svg in text and "<b>" not in text
    assert columns(svg) == [(0, 25.0), (0, 12.5), (0, 0.0), (0, -50.0)]
    assert keys(svg) == ["4 classes: mean -3.12"]
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" style="[^"]*"><title>', svg)]
    assert heights[3] == pytest.approx(2 * heights[0], abs=0.2) and heights[2] == 0


def test_marked_classes_are_apart_by_number_and_by_name(tmp_path):
    file = tmp_path / "long-term_motions.txt"
    file.write_text("pushing a <B>\n\n2\n")
    marked = MarkedClasses.read(file)
    svg = build_page([write(tmp_path / "taf", COMPARED)], marked=marked)[1]["class_gains_taf"]
    assert columns(svg) == [(2, 25.0), (2, 12.5), (0, 0.0), (0, -50.0)]
    assert keys(svg) == ["2 long-term motions: mean +18.75", "2 other classes: mean -25.00"]


def test_gains_in_average_precision_are_drawn_if_classes_are_marked(tmp_path):
    run = write(tmp_path / "taf", without_accuracy())
    assert "class_gains_taf" not in build_page([run])[1]
    svg = build_page([run], marked=MarkedClasses("rare", ("3",)))[1]["class_gains_taf"]
    assert "gain of each class in AP" in svg
    assert keys(svg) == ["1 rare: mean +4.00", "3 other classes: mean +2.00"]


@pytest.mark.parametrize("entry", ["Flying", "5", "-1"])
def test_a_class_that_the_run_does_not_have_is_an_error(tmp_path, entry, capsys):
    write(tmp_path / "taf", COMPARED)
    file = tmp_path / "marked.txt"
    file.write_text(f"1\n{entry}\n")
    page = tmp_path / "report.html"
    assert main([str(tmp_path / "taf"), "--mark_classes", str(file), "-o", str(page)]) == 2
    assert f"--mark_classes: taf has no class {entry!r}" in capsys.readouterr().err
    assert not page.exists()


def test_marking_needs_gains_and_a_file_with_classes(tmp_path):
    run = write(tmp_path / "sa", {})
    with pytest.raises(ConfigError, match=r"needs a run with gains of classes.*--compare_to"):
        build_page([run], marked=MarkedClasses("rare", ("1",)))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="must hold a class on each line"):
        MarkedClasses.read(tmp_path / "empty.txt")
