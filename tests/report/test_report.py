"""The page says what the files say, needs nothing else, and lets nothing of them run."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from yt8m_gat.commands.page_file import write_page
from yt8m_gat.commands.report import main
from yt8m_gat.config import DataConfig, ModelConfig, ObjectiveConfig, RunConfig
from yt8m_gat.report.drawing.chart import Series, line_chart, standalone, ticks
from yt8m_gat.report.page import build_explanation, build_page
from yt8m_gat.report.source import read_run

VOID = {"meta", "link", "br", "img", "hr", "input"}
CLEAN = {"gap": 0.37031, "map": 0.2415, "perr": 0.3753, "hit_at_1": 0.552, "num_videos": 77}
EVALUATION = {
    "clean": {**CLEAN, "attention_entropy_rgb": 0.9357, "distance_to_uniform_rgb": 0.5451},
    "attacks": [
        {"attack": "fgm", "epsilon": 0.5, "gap": 0.27224, "perr": 0.31, "hit_at_1": 0.49},
        {"attack": "fgm", "epsilon": 1.0, "gap": 0.11119, "perr": 0.2, "hit_at_1": None},
        {"attack": "deepfool", "epsilon": None, "gap": 0.01, "rho": 0.1},
    ],
    "corruptions": [
        {"corruption": "frame_drop", "severity": level, "gap": 0.3 - level / 50} for level in (1, 5)
    ],
    "something_else": {"unknown": 1},
}


class Page(HTMLParser):
    """Cells of every table, tags and attributes; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.values, self.tables = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [(name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.values += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def write_run(folder: Path, name: str = "Transformer", adversarial: str = "none") -> Path:
    folder.mkdir()
    RunConfig(
        data=DataConfig(feature_names=("rgb",), feature_sizes=(16,), num_classes=5),
        model=ModelConfig(name=name),
        objective=ObjectiveConfig(adversarial=adversarial),
    ).save(folder)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    lines = [
        {"kind": "train", "step": 1, "loss": 0.7, "learning_rate": 0.1},
        {"kind": "train", "step": 2, "loss": 0.6, "learning_rate": 0.1},
        {"kind": "validation", "step": 2, "gap": 0.3, "loss": 0.5, "attention_entropy_rgb": 0.9},
    ]
    # The last line is cut short, as a kill leaves it.
    text = "\n".join(map(json.dumps, lines)) + '\n{"kind": "tr'
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    text, figures = build_page([read_run(write_run(tmp_path / "sa"))])
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onload", "onclick"} & {name for name, _ in page.values}
    namespace = "http://www.w3.org/2000/svg"
    assert not re.search(r"https?://|@import|url\(", text.replace(namespace, ""))
    assert page.tags.count("svg") == len(figures)


def test_the_tables_say_what_the_files_say(tmp_path):
    runs = [
        read_run(write_run(tmp_path / "sa")),
        read_run(write_run(tmp_path / "aart", "AART", "frobenius")),
    ]
    tables = Page(build_page(runs)[0]).tables
    (clean,) = [t for t in tables if t[0] == ["run", "GAP", "MAP", "PERR", "Hit@1", "videos"]]
    assert ["sa", "37.03", "24.15", "37.53", "55.20", "77"] in clean
    (fgm,) = [t for t in tables if t[0] == ["run", "epsilon", "GAP", "PERR", "Hit@1"]]
    assert ["aart", "0.5", "27.22", "31.00", "49.00"] in fgm
    assert ["aart", "1", "11.12", "20.00", "-"] in fgm
    assert ["sa", "1.00"] in tables[tables.index(fgm) + 1]  # DeepFool has no radius.
    (attention,) = [t for t in tables if t[0][1:] == ["entropy / log n, rgb", "to uniform, rgb"]]
    assert ["sa", "0.9357", "0.5451"] in attention
    # The mean of severities 1 and 5: (28 + 20) / 2.
    (corruptions,) = [t for t in tables if t[0][0] == "GAP, %, mean over severities 1, 5"]
    assert ["frame drop", "24.00", "24.00"] in corruptions
    # Beside A-ART's table 1: SA and A-ART, clean and at epsilon 0.5; there is no ART.
    (beside,) = [t for t in tables if "A-ART, adversarial" in t[0]]
    assert beside[2] == ["GAP, ours", "37.03", "-", "37.03", "27.22", "-", "27.22"]
    assert beside[1][4] == "72.89±0.04"


def test_seeds_are_averaged_beside_the_papers(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("s0", "s1")]
    other = {"clean": {**CLEAN, "gap": 0.39031}, "attacks": []}
    (folders[1] / "evaluation.json").write_text(json.dumps(other))
    tables = Page(build_page([read_run(folder) for folder in folders])[0]).tables
    (beside,) = [t for t in tables if "GAT AdvFr" in t[0]]
    # Mean of 37.031 and 39.031; deviation of two values 2 apart: sqrt(2).
    assert beside[2][1] == "38.03±1.41 (n=2)"


WEIGHTS, CHECKPOINT = "best.weights.h5", "checkpoints/ckpt-20.index"


def write_evaluated_run(folder: Path, checkpoint: str) -> Path:
    """A run whose evaluation says which weights and configuration it is of."""
    write_run(folder)
    (folder / "checkpoints").mkdir()
    for name in (WEIGHTS, "checkpoints/ckpt-3.index", CHECKPOINT):
        (folder / name).write_bytes(name.encode())
    weights = (WEIGHTS if checkpoint == "best" else CHECKPOINT).encode()
    config = (folder / "config.json").read_bytes()
    settings = {"checkpoint": checkpoint, "weights": sha256(weights).hexdigest()}
    settings["config"] = sha256(config).hexdigest()
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, "settings": settings}))
    return folder


