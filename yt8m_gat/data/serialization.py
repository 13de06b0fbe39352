"""Frames of features as the protocol buffers of records."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf


def feature_lists(
    frames: Mapping[str, np.ndarray], float_lists: Collection[str] = ()
) -> tf.train.FeatureLists:
    """Returns frames as the feature lists of a record.

    Args:
        frames: Name -> array [T, size]; each row is stored as its bytes.
        float_lists: The features whose rows are stored as lists of floats instead.
    """

    def stored(name: str, frame: np.ndarray) -> tf.train.Feature:
        if name in float_lists:
            return float_feature(frame)
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[frame.tobytes()]))

    return tf.train.FeatureLists(
        feature_list={
            name: tf.train.FeatureList(feature=[stored(name, frame) for frame in array])
            for name, array in frames.items()
        }
    )


def float_feature(values: np.ndarray) -> tf.train.Feature:
    """Returns values [size] as a list of floats."""
    return tf.train.Feature(float_list=tf.train.FloatList(value=values.tolist()))
