"""Averaged weights and the watch for catastrophic overfitting, in a run and a resumed one."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import PGD, Ball, FastGradient
from yt8m_gat.config import DataConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from yt8m_gat.data import Reader, RecordSchema
from yt8m_gat.metrics import evaluate
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import Trainer
from yt8m_gat.weights.checkpoints import newest_checkpoint
from yt8m_gat.weights.hdf5 import load_weights

MOMENTUM = 0.75
CONFIG = RunConfig(
    data=DataConfig(feature_names=("audio",), feature_sizes=(128,), num_classes=8, max_frames=12),
    model=ModelConfig(name="FrameLevelLogisticModel"),
    objective=ObjectiveConfig(adversarial="fast", epsilon=0.4),
    training=TrainingConfig(
        batch_size=16,
        base_learning_rate=0.05,
        max_steps=8,
        eval_steps=4,
        warmup_steps=3,
        ema_momentum=MOMENTUM,
        learning_rate_schedule="cosine",
    ),
)


class Kernels(keras.callbacks.Callback):
    """The kernel after each step; ends as a fault would after one of them."""

    def __init__(self, fault_at=None):
        super().__init__()
        self.after, self.fault_at = [], fault_at

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(kernel_of(self.model.classifier))
        if len(self.after) == self.fault_at:
            raise RuntimeError("a fault")


def kernel_of(classifier):
    return np.array(max(classifier.trainable_variables, key=lambda v: v.shape.rank))


def first_batch(sample_dir):
    files = sorted(map(str, sample_dir.glob("validate*.tfrecord")))
    return next(iter(Reader(files, RecordSchema.from_config(CONFIG.data), 16)))


def make_trainer(path, sample_dir, kernels):
    keras.utils.set_random_seed(0)
    classifier = build_from_config(CONFIG)
    validated = []

    def validate():  # The later validation is the worse one, so that the first is the best.
        validated.append(kernel_of(classifier))
        return {"gap": 1 / len(validated)}

    trainer = Trainer(
        CONFIG,
        RecordSchema.from_config(CONFIG.data),
        classifier,
        sorted(map(str, sample_dir.glob("train*.tfrecord"))),
        RunFolder(path),
        evaluate,
        validate,
        callbacks=[kernels],
        watched_batch=first_batch(sample_dir),
    )
    return trainer, validated


@pytest.fixture(scope="module")
def whole(sample_dir, tmp_path_factory):
    kernels = Kernels()
    trainer, validated = make_trainer(tmp_path_factory.mktemp("run"), sample_dir, kernels)
    trainer.restore()
    trainer.run()
    return trainer, validated, kernels.after


@pytest.mark.slow
def test_the_average_is_validated_kept_and_followed_by_the_raw_weights(whole):
    """a <- m a + (1 - m) w after each step; the first average is the first step's weights."""
    trainer, validated, after = whole
    averages, average = [], after[0]
    for kernel in after:
        average = MOMENTUM * average + (1 - MOMENTUM) * kernel
        averages.append(average)
    assert np.abs(averages[3] - after[3]).max() > 1e-3
    for measured, expected in zip(
        validated, (averages[3], after[3], averages[7], after[7]), strict=True
    ):
        np.testing.assert_allclose(measured, expected, atol=1e-6)
    np.testing.assert_array_equal(validated[1], after[3])
    np.testing.assert_array_equal(kernel_of(trainer.classifier), after[7])
    best = load_weights(build_from_config(CONFIG), trainer.folder.best_weights)
    np.testing.assert_array_equal(kernel_of(best.classifier), validated[0])
    assert best.step == 4


def lines_of(trainer):
    lines = [json.loads(line) for line in trainer.folder.metrics.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "validation"]


def test_each_validation_has_the_figures_of_both_and_of_the_watched_batch(whole):
    first, second = lines_of(whole[0])
    assert (first["gap"], first["raw_gap"]) == (1, 1 / 2)
    assert (second["gap"], second["raw_gap"]) == (1 / 3, 1 / 4)
    assert {"fgm_gap", "fgm_hit_at_1", "pgd_gap", "pgd_hit_at_1"} <= first.keys()
    assert whole[0].state.best_pgd_gap == max(first["pgd_gap"], second["pgd_gap"])


def test_the_watch_measures_what_the_attacks_reach(whole, sample_dir):
    """On a model that is nearly linear the last point of PGD is its highest one."""
    trainer, batch = whole[0], first_batch(sample_dir)
    watch, ball, epsilon = trainer._validation.watch, Ball("l2", "frame"), CONFIG.objective.epsilon
    figures = watch()
    inputs = {**batch["features"], "num_frames": batch["num_frames"]}
    features, mask = trainer.model.prepare(inputs)
    for name, attack in (
        ("fgm", FastGradient(ball, epsilon)),
        ("pgd", PGD(ball, epsilon, steps=10)),
    ):
        labels = batch["labels"]
        result = attack.attack(
            trainer.classifier.forward, trainer.model.objective.loss, features, mask, labels
        )
        expected = evaluate(labels.numpy(), tf.sigmoid(result.logits).numpy())
        for key in ("gap", "hit_at_1"):
            assert figures[f"{name}_{key}"] == pytest.approx(expected[key], abs=1e-6)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(whole, sample_dir, tmp_path):
    trainer, _ = make_trainer(tmp_path, sample_dir, Kernels(fault_at=6))
    trainer.restore()
    with pytest.raises(RuntimeError, match="a fault"):
        trainer.run()
    resumed, _ = make_trainer(tmp_path, sample_dir, Kernels())
    assert resumed.restore() and resumed.state.step == 4
    resumed.run()
    states = []
    for run in (whole[0], resumed):
        reader = tf.train.load_checkpoint(newest_checkpoint(run.folder.checkpoints))
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith(("class", "opt"))]
        states.append({name: reader.get_tensor(name) for name in names})
    assert len(states[0]) == 10  # Kernel and bias, their averages and moments, step and rate.
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)
    assert lines_of(resumed)[-1] == lines_of(whole[0])[-1] | {"gap": 1, "raw_gap": 1 / 2}
    fields = ("best_pgd_gap", "fgm_gap_then", "step", "examples")
    ours, theirs = (dataclasses.asdict(run.state) for run in (whole[0], resumed))
    assert [ours[field] for field in fields] == [theirs[field] for field in fields]


def test_a_model_that_only_pgd_breaks_is_warned_about(whole, caplog):
    trainer = whole[0]
    watch = trainer._validation.watch
    try:
        trainer.state.best_pgd_gap, trainer.state.fgm_gap_then = 0.8, 0.9
        figures = {"fgm_gap": 0.9, "pgd_gap": 0.1}

        class Broken:
            num_clips = 16

            def __call__(self):
                return figures

        trainer._validation.watch = Broken()
        assert trainer._validation._watched(trainer.state) == figures
        assert "Catastrophic overfitting at step 8: under PGD the GAP of 16" in caplog.text
        assert "is 0.100, after 0.800 before; under a single step it is 0.900" in caplog.text
    finally:
        trainer._validation.watch = watch
