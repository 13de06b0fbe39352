"""A full disk and a place that cannot be written: the path, the remedy, and nothing good lost."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import RunConfig
from yt8m_gat.disk import WriteError, writing
from yt8m_gat.export import write_archive
from yt8m_gat.prediction.submission import SegmentSubmissionWriter, SubmissionWriter
from yt8m_gat.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device. Remedy: free some space"),
        (OSError(errno.EACCES, "x"), "Permission denied. Remedy: change its permissions"),
        (OSError(errno.EROFS, "x"), "Read-only file system. Remedy: name a place on a disk"),
        (OSError(errno.ENOTDIR, "x"), "Not a directory. Remedy: a part of the path is a file"),
        (OSError(errno.ELOOP, "odd"), "odd. Remedy: check the disk"),
        # As h5py and TensorFlow say it.
        (
            OSError("Unable to write (errno = 28, error message = 'No space left on device')"),
            "free",
        ),
        (tf.errors.ResourceExhaustedError(None, None, "/a/b; No space left on device"), "free"),
    ],
)
def test_an_error_of_the_disk_gets_path_and_remedy(error, words):
    with (
        pytest.raises(WriteError, match=f"^the/path cannot be written: .*{words}"),
        writing("the/path", tf.errors.OpError),
    ):
        raise error


def test_other_errors_stay_what_they_are():
    for error in (
        FileNotFoundError("weights are missing: train first"),
        tf.errors.InvalidArgumentError(None, None, "a shape"),
        ValueError("a value"),
    ):
        with pytest.raises(type(error)) as caught, writing("the/path", tf.errors.OpError):
            raise error
        assert caught.value is error


@pytest.fixture
def full(monkeypatch):
    """Every flush to the disk finds it full."""

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("settings", [None, {"a": 1}])
def test_a_csv_on_a_full_disk(tmp_path, full, settings):
    path = tmp_path / "s.csv"
    path.write_text("old")
    with (
        pytest.raises(WriteError, match=r"s\.csv cannot be written: No space left.*free some"),
        SubmissionWriter(path, 1, settings) as writer,
    ):
        writer.write(["v"], np.array([[0.5]]))
    assert path.read_text() == "old"
    with (
        pytest.raises(WriteError, match=r"s\.csv cannot be written: No space left"),
        SegmentSubmissionWriter(path, [0]) as writer,
    ):
        writer.write(["v"], [0], np.array([[0.5]]))
    assert os.listdir(tmp_path) == ["s.csv"]


def test_a_run_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/run cannot be written: Not a directory"):
        RunFolder(tmp_path / "file" / "run").prepare(RunConfig())
    folder = RunFolder(tmp_path / "run")
    folder.prepare(RunConfig())
    folder.metrics.mkdir()
    with pytest.raises(WriteError, match=r"metrics\.jsonl cannot be written: Is a directory"):
        folder.append_metrics({"step": 1})


def test_an_archive_on_a_full_disk(tmp_path, full, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(WriteError, match=r"versions\.json cannot be written: No space left"):
        folder.prepare(RunConfig())
    assert os.listdir(folder.path) == []
    with monkeypatch.context() as room:
        room.setattr(os, "fsync", lambda descriptor: None)
        folder.prepare(RunConfig())
    folder.best_weights.write_bytes(bytes(1000))
    with pytest.raises(WriteError, match=r"model\.tgz cannot be written: No space left"):
        write_archive(folder, tmp_path / "model.tgz")
    assert os.listdir(tmp_path) == ["run"]


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv.pop(1))
import tensorflow
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_training_that_may_write_no_more_says_where_and_keeps_what_is_good(tmp_path, sample_dir):
    """A limit of a file's size stands for a disk that fills up."""
    arguments = [
        "--model=FrameLevelLogisticModel",
        f"--train_data_pattern={sample_dir}/train*.tfrecord",
        f"--train_dir={tmp_path}",
        "--num_classes=8",
        "--max_frames=12",
        "--batch_size=16",
    ]
    first = subprocess.run(
        [sys.executable, "train.py", *arguments, "--max_steps=2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert first.returncode == 0, first.stderr
    newest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints"))
    best = (tmp_path / "best.weights.h5").read_bytes()
    lines = (tmp_path / "metrics.jsonl").exists()

    second = subprocess.run(
        [sys.executable, "-c", LIMITED, "20000", *arguments, "--max_steps=4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert second.returncode == 2, second.stderr
    assert re.search(
        rf"error: {re.escape(str(tmp_path))}/\S+ cannot be written: .*Remedy: raise "
        "the limit",
        second.stderr,
    ), second.stderr
    assert "Traceback" not in second.stderr
    assert tf.train.latest_checkpoint(str(tmp_path / "checkpoints")) == newest
    assert (tmp_path / "best.weights.h5").read_bytes() == best
    assert (tmp_path / "metrics.jsonl").exists() == lines
    assert json.loads((tmp_path / "config.json").read_text())
