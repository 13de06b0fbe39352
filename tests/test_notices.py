"""TensorFlow's notices stand before no command's own words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# In TensorFlow's place: quick, and as talkative. It cannot do anything, so that the commands fail.
TALKATIVE = """
import os, pathlib
os.write(2, b"I0000 cudart_stub.cc:31] Could not find cuda drivers")
pathlib.Path(__file__).with_suffix(".imported").touch()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("yt8m_gat.data.inspect", ["x.tfrecord"]),
        ("yt8m_gat.data.sample", ["--output_dir=sample", "--num_classes=4"]),
        ("yt8m_gat.evaluation.beam", ["--input=x", "--saved_model=x", "--output=x"]),
    ],
)
def test_a_command_imports_tensorflow_in_silence(module, arguments, tmp_path):
    (tmp_path / "tensorflow.py").write_text(TALKATIVE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "tensorflow.imported").exists(), result.stderr
    assert "cudart_stub" not in result.stderr
