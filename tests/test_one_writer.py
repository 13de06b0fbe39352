"""Every output of the product has one writer, and nothing of a killed one stays."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from yt8m_gat import pipeline
from yt8m_gat.acquisition.download import Downloader
from yt8m_gat.acquisition.sample import SampleConfig, generate_sample
from yt8m_gat.commands.page_file import write_page
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.data.label_space import LabelMap
from yt8m_gat.export import export_saved_model, read_archive, write_archive
from yt8m_gat.locks import InUseError, only_writer, only_writer_in
from yt8m_gat.prediction.submission import SegmentSubmissionWriter, SubmissionWriter
from yt8m_gat.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
CONFIG = RunConfig(
    data=DataConfig(num_classes=8, max_frames=12, normalize="concat"),
    model=ModelConfig(name="FrameLevelLogisticModel"),
    training=TrainingConfig(batch_size=16, max_steps=4, checkpoint_steps=2),
)


def train(path, sample_dir, **options):
    return pipeline.train(
        RunFolder(path), CONFIG, train_data_pattern=f"{sample_dir}/train*.tfrecord", **options
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, sample_dir):
    path = tmp_path_factory.mktemp("one_writer") / "run"
    train(path, sample_dir)
    return path


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_second_train_py_ends_at_once_and_the_first_is_not_disturbed(tmp_path, sample_dir):
    run = tmp_path / "run"
    arguments = [
        "--model=FrameLevelLogisticModel",
        f"--train_data_pattern={sample_dir}/train*.tfrecord",
        f"--train_dir={run}",
        "--num_classes=8",
        "--max_frames=12",
        "--max_steps=3",
    ]
    first = start("train.py", *arguments)
    deadline = time.monotonic() + 100
    while not (run / ".lock").exists():
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.02)
    second = start("train.py", *arguments, "--batch_size=8", "--start_new_model")
    output, errors = second.communicate(timeout=100)
    assert second.returncode == 2 and output == ""
    assert re.fullmatch(
        rf"train\.py: error: {re.escape(str(run))} is being written by process {first.pid} on "
        r"\S+ since \S+ \S+ \(train\.py\): [^\n]*\n",
        errors,
    ), errors
    _, errors = first.communicate(timeout=200)
    assert first.returncode == 0, errors
    assert RunConfig.load(run).training.batch_size != 8
    assert not [path for path in run.rglob(".*")]


@contextlib.contextmanager
def held_elsewhere(take, path):
    """Another process, of Python alone, holds the lock."""
    script = (
        f"import sys; from yt8m_gat.locks import {take.__name__} as take\n"
        "with take(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "held\n"
        yield
        child.stdin.close()


def enter(context):
    with context:
        pass


# Each finds the lock before it reads or makes anything: what it is given is not there.
WRITERS = {
    "train": (only_writer_in, lambda path: train(path, "nowhere")),
    "evaluate": (
        only_writer,
        lambda path: pipeline.evaluate(
            RunFolder("nowhere"), eval_data_pattern="nowhere", output_file=path
        ),
    ),
    "submission": (only_writer, lambda path: enter(SubmissionWriter(path))),
    "resumable submission": (
        only_writer,
        lambda path: enter(SubmissionWriter(path, settings={"a": 1})),
    ),
    "segments": (only_writer, lambda path: enter(SegmentSubmissionWriter(path, [0]))),
    "unpack": (only_writer, lambda path: enter(pipeline.model_folder("", "nowhere", path))),
    "unpack where one trains": (only_writer_in, lambda path: read_archive("nowhere", path)),
    "export": (only_writer_in, lambda path: export_saved_model(None, None, path)),
    "label map": (only_writer, lambda path: LabelMap(((0, 0),), 1, ("a",)).save(path)),
    "sample": (only_writer_in, lambda path: generate_sample(path, SampleConfig())),
    "download": (only_writer, lambda path: Downloader().fetch("http://nowhere", path, "0" * 32)),
    "report": (only_writer, lambda path: write_page(path, "page", {}, None)),
    "figures": (
        only_writer_in,
        lambda path: write_page(path.with_name("page.html"), "page", {"f": "<svg/>"}, path),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_second_writer_is_refused_before_it_does_anything(tmp_path, name):
    take, write = WRITERS[name]
    path = tmp_path / "out"
    with held_elsewhere(take, path):
        with pytest.raises(InUseError, match="out is being written by process"):
            write(path)
        left = {"out", ".out.lock"} if take is only_writer_in else {".out.lock"}
        assert set(os.listdir(tmp_path)) - {"page.html"} <= left


def test_what_a_killed_writer_left_of_a_file_goes_with_the_next(tmp_path):
    for name in ("a[1].csv", ".a[1].csv.partial.json"):
        (tmp_path / f".{name}.unfinished").write_text("left")
    with SubmissionWriter(tmp_path / "a[1].csv", 1, {"a": 1}) as writer:
        writer.write(["v"], np.array([[0.5]]))
    assert os.listdir(tmp_path) == ["a[1].csv"]


def test_an_archive_has_one_writer(tmp_path, run):
    with (
        held_elsewhere(only_writer, tmp_path / "model.tgz"),
        pytest.raises(InUseError, match=r"model\.tgz is being written"),
    ):
        write_archive(RunFolder(run), tmp_path / "model.tgz")


@pytest.mark.parametrize("script", ["eval.py", "inference.py"])
def test_scripts_find_the_lock_of_their_output_first(tmp_path, script):
    with held_elsewhere(only_writer, tmp_path / "out"):
        refused = start(script, f"--train_dir={tmp_path}/no", f"--output_file={tmp_path}/out")
        _, errors = refused.communicate(timeout=100)
    assert refused.returncode == 2
    assert re.fullmatch(rf"{script}: error: \S+/out is being written by [^\n]*\n", errors), errors


def test_a_run_is_evaluated_while_another_process_trains_it(tmp_path, run, sample_dir):
    with held_elsewhere(only_writer_in, run):
        result = pipeline.evaluate(
            RunFolder(run),
            eval_data_pattern=f"{sample_dir}/test*.tfrecord",
            output_file=run / "evaluation.json",
        )
    assert result["clean"]["num_videos"] == 32
    assert json.loads((run / "evaluation.json").read_text())["complete"]


class Deleting(keras.callbacks.Callback):
    """Deletes what somebody may delete while a run goes on, before its step `step`."""

    def __init__(self, step, *paths):
        super().__init__()
        self.step, self.paths = step, paths

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.step:
            for path in self.paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_what_is_deleted_during_a_run_is_there_again_at_the_next_checkpoint(tmp_path, sample_dir):
    config, versions = tmp_path / "run" / "config.json", tmp_path / "run" / "versions.json"
    train(
        tmp_path / "run",
        sample_dir,
        callbacks=[Deleting(1, config, versions, tmp_path / "run" / ".lock")],
    )
    assert RunConfig.load(tmp_path / "run") == CONFIG
    assert "tensorflow" in json.loads(versions.read_text())
    train(tmp_path / "all", sample_dir, callbacks=[Deleting(3, tmp_path / "all")])
    assert RunConfig.load(tmp_path / "all") == CONFIG
    assert {"checkpoints", "best.weights.h5"} <= set(os.listdir(tmp_path / "all"))


def test_a_run_whose_lock_was_deleted_ends_when_another_one_has_taken_its_place(
    tmp_path, sample_dir
):
    class TakesItsPlace(Deleting):
        def on_train_batch_begin(self, batch, logs=None):
            super().on_train_batch_begin(batch, logs)
            if batch == self.step:
                others.enter_context(held_elsewhere(only_writer_in, tmp_path))

    with contextlib.ExitStack() as others, pytest.raises(InUseError):
        train(tmp_path, sample_dir, callbacks=[TakesItsPlace(1, tmp_path / ".lock")])
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_weights_without_a_configuration_are_not_resumed(tmp_path, run):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    (folder.path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json.*Put back a copy.*--start_new_model"):
        folder.check(CONFIG)
    folder.prepare(CONFIG, start_new_model=True)
    folder.check(CONFIG)
    assert not folder.best_weights.exists()


def test_what_killed_processes_left_is_removed_by_the_next(tmp_path, sample_dir):
    run, export = tmp_path / "run", tmp_path / "export"
    (run / "checkpoints" / "ckpt-1_temp").mkdir(parents=True)
    for path in (
        run / ".best.weights.h5.unfinished.weights.h5",
        run / ".config.json.unfinished",
        run / ".lock",
        export / ".7.unfinished" / "saved_model.pb",
        export / ".partial-abc" / "saved_model.pb",
        export / ".lock",
        run / ".evaluation.json.unfinished",  # That of eval.py, which may be at work.
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    train(run, sample_dir, export_dir=export)
    assert os.listdir(export) == ["1"]
    assert [path.name for path in run.rglob(".*")] == [".evaluation.json.unfinished"]
    assert not list(run.rglob("*_temp"))
    sample = tmp_path / "sample"
    sample.mkdir()
    (sample / ".train07.tfrecord.unfinished").write_text("left")
    generate_sample(sample, SampleConfig(num_train=1, num_validate=1, num_test=1, num_shards=1))
    assert sorted(os.listdir(sample)) == [
        "label_names.csv",
        "test00.tfrecord",
        "train00.tfrecord",
        "validate00.tfrecord",
    ]
