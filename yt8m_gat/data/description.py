"""Descriptions of serialized records of any layout, in Python, for messages and inspection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_gat.data.errors import Fault
from yt8m_gat.data.record_files import read_payload, walk_frames
from yt8m_gat.data.schema import ENCODED_KEY, ID_KEYS, LABELS_KEY, RecordSchema
from yt8m_gat.data.tfrecord import file_size

_MOST_SIZES = 3
"""Number of sizes of a feature that a message lists; raw clips have about one for each frame."""


@dataclasses.dataclass(frozen=True)
class RecordDescription:
    """The contents of one record.

    Attributes:
        frame_level: Whether it has feature lists (`tf.SequenceExample`), not only features
            (`tf.Example`).
        video_id: Its id; empty when it has none.
        labels: The values of its list of labels.
        integers: The int64 lists that it holds in addition to its features, by name, including
            the labels and ratings.
        lengths: Feature -> number of frames (frame level); empty at video level.
        sizes: Feature -> its distinct sizes, ascending: bytes per frame, or floats per video or
            per frame of `float_lists`.
        float_lists: Features whose frames are lists of floats, not bytes.
        integer_lists: Feature lists of integers, such as MediaSequence's times; they are no
            features.
        not_finite: Features with a value that is not finite; bytes are read as float32.
        float32_like: Features whose first frame consists of bytes that are plausible as float32.
        segment_labels: Class indices of its rated segments (2019).
        faults: The faults, with their kinds, that make it unreadable under any schema.
    """

    frame_level: bool
    video_id: str
    labels: tuple[int, ...]
    integers: dict[str, tuple[int, ...]]
    lengths: dict[str, int]
    sizes: dict[str, tuple[int, ...]]
    float_lists: frozenset[str]
    integer_lists: frozenset[str]
    not_finite: frozenset[str]
    float32_like: frozenset[str]
    segment_labels: tuple[int, ...]
    faults: tuple[tuple[Fault, str], ...]

    @property
    def level(self) -> str:
        """`frame` or `video`."""
        return "frame" if self.frame_level else "video"

    def __str__(self) -> str:
        if not self.sizes:
            return "no features"
        parts = []
        for name, sizes in self.sizes.items():
            size = " or ".join(map(str, sizes)) or "no"
            if len(sizes) > _MOST_SIZES:
                size = f"{sizes[0]} to {sizes[-1]}"
            if self.frame_level:
                unit = "floats" if name in self.float_lists else "bytes"
                parts.append(f"{name}, {self.lengths[name]} frames of {size} {unit}")
            else:
                parts.append(f"{name}, {size} floats")
        return "; ".join(parts)


class UndecodableRecordError(ValueError):
    """The bytes are neither a `tf.SequenceExample` nor a `tf.Example`."""


def _values(
    features: tf.train.Features, key: str, kind: str, faults: list[tuple[Fault, str]]
) -> tuple:
    """Returns the values of a context feature; another kind of list is added to the faults."""
    if key not in features.feature:
        return ()
    feature = features.feature[key]
    stored_kind = feature.WhichOneof("kind")
    if stored_kind not in (None, kind):
        faults.append((Fault.WRONG_TYPE, f"feature {key} is a {stored_kind}, not a {kind}"))
        return ()
    return tuple(getattr(feature, kind).value)


def int64_lists(features: tf.train.Features) -> dict[str, tuple[int, ...]]:
    """Returns the int64 lists among some features, sorted by name, without empty ones."""
    return {
        name: values
        for name in sorted(features.feature)
        if (values := tuple(features.feature[name].int64_list.value))
    }


def _frame_sizes(
    name: str, frames: Sequence[tf.train.Feature], faults: list[tuple[Fault, str]]
) -> list[int]:
    """Returns the size of each frame; a frame of another kind is added to the faults.

    A frame is one bytes value or, if the feature's first frame is a list of floats, such a list.
    """
    wanted = "float_list" if _is_float_list(frames) else "bytes_list"
    sizes = []
    for number, frame in enumerate(frames):
        kind = frame.WhichOneof("kind") or "nothing"
        if kind != wanted:
            reason = f"is a {kind}, not a {wanted}"
        elif kind == "float_list":
            sizes.append(len(frame.float_list.value))
            continue
        elif len(frame.bytes_list.value) == 1:
            sizes.append(len(frame.bytes_list.value[0]))
            continue
        else:
            reason = f"has {len(frame.bytes_list.value)} values instead of 1"
        faults.append((Fault.WRONG_TYPE, f"feature {name}, frame {number} {reason}"))
        break
    return sizes


_NOT_FINITE = "has a value that is not finite"


def _floats(frames: Sequence[tf.train.Feature]) -> np.ndarray:
    """Returns all values of some frames; bytes are read as float32, without incomplete ones."""
    if _is_float_list(frames):
        return np.concatenate([np.asarray(frame.float_list.value) for frame in frames])
    content = b"".join(value for frame in frames for value in frame.bytes_list.value)
    return np.frombuffer(content[: len(content) // 4 * 4], "<f4")


def _kind(frames: Sequence[tf.train.Feature]) -> str | None:
    """Returns the kind of the first frame, or None."""
    return frames[0].WhichOneof("kind") if frames else None


def _is_float_list(frames: Sequence[tf.train.Feature]) -> bool:
    return _kind(frames) == "float_list"


def _looks_like_float32(frames: Sequence[tf.train.Feature]) -> bool:
    """Returns whether the first frame's bytes are plausible as float32.

    Quantized bytes, most of them near 128, would be floats close to 0.
    """
    if not frames or len(frames[0].bytes_list.value) != 1:
        return False
    frame = frames[0].bytes_list.value[0]
    if not frame or len(frame) % 4 or not any(frame):
        return False
    values = np.abs(np.frombuffer(frame, "<f4"))
    with np.errstate(invalid="ignore"):
        return bool(np.all((values == 0) | ((values > 1e-6) & (values < 1e6))))


def _decoded(payload: bytes) -> tf.train.SequenceExample:
    # A tf.Example decodes as a tf.SequenceExample that has only a context: field 1 of both is a
    # tf.train.Features.
    try:
        return tf.train.SequenceExample.FromString(payload)
    except DecodeError as error:
        raise UndecodableRecordError(
            "the payload is no tf.Example or tf.SequenceExample"
        ) from error


def describe_record(payload: bytes, labels_key: str = LABELS_KEY) -> RecordDescription:
    """Describes a frame-, video- or segment-level record.

    Args:
        payload: Its bytes.
        labels_key: Name of its list of labels.

    Raises:
        UndecodableRecordError: The payload is not a record.
    """
    record = _decoded(payload)
    context = record.context
    lists = record.feature_lists.feature_list
    faults: list[tuple[Fault, str]] = []
    ids = [_values(context, key, "bytes_list", faults) for key in ID_KEYS]
    for key, values in zip(ID_KEYS, ids, strict=True):
        if len(values) > 1:
            faults.append((Fault.VIDEO_ID, f"it has more than one value of {key}"))
    video_id = next((values[0] for values in ids if values and values[0]), b"")
    if not video_id:
        faults.append((Fault.VIDEO_ID, f"it has none of the ids {', '.join(ID_KEYS)}"))
    elif not _is_text(video_id):
        faults.append((Fault.VIDEO_ID, "its id is no UTF-8 text, or has control characters"))
    labels = _values(context, labels_key, "int64_list", faults)
    segment_labels = _values(context, "segment_labels", "int64_list", faults)
    lengths = {}
    sizes = {}
    integer_lists = frozenset(name for name in lists if _kind(lists[name].feature) == "int64_list")
    features = sorted(set(lists) - integer_lists)
    for name in features:
        frames = lists[name].feature
        lengths[name] = len(frames)
        sizes[name] = tuple(sorted(set(_frame_sizes(name, frames, faults))))
    if not lists:
        for name in sorted(context.feature):
            values = context.feature[name].float_list.value
            if values:
                sizes[name] = (len(values),)
                if not np.isfinite(values).all():
                    reason = f"feature {name} {_NOT_FINITE}"
                    faults.append((Fault.NOT_FINITE, reason))
    return RecordDescription(
        frame_level=bool(lists),
        video_id=video_id.decode("utf-8", "replace"),
        labels=labels,
        integers=int64_lists(context),
        lengths=lengths,
        sizes=sizes,
        float_lists=frozenset(name for name in features if _is_float_list(lists[name].feature)),
        integer_lists=integer_lists,
        not_finite=frozenset(
            name for name in features if not np.isfinite(_floats(lists[name].feature)).all()
        ),
        float32_like=frozenset(
            name for name in features if _looks_like_float32(lists[name].feature)
        ),
        segment_labels=segment_labels,
        faults=tuple(faults),
    )


def _is_text(video_id: bytes) -> bool:
    try:
        text = video_id.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not any(ord(letter) < 32 for letter in text)


def find_fault(description: RecordDescription, schema: RecordSchema) -> tuple[Fault, str] | None:
    """Returns why a record does not fit a schema, or None, in agreement with the parser.

    Unlike the parser, this also checks the frames after `schema.max_frames`. It does not decode the
    frames of raw clips.
    """
    if description.faults:
        return description.faults[0]
    labels, num_classes = description.labels, schema.num_source_classes
    if schema.multi_hot_labels and labels and len(labels) != num_classes:
        reason = f"it has {len(labels)} labels instead of {num_classes}, one a class"
        return Fault.LABEL, reason
    last = 1 if schema.multi_hot_labels else num_classes - 1
    for label in labels:
        if label < 0:
            return Fault.LABEL, f"label {label} is negative"
        if label > last:
            return Fault.LABEL, f"label {label} is outside 0 .. {last}"
    if schema.clips is not None:
        if ENCODED_KEY in description.integer_lists | description.float_lists:
            return Fault.WRONG_TYPE, f"frame 0 of {ENCODED_KEY} is not one value of bytes"
        if not description.lengths.get(ENCODED_KEY):
            return Fault.NO_FRAMES, f"it has no frames under {ENCODED_KEY}"
        return None
    names = schema.feature_names
    needed = ", ".join(names)
    if description.frame_level != schema.frame_level:
        return (
            Fault.MISSING_FEATURE,
            f"it is a {description.level}-level record ({description}); each of {needed} is needed",
        )
    for name in names:
        if name in description.integer_lists:
            return Fault.WRONG_TYPE, f"feature {name}, frame 0 is a list of integers"
        if name not in description.sizes or description.lengths.get(name) == 0:
            return (
                Fault.MISSING_FEATURE,
                f"feature {name} is missing or empty; each of {needed} is needed",
            )
        size, unit = schema.stored_size(name)
        if schema.frame_level and (unit == "values") != (name in description.float_lists):
            kinds = ("float_list", "bytes_list")
            stored, wanted = kinds if name in description.float_lists else reversed(kinds)
            return Fault.WRONG_TYPE, f"feature {name}, frame 0 is a {stored}, not a {wanted}"
        for stored_size in description.sizes[name]:
            if stored_size != size:
                reason = f"feature {name} has {stored_size} {unit} instead of {size}"
                return Fault.FEATURE_SIZE, reason
        if schema.types[name] != "uint8" and name in description.not_finite:
            return Fault.NOT_FINITE, f"feature {name} {_NOT_FINITE}"
        if schema.frame_level and description.lengths[name] != description.lengths[names[0]]:
            return (
                Fault.FRAME_COUNTS,
                f"feature {name} has {description.lengths[name]} frames, feature {names[0]} has "
                f"{description.lengths[names[0]]}",
            )
    return None


def discover(file: str) -> RecordDescription | None:
    """Describes the first record of a file; None when the file is empty.

    Raises:
        BadRecordError: The file's first record is damaged.
        UndecodableRecordError: It is neither a `tf.Example` nor a `tf.SequenceExample`.
    """
    if file_size(file) == 0:
        return None
    return describe_record(read_payload(file, next(walk_frames(file))))
