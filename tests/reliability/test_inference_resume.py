"""inference.py killed and started again finishes the same CSV."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from yt8m_gat.prediction import submission
from yt8m_gat.prediction.submission import SubmissionWriter

ROOT = Path(__file__).resolve().parents[2]
NUM_BATCHES = 60
SETTINGS = {"weights": "abc", "batch_size": 3}


def write_batches(path, settings, num_batches=NUM_BATCHES):
    with SubmissionWriter(path, 3, settings) as writer:
        for number in range(writer.num_batches, num_batches):
            rng = np.random.default_rng(number)
            writer.write([f"{number}-{i}" for i in range(3)], rng.random((3, 5)))
        return writer.num_rows


WRITE = f"""
import json, sys, time
import numpy as np
from yt8m_gat.prediction import submission
submission.SYNC_SECONDS = float(sys.argv[2])
with submission.SubmissionWriter(sys.argv[1], 3, json.loads(sys.argv[3])) as writer:
    print(writer.num_batches, flush=True)
    for number in range(writer.num_batches, {NUM_BATCHES}):
        rng = np.random.default_rng(number)
        writer.write([f"{{number}}-{{i}}" for i in range(3)], rng.random((3, 5)))
        time.sleep(0.002)
"""


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole" / "s.csv"
    path.parent.mkdir()
    write_batches(path, None)
    return path.read_bytes()


def test_a_writer_killed_at_any_moment_is_taken_up(tmp_path, whole):
    """Rows reach the disk at every batch, or now and then: what is beyond is written again."""
    rng = random.Random(1)
    path = tmp_path / "s.csv"
    path.write_text("old")
    kills, taken_up = 0, set()
    for attempt in range(40):
        command = [sys.executable, "-c", WRITE, str(path), str(rng.choice((0, 0.02)))]
        process = subprocess.Popen(
            [*command, json.dumps(SETTINGS)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        taken_up.add(int(process.stdout.readline()))
        if attempt < 12:
            # Longer from time to time, for a machine on which a batch takes long.
            time.sleep(rng.uniform(0, 0.03 * (attempt + 1)))
            process.send_signal(signal.SIGKILL)
        killed = process.wait(timeout=60) == -signal.SIGKILL
        process.stdout.close()
        kills += killed
        if not killed:
            break
        # Killed between the renaming and its end, a process leaves the whole file already.
        assert path.read_bytes() in (b"old", whole)
    assert path.read_bytes() == whole
    assert kills >= 3 and len(taken_up) >= 3
    assert [entry for entry in os.listdir(tmp_path) if entry != "whole"] == ["s.csv"]
    print(f"{kills} kills, taken up after {sorted(taken_up)} of {NUM_BATCHES} batches")


def interrupt(path, settings, num_batches, monkeypatch):
    """Leaves what a program leaves that ends after some batches."""
    monkeypatch.setattr(submission, "SYNC_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt), SubmissionWriter(path, 3, settings) as writer:
        for number in range(writer.num_batches, num_batches):
            rng = np.random.default_rng(number)
            writer.write([f"{number}-{i}" for i in range(3)], rng.random((3, 5)))
        raise KeyboardInterrupt


def test_rows_of_other_settings_are_dropped_by_name(tmp_path, whole, monkeypatch, capsys):
    path = tmp_path / "s.csv"
    interrupt(path, {**SETTINGS, "weights": "other"}, 4, monkeypatch)
    assert not path.exists()
    write_batches(path, SETTINGS)
    assert "rows of an unfinished run are dropped, it had other weights" in capsys.readouterr().err
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("weights", "kept"), [("abc", 4), ("other", 0)])
def test_the_count_goes_with_the_rows_that_it_is_of(tmp_path, monkeypatch, weights, kept):
    path = tmp_path / "s.csv"
    interrupt(path, SETTINGS, 4, monkeypatch)
    monkeypatch.setattr(submission, "SYNC_SECONDS", 1e9)
    with SubmissionWriter(path, 3, {**SETTINGS, "weights": weights}) as writer:
        assert writer.num_batches == kept
        assert (tmp_path / ".s.csv.partial.json").exists() == bool(kept)


def test_rows_of_settings_that_give_the_same_are_taken_up(tmp_path, whole, monkeypatch):
    path = tmp_path / "s.csv"
    earlier = {**SETTINGS, "on_bad_record": "error"}
    interrupt(path, earlier, 4, monkeypatch)
    now = {**SETTINGS, "on_bad_record": "skip"}
    with SubmissionWriter(path, 3, now, [earlier]) as writer:
        assert (writer.num_batches, writer.num_rows) == (4, 12)
        for number in range(4, NUM_BATCHES):
            rng = np.random.default_rng(number)
            writer.write([f"{number}-{i}" for i in range(3)], rng.random((3, 5)))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["cut", "garbage", "progress", "no progress", "deep", "longer"])
def test_what_is_left_is_not_trusted(tmp_path, whole, monkeypatch, damage):
    path = tmp_path / "s.csv"
    interrupt(path, SETTINGS, 4, monkeypatch)
    partial, progress = tmp_path / ".s.csv.partial", tmp_path / ".s.csv.partial.json"
    if damage == "cut":
        partial.write_bytes(partial.read_bytes()[:100])
    elif damage == "garbage":
        progress.write_bytes(b"\xff\xfe{")
    elif damage == "progress":
        progress.write_text('{"settings": 3, "counts": {"bytes": "x"}}')
    elif damage == "deep":
        progress.write_text("[" * 100_000)
    elif damage == "no progress":
        progress.unlink()
    else:  # Rows that were not known to be there.
        partial.write_bytes(partial.read_bytes() + b"4-0,1 0.5 0 0")
    write_batches(path, SETTINGS)
    assert path.read_bytes() == whole


def test_two_programs_never_write_one_csv(tmp_path):
    path = tmp_path / "s.csv"
    with SubmissionWriter(path, 3, SETTINGS) as writer:
        writer.write(["a"], np.array([[0.5]]))
        other = subprocess.run(
            [sys.executable, "-c", WRITE, str(path), "0", json.dumps(SETTINGS)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert f"s.csv is being written by process {os.getpid()} on " in other.stderr
    assert path.read_text() == "VideoId,LabelConfidencePairs\na,0 0.5\n"


KILLED_AFTER = """
import os, runpy, signal, sys
from yt8m_gat.prediction import submission
submission.SYNC_SECONDS = 0
write, left = submission.SubmissionWriter.write, [int(sys.argv.pop(1))]
def write_and_die(self, *arguments):
    write(self, *arguments)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
