"""Conversion of TensorFlow's errors to errors that name the file, the record and the remedy."""

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
from yt8m_gat.data.record_files import find_damage, read_payload, read_records, walk_frames
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.data.tfrecord import Frame

# Records checked together before they are parsed again; full-size clips reach the second limit.
_RECORDS_AT_ONCE = 64
_BYTES_AT_ONCE = 8 << 20

# A quoted file name has no colon (`quote_file`), so it cannot imitate the rest of a message.
_OWN_MESSAGE = re.compile(
    r"Bad record (?P<file>[^:]+):record (?P<record>\d+): (?P<reason>.+?)\. "
    r"Remedy: (?P<remedy>.+?)\. Fault: (?P<fault>\w+)\.",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)")  # The Assert operation escapes quotes and backslashes.
_LOST_OFFSET = re.compile(r"(?:corrupted|truncated) record at (\d+)")


class Finding(NamedTuple):
    """The contents of a parser's error about a record.

    Attributes:
        fault: The kind of fault.
        file: The first part of the record's name, mostly the file's path; see `record_names`.
        record: The second part, its number.
        reason: What is wrong.
        remedy: What to do about it.
    """

    fault: Fault
    file: str
    record: int
    reason: str
    remedy: str


def finding_in(error: tf.errors.OpError) -> Finding | None:
    """Parses an error of the parser; None if it is another error."""
    if not isinstance(error, tf.errors.InvalidArgumentError):
        return None
    match = _OWN_MESSAGE.search(_ESCAPED.sub(r"\1", error.message or ""))
    if match is None:
        return None
    file, record = unquote_file(match["file"]), int(match["record"])
    return Finding(Fault(match["fault"]), file, record, match["reason"], match["remedy"])


def _read_record(file: str, record: int) -> tuple[int | None, bytes | None]:
    """Reads byte offset and payload of one record; None for what cannot be read."""
    offset = None
    try:
        for frame in walk_frames(file):
            if frame.record == record:
                offset = frame.offset
                return offset, read_payload(file, frame)
    except (BadRecordError, OSError, tf.errors.OpError):
        pass
    return offset, None


def describe_bad_record(
    finding: Finding, file: str, record: int, offset: int | None, payload: bytes | None
) -> BadRecordError:
    """Makes the error for a record, with a description of its contents.

    Args:
        finding: The parser's finding.
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
    """Finds the bad record behind an error of a dataset; None if the error has another cause.

    Args:
        error: The error that iterating the dataset raised.
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
    """Yields numbers, int64 [n], and payloads, bytes [n], of a file's good records, in order.

    Args:
        path: The file.
        find_faults: Maps serialized records, string [n], to their kinds of fault, string [n];
            empty for a good record.
        check: The parser, which raises for a bad record; called only for bad records to be shown.
        skipped: Counts the bad records; reading stops when there are too many, and then good
            records that were read may not be yielded: see `SkippedRecords.exceeded`.
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
            # A long clip is checked alone: clips beside it would be padded to its length.
            full = num_bytes + frame.num_bytes > _BYTES_AT_ONCE
            if frames and (full or len(frames) == _RECORDS_AT_ONCE):
                yield good_ones()
                frames, payloads, num_bytes = [], [], 0
            frames.append(frame)
            payloads.append(payload)
            num_bytes += frame.num_bytes
        if skipped.exceeded():
            return
    if frames:
        yield good_ones()


def _describe_refused(
    check: Callable[[tf.Tensor], None], path: str, frame: Frame, payload: bytes
) -> BadRecordError:
    """Makes the error for a record that the parser refuses."""
    try:
        check(tf.constant([payload]))
    except tf.errors.InvalidArgumentError as error:
        if finding := finding_in(error):
            return describe_bad_record(finding, path, frame.record, frame.offset, payload)
        raise
    raise RuntimeError(f"{path}, record {frame.record} has a fault, but the parser accepts it")
