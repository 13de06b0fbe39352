"""Parsing of serialized records to batches of tensors, with checks of every record.

All checks run inside the graph, so that they hold for tf.data, `fit` and an exported model. A bad
record stops the program with an `InvalidArgumentError` whose message is

    Bad record <file>:record <number>: <what is wrong>. Remedy: <what to do>. Fault: <kind>.

Record numbers start at 0; the kinds are those of `yt8m_gat.data.errors.Fault`.
`yt8m_gat.data.Reader` turns the error into a `BadRecordError`.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from yt8m_gat.data.errors import Fault
from yt8m_gat.data.frame_layout import frame_layout
from yt8m_gat.data.schema import (
    ID_KEYS,
    ITEM_BYTES,
    SEGMENT_CLASS_KEY,
    SEGMENT_ID_BREAKS,
    SEGMENT_SCORE_KEY,
    SEGMENT_START_KEY,
    RecordSchema,
)
from yt8m_gat.data.wire_format import (
    Records,
    bounds_of_context,
    first_true,
    read_records,
    when_needed,
)
from yt8m_gat.recipes import RECIPES

INSPECT_COMMAND = "yt8m-gat inspect"

REWRITE_REMEDY = f"write the record again; `{INSPECT_COMMAND}` lists all that cannot be read"

_TYPE_REMEDY = (
    "say how the frames are stored by --feature_types of train.py (uint8 or float32: bytes; "
    "float_list: lists of floats), or write the record again"
)

_LIST_NAMES = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}

Batch = dict[str, Any]
"""A dataset element: `video_id` string [B]; `features` name -> tensor; `labels` float32 [B, C];
at frame level `num_frames` int32 [B]. An example may be a segment (`yt8m_gat.data.segments`)."""

Ratings = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""The rated (segment, class) pairs of a batch, four tensors [R]: row of the record, int32; first
second of the segment, int64; class, int64; score, float32."""


class StoredClips(NamedTuple):
    """Records that `yt8m_gat.data.frame_arrays` has read; parsers take them as serialized ones.

    Attributes:
        contexts: string [B], the serialized records without their feature lists.
        num_frames: int32 [B], frames of the records, also where they have more than are read.
        intact: bool [B], whether the checksums are right.
        features: Feature -> uint8 or float32 [B, T, D], 0 on padding.
    """

    contexts: tf.Tensor
    num_frames: tf.Tensor
    intact: tf.Tensor
    features: dict[str, tf.Tensor]


Serialized = tf.Tensor | StoredClips
"""What the parsers of frame-level records take: serialized records, string [B], or stored ones."""


def quote_file(path: str) -> str:
    """Quotes a file's path for `record_names`: no character of it can end it in a message."""
    return urllib.parse.quote(os.fsencode(path), safe="/ ,=+@()[]{}")