submission.SubmissionWriter.write = write_and_die
sys.argv[0] = "inference.py"
runpy.run_path("inference.py", run_name="__main__")
"""


@pytest.mark.slow
def test_inference_killed_twice_ends_with_the_same_bytes(tmp_path, sample_dir):
    from yt8m_gat import pipeline
    from yt8m_gat.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
    from yt8m_gat.run_folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    pipeline.train(
        folder,
        RunConfig(
            data=DataConfig(num_classes=8, max_frames=12, normalize="concat"),
            model=ModelConfig(name="FrameLevelLogisticModel"),
            training=TrainingConfig(batch_size=16, max_steps=1),
        ),
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
    )
    pattern = f"{sample_dir}/*.tfrecord"
    whole = tmp_path / "whole.csv"
    options = {"input_data_pattern": pattern, "batch_size": 9, "top_k": 3}
    assert pipeline.infer(folder, output_file=whole, **options) == 160

    output_file = tmp_path / "s.csv"
    arguments = [f"--train_dir={folder.path}", f"--output_file={output_file}"]
    arguments += [f"--{name}={value}" for name, value in options.items()]
    for batches, done in ((4, None), (5, 36)):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AFTER, str(batches), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not output_file.exists()
        assert ("going on after" in killed.stderr) == (done is not None)
    finished = subprocess.run(
        [sys.executable, "inference.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    # A kill comes right after a batch is on the disk, or before: 9 batches of 9 videos.
    assert "going on after 81 videos" in finished.stderr
    assert "160 videos" in finished.stdout
    assert output_file.read_bytes() == whole.read_bytes()
