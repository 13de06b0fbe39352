"""Segments of 5 frames as examples: the rated ones (2019), or every window of a clip.

Both kinds give batches like `yt8m_gat.data.parsing.Batch` in which an example is a segment:

| key | kind | shape |
|---|---|---|
| `video_id` | string | [S], repeated for each segment of a clip |
| `segment_start_time` | int32 | [S], the segment's first second, which is its first frame |
| `features` | uint8, or float32 if stored as floats | name -> [S, 5, D], 0 on padding |
| `num_frames` | int32 | [S], 5, or less at the clip's end |
| `labels` | float32 | [S, C]: the scores; 0 where a pair was not rated (only rated segments) |
| `label_weights` | float32 | [S, C]: 1 at the rated pairs, else 0 (only rated segments) |
"""

from __future__ import annotations

import csv
import os

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data.parsing import (
    Batch,
    Ratings,
    Serialized,
    parse_frame_batch,
    parse_rated_batch,
)
from yt8m_gat.data.schema import SEGMENT_FRAMES, RecordSchema
from yt8m_gat.untrusted import excerpt

SEGMENT_KINDS = ("rated", "windows")


def parse_rated_segments(
    serialized: Serialized, schema: RecordSchema, names: tf.Tensor | None = None
) -> Batch:
    """Parses the rated segments of a batch of records.

    The distinct start times of a record, in order of their first appearance, are its segments; a
    record without ratings has none. A segment that reaches past the clip's end is cut there; a
    segment that starts past it makes the record a bad one. A pair that is rated more than once
    has its highest score.

    With a label map, a target is rated if one of its sources is rated above 0 or all of its
    sources are rated: that one source is not shown says nothing about the others. A target without
    sources is never rated.

    Args:
        serialized: string [B], serialized `tf.SequenceExample`s; or `StoredClips`.
        schema: What to read; `frame_level` must be True.
        names: string [B], see `record_names`; by default the numbers in the batch.

    Returns:
        A batch of S segments with `labels` and `label_weights`; S may be 0.

    Raises:
        tf.errors.InvalidArgumentError: See `parse_rated_batch`.
        ValueError: The schema is a video-level one.
    """
    clips, ratings = parse_rated_batch(serialized, schema, names)
    rows, starts, segment_of_rating = _distinct_segments(ratings, schema.max_frames)
    batch = _cut(clips, rows, starts)
    batch["labels"], batch["label_weights"] = _labels(
        ratings, segment_of_rating, tf.size(rows), schema
    )
    return batch


