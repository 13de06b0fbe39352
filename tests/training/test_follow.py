"""A run as another process sees it while it is being trained."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import TrainingState, follow, read_state
from yt8m_gat.weights.files import weights_digest

ROOT = Path(__file__).resolve().parents[2]

CONFIG = RunConfig(
    data=DataConfig(num_classes=8, max_frames=12),
    model=ModelConfig(name="FrameLevelLogisticModel"),
    training=TrainingConfig(batch_size=32, max_steps=30, num_epochs=100),
)


def write(folder, **state):
    """What `SavedRun.save` leaves, as far as a follower reads it."""
    variable = tf.Variable(TrainingState(**state).to_json())
    checkpoint = tf.train.Checkpoint(state=variable)
    tf.train.CheckpointManager(checkpoint, str(folder.checkpoints), 3).save(state["step"])


def steps_seen(folder, checkpoint, *changes):
    """Steps that `follow` yields while one of `changes` happens at each wait, and those waits."""
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        changes[len(waits) - 1]()

    seen = []
    for step in follow(folder, checkpoint, 7.0, sleep):
        seen.append((step, len(waits)))
    assert waits == [7.0] * len(changes)
    return seen


def prepared(path):
    folder = RunFolder(path / "run")
    folder.prepare(CONFIG)
    return folder


def test_each_best_state_once_until_the_run_is_finished(tmp_path):
    folder = prepared(tmp_path)
    seen = steps_seen(
        folder,
        "best",
        lambda: write(folder, step=5),  # Not validated yet.
        lambda: write(folder, step=10, last_validation=10, best_gap=0.2, best_step=10),
        lambda: write(folder, step=15, last_validation=10, best_gap=0.2, best_step=10),
        lambda: write(folder, step=20, last_validation=20, best_gap=0.1, best_step=10),
        lambda: write(folder, step=30, last_validation=30, best_gap=0.3, best_step=30),
    )
    assert seen == [(10, 2), (30, 5)]


def test_each_newest_state_once_until_the_run_is_finished(tmp_path):
    folder = prepared(tmp_path)
    seen = steps_seen(
        folder,
        "last",
        lambda: write(folder, step=5),
        lambda: None,
        lambda: write(folder, step=10),
        lambda: write(folder, step=30, last_validation=30),
    )
    assert seen == [(5, 1), (10, 3), (30, 4)]


def test_the_last_step_is_not_the_end_before_its_validation(tmp_path):
    folder = prepared(tmp_path)
    write(folder, step=30, last_validation=20, best_gap=0.2, best_step=20)
    end = {"step": 30, "last_validation": 30, "best_gap": 0.3, "best_step": 30}
    assert steps_seen(folder, "best", lambda: write(folder, **end)) == [(20, 0), (30, 1)]


def test_without_validations_the_last_weights_are_the_best(tmp_path):
    folder = prepared(tmp_path)
    write(folder, step=20)
    seen = steps_seen(folder, "best", lambda: write(folder, step=30, last_validation=30))
    assert seen == [(30, 1)]


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path):
    folder = RunFolder(tmp_path / "later")

    def start():
        folder.prepare(CONFIG)
        write(folder, step=30, last_validation=30, best_gap=0.5, best_step=12)

    assert read_state(folder) is None
    assert steps_seen(folder, "best", lambda: None, start) == [(12, 2)]


def test_a_checkpoint_that_its_run_drops_meanwhile_is_no_state(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    module = sys.modules["yt8m_gat.training.follow"]  # The package has a function of that name.
    monkeypatch.setattr(module, "checkpoint_steps", lambda path: [1])
    assert read_state(folder) is None
    write(folder, step=1)
    assert read_state(folder).step == 1


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = int(self.model.optimizer.iterations) >= self.step


def train(folder, sample_dir, *callbacks):
    folder.prepare(CONFIG)
    return pipeline.train(
        folder,
        CONFIG,
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        eval_data_pattern=f"{sample_dir}/validate*.tfrecord",
        callbacks=callbacks,
    )


@pytest.mark.slow
def test_evaluating_a_run_in_training(tmp_path, sample_dir):
    """Stopped after 4 of 30 steps, evaluated from another process until Ctrl-C, then to its end."""
    folder, figures = RunFolder(tmp_path / "run"), tmp_path / "figures.json"
    state = train(folder, sample_dir, StopAt(4))
    assert (state.step, state.finished(CONFIG.training)) == (4, None)
    assert read_state(folder) == state

    process = subprocess.Popen(
        [
            sys.executable,
            "eval.py",
            "--norun_once",
            f"--train_dir={folder.path}",
            f"--eval_data_pattern={sample_dir}/test*.tfrecord",
            f"--output_file={figures}",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    alarm = threading.Timer(120, process.kill)
    alarm.start()
    for line in process.stdout:
        lines.append(line)
        if any(text.startswith("step ") for text in lines) and "clean" in line:
            break
    alarm.cancel()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "until the run is finished" in lines[0]
    assert lines[1] == f"step {state.best_step}\n"
    assert json.loads(figures.read_text())["clean"]["num_videos"] == 32

    state = train(folder, sample_dir)
    assert state.finished(CONFIG.training)
    pattern = f"{sample_dir}/test*.tfrecord"
    [(step, result)] = pipeline.evaluate_each(folder, eval_data_pattern=pattern)
    again = pipeline.evaluate(folder, eval_data_pattern=pattern)
    assert step == state.best_step == result.pop("provenance")["step"]
    assert again.pop("provenance")["weights"] == weights_digest(folder, "best")
    del result["checksum"], again["checksum"]  # Of the provenance too.
    assert result == again


def test_a_pattern_without_files_is_refused_before_any_waiting(tmp_path):
    with pytest.raises(ConfigError, match="--eval_data_pattern"):
        next(
            pipeline.evaluate_each(RunFolder(tmp_path), eval_data_pattern=f"{tmp_path}/no.tfrecord")
        )
