"""Decoding of serialized records inside the graph.

The result is that of `tf.train.SequenceExample.FromString`; for video-level records, that of
`tf.train.Example.FromString`. In the wire format these are the messages:

    SequenceExample  1: Features, 2: FeatureLists
    Example          1: Features
    Features         1: entry, repeated:  1: key, 2: Feature
    FeatureLists     1: entry, repeated:  1: key, 2: FeatureList
    FeatureList      1: Feature, repeated
    Feature          one of 1: BytesList, 2: FloatList, 3: Int64List
    ...List          1: value, repeated

A writer may split a message over several fields, which a reader merges; write an entry twice, of
which the last counts; pack numbers or not; and add unknown fields, which are ignored. An entry with
an unknown field is ignored as a whole. A key must be UTF-8.

TensorFlow's own parser of records, `tf.io.parse_sequence_example`, is not used, because it differs
from that (2.21): it reads one part of a split list, refuses unknown fields in some places and
ignores keys in others, accepts bytes that are not a protocol buffer as a record, and crashes on a
forged length above 2 GB.

Records of the usual form are read level by level, and each byte of a level is accounted for, so
that nothing is merged, overwritten or unknown. If a batch has any other record, the protocol buffer
library itself reads its records (`tf.io.decode_proto` with `sanitize`), which takes several times
as long. The library in TensorFlow reads a tag of five bytes that encodes more than 32 bits, which
the one in Python refuses: `wire_tags` finds these in records that the library would not have
written byte for byte as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from google.protobuf import descriptor_pb2

from yt8m_gat.data.wire_tags import have_long_tags

_KINDS = {tf.string: "BytesList", tf.float32: "FloatList", tf.int64: "Int64List"}
"""Type of the values -> the message that holds them, in the order of `Feature`'s fields."""

_LENGTH_BYTES = 4
"""The maximum of bytes that encode the length of a usual context, which is thus below 256 MiB."""

_TAG, _LISTS_TAG = 0x0A, 0x12


def _descriptors() -> bytes:
    """Makes the descriptors of records for `decode_proto`, with entries as plain messages.

    In TensorFlow's own descriptors the entries belong to a map. A decoder drops the unknown fields
    of map entries, and with them the sign that Python's library would have ignored the entries.
    """
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="r.proto", package="r", syntax="proto3")

    def message(name: str, *kinds: str | int, repeated: bool = False) -> None:
        """Adds a message with fields 1, 2, ..., each of a scalar type or of a named message."""
        described = file.message_type.add(name=name)
        for number, kind in enumerate(kinds, 1):
            field = described.field.add(name=f"f{number}", number=number)
            field.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".r.{kind}"
            else:
                field.type = kind
            if name == "Feature":
                field.oneof_index = 0

    message("SequenceExample", "Features", "FeatureLists")
    message("Example", "Features")
    message("Features", "FeaturesEntry", repeated=True)
    message("FeatureLists", "FeatureListsEntry", repeated=True)
    message("FeaturesEntry", field_type.TYPE_STRING, "Feature")
    message("FeatureListsEntry", field_type.TYPE_STRING, "FeatureList")
    message("FeatureList", "Feature", repeated=True)
    message("Feature", *_KINDS.values())
    file.message_type[-1].oneof_decl.add(name="kind")
    message("BytesList", field_type.TYPE_BYTES, repeated=True)
    message("FloatList", field_type.TYPE_FLOAT, repeated=True)
    message("Int64List", field_type.TYPE_INT64, repeated=True)
    return b"bytes://" + descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


_DESCRIPTORS = _descriptors()


