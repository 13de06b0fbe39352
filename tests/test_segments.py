"""The 2019 segment task the whole way, by the scripts, on generated records."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from absl import flags
from sklearn.metrics import average_precision_score

from yt8m_gat import pipeline
from yt8m_gat.commands import eval as eval_script
from yt8m_gat.commands import inference as inference_script
from yt8m_gat.commands import train as train_script
from yt8m_gat.config import ConfigError, DataConfig, ObjectiveConfig, RunConfig
from yt8m_gat.data import dequantize
from yt8m_gat.losses import get_loss
from yt8m_gat.models.frame_level_logistic import FrameLevelLogisticClassifier
from yt8m_gat.prediction.kaggle import check_submission
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import AdversarialModel
from yt8m_gat.training.objective import build_objective
from yt8m_gat.weights.load import load_classifier

# It trains runs.
pytestmark = pytest.mark.slow
NUM_CLASSES = 4
SIZES = {"rgb": 6, "audio": 3}


def make_clip(rng, video_id, num_frames):
    """A clip each of whose windows shows one class; two classes are rated in most windows."""
    shown = rng.integers(NUM_CLASSES, size=-(-num_frames // 5))
    frames = {
        name: rng.integers(90, 166, (num_frames, size)).astype(np.uint8)
        for name, size in SIZES.items()
    }
    for t in range(num_frames):
        frames["rgb"][t, shown[t // 5]] += 60
    ratings = []
    for window in rng.permutation(len(shown))[: rng.integers(0, len(shown) + 1)]:
        other = (shown[window] + rng.integers(1, NUM_CLASSES)) % NUM_CLASSES
        ratings += [(5 * int(window), int(shown[window]), 1.0), (5 * int(window), int(other), 0.0)]
    return {"id": video_id, "frames": frames, "ratings": ratings}


def serialized(clip):
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    starts, classes, scores = zip(*clip["ratings"], strict=True) if clip["ratings"] else ((),) * 3
    context = {
        "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[clip["id"].encode()])),
        "labels": ints(sorted({c for _, c, score in clip["ratings"] if score})),
        "segment_start_times": ints(starts),
        "segment_end_times": ints([start + 5 for start in starts]),
        "segment_labels": ints(classes),
        "segment_scores": tf.train.Feature(float_list=tf.train.FloatList(value=scores)),
    }
    lists = {
        name: tf.train.FeatureList(
            feature=[
                tf.train.Feature(bytes_list=tf.train.BytesList(value=[frame.tobytes()]))
                for frame in frames
            ]
        )
        for name, frames in clip["frames"].items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folder of train, validate and test records, and the clips of each split."""
    folder = tmp_path_factory.mktemp("segments")
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 60), ("validate", 20), ("test", 20)):
        splits[split] = [
            make_clip(rng, f"{split}{i}", int(rng.integers(3, 31))) for i in range(count)
        ]
        for shard in range(2):
            path = folder / f"{split}{shard}.tfrecord"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for clip in splits[split][shard::2]:
                    writer.write(serialized(clip))
        splits[split] = splits[split][0::2] + splits[split][1::2]
    return folder, splits


def run(script, monkeypatch, *arguments):
    script.main([*map(str, arguments)])


def train_arguments(folder, train_dir, *more):
    return (
        "--model=FrameLevelLogisticModel",
        "--feature_sizes=6,3",
        "--feature_names=rgb,audio",
        f"--num_classes={NUM_CLASSES}",
        "--normalize=none",
        "--class_reduction=mean",
        "--base_learning_rate=0.1",
        "--batch_size=16",
        "--shuffle_buffer=50",
        f"--train_data_pattern={folder}/train*.tfrecord",
        f"--train_dir={train_dir}",
        *more,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, clips):
    """A run on rated segments."""
    train_dir = tmp_path_factory.mktemp("runs") / "segments"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(
            train_script,
            monkeypatch,
            *train_arguments(
                clips[0],
                train_dir,
                "--segment_labels",
                "--num_epochs=3",
                f"--eval_data_pattern={clips[0]}/validate*.tfrecord",
            ),
        )
    return RunFolder(train_dir)


