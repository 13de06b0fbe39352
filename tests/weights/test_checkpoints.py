"""Checkpoints with every kind of damage are skipped, with a warning, for the one before."""

import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import NonFiniteLossError, read_state
from yt8m_gat.weights.checkpoints import (
    KEPT,
    Checkpoints,
    DamagedCheckpointsError,
    checkpoint_fault,
    newest_checkpoint,
)
from yt8m_gat.weights.files import checkpoint_steps
from yt8m_gat.weights.load import load_classifier

DATA, INDEX = ".data-00000-of-00001", ".index"


def make_variables(value):
    return [
        tf.Variable(np.full((4, 5), value, np.float32)),
        tf.Variable(np.full(3, value, np.float32)),
        tf.Variable(str(value)),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Checkpoints of the steps 1 to 5 of variables that equal the step."""
    folder = tmp_path_factory.mktemp("checkpoints")
    variables = make_variables(0)
    checkpoints = Checkpoints(folder, {"state": variables})
    for step in range(1, 6):
        variables[0].assign(tf.fill((4, 5), float(step)))
        variables[1].assign(tf.fill((3,), float(step)))
        variables[2].assign(str(step))
        checkpoints.write(step)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


@pytest.mark.parametrize("name", ["run[1]", "back\\slash", "a*b?", "{a,b}"])
@pytest.mark.parametrize("relative", [False, True])
def test_the_names_of_folders_are_no_patterns(written, tmp_path, monkeypatch, name, relative):
    """A sibling folder that the name would match as a glob pattern has an older state."""
    monkeypatch.chdir(tmp_path)
    base = Path() if relative else tmp_path
    for sibling in ("run1", "backslash", "a-bc"):
        shutil.copytree(written, tmp_path / sibling / "checkpoints")
    variables = make_variables(7)
    checkpoints = Checkpoints(base / name / "checkpoints", {"state": variables})
    checkpoints.write(7)
    for variable, other in zip(variables, make_variables(0), strict=True):
        variable.assign(other)
    newest = newest_checkpoint(checkpoints.folder)
    assert newest == str(base / name / "checkpoints" / "ckpt-7")
    checkpoints.read(newest)
    assert variables[0].numpy().tolist() == np.full((4, 5), 7.0).tolist()
    assert variables[2].numpy() == b"7"


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove(path):
    path.unlink()


def test_the_newest_stay_and_the_list_is_one_that_tensorflow_reads(folder):
    assert checkpoint_steps(folder) == [5, 4, 3][:KEPT]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "ckpt-5")


@pytest.mark.parametrize("damage", [half, flip, empty, garbage, remove])
@pytest.mark.parametrize("ending", [DATA, INDEX])
def test_a_damaged_checkpoint_is_passed_over_by_name(folder, damage, ending, caplog):
    damage(folder / f"ckpt-5{ending}")
    variables = make_variables(-1)
    with caplog.at_level(logging.WARNING):
        prefix = newest_checkpoint(folder)
    assert prefix == str(folder / "ckpt-4")
    [warning] = [record.getMessage() for record in caplog.records]
    assert str(folder / "ckpt-5") in warning and "damaged" in warning and prefix in warning
    Checkpoints(folder, {"state": variables}).read(prefix)
    assert np.all(variables[0] == 4) and np.all(variables[1] == 4)
    assert variables[2].numpy() == b"4"


def test_every_flipped_byte_of_the_tensors_is_noticed(folder):
    """TensorFlow's own checksums, on which `checkpoint_fault` relies."""
    path = folder / f"ckpt-5{DATA}"
    whole = path.read_bytes()
    assert checkpoint_fault(str(folder / "ckpt-5")) is None
    for position in range(0, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 0x10
        path.write_bytes(content)
        assert checkpoint_fault(str(folder / "ckpt-5")) is not None, position


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b'model_checkpoint_path: "x'])
def test_the_list_of_checkpoints_is_not_needed(folder, content):
    (folder / "checkpoint").write_bytes(content)
    assert newest_checkpoint(folder) == str(folder / "ckpt-5")
    (folder / "checkpoint").unlink()
    assert newest_checkpoint(folder) == str(folder / "ckpt-5")


def test_where_none_is_whole_the_error_names_all_and_the_remedy(folder):
    for path in folder.glob("ckpt-*.index"):
        half(path)
    with pytest.raises(
        DamagedCheckpointsError, match=r"(?s)ckpt-5: .*ckpt-4: .*ckpt-3: .*--start_new_model"
    ):
        newest_checkpoint(folder)


