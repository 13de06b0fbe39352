"""Counts of bad records that a dataset leaves out (`--on_bad_record=skip`), with a limit."""

from __future__ import annotations

import bisect
import collections
import threading
from collections.abc import Callable
from typing import Any

from yt8m_gat.config import MAX_BAD_FRACTION, ON_BAD_RECORD, ConfigError
from yt8m_gat.data.errors import FRAMING_FAULTS, BadRecordError, Fault, TooManyBadRecordsError

NUM_SHOWN = 5
"""The number of bad records that a report names."""

_LEAST_RECORDS = 1000
"""The number of records before the limit is checked for the first time: damage comes in
clusters."""


class SkippedRecords:
    """The bad records that one pass over some files left out, counted by the reader's threads.

    The limit holds for the records and for the bytes: if a file's framing is damaged, the rest of
    it counts as one bad record, with all its bytes.

    Args:
        max_bad_fraction: The largest share, of the records and of the bytes read so far, that may
            be bad, from 0 to 1. It is checked from 1,000 records on, and at the end.

    Attributes:
        num_records: The number of records read so far, good and bad.
        num_bytes: The number of their bytes, with framing.
        bad_bytes: The number of bytes of the bad ones.
        counts: The number of bad records of each kind.

    Raises:
        ConfigError: `max_bad_fraction` is outside [0, 1].
    """

    def __init__(self, max_bad_fraction: float = MAX_BAD_FRACTION) -> None:
        if not 0 <= max_bad_fraction <= 1:
            raise ConfigError(
                f"--max_bad_fraction must be from 0 to 1. Received: {max_bad_fraction!r}"
            )
        self.max_bad_fraction = max_bad_fraction
        self.num_records = 0
        self.num_bytes = 0
        self.bad_bytes = 0
        self.counts: collections.Counter[Fault] = collections.Counter()
        self._first: list[tuple[tuple[str, int], BadRecordError]] = []
        self._lost_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bad(self) -> int:
        """The number of bad records so far."""
        return self.counts.total()

    def add_good(self, num_records: int, num_bytes: int) -> None:
        """Counts records that were kept."""
        with self._lock:
            self.num_records += num_records
            self.num_bytes += num_bytes

    @property
    def first(self) -> list[BadRecordError]:
        """The first few bad records, in the order of files and records."""
        return [error for _, error in self._first]

    def add_bad(
        self,
        fault: Fault,
        place: tuple[str, int],
        num_bytes: int,
        describe: Callable[[], BadRecordError],
    ) -> None:
        """Counts a record that was left out, or the rest of a file.

        Args:
            fault: What is wrong with it.
            place: Its file, and its number there.
            num_bytes: Its bytes, with framing.
            describe: Makes the error for it. Called only for records that are shown, since it
                parses the record again.
        """
        # Files are read in parallel: the errors arrive in random order, so they are sorted by
        # place.
        with self._lock:
            shown = len(self._first) < NUM_SHOWN or place < self._first[-1][0]
        described = (place, describe()) if shown else None
        with self._lock:
            self.num_records += 1
            self.num_bytes += num_bytes
            self.bad_bytes += num_bytes
            self.counts[fault] += 1
            if fault in FRAMING_FAULTS:
                self._lost_bytes += num_bytes
            if described is not None:
                bisect.insort(self._first, described, key=lambda bad: bad[0])
                del self._first[NUM_SHOWN:]

    def exceeded(self, at_end: bool = False) -> bool:
        """Returns whether the limit is exceeded.

        Args:
            at_end: Whether the pass is over; then the limit holds for few records too.
        """
        with self._lock:
            if self.num_records < _LEAST_RECORDS and not at_end:
                return False
            share = self.max_bad_fraction
            return (
                self.num_bad > share * self.num_records or self.bad_bytes > share * self.num_bytes
            )

    def check(self, at_end: bool = False) -> None:
        """Checks the limit.

        Raises:
            TooManyBadRecordsError: `exceeded`; the message has the counts and the first bad
                records.
        """
        if self.exceeded(at_end):
            raise TooManyBadRecordsError(
                f"more of the records are bad than --max_bad_fraction={self.max_bad_fraction:g} "
                f"allows: {self.summary()}\nRepair or remove the files, or raise --max_bad_fraction"
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts, for JSON, without kinds that did not occur."""
        return {
            "num_records": self.num_records,
            "num_bad_records": self.num_bad,
            "bad_bytes": self.bad_bytes,
            "lost_bytes": self._lost_bytes,
            **{f"bad_{fault}": count for fault, count in sorted(self.counts.items())},
        }

    def summary(self) -> str:
        """Returns the counts and the first bad records as text."""
        kinds = ", ".join(
            f"{fault.replace('_', ' ')} {count:,}" for fault, count in self.counts.most_common()
        )
        lines = [
            f"{self.num_bad:,} of {self.num_records:,} records ({self.bad_bytes:,} of "
            f"{self.num_bytes:,} bytes) left out as bad" + (f": {kinds}" if kinds else "")
        ]
        if self._lost_bytes:
            lines.append(
                f"  {self._lost_bytes:,} bytes are the rests of files whose framing is damaged"
            )
        lines += [f"  {error}" for error in self.first]
        return "\n".join(lines)


def new_skipped(on_bad_record: str, max_bad_fraction: float) -> SkippedRecords | None:
    """Makes the `skipped` of `make_dataset` for one pass; None if a bad record is an error.

    Args:
        on_bad_record: `error` or `skip`.
        max_bad_fraction: See `SkippedRecords`.

    Raises:
        ConfigError: A value is invalid.
    """
    if on_bad_record not in ON_BAD_RECORD:
        raise ConfigError(
            f"--on_bad_record must be one of {', '.join(ON_BAD_RECORD)}. "
            f"Received: {on_bad_record!r}"
        )
    return SkippedRecords(max_bad_fraction) if on_bad_record == "skip" else None