@pytest.mark.parametrize(
    ("checkpoint", "file", "content", "what"),
    [
        ("best", None, None, None),
        ("last", None, None, None),
        # What the evaluation is not of may change.
        ("best", "checkpoints/ckpt-40.index", b"more", None),
        ("last", WEIGHTS, b"other", None),
        ("best", WEIGHTS, b"other", "has changed since (best.weights.h5)"),
        ("best", WEIGHTS, None, "does not hold the weights (best.weights.h5)"),
        ("best", "config.json", None, "has changed since (config.json)"),
        ("last", CHECKPOINT, b"other", "has changed since (the newest checkpoint)"),
        ("last", "checkpoints/ckpt-40.index", b"more", "has changed since (the newest checkpoint)"),
    ],
)
def test_figures_of_other_weights_are_left_out(tmp_path, capsys, checkpoint, file, content, what):
    folder = write_evaluated_run(tmp_path / "sa", checkpoint)
    if file == "config.json":  # The same run with another seed.
        config = RunConfig.load(folder)
        training = dataclasses.replace(config.training, seed=config.training.seed + 1)
        dataclasses.replace(config, training=training).save(folder)
    elif content is not None:
        (folder / file).write_bytes(content)
    elif file is not None:
        (folder / file).unlink()
    page = tmp_path / "report.html"
    for explicit in ([], ["--evaluation", str(folder / "evaluation.json")]):
        assert main([str(folder), *explicit, "-o", str(page)]) == 0
        text, error = page.read_text(), capsys.readouterr().err
        assert "<h2>Training</h2>" in text  # The curves are the run's own, whatever the evaluation.
        if what is None:
            assert "37.03" in text and error == "" and '"warning"' not in text
            continue
        assert "37.03" not in text and "Beside the papers" not in text
        flags = " --checkpoint=last" if checkpoint == "last" else ""
        remedy = f"yt8m-gat eval --train_dir={folder} --output_file={folder}/evaluation.json{flags}"
        for words in (what, remedy):
            assert words in error and words in text
        assert error.startswith("warning: sa: the figures of ")


