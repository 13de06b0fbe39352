"""A run is resumed with the files that it was trained on, or on purpose with others."""

import json
import shutil

import pytest

from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import TrainingState, read_state

STEPS_PER_EPOCH = 6  # Of 96 clips.


def train(folder, files, max_steps, *, validated=None, **options):
    """`files` and `validated` are folders of the training and of the validation files."""
    config = RunConfig(
        data=DataConfig(
            feature_names=("audio",), feature_sizes=(128,), num_classes=8, max_frames=12
        ),
        model=ModelConfig(name="FrameLevelLogisticModel"),
        training=TrainingConfig(batch_size=16, max_steps=max_steps, shuffle_buffer=16),
    )
    patterns = {"train_data_pattern": f"{files}/train*.tfrecord"}
    if validated is not None:
        patterns["eval_data_pattern"] = f"{validated}/validate*.tfrecord"
    return pipeline.train(folder, config, **patterns, **options)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, sample_dir):
    """A run that stopped after 2 steps and a validation."""
    folder = RunFolder(tmp_path_factory.mktemp("begun") / "run")
    train(folder, sample_dir, 2, validated=sample_dir)
    return folder


@pytest.fixture
def folder(begun, tmp_path):
    return RunFolder(shutil.copytree(begun.path, tmp_path / "run"))


@pytest.fixture
def moved(sample_dir, tmp_path):
    """The same files in another folder, touched."""
    (tmp_path / "moved").mkdir()
    for path in sample_dir.glob("*.tfrecord"):
        shutil.copyfile(path, tmp_path / "moved" / path.name)
    return tmp_path / "moved"


def test_other_files_are_refused_by_name_and_taken_up_when_asked_to(
    folder, moved, sample_dir, caplog
):
    first, *_ = sorted(moved.glob("train*"))
    first.rename(first.with_name(f"train_new_{first.name}"))
    checkpoints = {path.name: path.read_bytes() for path in folder.checkpoints.iterdir()}
    with pytest.raises(
        ConfigError,
        match=rf"--train_data_pattern names other files than the run in .* has used: new: "
        rf"'train_new_{first.name}'; missing: '{first.name}'.*--accept_new_data",
    ):
        train(folder, moved, 3)
    assert {path.name: path.read_bytes() for path in folder.checkpoints.iterdir()} == checkpoints
    state = train(folder, moved, 3, accept_new_data=True)
    # The first epoch ends early: the batches that were seen of it were of other files.
    assert (state.step, state.epoch, state.batch) == (3, 1, 1)
    assert state.best_gap is not None and "epoch 1 begins with these files" in caplog.text
    # From then on they are the run's.
    assert train(folder, moved, 3).batch == 1
    with pytest.raises(ConfigError, match="missing: 'train_new_"):
        train(folder, sample_dir, 5)


@pytest.mark.slow
def test_a_best_gap_of_other_validation_files_does_not_count(folder, moved, sample_dir, caplog):
    before = read_state(folder)
    assert before.best_step == 2
    kept, *others = sorted(moved.glob("validate*"))
    for path in others:
        path.unlink()
    kept.rename(kept.with_name("validate_other.tfrecord"))
    with pytest.raises(ConfigError, match="--eval_data_pattern names other files than the run"):
        train(folder, sample_dir, 2, validated=moved)
    state = train(folder, sample_dir, 2, validated=moved, accept_new_data=True)
    assert f"the best GAP, {before.best_gap:.4f} at step 2, was of other files" in caplog.text
    # The weights are as they were, and so is the place in the epoch; they are validated anew.
    assert (state.step, state.epoch, state.batch, state.best_step) == (2, 0, 2, 2)
    assert state.best_gap not in (None, before.best_gap)


def test_moved_files_and_none_for_validation_are_no_others(folder, moved, caplog):
    state = train(folder, moved, 2)
    assert (state.step, state.batch, state.best_step) == (2, 2, 2)
    assert state.eval_files == read_state(folder).eval_files is not None
    assert "files" not in caplog.text


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_on_with_a_note(
    folder, moved, sample_dir, monkeypatch, caplog
):
    to_json = TrainingState.to_json

    def as_it_was(self):
        values = json.loads(to_json(self))
        return json.dumps({k: v for k, v in values.items() if not k.endswith("_files")})

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "to_json", as_it_was)
        train(folder, sample_dir, 2)
    assert read_state(folder).train_files is None
    first, *_ = sorted(moved.glob("train*"))
    first.rename(first.with_name(f"train_new_{first.name}"))
    assert train(folder, moved, 2).batch == 2
    assert "does not say which files it has used" in caplog.text
    with pytest.raises(ConfigError, match="--train_data_pattern names other files"):
        train(folder, sample_dir, 3)
