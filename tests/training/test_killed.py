"""A run killed at random moments ends as one that was never killed, to the bit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from killed_runs import config_for, train

from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.checkpoints import newest_checkpoint
from yt8m_gat.weights.load import load_classifier

MAX_STEPS, KILLS = 22, 3


def validations(folder):
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "validation"]


def losses(folder):
    """Of each step: there is a checkpoint after each."""
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]


def tensors(folder):
    reader = tf.train.load_checkpoint(newest_checkpoint(folder.checkpoints))
    # The graph of objects names layers as the process numbered them.
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.slow
def test_nothing_of_a_kill_is_left(tmp_path, sample_dir):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    finished = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("killed_runs.py"),
            *map(str, (sample_dir, killed.path, MAX_STEPS, KILLS, 0)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["status"] == 0
    assert len(result["reached"]) >= 2, "killed less often than a run has moments"
    print(f"killed after steps {result['reached']} of {MAX_STEPS}")

    train(sample_dir, whole, MAX_STEPS)
    ours, theirs = tensors(whole), tensors(killed)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():  # Weights, optimizer, seeds and the state of the loop.
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)
    best = [load_classifier(folder, config_for(MAX_STEPS)).weights for folder in (whole, killed)]
    for expected, found in zip(*best, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert validations(whole) == validations(killed)
    assert losses(whole) == losses(killed)
    assert [step for step, _ in losses(whole)] == list(range(1, MAX_STEPS + 1))
