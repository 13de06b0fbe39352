"""From Python: a run's predictions, own arrays as records, records as a dataset for `fit`."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.data import LabelMap, Reader, Shuffle, make_dataset
from yt8m_gat.models import build_from_config
from yt8m_gat.prediction.submission import video_rows
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.hdf5 import save_weights

SIZES = {"rgb": 6, "audio": 4}
SCHEMA = yt8m_gat.RecordSchema(SIZES, num_classes=5, max_frames=7)
VIDEO_SCHEMA = yt8m_gat.RecordSchema({"mean": 3}, num_classes=5, frame_level=False)
GAT = {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8, "local_masks": ("bd4",)}


def make_run(path, name, options, data):
    """A run that was never trained: its weights are drawn, which is all that predicting needs."""
    config = RunConfig(data=data, model=ModelConfig(name=name, options=options))
    folder = RunFolder(path)
    folder.prepare(config)
    save_weights(build_from_config(config), folder.best_weights, step=3)
    return yt8m_gat.load_run(path)


@pytest.fixture(scope="module")
def clips():
    """Uint8 frames of six clips of 1 to 7 frames, by feature."""
    rng = np.random.default_rng(0)
    lengths = (3, 7, 1, 5, 2, 7)
    return {
        name: [rng.integers(0, 256, (length, size), np.uint8) for length in lengths]
        for name, size in SIZES.items()
    }


@pytest.fixture(scope="module")
def examples(clips):
    return [
        {"id": f"clip{i}", "labels": [i % 5, (i + 2) % 5], "rgb": rgb, "audio": audio}
        for i, (rgb, audio) in enumerate(zip(*clips.values(), strict=True))
    ]


@pytest.fixture(scope="module")
def records(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("records") / "mine.tfrecord"
    assert yt8m_gat.write_records(path, examples, SCHEMA) == 6
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = DataConfig(feature_sizes=(6, 4), num_classes=5, max_frames=7)
    return make_run(tmp_path_factory.mktemp("runs") / "gat", "GMSA", GAT, data)


# --- The package --------------------------------------------------------------------------------


def test_importing_the_package_imports_no_tensorflow_and_every_name_is_there():
    code = (
        "import sys, yt8m_gat\n"
        "assert set(yt8m_gat.__all__) <= set(dir(yt8m_gat))\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'not lazy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in yt8m_gat.__all__:
        assert getattr(yt8m_gat, name) is not None
    assert yt8m_gat.read is yt8m_gat.data.read
    with pytest.raises(AttributeError, match=r"'yt8m_gat' has no attribute 'predict'"):
        yt8m_gat.predict  # noqa: B018


# --- Predictions --------------------------------------------------------------------------------


def test_predictions_of_records_are_those_of_the_csv(run, records, tmp_path):
    csv = tmp_path / "submission.csv"
    count = pipeline.infer(run.folder, input_data_pattern=records, output_file=csv, top_k=3)
    assert count == 6
    table = run.predict(records, top_k=3)
    assert list(table.columns) == ["video_id", "label", "name", "probability"]
    assert list(table.video_id) == [f"clip{i}" for i in range(6) for _ in range(3)]
    rows = video_rows(
        table.video_id[::3],
        table.label.to_numpy().reshape(6, 3),
        table.probability.to_numpy().reshape(6, 3),
    )
    assert rows == csv.read_text().splitlines()[1:]
    assert set(table.name) == {""}
    assert run.step == 3 and run.checkpoint == "best"


def test_predictions_of_arrays_are_those_of_the_same_records(run, records, clips):
    expected = run.predict(records, top_k=None)
    assert len(expected) == 6 * 5
    ids = [f"clip{i}" for i in range(6)]
    pd.testing.assert_frame_equal(run.predict(clips, ids=ids, top_k=None), expected)
    floats = {name: [yt8m_gat.dequantize(x) for x in value] for name, value in clips.items()}
    numbered = run.predict(floats, top_k=None, batch_size=4)
    assert list(numbered.video_id[::5]) == [str(i) for i in range(6)]
    pd.testing.assert_frame_equal(numbered.iloc[:, 1:], expected.iloc[:, 1:])
    longer = {name: [np.concatenate([x[1], x[0]])] for name, x in clips.items()}
    cut = run.predict(longer, ids=["clip1"], top_k=None)
    assert np.allclose(cut.probability, expected.probability[5:10], rtol=1e-6)


def test_embeddings_are_what_the_head_turns_into_logits(run, records, clips):
    ids, vectors = run.embeddings(records, batch_size=4)
    assert ids == [f"clip{i}" for i in range(6)]
    assert (vectors.dtype, vectors.shape) == (np.float32, (6, 8))
    logits = run.model.output_layer(vectors).numpy()
    expected = run.predict(records, top_k=None).sort_values(["video_id", "label"])
    probabilities = expected.probability.to_numpy().reshape(6, 5)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probabilities, atol=1e-6)
    of_arrays = run.embeddings(clips, ids=ids)
    assert of_arrays[0] == ids
    np.testing.assert_allclose(of_arrays[1], vectors, atol=1e-6)


def test_embeddings_are_written_with_the_labels_of_the_records(run, records, tmp_path):
    """Not with those of the run's label map, which has two of the five classes."""
    label_map = LabelMap(((1, 0), (3, 1)), 5, ("", ""))
    schema = dataclasses.replace(run.schema, num_classes=2, label_map=label_map)
    mapped = dataclasses.replace(run, schema=schema)
    written = mapped.write_embeddings(records, tmp_path / "embeddings.tfrecord", batch_size=4)
    mapped.write_embeddings(
        records, tmp_path / "halved.tfrecord", transform=lambda x: x / 2, batch_size=4
    )
    assert written == yt8m_gat.RecordSchema({"embedding": 8}, 5, frame_level=False)
    [batch] = Reader([f"{tmp_path}/embeddings.tfrecord"], written, 6)
    ids, vectors = run.embeddings(records, batch_size=4)
    assert [video_id.decode() for video_id in batch["video_id"].numpy()] == ids
    np.testing.assert_array_equal(batch["features"]["embedding"], vectors)
    [halved] = Reader([f"{tmp_path}/halved.tfrecord"], written, 6)
    np.testing.assert_array_equal(halved["features"]["embedding"], vectors / 2)
    found = [list(np.flatnonzero(row)) for row in batch["labels"].numpy()]
    assert found == [sorted({i % 5, (i + 2) % 5}) for i in range(6)]


