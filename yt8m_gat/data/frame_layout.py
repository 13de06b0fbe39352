"""Fast reading of frames: each feature is cut out of a record in one piece.

A frame-level record consists of these bytes (`len` is a length, seven bits per byte):

    0A len <context>  12 len <lists>
    <lists>:  for each feature, in any order:  0A len  0A len <name>  12 len <frames>
    <frames>: for each frame:                  0A len  0A len  0A len <bytes of the frame>

If all frames of a feature have one size, the same few bytes precede each of them, so the frames
lie at a fixed stride. TensorFlow's record parser makes a string of each frame, 600 per record.

Every byte outside the frames and the context is compared with what the protocol buffer library
would write there. A record of any other form, even an equivalent one, is left to TensorFlow's
parser.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.data.schema import MAX_FRAMES
from yt8m_gat.data.wire_format import bounds_of_context

_TAG = b"\x0a"  # Field 1 of a message, with a length; all tags but the two below.
_LISTS_TAG = b"\x12"  # SequenceExample.feature_lists
_FRAMES_TAG = b"\x12"  # The value of an entry of FeatureLists.feature_list

_MAX_BYTES = 1 << 30
"""The maximum of bytes of a record's frames; protocol buffers have less than 2 GiB."""


def _length(number: int) -> bytes:
    """Encodes a length as protocol buffers do: base 128, the lowest digit first."""
    digits = bytearray()
    while number >= 128:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def _field(content: bytes) -> bytes:
    return _TAG + _length(len(content)) + content


class Frames(NamedTuple):
    """The frames of a batch of records.

    Attributes:
        ok: bool []: whether all records have this form; if not, the other fields are meaningless.
        num_frames: int32 [B], frames of the whole clip.
        features: uint8 [B, T, D] each, in the order of the schema, 0 on padding.
    """

    ok: tf.Tensor
    num_frames: tf.Tensor
    features: tuple[tf.Tensor, ...]