def own_predictions(folder, clips, rated):
    """{(id, start): probabilities} of segments cut and dequantized here."""
    classifier = load_classifier(folder, RunConfig.load(folder.path))
    predictions = {}
    for clip in clips:
        num_frames = len(clip["frames"]["rgb"])
        starts = {s for s, _, _ in clip["ratings"]} if rated else range(0, num_frames, 5)
        for start in starts:
            features = {
                name: dequantize(tf.constant(frames[None, start : start + 5]))
                for name, frames in clip["frames"].items()
            }
            length = len(clip["frames"]["rgb"][start : start + 5])
            logits = classifier({**features, "frame_mask": tf.ones([1, length], tf.bool)})
            predictions[clip["id"], start] = tf.sigmoid(logits)[0].numpy()
    return predictions


def test_it_learns_and_is_validated_over_rated_pairs(finished, clips):
    lines = [json.loads(line) for line in finished.metrics.read_text().splitlines()]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert len(validations) == 3
    num_segments = len(own_predictions(finished, clips[1]["validate"], rated=True))
    assert {line["num_segments"] for line in validations} == {num_segments}
    # Half of the rated pairs are positives: chance is 0.5.
    assert validations[-1]["gap"] > 0.9
    assert RunConfig.load(finished.path).data.segment_labels


def test_evaluation_is_that_of_the_rated_pairs(finished, clips, tmp_path, monkeypatch, capsys):
    folder, splits = clips
    output_file = tmp_path / "evaluation.json"
    run(
        eval_script,
        monkeypatch,
        f"--train_dir={finished.path}",
        f"--eval_data_pattern={folder}/test*.tfrecord",
        "--attacks=fgm",
        "--epsilons=1",
        f"--output_file={output_file}",
    )
    result = json.loads(output_file.read_text())
    predictions = own_predictions(finished, splits["test"], rated=True)
    pairs = pd.DataFrame(
        [
            (c, predictions[clip["id"], start][c], score > 0)
            for clip in splits["test"]
            for start, c, score in clip["ratings"]
        ],
        columns=["class", "score", "hit"],
    )
    assert result["clean"]["num_segments"] == len(predictions)
    assert "num_videos" not in result["clean"]
    assert result["clean"]["gap"] == pytest.approx(
        average_precision_score(pairs["hit"], pairs["score"]), abs=1e-6
    )
    by_class = [
        average_precision_score(rows["hit"], rows["score"]) for _, rows in pairs.groupby("class")
    ]
    assert len(by_class) == NUM_CLASSES
    assert result["clean"]["segment_map"] == pytest.approx(np.mean(by_class), abs=1e-6)
    # Each segment has two rated pairs.
    loss = -np.log(np.where(pairs["hit"], pairs["score"], 1 - pairs["score"])).mean()
    assert result["clean"]["loss"] == pytest.approx(loss, rel=1e-4)
    [attacked] = result["attacks"]
    assert attacked["segment_map"] < result["clean"]["segment_map"]
    assert attacked["norm"] == pytest.approx(1.0, rel=1e-4)
    printed = capsys.readouterr().out
    assert "segment MAP" in printed and f"{len(predictions)} segments" in printed


def predict(folder, data_folder, monkeypatch, output_file, *more):
    run(
        inference_script,
        monkeypatch,
        f"--train_dir={folder.path}",
        f"--input_data_pattern={data_folder}/test*.tfrecord",
        f"--output_file={output_file}",
        "--batch_size=7",
        *more,
    )
    assert list(check_submission(output_file, NUM_CLASSES)) == []
    table = pd.read_csv(output_file)
    assert list(table.columns) == ["Class", "Segments"]
    return {c: row.split(" ") for c, row in zip(table["Class"], table["Segments"], strict=True)}


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_is_one_line(finished, tmp_path, monkeypatch, capsys, kept):
    def interrupted(*_, output_file, **__):
        if kept:
            pipeline.partial_file(output_file).write_text("rows")
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "infer", interrupted)
    with pytest.raises(SystemExit) as stopped:
        predict(finished, tmp_path, monkeypatch, tmp_path / "s.csv")
    assert stopped.value.code == 130
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and ("goes on after the rows" in line) is kept


def assert_ranked(rows, predictions, class_ids, cap):
    assert list(rows) == class_ids
    for c in class_ids:
        segments = [(name.rpartition(":")[0], int(name.rpartition(":")[2])) for name in rows[c]]
        assert len(segments) == len(set(segments)) == min(cap, len(predictions))
        scores = np.array([predictions[segment][c] for segment in segments])
        best = np.sort([p[c] for p in predictions.values()])[::-1][: len(segments)]
        np.testing.assert_allclose(scores, best, atol=1e-6)


