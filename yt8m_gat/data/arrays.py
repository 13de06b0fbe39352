"""Conversion of NumPy arrays to official records, and to batches like those of the reader."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data.dataset import batch_parser
from yt8m_gat.data.diagnosis import finding_in
from yt8m_gat.data.frame_arrays import is_frame_arrays
from yt8m_gat.data.parsing import Batch
from yt8m_gat.data.quantization import MAX_VALUE
from yt8m_gat.data.schema import FRAME_FEATURE_SIZES, LABELS_KEY, NUM_CLASSES, RecordSchema
from yt8m_gat.data.serialization import feature_lists, float_feature
from yt8m_gat.disk import replacing
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import output_path

YOUTUBE8M_SCHEMA = RecordSchema(FRAME_FEATURE_SIZES, NUM_CLASSES)
"""The frame-level records of YouTube-8M: rgb and audio, 3,862 classes, at most 300 frames."""

_EXAMPLES_CHECKED_AT_ONCE = 64
"""22 MB of frames at full size."""

_LARGEST_VALUE = 2 * MAX_VALUE
"""Dequantized features are within half of this, and attacked ones a little outside of that. Bytes
that were cast to floats reach 255."""


def write_records(
    path: str | os.PathLike,
    examples: Iterable[Mapping[str, Any]],
    schema: RecordSchema = YOUTUBE8M_SCHEMA,
) -> int:
    """Writes examples as one TFRecord file in the official layout.

    The file is written completely or not at all. Every record is checked with the parser of the
    training before it is written, so that it can be read with the same values.

    | key of an example | value |
    |---|---|
    | `id` | str or bytes, unique within the file, not empty |
    | `labels` | the indices of its classes, none twice; may be left out. With `labels_are` `multi_hot` in the schema, a 0 or 1 for each class |
    | each feature | frame level: array [T, size], uint8 where the schema stores uint8, else floats; video level: floats [size] |

    `yt8m_gat.quantize` turns floats into bytes; it maps [-2, 2] to 0..255.

    Args:
        path: The file, created or replaced.
        examples: At least one example; a generator is read step by step.
        schema: The schema of the records; by default the frame-level layout of YouTube-8M.

    Returns:
        The number of records written.

    Raises:
        ValueError: There is no example, or one does not fit the schema; the message names it.
        ConfigError: The path is not local, or has the ending of frame arrays.
        WriteError: The file cannot be written.
    """  # noqa: E501
    if schema.clips is not None:
        raise ValueError("records of raw clips are written by `yt8m-gat pack`")
    path = output_path("path", os.fspath(path))
    if is_frame_arrays(path):
        raise ConfigError(
            f"path must not end in .npz, by which readers know frame arrays. Received: {path!r}; "
            "write NAME.tfrecord, and repack that"
        )
    check = batch_parser(schema)
    remaining = enumerate(examples)
    ids: set[bytes] = set()
    count = 0
    with (
        only_writer(path),
        replacing(path, tf.errors.OpError) as temporary,
        tf.io.TFRecordWriter(str(temporary)) as writer,
    ):
        while chunk := list(itertools.islice(remaining, _EXAMPLES_CHECKED_AT_ONCE)):
            records = [_record_of(example, number, schema, ids) for number, example in chunk]
            try:
                check(tf.constant(records))
            except tf.errors.InvalidArgumentError as error:
                finding = finding_in(error)
                if finding is None:
                    raise
                raise ValueError(
                    f"example {count + finding.record} does not fit the schema: {finding.reason}"
                ) from None
            for record in records:
                writer.write(record)
            count += len(records)
        if count == 0:
            raise ValueError("`examples` must hold at least one example. Received: none")
    return count


def _record_of(
    example: Mapping[str, Any], number: int, schema: RecordSchema, ids: set[bytes]
) -> bytes:
    """Serializes one example and adds its id to `ids`."""
    where = f"example {number}"
    expected = {"id", "labels", *schema.feature_names}
    if not {"id", *schema.feature_names} <= set(example) <= expected:
        raise ValueError(
            f"{where} must have the keys id, {', '.join(schema.feature_names)} and optionally "
            f"labels. Received: {', '.join(map(str, example))}"
        )
    video_id = example["id"]
    if not isinstance(video_id, str | bytes):
        raise ValueError(f"{where}: the id must be text. Received: {video_id!r}")
    video_id = video_id.encode() if isinstance(video_id, str) else video_id
    if video_id in ids:
        raise ValueError(f"{where}: ids must be unique. Received twice: {example['id']!r}")
    ids.add(video_id)
    labels = _checked_labels(example.get("labels", ()), where, schema)
    arrays = {
        name: _checked_array(example[name], f"{where}, {name!r}", name, schema, stored=True)
        for name in schema.feature_names
    }
    if not schema.frame_level:
        context = _context(video_id, labels, schema.labels_key)
        context |= {name: float_feature(array) for name, array in arrays.items()}
        record = tf.train.Example(features=tf.train.Features(feature=context))
        return record.SerializeToString(deterministic=True)
    longest = max(map(len, arrays.values()))
    if longest > schema.max_frames:
        raise ValueError(
            f"{where} must have at most {schema.max_frames} frames, the schema's max_frames. "
            f"Received: {longest}; the reader would leave the rest out"
        )
    float_lists = [name for name, kind in schema.types.items() if kind == "float_list"]
    return frame_record(video_id, labels, arrays, schema.labels_key, float_lists)


def frame_record(
    video_id: bytes,
    labels: np.ndarray,
    frames: Mapping[str, np.ndarray],
    labels_key: str = LABELS_KEY,
    float_lists: Collection[str] = (),
) -> bytes:
    """Serializes a frame-level record without any checks.

    Args:
        video_id: The id.
        labels: The integers to store under `labels_key`.
        frames: Name -> array [T, size]; each row is stored as its bytes.
        labels_key: Name of the list of labels.
        float_lists: The features whose rows are stored as lists of floats instead.
    """

    record = tf.train.SequenceExample(
        context=tf.train.Features(feature=_context(video_id, labels, labels_key)),
        feature_lists=feature_lists(frames, float_lists),
    )
    # Otherwise the entries of a map may have any order.
    return record.SerializeToString(deterministic=True)


def _context(video_id: bytes, labels: np.ndarray, labels_key: str) -> dict[str, tf.train.Feature]:
    return {
        "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[video_id])),
        labels_key: tf.train.Feature(int64_list=tf.train.Int64List(value=labels.tolist())),
    }


def _checked_labels(labels: Any, where: str, schema: RecordSchema) -> np.ndarray:
    values = np.asarray(labels)
    if values.ndim == 1 and values.size == 0:
        return values.astype(np.int64)
    is_vector = schema.multi_hot_labels
    if values.ndim != 1 or values.dtype.kind not in ("iub" if is_vector else "iu"):
        raise ValueError(
            f"{where}: the labels must be a list of whole numbers. Received: shape {values.shape} "
            f"of {values.dtype}; np.flatnonzero gives the indices in a 0/1 vector"
        )
    if not is_vector and np.unique(values).size != values.size:
        raise ValueError(
            f"{where}: the labels must differ. Received: {values.tolist()}; np.flatnonzero gives "
            "the indices in a 0/1 vector"
        )
    return values.astype(np.int64)


def _checked_array(
    value: Any, where: str, name: str, schema: RecordSchema, *, stored: bool
) -> np.ndarray:
    """Returns a clip's feature as an array, after checking its shape and type.

    Args:
        value: The value to check.
        where: Its name in messages.
        name: Name of the feature.
        schema: The schema that it must fit.
        stored: Whether it must have the type that records store; else frames that are stored as
            uint8 may also be dequantized floats.
    """
    array = np.asarray(value)
    if schema.clips is not None:
        side = schema.clips.crop_size
        shape = (schema.clips.num_segments, side, side, 3)
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(
                f"{where} must be uint8 of the shape {shape}, the frames that the model sees. "
                f"Received: {array.dtype} of {array.shape}"
            )
        return array
    size = schema.sizes[name]
    shape = f"[T, {size}]" if schema.frame_level else f"[{size}]"
    if array.ndim != 1 + schema.frame_level or array.shape[-1] != size:
        raise ValueError(f"{where} must have the shape {shape}. Received: {array.shape}")
    as_bytes = schema.frame_level and schema.types[name] == "uint8"
    is_float = np.issubdtype(array.dtype, np.floating)
    if as_bytes and stored and array.dtype != np.uint8:
        raise ValueError(
            f"{where} must be uint8, as the schema stores it. Received: {array.dtype}; "
            "yt8m_gat.quantize makes bytes of floats in [-2, 2], and a schema with feature_types "
            "'float32' stores floats"
        )
    if as_bytes and array.dtype == np.uint8:
        return array
    if not is_float:
        kinds = "uint8, as stored, or floats, dequantized" if as_bytes else "floats"
        raise ValueError(f"{where} must be {kinds}. Received: {array.dtype}")
    if as_bytes and array.size and not np.abs(array).max() <= _LARGEST_VALUE:
        raise ValueError(
            f"{where}: floats must be dequantized features, which lie in [-2, 2]. Received: values "
            f"from {array.min():g} to {array.max():g}; give bytes as uint8, and clip features of "
            "your own with np.clip(x, -2, 2)"
        )
    return array.astype(np.float32)


def array_batches(
    features: Mapping[str, Sequence[Any]],
    schema: RecordSchema,
    batch_size: int,
    ids: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """Makes batches like those of the reader, without labels, from arrays.

    Args:
        features: Name -> an array for each clip. Frame level: [T, size], uint8 as YouTube-8M
            stores its frames, or floats that are dequantized already; video level: floats [size].
            Frames after `schema.max_frames` are left out, as in the reader. Raw clips: uint8
            [T, S, S, 3], chosen and cut already.
        schema: The schema that the arrays must fit.
        batch_size: B; the last batch may be smaller.
        ids: The clips' ids; by default their numbers, from 0.

    Raises:
        ValueError: An array does not fit, features have different numbers of clips or frames, or
            there is not one id for each clip. This is raised before the first batch.
    """
    if set(features) != set(schema.feature_names):
        raise ValueError(
            f"the features must be {', '.join(schema.feature_names)}. "
            f"Received: {', '.join(map(str, features)) or 'none'}"
        )
    counts = {name: len(clips) for name, clips in features.items()}
    num_clips = min(counts.values())
    if len(set(counts.values())) > 1 or num_clips == 0:
        raise ValueError(
            f"each feature must have an array for each clip, at least one. Received: {counts}"
        )
    if ids is None:
        ids = [str(number) for number in range(num_clips)]
    if len(ids) != num_clips:
        raise ValueError(f"`ids` must name each of {num_clips} clips. Received: {len(ids)} ids")
    if not all(isinstance(video_id, str) for video_id in ids):
        raise ValueError(f"`ids` must be strings. Received: {list(ids)[:3]}")
    clips = []
    for number in range(num_clips):
        clip = {
            name: _checked_array(
                features[name][number], f"clip {number}, {name!r}", name, schema, stored=False
            )
            for name in schema.feature_names
        }
        lengths = {name: len(array) for name, array in clip.items()}
        if schema.frame_level and (len(set(lengths.values())) > 1 or not min(lengths.values())):
            raise ValueError(
                f"clip {number}: all features must have the same number of frames, at least one. "
                f"Received: {lengths}"
            )
        clips.append(clip)
    for name in schema.feature_names:
        types = sorted({str(clip[name].dtype) for clip in clips})
        if len(types) > 1:
            raise ValueError(
                f"{name!r} must be uint8 in all clips, or floats in all. Received: "
                f"{' and '.join(types)}"
            )
    starts = range(0, num_clips, batch_size)
    return (
        _batch_of(clips[start : start + batch_size], ids[start : start + batch_size], schema)
        for start in starts
    )


def _batch_of(
    clips: Sequence[Mapping[str, np.ndarray]], ids: Sequence[str], schema: RecordSchema
) -> Batch:
    batch: Batch = {"video_id": tf.constant(list(ids))}
    if not schema.frame_level:
        batch["features"] = {
            name: tf.constant(np.stack([clip[name] for clip in clips]))
            for name in schema.feature_names
        }
        return batch
    lengths = [min(len(clip[schema.feature_names[0]]), schema.max_frames) for clip in clips]
    batch["num_frames"] = tf.constant(lengths, tf.int32)
    batch["features"] = {}
    for name in schema.feature_names:
        first = clips[0][name]
        padded = np.zeros((len(clips), max(lengths), *first.shape[1:]), first.dtype)
        for row, length, clip in zip(padded, lengths, clips, strict=True):
            row[:length] = clip[name][:length]
        batch["features"][name] = tf.constant(padded)
    return batch
