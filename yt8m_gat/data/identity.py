"""Which files a run reads: told apart by their names, sizes and first bytes."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections import Counter
from collections.abc import Sequence

from yt8m_gat.data.tfrecord import file_size, file_state
from yt8m_gat.digests import digest_of

# The first record's id and labels are among them.
_FIRST_BYTES = 4096
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class FileIdentity:
    """One file, wherever it lies and whenever it was copied there.

    Attributes:
        name: Its name, without its folder.
        size: Its bytes.
        checksum: CRC-32 of the first of them; None for a remote file (`://`), of which the size
            alone is asked for: each read would be a request.
    """

    name: str
    size: int
    checksum: int | None


def identify_files(files: Sequence[str]) -> tuple[FileIdentity, ...]:
    """The identities of files, in their order.

    Reading terabytes to hash them, or to count their records, would be too slow.
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
    known: Sequence[FileIdentity] | None, found: Sequence[FileIdentity] | None
) -> str | None:
    """What differs between two lists of files, in words; None: nothing, as far as is known."""
    if known is None or found is None:
        return None
    if any(file.checksum is None for file in (*known, *found)):
        known, found = (
            [dataclasses.replace(file, checksum=None) for file in files] for files in (known, found)
        )
    if list(known) == list(found):
        return None
    gone, new = Counter(known) - Counter(found), Counter(found) - Counter(known)
    if not gone and not new:
        return "the same files in another order"
    before = {file.name: file for file in gone}
    changed = {file.name: file for file in new if file.name in before}
    return "; ".join(
        f"{what}: {_listed(entries)}"
        for what, entries in (
            ("new", [repr(file.name) for file in new if file.name not in changed]),
            ("missing", [repr(file.name) for file in gone if file.name not in changed]),
            (
                "changed",
                [
                    f"{name!r} ({before[name].size} bytes, now {file.size})"
                    if before[name].size != file.size
                    else f"{name!r} (as many bytes, others)"
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
    """Hashes names, sizes and times of change; hashing the contents of terabytes would be slow."""
    return digest_of([repr([file_state(path) for path in files]).encode()])
