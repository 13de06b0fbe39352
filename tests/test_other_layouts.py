"""The whole way on records that are laid out as others lay them out."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.config import (
    ConfigError,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.data import dequantize
from yt8m_gat.run_folder import RunFolder


def write_videos(path, key, vectors=False):
    """24 videos of 3 classes, each with the class that its features say, under `key`."""
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(24):
            label = number % 3
            values = np.eye(3)[label] + rng.normal(0, 0.1, 3)
            labels = list(np.eye(3, dtype=int)[label]) if vectors else [label]
            features = {
                "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"v%d" % number])),
                key: tf.train.Feature(int64_list=tf.train.Int64List(value=labels)),
                "m": tf.train.Feature(float_list=tf.train.FloatList(value=values)),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return str(path)


def video_run(**data):
    return RunConfig(
        data=DataConfig(
            feature_names=("m",), feature_sizes=(3,), num_classes=3, frame_features=False, **data
        ),
        model=ModelConfig(name="LogisticModel"),
        training=TrainingConfig(batch_size=8, max_steps=30, base_learning_rate=0.3),
    )


@pytest.mark.slow
def test_labels_under_another_key_as_vectors(tmp_path):
    """GAP 0 and exit code 0 before: labels that are not found are no fault of any one record."""
    path = write_videos(tmp_path / "train.tfrecord", "clip/label", vectors=True)
    plain = write_videos(tmp_path / "a.tfrecord", "labels")
    folder = RunFolder(tmp_path / "run")

    def train(config, eval_data_pattern=""):
        return pipeline.train(
            folder, config, train_data_pattern=path, eval_data_pattern=eval_data_pattern
        )

    with pytest.raises(ConfigError, match=r"--train_data_pattern: none of 24 .*'clip/label' \(3 v"):
        train(video_run())
    with pytest.raises(ConfigError, match=r"--labels_are=multi_hot --num_classes=3 of train\.py"):
        train(video_run(labels_key="clip/label"))
    config = video_run(labels_key="clip/label", labels_are="multi_hot")
    with pytest.raises(ConfigError, match=r"--eval_data_pattern: none of 24 .*'labels'"):
        train(config, plain)
    assert not folder.path.exists()
    train(config, path)
    assert pipeline.evaluate(folder, eval_data_pattern=path)["clean"]["gap"] == 1.0
    with pytest.raises(ConfigError, match="--eval_data_pattern: none of 24 records"):
        pipeline.evaluate(folder, eval_data_pattern=plain)

    # The files hold labels, those of the first videos do not.
    pattern = f"{plain},{path}"
    with pytest.raises(ConfigError, match="none of the 24 videos has a label under 'clip/label'"):
        pipeline.evaluate(folder, eval_data_pattern=pattern, max_videos=24)
    assert pipeline.evaluate(folder, eval_data_pattern=pattern)["clean"]["num_videos"] == 48


SIZES = {"RGB/feature/floats": 8, "1 rgb:0": 4}
LABELS = "clip/label/index"


def write_clips(path, floats):
    """12 clips of random bytes, dequantized if `floats`; the second feature is bytes of float32."""
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(12):
            lists = {}
            for place, (name, size) in enumerate(SIZES.items()):
                frames = rng.integers(0, 256, (3 + number % 4, size), np.uint8)
                features = []
                for frame in frames:
                    value = dequantize(frame) if floats else frame
                    stored = tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[value.tobytes()])
                    )
                    if floats and place == 0:
                        stored = tf.train.Feature(float_list=tf.train.FloatList(value=value))
                    features.append(stored)
                lists[name] = tf.train.FeatureList(feature=features)
            context = {
                "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"v%d" % number])),
                LABELS: tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3])),
            }
            example = tf.train.SequenceExample(
                context=tf.train.Features(feature=context),
                feature_lists=tf.train.FeatureLists(feature_list=lists),
            )
            writer.write(example.SerializeToString())
    return str(path)


@pytest.mark.slow
def test_floats_under_odd_names_are_what_quantized_frames_are(tmp_path):
    """Training, evaluation and the served model; the same weights say the same of bytes."""
    floats = write_clips(tmp_path / "floats.tfrecord", True)
    bytes_ = write_clips(tmp_path / "bytes.tfrecord", False)
    data = DataConfig(
        feature_names=tuple(SIZES),
        feature_sizes=tuple(SIZES.values()),
        feature_types=("float_list", "float32"),
        num_classes=3,
        max_frames=5,
        labels_key=LABELS,
    )
    options = {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8}
    config = RunConfig(
        data=data,
        model=ModelConfig(name="Transformer", options=options),
        training=TrainingConfig(batch_size=4, max_steps=2),
    )
    folder, export_dir = RunFolder(tmp_path / "run"), tmp_path / "export"
    pipeline.train(folder, config, train_data_pattern=floats, export_dir=export_dir)

    other = RunFolder(tmp_path / "quantized")
    shutil.copytree(folder.path, other.path)
    dataclasses.replace(config, data=dataclasses.replace(data, feature_types=())).save(other.path)
    found, expected = (
        pipeline.evaluate(run, eval_data_pattern=path)
        for run, path in ((folder, floats), (other, bytes_))
    )
    assert found["clean"] == expected["clean"]
    assert {f"attention_entropy_{name}" for name in SIZES} <= set(found["clean"])
    with pytest.raises(ConfigError, match=r"--feature_types=float_list,float32.*nor levels"):
        pipeline.evaluate(folder, eval_data_pattern=floats, attacks=("fgm:round=true",))

    csv = tmp_path / "quantized.csv"
    pipeline.infer(other, input_data_pattern=bytes_, output_file=csv)
    signatures = tf.saved_model.load(str(export_dir / "1")).signatures
    _, inputs = signatures["frames"].structured_input_signature
    assert set(inputs) == {"RGB_feature_floats_and_1_rgb_0", "num_frames"}
    records = tf.constant([record.numpy() for record in tf.data.TFRecordDataset(floats)])
    served = signatures["attention"](example_bytes=records)
    assert served["attention_1_rgb_0"].shape == served["attention_RGB_feature_floats"].shape
    for number, row in enumerate(csv.read_text().splitlines()[1:]):
        values = np.array(row.partition(",")[2].split(" "), float)
        np.testing.assert_array_equal(served["class_indexes"][number], values[::2])
        np.testing.assert_allclose(served["predictions"][number], values[1::2], atol=1e-5)
