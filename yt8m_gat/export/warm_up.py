"""Requests that TensorFlow Serving sends to a new version of a model before it serves it.

They are a TFRecord file of at most 1,000 `PredictionLog` messages in the folder of the SavedModel.
The messages are written without `tensorflow-serving-api`, which would pin the package to one
version of TensorFlow; the tests read them with it.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import tensorflow as tf

from yt8m_gat.data import RecordSchema
from yt8m_gat.data.schema import ENCODED_KEY, ID_KEYS, MAX_FRAMES

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"

# Field numbers of tensorflow_serving/apis: prediction_log.proto, predict.proto, model.proto.
_PREDICT_LOG = 6
_PREDICT_LOG_REQUEST = 1
_REQUEST_MODEL_SPEC = 1
_REQUEST_INPUTS = 2
_MODEL_SPEC_SIGNATURE_NAME = 3
# Of the entries of any map (the protocol buffers language guide).
_MAP_KEY = 1
_MAP_VALUE = 2

_LENGTH_DELIMITED = 2

# The middle of the quantized range.
_BYTE = 128


def longest_clip(schema: RecordSchema) -> int:
    """Returns the frames of the longest clip of a request; a run may allow any number."""
    return min(schema.max_frames, MAX_FRAMES)


def longest_record(schema: RecordSchema) -> bytes:
    """Returns a record of this schema of the greatest length."""
    video_id = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"warm-up"]))
    if not schema.frame_level:
        features = {
            name: tf.train.Feature(float_list=tf.train.FloatList(value=[0.0] * size))
            for name, size in schema.feature_sizes
        }
        features[ID_KEYS[0]] = video_id
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    lists = {}
    if schema.clips is not None:
        side = round(schema.clips.crop_size / schema.clips.central_share)
        picture = tf.io.encode_jpeg(tf.fill([side, side, 3], tf.cast(_BYTE, tf.uint8))).numpy()
        frame = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
        lists[ENCODED_KEY] = tf.train.FeatureList(feature=[frame] * schema.clips.num_segments)
        return _sequence_example(video_id, lists)
    for name in schema.feature_names:
        frames = [_frame(schema, name)] * longest_clip(schema)
        lists[name] = tf.train.FeatureList(feature=frames)
    return _sequence_example(video_id, lists)


def _sequence_example(
    video_id: tf.train.Feature, lists: Mapping[str, tf.train.FeatureList]
) -> bytes:
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={ID_KEYS[0]: video_id}),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


def _frame(schema: RecordSchema, name: str) -> tf.train.Feature:
    size, unit = schema.stored_size(name)
    if unit == "values":
        return tf.train.Feature(float_list=tf.train.FloatList(value=[0.0] * size))
    byte = _BYTE if schema.types[name] == "uint8" else 0
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes([byte]) * size]))


def write_warm_up(
    saved_model: str | os.PathLike,
    requests: Iterable[tuple[str, Mapping[str, tf.Tensor]]],
) -> None:
    """Adds warm-up requests to a SavedModel, replacing existing ones.

    Args:
        saved_model: Its folder.
        requests: Pairs of a signature and its inputs by name.
    """
    path = Path(saved_model) / WARM_UP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    request = _field(_REQUEST_MODEL_SPEC, _field(_MODEL_SPEC_SIGNATURE_NAME, signature.encode()))
    for name, tensor in inputs.items():
        content = tf.make_tensor_proto(tensor).SerializeToString()
        entry = _field(_MAP_KEY, name.encode()) + _field(_MAP_VALUE, content)
        request += _field(_REQUEST_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_PREDICT_LOG_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encodes 7 bits a byte, the lowest first; the high bit marks that more follow."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
