"""eval.py's job: rows, sections, refusals, and going on where it was interrupted."""

import base64
import dataclasses
import hashlib
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.commands import eval as eval_script
from yt8m_gat.commands.flag_table import all_flags
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, ObjectiveConfig, RunConfig
from yt8m_gat.data import find_files
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.job_settings import EvaluationSettings
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import (
    attack_plan,
    baseline_comparison,
    embedding_measures,
    evaluated_run,
    evaluation,
)
from yt8m_gat.pipeline.run_evaluator import MAP_FIGURES
from yt8m_gat.report.source import read_run
from yt8m_gat.report.table import format_evaluation
from yt8m_gat.robustness import surrogate
from yt8m_gat.robustness.sanity import sanity_checks
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.starter_flags import REPLACED
from yt8m_gat.weights.hdf5 import save_weights
from yt8m_gat.weights.load import load_classifier, load_run

NUM_CLASSES = 8
OPTIONS = {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8}
CONFIG = RunConfig(
    data=DataConfig(
        feature_names=("audio",), feature_sizes=(128,), num_classes=NUM_CLASSES, max_frames=12
    ),
    model=ModelConfig(name="Transformer", options=OPTIONS),
    objective=ObjectiveConfig(epsilon=2.0),
)


def make_run(path, config=CONFIG, seed=1):
    """A run folder as after a validation; its weights are not trained."""
    folder = RunFolder(path)
    folder.prepare(config)
    keras.utils.set_random_seed(seed)
    build_from_config(config).save_weights(folder.best_weights)
    return folder


# Each module-wide job takes half a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    return make_run(path / "ours"), make_run(path / "other", seed=2)


@pytest.fixture(scope="module")
def pattern(sample_dir):
    return f"{sample_dir}/test*.tfrecord"


@pytest.fixture(scope="module")
def tables(tmp_path_factory, pattern):
    """Names of the classes, groups of which one has no video, and a true span of the first clip."""
    path = tmp_path_factory.mktemp("tables")
    names = "\n".join(f"{index},class {index}" for index in range(NUM_CLASSES - 1))
    (path / "names.csv").write_text(f"label_id,label_name\n{names}\n")
    record = next(iter(tf.data.TFRecordDataset(find_files(pattern, "pattern")[0])))
    context = tf.train.SequenceExample.FromString(record.numpy()).context.feature
    first = context["id"].bytes_list.value[0].decode()
    (path / "spans.csv").write_text(f"video_id,label,start,end\n{first},class 1,0.25,0.75\n")
    (path / "groups.csv").write_text("index,group\n0,even\n2,even\n4,even\n1,odd\n")
    return path


@pytest.fixture(scope="module")
def whole(runs, pattern, tables, tmp_path_factory):
    """An evaluation with everything, and what it was asked for."""
    ours, other = runs
    options = {
        "eval_data_pattern": pattern,
        "attacks": ("fgm", "pgd:steps=2", "deepfool:steps=1", "adaptive", "transfer"),
        "attack_steps": 2,
        "transfer_from": other.path,
        "corruptions": ("frame_drop", "gaussian_noise"),
        "severities": (5,),
        "partitions": 2,
        "label_names": tables / "names.csv",
        "vocabulary": tables / "groups.csv",
        "compare_to": other.path,
        "min_positives": 4,
        "attention": True,
        "sensitivity_videos": 3,
        "class_activation": True,
        "true_spans": tables / "spans.csv",
        "num_clips": 1,
        "batch_size": 32,
        "output_file": tmp_path_factory.mktemp("output") / "evaluation.json",
    }
    return pipeline.evaluate(ours, **options), options


def test_the_file_holds_the_result(whole):
    result, options = whole
    assert json.loads(options["output_file"].read_text()) == result
    assert result["complete"] is True


def test_each_row_has_its_figures(whole):
    result, _ = whole
    metrics = {"gap", "map", "map_all_scores", "perr", "hit_at_1", "loss", "num_videos"}
    figures = {"attention_entropy_audio", "distance_to_uniform_audio", "partitions", "intervals"}
    moved = {"attention_mse_audio", "attention_frobenius_audio"}
    kept = {"hits", "pairs", "margin", "resampled"}
    assert set(result["clean"]) == metrics | figures | kept | {"zero_gradient_share"}
    attacks = {row["attack"]: row for row in result["attacks"]}
    assert list(attacks) == list(whole[1]["attacks"])
    common = metrics | figures | moved | kept | {"norm", "relative_norm", "success"}
    identity = {"attack", "epsilon", "options", "passes"}
    rho = {"rho_mean", "rho_median", "share_not_flipped"}
    for name, row in attacks.items():
        extra = rho if name == "deepfool:steps=1" else set()
        extra |= {"transfer_weights"} if name == "transfer" else set()
        assert set(row) == common | identity | extra, name
        assert row["epsilon"] == (None if extra & rho else 2.0)
    assert attacks["fgm"]["norm"] == pytest.approx(2.0, rel=1e-4)
    corruptions = {(r["corruption"], r["severity"]): r for r in result["corruptions"]}
    assert list(corruptions) == [
        ("frame_drop", 5),
        ("gaussian_noise", 5),
    ]
    key = {"corruption", "severity"}
    assert set(corruptions["gaussian_noise", 5]) == metrics | figures | moved | key
    assert set(corruptions["frame_drop", 5]) == metrics | figures | key
    assert result["clean"]["partitions"]["count"] == 2
    assert set(result["clean"]["partitions"]["gap"]) == {"mean", "deviation"}


