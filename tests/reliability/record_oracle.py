"""What a record must be, read from its bytes without any of the package's or TensorFlow's reader.

Framing with `struct` and a bitwise CRC-32C; content with the protocol buffer classes.
"""

import struct
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

CASTAGNOLI = 0x82F63B78


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(payload):
    length = struct.pack("<Q", len(payload))
    return (
        length
        + struct.pack("<I", masked(crc32c(length)))
        + payload
        + struct.pack("<I", masked(crc32c(payload)))
    )


def payloads_of(data):
    """(number, payload or None where its checksum is wrong) of each record; the bytes lost after.

    The bytes lost are None where the file's framing is whole.
    """
    found, offset = [], 0
    while offset < len(data):
        header = data[offset : offset + 12]
        if len(header) < 12 or struct.unpack("<I", header[8:])[0] != masked(crc32c(header[:8])):
            return found, len(data) - offset
        end = offset + 16 + struct.unpack("<Q", header[:8])[0]
        if end > len(data):
            return found, len(data) - offset
        payload = data[offset + 12 : end - 4]
        right = struct.unpack("<I", data[end - 4 : end])[0] == masked(crc32c(payload))
        found.append((len(found), payload if right else None))
        offset = end
    return found, None if data else 0


class Clip(NamedTuple):
    video_id: bytes
    labels: frozenset
    features: tuple  # (name, uint8 [T, D]), in the schema's order


def _single_kind(features, key, kind):
    """Values of a context feature; () when it is not there, None when of another kind."""
    if key not in features.feature:
        return ()
    feature = features.feature[key]
    if feature.WhichOneof("kind") not in (None, kind):
        return None
    return tuple(getattr(feature, kind).value)


def read_clip(payload, sizes, num_classes, max_frames, with_labels=True):
    """The clip, or the kind of its fault; a set where more than one kind is right."""
    try:
        record = tf.train.SequenceExample.FromString(payload)
    except DecodeError:
        return {"undecodable"}
    video_id, labels, faults = _read_context(record.context, num_classes, with_labels)
    lists = record.feature_lists.feature_list
    lengths, features = [], []
    for name, size in sizes.items():
        frames = lists[name].feature if name in lists else ()
        lengths.append(len(frames))
        values = [frame.bytes_list.value for frame in frames]
        if any(len(value) != 1 for value in values):
            faults.add("wrong_type")
            continue
        cut = [value[0] for value in values[:max_frames]]
        if any(len(frame) != size for frame in cut):
            faults.add("feature_size")
            continue
        features.append((name, np.frombuffer(b"".join(cut), np.uint8).reshape(len(cut), size)))
    if not any(lengths):
        faults.add("no_frames")
    elif not all(lengths):
        faults |= {"missing_feature"}
    elif len(set(lengths)) > 1:
        faults.add("frame_counts")
    return faults or Clip(video_id, labels, tuple(features))


def read_video(payload, sizes, num_classes):
    """A video-level record, as `read_clip`; its features are float32 [D]."""
    try:
        record = tf.train.Example.FromString(payload)
    except DecodeError:
        return {"undecodable"}
    video_id, labels, faults = _read_context(record.features, num_classes, True)
    features = []
    for name, size in sizes.items():
        values = _single_kind(record.features, name, "float_list")
        if values is None:
            faults.add("wrong_type")
        elif len(values) != size:
            faults.add("feature_size" if values else "missing_feature")
        else:
            features.append((name, np.array(values, np.float32)))
        if not np.isfinite(values or 0.0).all():
            faults.add("not_finite")
    return faults or Clip(video_id, labels, tuple(features))


def _read_context(context, num_classes, with_labels):
    """Id, labels and faults of what stands beside the frames."""
    faults = set()
    ids = [_single_kind(context, key, "bytes_list") for key in ("id", "video_id")]
    labels = _single_kind(context, "labels", "int64_list") if with_labels else ()
    if labels is None or None in ids:
        faults.add("wrong_type")
    video_id = next((values[0] for values in ids if values and values[0]), b"")
    if any(values is not None and len(values) > 1 for values in ids) or not _is_text(video_id):
        faults.add("video_id")
    if any(not 0 <= label < num_classes for label in labels or ()):
        faults.add("label")
    return video_id, frozenset(labels or ()), faults


def _is_text(video_id):
    try:
        text = video_id.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and not any(ord(letter) < 32 for letter in text)
