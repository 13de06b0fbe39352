"""One run of several: ensembles and soups, made, used, and refused."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.commands import ensemble as command
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, ObjectiveConfig, RunConfig
from yt8m_gat.data.record_files import read_records
from yt8m_gat.export import read_archive, write_archive
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import ensembling
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.hdf5 import save_weights

DATA = DataConfig(num_classes=8, max_frames=12, normalize="concat")
LOGISTIC = RunConfig(data=DATA, model=ModelConfig(name="FrameLevelLogisticModel"))
DBOF = RunConfig(
    data=DATA,
    model=ModelConfig(
        name="DbofModel",
        options={"dbof_cluster_size": 8, "dbof_hidden_size": 4, "dual_normalization": True},
    ),
    objective=ObjectiveConfig(adversarial="temporal"),
)


def make_run(path, config, seed):
    folder = RunFolder(path)
    folder.prepare(config)
    classifier = build_from_config(config)
    rng = np.random.default_rng(seed)
    for weight in classifier.weights:
        if np.issubdtype(weight.numpy().dtype, np.floating):
            # Moving variances must stay positive.
            weight.assign(weight.numpy() + np.abs(rng.normal(0, 0.3, weight.shape)))
    save_weights(classifier, folder.best_weights, step=seed)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    keras.utils.set_random_seed(0)
    place = tmp_path_factory.mktemp("members")
    a, b = make_run(place / "a", LOGISTIC, 1), make_run(place / "b", LOGISTIC, 2)
    return place, a, b, make_run(place / "dbof", DBOF, 3)


def clips(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: [rng.integers(0, 256, (frames, size), np.uint8) for frames in (12, 3)]
        for name, size in DATA.sizes.items()
    }


def probabilities(path):
    table = yt8m_gat.load_run(path).predict(clips(), top_k=None)
    return table.pivot(index="video_id", columns="label", values="probability").to_numpy()


@pytest.mark.slow
def test_an_ensemble_is_a_run_whose_probabilities_are_the_mean(runs, tmp_path, capsys):
    place, a, _, dbof = runs
    command.main([str(a.path), str(dbof.path), f"--output_dir={place}/both", "--weights=1,3"])
    assert f"{place}/both: the mean of 2 runs" in capsys.readouterr().out
    expected = 0.25 * probabilities(a.path) + 0.75 * probabilities(dbof.path)
    np.testing.assert_allclose(probabilities(place / "both"), expected, rtol=1e-5)
    config = RunConfig.load(place / "both")
    assert config.model.name == "Ensemble" and RunConfig.from_json(config.to_json()) == config
    first, second = config.model.members
    assert (first.weight, second.weight) == (0.25, 0.75)
    assert second.options == {**DBOF.model.options, "dual_normalization": False}
    write_archive(RunFolder(place / "both"), tmp_path / "model.tgz")
    unpacked = read_archive(tmp_path / "model.tgz", tmp_path / "model")
    np.testing.assert_array_equal(probabilities(unpacked.path), probabilities(place / "both"))


@pytest.mark.slow
def test_an_ensemble_is_evaluated_inferred_and_exported(runs, sample_dir, tmp_path):
    _, a, b, _ = runs
    folder = RunFolder(tmp_path / "both")
    pipeline.make_ensemble(folder, [a.path, b.path])
    pattern = f"{sample_dir}/validate*.tfrecord"
    options = {"eval_data_pattern": pattern, "attacks": ["fgm"], "epsilons": [0.5]}
    result = pipeline.evaluate(folder, **options)
    [attacked] = result["attacks"]
    assert 0 < attacked["gap"] < result["clean"]["gap"] < 1
    assert attacked["loss"] > result["clean"]["loss"]  # Gradients flow through the mean.
    pipeline.infer(folder, input_data_pattern=pattern, output_file=tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 33
    version = pipeline.export_run(folder, tmp_path / "served")
    serve = tf.saved_model.load(str(version)).signatures["serving_default"]
    [path, *_] = sorted(map(str, sample_dir.glob("validate*.tfrecord")))
    records = [payload for _, payload in read_records(path)]
    table = yt8m_gat.load_run(folder.path).predict(path)
    np.testing.assert_allclose(
        serve(example_bytes=tf.constant(records))["predictions"].numpy().ravel(),
        table["probability"],
        rtol=1e-5,
    )
    with pytest.raises(ConfigError, match="class_activation need the frames that logits depend"):
        pipeline.evaluate(folder, eval_data_pattern=pattern, class_activation=True)


def test_a_uniform_soup_has_the_mean_weights(runs, tmp_path, capsys):
    _, a, b, _ = runs
    arguments = [str(a.path), str(b.path), f"--output_dir={tmp_path}/soup"]
    command.main([*arguments, "--soup=uniform", "--weights=3,1"])
    soup, first, second = (
        yt8m_gat.load_run(path).model.get_weights() for path in (tmp_path / "soup", a, b)
    )
    for mixed, x, y in zip(soup, first, second, strict=True):
        np.testing.assert_allclose(mixed, 0.75 * x + 0.25 * y, rtol=1e-6, atol=1e-8)
    assert RunConfig.load(tmp_path / "soup") == LOGISTIC
    [line] = RunFolder(tmp_path / "soup").read_metrics()
    assert line["kind"] == "soup" and list(line["weights"]) == [str(a.path), str(b.path)]
    assert "batch normalization" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_soup_of_batch_normalized_runs_says_what_it_averages(runs, tmp_path, capsys):
    dbof = runs[3]
    pipeline.make_soup(RunFolder(tmp_path / "soup"), [dbof.path, dbof.path])
    assert "moving statistics of batch normalization are averages" in capsys.readouterr().err
    np.testing.assert_allclose(probabilities(tmp_path / "soup"), probabilities(dbof.path))


def test_a_greedy_soup_keeps_the_runs_that_do_not_lower_gap(runs, tmp_path, monkeypatch):
    _, a, b, _ = runs
    c = make_run(tmp_path / "c", LOGISTIC, 5)
    # GAP by the mean of the last weight's first value; b is best, a joins it, c does not.
    at = {folder.path: yt8m_gat.load_run(folder).model.get_weights()[-1][0] for folder in (a, b, c)}
    gaps = {at[a.path]: 0.5, at[b.path]: 0.6, at[c.path]: 0.4, (at[a.path] + at[b.path]) / 2: 0.7}

    def gap_of(weights):
        nearest = min(gaps, key=lambda value: abs(value - weights[-1][0]))
        return gaps[nearest] if abs(nearest - weights[-1][0]) < 1e-6 else 0.65

    monkeypatch.setattr(ensembling, "_gap_function", lambda *_: gap_of)
    made = pipeline.make_soup(
        RunFolder(tmp_path / "soup"),
        [c.path, a.path, b.path],
        method="greedy",
        eval_data_pattern="x",
    )
    assert made["runs"] == [str(b.path), str(a.path)] and made["soup"] == 0.7
    assert made["gap"] == {str(c.path): 0.4, str(a.path): 0.5, str(b.path): 0.6}
    mixed = yt8m_gat.load_run(tmp_path / "soup").model.get_weights()
    np.testing.assert_allclose(mixed[-1][0], (at[a.path] + at[b.path]) / 2, rtol=1e-6)


def test_runs_that_do_not_fit_are_named_before_any_is_loaded(runs, tmp_path, monkeypatch):
    _, a, b, _ = runs
    monkeypatch.setattr(ensembling, "load_run", None)
    target = RunFolder(tmp_path / "out")

    def other(name, **settings):
        folder = RunFolder(tmp_path / name)
        folder.prepare(dataclasses.replace(LOGISTIC, data=dataclasses.replace(DATA, **settings)))
        return folder.path

    wrong = {
        "num_classes: 9 != 8": other("classes", num_classes=9),
        "max_frames: 10 != 12": other("frames", max_frames=10),
        "normalize: 'none' != 'concat'": other("normalize", normalize="none"),
        "sizes: {'rgb': 1024}": other("f", feature_names=("rgb",), feature_sizes=(1024,)),
        r"order of features: \['audio', 'rgb'\]": other(
            "order", feature_names=("audio", "rgb"), feature_sizes=(128, 1024)
        ),
    }
    for message, path in wrong.items():
        with pytest.raises(ConfigError, match=message):
            pipeline.make_ensemble(target, [a.path, path])
    named = RunFolder(tmp_path / "named")
    names = b"label_id,label_name\n0,Cat\n"
    named.prepare(LOGISTIC, extractor={"label_names.csv": names})
    with pytest.raises(ConfigError, match=r"same label names.*class 0: 'Cat' != None"):
        pipeline.make_ensemble(target, [a.path, named.path])
    with pytest.raises(ConfigError, match="at least two runs"):
        pipeline.make_ensemble(target, [a.path])
    with pytest.raises(ConfigError, match="--weights must be 2 positive numbers"):
        pipeline.make_ensemble(target, [a.path, b.path], weights=[1, -1])
    with pytest.raises(ConfigError, match="holds a run: name a new folder"):
        pipeline.make_ensemble(b, [a.path, b.path])
    with pytest.raises(ConfigError, match="--eval_data_pattern and --soup=greedy go together"):
        pipeline.make_soup(target, [a.path, b.path], method="greedy")
    assert not (target.path / "config.json").exists()


def test_a_soup_of_two_architectures_is_refused(runs, tmp_path):
    _, a, _, dbof = runs
    with pytest.raises(ConfigError, match=r"runs of one architecture.*FrameLevelLogisticModel"):
        pipeline.make_soup(RunFolder(tmp_path / "soup"), [a.path, dbof.path])
