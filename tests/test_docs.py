"""What the pages say can be done: their code runs, or at least parses."""

import argparse
import ast
import contextlib
import functools
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import absl.flags
import numpy as np
import pytest

import yt8m_gat
from yt8m_gat.config import DataConfig, ModelConfig, RunConfig
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.hdf5 import save_weights

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "BUILD.md", *sorted((ROOT / "docs").glob("*.md"))]
NEW_PROCESS = "# In a new process.\n"


def code_blocks(page, language):
    """(line, code) of each fenced block of a language."""
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in blocks]


def make_run(path):
    """In place of the page's run: the same records, a model that is traced in no time."""
    data = DataConfig(num_classes=8, max_frames=12)
    options = {"lstm_cells": 4, "lstm_layers": 1}
    config = RunConfig(data=data, model=ModelConfig(name="LstmModel", options=options))
    folder = RunFolder(path)
    folder.prepare(config)
    save_weights(build_from_config(config), folder.best_weights, step=0)


@pytest.mark.slow
def test_the_examples_of_python_md_run(tmp_path, monkeypatch):
    page = ROOT / "docs" / "PYTHON.md"
    monkeypatch.chdir(tmp_path)
    make_run("runs/gat")
    blocks = code_blocks(page, "python")
    assert len(blocks) >= 9
    names = {}
    printed = io.StringIO()
    for line, code in blocks:
        if code.startswith(NEW_PROCESS):
            subprocess.run([sys.executable, "-c", code], check=True)
            continue
        # Tracebacks name the page and its line.
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + code, page, "exec"), names)
    header, first, *_ = printed.getvalue().splitlines()
    assert header.split() == ["video_id", "label", "name", "probability"]
    assert first.split()[:2] == ["0", "te0-0000000"]
    assert "{'rgb': ('float32', TensorShape([32, 12, 1024]))" in printed.getvalue()


