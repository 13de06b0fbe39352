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

import contextlib
import dataclasses
import errno
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_gat.data.errors import BadRecordError, Fault
from yt8m_gat.data.parsing import StoredClips, unquote_file
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
# Numbers and texts in the order of memory; no objects.
_HEADER = re.compile(
    rb"\{'descr': '([<|][uifU]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*"
)
_LOCAL_HEADER_BYTES = 30  # Of a member of a zip archive, before its name and extra field.
# What `zipfile` and NumPy raise for bytes that nobody wrote so. RuntimeError is that of entries
# that seem to be encrypted, or of a later version of the format.
_OF_DAMAGE = (
    zipfile.BadZipFile,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
)
_ALIGNMENT = 64  # TensorFlow takes over arrays at such addresses, and copies others.


def is_frame_arrays(path: str) -> bool:
    """Returns whether a file holds frame arrays, by its name."""
    return path.endswith(ENDING)


class _Part(NamedTuple):
    """Rows of an array in the file.

    Attributes:
        offset: Where the array's values begin, in bytes.
        row_bytes: Bytes of a row.
    """

    offset: int
    row_bytes: int


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
        except (*_OF_DAMAGE, OSError) as error:
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
        self.about = About.from_json(str(_whole(archive, "about")))
        index = {name: _whole(archive, name) for name in INDEX}
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
        self._contexts, _ = _locate(
            archive, file, "contexts", "uint8", int(self._context_starts[-1])
        )
        self._frames, self.sizes = [], {}
        for name, kind in self._stored_types():
            member = f"frames/{name}"
            part, size = _locate(archive, file, member, kind, int(self._frame_starts[-1]))
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


def _whole(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads an array; the archive verifies its checksum at its end."""
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


def _locate(
    archive: zipfile.ZipFile, file: BinaryIO, name: str, dtype: str, num_rows: int
) -> tuple[_Part, int]:
    """Finds the values of an array [num_rows] or [num_rows, D]; also returns D, else 1."""
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
    return _Part(file.tell(), row_bytes), size


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


class StoredRecords:
    """Reads batches of records by file and number, for a dataset.

    The files are opened when they are needed. Of an open one about 40 bytes a record are kept.

    Args:
        schema: What to read.
        fixed_num_frames: Whether to pad to `schema.max_frames` rather than to the longest clip.
    """

    def __init__(self, schema: RecordSchema, fixed_num_frames: bool) -> None:
        self._schema = schema
        self._fixed_num_frames = fixed_num_frames
        self._opened: dict[str, FrameArrays] = {}
        self._dtypes = {
            name: np.dtype("uint8" if kind == "uint8" else "float32")
            for name, kind in schema.types.items()
        }

    def opened(self, path: str) -> FrameArrays:
        """Returns the index of a file.

        Raises:
            BadRecordError: See `FrameArrays`; also if it does not hold what the schema reads.
        """
        if path not in self._opened:
            arrays = FrameArrays(path)
            if mismatch := arrays.mismatch(self._schema):
                fault, reason, remedy = mismatch
                raise BadRecordError(fault, path, None, None, reason, remedy)
            self._opened[path] = arrays
        return self._opened[path]

    def record_sizes(self, path: tf.Tensor) -> tf.Tensor:
        """Returns the sizes of a file's records, int64 [N]."""
        sizes = tf.numpy_function(
            lambda path: self.opened(os.fsdecode(path)).record_sizes, [path], tf.int64
        )
        return tf.ensure_shape(sizes, [None])

    def sizes_of(self, path: str, numbers: np.ndarray) -> np.ndarray:
        """Returns the sizes of some records of a file, int64 [n]."""
        return self.opened(path).record_sizes[numbers]

    def clips(self, quoted: tf.Tensor, numbers: tf.Tensor) -> StoredClips:
        """Reads a batch.

        Args:
            quoted: string [B], the files, see `quote_file`.
            numbers: int64 [B], the numbers of the records in them.
        """
        types = [tf.string, tf.int32, tf.bool, *map(tf.as_dtype, self._dtypes.values())]
        contexts, num_frames, intact, *features = tf.numpy_function(
            self._read, [quoted, numbers], types, stateful=False
        )
        return StoredClips(
            tf.ensure_shape(contexts, [None]),
            tf.ensure_shape(num_frames, [None]),
            tf.ensure_shape(intact, [None]),
            {
                name: tf.ensure_shape(array, [None, None, size])
                for (name, size), array in zip(self._schema.feature_sizes, features, strict=True)
            },
        )

    def _read(self, quoted: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
        files = {name: self.opened(unquote_file(os.fsdecode(name))) for name in set(quoted)}
        places = list(zip(quoted, numbers.tolist(), strict=True))
        num_frames = np.array([files[name].num_frames[n] for name, n in places], np.int32)
        kept = np.minimum(num_frames, self._schema.max_frames)
        longest = self._schema.max_frames if self._fixed_num_frames else kept.max(initial=1)
        features = [
            _aligned((len(places), int(longest), size), self._dtypes[name])
            for name, size in self._schema.feature_sizes
        ]
        contexts, intact = np.full(len(places), b"", object), np.ones(len(places), bool)
        with contextlib.ExitStack() as stack:
            opened = {
                name: stack.enter_context(open(arrays.path, "rb", buffering=0))
                for name, arrays in files.items()
            }
            for row, (name, number) in enumerate(places):
                arrays, file = files[name], opened[name]
                context = arrays.read_context(file, number)
                intact[row] = context is not None
                contexts[row] = context or b""
                for feature, batch in zip(self._schema.feature_names, features, strict=True):
                    frames = batch[row, : kept[row]]
                    intact[row] &= arrays.read_frames(file, number, feature, frames)
                    batch[row, kept[row] :] = 0
        return [contexts, num_frames, intact, *features]


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Returns an array of any values that TensorFlow takes over without a copy."""
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)
