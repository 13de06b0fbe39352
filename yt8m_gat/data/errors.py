"""The error that a record which cannot be read ends in."""

from __future__ import annotations


class BadRecordError(ValueError):
    """A record, or a whole file from some point on, that cannot be read.

    Attributes:
        file: The file's path.
        record: Number of the record in the file, from 0; None when unknown.
        offset: Where the record's framing starts, in bytes; None when unknown.
        reason: What was found.
        remedy: What to do about it.
    """

    def __init__(
        self, file: str, record: int | None, offset: int | None, reason: str, remedy: str
    ) -> None:
        where = file
        if record is not None:
            where += f", record {record}"
        if offset is not None:
            where += f" (byte offset {offset})"
        super().__init__(f"{where}: {reason}. Remedy: {remedy}.")
        self.file = file
        self.record = record
        self.offset = offset
        self.reason = reason
        self.remedy = remedy
