"""The identity of the files that a run reads: their names, sizes and first bytes."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections import Counter
from collections.abc import Sequence

from yt8m_gat.data.tfrecord import file_size, file_state
from yt8m_gat.digests import digest_of

# These include the first record's id and labels.
_FIRST_BYTES = 4096
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class FileIdentity:
    """The identity of one file, independent of its folder and time stamps.

    Attributes:
        name: Its name, without its folder.
        size: Its number of bytes.
        checksum: CRC-32 of its first bytes; None for a remote file (`://`), since each read would
            be a request.
    """

    name: str
    size: int
    checksum: int | None


def identify_files(files: Sequence[str]) -> tuple[FileIdentity, ...]:
    """Returns the identities of files, in their order.

    Hashing the contents of terabytes, or counting their records, would be too slow.
    """
    return tuple(
        FileIdentity(os.path.basename(path), file_size(path), _checksum(path)) for path in files
    )


def _checksum(path: str) -> int | None:
    if "://" in path:
        return None
    with open(path, "rb", buffering=0) as file:
        return zlib.crc32(file.read(_FIRST_BYTES))


def file_changes(
    earlier: Sequence[FileIdentity] | None, current: Sequence[FileIdentity] | None
) -> str | None:
    """Describes the difference between two lists of files; None if they are equal or unknown."""
    if earlier is None or current is None:
        return None
    if any(file.checksum is None for file in (*earlier, *current)):
        earlier, current = (
            [dataclasses.replace(file, checksum=None) for file in files]
            for files in (earlier, current)
        )
    if list(earlier) == list(current):
        return None
    gone, new = Counter(earlier) - Counter(current), Counter(current) - Counter(earlier)
    if not gone and not new:
        return "the same files in another order"
    before = {file.name: file for file in gone}
    changed = {file.name: file for file in new if file.name in before}
    return "; ".join(
        f"{change}: {_listed(entries)}"
        for change, entries in (
            ("new", [repr(file.name) for file in new if file.name not in changed]),
            ("missing", [repr(file.name) for file in gone if file.name not in changed]),
            (
                "changed",
                [
                    f"{name!r} ({before[name].size} bytes, now {file.size})"
                    if before[name].size != file.size
                    else f"{name!r} (same size, other content)"
                    for name, file in changed.items()
                ],
            ),
        )
        if entries
    )


def _listed(entries: Sequence[str]) -> str:
    more = len(entries) - _NAMED
    return ", ".join(entries[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def files_digest(files: Sequence[str]) -> str:
    """Hashes names, sizes and mtimes; hashing the contents of terabytes would be too slow."""
    return digest_of([repr([file_state(path) for path in files]).encode()])
