"""The whole way on a tiny sample: train, resume, evaluate, predict, export."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.config import (
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.data import BadRecordError, Reader, RecordSchema
from yt8m_gat.export.saved_model import PROVENANCE_FILE
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import inference
from yt8m_gat.prediction.inference import predict
from yt8m_gat.prediction.submission import SubmissionWriter
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.files import weights_digest
from yt8m_gat.weights.load import load_classifier, load_run

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {"num_heads": 2, "hidden_size": 16, "feed_forward_size": 16, "local_masks": ("bd4",)}


def make_config(adversarial="frobenius", **training):
    training = {"batch_size": 16, "num_epochs": 2, "base_learning_rate": 1e-3, **training}
    return RunConfig(
        data=DataConfig(num_classes=8, max_frames=12),
        model=ModelConfig(name="GMSA", options=OPTIONS),
        objective=ObjectiveConfig(adversarial=adversarial),
        training=TrainingConfig(**training),
    )


def train(folder, config, sample_dir, **options):
    return pipeline.train(
        folder, config, train_data_pattern=f"{sample_dir}/train*.tfrecord", **options
    )


def first_weights(config, path):
    build_from_config(config).save_weights(path)
    return path.read_bytes()


def final_weights(folder, config):
    return [w.numpy() for w in load_classifier(folder, config, "last").weights]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sample_dir):
    """A finished run, validated, exported."""
    path = tmp_path_factory.mktemp("runs")
    folder, config = RunFolder(path / "gat"), make_config()
    state = train(
        folder,
        config,
        sample_dir,
        eval_data_pattern=f"{sample_dir}/validate*.tfrecord",
        export_dir=path / "export",
    )
    return folder, config, state, path / "export"


def test_a_run_folder_holds_what_later_steps_need(finished):
    folder, config, state, _ = finished
    assert state.step == 12 and state.finished(config.training) == "--num_epochs=2 done"
    assert RunConfig.load(folder.path) == config
    assert set(json.loads((folder.path / "versions.json").read_text())) >= {"tensorflow", "keras"}
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [6, 12]
    assert max(line["gap"] for line in validations) == state.best_gap
    assert folder.best_weights.is_file()
    assert list(folder.events.iterdir())
    hidden = [path.name for path in folder.path.rglob(".*")]
    assert not hidden and not list(folder.path.rglob("*_temp"))


@pytest.mark.slow
def test_exporting_later_leaves_the_best_weights_alone(finished, sample_dir, tmp_path):
    """As the README has it: the same command with --export_dir, here without validation files."""
    folder, config, *_ = finished
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(folder.path, copy.path)
    # As of a run whose best was not its last.
    copy.best_weights.write_bytes(best := first_weights(config, tmp_path / "first.weights.h5"))
    train(copy, config, sample_dir, export_dir=tmp_path / "export")
    assert copy.best_weights.read_bytes() == best
    assert list((tmp_path / "export").iterdir())


@pytest.mark.slow
def test_eval_gives_every_metric_clean_and_attacked(finished, sample_dir, tmp_path):
    folder, *_ = finished
    output_file = tmp_path / "evaluation.json"
    result = pipeline.evaluate(
        folder,
        eval_data_pattern=f"{sample_dir}/test*.tfrecord",
        attacks=("fgm",),
        epsilons=(0.0, 5.0),
        output_file=output_file,
    )
    assert json.loads(output_file.read_text()) == result
    names = {"gap", "map", "map_all_scores", "perr", "hit_at_1", "loss", "num_videos"}
    assert set(result["clean"]) >= names
    assert result["clean"]["num_videos"] == 32
    still, moved = result["attacks"]
    assert (still["attack"], still["epsilon"], moved["epsilon"]) == ("fgm", 0.0, 5.0)
    for name in names:
        assert still[name] == pytest.approx(result["clean"][name], abs=1e-6)
    assert moved["loss"] > result["clean"]["loss"]
    assert moved["norm"] == pytest.approx(5.0, rel=1e-4)


def test_the_csv_is_the_models_top_classes_in_input_order(finished, sample_dir, tmp_path):
    folder, config, *_ = finished
    output_file = tmp_path / "submission.csv"
    count = pipeline.infer(
        folder,
        input_data_pattern=f"{sample_dir}/test*.tfrecord",
        output_file=output_file,
        batch_size=7,
        top_k=3,
    )
    frame = pd.read_csv(output_file)
    assert list(frame.columns) == ["VideoId", "LabelConfidencePairs"]
    assert len(frame) == count == 32

    files = sorted(str(path) for path in sample_dir.glob("test*.tfrecord"))
    reader = Reader(files, RecordSchema.from_config(config.data), 32)
    [(ids, probabilities)] = predict(load_classifier(folder, config), reader)
    assert list(frame["VideoId"]) == [video_id.decode() for video_id in ids]
    for row, expected in zip(frame["LabelConfidencePairs"], probabilities, strict=True):
        labels, scores = np.array(row.split(" "), float).reshape(-1, 2).T
        np.testing.assert_array_equal(labels, np.argsort(-expected, kind="stable")[:3])
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][:3], rtol=2e-5)


def test_the_saved_model_predicts_what_the_model_predicts(finished, sample_dir):
    folder, config, _, export_dir = finished
    assert [path.name for path in export_dir.iterdir()] == ["1"]
    loaded = tf.saved_model.load(str(export_dir / "1"))
    serve = loaded.signatures["serving_default"]
    files = sorted(str(path) for path in sample_dir.glob("test*.tfrecord"))
    records = [r.numpy() for path in files for r in tf.data.TFRecordDataset(path)]
    reader = Reader(files, RecordSchema.from_config(config.data), 32)
    [(ids, probabilities)] = predict(load_classifier(folder, config), reader)
    for batch in (records[:1], records[:5], records):
        served = serve(example_bytes=tf.constant(batch))
        n = len(batch)
        np.testing.assert_array_equal(served["video_id"], ids[:n])
        assert served["class_indexes"].dtype == tf.int32
        assert served["class_indexes"].shape == (n, 8)
        np.testing.assert_allclose(
            served["predictions"], -np.sort(-probabilities[:n], axis=1), atol=1e-5
        )


def test_each_weight_is_stored_once(finished):
    folder, config, _, export_dir = finished
    stored = (export_dir / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    weights = 4 * load_classifier(folder, config).count_params()
    assert weights <= stored < 1.1 * weights


def test_an_export_says_which_weights_it_has(finished):
    folder, _, state, export_dir = finished
    assert json.loads((export_dir / "1" / PROVENANCE_FILE).read_text()) == {
        "version": yt8m_gat.__version__,
        "train_dir": str(folder.path),
        "checkpoint": "best",
        "weights": weights_digest(folder, "best"),
        "step": state.best_step,
    }


@pytest.mark.slow
def test_rows_of_a_csv_belong_to_the_weights_that_made_them(
    finished, sample_dir, tmp_path, monkeypatch
):
    """Another process replaces the weights as soon as they have been loaded."""
    folder = RunFolder(shutil.copytree(finished[0].path, tmp_path / "run"))
    digest = weights_digest(folder, "best")
    seen = []

    def load_and_go_on(*arguments):
        loaded = load_run(*arguments)
        first_weights(finished[1], folder.best_weights)
        return loaded

    class Writer(SubmissionWriter):
        def __init__(self, path, top_k, settings, earlier):
            seen.append(settings["weights"])
            super().__init__(path, top_k, settings, earlier)

    monkeypatch.setattr(inference, "load_run", load_and_go_on)
    monkeypatch.setattr(inference, "SubmissionWriter", Writer)
    files, output_file = f"{sample_dir}/test*.tfrecord", tmp_path / "submission.csv"
    pipeline.infer(folder, input_data_pattern=files, output_file=output_file)
    assert seen == [digest] != [weights_digest(folder, "best")]


@pytest.mark.slow
def test_an_export_never_touches_an_older_version(finished, tmp_path):
    folder, config, *_ = finished
    classifier = load_classifier(folder, config)
    assert pipeline.export(classifier, config, tmp_path).name == "1"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert pipeline.export(classifier, config, tmp_path).name == "2"
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(
            name="Transformer", options={"num_heads": 2, "hidden_size": 16, "dropout": 0.2}
        ),
        ModelConfig(
            name="DbofModel",
            options={"dbof_cluster_size": 16, "dbof_hidden_size": 8, "iterations": 5},
        ),
    ],
    ids=lambda model: model.name,
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, sample_dir, model):
    """Stopped inside the second epoch; dropout, random frames and moving averages at work."""
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    data = DataConfig(feature_names=("audio",), feature_sizes=(128,), num_classes=8, max_frames=12)
    config = dataclasses.replace(
        make_config(adversarial="output", num_epochs=3, max_steps=15), data=data, model=model
    )
    train(whole, config, sample_dir)
    for max_steps in (8, 15):
        part = dataclasses.replace(
            config, training=dataclasses.replace(config.training, max_steps=max_steps)
        )
        state = train(parts, part, sample_dir)
        assert state.step == max_steps
    for ours, theirs in zip(
        final_weights(whole, config), final_weights(parts, config), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_other_settings_than_the_stored_ones_are_refused_by_name(finished):
    folder, *_ = finished
    with pytest.raises(ConfigError, match=r"objective.adversarial: 'frobenius' != 'output'"):
        folder.prepare(make_config(adversarial="output"))


@pytest.mark.slow
def test_start_new_model_drops_the_run_and_nothing_else(tmp_path, sample_dir):
    folder = RunFolder(tmp_path)
    train(folder, make_config(adversarial="none", max_steps=1), sample_dir)
    note = tmp_path / "note.txt"
    note.write_text("mine")
    folder.prepare(make_config(adversarial="output"), start_new_model=True)
    assert note.read_text() == "mine"
    assert not folder.best_weights.exists() and not folder.checkpoints.exists()


def test_an_objective_that_cannot_work_costs_no_run(finished, sample_dir):
    folder, config, *_ = finished
    objective = ObjectiveConfig(adversarial="frobenius", penalized_levels=("global", "bd99"))
    wrong = dataclasses.replace(config, objective=objective)
    with pytest.raises(ConfigError, match="--penalized_levels"):
        train(folder, wrong, sample_dir, start_new_model=True)
    assert RunConfig.load(folder.path) == config and folder.best_weights.is_file()


@pytest.mark.parametrize("flag", ["train_data_pattern", "eval_data_pattern"])
def test_files_without_rated_segments_are_refused_at_the_start(tmp_path, sample_dir, flag):
    """Not when the first validation is due, and not as a fault of the program."""
    data = DataConfig(num_classes=8, max_frames=12, segment_labels=True)
    config = dataclasses.replace(make_config(adversarial="none"), data=data)
    of_validation = flag == "eval_data_pattern"
    others = {flag: f"{sample_dir}/validate*.tfrecord"} if of_validation else {}
    message = rf"--{flag}: none of \d+ records checked has a rating above 0.*--segment_labels"
    with pytest.raises(ConfigError, match=message):
        train(RunFolder(tmp_path / "run"), config, sample_dir, **others)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_begins_its_metrics_anew(tmp_path, sample_dir):
    folder, config = RunFolder(tmp_path), make_config(adversarial="none", max_steps=1)
    folder.append_metrics({"kind": "train", "step": 44})
    train(folder, config, sample_dir, eval_data_pattern=f"{sample_dir}/validate*.tfrecord")
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines[:1]] == [("start", 0)]
    assert {line["step"] for line in lines[1:]} == {1}


@pytest.mark.slow
def test_a_bad_record_stops_training_with_its_place(tmp_path, sample_dir):
    with pytest.raises(BadRecordError, match=r"train.*--num_classes"):
        config = dataclasses.replace(make_config(), data=DataConfig(num_classes=2, max_frames=12))
        train(RunFolder(tmp_path), config, sample_dir)


def test_a_pattern_without_files_names_its_flag_and_costs_no_run(finished, tmp_path):
    folder, config, *_ = finished
    with pytest.raises(ConfigError, match="--train_data_pattern"):
        train(folder, config, tmp_path / "nowhere", start_new_model=True)
    assert folder.best_weights.is_file()
    with pytest.raises(ConfigError, match="--train_data_pattern"):
        train(RunFolder(tmp_path / "run"), config, tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_no_csv_appears_where_prediction_fails(finished, tmp_path, sample_dir):
    folder, *_ = finished
    broken = tmp_path / "test0.tfrecord"
    whole = next(sample_dir.glob("test*.tfrecord")).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    output_file = tmp_path / "submission.csv"
    with pytest.raises(BadRecordError, match=r"test0\.tfrecord"):
        pipeline.infer(folder, input_data_pattern=str(broken), output_file=output_file)
    assert [path.name for path in tmp_path.iterdir()] == ["test0.tfrecord"]


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_it_goes_on_where_it_was(tmp_path, sample_dir, signal_number):
    command = [
        sys.executable,
        "train.py",
        "--model=Transformer",
        "--feature_names=audio",
        "--feature_sizes=128",
        f"--train_data_pattern={sample_dir}/train*.tfrecord",
        f"--train_dir={tmp_path}",
        "--num_classes=8",
        "--max_frames=12",
        "--num_heads=2",
        "--hidden_size=16",
        "--batch_size=16",
        "--checkpoint_steps=2",
        "--num_epochs=100000",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    printed = tmp_path / "printed.txt"
    with printed.open("w") as output:
        process = subprocess.Popen(
            [*command, "--start_new_model"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    deadline = time.monotonic() + 120
    while tf.train.latest_checkpoint(str(tmp_path / "checkpoints")) is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal_number)
    process.wait(timeout=60)
    reached = int(tf.train.latest_checkpoint(str(tmp_path / "checkpoints")).rpartition("-")[2])
    if signal_number == signal.SIGINT:
        *_, what, go_on = printed.read_text().splitlines()
        assert what.startswith(f"{tmp_path}: {reached} steps in ") and "stopped by SIGINT" in what
        assert go_on == f"go on with: {shlex.join(command)}"

    command[-1] = f"--max_steps={reached + 3}"
    again = subprocess.run(
        [*command, "--num_epochs=100000"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0, again.stderr
    assert f"resuming at step {reached}\n" in again.stdout
    assert f"{reached + 3} steps" in again.stdout


def test_attention_figures_say_how_uniform_the_maps_are(finished):
    folder, config, *_ = finished
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    validation = next(line for line in lines if line["kind"] == "validation")
    for feature in config.data.feature_names:
        assert 0 < validation[f"attention_entropy_{feature}"] <= 1
        assert validation[f"distance_to_uniform_{feature}"] > 0


def test_unknown_attacks_and_missing_folders_are_refused_before_any_work(finished, sample_dir):
    folder, *_ = finished
    pattern = f"{sample_dir}/test*.tfrecord"
    with pytest.raises(ConfigError, match=r"--attacks must be of fgm, .* Received: 'fgsm'"):
        pipeline.evaluate(folder, eval_data_pattern=pattern, attacks=("fgsm",))
    with pytest.raises(ConfigError, match="its folder does not exist"):
        pipeline.evaluate(folder, eval_data_pattern=pattern, output_file="/nowhere/x.json")
