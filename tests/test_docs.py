"""What the pages say can be done: their code runs, or at least parses."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

from yt8m_gat.config import DataConfig, ModelConfig, RunConfig
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.hdf5 import save_weights

ROOT = Path(__file__).resolve().parents[1]
NEW_PROCESS = "# In a new process.\n"


def code_blocks(page, language):
    """(line, code) of each fenced block of a language."""
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in blocks]


def make_run(path):
    """What the page's train.py leaves, its weights as they were drawn."""
    small = {"num_heads": 2, "hidden_size": 16, "feed_forward_size": 16, "local_masks": ("bd4",)}
    data = DataConfig(num_classes=8, max_frames=12)
    config = RunConfig(data=data, model=ModelConfig(name="GAT", options=small))
    folder = RunFolder(path)
    folder.prepare(config)
    save_weights(build_from_config(config), folder.best_weights, step=0)


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
