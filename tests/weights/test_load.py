"""The digest of weights is that of the loaded bytes, even if the files are replaced meanwhile."""

import dataclasses
import hashlib
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, ObjectiveConfig, RunConfig
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights import checkpoints, hdf5, load
from yt8m_gat.weights.checkpoints import checkpointable, newest_checkpoint
from yt8m_gat.weights.files import weights_digest
from yt8m_gat.weights.load import load_run

CONFIG = RunConfig(
    data=DataConfig(
        feature_names=("mean_rgb",), feature_sizes=(4,), num_classes=3, frame_features=False
    ),
    model=ModelConfig(name="LogisticModel"),
)


def classifier_of(value):
    classifier = build_from_config(CONFIG)
    for weight in classifier.weights:
        weight.assign(tf.fill(weight.shape, float(value)))
    return classifier


def values_of(loaded):
    return {float(value) for weight in loaded.classifier.weights for value in np.ravel(weight)}


def sha256(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@pytest.fixture
def folder(tmp_path):
    """A run with the checkpoints of the steps 1 and 2, whose weights equal the step."""
    folder = RunFolder(tmp_path / "run")
    folder.prepare(CONFIG)
    for step in (1, 2):
        write_checkpoint(folder, step)
    hdf5.save_weights(classifier_of(5), folder.best_weights, step=4)
    return folder


def write_checkpoint(folder, step, value=None):
    folder.checkpoints.mkdir(exist_ok=True)
    classifier = classifier_of(step if value is None else value)
    checkpoint = tf.train.Checkpoint(classifier=checkpointable(classifier))
    checkpoint.write(str(folder.checkpoints / f"ckpt-{step}"))


def files_of(folder, step):
    return sorted(folder.checkpoints.glob(f"ckpt-{step}.*"))


def test_what_is_loaded_says_which_weights_it_has(folder):
    best, last = load_run(folder, CONFIG), load_run(folder, CONFIG, "last")
    assert (values_of(best), best.step, best.digest) == ({5.0}, 4, sha256(folder.best_weights))
    assert (values_of(last), last.step) == ({2.0}, 2)
    assert last.digest == sha256(*files_of(folder, 2))
    assert weights_digest(folder, "best") == best.digest
    assert weights_digest(folder, "last") == last.digest
    classifier_of(6).save_weights(folder.best_weights)  # As Keras itself writes it.
    by_keras = load_run(folder, CONFIG)
    assert (values_of(by_keras), by_keras.step) == ({6.0}, None)
    folder.clear()
    assert weights_digest(folder, "best") is weights_digest(folder, "last") is None


def test_weights_that_are_replaced_all_the_time_are_never_damaged(folder, tmp_path):
    versions = {}
    for value in (1, 2):
        path = tmp_path / f"{value}.weights.h5"
        hdf5.save_weights(classifier_of(value), path, step=value)
        versions[sha256(path)] = value
    stop = threading.Event()

    def replace():
        while not stop.is_set():
            for value in (1, 2):
                shutil.copy(tmp_path / f"{value}.weights.h5", tmp_path / "next")
                (tmp_path / "next").replace(folder.best_weights)

    replace_once = threading.Thread(target=replace)
    classifier = build_from_config(CONFIG)
    replace_once.start()
    try:
        loaded = [hdf5.load_weights(classifier, folder.best_weights) for _ in range(3)]
        while len({result.digest for result in loaded[3:]}) < 2 or len(loaded) < 40:
            loaded.append(hdf5.load_weights(classifier, folder.best_weights))
            value = versions[loaded[-1].digest]
            assert (values_of(loaded[-1]), loaded[-1].step) == ({float(value)}, value)
    finally:
        stop.set()
        replace_once.join()


def test_a_file_that_is_being_copied_over_is_read_again(folder, monkeypatch):
    """The file is overwritten in place, for example by `cp`: the first read sees half of it."""
    whole = folder.best_weights.read_bytes()
    folder.best_weights.write_bytes(whole[: len(whole) // 2])
    load_content = hdf5._load_content

    def then_the_rest(classifier, content, path):
        folder.best_weights.write_bytes(whole)
        return load_content(classifier, content, path)

    monkeypatch.setattr(hdf5, "_load_content", then_the_rest)
    loaded = load_run(folder, CONFIG)
    assert (values_of(loaded), loaded.digest) == ({5.0}, hashlib.sha256(whole).hexdigest())


@pytest.mark.parametrize("moment", ["before it is opened", "while it is restored", "afterwards"])
@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_checkpoint_that_goes_meanwhile_is_looked_for_again(folder, monkeypatch, moment, change):
    """A run in training removes the oldest checkpoint, and a restarted one may replace any."""
    done = []

    def go_on():
        if done:
            return
        done.append(True)
        if change == "removed":
            write_checkpoint(folder, 3)
            for path in files_of(folder, 2):
                path.unlink()
        else:
            write_checkpoint(folder, 2, 7)

    def then(function, first=True):
        def call(*arguments):
            if first:
                go_on()
            result = function(*arguments)
            if not first:
                go_on()
            return result

        return call

    if moment == "before it is opened":
        monkeypatch.setattr(load, "opened_checkpoint", then(load.opened_checkpoint))
    elif moment == "while it is restored":
        monkeypatch.setattr(load, "readable_prefix", then(load.readable_prefix))
    else:
        monkeypatch.setattr(load, "digest_of_files", then(load.digest_of_files, first=False))
    loaded = load_run(folder, CONFIG, "last")
    assert done
    step, value = (3, 3.0) if change == "removed" else (2, 7.0)
    assert (values_of(loaded), loaded.step) == ({value}, step)
    assert loaded.digest == sha256(*files_of(folder, step)) == weights_digest(folder, "last")


def test_checkpoints_that_go_while_they_are_looked_at_are_not_damaged(folder, monkeypatch, caplog):
    fault = checkpoints.checkpoint_fault

    def train(prefix):
        if not files_of(folder, 3):
            write_checkpoint(folder, 3)
            for path in [*files_of(folder, 1), *files_of(folder, 2)]:
                path.unlink()
        return fault(prefix)

    monkeypatch.setattr(checkpoints, "checkpoint_fault", train)
    assert newest_checkpoint(folder.checkpoints) == str(folder.checkpoints / "ckpt-3")
    assert "damaged" not in caplog.text


def test_weights_of_a_run_that_began_meanwhile_are_refused(folder):
    """`config` was read before train.py --start_new_model."""
    other = dataclasses.replace(CONFIG, objective=ObjectiveConfig(class_reduction="sum"))
    folder.prepare(other, start_new_model=True)
    hdf5.save_weights(classifier_of(8), folder.best_weights)
    with pytest.raises(ConfigError, match=r"holds another run than a moment ago"):
        load_run(folder, CONFIG)
    assert values_of(load_run(folder, other)) == {8.0}