def test_figures_of_unknown_weights_are_shown_with_a_warning(tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main([str(write_run(tmp_path / "sa")), "-o", str(page)]) == 0
    text, error = page.read_text(), capsys.readouterr().err
    assert "37.03" in text
    for words in (text, error):
        assert (
            "does not say of which weights it is" in words and "yt8m-gat eval --train_dir=" in words
        )


def test_runs_on_segments_do_not_stand_beside_whole_videos(tmp_path):
    segments = write_run(tmp_path / "segments")
    clean = {"gap": 0.9, "segment_map": 0.8, "num_segments": 7}
    rows = [{**row, "gap": 0.9} for row in EVALUATION["attacks"]]
    (segments / "evaluation.json").write_text(json.dumps({"clean": clean, "attacks": rows}))
    lstm = write_run(tmp_path / "lstm", "LstmModel")  # No column is of its kind.
    (lstm / "evaluation.json").write_text(json.dumps({"clean": clean, "attacks": []}))
    runs = [read_run(folder) for folder in (segments, lstm, write_run(tmp_path / "whole"))]
    text, _ = build_page(runs)
    (beside,) = [t for t in Page(text).tables if "A-ART, adversarial" in t[0]]
    assert beside[2] == ["GAP, ours", "37.03", "-", "-", "27.22", "-", "-"]
    assert "Ours: whole." in text and "Left out: segments. Evaluated on rated segments" in text
    assert "Left out: segments." in build_page(runs[:1])[0]  # Also without a table beside.
    assert "Left out" not in build_page(runs[2:])[0]


def test_a_section_without_data_is_left_out(tmp_path):
    folder = write_run(tmp_path / "bare")
    (folder / "evaluation.json").unlink()
    (folder / "metrics.jsonl").unlink()
    text, figures = build_page([read_run(folder)])
    assert figures == {}
    assert re.findall("<h2>(.*?)</h2>", text) == ["Where the figures come from", "Settings"]


def test_what_files_hold_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>'
    evaluation = json.loads(json.dumps(EVALUATION).replace("fgm", "<b onload=1>fgm"))
    evaluation["corruptions"][0]["corruption"] = evaluation["corruptions"][1]["corruption"] = evil
    evaluation["clean"][f"attention_entropy_{evil}"] = 0.5
    folder = write_run(tmp_path / "sa")
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    text, figures = build_page([read_run(folder, name=evil)])
    assert "<script" not in text and "<b " not in text
    assert Page(text).open == []
    for svg in figures.values():
        ElementTree.fromstring(standalone(svg).encode())


def test_an_explanation_is_drawn_and_escaped():
    curves = {"Saliency": {"<b>rgb": [0.1, 0.4], "audio": [0.2, 0.3]}, "Grad-CAM++": {}}
    text, figures = build_explanation(
        {
            "video_id": "<i>x",
            "labels": [[3, "<i>Games"], [0, None]],
            "label": 3,
            "name": "<i>Games",
            "probability": 0.361,
            "top": [[2, None, 0.8], [3, "<i>Games", 0.361]],
            "model": "GAT",
            "options": {"local_masks": ("<b>bd4", "bd2")},
            "provenance": {
                "train_dir": "<i>runs/gat",
                "checkpoint": "best",
                "weights": "0123<b>",
                "step": 7,
            },
            "files": "<i>*.tfrecord",
            "curves": curves,
            "num_frames": 2,
            "similarity": {"<b>rgb": [[1.0, -0.3], [-0.3, 1.0]], "audio": [[1.0, 0.5], [0.5, 1.0]]},
            "heads": {"audio": [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]},
        },
        ["python", "<i>"],
    )
    facts, top = Page(text).tables
    assert ["true labels", "<i>Games (3), class 0"] in facts
    assert ["explained", "<i>Games (3): probability 36.10 %"] in facts
    assert ["model", "GAT, local_masks=<b>bd4, bd2"] in facts
    assert ["run", "<i>runs/gat"] in facts and ["weights", "best, step 7, SHA-256 0123<b>"] in facts
    assert top[1:] == [["class 2", "80.00"], ["<i>Games (3)\u00a0✓", "36.10"]]
    # A model without a curve, or without maps, has no figure of it.
    beside = ["similarity_<b>rgb", "similarity_audio", "heads_audio"]
    assert list(figures) == ["saliency", *beside]
    # Below 0 a similarity has the first colour, which is the background; 1 has the last.
    assert re.findall(r'--heat-(\d+)\)" d="([^"]*)"', figures["similarity_<b>rgb"]) == [
        ("11", "M0 0h1v1h-1zM1 1h1v1h-1z")
    ]
    assert "1/n" not in figures["similarity_audio"] and "head 2" in figures["heads_audio"]
    assert figures["saliency"].count("<circle") == 4
    assert "<i>" not in text and "<b>" not in text
    assert Page(text).open == []


def test_the_command_writes_page_and_figures(tmp_path, capsys):
    folder = write_run(tmp_path / "sa")
    page, figures = tmp_path / "r.html", tmp_path / "figures"
    assert main([str(folder), "-o", str(page), "--figures_dir", str(figures)]) == 0
    names = {path.name for path in figures.iterdir()}
    assert {"epsilon_fgm.svg", "severity_frame_drop.svg", "validation_gap.svg"} <= names
    for path in figures.iterdir():
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert f"{len(names)} figures" in capsys.readouterr().out


def test_each_figure_has_a_file_of_its_own(tmp_path):
    """Names of features are any text: those of another script had one file together."""
    figures = {f"map_{name}": f"<svg><!--{name}--></svg>" for name in ("音", "声", "rgb", "RGB")}
    write_page(tmp_path / "page.html", "page", figures, tmp_path / "figures")
    written = sorted(path.read_text(encoding="utf-8") for path in (tmp_path / "figures").iterdir())
    assert len(written) == 4
    assert sum(any(f"<!--{name}-->" in text for text in written) for name in ("音", "声")) == 2


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("evaluation.json", "{", "must be JSON"),
        ("evaluation.json", "[]", "must be an evaluation"),
        ("evaluation.json", '{"clean": {}, "attacks": [{}]}', "attack and epsilon"),
        ("evaluation.json", '{"clean": {}, "corruptions": 3}', "corruption and severity"),
        ("metrics.jsonl", '{\n{"step": 1}\n', "line 1: must be JSON"),
        ("metrics.jsonl", '{"kind": "train"}\n', "line 1: must be an object with a step"),
    ],
)
def test_errors_name_the_file(tmp_path, file, content, match):
    folder = write_run(tmp_path / "sa")
    (folder / file).write_text(content)
    (message,) = read_run(folder).unreadable
    assert re.search(match, message) and str(folder / file) in message


