"""The framing of TFRecord files: walking it without reading the payloads, and locating damage.

A record consists of its length (uint64, little endian), a masked CRC-32C of those 8 bytes (uint32),
the payload, and a masked CRC-32C of the payload (uint32).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import tensorflow as tf

from yt8m_gat.data.errors import BadRecordError, Fault
from yt8m_gat.paths import is_remote

HEADER_BYTES = 12
FOOTER_BYTES = 4

DOWNLOAD_REMEDY = "download or write this file again"

_BUFFER_BYTES = 256 * 1024  # tf.data's own default for records.

_CASTAGNOLI = 0x82F63B78  # CRC-32C polynomial, reflected (RFC 3720, section 12.1)
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_CASTAGNOLI if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def masked_crc32c(data: bytes) -> int:
    """Computes the checksum of TFRecord files, for 8-byte lengths (it is slow on payloads)."""
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

    @property
    def num_bytes(self) -> int:
        """Bytes of the record with its framing."""
        return HEADER_BYTES + self.length + FOOTER_BYTES


def _open(path: str) -> BinaryIO:
    # GFile reads a whole buffer after each seek, which is 50 times as slow for local files.
    return tf.io.gfile.GFile(path, "rb") if is_remote(path) else open(path, "rb", buffering=0)


def file_size(path: str) -> int:
    """Returns the number of bytes of a local or remote file."""
    return tf.io.gfile.stat(path).length if is_remote(path) else os.stat(path).st_size


def file_state(path: str) -> tuple[str, int, int]:
    """Returns path, size and mtime (ns) of a file; if one differs, the file has changed."""
    stat = tf.io.gfile.stat(path)
    return path, stat.length, stat.mtime_nsec


def walk_frames(path: str) -> Iterator[Frame]:
    """Yields the records of a file, reading only their length prefixes.

    Raises:
        BadRecordError: The file is empty, ends inside a record, or a length has a wrong checksum;
            the records before it are yielded first.
    """
    size = file_size(path)
    offset = record = 0
    if size == 0:
        raise BadRecordError(
            Fault.EMPTY_FILE,
            path,
            None,
            None,
            "the file is empty",
            f"delete it if it was meant to hold no records, else {DOWNLOAD_REMEDY}",
        )
    with _open(path) as file:
        while offset < size:
            file.seek(offset)
            header = file.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                raise BadRecordError(
                    Fault.TRUNCATED,
                    path,
                    record,
                    offset,
                    f"the file is truncated: it ends after {size} bytes, inside a record's header",
                    DOWNLOAD_REMEDY,
                )
            length, crc = struct.unpack("<QI", header)
            if crc != masked_crc32c(header[:8]):
                raise BadRecordError(
                    Fault.LENGTH_CHECKSUM,
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
                    Fault.TRUNCATED,
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


def check_framing(path: str) -> None:
    """Refuses a file whose record lengths do not add up to its size, before TensorFlow reads it.

    TensorFlow's reader allocates as much memory as a length says, and crashes on a forged length
    that is larger than the file but has a valid checksum. This function follows the lengths with
    one small read each (1 microsecond per record) and leaves their checksums to TensorFlow. Remote
    files (`://`) are not checked, since each read would be a request.

    Raises:
        BadRecordError: See `walk_frames`.
    """
    if is_remote(path):
        return
    offset = 0
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        while offset < size:
            length = int.from_bytes(os.pread(descriptor, 8, offset), "little")
            offset += HEADER_BYTES + length + FOOTER_BYTES
    if offset != size or size == 0:
        for _ in walk_frames(path):
            pass


def read_payload(path: str, frame: Frame) -> bytes:
    """Reads one record's payload and verifies its checksum.

    The checksum takes 0.1 s per megabyte in Python; TensorFlow's reader is 1000 times as fast.

    Raises:
        BadRecordError: The checksum is wrong.
    """
    with _open(path) as file:
        file.seek(frame.offset + HEADER_BYTES)
        payload = file.read(frame.length)
        (crc,) = struct.unpack("<I", file.read(FOOTER_BYTES))
    if crc != masked_crc32c(payload):
        raise _wrong_payload(path, frame)
    return payload


def _wrong_payload(path: str, frame: Frame) -> BadRecordError:
    return BadRecordError(
        Fault.PAYLOAD_CHECKSUM,
        path,
        frame.record,
        frame.offset,
        "the payload has a wrong checksum: at least one bit differs from what was written",
        DOWNLOAD_REMEDY,
    )


def read_records(path: str) -> Iterator[tuple[Frame, bytes | BadRecordError]]:
    """Yields each record's payload, or the error in its place; continues after a bad payload.

    Damage to the framing ends the file: the last item is its error, with a frame that reaches to
    the file's end. TensorFlow reads a payload only after its frame has been checked, one at a
    time, so that no more memory is needed than for the largest record.
    """
    walk = walk_frames(path)
    payloads: Iterator[bytes] | None = None
    while True:
        try:
            frame = next(walk, None)
        except BadRecordError as error:
            offset = error.offset or 0
            lost = file_size(path) - offset
            yield Frame(error.record or 0, offset, lost - HEADER_BYTES - FOOTER_BYTES), error
            return
        if frame is None:
            return
        if payloads is None:
            payloads = _payloads_from(path, frame.offset)
        try:
            payload = next(payloads)
        except tf.errors.DataLossError:
            payloads = None  # TensorFlow's reader cannot continue; a new one starts after it.
            yield frame, _wrong_payload(path, frame)
        else:
            yield frame, payload


def _payloads_from(path: str, offset: int) -> Iterator[bytes]:
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_BUFFER_BYTES, byte_offsets=[offset]
    )
    dataset = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    options = tf.data.Options()
    # Nothing may read ahead of the walk.
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return dataset.with_options(options).as_numpy_iterator()
