"""What a run says of itself: lines of metrics.jsonl, the bar's total, the last words."""

import dataclasses
import json
import math
import re
import shlex
import sys
import types
from typing import ClassVar

import keras
import numpy as np
import pytest

from yt8m_gat import cli, pipeline
from yt8m_gat.config import DataConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from yt8m_gat.data import RecordSchema
from yt8m_gat.metrics import evaluate
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import training as training_job
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import Trainer, TrainingState, step_log, training_log

BATCH_SIZES = [15, 15, 15, 15, 15, 15, 6]  # Of an epoch: 96 clips.
CONFIG = RunConfig(
    data=DataConfig(feature_names=("audio",), feature_sizes=(128,), num_classes=8, max_frames=12),
    model=ModelConfig(name="FrameLevelLogisticModel"),
    objective=ObjectiveConfig(class_reduction="sum"),
    training=TrainingConfig(
        batch_size=15,
        num_epochs=2,
        learning_rate_decay=0.5,
        learning_rate_decay_examples=45,
        checkpoint_steps=7,
        on_bad_record="skip",
    ),
)


class Watch(keras.callbacks.Callback):
    """Losses and rates of all steps, logs of all epochs; ends as a fault would at one step."""

    def __init__(self, fault_at=None):
        super().__init__()
        self.losses, self.rates, self.epochs, self.fault_at = [], [], [], fault_at

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        self.rates.append(float(self.model.optimizer.learning_rate))
        if len(self.losses) == self.fault_at:
            raise RuntimeError("a fault")

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs)


class Bar(training_log.tqdm):
    """Keeps what it showed: (steps done, total)."""

    shown: ClassVar = []

    def update(self, n=1):
        super().update(n)
        Bar.shown.append((self.n, self.total))

    def close(self):
        if not self.disable:
            Bar.shown.append((self.n, self.total))
        super().close()


def run(path, sample_dir, *, log_steps=3, clock_until=0, fault_at=None, **training):
    """Trains, by the clock too for some steps; what was seen, the lines that are left, the bar."""
    config = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, **training))
    keras.utils.set_random_seed(0)
    watch, folder = Watch(fault_at), RunFolder(path)

    def stop_the_clock(batch, logs):
        if batch + 1 > clock_until:
            trainer.log.log_seconds = math.inf

    Bar.shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_log, "tqdm", Bar)
        patch.setattr(training_log, "estimate_records", lambda files: 48)
        trainer = Trainer(
            config,
            RecordSchema.from_config(config.data),
            build_from_config(config),
            sorted(map(str, sample_dir.glob("train*.tfrecord"))),
            folder,
            evaluate,
            callbacks=[watch, keras.callbacks.LambdaCallback(on_train_batch_end=stop_the_clock)],
            log_steps=log_steps,
            log_seconds=0.0,
        )
        trainer.restore()
        if fault_at is None:
            trainer.run()
        else:
            with pytest.raises(RuntimeError, match="a fault"):
                trainer.run()
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return watch, [line for line in lines if line["kind"] != "start"], Bar.shown


def of_kind(lines, kind):
    return [line for line in lines if line["kind"] == kind]


def mean(losses, sizes):
    return sum(size * loss for size, loss in zip(sizes, losses, strict=True)) / sum(sizes)


@pytest.fixture(scope="module")
def whole(sample_dir, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "whole", sample_dir)