def test_each_row_has_intervals_about_its_figures(whole):
    result, _ = whole
    for row in (result["clean"], *result["attacks"], *result["corruptions"]):
        assert (row["intervals"]["level"], row["intervals"]["resamples"]) == (0.95, 200)
        for name in ("gap", "perr", "hit_at_1"):
            low, high = row["intervals"][name]
            assert low <= row[name] <= high and high - low < 0.5, name


def test_white_box_attacks_are_stronger_than_those_on_another_run(whole):
    result, _ = whole
    loss = {row["attack"]: row["loss"] for row in result["attacks"]}
    assert loss["pgd:steps=2"] >= loss["fgm"] > result["clean"]["loss"]
    assert loss["pgd:steps=2"] > loss["transfer"]


def test_a_clip_is_robust_if_no_attack_broke_it(whole):
    result, _ = whole
    [worst] = result["worst_cases"]
    assert worst["attacks"] == ["fgm", "pgd:steps=2", "adaptive", "transfer"]
    assert (worst["axes"], worst["round"], worst["epsilon"]) == ("frame", False, 2.0)
    rows = [row for row in result["attacks"] if row["attack"] in worst["attacks"]]
    for row in (result["clean"], *rows):
        bits = np.unpackbits(np.frombuffer(base64.b64decode(row["hits"]["bits"]), np.uint8))
        assert row["hits"]["count"] == 32 and bits.sum() == pytest.approx(32 * row["hit_at_1"])
    assert worst["hit_at_1"] <= min(row["hit_at_1"] for row in rows)


def test_the_worst_case_alone_is_that_of_the_rows(whole, runs, pattern, tmp_path, monkeypatch):
    result, options = whole
    [expected] = result["worst_cases"]
    attacked = []
    survivors = evaluated_run.EvaluatedRun.survivors

    def counted(run, attack, standing, description):
        attacked.append((description, int(standing.sum())))
        return survivors(run, attack, standing, description)

    monkeypatch.setattr(evaluated_run.EvaluatedRun, "survivors", counted)
    asked = {key: options[key] for key in ("attack_steps", "batch_size")}
    asked |= {"eval_data_pattern": pattern, "worst_case_only": True}
    asked["output_file"] = tmp_path / "evaluation.json"
    first = pipeline.evaluate(runs[0], attacks=expected["attacks"][:2], **asked)
    assert first["attacks"] == [] and attacked[0] == ("fgm 2", 32 * first["clean"]["hit_at_1"])
    # A second call goes on after the attacks of the first.
    asked["transfer_from"] = options["transfer_from"]
    ours = pipeline.evaluate(runs[0], attacks=expected["attacks"], **asked)
    assert [name for name, _ in attacked] == ["fgm 2", "pgd:steps=2 2", "adaptive 2", "transfer 2"]
    for (_, count), step, following in zip(
        attacked, ours["survivors"], [*attacked[1:], (None, 32 * expected["hit_at_1"])], strict=True
    ):
        assert step["attacked"] == count and count - step["broken"] == following[1]
    [worst] = ours["worst_cases"]
    for key in ("axes", "round", "epsilon", "attacks", "hit_at_1"):
        assert worst[key] == expected[key]
    assert worst["intervals"]["hit_at_1"] == expected["intervals"]["hit_at_1"]
    assert "Worst of all attacks" in format_evaluation(ours)


def test_classes_groups_and_the_comparison(whole):
    result, options = whole
    classes = result["classes"]
    with_positives = [index for index in range(NUM_CLASSES) if classes["positives"][index]]
    known = [ap for ap in classes["ap"] if ap is not None]
    assert len(known) == len(with_positives)
    assert np.mean(known) == pytest.approx(result["clean"]["map_all_scores"])
    assert classes["names"] == {str(i): f"class {i}" for i in range(NUM_CLASSES - 1)}
    even, odd = result["verticals"]
    assert (even["vertical"], even["num_classes"], odd["num_classes"]) == ("even", 3, 1)
    rows = [even["clean"], *even["attacks"], *even["corruptions"]]
    assert {row["num_videos"] for row in rows} == {even["num_videos"]}
    assert [row["attack"] for row in even["attacks"]] == [r["attack"] for r in result["attacks"]]
    comparison = result["comparison"]
    assert comparison["baseline"] == str(options["compare_to"])
    differences = comparison["differences"]
    assert [d is None for d in differences] == [ap is None for ap in classes["ap"]]
    index, name, largest = comparison["top"][0]
    ranked = [c for c in with_positives if classes["positives"][c] >= 4]
    assert comparison["num_ranked"] == len(ranked)
    assert largest == differences[index] == max(differences[c] for c in ranked)
    for entry in comparison["top"]:
        low, high = comparison["intervals"][str(entry[0])]
        assert low <= entry[2] <= high
    assert name == (f"class {index}" if index < NUM_CLASSES - 1 else None)


