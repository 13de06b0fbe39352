"""What Keras callbacks see of a run: in one piece, interrupted, and resumed."""

import os
import signal

import keras
import pytest

from yt8m_gat.commands import train
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
    training=TrainingConfig(batch_size=32, num_epochs=1),
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
    def run(interrupt_at=None):
        watch = Watch(interrupt_at)
        trainer = Trainer(
            CONFIG,
            RecordSchema.from_config(CONFIG.data),
            build_from_config(CONFIG),
            sorted(map(str, sample_dir.glob("train*.tfrecord"))),
            RunFolder(tmp_path),
            evaluate,
            lambda: {"gap": 0.25},
            callbacks=[watch],
        )
        trainer.restore()
        assert trainer.run().interrupted == (interrupt_at is not None)
        assert watch.params == {"epochs": 1, "steps": None}
        return watch

    first = run(interrupt_at=2)
    assert first.calls == ["train at 0", "epoch 0", "batch 0", "batch 1", "train ended"]
    losses = [logs["loss"] for logs in first.logs[2:4]]
    assert first.logs[-1]["loss"] == pytest.approx(sum(losses) / 2)  # Of the epoch so far.

    second = run()
    assert second.calls == [
        *("train at 2", "epoch 0", "batch 2", "tested", "epoch 0 ended", "train ended")
    ]
    _, _, step, tested, of_epoch, at_the_end = second.logs
    assert tested == {"gap": 0.25}
    assert of_epoch == {**step, "val_gap": 0.25}
    assert at_the_end == of_epoch


@pytest.mark.slow
def test_a_callback_that_stops_training_ends_the_command_as_finished(
    tmp_path, sample_dir, monkeypatch, capsys
):
    """Unlike Ctrl-C: it is exported, the next step is named, and there is no exit code of 130."""
    (tmp_path / "stopping.py").write_text(
        "import keras\n"
        "class Stop(keras.callbacks.Callback):\n"
        "    def on_train_batch_end(self, batch, logs=None):\n"
        "        self.model.stop_training = batch == 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    train.main(
        [
            f"--train_data_pattern={sample_dir}/train*.tfrecord",
            f"--train_dir={tmp_path}/run",
            f"--export_dir={tmp_path}/export",
            "--model=FrameLevelLogisticModel",
            "--num_classes=8",
            "--max_frames=12",
            "--batch_size=8",
            "--callbacks=stopping:Stop",
        ]
    )
    told = capsys.readouterr().out
    assert "run: 2 steps in " in told and ", stopped by a callback; " in told
    assert "next: " in told and "go on with" not in told
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["1"]