class Records(NamedTuple):
    """The decoded contents of a batch of records.

    Attributes:
        usual: bool []: whether the feature lists of all records are usual; they are left out then.
        decodable: bool [B]: whether the bytes are a record; if not, it is empty here.
        rows: int32 [N], the record of each context feature, ascending.
        keys: string [N], its name, which is unique in a record.
        present: bool [N, 3], whether it is a list of bytes, of floats, of integers.
        features: string [N] each: that list, serialized.
        list_rows: int32 [L], the record of each feature list, ascending.
        list_keys: string [L], its name, which is unique in a record.
        lists: string [L]: the feature list, serialized.
    """

    usual: tf.Tensor
    decodable: tf.Tensor
    rows: tf.Tensor
    keys: tf.Tensor
    present: tf.Tensor
    features: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
    list_rows: tf.Tensor
    list_keys: tf.Tensor
    lists: tf.Tensor

    def values(self, key: str, dtype: tf.DType) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Returns the values of one context feature.

        Args:
            key: Its name.
            dtype: Type of its values.

        Returns:
            The values [B, any]; and bool [B], False where it is a list of another type.
        """
        number = list(_KINDS).index(dtype)
        others = tf.concat([self.present[:, :number], self.present[:, number + 1 :]], axis=1)
        find = _traced(_find_values, dtype)
        values, lengths, right = find(
            tf.constant(key),
            self.rows,
            self.keys,
            others,
            self.features[number],
            tf.size(self.decodable),
        )
        return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False), right

    def frames(self, key: str, dtype: tf.DType) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Returns the frames of one feature.

        Args:
            key: Its name.
            dtype: Type of the frames' values.

        Returns:
            The frames, strings [B, any] or numbers [B, any, any], where a wrong frame is empty; and
            the first wrong frame of each record, int32 [B], or -1. A frame is wrong if it is not a
            list of this type or, for strings, does not have exactly one value.
        """
        find = _traced(_find_frames, dtype)
        frames, counts, lengths, wrong = find(
            tf.constant(key), self.list_rows, self.list_keys, self.lists, tf.size(self.decodable)
        )
        if dtype != tf.string:
            frames = tf.RaggedTensor.from_row_lengths(frames, counts, validate=False)
        return tf.RaggedTensor.from_row_lengths(frames, lengths, validate=False), wrong


@functools.cache
def _traced(function: Callable, *options: Any) -> Callable:
    """Returns a function that is traced once: tracing takes most of the time to make a parser."""
    return tf.function(
        functools.partial(function, *options), autograph=False, reduce_retracing=True
    )


def when_needed(function: Callable, *arguments: Any) -> Any:
    """Calls a function of tensors that TensorFlow compiles only when it is first run.

    Meant for branches that are rarely taken: compiling them takes longer than the rest of a parser.
    """
    once = tf.data.Dataset.from_tensors(arguments)
    return once.map(lambda *arguments: function(*arguments)).get_single_element()


