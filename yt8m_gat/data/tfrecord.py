"""The framing of TFRecord files: walked without reading what is inside, damage located.

A record is: its length (uint64, little endian), a masked CRC-32C of those 8 bytes (uint32), the
payload, a masked CRC-32C of the payload (uint32).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import tensorflow as tf

from yt8m_gat.data.errors import BadRecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4

DOWNLOAD_REMEDY = "download or write this file anew"

_CASTAGNOLI = 0x82F63B78  # CRC-32C polynomial, reflected (RFC 3720, section 12.1)
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_CASTAGNOLI if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files; meant for their 8-byte lengths (it is slow on payloads)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


class Frame(NamedTuple):
    """One record's place in its file.

    Attributes:
        record: Its number, from 0.
        offset: Where its framing starts, in bytes.
        length: Bytes of its payload.
    """

    record: int
    offset: int
    length: int


def _open(path: str) -> BinaryIO:
    # GFile reads a whole buffer after each seek: 50 times as slow on local files.
    return tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb", buffering=0)


def file_size(path: str) -> int:
    """Bytes of a local or remote file."""
    return tf.io.gfile.stat(path).length if "://" in path else os.stat(path).st_size


def walk_frames(path: str) -> Iterator[Frame]:
    """The records of a file, from their length prefixes alone.

    Raises:
        BadRecordError: The file ends inside a record, or a length has a wrong checksum; the
            records before it have been yielded.
    """
    size = file_size(path)
    offset = record = 0
    with _open(path) as file:
        while offset < size:
            file.seek(offset)
            header = file.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                raise BadRecordError(
                    path,
                    record,
                    offset,
                    f"the file is truncated: it ends after {size} bytes, inside a record's header",
                    DOWNLOAD_REMEDY,
                )
            length, crc = struct.unpack("<QI", header)
            if crc != masked_crc32c(header[:8]):
                raise BadRecordError(
                    path,
                    record,
                    offset,
                    "the record's length has a wrong checksum, so that nothing after it can be "
                    "found (damaged, compressed, or no TFRecord file)",
                    DOWNLOAD_REMEDY,
                )
            end = offset + HEADER_BYTES + length + FOOTER_BYTES
            if end > size:
                raise BadRecordError(
                    path,
                    record,
                    offset,
                    f"the file is truncated: the record would end at byte {end}, the file ends "
                    f"after {size} bytes",
                    DOWNLOAD_REMEDY,
                )
            yield Frame(record, offset, length)
            offset = end
            record += 1


def count_records(files: Iterable[str]) -> int:
    """Records in all the files, without reading their payloads.

    Raises:
        BadRecordError: See `walk_frames`.
    """
    return sum(sum(1 for _ in walk_frames(path)) for path in files)


def payloads_from(path: str, offset: int) -> tf.data.Dataset:
    """Payloads of a file's records from the one whose framing starts at `offset`."""
    # The public TFRecordDataset cannot start inside a file.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=256 * 1024,
        byte_offsets=tf.constant([offset], tf.int64),
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def _wrong_checksum(path: str, frame: Frame) -> BadRecordError:
    return BadRecordError(
        path,
        frame.record,
        frame.offset,
        "the payload has a wrong checksum: at least one bit differs from what was written",
        DOWNLOAD_REMEDY,
    )


def read_records(path: str) -> Iterator[tuple[Frame, bytes | BadRecordError]]:
    """Each record's payload, or the error in its place; goes on after a bad payload.

    Damage to the framing ends the file: the last item is its error, with a frame of length 0.
    """
    frames: list[Frame] = []
    end: BadRecordError | None = None
    try:
        frames.extend(walk_frames(path))
    except BadRecordError as error:
        # extend() keeps nothing of an iterator that raises.
        end = error
        frames = list(_frames_before(path, error.record or 0))
    position = 0
    while position < len(frames):
        payloads = payloads_from(path, frames[position].offset).take(len(frames) - position)
        try:
            for payload in payloads.as_numpy_iterator():
                yield frames[position], payload
                position += 1
        except tf.errors.DataLossError:
            yield frames[position], _wrong_checksum(path, frames[position])
            position += 1
    if end is not None:
        yield Frame(end.record or 0, end.offset or 0, 0), end


def _frames_before(path: str, record: int) -> Iterator[Frame]:
    for frame in walk_frames(path):
        if frame.record == record:
            return
        yield frame
        if frame.record == record - 1:
            return


def find_damage(files: Iterable[str], offset: int | None = None) -> BadRecordError | None:
    """The first damaged record of some files.

    Args:
        files: Paths.
        offset: Where the damage was met, in bytes, if known: only payloads of records that start
            there are read then, else all.
    """
    files = list(files)
    suspects: list[tuple[str, Frame]] = []
    for path in files:
        try:
            frames = list(walk_frames(path))
        except BadRecordError as error:
            return error
        suspects.extend((path, frame) for frame in frames if offset in (None, frame.offset))
    for path, frame in suspects:
        try:
            for _ in payloads_from(path, frame.offset).take(1):
                pass
        except tf.errors.DataLossError:
            return _wrong_checksum(path, frame)
    return None
