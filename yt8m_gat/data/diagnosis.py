"""From TensorFlow's errors to errors that say which record of which file, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.data.description import UndecodableRecordError, canonical, describe_record
from yt8m_gat.data.errors import FRAMING_FAULTS, BadRecordError, Fault
from yt8m_gat.data.parsing import INSPECT_COMMAND, unquote_file
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.data.tfrecord import Frame, find_damage, read_payload, read_records, walk_frames

# Together parsed once more than they would be; the second bound holds for full-size clips.
_RECORDS_AT_ONCE = 64
_BYTES_AT_ONCE = 8 << 20

# The first is ours (yt8m_gat.data.parsing), the others TensorFlow's parsing operation's. A file's
# name has no colon (`quote_file`), so that none can pass for the rest of a message.
_OWN_MESSAGE = re.compile(
    r"Bad record (?P<file>[^:]+):record (?P<record>\d+): (?P<reason>.+?)\. "
    r"Remedy: (?P<remedy>.+?)\. Fault: (?P<fault>\w+)\.",
    re.DOTALL,
)
_TENSORFLOW_MESSAGE = re.compile(
    r"Name: (?P<file>[^:]+):record (?P<record>\d+), (?P<reason>[^\n]+?)\.?\s*(?=\n|\[\[|$)"
)
_SEQUENCE_MESSAGE = re.compile(
    r"(?P<reason>Error in sequence feature .+?) in example (?P<file>[^:]+):record (?P<record>\d+)"
)
_UNDECODABLE = re.compile(
    r"(?P<reason>Invalid protocol message input), example id: "
    r"(?P<file>[^:]+):record (?P<record>\d+)"
)
_ESCAPED = re.compile(r"\\(.)")  # The Assert operation escapes quotes and backslashes.
_LOST_OFFSET = re.compile(r"(?:corrupted|truncated) record at (\d+)")


_TYPE_REMEDY = (
    "say how the frames are stored by --feature_types of train.py (uint8 or float32: bytes; "
    "float_list: lists of floats), or write the record anew"
)
_REMEDY = f"write the record anew; `{INSPECT_COMMAND}` lists all that cannot be read"


class Finding(NamedTuple):
    """What a parser's error says of a record.

    Attributes:
        fault: The kind of fault.
        file: The file's path, or what else the record was called by, see `record_names`.
        record: Its second part.
        reason: What was found.
        remedy: What to do about it.
    """

    fault: Fault
    file: str
    record: int
    reason: str
    remedy: str


def finding_in(error: tf.errors.OpError) -> Finding | None:
    """What an error of the parser says; None when it is about something else."""
    if not isinstance(error, tf.errors.InvalidArgumentError):
        return None
    message = error.message or ""
    if match := _OWN_MESSAGE.search(_ESCAPED.sub(r"\1", message)):
        fault, remedy = Fault(match["fault"]), match["remedy"]
    else:
        fault = Fault.WRONG_TYPE
        remedy = _REMEDY
        match = _TENSORFLOW_MESSAGE.search(message) or _SEQUENCE_MESSAGE.search(message)
        if match is not None and match["reason"].startswith("Feature list"):
            remedy = _TYPE_REMEDY
        if match is None:
            fault = Fault.UNDECODABLE
            match = _UNDECODABLE.search(message)
        if match is None:
            return None
    return Finding(
        fault, unquote_file(match["file"]), int(match["record"]), match["reason"], remedy
    )


def _read_record(file: str, record: int) -> tuple[int | None, bytes | None]:
    """Byte offset and payload of one record; None where the file does not give them."""
    try:
        for frame in walk_frames(file):
            if frame.record == record:
                return frame.offset, read_payload(file, frame)
    except (BadRecordError, OSError, tf.errors.OpError):
        return None, None
    return None, None


def describe_bad_record(
    finding: Finding, file: str, record: int, offset: int | None, payload: bytes | None
) -> BadRecordError:
    """The error for a record, with what it holds.

    Args:
        finding: What the parser found.
        file: The record's file.
        record: Its number there.
        offset: Its byte offset; None when unknown.
        payload: Its bytes; None when unknown.
    """
    fault, _, _, reason, remedy = finding
    if payload is not None:
        try:
            description = describe_record(payload)
        except UndecodableRecordError as undecodable:
            fault, reason = Fault.UNDECODABLE, str(undecodable)
        else:
            record_kind = f"{description.level}-level record" if description.sizes else "record"
            reason += f" (the {record_kind} holds: {description})"
    return BadRecordError(fault, file, record, offset, reason, remedy)


def bad_record_from(error: tf.errors.OpError, files: Sequence[str]) -> BadRecordError | None:
    """The bad record behind an error of a dataset, or None when it is about something else.

    Args:
        error: What iterating the dataset raised.
        files: The files that the dataset reads.
    """
    if isinstance(error, tf.errors.DataLossError):
        offset = _LOST_OFFSET.search(error.message or "")
        return find_damage(files, int(offset[1]) if offset else None)
    finding = finding_in(error)
    if finding is None:
        return None
    if finding.fault in FRAMING_FAULTS:
        return find_damage([finding.file])
    offset, payload = _read_record(finding.file, finding.record)
    return describe_bad_record(finding, finding.file, finding.record, offset, payload)


def read_good_records(
    path: str, check: Callable[[tf.Tensor], None], skipped: SkippedRecords
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers, int64 [n], and payloads, bytes [n], of a file's good records, in their order.

    Args:
        path: The file.
        check: The parser; raises for serialized records, string [n], that it does not take.
        skipped: Counts the others; where too many are bad, the reading ends.
    """
    frames: list[Frame] = []
    payloads: list[bytes] = []
    num_bytes = 0

    def good_ones() -> tuple[np.ndarray, np.ndarray]:
        _drop_bad(path, frames, payloads, check, skipped)
        skipped.add_good(len(frames), sum(frame.num_bytes for frame in frames))
        numbers = np.array([frame.record for frame in frames], np.int64)
        return numbers, np.array(payloads, object)

    for frame, payload in read_records(path):
        bad = payload if isinstance(payload, BadRecordError) else None
        if bad is None:
            try:
                payloads.append(canonical(payload))
            except UndecodableRecordError as error:
                finding = Finding(Fault.UNDECODABLE, path, frame.record, str(error), _REMEDY)
                bad = describe_bad_record(finding, path, frame.record, frame.offset, None)
            else:
                frames.append(frame)
                num_bytes += frame.num_bytes
        if bad is not None:
            skipped.add_bad(bad, frame.num_bytes)
        if len(frames) == _RECORDS_AT_ONCE or num_bytes >= _BYTES_AT_ONCE:
            yield good_ones()
            frames, payloads, num_bytes = [], [], 0
        if skipped.exceeded():
            return
    if frames:
        yield good_ones()


