"""What Keras callbacks see of a run: in one piece, interrupted, and resumed."""

import dataclasses
import os
import signal

import keras
import pytest

from yt8m_gat.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.data import RecordSchema
from yt8m_gat.metrics import evaluate
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import Trainer

# 96 clips: 3 steps an epoch.
CONFIG = RunConfig(
    data=DataConfig(feature_names=("audio",), feature_sizes=(128,), num_classes=8, max_frames=12),
    model=ModelConfig(name="FrameLevelLogisticModel"),
    training=TrainingConfig(batch_size=32, num_epochs=2, eval_steps=3),
)


class Watch(keras.callbacks.Callback):
    """Keeps every call and its logs; sends itself Ctrl-C at one step."""

    def __init__(self, interrupt_at=None):
        super().__init__()
        self.calls, self.logs, self.interrupt_at = [], [], interrupt_at

    def keep(self, call, logs=None):
        self.calls.append(call)
        self.logs.append(logs)

    def on_train_begin(self, logs=None):
        self.keep(f"train at {int(self.model.optimizer.iterations.numpy())}")

    def on_epoch_begin(self, epoch, logs=None):
        self.keep(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.keep(f"batch {batch}", logs)
        if int(self.model.optimizer.iterations.numpy()) == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_test_end(self, logs=None):
        self.keep("tested", logs)

    def on_epoch_end(self, epoch, logs=None):
        self.keep(f"epoch {epoch} ended", logs)

    def on_train_end(self, logs=None):
        self.keep("train ended", logs)


def test_an_interrupted_run_ends_and_begins_again(tmp_path, sample_dir):
    gaps = iter((0.25, 0.5))

    def run(interrupt_at=None, **training):
        config = dataclasses.replace(
            CONFIG, training=dataclasses.replace(CONFIG.training, **training)
        )
        watch = Watch(interrupt_at)
        trainer = Trainer(
            config,
            RecordSchema.from_config(config.data),
            build_from_config(config),
            sorted(map(str, sample_dir.glob("train*.tfrecord"))),
            RunFolder(tmp_path),
            evaluate,
            lambda: {"gap": next(gaps)},
            callbacks=[watch],
        )
        trainer.restore()
        trainer.run()
        assert watch.params == {"epochs": 2, "steps": None}
        return watch

    batches = ["batch 0", "batch 1", "batch 2", "tested"]
    first = run(interrupt_at=4)
    assert first.calls == [
        *["train at 0", "epoch 0", *batches, "epoch 0 ended"],
        *["epoch 1", "batch 0", "train ended"],
    ]
    # Terms of a step; the epoch's means and the validation; those of the epoch that was begun.
    seen = zip(first.calls, first.logs, strict=True)
    losses = [logs["loss"] for call, logs in seen if call.startswith("batch")]
    by_call = dict(zip(first.calls, first.logs, strict=True))
    assert by_call["tested"] == {"gap": 0.25}
    assert by_call["epoch 0 ended"]["loss"] == pytest.approx(sum(losses[:3]) / 3)
    assert by_call["epoch 0 ended"]["val_gap"] == 0.25
    assert by_call["train ended"]["loss"] == pytest.approx(losses[3])
    assert by_call["train ended"]["val_gap"] == 0.25

    second = run()
    assert second.calls == [
        *["train at 4", "epoch 1", *batches[1:], "epoch 1 ended", "train ended"],
    ]
    assert second.logs[-1]["val_gap"] == 0.5
