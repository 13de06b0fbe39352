"""The commands start under their earlier names too, `python -m yt8m_gat.data.download` for one."""

import runpy
from pathlib import Path

import pytest

from yt8m_gat.commands import console

PACKAGE = Path(__file__).resolve().parents[1] / "yt8m_gat"


@pytest.mark.parametrize(
    ("earlier", "name"),
    [
        ("data/download.py", "download"),
        ("data/inspect.py", "inspect"),
        ("data/label_space.py", "label-space"),
        ("data/sample.py", "sample"),
        ("evaluation/beam.py", "beam"),
        ("evaluation/kaggle.py", "kaggle"),
        ("report/__main__.py", "report"),
        ("demo.py", "demo"),
    ],
)
def test_an_earlier_name_runs_the_command_of_today(monkeypatch, earlier, name):
    """Before anything else is imported: the call ends the process."""
    started = []

    def run(command):
        started.append(command)
        raise SystemExit

    monkeypatch.setattr(console, "run", run)
    with pytest.raises(SystemExit):
        runpy.run_path(str(PACKAGE / earlier), run_name="__main__")
    assert started == [name]
