"""Weights without a checkpoint: training does not replace what it cannot go on with."""

import pytest

from yt8m_gat.commands import train
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.run_folder import RunFolder

CONFIG = RunConfig(data=DataConfig(num_classes=8), model=ModelConfig(name="Transformer"))
FLAGS = ["--model=Transformer", "--num_classes=8", "--train_data_pattern=*.tfrecord"]


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare(CONFIG)
    folder.best_weights.write_bytes(b"weights")
    return folder


def line(kind):
    return {"kind": kind, "step": 0}


@pytest.mark.parametrize(
    "kinds",
    [
        [],  # An ensemble, or an unpacked archive.
        ["soup"],
        ["start", "validation", "end"],  # The checkpoints of a finished run were deleted.
    ],
)
def test_weights_alone_are_not_trained_over(folder, kinds, capsys):
    for kind in kinds:
        folder.append_metrics(line(kind))
    with pytest.raises(SystemExit) as ended:
        train.main([*FLAGS, f"--train_dir={folder.path}"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"--train_dir={folder.path} holds weights and no checkpoint" in told
    assert f"--finetune_from={folder.path}" in told
    assert folder.best_weights.read_bytes() == b"weights"
    with pytest.raises(ConfigError, match="holds weights and no checkpoint"):
        folder.prepare(CONFIG)
    folder.prepare(CONFIG, start_new_model=True)
    assert not folder.best_weights.exists()


def test_a_run_killed_before_its_first_checkpoint_begins_again(folder):
    """The first validation saves the weights, and then the checkpoint."""
    for kind in ("start", "train", "validation"):
        folder.append_metrics(line(kind))
    folder.prepare(CONFIG)
    assert folder.best_weights.is_file()


def test_with_a_checkpoint_it_goes_on_whatever_else_is_there(folder):
    folder.checkpoints.mkdir()
    (folder.checkpoints / "ckpt-3.index").touch()
    folder.append_metrics(line("end"))
    folder.prepare(CONFIG)