def _find_values(
    dtype: tf.DType,
    key: tf.Tensor,
    rows: tf.Tensor,
    keys: tf.Tensor,
    others: tf.Tensor,
    features: tf.Tensor,
    num_records: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns all values, their number per record, and whether their type is right.

    See `Records.values`.
    """
    chosen = tf.where(tf.equal(keys, key))[:, 0]
    sizes, (values,) = _decode(tf.gather(features, chosen), _KINDS[dtype], [dtype])
    counts = sizes[:, 0]
    right = tf.logical_not(tf.reduce_any(tf.gather(others, chosen), axis=1))
    places = tf.gather(rows, chosen)[:, tf.newaxis]
    lengths = tf.scatter_nd(places, counts, num_records[tf.newaxis])
    right = tf.tensor_scatter_nd_update(tf.fill([num_records], True), places, right)
    return _flat(values, counts), lengths, right


def _find_frames(
    dtype: tf.DType,
    key: tf.Tensor,
    list_rows: tf.Tensor,
    list_keys: tf.Tensor,
    lists: tf.Tensor,
    num_records: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the frames (or their values), values per frame, frames per record, and wrong frames.

    See `Records.frames`.
    """
    number = list(_KINDS).index(dtype)
    chosen = tf.where(tf.equal(list_keys, key))[:, 0]
    num_frames, features = _repeated(tf.gather(lists, chosen), "FeatureList")
    present, kinds, _ = _fields(features, "Feature", len(_KINDS))
    sizes, (values,) = _decode(kinds[number], _KINDS[dtype], [dtype])
    counts = sizes[:, 0]
    if dtype == tf.string:
        right = tf.equal(counts, 1)
        frames = tf.where(right, tf.pad(values, [[0, 0], [0, 1]])[:, 0], "")
    else:
        right = present[:, number]
        frames = _flat(values, counts)
    places = tf.gather(list_rows, chosen)[:, tf.newaxis]
    lengths = tf.scatter_nd(places, num_frames, num_records[tf.newaxis])
    wrong = tf.RaggedTensor.from_row_lengths(tf.logical_not(right), lengths, validate=False)
    return frames, counts, lengths, first_true(wrong.to_tensor(False))


def first_true(flags: tf.Tensor) -> tf.Tensor:
    """Returns the first True column of each row, bool [B, any], as int32 [B]; -1 if none is."""
    flags = tf.pad(flags, [[0, 0], [0, 1]])  # There may be no columns.
    first = tf.argmax(flags, axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(flags, axis=1), first, -1)


def bounds_of_context(serialized: tf.Tensor, tag: int = _TAG) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where the context of usual records begins and ends, int32 [B]; 0 for others.

    With another `tag`, the same of any first field.
    """
    head = tf.io.decode_raw(serialized, tf.uint8, fixed_length=1 + _LENGTH_BYTES)
    head = tf.cast(head, tf.int32)
    digits = head[:, 1:]
    goes_on = tf.math.cumprod(digits // 128, axis=1)
    counts = tf.concat([tf.ones_like(goes_on[:, :1]), goes_on[:, :-1]], axis=1)
    weights = [128**i for i in range(_LENGTH_BYTES)]
    length = tf.reduce_sum(counts * (digits % 128) * weights, axis=1)
    start = 1 + tf.reduce_sum(counts, axis=1)
    end = start + length
    usual = tf.logical_and(tf.equal(head[:, 0], tag), tf.equal(goes_on[:, -1], 0))
    usual = tf.logical_and(usual, end <= tf.strings.length(serialized))
    return tf.where(usual, start, 0), tf.where(usual, end, 0)


def read_records(
    serialized: tf.Tensor, usual_lists: tf.Tensor, message_type: str = "SequenceExample"
) -> Records:
    """Reads records completely, except for the frames of usual ones.

    Args:
        serialized: string [B], records.
        usual_lists: bool []: whether each record is one context, followed by no feature lists or
            by some that are known to be usual.
        message_type: What the records are, `SequenceExample` or `Example`, which has no lists.
    """
    return _traced(_read_records, message_type)(serialized, usual_lists)


def _read_records(message_type: str, serialized: tf.Tensor, usual_lists: tf.Tensor) -> Records:
    start, end = bounds_of_context(serialized)
    contexts = tf.strings.substr(serialized, start, end - start)
    readable, counts, entries = _entries_if_readable(contexts)
    usual = tf.reduce_all(tf.stack([usual_lists, readable, tf.reduce_all(end > 0)]))

    def read_contexts() -> tuple[tf.Tensor, ...]:
        none = tf.zeros([0], tf.string)
        return tf.ones_like(counts, tf.bool), counts, entries, tf.zeros([0], tf.int32), none, none

    decodable, counts, entries, *lists = tf.cond(
        usual, read_contexts, lambda: when_needed(_traced(_read_all, message_type), serialized)
    )
    rows, keys, values = _last(counts, entries, "FeaturesEntry")
    present, features, _ = _fields(values, "Feature", len(_KINDS))
    return Records(usual, decodable, rows, keys, present, tuple(features), *lists)


def _read_all(message_type: str, serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns whether each is a record, entries per context, all entries, and all feature lists."""
    decodable, contexts, feature_lists = _rewritten(serialized, message_type)
    suspicious = tf.logical_not(_is_as_written(serialized, contexts, feature_lists))
    suspicious = tf.where(tf.logical_and(decodable, suspicious))[:, 0]
    has_long_tags = tf.scatter_nd(
        suspicious[:, tf.newaxis],
        have_long_tags(tf.gather(serialized, suspicious), message_type),
        tf.shape(serialized, tf.int64),
    )
    decodable = tf.logical_and(decodable, tf.logical_not(has_long_tags))
    contexts = tf.where(decodable, contexts, "")
    feature_lists = tf.where(decodable, feature_lists, "")
    counts, entries = _repeated(contexts, "Features")
    num_lists, list_entries = _repeated(feature_lists, "FeatureLists")
    return decodable, counts, entries, *_last(num_lists, list_entries, "FeatureListsEntry")


# An operation fails on bytes that are not a message; a dataset can continue after that.


def _entries_if_readable(contexts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns whether all contexts are messages as the library writes them, entries per context
    int32 [B], and all entries."""

    def read(contexts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        sizes, (entries,) = _decode(contexts, "Features", [tf.string], sanitize=True)
        _, (stored,) = _decode(contexts, "Features", [tf.string])
        as_written = tf.reduce_all(tf.equal(entries, stored))
        num_bytes = tf.where(
            tf.sequence_mask(sizes[:, 0], tf.shape(entries)[1]), _num_field_bytes(entries), 0
        )
        whole = tf.equal(tf.reduce_sum(num_bytes, axis=1), tf.strings.length(contexts))
        return tf.logical_and(as_written, tf.reduce_all(whole)), sizes[:, 0], entries

    result = tf.data.Dataset.from_tensors(contexts).map(read).ignore_errors()
    nothing = (tf.constant(False), tf.zeros([0], tf.int32), tf.zeros([0, 0], tf.string))
    result = result.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
    readable, counts, entries = result.get_single_element()
    return readable, counts, _flat(entries, counts)


def _rewritten(serialized: tf.Tensor, message_type: str) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns whether each is a record, bool [B], and its context and feature lists, if any.

    The protocol buffer library reads these and writes them in the usual form.
    """

    num_parts = 2 if message_type == "SequenceExample" else 1

    def rewrite(number: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, ...]:
        _, parts = _decode(record[tf.newaxis], message_type, [tf.string] * num_parts, sanitize=True)
        return number, parts[0][0, 0], parts[1][0, 0] if num_parts == 2 else tf.constant("")

    records = tf.data.Dataset.from_tensor_slices(serialized).enumerate()
    rewritten = records.map(rewrite).ignore_errors()
    # The first element stands for all that are not records, so that there is at least one.
    none = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), "", ""))
    rewritten = none.concatenate(rewritten).batch(tf.size(serialized, tf.int64) + 1)
    numbers, contexts, feature_lists = rewritten.get_single_element()
    numbers = tf.cast(numbers[1:], tf.int32)
    places = tf.scatter_nd(
        numbers[:, tf.newaxis], tf.range(1, tf.size(numbers) + 1), tf.shape(serialized)
    )
    return places > 0, tf.gather(contexts, places), tf.gather(feature_lists, places)


