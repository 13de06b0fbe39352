"""Small classifiers of every family, exported, and records for them."""

import numpy as np
import tensorflow as tf

from yt8m_gat.config import get_recipe
from yt8m_gat.data import RecordSchema
from yt8m_gat.export import export_saved_model
from yt8m_gat.models import build_model

FRAME_SIZES = {"rgb": 8, "audio": 4}
VIDEO_SIZES = {"mean_rgb": 8, "mean_audio": 4}
NUM_CLASSES = 30
MAX_FRAMES = 12

_TRANSFORMER = {"num_heads": 2, "hidden_size": 16, "feed_forward_size": 16}
OPTIONS = {
    "GAT": {**_TRANSFORMER, "local_masks": ("bd4",)},
    "GateAtt": {**_TRANSFORMER, "local_masks": ("bd4",)},
    "ShareAtt": {**_TRANSFORMER, "num_heads": 2, "local_masks": ("bd2",)},
    "FrameLevelLogisticModel": {},
    "DbofModel": {"dbof_cluster_size": 16, "dbof_hidden_size": 8, "iterations": 5},
    "LstmModel": {"lstm_cells": 8},
    "AttentionGru": {"gru_cells": 4},
    "NetVLAD": {"cluster_size": 8, "hidden_size": 8},
    "GatedSoftDbof": {"cluster_size": 16, "hidden_size": 8},
    "NeXtVLAD": {"cluster_size": 4, "groups": 2, "hidden_size": 8, "gating_reduction": 2},
    "LogisticModel": {},
    "MoeModel": {},
}


def schema_of(name):
    frame_level = get_recipe(name).frame_level
    sizes = FRAME_SIZES if frame_level else VIDEO_SIZES
    return RecordSchema(sizes, NUM_CLASSES, MAX_FRAMES, frame_level)


def classifier_of(name, seed=0, **options):
    """A classifier whose weights are random, biases too, so that its probabilities differ."""
    tf.keras.utils.set_random_seed(seed)
    options = {**OPTIONS[name], **options}
    classifier = build_model(name, schema_of(name).sizes, NUM_CLASSES, MAX_FRAMES, **options)
    generator = np.random.default_rng(seed)
    for weight in classifier.weights:
        if np.issubdtype(weight.numpy().dtype, np.floating):
            noise = generator.normal(0, 0.1, weight.shape)
            # Moving variances must stay positive.
            weight.assign(weight.numpy() + np.abs(noise))
    return classifier


def export(name, export_dir, seed=0, normalize="none", **options):
    """(classifier, folder of the new version)."""
    classifier = classifier_of(name, seed, **options)
    return classifier, export_saved_model(classifier, schema_of(name), export_dir, normalize)


def frame_record(video_id, num_frames, sizes=None):
    """A `SequenceExample` whose bytes follow from its id."""
    sizes = FRAME_SIZES if sizes is None else sizes
    generator = np.random.default_rng(list(video_id))
    lists = {
        name: tf.train.FeatureList(
            feature=[
                tf.train.Feature(bytes_list=tf.train.BytesList(value=[generator.bytes(size)]))
                for _ in range(num_frames)
            ]
        )
        for name, size in sizes.items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={"id": _bytes(video_id)}),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


def video_record(video_id):
    """An `Example` whose features follow from its id."""
    generator = np.random.default_rng(list(video_id))
    features = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=generator.normal(size=size)))
        for name, size in VIDEO_SIZES.items()
    }
    features["id"] = _bytes(video_id)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def records_of_all_lengths(name="GAT"):
    """One record of each length, 1 to 3 frames more than are read; or as many videos."""
    ids = [b"clip%02d" % length for length in range(1, MAX_FRAMES + 4)]
    if not schema_of(name).frame_level:
        return [video_record(video_id) for video_id in ids]
    return [frame_record(video_id, length) for length, video_id in enumerate(ids, 1)]


def _bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
