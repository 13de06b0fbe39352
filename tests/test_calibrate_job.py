"""Calibration of a run: the job, and what uses its file."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.calibration import Calibration
from yt8m_gat.commands import calibrate as command
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.data import Reader, RecordSchema, find_files, preprocess
from yt8m_gat.data.record_files import read_records
from yt8m_gat.export import read_archive, write_archive
from yt8m_gat.metrics.calibration import fit_temperature, fit_thresholds
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline.calibration import calibration_of
from yt8m_gat.pipeline.video_inference import json_object
from yt8m_gat.pipeline.video_prediction import VideoClassification
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import read_run
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.hdf5 import save_weights
from yt8m_gat.weights.load import load_run

pytestmark = pytest.mark.slow

CONFIG = RunConfig(
    data=DataConfig(num_classes=8, max_frames=12, normalize="concat"),
    model=ModelConfig(name="FrameLevelLogisticModel"),
)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, sample_dir):
    """A run whose weights are random, and the calibration of the command."""
    keras.utils.set_random_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("calibration") / "run")
    folder.prepare(CONFIG)
    save_weights(build_from_config(CONFIG), folder.best_weights, step=3)
    command.main(
        [
            f"--train_dir={folder.path}",
            f"--eval_data_pattern={sample_dir}/validate*.tfrecord",
            "--min_positives=12",
        ]
    )
    return folder, Calibration.load(folder.path)


def copy_of(folder, path):
    shutil.copytree(folder.path, path)
    return RunFolder(path)


def outputs_of(folder, pattern):
    """Labels and logits [N, C] by the reader and the model, in one batch; and the records."""
    loaded = load_run(folder, CONFIG)
    files = find_files(pattern, "x")
    schema = RecordSchema.from_config(CONFIG.data)
    [batch] = Reader(files, schema, 64)
    features, mask = preprocess(batch["features"], batch["num_frames"], "concat")
    logits = loaded.classifier({**features, "frame_mask": mask}, training=False).numpy()
    records = [payload for path in files for _, payload in read_records(path)]
    return loaded, batch["labels"].numpy(), logits, records


def test_the_command_keeps_what_the_functions_fit(calibrated, sample_dir):
    folder, kept = calibrated
    loaded, labels, logits, _ = outputs_of(folder, f"{sample_dir}/validate*.tfrecord")
    temperature = fit_temperature(labels, logits)
    assert 0.01 < temperature < 100 and abs(temperature - 1) > 0.01
    np.testing.assert_allclose(kept.temperature, temperature, rtol=1e-5)
    expected = fit_thresholds(labels, 1 / (1 + np.exp(-logits / temperature)), min_positives=12)
    np.testing.assert_allclose(kept.thresholds, expected.of_classes, rtol=1e-4)
    assert kept.num_own == (labels.sum(axis=0) >= 12).sum() and 0 < kept.num_own < 8
    assert (kept.weights, kept.step, kept.num_examples) == (loaded.digest, 3, 32)
    assert kept.nll[1] < kept.nll[0]
    assert sum(count for count, _, _ in kept.bins) == 32 * 8
    assert calibration_of(folder, 8, loaded.digest) == kept


def test_the_export_has_calibrated_probabilities_and_tags_beside_the_rest(
    calibrated, sample_dir, tmp_path
):
    folder, kept = calibrated
    loaded, _, logits, records = outputs_of(folder, f"{sample_dir}/validate*.tfrecord")
    path = pipeline.export(loaded.classifier, CONFIG, tmp_path, calibration=kept)
    signatures = tf.saved_model.load(str(path)).signatures
    assert set(signatures) == {"serving_default", "frames", "tags"}
    outputs = signatures["tags"](example_bytes=tf.constant(records))
    expected = 1 / (1 + np.exp(-logits / kept.temperature))
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-5)
    np.testing.assert_array_equal(outputs["is_tag"], expected >= np.array(kept.thresholds))
    assert 0 < outputs["is_tag"].numpy().mean() < 1
    top = signatures["serving_default"](example_bytes=tf.constant(records))["predictions"]
    plain = np.sort(1 / (1 + np.exp(-logits)), axis=1)[:, ::-1]
    np.testing.assert_allclose(top, plain, rtol=1e-5)  # As of a run that is not calibrated.


def test_the_json_of_a_video_has_its_tags(calibrated, sample_dir):
    @dataclasses.dataclass
    class Extracted:
        features: dict
        seconds: tuple = (0.0, 1.0)
        duration: float = 2.0
        faults: tuple = ()

    folder, kept = calibrated
    loaded = load_run(folder, CONFIG)
    rng = np.random.default_rng(0)
    frames = {
        "rgb": rng.integers(0, 256, (2, 1024), np.uint8),
        "audio": rng.integers(0, 256, (2, 128), np.uint8),
    }
    schema = RecordSchema.from_config(CONFIG.data)
    everything = dataclasses.replace(kept, thresholds=(0.0,) * 7 + (1.1,))

    def line(calibration):
        classify = VideoClassification(
            loaded.classifier, schema, "concat", 2, calibration=calibration
        )
        return json_object("a.mp4", classify(Extracted(frames), "a"), {3: "Three"})

    plain, tagged = line(None), line(everything)
    tags = tagged.pop("tags")
    assert plain == tagged
    assert {tag["label"] for tag in tags} == set(range(7))  # Also beyond the two labels.
    shown = [tag["probability"] for tag in tags]
    assert shown == sorted(shown, reverse=True)
    [best] = [tag for tag in tags if tag["label"] == tagged["labels"][0]["label"]]
    p = tagged["labels"][0]["probability"]
    logit = np.log(p / (1 - p)) / kept.temperature
    np.testing.assert_allclose(best["probability"], 1 / (1 + np.exp(-logit)), rtol=1e-3)
    assert [tag["name"] for tag in tags if tag["label"] == 3] == ["Three"]


def test_a_calibration_of_other_weights_is_named_and_not_used(calibrated, tmp_path, capsys):
    folder, kept = calibrated
    assert calibration_of(folder, 8, "0" * 64) is None
    [line] = capsys.readouterr().err.splitlines()
    assert "belongs to other weights (the best weights of step 3)" in line
    assert "yt8m-gat calibrate" in line
    with pytest.raises(ConfigError, match=r"must have 9 thresholds.*Received: 8"):
        calibration_of(folder, 9, kept.weights)
    changed = copy_of(folder, tmp_path / "changed")
    changed.calibration.write_text(
        changed.calibration.read_text().replace('"temperature": ', '"temperature": -')
    )
    with pytest.raises(ConfigError, match=r"calibration.json: temperature must be positive"):
        calibration_of(changed, 8, kept.weights)
    changed.clear()
    assert not changed.calibration.exists()


def test_the_report_has_the_reliability_of_the_present_weights(calibrated, tmp_path):
    folder, kept = calibrated
    text, figures = build_page([read_run(folder)])
    assert f"<td>{kept.ece[0]:.4f}</td><td>{kept.ece[1]:.4f}</td>" in text
    assert figures["reliability_run"].count("<circle") == len(kept.bins + kept.calibrated_bins)
    other = copy_of(folder, tmp_path / "other")
    save_weights(build_from_config(CONFIG), other.best_weights, step=4)
    run = read_run(other)
    assert run.calibration is None and "belongs to other weights" in run.unreadable[0]


def test_an_archive_holds_the_calibration(calibrated, tmp_path):
    folder, kept = calibrated
    write_archive(folder, tmp_path / "model.tgz")
    assert Calibration.load(read_archive(tmp_path / "model.tgz", tmp_path / "model")) == kept


def test_too_many_logits_are_refused_with_the_remedy(calibrated, sample_dir, monkeypatch):
    folder, _ = calibrated
    monkeypatch.setattr(pipeline.calibration, "MAX_SCORE_BYTES", 4 * 8 * 20)
    options = {"eval_data_pattern": f"{sample_dir}/validate*.tfrecord", "batch_size": 8}
    with pytest.raises(ConfigError, match=r"at most 20 of 8 classes.*--max_videos"):
        pipeline.calibrate(folder, **options)