def unquote_file(name: str) -> str:
    """Inverts `quote_file`."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(name))


def record_names(files: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
    """Returns the names of records in messages: `<file>:record <number>`.

    Args:
        files: string [B], quoted by `quote_file`.
        records: int64 [B], numbers within their files, from 0.
    """
    return tf.strings.join([files, ":record ", tf.strings.as_string(records)])


class Checks:
    """The checks of the records of a batch; messages are built only if a check fails."""

    def __init__(self, names: tf.Tensor) -> None:
        self._names = names
        self._checks: list[tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor | str], str]] = []
        self._faults: list[Fault] = []

    def require(
        self,
        fault: Fault,
        ok: tf.Tensor,
        describe: Callable[[tf.Tensor], tf.Tensor | str],
        remedy: str,
    ) -> None:
        """Adds a check: ok[b] must be True for each record b.

        `describe(b)` is computed for any b, and must not fail.
        """
        self._checks.append((ok, describe, f". Remedy: {remedy}. Fault: {fault}."))
        self._faults.append(fault)

    def first_faults(self) -> tf.Tensor:
        """Returns, as string [B], the kind of the first check that a record fails, or empty."""
        failed = tf.stack([tf.logical_not(ok) for ok, _, _ in self._checks], axis=1)  # [B, checks]
        return tf.gather(
            tf.constant([*map(str, self._faults), ""]), first_true(failed) % (len(self._faults) + 1)
        )

    def enforce(self) -> tf.Tensor:
        """Raises the error of the first check that fails, for the first record that fails it."""
        passed = tf.stack([tf.reduce_all(ok) for ok, _, _ in self._checks])

        # One branch for all checks: one branch per check takes four times as long to trace.
        def stop() -> tf.Tensor:
            messages = []
            for ok, describe, ending in self._checks:
                record = tf.argmin(tf.cast(ok, tf.int32))
                parts = ["Bad record ", self._names[record], ": ", describe(record), ending]
                messages.append(tf.strings.join(parts))
            message = tf.stack(messages)[tf.argmin(tf.cast(passed, tf.int32))]
            # Not a constant condition: a graph optimizer may move that out of the branch.
            tf.debugging.Assert(tf.reduce_all(passed), [message])
            return tf.constant(False)

        return tf.cond(tf.reduce_all(passed), lambda: tf.constant(True), stop)


def _text(number: tf.Tensor) -> tf.Tensor:
    return tf.strings.as_string(number)


def _base64(text: tf.Tensor) -> tf.Tensor:
    return tf.io.encode_base64(tf.strings.substr(text, 0, 64))


def default_names(serialized: tf.Tensor, names: tf.Tensor | None) -> tf.Tensor:
    """Returns the names of records in messages, string [B]; by default their numbers."""
    if names is not None:
        return names
    numbers = tf.range(tf.shape(serialized)[0])
    return tf.strings.join(["the given batch:record ", tf.strings.as_string(numbers)])


_RATING_KEYS = (SEGMENT_START_KEY, SEGMENT_CLASS_KEY, SEGMENT_SCORE_KEY)


def context_types(
    schema: RecordSchema, with_labels: bool, with_ratings: bool = False
) -> dict[str, tf.DType]:
    """Returns name -> type of the lists that are read from the context."""
    types = dict.fromkeys(ID_KEYS, tf.string)
    if with_labels:
        types[schema.labels_key] = tf.int64
    if with_ratings:
        types |= {key: tf.int64 for key in _RATING_KEYS}
        types[SEGMENT_SCORE_KEY] = tf.float32
    return types


def read_context(
    records: Records, checks: Checks, types: dict[str, tf.DType]
) -> dict[str, tf.RaggedTensor]:
    """Reads the lists of these names and types, [B, any]; a record may lack any of them."""
    checks.require(
        Fault.UNDECODABLE,
        records.decodable,
        lambda _: "the payload is no tf.Example or tf.SequenceExample",
        REWRITE_REMEDY,
    )
    context = {}
    for key, dtype in types.items():
        context[key], right_type = records.values(key, dtype)
        checks.require(
            Fault.WRONG_TYPE,
            right_type,
            lambda _, key=key, dtype=dtype: f"feature {key} is no {_LIST_NAMES[dtype]}",
            REWRITE_REMEDY,
        )
    return context


def multi_hot(labels: tf.SparseTensor, num_classes: int) -> tf.Tensor:
    """Converts class indices to float32 [B, C], 1 at each label, even if it is listed twice.

    Args:
        labels: int64 [B, any], each in 0 .. C - 1.
        num_classes: C.
    """
    positions = tf.stack([labels.indices[:, 0], labels.values], axis=1)  # [labels, 2]
    shape = tf.stack([labels.dense_shape[0], tf.constant(num_classes, tf.int64)])
    counts = tf.scatter_nd(positions, tf.ones_like(labels.values, tf.float32), shape)
    return tf.ensure_shape(tf.minimum(counts, 1.0), [None, num_classes])


def class_labels(labels: tf.SparseTensor, schema: RecordSchema) -> tf.Tensor:
    """Converts labels of records, int64 [B, any], to float32 [B, C], with the label map if any."""
    if schema.multi_hot_labels:
        hot = tf.sparse.retain(labels, tf.equal(labels.values, 1))
        labels = tf.SparseTensor(hot.indices, hot.indices[:, 1], hot.dense_shape)
    source_labels = multi_hot(labels, schema.num_source_classes)
    return source_labels if schema.label_map is None else schema.label_map.apply(source_labels)


def check_context(
    context: dict[str, Any], checks: Checks, schema: RecordSchema, with_labels: bool
) -> None:
    """Adds the checks of id and labels."""
    for key in ID_KEYS:
        checks.require(
            Fault.VIDEO_ID,
            context[key].row_lengths() <= 1,
            lambda _, key=key: f"it has more than one value of {key}",
            "write the record again with one id",
        )
    video_id = video_id_of(context)
    checks.require(
        Fault.VIDEO_ID,
        tf.not_equal(video_id, ""),
        lambda _: f"it has none of the ids {', '.join(ID_KEYS)}",
        f"write one of them as a bytes feature, or list such records by `{INSPECT_COMMAND}`",
    )
    # The CSV of the predictions is text with one line per video.
    checks.require(
        Fault.VIDEO_ID,
        tf.equal(
            tf.strings.unicode_transcode(
                video_id, "UTF-8", "UTF-8", errors="replace", replace_control_characters=True
            ),
            video_id,
        ),
        lambda record: tf.strings.join(
            [
                "its id is no UTF-8 text, or has control characters: base64 ",
                _base64(video_id[record]),
            ]
        ),
        "write the record again with an id that is text",
    )
    if with_labels:
        labels = context[schema.labels_key].to_sparse()
        last = schema.num_source_classes - 1
        if schema.multi_hot_labels:
            _check_label_vectors(labels, checks, schema.num_source_classes)
            last = 1
        _require_values(
            checks,
            Fault.LABEL,
            labels.values,
            labels.indices[:, 0],
            labels.dense_shape[0],
            tf.logical_and(labels.values >= 0, labels.values <= last),
            "label",
            lambda _: f"is outside 0 .. {last}",
            _VOCABULARY_REMEDY,
        )
        if schema.one_label:
            _check_one_label(labels, checks, schema)


def _check_one_label(labels: tf.SparseTensor, checks: Checks, schema: RecordSchema) -> None:
    """Checks that each record has one class, which may be listed twice."""
    # Those outside of the vocabulary have a fault of their own.
    last = schema.num_source_classes - 1
    inside = tf.clip_by_value(labels.values, 0, 1 if schema.multi_hot_labels else last)
    inside = tf.SparseTensor(labels.indices, inside, labels.dense_shape)
    if schema.multi_hot_labels:
        inside = tf.sparse.retain(inside, labels.indices[:, 1] <= last)
    counts = tf.math.count_nonzero(class_labels(inside, schema), axis=1)
    checks.require(
        Fault.LABEL,
        tf.equal(counts, 1),
        lambda record: tf.strings.join(
            ["it has ", _text(counts[record]), " labels instead of one"]
        ),
        "give each clip the one class that SoftmaxLoss chooses, train on several by "
        "--label_loss=CrossEntropyLoss, or leave such records out by --on_bad_record=skip",
    )


def _check_label_vectors(labels: tf.SparseTensor, checks: Checks, num_classes: int) -> None:
    """Checks that each record has a value for every class, or none at all."""
    lengths = tf.math.unsorted_segment_sum(
        tf.ones_like(labels.values), labels.indices[:, 0], labels.dense_shape[0]
    )
    checks.require(
        Fault.LABEL,
        tf.logical_or(tf.equal(lengths, 0), tf.equal(lengths, num_classes)),
        lambda record: tf.strings.join(
            ["it has ", _text(lengths[record]), f" labels instead of {num_classes}, one a class"]
        ),
        _VOCABULARY_REMEDY,
    )


def _check_segment_id(context: dict[str, Any], checks: Checks) -> None:
    video_id = video_id_of(context)
    good = f"[^{SEGMENT_ID_BREAKS}]"
    checks.require(
        Fault.VIDEO_ID,
        tf.strings.regex_full_match(video_id, f"{good}+"),
        lambda record: tf.strings.join(
            [
                "its id has whitespace, a colon, a comma or a quote after '",
                # As it has no space, it cannot imitate a part of the message.
                tf.strings.regex_replace(video_id[record], f"(?s)^({good}{{0,64}}).*$", r"\1"),
                "', which the CSV of segments (id:second) cannot hold",
            ]
        ),
        "write the record again with another id, leave such records out by --on_bad_record=skip, "
        "or predict whole videos by --segment_labels=false, whose CSV takes any id",
    )


# The scripts that read a trained run do not have the flags that the remedies below name.
RUN_REMEDY = "a trained run needs records like those that it was trained on"
_VOCABULARY_REMEDY = (
    "give the size of the vocabulary that the labels come from by --num_classes of train.py; "
    + RUN_REMEDY
)
_SIZE_REMEDY = (
    f"give the right size by --feature_sizes of train.py (`{INSPECT_COMMAND}` lists the sizes "
    f"found), or repair the record; {RUN_REMEDY}"
)


def _names_remedy(schema: RecordSchema) -> str:
    other = "video" if schema.frame_level else "frame"
    models = (
        name for name, r in RECIPES.items() if not r.clips and r.frame_level != schema.frame_level
    )
    return (
        "name the features that the records hold by --feature_names of train.py, and their sizes "
        f"by --feature_sizes (`{INSPECT_COMMAND}` lists both); {other}-level records need a "
        f"{other}-level --model ({', '.join(models)}), raw clips one of theirs "
        f"({', '.join(name for name, r in RECIPES.items() if r.clips)}); {RUN_REMEDY}"
    )


def _require_values(
    checks: Checks,
    fault: Fault,
    values: tf.Tensor,
    rows: tf.Tensor,
    num_rows: tf.Tensor,
    ok: tf.Tensor,
    noun: str,
    describe: Callable[[tf.Tensor], tf.Tensor | str],
    remedy: str,
) -> None:
    """Adds a check: ok [N] must be True for each of `values` [N], of the records `rows` [N]."""
    num_wrong = tf.math.unsorted_segment_sum(
        tf.cast(tf.logical_not(ok), tf.int32), rows, tf.cast(num_rows, rows.dtype)
    )

    def describe_wrong(record: tf.Tensor) -> tf.Tensor:
        of_record = tf.equal(rows, tf.cast(record, rows.dtype))
        wrong = tf.boolean_mask(values, tf.logical_and(tf.logical_not(ok), of_record))[:10]
        listed = tf.strings.reduce_join(_text(wrong), separator=", ")
        return tf.strings.join([f"{noun} ", listed, " ", describe(record)])

    checks.require(fault, tf.equal(num_wrong, 0), describe_wrong, remedy)


def _check_ratings(
    context: dict[str, Any], checks: Checks, schema: RecordSchema, num_frames: tf.Tensor
) -> None:
    lengths = {key: context[key].row_lengths() for key in _RATING_KEYS}
    starts, classes, scores = (context[key] for key in _RATING_KEYS)
    expected = lengths[SEGMENT_START_KEY]
    for key in (SEGMENT_CLASS_KEY, SEGMENT_SCORE_KEY):
        checks.require(
            Fault.RATING,
            tf.equal(lengths[key], expected),
            lambda record, key=key: tf.strings.join(
                [
                    f"it has {key} for ",
                    _text(lengths[key][record]),
                    f" ratings, {SEGMENT_START_KEY} for ",
                    _text(expected[record]),
                ]
            ),
            "write the record again with one start time, class and score for each rating",
        )
    num_rows = tf.shape(num_frames)[0]
    rows = starts.value_rowids()
    _require_values(
        checks,
        Fault.RATING,
        starts.flat_values,
        rows,
        num_rows,
        tf.logical_and(
            starts.flat_values >= 0,
            starts.flat_values < tf.cast(tf.gather(num_frames, rows), tf.int64),
        ),
        "the start of a segment, second",
        lambda record: tf.strings.join(
            ["is outside the clip, which has ", _text(num_frames[record]), " frames"]
        ),
        "raise --max_frames of train.py if that has cut the clip, or repair the record",
    )
    last = schema.num_source_classes - 1
    _require_values(
        checks,
        Fault.RATING,
        classes.flat_values,
        classes.value_rowids(),
        num_rows,
        tf.logical_and(classes.flat_values >= 0, classes.flat_values <= last),
        "segment label",
        lambda _: f"is outside 0 .. {last}",
        _VOCABULARY_REMEDY,
    )
    # A comparison with NaN is False.
    _require_values(
        checks,
        Fault.RATING,
        scores.flat_values,
        scores.value_rowids(),
        num_rows,
        tf.logical_and(scores.flat_values >= 0, scores.flat_values <= 1),
        "segment score",
        lambda _: "is outside 0 .. 1",
        "write the record again with scores from 0 (not shown) to 1 (shown)",
    )


def video_id_of(context: dict[str, Any]) -> tf.Tensor:
    """Returns the first of `ID_KEYS` that a record has, string [B]."""
    found, *others = (context[key].to_tensor("", shape=[None, 1])[:, 0] for key in ID_KEYS)
    for other in others:
        found = tf.where(tf.equal(found, ""), other, found)
    return found


def parse_frame_batch(
    serialized: Serialized,
    schema: RecordSchema,
    names: tf.Tensor | None = None,
    *,
    fixed_num_frames: bool = False,
    with_labels: bool = True,
    segment_ids: bool = False,
) -> Batch:
    """Parses frame-level records (`RecordSchema` lists their keys, kinds and shapes).

    Segment-level records (2019) are also frame-level records and are read as such; see
    `yt8m_gat.data.segments` for their segments.

    Args:
        serialized: string [B], serialized `tf.SequenceExample`s; or `StoredClips`.
        schema: What to read; `frame_level` must be True.
        names: string [B], see `record_names`; by default the numbers in the batch.
        fixed_num_frames: Whether to pad to `schema.max_frames` rather than to the longest clip.
        with_labels: Whether to read the labels; a record without any has a row of zeros.
        segment_ids: Whether the ids are for the CSV of segments, see `SEGMENT_ID_BREAKS`.

    Returns:
        `video_id` string [B]; `features` name -> uint8 [B, T, D] as stored (float32 if stored as
        floats), 0 on padding; `num_frames` int32 [B], at most `max_frames`; `labels` float32
        [B, C].

    Raises:
        tf.errors.InvalidArgumentError: A record is not a `tf.SequenceExample`, lacks an id or a
            feature, has no frames, features of different lengths, a frame of another size or
            with a value that is not finite, a label outside the vocabulary, or with `segment_ids`
            an id that contains one of the breaks. The message names the file, the record and the
            remedy.
        ValueError: The schema is a video-level one.
    """
    batch, _ = _parse_frames(
        serialized,
        schema,
        names,
        fixed_num_frames=fixed_num_frames,
        with_labels=with_labels,
        with_ratings=False,
        segment_ids=segment_ids,
    )
    return batch


def parse_rated_batch(
    serialized: Serialized, schema: RecordSchema, names: tf.Tensor | None = None
) -> tuple[Batch, Ratings]:
    """Parses frame-level records with the ratings of their segments (2019), without their labels.

    Args:
        serialized: string [B], serialized `tf.SequenceExample`s; or `StoredClips`.
        schema: What to read; `frame_level` must be True.
        names: string [B], see `record_names`; by default the numbers in the batch.

    Returns:
        The batch of `parse_frame_batch`, without `labels`, and the ratings in the order of the
        records and within them. A record may have no ratings.

    Raises:
        tf.errors.InvalidArgumentError: As for `parse_frame_batch`; also if the lists of a record's
            ratings differ in length, a segment starts outside the clip, a class is outside the
            vocabulary or a score outside [0, 1].
        ValueError: The schema is a video-level one.
    """
    return _parse_frames(
        serialized, schema, names, fixed_num_frames=False, with_labels=False, with_ratings=True
    )


def _check_frames(name: str, schema: RecordSchema, checks: Checks, read: _Clips) -> None:
    """Checks type and size of each frame of a feature and, for floats, the values."""
    frames, sizes = read.wrong_frames[name], read.wrong_sizes[name]
    expected, unit = schema.stored_size(name)

    def describe(record: tf.Tensor) -> tf.Tensor:
        return tf.strings.join(
            [
                f"feature {name}, frame ",
                _text(frames[record]),
                " has ",
                _text(sizes[record]),
                f" {unit} instead of {expected}",
            ]
        )

    kind = schema.types[name]
    wrong_types = read.wrong_types[name]
    wanted = "a float_list" if kind == "float_list" else "one value of bytes"
    checks.require(
        Fault.WRONG_TYPE,
        wrong_types < 0,
        lambda record: tf.strings.join(
            [f"feature {name}, frame ", _text(wrong_types[record]), f" is not {wanted}"]
        ),
        _TYPE_REMEDY,
    )
    if kind != "float_list":
        other = "uint8" if kind == "float32" else "float32"
        size_of_other = schema.sizes[name] * ITEM_BYTES[other]
        checks.require(
            Fault.FEATURE_SIZE,
            tf.logical_or(frames < 0, tf.not_equal(sizes, size_of_other)),
            lambda record: tf.strings.join([describe(record), f": {other}?"]),
            f"read {other} frames by --feature_types={other} of train.py; {RUN_REMEDY}",
        )
    checks.require(Fault.FEATURE_SIZE, frames < 0, describe, _SIZE_REMEDY)
    if kind != "uint8":
        checks.require(
            Fault.NOT_FINITE,
            tf.reduce_all(tf.math.is_finite(read.features[name]), axis=[1, 2]),
            lambda _: f"feature {name} has a value that is not finite",
            "write the record again",
        )


class _Clips(NamedTuple):
    """The features of frame-level records as read, before the checks.

    Attributes:
        lengths: Feature -> int32 [B], frames in the record.
        wrong_types: Feature -> int32 [B], the first frame of a wrong type; -1 if there is none.
        wrong_frames: Feature -> int32 [B], the first frame of a wrong size; -1 if there is none.
        wrong_sizes: Feature -> int32 [B], the number of bytes of that frame, or of its floats.
        features: Feature -> uint8 or float32 [B, T, D], 0 on padding.
    """

    lengths: dict[str, tf.Tensor]
    wrong_types: dict[str, tf.Tensor]
    wrong_frames: dict[str, tf.Tensor]
    wrong_sizes: dict[str, tf.Tensor]
    features: dict[str, tf.Tensor]


def _read_clips(
    serialized: Serialized, schema: RecordSchema, fixed_num_frames: bool
) -> tuple[Records, _Clips]:
    """Reads each feature in one piece if all records allow it, else frame by frame."""
    if isinstance(serialized, StoredClips):
        records = read_records(serialized.contexts, tf.constant(True))
        return records, _without_faults(schema, serialized.num_frames, serialized.features)
    if schema.feature_types:
        records = read_records(serialized, tf.constant(False))
        return records, _read_frame_by_frame(records, schema, fixed_num_frames)
    layout = frame_layout(schema.feature_sizes + schema.other_sizes, schema.max_frames)
    frames = layout.read(serialized, fixed_num_frames)
    records = read_records(serialized, frames.ok)

    def in_one_piece() -> _Clips:
        features = dict(zip(schema.feature_names, frames.features, strict=False))
        return _without_faults(schema, frames.num_frames, features)

    def frame_by_frame() -> _Clips:
        return when_needed(
            lambda *records: _read_frame_by_frame(Records(*records), schema, fixed_num_frames),
            *records,
        )

    return records, tf.cond(records.usual, in_one_piece, frame_by_frame)


def _without_faults(
    schema: RecordSchema, num_frames: tf.Tensor, features: dict[str, tf.Tensor]
) -> _Clips:
    """Returns clips whose features all have `num_frames` frames, of the right type and size."""
    none = tf.fill(tf.shape(num_frames), -1)
    return _Clips(
        dict.fromkeys(schema.feature_names, num_frames),
        *(dict.fromkeys(schema.feature_names, none) for _ in range(3)),
        features,
    )


def _read_frame_by_frame(records: Records, schema: RecordSchema, fixed_num_frames: bool) -> _Clips:
    lengths, wrong_types, wrong_frames, wrong_sizes, features = {}, {}, {}, {}, {}
    for name, kind in schema.types.items():
        size, (expected, _) = schema.sizes[name], schema.stored_size(name)
        dtype = tf.float32 if kind == "float_list" else tf.string
        frames, wrong_types[name] = records.frames(name, dtype)
        lengths[name] = frames.row_lengths()
        values = frames[:, : schema.max_frames]
        if kind == "float_list":  # Ragged floats [B, (T), (D)].
            sizes = values.row_lengths(axis=2).to_tensor()  # [B, T]
            decoded = values.to_tensor(shape=[None, None, size])  # [B, T, D]
        else:  # Strings [B, T].
            values = values.to_tensor("")
            sizes = tf.strings.length(values)
            decoded = tf.io.decode_raw(values, tf.as_dtype(kind), fixed_length=expected)
        real = tf.sequence_mask(lengths[name], tf.shape(sizes)[1])
        wrong_frames[name] = first_true(tf.logical_and(real, tf.not_equal(sizes, expected)))
        # Avoids an empty axis: a batch without any frames (T = 0) fails another check.
        sizes = tf.pad(sizes, [[0, 0], [0, 1]])
        wrong_sizes[name] = tf.gather(sizes, tf.maximum(wrong_frames[name], 0), batch_dims=1)
        if fixed_num_frames:
            missing = schema.max_frames - tf.shape(decoded)[1]
            decoded = tf.pad(decoded, [[0, 0], [0, missing], [0, 0]])
        features[name] = decoded
    return _Clips(lengths, wrong_types, wrong_frames, wrong_sizes, features)


def _checked_frames(
    serialized: Serialized,
    schema: RecordSchema,
    names: tf.Tensor | None,
    *,
    fixed_num_frames: bool = False,
    with_labels: bool,
    with_ratings: bool,
    segment_ids: bool = False,
) -> tuple[Checks, dict[str, tf.RaggedTensor], tf.Tensor, dict[str, tf.Tensor]]:
    """Returns the checks, the context, the number of frames [B] and the features."""
    if not schema.frame_level:
        raise ValueError("parse_frame_batch needs a frame-level schema; see parse_video_batch")
    stored = serialized if isinstance(serialized, StoredClips) else None
    checks = Checks(default_names(serialized if stored is None else stored.contexts, names))
    if stored is not None:
        checks.require(
            Fault.PAYLOAD_CHECKSUM,
            stored.intact,
            lambda _: "the record has a wrong checksum",
            f"`{INSPECT_COMMAND}` lists all damage; repack the file's source again",
        )
    records, read = _read_clips(serialized, schema, fixed_num_frames)
    context = read_context(records, checks, context_types(schema, with_labels, with_ratings))
    lengths = read.lengths
    check_context(context, checks, schema, with_labels)
    if segment_ids:
        _check_segment_id(context, checks)
    needed = ", ".join(schema.feature_names)
    names_remedy = _names_remedy(schema)
    first_name = schema.feature_names[0]
    first_length = lengths[first_name]
    longest = tf.reduce_max(tf.stack(list(lengths.values())), axis=0)  # [B]
    checks.require(
        Fault.NO_FRAMES,
        longest > 0,
        lambda _: f"it has no frames of any of the features needed ({needed})",
        names_remedy,
    )
    for name in schema.feature_names:
        checks.require(
            Fault.MISSING_FEATURE,
            lengths[name] > 0,
            lambda _, name=name: f"feature {name} is missing or empty; each of {needed} is needed",
            names_remedy,
        )
    for name in schema.feature_names[1:]:
        checks.require(
            Fault.FRAME_COUNTS,
            tf.equal(lengths[name], first_length),
            lambda record, name=name: tf.strings.join(
                [
                    f"feature {name} has ",
                    _text(lengths[name][record]),
                    f" frames, feature {first_name} has ",
                    _text(first_length[record]),
                ]
            ),
            "write the record again with one value of each feature per frame, or leave out the odd "
            "one by --feature_names of train.py",
        )
    num_frames = tf.minimum(first_length, schema.max_frames)
    for name in schema.feature_names:
        _check_frames(name, schema, checks, read)
    if with_ratings:
        _check_ratings(context, checks, schema, num_frames)
    return checks, context, num_frames, read.features


def _parse_frames(
    serialized: Serialized,
    schema: RecordSchema,
    names: tf.Tensor | None,
    *,
    fixed_num_frames: bool,
    with_labels: bool,
    with_ratings: bool,
    segment_ids: bool = False,
) -> tuple[Batch, Ratings | None]:
    checks, context, num_frames, features = _checked_frames(
        serialized,
        schema,
        names,
        fixed_num_frames=fixed_num_frames,
        with_labels=with_labels,
        with_ratings=with_ratings,
        segment_ids=segment_ids,
    )
    ratings = None
    with tf.control_dependencies([checks.enforce()]):
        batch: Batch = {"video_id": tf.identity(video_id_of(context))}
        if with_ratings:
            starts = context[SEGMENT_START_KEY]
            ratings = (
                tf.cast(starts.value_rowids(), tf.int32),
                *(tf.identity(context[key].flat_values) for key in _RATING_KEYS),
            )
        if with_labels:
            batch["labels"] = class_labels(context[schema.labels_key].to_sparse(), schema)
        batch["num_frames"] = tf.identity(num_frames)
        num_steps = schema.max_frames if fixed_num_frames else None
        batch["features"] = {
            name: tf.ensure_shape(tf.identity(features[name]), [None, num_steps, size])
            for name, size in schema.feature_sizes
        }
    return batch, ratings


def parse_video_batch(
    serialized: tf.Tensor,
    schema: RecordSchema,
    names: tf.Tensor | None = None,
    *,
    with_labels: bool = True,
) -> Batch:
    """Parses video-level records (`RecordSchema` lists their keys, kinds and shapes).

    Args:
        serialized: string [B], serialized `tf.Example`s.
        schema: What to read; `frame_level` must be False.
        names: string [B], see `record_names`; by default the numbers in the batch.
        with_labels: Whether to read the labels; a record without any has a row of zeros.

    Returns:
        `video_id` string [B]; `features` name -> float32 [B, D]; `labels` float32 [B, C].

    Raises:
        tf.errors.InvalidArgumentError: A record is not a `tf.Example`, lacks an id or a feature,
            has a feature of another size or with a value that is not finite, or a label outside
            the vocabulary. The message names the file, the record and the remedy.
        ValueError: The schema is a frame-level one.
    """
    checks, parsed = _checked_videos(serialized, schema, names, with_labels)
    with tf.control_dependencies([checks.enforce()]):
        batch: Batch = {"video_id": tf.identity(video_id_of(parsed))}
        if with_labels:
            batch["labels"] = class_labels(parsed[schema.labels_key].to_sparse(), schema)
        batch["features"] = {
            name: tf.reshape(parsed[name].flat_values, [-1, size])  # [B, D]
            for name, size in schema.feature_sizes
        }
    return batch


def _checked_videos(
    serialized: tf.Tensor, schema: RecordSchema, names: tf.Tensor | None, with_labels: bool
) -> tuple[Checks, dict[str, tf.RaggedTensor]]:
    """Returns the checks and the contents of the records."""
    if schema.frame_level:
        raise ValueError("parse_video_batch needs a video-level schema; see parse_frame_batch")
    checks = Checks(default_names(serialized, names))
    _, end = bounds_of_context(serialized)
    no_lists = tf.reduce_all(tf.equal(end, tf.strings.length(serialized)))
    records = read_records(serialized, no_lists, "Example")
    types = context_types(schema, with_labels) | dict.fromkeys(schema.feature_names, tf.float32)
    parsed = read_context(records, checks, types)
    check_context(parsed, checks, schema, with_labels)
    needed = ", ".join(schema.feature_names)
    names_remedy = _names_remedy(schema)
    for name, size in schema.feature_sizes:
        lengths = parsed[name].row_lengths()
        checks.require(
            Fault.MISSING_FEATURE,
            lengths > 0,
            lambda _, name=name: f"feature {name} is missing or empty; each of {needed} is needed",
            names_remedy,
        )
        checks.require(
            Fault.FEATURE_SIZE,
            tf.equal(lengths, size),
            lambda record, name=name, size=size, lengths=lengths: tf.strings.join(
                [f"feature {name} has ", _text(lengths[record]), f" values instead of {size}"]
            ),
            _SIZE_REMEDY,
        )
        num_wrong = tf.math.unsorted_segment_sum(
            tf.cast(tf.logical_not(tf.math.is_finite(parsed[name].flat_values)), tf.int32),
            parsed[name].value_rowids(),
            tf.shape(serialized)[0],
        )
        checks.require(
            Fault.NOT_FINITE,
            tf.equal(num_wrong, 0),
            lambda _, name=name: f"feature {name} has a value that is not finite",
            "write the record again",
        )
    return checks, parsed


def find_faults(
    serialized: tf.Tensor,
    schema: RecordSchema,
    *,
    with_labels: bool = True,
    with_ratings: bool = False,
    segment_ids: bool = False,
) -> tf.Tensor:
    """Returns the kind of fault for which a parser would refuse each record.

    Args:
        serialized: string [B], serialized records.
        schema: What to read.
        with_labels: Whether to check the labels.
        with_ratings: Whether to check the ratings of segments, as `parse_rated_batch` does.
        segment_ids: See `parse_frame_batch`.

    Returns:
        string [B], each a `yt8m_gat.data.errors.Fault`, or empty for a good record.
    """
    if schema.frame_level:
        checks, *_ = _checked_frames(
            serialized,
            schema,
            None,
            with_labels=with_labels,
            with_ratings=with_ratings,
            segment_ids=segment_ids,
        )
    else:
        checks, _ = _checked_videos(serialized, schema, None, with_labels)
    return checks.first_faults()