def test_no_checkpoint_is_no_error(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_what_lies_after_the_step_that_is_written_goes(folder):
    """Damaged checkpoints, those of later steps, and the remains of a killed write are removed."""
    half(folder / f"ckpt-5{DATA}")
    (folder / "ckpt-9_temp").mkdir()
    (folder / "note.txt").write_text("mine")
    Checkpoints(folder, {"state": make_variables(4)}).write(4)
    assert checkpoint_steps(folder) == [4, 3]
    assert newest_checkpoint(folder) == str(folder / "ckpt-4")
    assert (folder / "note.txt").exists() and not (folder / "ckpt-9_temp").exists()


def test_a_checkpoint_of_another_model_is_refused(folder):
    with pytest.raises(ConfigError, match=r"ckpt-5 is no checkpoint of this model"):
        Checkpoints(folder, {"state": make_variables(0), "more": tf.Variable(1)}).read(
            str(folder / "ckpt-5")
        )


# --- Whole runs ---------------------------------------------------------------------------------


def config(max_steps, **training):
    return RunConfig(
        data=DataConfig(num_classes=8, max_frames=12),
        model=ModelConfig(name="FrameLevelLogisticModel"),
        training=TrainingConfig(
            batch_size=16,
            checkpoint_steps=2,
            max_steps=max_steps,
            base_learning_rate=0.1,
            **training,
        ),
    )


def train(folder, max_steps, sample_dir, **training):
    return pipeline.train(
        folder,
        config(max_steps, **training),
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        eval_data_pattern=f"{sample_dir}/validate*.tfrecord",
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, sample_dir):
    """A run of 11 steps, and one that stopped after 9."""
    whole, part = (RunFolder(tmp_path_factory.mktemp("run") / name) for name in ("whole", "part"))
    train(whole, 11, sample_dir)
    train(part, 9, sample_dir)
    return whole, part


@pytest.mark.slow
def test_a_run_past_a_damaged_checkpoint_ends_as_if_nothing_had_been(
    runs, sample_dir, tmp_path, capsys
):
    """This works although TensorFlow uses the folder's name as a glob that matches another."""
    whole, part = runs
    folder = RunFolder(shutil.copytree(part.path, tmp_path / "run[1]"))
    sibling = RunFolder(shutil.copytree(part.path, tmp_path / "run1"))
    for path in sibling.checkpoints.glob("ckpt-9.*"):
        path.unlink()
    half(folder.checkpoints / f"ckpt-9{DATA}")
    assert read_state(folder).step == 9  # The state itself is in the first half.
    flip(folder.checkpoints / f"ckpt-9{INDEX}")
    assert read_state(folder).step == 8
    train(folder, 11, sample_dir)
    assert "resuming at step 8\n" in capsys.readouterr().out
    last = [load_classifier(run, config(11), "last").weights for run in (whole, folder)]
    for ours, theirs in zip(*last, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert whole.metrics.read_text().count('"validation"') == folder.metrics.read_text().count(
        '"validation"'
    )


def test_nothing_to_resume_from_says_so_and_touches_nothing(runs, sample_dir, tmp_path):
    folder = RunFolder(shutil.copytree(runs[1].path, tmp_path / "run"))
    best = folder.best_weights.read_bytes()
    for path in folder.checkpoints.glob("*.index"):
        empty(path)
    with pytest.raises(DamagedCheckpointsError, match="--start_new_model"):
        train(folder, 11, sample_dir)
    with pytest.raises(DamagedCheckpointsError):
        load_classifier(folder, config(9), "last")
    assert folder.best_weights.read_bytes() == best


@pytest.mark.parametrize("damage", [half, flip, empty, garbage])
def test_damaged_best_weights_are_an_error_that_says_what_to_do(runs, tmp_path, damage):
    folder = RunFolder(shutil.copytree(runs[1].path, tmp_path / "run"))
    damage(folder.best_weights)
    with pytest.raises(ConfigError, match=r"best\.weights\.h5 .*--checkpoint=last"):
        load_classifier(folder, config(9))
    load_classifier(folder, config(9), "last")


def test_best_weights_changed_in_one_number_are_noticed(runs, tmp_path):
    """HDF5 itself reads them without an error."""
    folder = RunFolder(shutil.copytree(runs[1].path, tmp_path / "run"))
    with h5py.File(folder.best_weights, "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(item) if hasattr(item, "shape") else None)
        found[0][0] += 1e-3
    with pytest.raises(ConfigError, match=r"is damaged: its weights are not those"):
        load_classifier(folder, config(9))


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_weights_that_overflow_are_never_saved(runs, sample_dir, tmp_path, on_nonfinite):
    """Loss and gradients are finite; the rate, infinite in float32, makes the weights infinite."""
    folder = RunFolder(shutil.copytree(runs[1].path, tmp_path / "run"))
    best = folder.best_weights.read_bytes()
    wild = RunConfig.load(folder.path).training.base_learning_rate * 1e40
    with pytest.raises(NonFiniteLossError, match=r"--base_learning_rate"):
        pipeline.train(
            folder,
            RunConfig(
                data=config(9).data,
                model=config(9).model,
                training=TrainingConfig(
                    batch_size=16,
                    checkpoint_steps=1,
                    max_steps=30,
                    base_learning_rate=wild,
                    on_nonfinite=on_nonfinite,
                ),
            ),
            train_data_pattern=f"{sample_dir}/train*.tfrecord",
            eval_data_pattern=f"{sample_dir}/validate*.tfrecord",
        )
    assert newest_checkpoint(folder.checkpoints) == str(folder.checkpoints / "ckpt-9")
    assert folder.best_weights.read_bytes() == best
    assert all(np.isfinite(w).all() for w in load_classifier(folder, config(9), "last").weights)
