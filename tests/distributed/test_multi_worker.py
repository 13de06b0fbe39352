"""Two processes on loopback against one: the same weights, also past a worker that is killed."""

import json
import re
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from two_workers import TIMEOUT, start, wait_for

from yt8m_gat import pipeline
from yt8m_gat.config import (
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import WorkerLostError, build_distribution
from yt8m_gat.weights.files import checkpoint_steps
from yt8m_gat.weights.load import load_classifier


def config_for(max_steps):
    recipe = {"class_reduction": "sum"}
    return RunConfig(
        data=DataConfig(num_classes=8, max_frames=12, normalize="concat"),
        model=ModelConfig(name="FrameLevelLogisticModel"),
        objective=ObjectiveConfig(**recipe),
        training=TrainingConfig(
            batch_size=15,
            optimizer="SGD",
            base_learning_rate=0.01,
            learning_rate_decay=0.95,
            clip_gradient_norm=1.0,
            early_stopping_patience=0,
            num_epochs=100000,
            max_steps=max_steps,
        ),
    )


def validations_of(folder):
    """The figures of each, those that this model has."""
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if isinstance(value, int | float)}
        for line in lines
        if line["kind"] == "validation"
    ]


@pytest.mark.slow
def test_a_worker_is_killed_the_other_stops_and_both_go_on_where_they_were(tmp_path, sample_dir):
    """Then weights, loss and validations are those of one machine that nobody stopped."""
    folder = RunFolder(tmp_path / "two")
    processes = start(sample_dir, folder.path, "--num_epochs=100000")
    deadline = time.monotonic() + TIMEOUT
    while not checkpoint_steps(folder.checkpoints):
        assert time.monotonic() < deadline and processes[0].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    (_, errors), _ = wait_for(processes)
    assert processes[0].returncode == 2, errors[-3000:]
    assert re.search(r"train\.py: error: another worker has ended .*Start all workers", errors)
    assert "Traceback" not in errors

    [reached, *_] = checkpoint_steps(folder.checkpoints)
    max_steps = reached + 9
    processes = start(sample_dir, folder.path, "--num_epochs=100000", f"--max_steps={max_steps}")
    outputs = wait_for(processes)
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    (chief, _), (other, _) = outputs
    assert f"resuming at step {reached}\n" in chief
    assert f"{max_steps} steps" in chief
    assert other == ""  # The chief alone reports.

    alone = RunFolder(tmp_path / "one")
    config = config_for(max_steps)
    assert not RunConfig.load(folder.path).differences(config)
    pipeline.train(
        alone,
        config,
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        eval_data_pattern=f"{sample_dir}/validate*.tfrecord",
    )
    for name in ("last", "best"):
        weights = [load_classifier(run, config, name).weights for run in (alone, folder)]
        for ours, theirs in zip(*weights, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)
    ours, theirs = validations_of(alone), validations_of(folder)
    assert len(ours) == len(theirs) > 1
    for expected, found in zip(ours, theirs, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"needs the environment variable TF_CONFIG.*\"worker\", \"index\": 0"),
        ("{", r"does not read as a cluster \(JSONDecodeError"),
        ("[]", "does not read as a cluster"),
        ('{"cluster": {}}', r"does not read as a cluster \(KeyError: 'task'"),
        (
            '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
            "are no lists",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            r"task must be one of its cluster's workers. Received: worker 1",
        ),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["a:2"]}, "task": {"type": "ps", "index": 0}}',
            "only workers and at most one chief",
        ),
    ],
)
def test_a_wrong_tf_config_is_refused_by_what_is_wrong(monkeypatch, value, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ConfigError, match=message):
        build_distribution("multi_worker")


def test_a_worker_says_where_it_listens_before_it_does(monkeypatch, capsys):
    def unavailable():
        assert "listening at a:1, and on all other addresses of this machine" in (
            capsys.readouterr().err
        )
        raise tf.errors.UnavailableError(None, None, "nobody came")

    cluster = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", unavailable)
    with pytest.raises(WorkerLostError, match="nobody came"):
        build_distribution("multi_worker")
