"""Files of frame arrays: the frames of a TFRecord file as arrays, which are read without parsing.

`yt8m-gat repack` writes them (`yt8m_gat.data.repack`). A file is an uncompressed archive NAME.npz,
which `numpy.load` opens too. It has N records and F features:

| array | type | shape | holds |
|---|---|---|---|
| `about` | text | [] | JSON: the format's version, the source file, the features and their types |
| `num_frames` | int32 | [N] | T of each record |
| `context_sizes` | int32 | [N] | bytes of each context |
| `record_sizes` | int64 | [N] | bytes of the serialized record; clips are sorted by it |
| `checksums` | uint32 | [N, 1 + F] | CRC-32 of the context, and of each feature's frames |
| `contexts` | uint8 | [bytes] | serialized `tf.SequenceExample`s without their frames |
| `frames/FEATURE` | uint8 or float32 | [sum of T, D] | frames of the records, one after another |

The checksums of a record are verified each time it is read, and those of the other arrays, which
the archive holds, when the file is opened.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_gat.data.array_archive import OF_DAMAGE, locate_array, read_array
from yt8m_gat.data.errors import BadRecordError, Fault
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.serialization import feature_lists
from yt8m_gat.data.tfrecord import Frame

ENDING = ".npz"
VERSION = 1
REPACK_REMEDY = "remove it, and run `yt8m-gat repack` again"

INDEX = {
    "num_frames": np.int32,
    "context_sizes": np.int32,
    "record_sizes": np.int64,
    "checksums": np.uint32,
}


def is_frame_arrays(path: str) -> bool:
    """Returns whether a file holds frame arrays, by its name."""
    return path.endswith(ENDING)


@dataclasses.dataclass(frozen=True)
class About:
    """The array `about`.

    Attributes:
        source: The TFRecord file: its `name`, `size` and `checksum`, see `FileIdentity`.
        feature_names: The features, in order.
        feature_types: How the records stored the frames of each, see `RecordSchema`.
        left_out: Records of the source that are missing because they were bad.
        version: Of the format.
    """

    source: dict[str, Any]
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    left_out: int = 0
    version: int = VERSION

    def to_json(self) -> str:
        """Returns the text that the file holds."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> About:
        """Reads the text.

        Raises:
            ValueError: It is not such a text, or of another version.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise ValueError(f"it is not of version {VERSION}")
        try:
            names, types = (tuple(map(str, values.pop(f"feature_{key}"))) for key in _LISTS)
            about = cls(feature_names=names, feature_types=types, **values)
        except (KeyError, TypeError) as error:
            raise ValueError("it has other entries") from error
        if not names or len(names) != len(types):
            raise ValueError("it names no features, or not the type of each")
        if not isinstance(about.source, dict) or not isinstance(about.source.get("name"), str):
            raise ValueError("it does not name the source")
        for count in (about.source.get("size"), about.left_out):
            if type(count) is not int or not 0 <= count < 1 << 63:
                raise ValueError("it does not say how many bytes or records")
        return about


_LISTS = ("names", "types")


class FrameArrays:
    """The index of one file; the records are read from it by number.

    Args:
        path: A local file.

    Attributes:
        about: What the file says of itself.
        num_frames: int32 [N].
        record_sizes: int64 [N].
        sizes: Feature -> D.

    Raises:
        BadRecordError: The file is no archive of these arrays, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
                self._read_index(archive, file)
        except (*OF_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise  # Of the disk. A damaged archive may name a place before the file's start.
            raise BadRecordError(
                Fault.EMPTY_FILE if os.path.getsize(path) == 0 else Fault.TRUNCATED,
                path,
                None,
                None,
                f"the file is truncated, damaged, or holds no frame arrays ({error})",
                REPACK_REMEDY,
            ) from error

    def _read_index(self, archive: zipfile.ZipFile, file: BinaryIO) -> None:
        self.about = About.from_json(str(read_array(archive, "about")))
        index = {name: read_array(archive, name) for name in INDEX}
        self.num_frames, self.record_sizes = index["num_frames"], index["record_sizes"]
        self._context_sizes, self._checksums = index["context_sizes"], index["checksums"]
        num_records = len(self.num_frames)
        for name, array in index.items():
            columns = (1 + len(self.about.feature_names),) if name == "checksums" else ()
            if array.dtype != INDEX[name] or array.shape != (num_records, *columns):
                raise ValueError(f"{name} has another type or shape")
        if num_records and min(self.num_frames.min(), self._context_sizes.min()) < 1:
            raise ValueError("a record has no frames or no context")
        self._context_starts = _starts(self._context_sizes)
        self._frame_starts = _starts(self.num_frames)
        self._contexts, _ = locate_array(
            archive, file, "contexts", "uint8", int(self._context_starts[-1])
        )
        self._frames, self.sizes = [], {}
        for name, kind in self._stored_types():
            member = f"frames/{name}"
            part, size = locate_array(archive, file, member, kind, int(self._frame_starts[-1]))
            self._frames.append(part)
            self.sizes[name] = size

    def _stored_types(self) -> list[tuple[str, str]]:
        names, types = self.about.feature_names, self.about.feature_types
        kinds = ("uint8" if kind == "uint8" else "float32" for kind in types)
        return list(zip(names, kinds, strict=True))

    def __len__(self) -> int:
        return len(self.num_frames)

    def offset(self, number: int) -> int:
        """Returns where the frames of a record's first feature begin, in bytes."""
        part = self._frames[0]
        return part.offset + int(self._frame_starts[number]) * part.row_bytes

    def mismatch(self, schema: RecordSchema) -> tuple[Fault, str, str] | None:
        """Returns the fault, reason and remedy if the file does not hold what a schema reads."""
        types = dict(zip(self.about.feature_names, self.about.feature_types, strict=True))
        held = ", ".join(f"{name} ({self.sizes[name]} of {types[name]})" for name in types)
        remedy = f"the file holds {held}: name these, or repack its source with other flags"
        for name, size in schema.feature_sizes:
            if name not in types:
                return Fault.MISSING_FEATURE, f"feature {name} is missing", remedy
            kind = schema.types[name]
            if types[name] != kind:
                return Fault.WRONG_TYPE, f"feature {name} is not {kind}", remedy
            if self.sizes[name] != size:
                reason = f"feature {name} has {self.sizes[name]} values a frame instead of {size}"
                return Fault.FEATURE_SIZE, reason, remedy
        return None

    def read_context(self, file: BinaryIO, number: int) -> bytes | None:
        """Returns a record without its frames; None if the checksum is wrong."""
        size = int(self._context_sizes[number])
        offset = self._contexts.offset + int(self._context_starts[number])
        context = os.pread(file.fileno(), size, offset)
        return context if zlib.crc32(context) == self._checksums[number, 0] else None

    def read_frames(self, file: BinaryIO, number: int, name: str, frames: np.ndarray) -> bool:
        """Reads the frames of a feature into an array [at most T, D]; whether they are intact."""
        column = self.about.feature_names.index(name)
        part, num_frames = self._frames[column], int(self.num_frames[number])
        if len(frames) < num_frames:  # The checksum is of all.
            whole = np.empty((num_frames, *frames.shape[1:]), frames.dtype)
            intact = self.read_frames(file, number, name, whole)
            frames[:] = whole[: len(frames)]
            return intact
        offset = part.offset + int(self._frame_starts[number]) * part.row_bytes
        if os.preadv(file.fileno(), [frames], offset) != frames.nbytes:
            return False  # The file was truncated after it was opened.
        return zlib.crc32(frames) == self._checksums[number, 1 + column]

    def payload(self, file: BinaryIO, number: int) -> bytes | None:
        """Returns a record as a serialized `tf.SequenceExample`; None if it is damaged.

        A context that somebody wrote so that it cannot be decoded is returned as it is.
        """
        context = self.read_context(file, number)
        if context is None:
            return None
        arrays = {}
        for name, kind in self._stored_types():
            arrays[name] = np.empty((self.num_frames[number], self.sizes[name]), kind)
            if not self.read_frames(file, number, name, arrays[name]):
                return None
        try:
            record = tf.train.SequenceExample.FromString(context)
        except DecodeError:
            return context
        types = zip(self.about.feature_names, self.about.feature_types, strict=True)
        lists = feature_lists(arrays, [name for name, kind in types if kind == "float_list"])
        record.feature_lists.CopyFrom(lists)
        return record.SerializeToString(deterministic=True)


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Returns where parts of these sizes begin, one after another, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


# The functions of `yt8m_gat.data.tfrecord`, for these files.


def check_framing(path: str) -> None:
    """Refuses a damaged file; see `FrameArrays`."""
    FrameArrays(path)


def walk_frames(path: str) -> Iterator[Frame]:
    """Yields the records of a file; the lengths are those of the TFRecord file.

    Raises:
        BadRecordError: See `FrameArrays`.
    """
    arrays = FrameArrays(path)
    for number, size in enumerate(arrays.record_sizes.tolist()):
        yield Frame(number, arrays.offset(number), size)


def read_payload(path: str, frame: Frame) -> bytes:
    """Reads one record as a serialized `tf.SequenceExample`.

    Raises:
        BadRecordError: A checksum is wrong.
    """
    with open(path, "rb", buffering=0) as file:
        payload = FrameArrays(path).payload(file, frame.record)
    if payload is None:
        raise _wrong_checksum(path, frame)
    return payload


def read_records(path: str) -> Iterator[tuple[Frame, bytes | BadRecordError]]:
    """Yields each record as a serialized `tf.SequenceExample`, or the error in its place."""
    try:
        arrays = FrameArrays(path)
    except BadRecordError as error:
        yield Frame(0, 0, os.path.getsize(path)), error
        return
    with open(path, "rb", buffering=0) as file:
        for frame in walk_frames(path):
            payload = arrays.payload(file, frame.record)
            yield frame, _wrong_checksum(path, frame) if payload is None else payload


def _wrong_checksum(path: str, frame: Frame) -> BadRecordError:
    return BadRecordError(
        Fault.PAYLOAD_CHECKSUM,
        path,
        frame.record,
        frame.offset,
        "the record has a wrong checksum: at least one bit differs from what was written",
        REPACK_REMEDY,
    )