def test_the_csv_ranks_every_window_of_every_video(finished, clips, tmp_path, monkeypatch, capsys):
    folder, splits = clips
    (tmp_path / "ids.csv").write_text("Index\n3\n1\n")
    predictions = own_predictions(finished, splits["test"], rated=False)
    ids = f"--segment_label_ids_file={tmp_path / 'ids.csv'}"
    rows = predict(finished, folder, monkeypatch, tmp_path / "all.csv", ids)
    assert_ranked(rows, predictions, [3, 1], len(predictions))
    assert "20 videos" in capsys.readouterr().out
    capped = predict(finished, folder, monkeypatch, tmp_path / "capped.csv", "--segment_max_pred=9")
    assert_ranked(capped, predictions, [0, 1, 2, 3], 9)


def test_a_video_whose_id_the_csv_cannot_hold_is_left_out(
    finished, clips, tmp_path, monkeypatch, capsys
):
    test_clips = clips[1]["test"]
    test_clips = [*test_clips[:5], {**test_clips[5], "id": "Nature: the film"}, *test_clips[6:]]
    with tf.io.TFRecordWriter(str(tmp_path / "test.tfrecord")) as writer:
        for clip in test_clips:
            writer.write(serialized(clip))
    with pytest.raises(SystemExit):
        predict(finished, tmp_path, monkeypatch, tmp_path / "s.csv")
    error = capsys.readouterr().err
    assert "test.tfrecord, record 5 " in error and "--on_bad_record=skip" in error
    skip = ("--on_bad_record=skip", "--max_bad_fraction=0.1")
    rows = predict(finished, tmp_path, monkeypatch, tmp_path / "s.csv", *skip)
    predictions = own_predictions(finished, test_clips[:5] + test_clips[6:], rated=False)
    assert_ranked(rows, predictions, [0, 1, 2, 3], len(predictions))
    assert "video id 1" in capsys.readouterr().err


def test_a_run_on_whole_videos_predicts_and_is_scored_on_segments(clips, tmp_path, monkeypatch):
    folder, splits = clips
    run_folder = RunFolder(tmp_path / "run")
    run(train_script, monkeypatch, *train_arguments(folder, run_folder.path, "--max_steps=2"))
    predictions = own_predictions(run_folder, splits["test"], rated=False)
    rows = predict(run_folder, folder, monkeypatch, tmp_path / "x.csv", "--segment_labels")
    assert_ranked(rows, predictions, [0, 1, 2, 3], len(predictions))
    pattern = f"{folder}/test*.tfrecord"
    scored = pipeline.evaluate(run_folder, eval_data_pattern=pattern, segment_labels=True)
    assert 0 < scored["clean"]["segment_map"] <= 1


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    clips, finished, tmp_path, monkeypatch
):
    last = load_classifier(finished, RunConfig.load(finished.path), "last").get_weights()
    resumed = RunFolder(tmp_path / "resumed")
    arguments = train_arguments(
        clips[0],
        resumed.path,
        "--segment_labels",
        "--num_epochs=3",
        f"--eval_data_pattern={clips[0]}/validate*.tfrecord",
    )
    # In the middle of the second epoch.
    lines = [json.loads(line) for line in finished.metrics.read_text().splitlines()]
    first_epoch = next(line["step"] for line in lines if line["kind"] == "validation")
    run(train_script, monkeypatch, *arguments, f"--max_steps={first_epoch + 3}")
    run(train_script, monkeypatch, *arguments)
    weights = load_classifier(resumed, RunConfig.load(resumed.path), "last").get_weights()
    for ours, theirs in zip(weights, last, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def one_step(labels, label_weights, **objective):
    """The weights after one SGD step, and before, of a fixed model on fixed segments."""
    keras.utils.set_random_seed(1)
    classifier = FrameLevelLogisticClassifier(SIZES, NUM_CLASSES)
    before = classifier.get_weights()
    model = AdversarialModel(
        classifier, build_objective(ObjectiveConfig(**objective)), regularization_penalty=0.0
    )
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    rng = np.random.default_rng(2)
    inputs = {n: rng.integers(0, 256, (3, 5, d)).astype(np.uint8) for n, d in SIZES.items()}
    inputs["num_frames"] = np.array([5, 5, 2], np.int32)
    data = tf.nest.map_structure(tf.constant, (inputs, labels, label_weights))
    model.optimize(data)
    return inputs, before, classifier.get_weights()


LABELS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], np.float32)
WEIGHTS = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]], np.float32)