@pytest.mark.slow
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run("runs/gat")
    Path("vocabulary.csv").write_text("label_id,label_name\n0,Cat\n1,Dog\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    frames = yt8m_gat.quantize(rng.uniform(-1, 1, (6, 1024)).astype("float32"))
    sound = yt8m_gat.quantize(rng.uniform(-1, 1, (6, 128)).astype("float32"))
    examples = [{"id": f"v{i}", "labels": [i], "rgb": frames, "audio": sound} for i in range(4)]
    Path("data").mkdir()
    for split in ("train", "test"):
        yt8m_gat.write_records(f"data/{split}00.tfrecord", examples)
    names = {"frames": frames, "sound": sound, "examples": examples}
    [(_, code)] = code_blocks(ROOT / "README.md", "python")
    exec(code, names)
    assert Path("mine.tfrecord").read_bytes() == Path("data/test00.tfrecord").read_bytes()
    [loss] = names["model"].history.history["loss"]
    assert 0 < loss < np.inf


@pytest.mark.slow
def test_the_commands_of_the_readme_run(sample_dir, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your own run\n")[2].partition("\n\nThe package")[0]
    start, *script = section.strip("\n").splitlines()
    assert start.startswith("    source .venv/bin/activate")
    for name in ("train.py", "eval.py", "inference.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(sample_dir)
    script += ["yt8m-gat() { python -m yt8m_gat $@; }", "yt8m-gat report runs/gat -o report.html"]
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["bash", "-euc", "\n".join(script)],
        cwd=tmp_path,
        check=True,
        env={**os.environ, **paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    rows = re.findall(
        r"^(clean|fgm, epsilon 0\.5|pgd, epsilon 0\.5) +0\.", ran.stdout, re.MULTILINE
    )
    assert rows == ["clean", "fgm, epsilon 0.5", "pgd, epsilon 0.5"]
    submission = (tmp_path / "submission.csv").read_text(encoding="utf-8").splitlines()
    assert submission[0] == "VideoId,LabelConfidencePairs"
    assert len(submission) == 1 + 32
    assert (tmp_path / "runs/gat/export/1/saved_model.pb").is_file()
    assert "Validation GAP" in (tmp_path / "report.html").read_text(encoding="utf-8")


def commands(page):
    """(line, command, its flags) of each of our commands in a page's code, fenced or indented."""
    text = page.read_text(encoding="utf-8")
    # A backslash continues a line; the newline stays countable.
    joined = re.sub(r"\\\n\s*", lambda match: " " * len(match[0]), text)
    pattern = (
        r"(?:python (train|eval|inference)\.py|yt8m-gat|python -m yt8m_gat(?:\.([a-z_.]+))?)"
        r"(?: (explain|[a-z-]+)\b)?((?: [^\n]*)?)$"
    )
    for line in re.finditer(rf"^(?:    )?(?:[A-Z_]+=\S+ )*{pattern}", joined, re.MULTILINE):
        script, module, word, rest = line.groups()
        name = script or (module.rpartition(".")[2] if module else word)
        if module == "report" and word == "explain":
            name = word
        flags = re.findall(r"(?<![\w-])--([a-z]\w*)", rest.partition(" # ")[0])
        yield text.count("\n", 0, line.start()) + 1, name, flags


@functools.cache
def known_flags(name):
    command = importlib.import_module(f"yt8m_gat.commands.{name.replace('-', '_')}")
    if hasattr(command, "define_flags"):
        values = absl.flags.FlagValues()
        command.define_flags(values)
        return {*values, *(f"no{flag}" for flag in values if values[flag].boolean)}
    parsers, known = [command._parser()], set()
    while parsers:
        for action in parsers.pop()._actions:
            known |= {option.removeprefix("--") for option in action.option_strings}
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_pages_have_the_flags_that_they_are_given(page):
    for line, name, flags in commands(page):
        unknown = [
            flag
            for flag in flags
            # Beam passes what it does not know to the runner.
            if flag not in known_flags(name) and name != "beam" and "runner" not in flags
        ]
        assert not unknown, f"{page.name}:{line}: {name} has no {unknown}"


def test_the_pages_are_searched_for_commands():
    names = [name for page in PAGES for _, name, _ in commands(page)]
    assert {"train", "eval", "inference", "beam", "download", "inspect", "report"} <= set(names)
    assert len(names) > 40


def test_the_pictures_are_those_of_the_results(tmp_path):
    script = ROOT / "benchmarks" / "figures.py"
    subprocess.run([sys.executable, script, f"--output_dir={tmp_path}"], check=True)
    drawn = sorted(tmp_path.iterdir())
    assert [path.name for path in drawn] == ["beta.svg", "robustness.svg"]
    for path in drawn:
        assert path.read_bytes() == (ROOT / "docs" / "images" / path.name).read_bytes()


def test_code_blocks_parse():
    for page in PAGES:
        for line, code in code_blocks(page, "python"):
            ast.parse("\n" * (line - 1) + code, page.name)
    shell = "".join(code for page in PAGES for _, code in code_blocks(page, "bash"))
    assert shell
    subprocess.run(["bash", "-n"], input=shell, text=True, check=True)


@pytest.mark.slow
def test_the_notebook_runs_and_is_stored_without_outputs(tmp_path, monkeypatch):
    path = ROOT / "docs" / "notebooks" / "gat.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"{path}, code cell {number}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names.update(NUM_TRAIN=32, NUM_VALIDATE=12, EPOCHS=1)
    pyplot = names["plt"]
    assert len(pyplot.get_fignums()) == 4
    pyplot.close("all")
    gaps = ast.literal_eval(printed.getvalue())
    assert gaps["fast gradient"][0] == gaps["random noise"][0]  # Epsilon 0.
    assert gaps["fast gradient"][-1] < gaps["fast gradient"][0]
    assert (tmp_path / "notebook_data" / "gat.keras").is_file()