def test_rows_are_tested_against_those_of_the_baseline(whole, runs, pattern, tmp_path, capsys):
    result, options = whole
    clean, *attacked = result["comparison"]["rows"]
    assert [row["attack"] for row in attacked] == list(options["attacks"])
    ours = {row["attack"]: row for row in result["attacks"]}
    for row in attacked:
        test = row["hit_at_1"]
        assert test["ours"] == ours[row["attack"]]["hit_at_1"]
        assert test["difference"] * 32 == pytest.approx(test["only_ours"] - test["only_baseline"])
        low, high = row["gap"]["interval"]
        assert low <= row["gap"]["difference"] <= high and 0 < row["gap"]["p"] <= 1
    # The baseline's rows are those of an evaluation of its own, which a comparison then takes.
    plain = {key: options[key] for key in ("attack_steps", "batch_size", "transfer_from")}
    plain |= {"eval_data_pattern": pattern, "attacks": ("fgm", "pgd:steps=2", "transfer")}
    file = runs[1].path / "evaluation.json"
    theirs = pipeline.evaluate(runs[1], output_file=file, **plain)
    assert clean["gap"]["baseline"] == theirs["clean"]["gap"]
    assert [row["gap"]["baseline"] for row in attacked if row["attack"] in plain["attacks"]] == [
        row["gap"] for row in theirs["attacks"]
    ]
    again = pipeline.evaluate(runs[0], compare_to=runs[1].path, **plain)
    file.unlink()
    assert f"attacked rows of the baseline are taken from {file}" in capsys.readouterr().err
    assert again["comparison"]["rows"] == [
        row for row in result["comparison"]["rows"] if row["attack"] in (None, *plain["attacks"])
    ]