def _drop_bad(
    path: str,
    frames: list[Frame],
    payloads: list[bytes],
    check: Callable[[tf.Tensor], None],
    skipped: SkippedRecords,
) -> None:
    """Removes from both lists what the parser does not take, one record after the other."""
    while payloads:
        try:
            check(tf.constant(payloads))
            return
        except tf.errors.InvalidArgumentError as error:
            finding = finding_in(error) or _finding_alone(payloads, check)
            if finding is None:
                raise
            # Records without names are numbered.
            frame = frames.pop(finding.record)
            payload = payloads.pop(finding.record)
            bad = describe_bad_record(finding, path, frame.record, frame.offset, payload)
            skipped.add_bad(bad, frame.num_bytes)


def _finding_alone(payloads: list[bytes], check: Callable[[tf.Tensor], None]) -> Finding | None:
    """The first record that the parser does not take alone, where its error names none."""
    for number, payload in enumerate(payloads):
        try:
            check(tf.constant([payload]))
        except tf.errors.InvalidArgumentError as error:
            reason = f"TensorFlow's parser refuses it: {error.message}"
            return Finding(Fault.UNDECODABLE, "", number, reason, _REMEDY)
    return None


def iterate(
    dataset: tf.data.Dataset, files: Sequence[str], skipped: SkippedRecords | None = None
) -> Iterator[Any]:
    """The dataset's elements; a record that cannot be read ends in a `BadRecordError`.

    Args:
        dataset: From `make_dataset`, or mapped from one.
        files: The files that it reads.
        skipped: What `make_dataset` was given by that name.

    Raises:
        BadRecordError: Names file, record, byte offset, what was found and what to do.
        TooManyBadRecordsError: See `SkippedRecords`.
    """
    iterator = iter(dataset)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            if skipped is not None:
                skipped.check(at_end=True)
            return
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            bad = bad_record_from(error, files)
            if bad is None:
                raise
            raise bad from None
        if skipped is not None:
            skipped.check()
        yield batch