def test_the_step_is_that_of_the_rated_pairs_alone():
    """dL/dz = w (p - y) / sum(w) / B; dL/db sums it, dL/dW by the mean frame."""
    inputs, (kernel, bias), (new_kernel, new_bias) = one_step(LABELS, WEIGHTS)
    frames = np.concatenate([inputs["rgb"], inputs["audio"]], axis=-1) * (4 / 255) + (4 / 512 - 2)
    means = np.stack(
        [f[:n].mean(axis=0) for f, n in zip(frames, inputs["num_frames"], strict=True)]
    )
    probabilities = 1 / (1 + np.exp(-(means @ kernel + bias)))
    delta = WEIGHTS * (probabilities - LABELS) / WEIGHTS.sum(axis=1, keepdims=True) / 3
    np.testing.assert_allclose(new_bias, bias - delta.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(new_kernel, kernel - means.T @ delta, atol=1e-6)


@pytest.mark.parametrize("adversarial", ["none", "output"])
def test_labels_of_unrated_pairs_change_nothing(adversarial):
    flipped = np.where(WEIGHTS > 0, LABELS, 1 - LABELS).astype(np.float32)
    *_, expected = one_step(LABELS, WEIGHTS, adversarial=adversarial)
    *_, found = one_step(flipped, WEIGHTS, adversarial=adversarial)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_in_the_starters_way_they_are_negatives():
    *_, all_pairs = one_step(LABELS, np.ones_like(WEIGHTS))
    *_, found = one_step(LABELS, WEIGHTS, unrated_as_negative=True)
    *_, rated = one_step(LABELS, WEIGHTS)
    for ours, theirs, other in zip(found, all_pairs, rated, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)
        assert np.abs(ours - other).max() > 1e-3


@pytest.mark.parametrize("unrated_as_negative", [False, True])
def test_an_evaluation_has_the_loss_of_its_run(unrated_as_negative):
    config = RunConfig(
        data=DataConfig(segment_labels=True),
        objective=ObjectiveConfig(unrated_as_negative=unrated_as_negative),
    )
    given = (LABELS, np.array([[2, 1, -1, 3]] * 3, np.float32), WEIGHTS)
    trained = build_objective(config.objective).loss(*given)
    classifier = SimpleNamespace(has_costly_maps=False)
    evaluator = pipeline.build_evaluator(classifier, config)
    np.testing.assert_array_equal(evaluator.loss(*given), trained)
    rated = get_loss("CrossEntropyLoss", "mean")(*given)
    assert np.allclose(trained, rated) is not unrated_as_negative


def parse(*arguments):
    values = flags.FlagValues()
    train_script.define_flags(values)
    values(["train.py", *arguments])
    return train_script.config_from_flags(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model=MoeModel", "--segment_labels"), "--segment_labels needs a frame-level model"),
        (("--unrated_as_negative",), "it needs --segment_labels"),
    ],
)
def test_training_flags_that_cannot_work_together(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(*arguments)


def test_jobs_that_cannot_work(tmp_path, clips):
    pattern = f"{clips[0]}/test*.tfrecord"
    video_level, whole = RunFolder(tmp_path / "video"), RunFolder(tmp_path / "whole")
    video_level.prepare(parse("--model=MoeModel"))
    whole.prepare(parse("--model=FrameLevelLogisticModel"))
    with pytest.raises(ConfigError, match="--segment_labels needs a frame-level run"):
        pipeline.evaluate(video_level, eval_data_pattern=pattern, segment_labels=True)
    with pytest.raises(ConfigError, match="--segment_labels needs a frame-level run"):
        pipeline.infer(
            video_level, input_data_pattern=pattern, output_file="x", segment_labels=True
        )
    with pytest.raises(ConfigError, match="--segment_label_ids_file is about segments"):
        pipeline.infer(
            whole, input_data_pattern=pattern, output_file="x", segment_label_ids_file="ids.csv"
        )
    assert not list(tmp_path.glob("x*"))
