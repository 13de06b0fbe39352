"""From TensorFlow's errors to errors that say which record of which file, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from yt8m_gat.data.description import UndecodableRecordError, describe_record
from yt8m_gat.data.errors import BadRecordError
from yt8m_gat.data.parsing import INSPECT_COMMAND
from yt8m_gat.data.tfrecord import find_damage, read_payload, walk_frames

# The first is ours (yt8m_gat.data.parsing), the others TensorFlow's parsing operation's.
_OWN_MESSAGE = re.compile(
    r"Bad record (?P<file>.+?):record (?P<record>\d+): (?P<reason>.+?)\. "
    r"Remedy: (?P<remedy>.+?)\.(?=[\"'\]\s]|$)",
    re.DOTALL,
)
_TENSORFLOW_MESSAGE = re.compile(
    r"Name: (?P<file>.+?):record (?P<record>\d+), (?P<reason>[^\n]+?)\.?\s*(?=\n|\[\[|$)"
)
_UNDECODABLE = re.compile(
    r"(?P<reason>Invalid protocol message input), example id: (?P<file>.+?):record (?P<record>\d+)"
)
_ESCAPED = re.compile(r"\\(.)")  # The Assert operation escapes quotes and backslashes.
_LOST_OFFSET = re.compile(r"(?:corrupted|truncated) record at (\d+)")


def _read_record(file: str, record: int) -> tuple[int | None, bytes | None]:
    """Byte offset and payload of one record; None where the file does not give them."""
    try:
        for frame in walk_frames(file):
            if frame.record == record:
                return frame.offset, read_payload(file, frame)
    except (BadRecordError, OSError, tf.errors.OpError):
        return None, None
    return None, None


def bad_record_from(error: tf.errors.OpError, files: Sequence[str]) -> BadRecordError | None:
    """The bad record behind an error of a dataset, or None when it is about something else.

    Args:
        error: What iterating the dataset raised.
        files: The files that the dataset reads.
    """
    message = error.message or ""
    if isinstance(error, tf.errors.DataLossError):
        offset = _LOST_OFFSET.search(message)
        return find_damage(files, int(offset[1]) if offset else None)
    if not isinstance(error, tf.errors.InvalidArgumentError):
        return None
    match = _OWN_MESSAGE.search(_ESCAPED.sub(r"\1", message))
    match = match or _TENSORFLOW_MESSAGE.search(message) or _UNDECODABLE.search(message)
    if match is None:
        return None
    file, record, reason = match["file"], int(match["record"]), match["reason"]
    remedy = match.groupdict().get("remedy") or (
        f"write the record anew; `{INSPECT_COMMAND}` lists all that cannot be read"
    )
    offset, payload = _read_record(file, record)
    if payload is not None:
        try:
            reason += f" (the record holds: {describe_record(payload)})"
        except UndecodableRecordError as undecodable:
            reason = str(undecodable)
    return BadRecordError(file, record, offset, reason, remedy)


def iterate(dataset: tf.data.Dataset, files: Sequence[str]) -> Iterator[Any]:
    """The dataset's elements; a record that cannot be read ends in a `BadRecordError`.

    Args:
        dataset: From `make_dataset`, or mapped from one.
        files: The files that it reads.

    Raises:
        BadRecordError: Names file, record, byte offset, what was found and what to do.
    """
    iterator = iter(dataset)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            bad = bad_record_from(error, files)
            if bad is None:
                raise
            raise bad from None
        yield batch