def test_embeddings_do_not_replace_the_records(run, records, tmp_path):
    link = tmp_path / "link.tfrecord"
    link.symlink_to(records)
    with pytest.raises(ConfigError, match=r"link\.tfrecord', a file of the records"):
        run.write_embeddings(records, link)


def test_a_model_without_embedding_has_none(tmp_path, records):
    data = DataConfig(feature_sizes=(6, 4), num_classes=5, max_frames=7)
    logistic = make_run(tmp_path, "FrameLevelLogisticModel", {}, data)
    with pytest.raises(ConfigError, match="--model=FrameLevelLogisticModel has no embedding"):
        logistic.embeddings(records)


def test_segments_are_predicted_window_by_window(run, records, clips):
    table = run.predict(records, top_k=None, segment_labels=True)
    starts = [range(0, len(frames), 5) for frames in clips["rgb"]]
    windows = [(f"clip{i}", start) for i, clip in enumerate(starts) for start in clip]
    segments = table.iloc[::5]
    assert list(zip(segments.video_id, segments.segment_start_time, strict=True)) == windows
    second = {name: [value[1][5:]] for name, value in clips.items()}
    row = windows.index(("clip1", 5))
    found = table.iloc[5 * row : 5 * row + 5]
    expected = run.predict(second, top_k=None)
    assert list(found.label) == list(expected.label)
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-6)


