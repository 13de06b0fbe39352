"""Bad records left out of a dataset (`--on_bad_record=skip`): counted by kind, up to a limit."""

from __future__ import annotations

import bisect
import collections
import threading
from collections.abc import Callable
from typing import Any

from yt8m_gat.config import MAX_BAD_FRACTION, ON_BAD_RECORD, ConfigError
from yt8m_gat.data.errors import FRAMING_FAULTS, BadRecordError, Fault, TooManyBadRecordsError

NUM_SHOWN = 5
"""Bad records that a report names."""

_LEAST_RECORDS = 1000
"""Records before the limit is looked at, other than at the end: damage comes in clusters."""


class SkippedRecords:
    """What one pass over some files left out; filled by the reader, in its threads.

    The limit holds for the records and for the bytes: where a file's framing is damaged, the rest
    of it counts as one bad record, and by its bytes.

    Args:
        max_bad_fraction: Largest share, of the records and of the bytes read so far, that may be
            bad, from 0 to 1. It is looked at once 1,000 records have been read, and at the end.

    Attributes:
        num_records: Records read so far, good and bad.
        num_bytes: Their bytes, with framing.
        bad_bytes: Those of the bad ones.
        counts: Bad records by kind.

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
        """Bad records so far."""
        return self.counts.total()

    def add_good(self, num_records: int, num_bytes: int) -> None:
        """Counts records that were kept."""
        with self._lock:
            self.num_records += num_records
            self.num_bytes += num_bytes

    @property
    def first(self) -> list[BadRecordError]:
        """The first few of the bad ones, in the order of files and records."""
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
            describe: Gives the error for it. Asked of those alone that are shown: it reads the
                record once more.
        """
        # Files are read side by side: which error comes first is chance, their places are not.
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
        """Whether more is bad than may be.

        Args:
            at_end: The pass is over: also look where few records were read.
        """
        with self._lock:
            if self.num_records < _LEAST_RECORDS and not at_end:
                return False
            share = self.max_bad_fraction
            return (
                self.num_bad > share * self.num_records or self.bad_bytes > share * self.num_bytes
            )

    def check(self, at_end: bool = False) -> None:
        """Stops where `exceeded`.

        Raises:
            TooManyBadRecordsError: With the counts and the first bad records.
        """
        if self.exceeded(at_end):
            raise TooManyBadRecordsError(
                f"more of the records are bad than --max_bad_fraction={self.max_bad_fraction:g} "
                f"allows: {self.summary()}\nMend or remove the files, or raise --max_bad_fraction"
            )

    def as_dict(self) -> dict[str, Any]:
        """The counts, for JSON; a kind that was not met is left out."""
        return {
            "num_records": self.num_records,
            "num_bad_records": self.num_bad,
            "bad_bytes": self.bad_bytes,
            "lost_bytes": self._lost_bytes,
            **{f"bad_{fault}": count for fault, count in sorted(self.counts.items())},
        }

    def summary(self) -> str:
        """The counts and the first bad records, for people."""
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
    """For one pass: what `make_dataset` takes; None where a bad record is an error.

    Args:
        on_bad_record: `error` or `skip`.
        max_bad_fraction: See `SkippedRecords`.

    Raises:
        ConfigError: Another value.
    """
    if on_bad_record not in ON_BAD_RECORD:
        raise ConfigError(
            f"--on_bad_record must be one of {', '.join(ON_BAD_RECORD)}. "
            f"Received: {on_bad_record!r}"
        )
    return SkippedRecords(max_bad_fraction) if on_bad_record == "skip" else None