def test_attention_and_clips(whole):
    result, _ = whole
    attention = result["attention"]
    assert (attention["attack"], attention["epsilon"]) == ("fgm", 2.0)
    for kind in ("profiles", "attacked_profiles"):
        levels = attention[kind]["audio"]
        assert set(levels) == {"global"}
        assert np.mean(levels["global"]) == pytest.approx(1, abs=1e-3)
    assert attention["profiles"] != attention["attacked_profiles"]
    assert 0 < attention["sensitivity"]["audio"]["S"] < 1
    assert attention["sensitivity"]["audio"]["num_videos"] == 3
    activation = result["class_activation"]
    counted = activation["num_videos"] + activation["num_silent"]
    assert 0 < counted <= result["clean"]["num_videos"]
    assert 0 < activation["entropy"] <= 1
    assert 0 < activation["spread"] < 2
    spans = result["true_spans"]
    assert spans["attention"]["audio"]["num_spans"] == 1
    assert spans["attention"]["audio"]["even_share"] == pytest.approx(0.5)
    assert spans["activation"]["num_spans"] + spans["activation"]["num_silent"] == 1
    [clip] = result["clips"]
    n = len(clip["clean"]["profiles"]["audio"]["global"])
    assert np.shape(clip["clean"]["maps"]["audio"]["global"]) == (n, n)
    assert len(clip["clean"]["top"]) == len(clip["attacked"]["top"]) == 5
    probabilities = [entry[2] for entry in clip["clean"]["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert (clip["attacked"]["attack"], clip["attacked"]["epsilon"]) == ("fgm", 2.0)
    assert clip["attacked"]["top"] != clip["clean"]["top"]


def test_local_levels_have_profiles_of_their_own(tmp_path, pattern):
    for name, levels in (("GMSA", {"global", "bd4"}), ("GateAtt", {"global", "bd4", "gated"})):
        options = {**OPTIONS, "local_masks": ("bd4",)}
        config = dataclasses.replace(CONFIG, model=ModelConfig(name=name, options=options))
        result = pipeline.evaluate(
            make_run(tmp_path / name, config),
            eval_data_pattern=pattern,
            max_videos=8,
            batch_size=5,
            attention=True,
            sensitivity_videos=1,
            num_clips=6,
        )
        assert set(result["attention"]["profiles"]["audio"]) == levels
        assert "attacked_profiles" not in result["attention"]
        assert len(result["clips"]) == 6
        for clip in result["clips"]:
            profiles = clip["clean"]["profiles"]["audio"]
            assert set(profiles) == levels
            # Rows that sum to 1 give a profile that does, whatever the level.
            for level in ("global", "bd4"):
                assert sum(profiles[level]) == pytest.approx(1, abs=2e-3), (name, level)


def test_the_table_shows_it_all(whole):
    text = format_evaluation(whole[0])
    lines = text.splitlines()
    for start in ("clean ", "fgm, epsilon 2", "deepfool:steps=1 ", "frame_drop 5"):
        assert any(line.startswith(start) for line in lines), start
    assert "32 videos; gradient exactly 0 at 0.00 % of them" in lines
    assert any(line.startswith("frame, epsilon 2 (4 attacks)") for line in lines)
    for part in ("2 disjoint parts", "not flipped", "moved by", "class 0", "95 % intervals"):
        assert part in text, part
    # One table of verticals, clean and under the strongest attack, and the screen is not left.
    result = whole[0]
    by_gap = [row for row in result["attacks"] if row["epsilon"] is not None]
    worst = min(by_gap, key=lambda row: row["gap"])
    title = lines.index(f"Verticals; attacked: {worst['attack']}, epsilon 2")
    for line, vertical in zip(lines[title + 2 :], result["verticals"], strict=False):
        (attacked,) = [r for r in vertical["attacks"] if r["attack"] == worst["attack"]]
        sides = (vertical["clean"], attacked)
        figures = [f"{side[name]:.4f}" for side in sides for name in ("gap", "hit_at_1")]
        counts = [str(vertical["num_classes"]), str(vertical["num_videos"])]
        assert line.split() == [vertical["vertical"], *counts, *figures]
    [title] = [at for at, line in enumerate(lines) if line.startswith("Ours minus ")]
    tested = [line.split(": ")[0] for line in lines[title + 1 : title + 4]]
    assert tested == ["  clean", f"  {worst['attack']}, epsilon 2", ""]
    assert len(lines) < 68
    assert "(!)" not in text and "Gradient masking" not in text


def figures(result):
    """A result without what says when it was measured."""
    of_time = ("provenance", "checksum")
    return {name: value for name, value in result.items() if name not in of_time}


def counted(monkeypatch, stop_after=None):
    """Counts the passes of the evaluator; the one after `stop_after` is interrupted."""
    calls = []
    measure = Evaluator.measure

    def count(self, batches, perturbation=None, *arguments, **options):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(perturbation)
        return measure(self, batches, perturbation, *arguments, **options)

    monkeypatch.setattr(Evaluator, "measure", count)
    return calls


def test_interrupted_it_goes_on_after_the_rows_that_are_there(
    runs, pattern, tables, tmp_path, monkeypatch, capsys
):
    options = {
        "eval_data_pattern": pattern,
        "attacks": ("noise", "fgm", "noise:epsilon=1"),
        "corruptions": ("frame_drop",),
        "severities": (3,),
        "compare_to": runs[1].path,
        "min_positives": 1,
        "attention": True,
        "sensitivity_videos": 1,
        "vocabulary": tables / "groups.csv",
        "output_file": tmp_path / "x.json",
        "max_videos": 12,
    }
    expected = pipeline.evaluate(runs[0], **{**options, "output_file": None})
    with monkeypatch.context() as patch:
        counted(patch, stop_after=3)
        with pytest.raises(KeyboardInterrupt):
            pipeline.evaluate(runs[0], **options)
    written = json.loads(options["output_file"].read_text())
    assert written["complete"] is False
    assert [row["attack"] for row in written["attacks"]] == ["noise", "fgm"]
    assert written["attention"]["attacked_profiles"]["audio"]
    with monkeypatch.context() as patch:
        calls = counted(patch)
        assert figures(pipeline.evaluate(runs[0], **options)) == figures(expected)
    # An attack, a corruption and the baseline, clean and under three attacks, are left, and
    # resamples need our own scores again.
    assert len(calls) == 7
    calls = counted(monkeypatch)
    assert figures(pipeline.evaluate(runs[0], **options)) == figures(expected)
    assert calls == []
    line = capsys.readouterr().err.splitlines()[-1]
    rows = "clean, noise 2.0, fgm 2.0, noise 1.0, frame_drop 3"
    assert f"{options['output_file']}: these rows are an earlier call's" in line
    assert f"not measured again: {rows} (--start_over" in line
    plain = {key: options[key] for key in ("eval_data_pattern", "output_file", "max_videos")}
    pipeline.evaluate(runs[0], vocabulary=options["vocabulary"], top_k=3, **plain)
    assert "top_k: 20 != 3): starting over" in capsys.readouterr().err


def test_other_weights_start_anew(tmp_path, pattern, capsys):
    options = {"eval_data_pattern": pattern, "output_file": tmp_path / "x.json", "max_videos": 4}
    first = pipeline.evaluate(make_run(tmp_path / "run", seed=1), **options)
    other = make_run(tmp_path / "other", seed=2).best_weights.read_bytes()
    (tmp_path / "run" / "best.weights.h5").write_bytes(other)
    second = pipeline.evaluate(RunFolder(tmp_path / "run"), **options)
    assert "weights: " in capsys.readouterr().err
    assert first["clean"]["loss"] != second["clean"]["loss"]
    assert second["clean"]["num_videos"] == 4


def test_figures_belong_to_the_weights_that_were_measured(
    pattern, tmp_path, monkeypatch, sample_dir
):
    """Another process replaces the weights of all runs as soon as they have been loaded."""
    config = dataclasses.replace(CONFIG, model=ModelConfig(name="FrameLevelLogisticModel"))
    runs = {name: make_run(tmp_path / name, config, seed) for seed, name in enumerate("abc")}
    save_weights(load_classifier(runs["a"], config), runs["a"].best_weights, step=7)
    digests = {
        name: hashlib.sha256(run.best_weights.read_bytes()).hexdigest()
        for name, run in runs.items()
    }
    later = make_run(tmp_path / "later", config, seed=9).best_weights.read_bytes()

    def load_and_go_on(folder, *arguments, **options):
        loaded = load_run(folder, *arguments, **options)
        folder.best_weights.write_bytes(later)
        return loaded

    for module in (evaluated_run, attack_plan, baseline_comparison):
        monkeypatch.setattr(module, "load_run", load_and_go_on)
    monkeypatch.setattr(sys, "argv", ["eval.py", "--max_videos=4"])
    file = tmp_path / "x.json"
    result = pipeline.evaluate(
        runs["a"],
        eval_data_pattern=pattern,
        attacks=("transfer:steps=1",),
        transfer_from=runs["b"].path,
        compare_to=runs["c"].path,
        max_videos=4,
        output_file=file,
    )
    assert result["settings"]["weights"] == digests["a"]
    assert result["attacks"][0]["transfer_weights"] == digests["b"]
    assert result["comparison"]["weights"] == digests["c"]
    provenance = result["provenance"]
    assert provenance == {
        "measured_at": provenance["measured_at"],
        "command": ["eval.py", "--max_videos=4"],
        "version": yt8m_gat.__version__,
        "train_dir": str(runs["a"].path),
        "checkpoint": "best",
        "weights": digests["a"],
        "step": 7,
        "pattern": pattern,
        "files": [str(path) for path in sorted(sample_dir.glob("test*.tfrecord"))],
        "num_files": provenance["num_files"],
        "num_records": 32,
        "parameters": load_classifier(runs["a"], config).count_params(),
        "num_videos": 4,
        "earlier_calls": [],
    }
    assert provenance["num_files"] == len(provenance["files"])
    run = read_run(runs["a"].path, file)
    assert run.evaluation == {} and "the run has changed since (best.weights.h5)" in run.warning


def test_an_attack_with_other_options_is_another_row(runs, pattern, tmp_path, monkeypatch):
    options = {"eval_data_pattern": pattern, "output_file": tmp_path / "x.json", "max_videos": 4}
    pipeline.evaluate(runs[0], attacks=("square", "noise"), attack_queries=1, **options)
    calls = counted(monkeypatch)
    result = pipeline.evaluate(runs[0], attacks=("noise", "square"), attack_queries=2, **options)
    assert [type(call).__name__ for call in calls] == ["SquareSearch"]
    assert [row["attack"] for row in result["attacks"]] == ["noise", "square"]
    assert result["attacks"][1]["options"]["queries"] == 2
    pipeline.evaluate(runs[0], start_over=True, **options)
    assert len(calls) == 2


def test_maps_of_long_clips_are_left_out_until_they_are_asked_for(pattern, tmp_path, capsys):
    data = dataclasses.replace(CONFIG.data, max_frames=1001)
    run = make_run(tmp_path / "run", dataclasses.replace(CONFIG, data=data))
    options = {
        **{"eval_data_pattern": pattern, "output_file": tmp_path / "e.json", "max_videos": 4},
        **{"attacks": ["fgm", "noise"], "corruptions": ["gaussian_noise"], "severities": [1]},
    }

    def rows(result):
        return [result["clean"], *result["attacks"], *result["corruptions"]]

    result = pipeline.evaluate(run, **options)
    line = "attention_entropy, distance_to_uniform, attention_mse, attention_frobenius are left out"
    assert f"{line}: global maps of --max_frames=1001" in capsys.readouterr().err
    assert list(result["left_out"]) == list(MAP_FIGURES)
    assert not any(name.startswith(MAP_FIGURES) for row in rows(result) for name in row)
    with_maps = pipeline.evaluate(run, **options, attention=True, sensitivity_videos=1)
    assert "left out" not in capsys.readouterr().err
    assert with_maps["left_out"] == {}
    for row, other in zip(rows(with_maps), rows(result), strict=True):
        assert 0 < row["attention_entropy_audio"] <= 1 and row["gap"] == other["gap"]


def test_layers_move_under_the_first_attack(runs, pattern, tmp_path, monkeypatch):
    options = {"eval_data_pattern": pattern, "output_file": tmp_path / "x.json", "max_videos": 4}
    options |= {"attacks": ("fgm",), "embeddings": True}
    still = pipeline.evaluate(runs[0], epsilons=(0.0,), **options)["embeddings"]
    names = [layer["layer"] for layer in still["layers"]]
    assert names[-3:] == ["pooling", "hidden", "logits"] and len(set(names)) == len(names)
    for layer in still["layers"]:
        assert layer["relative_l2"] == 0.0 and layer["cosine"] == pytest.approx(1.0)
        assert layer["rows"] == (4 if layer["layer"] in names[-3:] else still["layers"][0]["rows"])
    result = pipeline.evaluate(runs[0], epsilons=(2.0,), **options)
    moved = result["embeddings"]
    assert all(layer["relative_l2"] > 0 for layer in moved["layers"])
    assert all(layer["cka"] is None or layer["cka"] < 1 for layer in moved["layers"])
    assert (moved["attack"], moved["epsilon"], moved["num_videos"]) == ("fgm", 2.0, 4)
    assert "Layers under fgm, epsilon 2 against clean, 4 videos" in format_evaluation(result)
    # The file is enough.
    monkeypatch.setattr(embedding_measures, "hidden_outputs", None)
    assert pipeline.evaluate(runs[0], epsilons=(2.0,), **options)["embeddings"] == moved
    with pytest.raises(ConfigError, match="under the first attack: give --attacks"):
        pipeline.evaluate(runs[0], eval_data_pattern=pattern, embeddings=True)


def test_a_student_is_trained_where_its_row_is_measured(runs, pattern, tmp_path, monkeypatch):
    options = {"eval_data_pattern": pattern, "output_file": tmp_path / "x.json", "max_videos": 4}
    options |= {"attacks": ("surrogate:steps=2",), "surrogate_steps": 3}
    (row,) = pipeline.evaluate(runs[0], num_clips=1, **options)["attacks"]
    assert (row["surrogate_steps"], row["surrogate_epsilon"]) == (3, 2.0)
    assert row["norm"] == pytest.approx(2.0, rel=1e-4)
    # What the file holds needs no student; other steps are another row.
    monkeypatch.setattr(surrogate.Surrogate, "train", None)
    assert pipeline.evaluate(runs[0], **options)["attacks"] == [row]
    with pytest.raises(TypeError, match="not callable"):
        pipeline.evaluate(runs[0], **{**options, "surrogate_steps": 4})


def test_rows_of_a_version_that_kept_no_hits_are_measured_again(
    runs, pattern, tmp_path, monkeypatch
):
    file = tmp_path / "x.json"
    options = {"eval_data_pattern": pattern, "output_file": file, "max_videos": 4}
    options["attacks"] = ("noise", "noise:epsilon=1", "fgm")
    expected = pipeline.evaluate(runs[0], **options)
    earlier = json.loads(file.read_text())
    del earlier["attacks"][0]["hits"], earlier["worst_cases"], earlier["checksum"]
    file.write_text(json.dumps(earlier))
    calls = counted(monkeypatch)
    assert figures(pipeline.evaluate(runs[0], **options)) == figures(expected)
    assert [call.epsilon for call in calls] == [2.0]


def test_a_clip_by_its_id_and_a_run_beside_itself(runs, pattern):
    result = pipeline.evaluate(
        runs[0],
        eval_data_pattern=pattern,
        compare_to=runs[0].path,
        transfer_from=runs[0].path,
        attacks=("pgd:steps=1", "transfer:steps=1", "noise:round=true", "noise"),
        num_clips=1,
    )
    assert {d for d in result["comparison"]["differences"] if d is not None} == {0.0}
    white, transferred, rounded, noise = result["attacks"]
    for name in ("gap", "loss", "success", "attention_mse_audio"):
        assert transferred[name] == pytest.approx(white[name], rel=1e-5), name
    assert rounded["options"]["round"] is True
    assert noise["norm"] == pytest.approx(2.0, rel=1e-4)
    assert rounded["norm"] != pytest.approx(2.0, rel=1e-4)
    video_id = result["clips"][0]["video_id"]
    by_id = pipeline.evaluate(runs[0], eval_data_pattern=pattern, clips=(video_id,))
    assert by_id["clips"][0]["clean"] == result["clips"][0]["clean"]
    assert "attacked" not in by_id["clips"][0]
    with pytest.raises(ConfigError, match=r"no such clip in .*: nobody"):
        pipeline.evaluate(runs[0], eval_data_pattern=pattern, clips=("nobody",), max_videos=2)


def test_a_failed_check_marks_the_model(runs, pattern, monkeypatch):
    needed = (("fgm", 0.5), ("pgd", 0.5), ("fgm", 1.0))
    monkeypatch.setattr(attack_plan, "sanity_specs", lambda *_: needed)
    result = pipeline.evaluate(
        runs[0],
        eval_data_pattern=pattern,
        sanity_checks=True,
        attack_steps=2,
        attacks=("pgd:epsilon=0.5",),
        max_videos=4,
    )
    # What both ask for is run once.
    rows = [(row["attack"], row["epsilon"]) for row in result["attacks"]]
    assert rows == [("pgd", 0.5), ("fgm", 0.5), ("fgm", 1.0)]
    verdicts = {entry["check"]: entry["verdict"] for entry in result["sanity"]}
    assert verdicts["loss_over_epsilon"] == "pass"
    assert verdicts["gradient"] == verdicts["deterministic"] == "pass"
    gradients = result["gradients"]
    assert (gradients["num_clips"], gradients["epsilon"]) == (4, 2.0)
    assert all(abs(point["ratio"] - 1) < 0.01 for point in gradients["points"])
    assert "(!)" not in format_evaluation(result)
    result["sanity"] = [
        {**v, "verdict": "fail", "detail": "it falls"} if v["check"] == "loss_over_epsilon" else v
        for v in result["sanity"]
    ]
    text = format_evaluation(result)
    assert text.startswith("Gradient masking\n  fail    ")  # The verdicts come first.
    assert "pgd, epsilon 0.5 (!)" in text and "fgm, epsilon 1 (!)" in text
    assert "fail    loss_over_epsilon: it falls" in text
    assert "failed loss_over_epsilon" in text


def test_the_sceptics_protocol_is_planned_for_what_the_run_has(runs, pattern, tmp_path, capsys):
    def planned(folder, **options):
        options = evaluation.EvaluationOptions(
            eval_data_pattern=pattern, protocol="sceptic", **options
        )
        return [
            (attack.identity["attack"], attack.identity["epsilon"])
            for attack in evaluation._Evaluation(folder, options).planned
        ]

    whole = planned(runs[0], transfer_from=runs[1].path)
    assert len(set(whole)) == len(whole)
    assert capsys.readouterr().err == ""
    for text in ("noise", "fgm", "pgd:steps=20", "pgd:steps=100", "pgd:steps=20:restarts=5"):
        assert (text, 2.0) in whole
    for text in ("pgd_margin:steps=20", "transfer:steps=20", "adaptive:steps=20"):
        assert (text, 2.0) in whole
    assert {("deepfool", None), ("pgd:steps=20", 0.05), ("pgd:steps=20", 8.0)} <= set(whole)
    # One search, of as many queries as the protocol asks for.
    assert [text for text, _ in whole if text.startswith("square")] == ["square:queries=5000"]
    # What the checks call `pgd` is the PGD of 20 steps that is there.
    assert not [text for text, _ in whole if text == "pgd"]
    config = dataclasses.replace(
        CONFIG,
        data=dataclasses.replace(CONFIG.data, normalize="concat"),
        model=ModelConfig(name="FrameLevelLogisticModel"),
    )
    names = {text for text, _ in planned(make_run(tmp_path / "logistic", config))}
    assert not [name for name in names if name.startswith(("adaptive", "transfer"))]
    assert "pgd:steps=20:round=true" not in names
    errors = capsys.readouterr().err
    for what in ("adaptive", "pgd:round=true", "transfer"):
        assert f"--protocol=sceptic leaves out {what}" in errors


def test_radii_are_run_to_the_last_digit(runs, pattern):
    def planned(**options):
        options = evaluation.EvaluationOptions(eval_data_pattern=pattern, **options)
        return [attack.identity for attack in evaluation._Evaluation(runs[0], options).planned]

    third = planned(protocol="sceptic", attacks=("fgm",), epsilons=(1 / 3,))
    assert [row["epsilon"] for row in third if row["attack"] == "fgm"][:2] == [1 / 3, 0.05]
    # A model that no radius breaks, at 8 * sqrt(12 frames).
    rows = [
        {**row, "loss": 1.0, "hit_at_1": 0.5}
        for row in planned(sanity_checks=True, norm_scope="example")
    ]
    verdicts = sanity_checks({"loss": 1.0}, rows, max_frames=12, num_features=1)
    assert [v["verdict"] for v in verdicts if v["check"] == "unbounded"] == ["fail"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitions": 33}, r"--partitions=33 needs at least 33 videos. Received: 32"),
        ({"partitions": 5, "max_videos": 4}, r"--partitions=5 .* Received: 4"),
        ({"partitions": 1}, "one part has no deviation"),
        ({"corruptions": ("rain",)}, r"--corruptions must be all, or of .*Received: 'rain'"),
        ({"severities": (0,)}, r"--severities must be of 1, 2, 3, 4, 5. Received: 0"),
        ({"epsilons": (-1.0,)}, r"--epsilons must be at least 0, and finite. Received: -1"),
        ({"epsilons": (0.0, float("inf"))}, r"--epsilons must be .*finite. Received: inf"),
        ({"attacks": ("transfer",)}, "needs another run: --transfer_from"),
        ({"transfer_from": "ours"}, "--transfer_from is for the attack transfer"),
        ({"worst_case_only": True}, "--worst_case_only is about attacks: give --attacks"),
        (
            {"worst_case_only": True, "attacks": ("fgm", "deepfool")},
            "--worst_case_only is the worst within a radius. Received: --attacks=deepfool",
        ),
        (
            {"worst_case_only": True, "attacks": ("fgm",), "attention": True},
            "Received: --attention, which need them",
        ),
        ({"norm_scope": "row"}, "--norm_scope must be one of frame, example, joint"),
        ({"protocol": "trusting"}, "--protocol must be one of sceptic"),
        ({"max_videos": -1}, "--max_videos must be at least 0"),
        ({"attack_steps": 0}, "--attack_steps must be at least 1"),
        ({"label_names": "groups"}, "label names need one of the first lines"),
        ({"vocabulary": "names"}, "groups of classes need one of the first lines"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    runs, pattern, tables, monkeypatch, options, message
):
    paths = {
        "transfer_from": lambda _: runs[0].path,
        "label_names": lambda name: tables / f"{name}.csv",
        "vocabulary": lambda name: tables / f"{name}.csv",
    }
    options = {k: paths[k](v) if k in paths else v for k, v in options.items()}
    calls = counted(monkeypatch)
    with pytest.raises(ConfigError, match=message):
        pipeline.evaluate(runs[0], eval_data_pattern=pattern, **options)
    assert calls == []


def test_runs_on_other_data_are_refused(runs, pattern, tmp_path):
    for field, value in (("max_frames", 6), ("normalize", "concat"), ("num_classes", 9)):
        config = dataclasses.replace(
            CONFIG, data=dataclasses.replace(CONFIG.data, **{field: value})
        )
        other = make_run(tmp_path / field, config)
        with pytest.raises(
            ConfigError, match=rf"--transfer_from=.*other data .*{field}: {value!r}"
        ):
            pipeline.evaluate(
                runs[0],
                eval_data_pattern=pattern,
                attacks=("transfer",),
                transfer_from=other.path,
            )
    with pytest.raises(ConfigError, match=r"--compare_to=.*num_classes: 9 != 8"):
        pipeline.evaluate(runs[0], eval_data_pattern=pattern, compare_to=tmp_path / "num_classes")


def test_normalized_features_have_no_range_and_no_levels(tmp_path, pattern):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, normalize="concat"))
    folder = make_run(tmp_path / "run", config)
    for options in (
        {"clip_to_range": True},
        {"round_to_levels": True},
        {"attacks": ("fgm:round=true",)},
    ):
        with pytest.raises(ConfigError, match=r"--normalize=concat.*neither that range nor levels"):
            pipeline.evaluate(folder, eval_data_pattern=pattern, **options)


def test_a_video_level_run_names_the_flags_that_need_frames(tmp_path, pattern):
    config = RunConfig(
        data=DataConfig(
            feature_names=("mean_audio",),
            feature_sizes=(128,),
            num_classes=NUM_CLASSES,
            frame_features=False,
        ),
        model=ModelConfig(name="LogisticModel"),
    )
    folder = make_run(tmp_path / "run", config)
    for flag, value in (
        ("attacks", ("fgm",)),
        ("corruptions", ("all",)),
        ("attention", True),
        ("sanity_checks", True),
        ("num_clips", 1),
        ("protocol", "sceptic"),
    ):
        with pytest.raises(ConfigError, match=rf"--{flag} need a frame-level run.*LogisticModel"):
            pipeline.evaluate(folder, eval_data_pattern=pattern, **{flag: value})


def test_every_option_is_a_flag():
    values = flags.FlagValues()
    eval_script.define_flags(values)
    values(
        [
            "eval.py",
            "--attacks=fgm, pgd:steps=3",
            "--epsilons=0.1,1",
            "--corruptions=all",
            "--severities=5",
            "--clips=a,b",
            "--clip_to_range",
            "--partitions=5",
            "--norm_scope=joint",
        ]
    )
    found = eval_script.options_from_flags(values)
    assert found.keys() <= {field.name for field in dataclasses.fields(EvaluationSettings)}
    settings = {flag.name for flag in all_flags(eval_script.SECTIONS)} - {"train_dir", "run_once"}
    assert settings - REPLACED["eval.py"].keys() == {
        field.name for field in dataclasses.fields(evaluation.EvaluationOptions)
    }
    assert found["attacks"] == ("fgm", "pgd:steps=3")
    assert (found["epsilons"], found["severities"]) == ((0.1, 1.0), (5,))
    assert (found["clips"], found["corruptions"]) == (("a", "b"), ("all",))
    assert (found["clip_to_range"], found["partitions"], found["norm_scope"]) == (True, 5, "joint")
    given = {name: value for name, value in found.items() if name != "eval_data_pattern"}
    options = evaluation.EvaluationOptions(eval_data_pattern="x", **given)
    assert len(options.corruptions_on(pixels=False)) == 9
    defaults = flags.FlagValues()
    eval_script.define_flags(defaults)
    defaults(["eval.py"])
    unset = evaluation.EvaluationOptions(eval_data_pattern="")
    assert evaluation.EvaluationOptions(**eval_script.options_from_flags(defaults)) == unset