def test_a_video_level_run_names_its_classes(tmp_path):
    label_map = LabelMap(((0, 1), (1, 0), (2, 1)), 3, ("cats", "dogs"))
    (tmp_path / "map.csv").write_text(
        "source_index,target_index,target_name\n0,1,dogs\n1,0,cats\n2,1,dogs\n"
    )
    data = DataConfig(
        feature_names=("mean",),
        feature_sizes=(3,),
        num_classes=2,
        frame_features=False,
        label_map=label_map.fingerprint,
        num_source_classes=3,
    )
    config = RunConfig(data=data, model=ModelConfig(name="LogisticModel"))
    folder = RunFolder(tmp_path / "run")
    folder.prepare(config, label_map=tmp_path / "map.csv")
    save_weights(build_from_config(config), folder.best_weights)
    run = yt8m_gat.load_run(folder.path)
    means = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, 1.0]])
    table = run.predict({"mean": means})
    probabilities = keras.ops.sigmoid(run.model({"mean": means.astype(np.float32)})).numpy()
    for row in table.itertuples():
        assert row.probability == pytest.approx(probabilities[int(row.video_id), row.label])
        assert row.name == ("cats", "dogs")[row.label]
    assert run.step is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": None}, r"features must be rgb, audio\. Received: audio"),
        ({"rgb": []}, r"an array for each clip.*'rgb': 0"),
        ({"rgb": [np.zeros((2, 5), np.uint8)] * 6}, r"clip 0, 'rgb' must have the shape \[T, 6\]"),
        ({"rgb": [np.zeros((4, 6), np.uint8)] * 6}, r"clip 0: all features must have the same"),
        ({"rgb": [np.zeros((3, 6), np.int64)] * 6}, r"uint8, as stored, or floats.*int64"),
        ({"rgb": [np.full((3, 6), 200.0)] * 6}, r"dequantized.*200 to 200; give bytes as uint8"),
        ({"rgb": [np.full((3, 6), np.nan)] * 6}, r"dequantized.*nan"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(run, clips, change, message):
    data = {name: value for name, value in {**clips, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        run.predict(data)


def test_other_arguments_that_cannot_be_are_refused(run, clips, records):
    with pytest.raises(ValueError, match=r"each of 6 clips\. Received: 1 ids"):
        run.predict(clips, ids=["a"])
    with pytest.raises(ValueError, match=r"`ids` must be strings\. Received: \[0, 1, 2\]"):
        run.predict(clips, ids=range(6))
    with pytest.raises(ValueError, match=r"uint8 in all clips, or floats in all"):
        run.predict(
            {**clips, "audio": [yt8m_gat.dequantize(clips["audio"][0]), *clips["audio"][1:]]}
        )
    with pytest.raises(ValueError, match="records have ids of their own"):
        run.predict(records, ids=["a"])
    with pytest.raises(ValueError, match="arrays are predicted whole"):
        run.predict(clips, segment_labels=True)
    with pytest.raises(ValueError, match=r"`top_k` must be positive.*top_k=0"):
        run.predict(clips, top_k=0)


# --- Records ------------------------------------------------------------------------------------


def test_records_read_back_to_the_same_arrays(records, examples):
    (batch,) = Reader([records], SCHEMA, 6)
    for row, example in enumerate(examples):
        assert batch["video_id"][row].numpy().decode() == example["id"]
        assert set(np.flatnonzero(batch["labels"][row])) == set(example["labels"])
        for name in SIZES:
            length = batch["num_frames"][row]
            np.testing.assert_array_equal(batch["features"][name][row][:length], example[name])


def test_floats_are_stored_as_the_schema_says(tmp_path):
    sizes = {"a": 3, "b": 2}
    types = ("float32", "float_list")
    schema = yt8m_gat.RecordSchema(sizes, 4, feature_types=types, labels_are="multi_hot")
    frames = {
        name: np.random.default_rng(0).normal(size=(5, size)) * 100 for name, size in sizes.items()
    }
    path = str(tmp_path / "floats.tfrecord")
    yt8m_gat.write_records(path, [{"id": b"x", "labels": [0, 1, 1, 0], **frames}], schema)
    record = tf.train.SequenceExample.FromString(
        next(tf.data.TFRecordDataset(path).as_numpy_iterator())
    )
    lists = record.feature_lists.feature_list
    assert len(lists["a"].feature[0].bytes_list.value[0]) == 12
    assert len(lists["b"].feature[0].float_list.value) == 2
    (batch,) = Reader([path], schema, 1)
    for name in sizes:
        np.testing.assert_array_equal(batch["features"][name][0], frames[name].astype("float32"))
    np.testing.assert_array_equal(batch["labels"], [[0, 1, 1, 0]])


def test_video_level_records_read_back(tmp_path):
    path = tmp_path / "videos.tfrecord"
    means = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    videos = ({"id": str(i), "labels": (i,), "mean": x} for i, x in enumerate(means))
    assert yt8m_gat.write_records(path, videos, VIDEO_SCHEMA) == 2
    ((inputs, labels),) = yt8m_gat.read(str(path), VIDEO_SCHEMA)
    np.testing.assert_array_equal(inputs["mean"], means)
    np.testing.assert_array_equal(labels, np.eye(5)[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": None}, r"example 1 must have the keys id, rgb, audio and"),
        ({"sound": 1}, r"example 1 must have the keys.*Received: id, labels, rgb, audio, sound"),
        ({"id": 7}, r"example 1: the id must be text\. Received: 7"),
        ({"id": "clip0"}, r"example 1: ids must be unique\. Received twice: 'clip0'"),
        ({"id": ""}, r"example 1 does not fit the schema: it has none of the ids"),
        ({"labels": [5]}, r"example 1 does not fit the schema: .*label.* 5"),
        ({"labels": [1, 1, 0]}, r"the labels must differ.*np\.flatnonzero"),
        ({"labels": [0.0, 1.0]}, r"list of whole numbers.*float64; np\.flatnonzero"),
        ({"rgb": np.zeros((7, 6))}, r"'rgb' must be uint8.*yt8m_gat\.quantize"),
        ({"rgb": np.zeros((6, 6), np.uint8)}, r"example 1 does not fit the schema: .*frames"),
        ({"rgb": np.zeros((7, 5), np.uint8)}, r"shape \[T, 6\]\. Received: \(7, 5\)"),
        (
            {"rgb": np.zeros((8, 6), np.uint8), "audio": np.zeros((8, 4), np.uint8)},
            r"at most 7 frames, the schema's max_frames\. Received: 8",
        ),
        (
            {"rgb": np.zeros((0, 6), np.uint8), "audio": np.zeros((0, 4), np.uint8)},
            r"example 1 does not fit the schema: it has no frames",
        ),
    ],
)
def test_an_example_that_does_not_fit_leaves_no_file(tmp_path, examples, change, message):
    changed = {key: x for key, x in {**examples[1], **change}.items() if x is not None}
    path = tmp_path / "mine.tfrecord"
    path.write_text("as before")
    with pytest.raises(ValueError, match=message):
        yt8m_gat.write_records(path, [examples[0], changed, *examples[2:]], SCHEMA)
    assert path.read_text() == "as before"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.tfrecord"]


def test_no_examples_make_no_file(tmp_path):
    with pytest.raises(ValueError, match="at least one example"):
        yt8m_gat.write_records(tmp_path / "mine.tfrecord", iter(()), SCHEMA)
    assert not list(tmp_path.iterdir())


# --- Datasets -----------------------------------------------------------------------------------


def test_read_gives_what_the_models_take(run, records):
    order = {"shuffle": True, "seed": 3, "epoch": 2}
    ((inputs, labels),) = yt8m_gat.read(records, run.schema, batch_size=6, **order)
    assert {name: x.dtype for name, x in inputs.items()} == {
        "rgb": tf.float32,
        "audio": tf.float32,
        "frame_mask": tf.bool,
    }
    (batch,) = make_dataset([records], run.schema, 6, shuffle=Shuffle(seed=3, epoch=2))
    np.testing.assert_array_equal(labels, batch["labels"])
    for row, length in enumerate(batch["num_frames"]):
        assert list(inputs["frame_mask"][row]) == [frame < length for frame in range(7)]
        for name in SIZES:
            frames = yt8m_gat.dequantize(batch["features"][name][row][:length])
            np.testing.assert_array_equal(inputs[name][row][:length], frames)
            assert not inputs[name][row][length:].numpy().any()
    assert run.model(inputs).shape == (6, 5)
    defaults = [
        yt8m_gat.read(records, run.schema, batch_size=2, **order)
        for order in ({"shuffle": True}, {"shuffle": True, "seed": 0, "epoch": 0})
    ]
    for (given_inputs, given_labels), (_, expected) in zip(*defaults, strict=True):
        np.testing.assert_array_equal(given_labels, expected)
        assert len(given_inputs["rgb"]) == 2


def test_read_refuses_what_cannot_be(records):
    with pytest.raises(ValueError, match="no file matches"):
        yt8m_gat.read("nothing*.tfrecord")
    with pytest.raises(ValueError, match=r"give `normalize` to AdversarialModel"):
        yt8m_gat.read(records, SCHEMA, as_stored=True, normalize="concat")


@pytest.mark.slow
def test_a_classifier_and_an_adversarial_model_fit_what_is_read(records):
    dataset = yt8m_gat.read(records, SCHEMA, batch_size=4)
    model = yt8m_gat.build_model("FrameLevelLogisticModel", SIZES, 5)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(dataset, shuffle=False, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]
    objective = yt8m_gat.build_objective(yt8m_gat.ObjectiveConfig(adversarial="output"))
    adversarial = yt8m_gat.AdversarialModel(model, objective)
    adversarial.compile("adam")
    stored = yt8m_gat.read(records, SCHEMA, batch_size=4, as_stored=True)
    assert len(stored) == len(dataset) == 2
    assert next(iter(stored))[0]["rgb"].dtype == tf.uint8
    losses = [adversarial.evaluate(batches, verbose=0) for batches in (dataset, stored)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
