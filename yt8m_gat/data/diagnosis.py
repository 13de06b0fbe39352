"""From TensorFlow's errors to errors that say which record of which file, and what to do."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.data.description import describe_record
from yt8m_gat.data.errors import FRAMING_FAULTS, BadRecordError, Fault
from yt8m_gat.data.parsing import unquote_file
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.data.tfrecord import Frame, find_damage, read_payload, read_records, walk_frames

# Together parsed once more than they would be; the second bound holds for full-size clips.
_RECORDS_AT_ONCE = 64
_BYTES_AT_ONCE = 8 << 20

# A file's name has no colon (`quote_file`), so that none can pass for the rest of a message.
_OWN_MESSAGE = re.compile(
    r"Bad record (?P<file>[^:]+):record (?P<record>\d+): (?P<reason>.+?)\. "
    r"Remedy: (?P<remedy>.+?)\. Fault: (?P<fault>\w+)\.",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)")  # The Assert operation escapes quotes and backslashes.
_LOST_OFFSET = re.compile(r"(?:corrupted|truncated) record at (\d+)")


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
    match = _OWN_MESSAGE.search(_ESCAPED.sub(r"\1", error.message or ""))
    if match is None:
        return None
    file, record = unquote_file(match["file"]), int(match["record"])
    return Finding(Fault(match["fault"]), file, record, match["reason"], match["remedy"])


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
    if payload is not None and fault != Fault.UNDECODABLE:
        description = describe_record(payload)
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
    path: str,
    find_faults: Callable[[tf.Tensor], tf.Tensor],
    check: Callable[[tf.Tensor], None],
    skipped: SkippedRecords,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers, int64 [n], and payloads, bytes [n], of a file's good records, in their order.

    Args:
        path: The file.
        find_faults: The kind of fault, string [n], of serialized records, string [n]; empty for a
            good one.
        check: The parser, which raises for what has a fault; asked about records that are shown.
        skipped: Counts the others; where too many are bad, the reading ends.
    """
    frames: list[Frame] = []
    payloads: list[bytes] = []

    def good_ones() -> tuple[np.ndarray, np.ndarray]:
        records = np.array(payloads, object)
        faults = find_faults(tf.constant(records)).numpy()
        good = faults == b""
        for number in np.flatnonzero(~good):
            frame, payload = frames[number], payloads[number]
            skipped.add_bad(
                Fault(faults[number].decode()),
                (path, frame.record),
                frame.num_bytes,
                functools.partial(_describe_refused, check, path, frame, payload),
            )
        kept = [frames[number] for number in np.flatnonzero(good)]
        skipped.add_good(len(kept), sum(frame.num_bytes for frame in kept))
        return np.array([frame.record for frame in kept], np.int64), records[good]

    num_bytes = 0
    for frame, payload in read_records(path):
        if isinstance(payload, BadRecordError):
            error = payload
            skipped.add_bad(
                error.fault, (path, frame.record), frame.num_bytes, lambda error=error: error
            )
        else:
            frames.append(frame)
            payloads.append(payload)
            num_bytes += frame.num_bytes
        if len(frames) == _RECORDS_AT_ONCE or num_bytes >= _BYTES_AT_ONCE:
            yield good_ones()
            frames, payloads, num_bytes = [], [], 0
        if skipped.exceeded():
            return
    if frames:
        yield good_ones()


def _describe_refused(
    check: Callable[[tf.Tensor], None], path: str, frame: Frame, payload: bytes
) -> BadRecordError:
    """The error for a record in which the parser finds a fault."""
    try:
        check(tf.constant([payload]))
    except tf.errors.InvalidArgumentError as error:
        if finding := finding_in(error):
            return describe_bad_record(finding, path, frame.record, frame.offset, payload)
        raise
    raise RuntimeError(f"{path}, record {frame.record} has a fault, and the parser takes it")
