"""What the commands share: Ctrl-C at any moment, and the backend of Keras."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from yt8m_gat import pipeline
from yt8m_gat.cli import quiet_tensorflow
from yt8m_gat.commands import train
from yt8m_gat.commands.table import command_names
from yt8m_gat.config import ConfigError

ROOT = Path(__file__).resolve().parents[1]

HEAD = """
import atexit, ctypes, sys, threading, time
from yt8m_gat.cli import quiet_tensorflow, run_command

def ready():
    print("ready", flush=True)
"""
WORKING = """
def main():
    ready()
    time.sleep(60)
"""
# What an interrupted import makes of Ctrl-C.
IMPORTING = """
def main():
    with quiet_tensorflow():
        try:
            ready()
            time.sleep(60)
        except KeyboardInterrupt as error:
            raise ImportError from error
"""
# A call into C++ that no signal ends.
LOCKED = """
def main():
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    threading.Timer(0.5, ready).start()
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
DONE = """
def end():
    ready()
    time.sleep(0.3)

def main():
    atexit.register(end)
    return 3
"""


def started(main):
    """A command that has said that it is ready."""
    code = f"{HEAD}{main}\nsys.argv[0] = 'x/some.py'\nrun_command(main)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


SCRIPTS = [ROOT / name for name in ("train.py", "eval.py", "inference.py")]


COMMAND_FILES = [
    path
    for path in [*SCRIPTS, *sorted((ROOT / "yt8m_gat").rglob("*.py"))]
    if "\nif __name__ ==" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", COMMAND_FILES, ids=lambda path: path.stem)
def test_every_command_answers_ctrl_c_before_its_imports(path):
    """`run` and `main` of the console do, before they import the command."""
    first = next(
        ast.unparse(statement)
        for statement in ast.parse(path.read_text(encoding="utf-8")).body[1:]
        if not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
    )
    start, imported, call = first.splitlines()
    assert start == "if __name__ == '__main__':"
    assert imported.strip().startswith("from yt8m_gat.commands.console import ")
    name = re.fullmatch(r"main\(\)|run\('(.+)'\)", call.strip())[1]
    assert name is None or name in command_names()


def end_of(process):
    """Its exit code and what it wrote to the standard error."""
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("main", "code", "line"),
    [
        (WORKING, 130, "some.py: interrupted\n"),
        (IMPORTING, 130, "some.py: interrupted\n"),
        (DONE, 3, ""),
    ],
)
def test_ctrl_c_is_one_line(main, code, line):
    process = started(main)
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (code, line)


def test_a_second_ctrl_c_ends_at_once_whatever_is_being_done():
    process = started(LOCKED)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (130, "\nsome.py: interrupted twice: ended at once\n")


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_training_that_is_interrupted_before_or_after_its_loop_says_where_it_stands(
    tmp_path, monkeypatch, capsys, has_checkpoints
):
    def interrupted(folder, *_, **__):
        if has_checkpoints:
            folder.checkpoints.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train", interrupted)
    with pytest.raises(SystemExit) as stopped:
        train.main([f"--train_dir={tmp_path}/run"])
    assert stopped.value.code == 130
    [line] = capsys.readouterr().err.splitlines()
    kept = f"; the same command goes on after the checkpoints in {tmp_path}/run/checkpoints"
    assert line.endswith("interrupted" + (kept if has_checkpoints else ""))


def test_another_backend_of_keras_is_a_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    refused = pytest.raises(ConfigError, match=r"KERAS_BACKEND must be .*'jax'; run .*=tensorflow")
    with refused, quiet_tensorflow():
        pytest.fail("reached")


def test_the_backend_of_other_programs_is_not_ours(monkeypatch):
    """Keras would take it from ~/.keras/keras.json."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with quiet_tensorflow():
        assert os.environ["KERAS_BACKEND"] == "tensorflow"
