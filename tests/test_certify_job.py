"""eval.py --certify: the pass over a set, its rows in the file, and going on with them.

FrameLevelLogisticModel averages the frames and is linear in them, so that the distance to each
label's decision has a closed form.
"""

import json

import keras
import numpy as np
import pytest

from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.data import Reader, find_files, preprocess
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import certificate_measures
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import read_run
from yt8m_gat.report.table import format_evaluation
from yt8m_gat.run_folder import RunFolder

pytestmark = pytest.mark.slow

CONFIG = RunConfig(
    data=DataConfig(feature_names=("audio",), feature_sizes=(128,), num_classes=8, max_frames=12),
    model=ModelConfig(name="FrameLevelLogisticModel"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run") / "run")
    folder.prepare(CONFIG)
    keras.utils.set_random_seed(0)
    classifier = build_from_config(CONFIG)
    classifier.save_weights(folder.best_weights)
    return folder, classifier


@pytest.fixture(scope="module")
def certified(run, sample_dir):
    options = {
        "eval_data_pattern": f"{sample_dir}/test*.tfrecord",
        "output_file": run[0].path / "evaluation.json",
        "certify": True,
        "sigma": (0.5,),
        "radii": (0.0, 0.2, 1.0),
        "samples": 400,
        "certify_selection_samples": 40,
        "batch_size": 20,
    }
    return pipeline.evaluate(run[0], **options), options


def test_shares_are_at_most_those_of_the_closed_form(run, certified):
    folder, classifier = run
    result, options = certified
    [row] = result["certificates"]
    [batch] = Reader(find_files(options["eval_data_pattern"], ""), read_schema(folder, CONFIG), 32)
    features, mask = preprocess(batch["features"], batch["num_frames"])
    z = classifier.forward(features, mask).logits.numpy()
    [slope] = [weight.numpy() for weight in classifier.trainable_weights if weight.ndim == 2]
    labels, lengths = batch["labels"].numpy() > 0, batch["num_frames"].numpy()
    # The mean over T frames changes by |r| / sqrt(T) for a perturbation that all frames share.
    distances = np.abs(z) / np.linalg.norm(slope, axis=0) * np.sqrt(lengths)[:, np.newaxis]
    right = (z >= 0) == labels
    assert (row["num_clips"], row["num_labels"]) == (32, labels.sum())
    assert row["passes"] == 440
    curve = {(at["norm_scope"], at["epsilon"]): at for at in row["curve"]}
    for scope, factor in (("joint", np.ones(32)), ("frame", np.sqrt(lengths))):
        for radius in options["radii"]:
            holds = right & (distances > radius * factor[:, np.newaxis])
            at_most = (holds & labels).sum() / labels.sum()
            assert 0 <= curve[scope, radius]["recall"] <= at_most
    # 400 of 400 bound the share by 0.982: radii up to a sigma are found.
    holds = right & (distances > 0.2 + 0.4 * 0.5)
    assert curve["joint", 0.2]["recall"] >= 0.9 * (holds & labels).sum() / labels.sum()
    assert curve["joint", 0.2]["recall"] > 0.2
    for at in row["curve"]:
        low, high = at["intervals"]["recall"]
        assert low <= at["recall"] <= high


def test_the_file_the_text_and_the_page_have_the_row(run, certified):
    result, options = certified
    assert json.loads(options["output_file"].read_text())["certificates"] == result["certificates"]
    text = format_evaluation(result)
    assert "Certified, smoothed by sigma 0.5 (400 samples, failure 0.001 a clip)" in text
    [line] = [line for line in text.splitlines() if line.startswith("joint, radius 0.2")]
    share = result["certificates"][0]["curve"][1]["recall"]
    assert f"{share:.4f}" in line.split()
    page, figures = build_page([read_run(run[0].path)])
    assert "<h2>Certificates</h2>" in page
    assert {"certified_joint", "certified_frame"} <= figures.keys()


def test_it_goes_on_where_it_was_interrupted(run, certified, tmp_path, monkeypatch):
    options = {**certified[1], "sigma": (0.5, 1.0), "samples": 3, "certify_selection_samples": 2}
    options["output_file"] = tmp_path / "x.json"
    expected = pipeline.evaluate(run[0], **{**options, "output_file": None})["certificates"]
    measure, calls = certificate_measures.measure_certificates, []

    def counted(*arguments):
        calls.append(arguments[2].sigma)
        if calls == [0.5, 1.0]:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(certificate_measures, "measure_certificates", counted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.evaluate(run[0], **options)
    assert [row["sigma"] for row in json.loads((tmp_path / "x.json").read_text())["certificates"]]
    assert pipeline.evaluate(run[0], **options)["certificates"] == expected
    assert calls == [0.5, 1.0, 1.0]
    # Another sigma stays; the same with other settings is measured again.
    again = pipeline.evaluate(run[0], **{**options, "sigma": (1.0,), "samples": 4})["certificates"]
    assert calls == [0.5, 1.0, 1.0, 1.0]
    assert again[0] == expected[0] and again[1]["samples"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certify": True}, "--certify needs the standard deviation of the noise"),
        ({"sigma": (0.5,)}, "--sigma is for certificates: give --certify too"),
        ({"certify": True, "sigma": (0.0,)}, "--sigma must be positive, and finite. Received: 0"),
        ({"certify": True, "sigma": (1.0,), "radii": (-1.0,)}, "--radii must be at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(run, options, message):
    with pytest.raises(ConfigError, match=message):
        pipeline.evaluate(run[0], eval_data_pattern="x", **options)
