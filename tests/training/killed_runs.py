"""Trains a run that is killed again and again, at random moments; JSON of what happened.

python tests/training/killed_runs.py RECORDS RUN_FOLDER MAX_STEPS KILLS SEED

A child is forked for each attempt: TensorFlow is imported once, and first used there.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from yt8m_gat import pipeline
from yt8m_gat.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.files import checkpoint_steps


def config_for(max_steps):
    """Random frames, moving averages and schedules at work; several epochs and validations."""
    return RunConfig(
        data=DataConfig(num_classes=8, max_frames=12),
        model=ModelConfig(
            name="DbofModel",
            options={"dbof_cluster_size": 8, "dbof_hidden_size": 4, "iterations": 3},
        ),
        training=TrainingConfig(
            batch_size=16,
            max_steps=max_steps,
            num_epochs=1000,
            checkpoint_steps=1,
            eval_steps=4,
            learning_rate_decay=0.9,
            learning_rate_decay_examples=100,
            early_stopping_patience=0,
            plateau_patience=2,
        ),
    )


def train(records, folder, max_steps):
    pipeline.train(
        folder,
        config_for(max_steps),
        train_data_pattern=f"{records}/train*.tfrecord",
        eval_data_pattern=f"{records}/validate*.tfrecord",
    )


def attempt(records, folder, max_steps, seconds):
    """One start, killed after `seconds` from its first new checkpoint on; None: not at all."""
    before = checkpoint_steps(folder.checkpoints)[:1]
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
            os.dup2(sink.fileno(), 2)
            train(records, folder, max_steps)
        os._exit(0)
    if seconds is not None:
        deadline = time.monotonic() + 100
        while checkpoint_steps(folder.checkpoints)[:1] == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status


def main():
    records, path, max_steps, kills, seed = sys.argv[1:]
    rng, folder, reached = random.Random(int(seed)), RunFolder(path), []
    for _ in range(int(kills)):
        status = attempt(records, folder, int(max_steps), rng.uniform(0, 0.3))
        if not os.WIFSIGNALED(status):
            break
        reached.append(checkpoint_steps(folder.checkpoints)[0])
    status = attempt(records, folder, int(max_steps), None)
    print(json.dumps({"reached": reached, "status": status}))


if __name__ == "__main__":
    main()
