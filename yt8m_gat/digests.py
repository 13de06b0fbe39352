"""SHA-256 of bytes and of files, with which results record what they were made from."""

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20


def digest_of(parts: Iterable[bytes]) -> str:
    """Returns the digest of the concatenated parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def digest_of_files(files: Iterable[BinaryIO]) -> str:
    """Returns the digest of the concatenated bytes of open files."""
    digest = hashlib.sha256()
    for file in files:
        while part := file.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()
