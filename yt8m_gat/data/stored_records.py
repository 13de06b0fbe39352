"""Batches from files of frame arrays, read by file and number of each record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from yt8m_gat.data.errors import BadRecordError
from yt8m_gat.data.frame_arrays import FrameArrays
from yt8m_gat.data.parsing import StoredClips, unquote_file
from yt8m_gat.data.schema import RecordSchema

_ALIGNMENT = 64  # TensorFlow takes over arrays at such addresses, and copies others.


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