class FrameLayout:
    """The byte layout of records that hold exactly the features listed.

    Args:
        feature_sizes: (name, bytes of a frame) of each feature.
        max_frames: Clips are cut after this many frames. Records with more frames than this and
            than an official record do not have this layout, which bounds the memory of a batch.
    """

    def __init__(self, feature_sizes: tuple[tuple[str, int], ...], max_frames: int) -> None:
        self._max_frames = max_frames
        self._frame_sizes = [size for _, size in feature_sizes]
        # The bytes before each frame.
        self._frame_headers = []
        for size in self._frame_sizes:
            frame = bytes(size)
            for _ in ("BytesList.value", "Feature.bytes_list", "FeatureList.feature"):
                frame = _field(frame)
            self._frame_headers.append(frame[: len(frame) - size])
        self._strides = [
            len(header) + size
            for header, size in zip(self._frame_headers, self._frame_sizes, strict=True)
        ]
        # Tables indexed by the number of frames; for 0 frames everything is empty.
        names = [_field(name.encode()) for name, _ in feature_sizes]
        lists_headers, lists_sizes = [b""], [0]
        headers, sizes = [[b""] * len(names)], [[0] * len(names)]
        for num_frames in range(1, max(max_frames, MAX_FRAMES) + 1):
            headers.append([])
            sizes.append([])
            for name, stride in zip(names, self._strides, strict=True):
                num_bytes = num_frames * stride
                content = name + _FRAMES_TAG + _length(num_bytes)
                header = _TAG + _length(len(content) + num_bytes) + content
                headers[-1].append(header)
                sizes[-1].append(len(header) + num_bytes)
            if sum(sizes[-1]) > _MAX_BYTES:
                break
            lists_headers.append(_LISTS_TAG + _length(sum(sizes[-1])))
            lists_sizes.append(len(lists_headers[-1]) + sum(sizes[-1]))
        self._lists_headers = np.array(lists_headers, object)  # [frames]
        self._lists_sizes = np.array(lists_sizes, np.int32)  # [frames], ascending
        self._headers = np.array(headers, object)  # [frames, F]
        self._header_sizes = np.vectorize(len)(self._headers).astype(np.int32)
        self._sizes = np.array(sizes, np.int32)  # [frames, F]

    def read(self, serialized: tf.Tensor, fixed_num_frames: bool) -> Frames:
        """Reads the frames of a batch, if all records have this layout.

        Args:
            serialized: string [B], records.
            fixed_num_frames: Whether to pad to `max_frames` rather than to the longest clip.
        """
        has_layout, num_frames, starts = self._find(serialized)
        ok = tf.reduce_all(has_layout)
        ok = tf.logical_and(ok, tf.size(serialized) > 0)
        num_frames = tf.where(ok, num_frames, 0)
        starts = tf.where(ok, starts, 0)
        longest = tf.maximum(tf.reduce_max(num_frames), self._max_frames if fixed_num_frames else 1)
        real = tf.reshape(tf.sequence_mask(num_frames, longest), [-1])  # [B T]
        features = []
        for i, (header, size, stride) in enumerate(
            zip(self._frame_headers, self._frame_sizes, self._strides, strict=True)
        ):
            cut = tf.strings.substr(serialized, starts[:, i], num_frames * stride)
            # TensorFlow copies slices of matrices by rows, those of more dimensions by elements.
            rows = tf.reshape(_decoded(cut, longest * stride), [-1, stride])  # [B T, stride]
            wrong = tf.logical_and(real, tf.logical_not(_begins_with(rows, header)))
            ok = tf.logical_and(ok, tf.logical_not(tf.reduce_any(wrong)))
            frames = tf.reshape(rows[:, len(header) :], [-1, longest, size])
            if self._max_frames < MAX_FRAMES:
                frames = frames[:, : self._max_frames]
            features.append(frames)
        return Frames(ok, num_frames, tuple(features))

    def _find(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Locates the frames of records, without checking the headers of single frames.

        Returns:
            Whether each record has this layout, bool [B]; its number of frames, int32 [B]; and the
            byte at which the frames of each feature begin, int32 [B, F].
        """
        num_bytes = tf.strings.length(serialized)
        _, position = bounds_of_context(serialized)
        ok = position > 0
        # The number of bytes determines the number of frames.
        rest = tf.where(ok, num_bytes - position, 0)
        num_frames = tf.searchsorted(self._lists_sizes[:-1], rest)
        has_size = tf.equal(tf.gather(self._lists_sizes, num_frames), rest)
        ok = tf.logical_and(num_frames > 0, has_size)
        # From here on no position is past the end: with 0 frames it does not advance.
        num_frames = tf.where(ok, num_frames, 0)
        position = tf.where(ok, position, 0)

        lists_header = tf.gather(self._lists_headers, num_frames)
        length = tf.strings.length(lists_header)
        header = tf.strings.substr(serialized, position, length)
        ok = tf.logical_and(ok, tf.equal(header, lists_header))
        position += length
        headers = tf.gather(self._headers, num_frames)  # [B, F]
        header_sizes = tf.gather(self._header_sizes, num_frames)
        sizes = tf.gather(self._sizes, num_frames)
        starts = tf.zeros_like(sizes)
        most = tf.fill(tf.shape(position), int(self._header_sizes.max()))
        for _ in self._strides:  # Each step finds one of the features, in any order.
            next_bytes = tf.strings.substr(serialized, position, most)[:, tf.newaxis]
            candidates = tf.strings.substr(next_bytes, tf.zeros_like(sizes), header_sizes)  # [B, F]
            new = tf.logical_and(tf.equal(candidates, headers), tf.equal(starts, 0))
            starts = tf.where(new, position[:, tf.newaxis] + header_sizes, starts)
            position += tf.reduce_sum(tf.where(new, sizes, 0), axis=1)
        return tf.logical_and(ok, tf.reduce_all(starts > 0, axis=1)), num_frames, starts


@functools.lru_cache(maxsize=16)
def frame_layout(feature_sizes: tuple[tuple[str, int], ...], max_frames: int) -> FrameLayout:
    """Returns a cached `FrameLayout`, whose tables take a millisecond to make."""
    return FrameLayout(feature_sizes, max_frames)


def _decoded(values: tf.Tensor, num_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes strings [B] to uint8 [B, num_bytes], 0 after their ends."""
    # Without padding there is no need to clear the result first, which `fixed_length` does.
    return tf.cond(
        tf.reduce_all(tf.equal(tf.strings.length(values), num_bytes)),
        lambda: tf.ensure_shape(tf.io.decode_raw(values, tf.uint8), [None, None]),
        lambda: tf.io.decode_raw(values, tf.uint8, fixed_length=num_bytes),
    )


def _begins_with(rows: tf.Tensor, header: bytes) -> tf.Tensor:
    """Returns whether rows, uint8 [N, any], begin with a header of 6 to 16 bytes; bool [N]."""
    dtype = tf.int64 if len(header) >= 8 else tf.int32
    same = []
    for start in (0, len(header) - dtype.size):  # Two words, which may overlap.
        word = header[start : start + dtype.size]
        row_words = tf.bitcast(rows[:, start : start + dtype.size], dtype)
        same.append(tf.equal(row_words, np.frombuffer(word, dtype.as_numpy_dtype)[0]))
    return tf.logical_and(*same)