def test_the_command_reports_errors(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "-o", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("yt8m-gat report: error: ")
    assert str(tmp_path / "none") in error
    folder = write_run(tmp_path / "sa")
    assert main([str(folder), "--evaluation", "a.json", "b.json"]) == 2
    assert "2 for 1 runs" in capsys.readouterr().err


def test_a_run_in_a_folder_whose_name_is_no_text(tmp_path, monkeypatch):
    write_run(folder := Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))
    monkeypatch.chdir(folder)
    assert main([".", "-o", "page.html"]) == 0
    assert "\\udcff" in Path("page.html").read_text(encoding="utf-8")


def test_a_point_lies_where_its_value_says():
    svg = line_chart("t", "x", "y", [Series("s", ((0.0, 0.0), (1.0, 1.0), (2.0, 2.0)))])
    dots = [tuple(map(float, xy)) for xy in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert dots[0][0] < dots[2][0] and dots[0][1] > dots[2][1]
    assert dots[1] == pytest.approx(
        [(a + b) / 2 for a, b in zip(dots[0], dots[2], strict=True)], abs=0.1
    )
    with pytest.raises(ValueError, match="at least one point"):
        line_chart("t", "x", "y", [Series("s", ())])


def test_ticks_are_round_and_inside():
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3.1, 14.2) == [0.0, 5.0, 10.0]


def test_report_imports_no_tensorflow():
    code = "import sys, yt8m_gat.commands.report; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
