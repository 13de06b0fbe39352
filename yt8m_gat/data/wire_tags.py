"""Tags of more than 32 bits, which Python's protocol buffer library refuses.

A tag is a number of seven bits per byte, the lowest first, of at most five bytes. These hold 35
bits, and a tag has 32: Python's library refuses a fifth byte above 15, whereas TensorFlow's drops
the bits that are too many.
"""

import tensorflow as tf

_TAG_BYTES, _NUMBER_BYTES = 5, 10
_VARINT, _FIXED64, _DELIMITED, _START_GROUP, _END_GROUP, _FIXED32 = range(6)

# Message -> the messages in its fields 1, 2 and 3; a value is no message. See `wire_format`.
_MESSAGES = {
    "Value": (),
    "SequenceExample": ("Features", "FeatureLists"),
    "Example": ("Features",),
    "Features": ("FeaturesEntry",),
    "FeatureLists": ("FeatureListsEntry",),
    "FeaturesEntry": ("Value", "Feature"),
    "FeatureListsEntry": ("Value", "FeatureList"),
    "FeatureList": ("Feature",),
    "Feature": ("List", "List", "List"),
    "List": (),
}
_MAX_FIELDS = 3


def _table() -> list[list[int]]:
    """Makes the table [messages, field number] of the messages in fields; 0: not a message."""
    names = list(_MESSAGES)
    rows = [[0, *map(names.index, fields)] for fields in _MESSAGES.values()]
    return [row + [0] * (1 + _MAX_FIELDS - len(row)) for row in rows]


def have_long_tags(records: tf.Tensor, message_type: str = "SequenceExample") -> tf.Tensor:
    """Returns bool [B]: whether a tag in a record has more than 32 bits.

    All messages of all records are walked at once, one field of each message per turn, so that the
    number of turns is about the number of fields of the largest message.

    Args:
        records: string [B], which TensorFlow's protocol buffer library can read. For other bytes
            the answer is meaningless.
        message_type: What the records are, `SequenceExample` or `Example`.

    Example:

    ```python
    >>> record = b"\\x0a\\x00"  # An empty context: field 1, of length 0.
    >>> long_tag = b"\\x8a\\x80\\x80\\x80\\x10\\x00"  # The same with bit 32 set.
    >>> have_long_tags(tf.constant([record, long_tag])).numpy().tolist()
    [False, True]

    ```
    """
    lengths = tf.strings.length(records)
    content = tf.io.decode_raw(tf.strings.reduce_join(records), tf.uint8)
    # Reading a tag and a number past the end is no error.
    content = tf.pad(content, [[0, _TAG_BYTES + _NUMBER_BYTES]])
    ends = tf.cumsum(tf.cast(lengths, tf.int64))
    starts = ends - tf.cast(lengths, tf.int64)
    rows = tf.range(tf.size(records))
    table = tf.constant(_table())
    top = tf.fill(tf.shape(rows), list(_MESSAGES).index(message_type))

    def read(rows, positions, ends, messages, depths, found):
        """Reads a field of each message: they go on after it, and new ones are in it."""
        tag, num_bytes, is_long = _tags(content, positions)
        found = tf.tensor_scatter_nd_max(found, rows[:, tf.newaxis], tf.cast(is_long, tf.int32))
        kind, field = tag % 8, tag // 8
        positions += num_bytes
        number, num_bytes = _numbers(content, positions)
        is_delimited = tf.equal(kind, _DELIMITED)
        positions += tf.where(is_delimited | tf.equal(kind, _VARINT), num_bytes, 0)
        after = positions + tf.where(is_delimited, number, 0)
        after += tf.where(tf.equal(kind, _FIXED64), tf.constant(8, tf.int64), 0)
        after += tf.where(tf.equal(kind, _FIXED32), tf.constant(4, tf.int64), 0)
        after = tf.minimum(after, ends)
        # In a group, which is an unknown field, all fields are unknown too.
        known = is_delimited & tf.equal(depths, 0) & (field <= _MAX_FIELDS)
        inner = tf.gather_nd(
            table, tf.stack([messages, tf.where(known, tf.cast(field, tf.int32), 0)], axis=1)
        )
        depths += tf.cast(tf.equal(kind, _START_GROUP), tf.int32)
        depths -= tf.cast(tf.equal(kind, _END_GROUP), tf.int32)
        goes_on, enters = after < ends, (inner > 0) & (positions < after)

        def both(outer: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
            return tf.concat([outer[goes_on], new[enters]], axis=0)

        return (
            both(rows, rows),
            both(after, positions),
            both(ends, after),
            both(messages, inner),
            both(depths, tf.zeros_like(depths)),
            found,
        )

    some = lengths > 0
    state = (rows[some], starts[some], ends[some], top[some], tf.zeros_like(rows)[some])
    *_, found = tf.while_loop(
        lambda rows, *_: tf.size(rows) > 0,
        read,
        (*state, tf.zeros_like(rows)),
        shape_invariants=(*[tf.TensorShape([None])] * 5, rows.shape),
    )
    return found > 0


def _tags(content: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads tags [N]: their lowest 32 bits, int64; their bytes, int64; whether they have more."""
    value, num_bytes = _varints(content, positions, _TAG_BYTES)
    return value % 2**32, num_bytes, value >= 2**32


def _numbers(content: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads numbers [N] of up to ten bytes: their lowest 35 bits, enough for a length; bytes."""
    _, num_bytes = _varints(content, positions, _NUMBER_BYTES)
    value, _ = _varints(content, positions, _TAG_BYTES)
    return value, num_bytes


def _varints(content: tf.Tensor, positions: tf.Tensor, most: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads base-128 numbers of at most `most` bytes: values and number of bytes, int64 [N]."""
    places = positions[:, tf.newaxis] + tf.range(most, dtype=tf.int64)
    digits = tf.cast(tf.gather(content, places), tf.int64)  # [N, most]
    goes_on = tf.math.cumprod(digits // 128, axis=1)
    counts = tf.concat([tf.ones_like(goes_on[:, :1]), goes_on[:, :-1]], axis=1)
    weights = tf.constant([2 ** min(7 * i, 62) for i in range(most)], tf.int64)
    return tf.reduce_sum(counts * (digits % 128) * weights, axis=1), tf.reduce_sum(counts, axis=1)