def _is_as_written(
    serialized: tf.Tensor, contexts: tf.Tensor, feature_lists: tf.Tensor
) -> tf.Tensor:
    """Returns whether records consist of these contexts and feature lists, as they are; bool [B].

    The library has written the two, so that no tag in such a record is longer than it must be.
    """
    start, end = bounds_of_context(serialized)
    first = tf.strings.substr(serialized, start, end - start)
    rest = tf.strings.substr(serialized, end, tf.strings.length(serialized) - end)
    start, end = bounds_of_context(rest, _LISTS_TAG)
    second = tf.strings.substr(rest, start, end - start)
    whole = tf.equal(end, tf.strings.length(rest))
    return tf.equal(first, contexts) & tf.equal(second, feature_lists) & whole


def _last(
    counts: tf.Tensor, entries: tf.Tensor, message_type: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Selects the valid entries of records with `counts` entries each: rows, keys and values.

    Entries with unknown fields are ignored; of the others with the same key, the last is valid.
    """
    rows = tf.repeat(tf.range(tf.size(counts)), counts)
    _, (keys, values), exact = _fields(entries, message_type, 2)
    names = tf.strings.join([tf.strings.as_string(rows), keys], ":")
    distinct, name_of_entry = tf.unique(names)
    places = tf.where(exact, tf.range(tf.size(keys)), -1)
    last = tf.math.unsorted_segment_max(places, name_of_entry, tf.size(distinct))
    chosen = tf.where(tf.logical_and(exact, tf.equal(tf.gather(last, name_of_entry), places)))[:, 0]
    return tf.gather(rows, chosen), tf.gather(keys, chosen), tf.gather(values, chosen)


def _decode(
    messages: tf.Tensor, message_type: str, dtypes: list[tf.DType], sanitize: bool = False
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Decodes messages [N]: counts of fields 1, 2, ..., int32 [N, fields], and values [N, any]."""
    # The operation needs at least one message.
    sizes, values = tf.io.decode_proto(
        tf.concat([messages, [""]], axis=0),
        f"r.{message_type}",
        [f"f{number}" for number in range(1, len(dtypes) + 1)],
        dtypes,
        descriptor_source=_DESCRIPTORS,
        sanitize=sanitize,
    )
    return sizes[:-1], [value[:-1] for value in values]


def _fields(
    messages: tf.Tensor, message_type: str, num_fields: int
) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
    """Decodes fields 1, 2, ... of messages [N], each of which occurs at most once.

    Returns:
        Whether each field is present, bool [N, fields]; its bytes, string [N] each; and whether
        each byte of a message is accounted for, bool [N].
    """
    sizes, values = _decode(messages, message_type, [tf.string] * num_fields)
    present = sizes > 0
    fields = [value[:, 0] for value in values]
    num_bytes = tf.where(present, _num_field_bytes(tf.stack(fields, axis=1)), 0)
    exact = tf.equal(tf.reduce_sum(num_bytes, axis=1), tf.strings.length(messages))
    return present, fields, exact


def _repeated(messages: tf.Tensor, message_type: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes field 1 of messages [N]: counts, int32 [N], and the bytes of all, string [M]."""
    sizes, (values,) = _decode(messages, message_type, [tf.string])
    return sizes[:, 0], _flat(values, sizes[:, 0])


def _flat(values: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Concatenates the first `counts` [N] of the values [N, any] of each row."""
    return tf.boolean_mask(values, tf.sequence_mask(counts, tf.shape(values)[1]))


def _num_field_bytes(content: tf.Tensor) -> tf.Tensor:
    """Returns the least size of a field with this content: a tag, the length and the content."""
    lengths = tf.strings.length(content)
    return 2 + sum(tf.cast(lengths >= 128**i, tf.int32) for i in range(1, 5)) + lengths
