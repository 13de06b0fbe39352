"""The errors for records that cannot be read, and the kinds of faults."""

from __future__ import annotations

import enum

from yt8m_gat.untrusted import printable, quoted


class Fault(enum.StrEnum):
    """What is wrong with a record: the first four concern the file, the others the contents."""

    EMPTY_FILE = "empty_file"
    TRUNCATED = "truncated"
    """The file ends inside the record, or the record's length reaches past the file's end."""
    LENGTH_CHECKSUM = "length_checksum"
    """The length prefix has a wrong checksum; also used for a file that is not a TFRecord file."""
    PAYLOAD_CHECKSUM = "payload_checksum"
    UNDECODABLE = "undecodable"
    """The payload is not a protocol buffer of the layout."""
    WRONG_TYPE = "wrong_type"
    """A feature holds values of another type, or a frame does not hold exactly one value."""
    VIDEO_ID = "video_id"
    """No id, more than one, or one that is not text or that the CSV of 2019 cannot hold."""
    MISSING_FEATURE = "missing_feature"
    NO_FRAMES = "no_frames"
    FRAME_COUNTS = "frame_counts"
    """Features have different numbers of frames."""
    FEATURE_SIZE = "feature_size"
    IMAGE = "image"
    """A frame of a raw clip is no JPEG file, or a broken one."""
    NOT_FINITE = "not_finite"
    LABEL = "label"
    """A label is outside the vocabulary, or there is not the one label that there must be."""
    RATING = "rating"
    """A segment's rating is incomplete, outside the clip or outside the vocabulary."""


FRAMING_FAULTS = frozenset({Fault.EMPTY_FILE, Fault.TRUNCATED, Fault.LENGTH_CHECKSUM})
"""After one of these, no further record of the file can be located."""


class BadRecordError(ValueError):
    """A record, or the rest of a file from this record on, cannot be read.

    Attributes:
        fault: The kind of fault.
        file: The file's path.
        record: Number of the record in the file, from 0; None when unknown.
        offset: Where the record's framing starts, in bytes; None when unknown.
        reason: What is wrong.
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
        # The reason may contain names from the record.
        super().__init__(f"{where}: {printable(reason)}. Remedy: {remedy}.")
        self.fault = fault
        self.file = file
        self.record = record
        self.offset = offset
        self.reason = reason
        self.remedy = remedy


class TooManyBadRecordsError(ValueError):
    """More records were left out than `--max_bad_fraction` allows."""
