"""The error that a record which cannot be read ends in, and the kinds of such records."""

from __future__ import annotations

import enum

from yt8m_gat.untrusted import printable, quoted


class Fault(enum.StrEnum):
    """What is wrong with a record. The first four are of the file, the others of its content."""

    EMPTY_FILE = "empty_file"
    TRUNCATED = "truncated"
    """The file ends inside the record, or the record's length reaches past the file's end."""
    LENGTH_CHECKSUM = "length_checksum"
    """The length prefix has a wrong checksum; also of a file that holds no records at all."""
    PAYLOAD_CHECKSUM = "payload_checksum"
    UNDECODABLE = "undecodable"
    """The payload is no protocol buffer of the layout."""
    WRONG_TYPE = "wrong_type"
    """A feature holds values of another type, or more or fewer in a frame than one."""
    VIDEO_ID = "video_id"
    """No id, more than one, or one that is no text; for the CSV of 2019 one that it cannot hold."""
    MISSING_FEATURE = "missing_feature"
    NO_FRAMES = "no_frames"
    FRAME_COUNTS = "frame_counts"
    """Features of different numbers of frames."""
    FEATURE_SIZE = "feature_size"
    NOT_FINITE = "not_finite"
    LABEL = "label"
    """A label outside the vocabulary."""
    RATING = "rating"
    """A segment's rating that is incomplete, outside the clip or outside the vocabulary."""


FRAMING_FAULTS = frozenset({Fault.EMPTY_FILE, Fault.TRUNCATED, Fault.LENGTH_CHECKSUM})
"""After these nothing more of a file can be found."""


class BadRecordError(ValueError):
    """A record, or a whole file from some point on, that cannot be read.

    Attributes:
        fault: The kind of fault.
        file: The file's path.
        record: Number of the record in the file, from 0; None when unknown.
        offset: Where the record's framing starts, in bytes; None when unknown.
        reason: What was found.
        remedy: What to do about it.
    """

    def __init__(
        self,
        fault: Fault,
        file: str,
        record: int | None,
        offset: int | None,
        reason: str,
        remedy: str,
    ) -> None:
        where = quoted(file)
        if record is not None:
            where += f", record {record}"
        if offset is not None:
            where += f" (byte offset {offset})"
        # What was found may be names in the record.
        super().__init__(f"{where}: {printable(reason)}. Remedy: {remedy}.")
        self.fault = fault
        self.file = file
        self.record = record
        self.offset = offset
        self.reason = reason
        self.remedy = remedy


class TooManyBadRecordsError(ValueError):
    """More records were left out than `--max_bad_fraction` allows."""