def parse_windows(
    serialized: Serialized, schema: RecordSchema, names: tf.Tensor | None = None
) -> Batch:
    """Parses the consecutive windows of a batch of records, with starts 0, 5, 10, ...

    A clip of T frames has ceil(T / 5) windows; the last one has the remaining frames, as in the
    starter code. Labels are not read.

    Args:
        serialized: string [B], serialized `tf.SequenceExample`s; or `StoredClips`.
        schema: What to read; `frame_level` must be True.
        names: string [B], see `record_names`; by default the numbers in the batch.

    Returns:
        A batch of S windows, clip by clip in order of time, without labels.

    Raises:
        tf.errors.InvalidArgumentError: See `parse_frame_batch` with `segment_ids`, since windows
            are for the CSV of segments.
        ValueError: The schema is a video-level one.
    """
    clips = parse_frame_batch(serialized, schema, names, with_labels=False, segment_ids=True)
    counts = -(-clips["num_frames"] // SEGMENT_FRAMES)  # [B]
    rows = tf.repeat(tf.range(tf.size(counts)), counts)  # [S]
    first = tf.cumsum(counts, exclusive=True)
    starts = SEGMENT_FRAMES * (tf.range(tf.size(rows)) - tf.gather(first, rows))
    return _cut(clips, rows, starts)


def _distinct_segments(ratings: Ratings, max_frames: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns row and start of each segment, int32 [S], and each rating's segment, int32 [R]."""
    rating_rows, rating_starts, _, _ = ratings
    # One number encodes both, as starts are below max_frames. tf.unique keeps the order of first
    # appearance.
    keys, segment_of_rating = tf.unique(tf.cast(rating_rows, tf.int64) * max_frames + rating_starts)
    rows = tf.cast(keys // max_frames, tf.int32)
    return rows, tf.cast(keys % max_frames, tf.int32), segment_of_rating


def _labels(
    ratings: Ratings, segment_of_rating: tf.Tensor, num_segments: tf.Tensor, schema: RecordSchema
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns scores and weights of the segments' classes, float32 [S, C] each."""
    _, _, classes, scores = ratings
    positions = tf.stack([segment_of_rating, tf.cast(classes, tf.int32)], axis=1)  # [R, 2]
    zeros = tf.zeros([num_segments, schema.num_source_classes])
    labels = tf.tensor_scatter_nd_max(zeros, positions, scores)
    weights = tf.tensor_scatter_nd_max(zeros, positions, tf.ones_like(scores))
    if schema.label_map is not None:
        labels = schema.label_map.apply(labels)
        has_sources = schema.label_map.apply(tf.ones_like(zeros))
        has_unrated_source = schema.label_map.apply(1.0 - weights)
        all_rated = has_sources - has_unrated_source
        weights = tf.maximum(all_rated, tf.cast(labels > 0, tf.float32))
    shape = [None, schema.num_classes]
    return tf.ensure_shape(labels, shape), tf.ensure_shape(weights, shape)


def _cut(clips: Batch, rows: tf.Tensor, starts: tf.Tensor) -> Batch:
    """Cuts out the 5 frames from each of `starts` [S] on, from the clips `rows` [S]."""
    num_frames = tf.minimum(tf.gather(clips["num_frames"], rows) - starts, SEGMENT_FRAMES)  # [S]
    offsets = tf.range(SEGMENT_FRAMES)
    real = offsets < num_frames[:, tf.newaxis]  # [S, 5]
    frames = tf.where(real, starts[:, tf.newaxis] + offsets, 0)
    positions = tf.stack([tf.broadcast_to(rows[:, tf.newaxis], tf.shape(frames)), frames], axis=2)
    features = {}
    for name, clip_features in clips["features"].items():
        cut = tf.gather_nd(clip_features, positions)  # [S, 5, D]
        zero = tf.zeros([], cut.dtype)
        features[name] = tf.ensure_shape(
            tf.where(real[:, :, tf.newaxis], cut, zero),
            [None, SEGMENT_FRAMES, clip_features.shape[-1]],
        )
    return {
        "video_id": tf.gather(clips["video_id"], rows),
        "segment_start_time": starts,
        "num_frames": num_frames,
        "features": features,
    }


def read_class_ids(path: str | os.PathLike, num_classes: int) -> tuple[int, ...]:
    """Reads a list of classes, such as the challenge's `segment_label_ids.csv`.

    Each line has one class index, in the first field of a CSV row; the first line may be a header.

    Args:
        path: The file.
        num_classes: C.

    Raises:
        ConfigError: It lists no class, one that is not in 0 .. C - 1, or one twice; the message
            names the line.
        OSError: It cannot be read.
    """
    class_ids: dict[int, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            for row in rows:
                text = row[0].strip() if row else ""
                if not text or (rows.line_num == 1 and not text.lstrip("-").isdecimal()):
                    continue
                where = f"--segment_label_ids_file={os.fspath(path)}, line {rows.line_num}"
                is_number = text.isascii() and text.isdecimal() and len(text) <= 18
                if not is_number or int(text) >= num_classes:
                    raise ConfigError(
                        f"{where}: a class must be an integer in 0 .. {num_classes - 1}, the "
                        f"classes of the model. Received: {excerpt(text)}"
                    )
                class_id = int(text)
                if class_id in class_ids:
                    raise ConfigError(
                        f"{where}: a class must be listed once. Received: {class_id} again, "
                        f"which is in line {class_ids[class_id]}"
                    )
                class_ids[class_id] = rows.line_num
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"--segment_label_ids_file={os.fspath(path)} must be a CSV file in UTF-8: {error}"
        ) from error
    if not class_ids:
        raise ConfigError(
            f"--segment_label_ids_file={os.fspath(path)} must list at least one class. "
            "Received: none"
        )
    return tuple(class_ids)
