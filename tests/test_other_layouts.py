"""The whole way on records that are laid out as others lay them out."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
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


def test_labels_under_another_key_as_vectors(tmp_path):
    """GAP 0 and exit code 0 before: labels that are not found are no fault of any one record."""
    path = write_videos(tmp_path / "train.tfrecord", "clip/label", vectors=True)
    plain = write_videos(tmp_path / "plain.tfrecord", "labels")
    folder = RunFolder(tmp_path / "run")

    def train(config, eval_data_pattern=path):
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
    train(config)
    assert pipeline.evaluate(folder, eval_data_pattern=path)["clean"]["gap"] == 1.0
    with pytest.raises(ConfigError, match="--eval_data_pattern: none of 24 records"):
        pipeline.evaluate(folder, eval_data_pattern=plain)


def test_an_evaluation_of_unlabelled_videos_alone_is_an_error(tmp_path):
    """The files hold labels, those of the first videos do not."""
    labelled = write_videos(tmp_path / "b.tfrecord", "labels")
    unlabelled = write_videos(tmp_path / "a.tfrecord", "other")
    folder = RunFolder(tmp_path / "run")
    pipeline.train(folder, video_run(), train_data_pattern=labelled)
    pattern = f"{unlabelled},{labelled}"
    with pytest.raises(ConfigError, match="none of the 24 videos has a label under 'labels'"):
        pipeline.evaluate(folder, eval_data_pattern=pattern, max_videos=24)
    assert pipeline.evaluate(folder, eval_data_pattern=pattern)["clean"]["num_videos"] == 24
