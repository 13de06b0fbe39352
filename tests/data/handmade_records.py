"""Tiny records written by hand, for the tests of the reader."""

import struct
from pathlib import Path

import tensorflow as tf

SHARED = Path(__file__).parents[3] / "shared" / "data"


def bytes_feature(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def ints_feature(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats_feature(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def sequence_example(context, **lists):
    """Frames are bytes, or a whole tf.train.Feature."""

    def feature_list(frames):
        return tf.train.FeatureList(
            feature=[
                frame if isinstance(frame, tf.train.Feature) else bytes_feature(frame)
                for frame in frames
            ]
        )

    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(
            feature_list={name: feature_list(frames) for name, frames in lists.items()}
        ),
    ).SerializeToString()


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def clip(video_id, num_frames, labels=(0,), first_byte=0):
    """A record of features "r" (4 bytes) and "u" (2 bytes), schema SMALL in the tests."""
    return sequence_example(
        {"id": bytes_feature(video_id.encode()), "labels": ints_feature(*labels)},
        r=[bytes([(first_byte + t) % 256] * 4) for t in range(num_frames)],
        u=[bytes([255 - t] * 2) for t in range(num_frames)],
    )


def write(path, payloads):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
    return str(path)


def frame_offsets(data):
    """Computes where each record starts from the lengths only: an oracle for undamaged files."""
    offsets, offset = [], 0
    while offset < len(data):
        offsets.append(offset)
        (length,) = struct.unpack_from("<Q", data, offset)
        offset += 12 + length + 4
    return offsets