def test_lines_are_means_over_the_clips_since_the_line_before(whole):
    """At each third step, each checkpoint and each end of an epoch, of which there is one here."""
    watch, lines, _ = whole
    sizes = 2 * BATCH_SIZES
    found = of_kind(lines, "train")
    assert [line["step"] for line in found] == [3, 6, 7, 9, 12, 14]
    start = 0
    for line in found:
        part = slice(start, line["step"])
        assert line["steps"] == line["step"] - start
        assert line["loss"] == pytest.approx(mean(watch.losses[part], sizes[part]), rel=1e-5)
        assert line["clean_loss"] == line["loss"] and line["penalty"] == 0
        examples = sum(sizes[: line["step"] - 1])
        assert line["learning_rate"] == pytest.approx(2e-4 * 0.5 ** (examples // 45), rel=1e-6)
        assert line["examples_per_second"] > 0 and 0 <= line["batch_gap"] <= 1
        start = line["step"]
    assert watch.losses[3:6] != watch.losses[:3]
    examples = np.cumsum([0, *sizes[:-1]])
    np.testing.assert_allclose(watch.rates, 2e-4 * 0.5 ** (examples // 45), rtol=1e-6)


def test_an_epochs_loss_is_not_its_last_batchs(whole):
    watch, *_ = whole
    for epoch, losses in zip(watch.epochs, (watch.losses[:7], watch.losses[7:]), strict=True):
        assert epoch["loss"] == pytest.approx(mean(losses, BATCH_SIZES), rel=1e-5)


def test_the_last_line_says_why_it_ended_and_how_long_it_took(whole):
    _, lines, _ = whole
    (end,) = of_kind(lines, "end")
    assert end == lines[-1]
    assert (end["step"], end["reason"]) == (14, "--num_epochs=2 done")
    assert end["seconds"] >= max(line["seconds"] for line in of_kind(lines, "train")) > 0


@pytest.mark.slow
def test_lines_of_a_resumed_run_are_those_of_an_uninterrupted_one(whole, tmp_path, sample_dir):
    """Ended after the first epoch had said its last; also the bad records are counted once."""

    def without_times(lines):
        times = ("seconds", "examples_per_second")
        return [{name: line[name] for name in line if name not in times} for line in lines]

    _, expected, _ = whole
    _, before, _ = run(tmp_path, sample_dir, fault_at=9)
    assert [line["kind"] for line in before] == ["train"] * 3 + ["bad_records"]
    _, lines, _ = run(tmp_path, sample_dir)
    assert without_times(lines) == without_times(expected)
    assert lines[-1]["seconds"] > before[-2]["seconds"]
    # Once more, as for an export: nothing is done, and nothing doubled.
    _, again, bar = run(tmp_path, sample_dir)
    assert without_times(again) == without_times(expected)
    assert bar == [(14, 14)]


def test_a_run_of_three_steps_says_what_it_did(tmp_path, sample_dir):
    """A line by the clock, and one at the end."""
    watch, lines, bar = run(tmp_path, sample_dir, log_steps=1000, clock_until=1, max_steps=3)
    by_clock, at_end = of_kind(lines, "train")
    assert (by_clock["step"], by_clock["loss"]) == (1, pytest.approx(watch.losses[0], rel=1e-6))
    # Its only step compiled the graph.
    assert by_clock["examples_per_second"] is None
    assert (at_end["step"], at_end["steps"]) == (3, 2)
    assert at_end["loss"] == pytest.approx(mean(watch.losses[1:], [15] * 2), rel=1e-5)
    assert bar == [(1, 3), (2, 3), (3, 3), (3, 3)]


def test_the_bars_total_is_right_once_an_epoch_is_done(whole):
    """Guessed from files that seem to hold half of what they do; then counted."""
    *_, bar = whole
    assert bar == [(n, 8 if n <= 7 else 14) for n in range(1, 15)] + [(14, 14)]


def test_speed_leaves_out_the_first_step_and_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(step_log.time, "monotonic", lambda: now[0])
    speed = step_log.Speed()
    now[0] = 60.0
    speed.add(16)
    assert (speed.clips_per_second, speed.seconds) == (None, 0.0)
    now[0] = 62.0
    speed.add(16)
    assert speed.clips_per_second == 8
    now[0] = 100.0
    speed.restart()
    now[0] = 104.0
    speed.add(10)
    assert speed.clips_per_second == 2.5


def test_the_last_words_are_a_command_that_can_be_pasted(tmp_path, sample_dir, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["some where/train.py"])
    folder = RunFolder(tmp_path / "a run")
    training = dataclasses.replace(CONFIG.training, max_steps=1)
    pattern = f"{sample_dir}/validate*.tfrecord"
    state = pipeline.train(
        folder,
        dataclasses.replace(CONFIG, training=training),
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        eval_data_pattern=pattern,
    )
    *_, validation, what, command = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 1: validation GAP .*; loss \d+\.\d+ over 1 step", validation)
    assert what.startswith(f"{folder.path}: 1 step in ")
    best = f"best validation GAP {state.best_gap:.4f} at step 1, weights in {folder.best_weights}"
    assert what.endswith(f" s, --max_steps=1 reached; {best}")
    _, *words = shlex.split(command.removeprefix("next: "))
    assert words == [
        "some where/eval.py",
        f"--train_dir={folder.path}",
        f"--eval_data_pattern={pattern}",
        "--on_bad_record=skip",
    ]


@pytest.mark.parametrize(
    ("changes", "ended_by", "has_weights", "expected"),
    [
        (
            {"step": 14, "epoch": 2},
            "--num_epochs=2 done",
            True,
            "RUN: 14 steps in 1 min 5 s, --num_epochs=2 done; no validation: the last weights are "
            "in RUN/best.weights.h5\n"
            "next: python -m yt8m_gat eval --train_dir=RUN --on_bad_record=skip "
            "--eval_data_pattern=... (files it has not seen)\n",
        ),
        (
            {"step": 3},
            "stopped by SIGINT",
            False,
            "RUN: 3 steps in 1 min 5 s, stopped by SIGINT; not validated yet; the state is in "
            "RUN/checkpoints\n",
        ),
    ],
)
def test_last_words_of_other_runs(
    changes, ended_by, has_weights, expected, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli.shutil, "which", lambda name: sys.executable)
    folder = RunFolder(tmp_path)
    if has_weights:
        folder.best_weights.touch()
    state = TrainingState(**changes)
    state.interrupted = ended_by == "stopped by SIGINT"
    trainer = types.SimpleNamespace(state=state, ended_by=ended_by, seconds=65.0)
    training_job._report(folder, CONFIG, trainer, "")
    assert capsys.readouterr().out == expected.replace("RUN", str(tmp_path))


def test_times_in_words():
    seconds = (0.4, 59.4, 59.6, 200, 3599, 7500)
    words = ["0 s", "59 s", "1 min 0 s", "3 min 20 s", "59 min 59 s", "2 h 5 min"]
    assert [cli.duration(value) for value in seconds] == words


def test_the_command_to_go_on_with_does_not_start_over(monkeypatch):
    command = ["python", "train.py", "--train_dir=a b", "--model=GAT"]
    for flag in ("--start_new_model", "--start_new_model=true", "-start_new_model=1"):
        monkeypatch.setattr(sys, "orig_argv", [*command[:3], flag, command[3]])
        assert shlex.split(cli.this_command("start_new_model")) == command


def test_no_time_has_passed_before_the_first_step():
    speed = step_log.Speed()
    assert (speed.seconds, speed.clips_per_second) == (0.0, None)
