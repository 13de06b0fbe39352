"""Uncompressed archives of arrays, as `numpy.savez` writes them, with the place of each array.

An array is read whole, or is only located in the file so that single rows can be read. The bytes
that are written depend on the arrays alone, not on the time.
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Sequence
from typing import IO, BinaryIO, NamedTuple

import numpy as np

OF_DAMAGE = (
    zipfile.BadZipFile,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
)
"""What `zipfile` and NumPy raise for bytes that nobody wrote so. RuntimeError is that of entries
that seem to be encrypted, or of a later version of the format."""

# Numbers and texts in the order of memory; no objects.
_HEADER = re.compile(
    rb"\{'descr': '([<|][uifU]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*"
)
_LOCAL_HEADER_BYTES = 30  # Of a member of a zip archive, before its name and extra field.
# Of every part of an archive, so that its bytes do not depend on the time; zip has no earlier one.
_DATE = (1980, 1, 1, 0, 0, 0)


class Part(NamedTuple):
    """Rows of an array in the file.

    Attributes:
        offset: Where the array's values begin, in bytes.
        row_bytes: Bytes of a row.
    """

    offset: int
    row_bytes: int


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads an array; the archive verifies its checksum at its end.

    Raises:
        ValueError: The array is compressed, or its header is none that NumPy writes; a damaged
            archive raises the others of `OF_DAMAGE`.
    """
    with archive.open(_stored(archive, name)) as member:
        shape, dtype = _read_header(member)
        return np.frombuffer(member.read(), dtype).reshape(shape)


def _stored(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Returns the entry of an array, which must not be compressed."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return info


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the header of an array as NumPy writes it: the shape and the type.

    NumPy's own reader parses it as Python, which Python 3.11 cannot do in several threads at once.
    """
    start = file.read(10)
    if start[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("an array has a header of another version")
    match = _HEADER.fullmatch(file.read(int.from_bytes(start[8:], "little")))
    if match is None:
        raise ValueError("an array has another header")
    return tuple(map(int, match[2].replace(b",", b" ").split())), np.dtype(match[1].decode())


def locate_array(
    archive: zipfile.ZipFile, file: BinaryIO, name: str, dtype: str, num_rows: int
) -> tuple[Part, int]:
    """Finds the values of an array [num_rows] or [num_rows, D]; also returns D, else 1.

    Raises:
        ValueError: The array has another type, shape or size; or see `read_array`.
    """
    info = _stored(archive, name)
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    file.seek(sum(struct.unpack("<HH", header[-4:])), os.SEEK_CUR)  # The name and the extra field.
    begin = file.tell()
    shape, stored = _read_header(file)
    size = shape[1] if len(shape) == 2 else 1
    row_bytes = size * np.dtype(dtype).itemsize
    if stored != np.dtype(dtype) or shape[:1] != (num_rows,) or len(shape) > 2:
        raise ValueError(f"{name} has another type or shape")
    if file.tell() - begin + num_rows * row_bytes != info.file_size:
        raise ValueError(f"{name} has another size")
    if file.tell() + num_rows * row_bytes > os.fstat(file.fileno()).st_size:
        raise ValueError(f"{name} ends after the file")
    return Part(file.tell(), row_bytes), size


def add_array(archive: zipfile.ZipFile, name: str, parts: Sequence[np.ndarray]) -> None:
    """Adds an array, the concatenation of its parts, as `numpy.savez` does."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:]) if parts[0].shape else ()
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as member:
        described = {
            "descr": np.lib.format.dtype_to_descr(parts[0].dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(member, described)
        for part in parts:
            member.write(np.ascontiguousarray(part).data)
