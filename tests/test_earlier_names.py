"""Commands that moved to another room still start under their earlier names."""

import importlib.util
import runpy
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "yt8m_gat"


@pytest.mark.parametrize(
    ("earlier", "module"),
    [
        ("data/download.py", "yt8m_gat.acquisition.download"),
        ("data/sample.py", "yt8m_gat.acquisition.sample"),
        ("evaluation/beam.py", "yt8m_gat.prediction.beam"),
        ("evaluation/kaggle.py", "yt8m_gat.prediction.kaggle"),
    ],
)
def test_an_earlier_name_runs_the_command_of_today(monkeypatch, earlier, module):
    started = []
    monkeypatch.setattr(
        runpy, "run_module", lambda name, **options: started.append((name, options))
    )
    runpy.run_path(str(PACKAGE / earlier), run_name="imported")
    assert not started
    runpy.run_path(str(PACKAGE / earlier), run_name="__main__")
    assert started == [(module, {"run_name": "__main__", "alter_sys": True})]
    assert 'if __name__ == "__main__":' in Path(importlib.util.find_spec(module).origin).read_text()
