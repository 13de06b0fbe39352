"""What a serialized record holds, whatever its layout; in Python, for messages and inspection."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_gat.data.schema import ID_KEYS, LABELS_KEY
from yt8m_gat.data.tfrecord import payloads_from

SEGMENT_PREFIX = "segment_"


@dataclasses.dataclass(frozen=True)
class RecordDescription:
    """What one record holds.

    Attributes:
        frame_level: It has feature lists (`tf.SequenceExample`), not features alone
            (`tf.Example`).
        video_id: Its id; empty when it has none.
        labels: Its class indices.
        lengths: Feature -> frames (frame level); empty at video level.
        sizes: Feature -> the sizes found, ascending: bytes per frame, or floats per video.
        segment_labels: Class indices of its rated segments (2019).
    """

    frame_level: bool
    video_id: str
    labels: tuple[int, ...]
    lengths: dict[str, int]
    sizes: dict[str, tuple[int, ...]]
    segment_labels: tuple[int, ...]

    def __str__(self) -> str:
        if not self.sizes:
            return "no features"
        parts = []
        for name, sizes in self.sizes.items():
            size = " or ".join(map(str, sizes)) or "no"
            if self.frame_level:
                parts.append(f"{name!r}, {self.lengths[name]} frames of {size} bytes")
            else:
                parts.append(f"{name!r}, {size} floats")
        return "; ".join(parts)


class UndecodableRecordError(ValueError):
    """The bytes are no `tf.SequenceExample` and no `tf.Example`."""


def _first_bytes(features: tf.train.Features, keys: tuple[str, ...]) -> bytes:
    for key in keys:
        values = features.feature[key].bytes_list.value if key in features.feature else ()
        if values and values[0]:
            return values[0]
    return b""


def describe_record(payload: bytes) -> RecordDescription:
    """Describes a frame-, video- or segment-level record.

    Raises:
        UndecodableRecordError: The payload is none.
    """
    # A tf.Example decodes as a tf.SequenceExample that has a context alone: field 1 of both is
    # a tf.train.Features.
    try:
        record = tf.train.SequenceExample.FromString(payload)
    except DecodeError as error:
        raise UndecodableRecordError("the payload is no tf.Example or tf.SequenceExample") from error
    context = record.context
    lists = record.feature_lists.feature_list
    frame_level = bool(lists)
    lengths = {}
    sizes = {}
    if frame_level:
        for name in sorted(lists):
            frames = lists[name].feature
            lengths[name] = len(frames)
            found = {sum(map(len, frame.bytes_list.value)) for frame in frames}
            sizes[name] = tuple(sorted(found))
    else:
        for name in sorted(context.feature):
            feature = context.feature[name]
            if feature.WhichOneof("kind") == "float_list":
                sizes[name] = (len(feature.float_list.value),)

    def integers(key: str) -> tuple[int, ...]:
        return tuple(context.feature[key].int64_list.value) if key in context.feature else ()

    return RecordDescription(
        frame_level=frame_level,
        video_id=_first_bytes(context, ID_KEYS).decode("utf-8", "replace"),
        labels=integers(LABELS_KEY),
        lengths=lengths,
        sizes=sizes,
        segment_labels=integers(SEGMENT_PREFIX + "labels"),
    )


def discover(file: str) -> RecordDescription | None:
    """Describes the first record of a file; None when the file has none.

    Raises:
        tf.errors.DataLossError: The file's first record is damaged.
        UndecodableRecordError: It is no `tf.Example` or `tf.SequenceExample`.
    """
    for payload in payloads_from(file, 0).take(1):
        return describe_record(payload.numpy())
    return None
