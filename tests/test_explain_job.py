"""`pipeline.explain` and `yt8m-gat explain` on a tiny run."""

from hashlib import sha256

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.commands.report import main
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.data import (
    Reader,
    RecordSchema,
    find_files,
    preprocess,
    read_label_names,
)
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_classifier

pytestmark = pytest.mark.slow

OPTIONS = {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8, "local_masks": ("bd4",)}


def config_of(model="GAT", **data):
    options = OPTIONS if model == "GAT" else {}
    return RunConfig(
        data=DataConfig(num_classes=8, max_frames=12, **data),
        model=ModelConfig(name=model, options=options),
        training=TrainingConfig(batch_size=16, num_epochs=1, max_steps=1),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, sample_dir):
    """A run of one step, and the file of its validation clips."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "gat")
    pattern = f"{sample_dir}/validate*.tfrecord"
    pipeline.train(folder, config_of(), train_data_pattern=f"{sample_dir}/train*.tfrecord")
    return folder, pattern


@pytest.fixture(scope="module")
def clip(run):
    """(id, features, mask) of a clip that is shorter than its batch."""
    config = RunConfig.load(run[0].path)
    files = find_files(run[1], "input_data_pattern")
    for batch in Reader(files, RecordSchema.from_config(config.data), 16):
        lengths = batch["num_frames"].numpy()
        if lengths.min() < lengths.max():
            place = int(np.argmin(lengths))
            features, mask = preprocess(batch["features"], batch["num_frames"])
            one = {name: value[place : place + 1] for name, value in features.items()}
            return batch["video_id"].numpy()[place].decode(), one, mask[place : place + 1]
    raise AssertionError("all clips of the sample are equally long")


def labels_of(pattern, video_id):
    for path in find_files(pattern, "input_data_pattern"):
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            context = tf.train.SequenceExample.FromString(record).context.feature
            if context["id"].bytes_list.value[0] == video_id.encode():
                return list(context["labels"].int64_list.value)
    raise AssertionError(f"no clip {video_id}")


def explain(run, clip, label=3, **options):
    return pipeline.explain(
        run[0], input_data_pattern=run[1], video_id=clip[0], label=label, **options
    )


def test_it_explains_the_very_clip_over_its_real_frames(run, clip):
    found = explain(run, clip)
    video_id, features, mask = clip
    model = load_classifier(run[0], RunConfig.load(run[0].path), "best")
    outputs = model.forward(features, mask)
    probability = 1 / (1 + np.exp(-np.asarray(outputs.logits)[0, 3]))
    assert found["video_id"] == video_id and found["label"] == 3 and found["name"] is None
    every = 1 / (1 + np.exp(-np.asarray(outputs.logits)[0]))
    assert [entry[0] for entry in found["top"]] == np.argsort(-every)[:5].tolist()
    assert found["top"][0][2] == pytest.approx(every.max(), rel=1e-4)
    assert found["files"] == run[1]
    digest = sha256(run[0].best_weights.read_bytes()).hexdigest()
    assert (found["model"], found["options"]) == ("GAT", OPTIONS)
    assert found["provenance"]["weights"] == digest
    assert found["probability"] == pytest.approx(probability, rel=1e-4)
    num_frames = int(np.sum(mask))
    kinds = {"Saliency", "SmoothGrad", "Grad-CAM++", "Attention profile"}
    assert set(found["curves"]) == kinds
    for curves in found["curves"].values():
        assert all(len(curve) == num_frames for curve in curves.values())
    for feature, maps in outputs.attention_maps.items():
        profile = np.asarray(maps["global"])[0].mean(0)[:num_frames, :num_frames].mean(0)
        np.testing.assert_allclose(found["curves"]["Attention profile"][feature], profile, 1e-3)
        heads = np.asarray(maps["global"])[0, :, :num_frames, :num_frames]
        np.testing.assert_allclose(found["heads"][feature], heads, atol=1e-4)
        assert np.shape(found["similarity"][feature]) == (num_frames, num_frames)
    assert found["num_frames"] == num_frames


def test_a_name_is_as_good_as_a_number(run, clip, sample_dir, tmp_path):
    names = sample_dir / "label_names.csv"
    name = read_label_names(names)[3]
    page = tmp_path / "explain.html"
    code = main(
        [
            "explain",
            f"--train_dir={run[0].path}",
            f"--input_data_pattern={run[1]}",
            f"--video_id={clip[0]}",
            f"--label={name.upper()}",
            f"--label_names={names}",
            f"--output_file={page}",
        ]
    )
    assert code == 0
    text = page.read_text()
    assert f"{name} (3): probability" in text and clip[0] in text
    assert sha256(run[0].best_weights.read_bytes()).hexdigest() in text
    # The clip's own labels, read from its record by hand.
    labels = labels_of(run[1], clip[0])
    assert labels
    every = read_label_names(names)
    assert ", ".join(f"{every[index]} ({index})" for index in labels) in text
    assert f"yt8m-gat explain --train_dir={run[0].path}" in text


@pytest.mark.parametrize(
    ("label", "text", "match"),
    [
        ("Gamse", "0,Games\n1,Food", "is no name of --label_names; did you mean 'Games'"),
        ("Zebra", "0,Games", "'Zebra' is no name of --label_names$"),
        ("Games", "0,Games\n4,Games", "several classes: 0, 4; give the number"),
        ("Games", "8,Games", r"must be in 0 .. 7. Received: 8"),
        ("Games", None, "must be a number, or a name with --label_names. Received: 'Games'"),
        (-1, None, r"must be in 0 .. 7. Received: -1"),
    ],
)
def test_refuses_what_is_no_class(run, clip, tmp_path, label, text, match):
    names = None
    if text is not None:
        names = tmp_path / "names.csv"
        names.write_text(f"label_id,label_name\n{text}\n")
    with pytest.raises(ConfigError, match=match):
        explain(run, clip, label, label_names=names)


def test_refuses_a_clip_that_is_not_there_and_a_run_without_frames(run, tmp_path):
    with pytest.raises(ConfigError, match="--video_id='none' is in no file"):
        explain(run, ("none",))
    config_of("LogisticModel", frame_features=False).save(tmp_path)
    with pytest.raises(ConfigError, match="needs a frame-level run"):
        explain((RunFolder(tmp_path), run[1]), ("none",))


def test_the_command_reports_errors_by_its_name(tmp_path, capsys):
    (tmp_path / "a.tfrecord").touch()
    where = [f"--train_dir={tmp_path}", f"--input_data_pattern={tmp_path}/a.tfrecord"]
    assert main(["explain", *where, "--video_id=a", "--label=3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("yt8m-gat explain: error: ")
    assert str(tmp_path) in error


def test_a_damaged_file_is_an_error_of_one_line(run, tmp_path, capsys):
    (tmp_path / "bad.tfrecord").write_bytes(b"no record at all")
    arguments = [f"--train_dir={run[0].path}", f"--input_data_pattern={tmp_path}/bad.tfrecord"]
    assert main(["explain", *arguments, "--video_id=x", "--label=3"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "bad.tfrecord" in line
