"""Steps whose loss or gradients are not finite, and signals: what stays and what is said."""

import dataclasses
import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.config import DataConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import AdversarialModel, NonFiniteLossError, nonfinite
from yt8m_gat.training import loop as training_loop
from yt8m_gat.weights.load import load_classifier

CONFIG = RunConfig(
    data=DataConfig(num_classes=8, max_frames=12),
    model=ModelConfig(
        name="DbofModel",
        options={"dbof_cluster_size": 8, "dbof_hidden_size": 4, "iterations": 3},
    ),
    objective=ObjectiveConfig(class_reduction="sum"),
    training=TrainingConfig(batch_size=16, max_steps=9, num_epochs=5, checkpoint_steps=1),
)


def with_training(**changes):
    return dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, **changes))


def train(folder, config, sample_dir, *callbacks):
    return pipeline.train(
        folder,
        config,
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        callbacks=callbacks,
    )


def lines_of(folder, kind):
    if not folder.metrics.exists():
        return []
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


class Poison:
    """Makes loss or gradients of some steps not finite, wherever they are computed.

    A step is known by its batch, since a step that is left out leaves no trace in the model.
    """

    def __init__(self, monkeypatch, kind, is_poisoned):
        self.seen = []  # Video ids of each batch, in order.
        update_of = AdversarialModel.update_of
        as_pair = training_loop.as_pair
        self.factor = tf.Variable(1.0, trainable=False)

        def poisoned_pair(batch):
            if isinstance(batch["labels"], tf.Tensor):
                self.factor.assign(np.nan if is_poisoned(len(self.seen)) else 1.0)
                self.seen.append([video_id.decode() for video_id in batch["video_id"].numpy()])
            return as_pair(batch)

        def poisoned(model, data, replica=None):
            update = update_of(model, data, replica)
            if kind == "loss":
                terms = update.terms._replace(total=update.terms.total * self.factor)
                bad = tf.logical_not(tf.math.is_finite(self.factor))
                return update._replace(
                    terms=terms, finite=tf.logical_and(update.finite, tf.logical_not(bad))
                )
            gradients = [gradient * self.factor for gradient in update.gradients]
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
            return update._replace(gradients=gradients, finite=finite)

        monkeypatch.setattr(training_loop, "as_pair", poisoned_pair)
        monkeypatch.setattr(AdversarialModel, "update_of", poisoned)


class Snapshots(keras.callbacks.Callback):
    """All variables of model and optimizer after each step."""

    def __init__(self):
        super().__init__()
        self.after = []

    def on_train_batch_end(self, batch, logs=None):
        variables = [*self.model.classifier.variables, *self.model.optimizer.variables]
        self.after.append({variable.path: variable.numpy() for variable in variables})


@pytest.mark.parametrize("kind", ["loss", pytest.param("gradients", marks=pytest.mark.slow)])
def test_a_step_that_is_left_out_changes_nothing_of_the_model(
    tmp_path, sample_dir, monkeypatch, kind, caplog
):
    """Weights, optimizer and its count, moving averages and seeds: bit for bit."""
    folder, snapshots = RunFolder(tmp_path), Snapshots()
    poison = Poison(monkeypatch, kind, lambda index: index in (3, 4))
    state = train(folder, with_training(on_nonfinite="skip"), sample_dir, snapshots)
    assert (state.step, state.nonfinite, state.examples) == (9, 2, 9 * 16)
    assert "2 of 9 steps were left out" in caplog.text
    after = snapshots.after
    names = set(after[0])
    assert any("seed_generator" in name for name in names)
    assert any("moving_mean" in name for name in names)
    for name in names:
        np.testing.assert_array_equal(after[2][name], after[3][name], err_msg=name)
        np.testing.assert_array_equal(after[2][name], after[4][name], err_msg=name)
    seeds = next(name for name in names if "seed_generator" in name)
    assert np.any(after[4][seeds] != after[5][seeds])
    assert any(np.any(after[4][name] != after[5][name]) for name in names if "kernel" in name)

    lines = lines_of(folder, "nonfinite")
    assert [line["step"] for line in lines] == [4, 5]
    assert [line["video_ids"] for line in lines] == poison.seen[3:5]
    assert all((line["loss"] is None) == (kind == "loss") for line in lines)


@pytest.mark.slow
def test_skipping_costs_a_good_run_nothing(tmp_path, sample_dir):
    """The step in two graphs is the step in one, bit for bit."""
    weights = []
    for on_nonfinite in ("stop", "skip"):
        folder, config = (
            RunFolder(tmp_path / on_nonfinite),
            with_training(on_nonfinite=on_nonfinite),
        )
        assert train(folder, config, sample_dir).nonfinite == 0
        weights.append([w.numpy() for w in load_classifier(folder, config, "last").weights])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run(tmp_path, sample_dir, monkeypatch):
    monkeypatch.setattr(nonfinite, "MAX_NONFINITE_IN_A_ROW", 3)
    # Two in a row twice, then all.
    Poison(monkeypatch, "loss", lambda index: index in (0, 1, 3, 4) or index > 5)
    folder = RunFolder(tmp_path)
    with pytest.raises(
        NonFiniteLossError, match=r"at step 9 the loss is nan.* 2 before it .*Clips"
    ):
        train(folder, with_training(on_nonfinite="skip", max_steps=20), sample_dir)
    assert len(lines_of(folder, "nonfinite")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loss", "gradients"])
def test_stopping_names_step_and_clips_and_keeps_the_last_good_state(
    tmp_path, sample_dir, monkeypatch, kind
):
    folder = RunFolder(tmp_path)
    with monkeypatch.context() as patch:
        poison = Poison(patch, kind, lambda index: index == 4)
        with pytest.raises(NonFiniteLossError) as caught:
            train(folder, CONFIG, sample_dir)
    what = {"loss": "loss is nan", "gradients": "gradients are not finite"}[kind]
    for text in (f"at step 5 the {what}", "--on_nonfinite=skip", *poison.seen[4]):
        assert text in str(caught.value)
    weights = load_classifier(folder, CONFIG, "last").weights
    assert all(np.isfinite(weight).all() for weight in weights)
    # Whatever was wrong is mended: the run goes on from there.
    state = train(folder, CONFIG, sample_dir)
    assert (state.step, state.nonfinite) == (9, 0)


class SignalAt(keras.callbacks.Callback):
    def __init__(self, step, number):
        super().__init__()
        self.step, self.number = step, number

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_order_and_nothing_differs_after(
    tmp_path, sample_dir, number, capsys
):
    whole, part = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "part")
    train(whole, CONFIG, sample_dir)
    handler = signal.getsignal(number)
    state = train(part, with_training(checkpoint_steps=100), sample_dir, SignalAt(4, number))
    assert signal.getsignal(number) is handler
    assert (state.step, state.finished(CONFIG.training)) == (4, None)
    assert f", stopped by {number.name}; " in capsys.readouterr().out.splitlines()[-1]
    train(part, CONFIG, sample_dir)
    last = [load_classifier(folder, CONFIG, "last").weights for folder in (whole, part)]
    for ours, theirs in zip(*last, strict=True):
        np.testing.assert_array_equal(ours, theirs)
