"""Scaled dot-product attention at one level, without a T x T map where the level needs none."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from yt8m_gat.layers.attention_level import AttentionLevel

Tensor = Any

# Added to masked scores, in float32: exp() of it is exactly 0 beside any real score, and a row
# that is masked altogether stays finite (infinity would give NaN there).
_MASKED_SCORE = -1e9

# Chunks are multiples of this. Smaller ones cost more in calls than in work, and products of
# aligned blocks are faster: tp30 in chunks of 32 takes 0.7 of its time in chunks of 30, td60x4
# 0.6 of its time in chunks of 16 (forward and backward, T = 1200, two cores).
_CHUNK_UNIT = 32


@dataclasses.dataclass(frozen=True)
class _Blocking:
    """How the frames are cut into blocks that attend to few other blocks.

    Frames are dealt into `stride` interleaved copies and each copy is cut into chunks of `chunk`
    frames; all of them together are the blocks P. A block attends to the blocks at `offsets`
    from it in its copy, and there no further than `band` frames of the copy (`None`: no limit).
    Sizes are integers, or scalar tensors where the number of frames is known at run time alone.
    """

    num_frames: int | Tensor
    stride: int
    chunk: int | Tensor
    offsets: tuple[int, ...] = (0,)
    band: int | None = None

    @classmethod
    def of(cls, level: AttentionLevel, num_frames: int | Tensor) -> "_Blocking":
        if level.kind == "global":
            return cls(num_frames, stride=1, chunk=num_frames)
        if level.kind == "bd":
            return cls(num_frames, stride=1, chunk=_minimum(level.window, num_frames))
        chunked = cls.chunked(level, num_frames)
        copy_length = -(-num_frames // level.dilation)
        if isinstance(copy_length, int) and copy_length < chunked.num_keys:
            return dataclasses.replace(chunked, chunk=copy_length, offsets=(0,))
        return chunked

    @classmethod
    def chunked(cls, level: AttentionLevel, num_frames: int | Tensor) -> "_Blocking":
        """The blocks of a `tp` or `td` level, no matter how few the frames."""
        band = level.window // level.dilation
        whole_units = -(-band // _CHUNK_UNIT) * _CHUNK_UNIT
        chunk = _minimum(whole_units, -(-num_frames // level.dilation))
        return cls(num_frames, level.dilation, chunk, offsets=(-1, 0, 1), band=band)

    @property
    def num_chunks(self) -> int | Tensor:
        return -(-self.num_frames // (self.stride * self.chunk))

    @property
    def num_keys(self) -> int | Tensor:
        return len(self.offsets) * self.chunk

    @property
    def _num_missing(self) -> int | Tensor:
        return self.stride * self.num_chunks * self.chunk - self.num_frames

    def cut(self, x: Tensor) -> Tensor:
        """[B, N, T, H] -> [B, N, P, chunk, H], zero where there is no frame."""
        batch, heads, _, size = ops.shape(x)
        if not _is_zero(self._num_missing):
            x = ops.pad(x, ((0, 0), (0, 0), (0, self._num_missing), (0, 0)))
        if self.stride > 1:
            x = ops.reshape(x, (batch, heads, self.num_chunks * self.chunk, self.stride, size))
            x = ops.swapaxes(x, 2, 3)
        return ops.reshape(x, (batch, heads, self.stride * self.num_chunks, self.chunk, size))

    def restore(self, x: Tensor) -> Tensor:
        """[B, N, P, chunk, X] -> [B, N, T, X]: the inverse of `cut`."""
        batch, heads, _, _, size = ops.shape(x)
        if self.stride > 1:
            x = ops.reshape(x, (batch, heads, self.stride, self.num_chunks * self.chunk, size))
            x = ops.swapaxes(x, 2, 3)
        x = ops.reshape(x, (batch, heads, self.num_frames + self._num_missing, size))
        if _is_zero(self._num_missing):
            return x
        # Not x[:, :, :T]: the gradient of that is many times slower than the one of slice.
        return ops.slice(x, (0, 0, 0, 0), (batch, heads, self.num_frames, size))

    def neighbours(self, blocks: Tensor) -> list[Tensor]:
        """[B, N, P, chunk, H] -> for each offset the blocks at that offset.

        Those past the end of a copy are blocks of somewhere else: `allowed` rules them out.
        """
        return [ops.roll(blocks, -offset, axis=2) if offset else blocks for offset in self.offsets]

    def allowed(self, frame_mask: Tensor | None) -> Tensor | None:
        """Bool, to broadcast with the scores [B, N, P, chunk, num_keys]; `None`: everywhere."""
        if frame_mask is None:
            if self.band is None and _is_zero(self._num_missing):
                return None
            frame_mask = ops.ones((1, self.num_frames))
        # [B, T] -> [B, 1, P, chunk, 1] -> [B, 1, P, 1, chunk]
        real = self.cut(ops.cast(frame_mask, "float32")[:, None, :, None])
        real = ops.swapaxes(real, -1, -2) > 0
        if self.band is None:
            return real
        place = ops.arange(self.stride * self.num_chunks)[:, None, None] % self.num_chunks
        frame = ops.arange(self.chunk)
        parts = []
        for offset, real_keys in zip(self.offsets, self.neighbours(real), strict=True):
            in_copy = ops.logical_and(place + offset >= 0, place + offset < self.num_chunks)
            distance = frame[:, None] - (frame[None, :] + offset * self.chunk)
            in_reach = ops.logical_and(in_copy, ops.abs(distance) <= self.band)
            parts.append(ops.logical_and(real_keys, in_reach))
        return ops.concatenate(parts, axis=-1)


def _minimum(a: int, b: int | Tensor) -> int | Tensor:
    return min(a, b) if isinstance(b, int) else ops.minimum(a, b)


def _is_zero(count: int | Tensor) -> bool:
    return isinstance(count, int) and count == 0


def attend(
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    level: AttentionLevel,
    frame_mask: Tensor | None = None,
    *,
    return_map: bool = False,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Computes `softmax(Q K^T / sqrt(H), over the level's frames) V`.

    Costs `O(T x window)` at a local level: `bd` by cutting the frames into segments, `tp` by
    chunks of queries against three chunks of keys, `td` as one `tp` on each of `L` interleaved
    copies of the frames. Equal to `attend_dense` up to rounding. The softmax is taken in float32
    whatever the type of the arguments.

    Masking: a padded frame is never attended to, and a padded query, having nothing to attend
    to, outputs exactly 0. (A real query always has itself.)

    Args:
        query: float [B, N, T, H], or `None` together with `key` for a map that is uniform over
            the real frames of the level: the ablation that shows what attention itself adds.
        key: float [B, N, T, H].
        value: float [B, N, T, H].
        level: the frames that each frame attends to.
        frame_mask: bool [B, T], True = real frame; `None`: all are real. `T` may be unknown.
        return_map: whether to return the attention map too.
        dropout: applied to the map before it meets the values. The map returned is without it.

    Returns:
        The output [B, N, T, H], and the map or `None`: float32 [B, N, T, K] (N = 1 when it is
        uniform), whose rows sum to 1, or to 0 for padded queries. `K = T` at the global level;
        at a local one a row holds the keys near the query alone and `expand_attention_map`
        gives the [T, T] form.
    """
    batch, _, num_frames, _ = ops.shape(value)
    blocking = _Blocking.of(level, num_frames)
    if query is None:
        num_blocks = blocking.stride * blocking.num_chunks
        scores = ops.zeros((batch, 1, num_blocks, blocking.chunk, blocking.num_keys))
    else:
        query = blocking.cut(query * query.shape[-1] ** -0.5)
        # Each [B, N, P, chunk, chunk]
        scores = [
            ops.matmul(query, ops.swapaxes(keys, -1, -2))
            for keys in blocking.neighbours(blocking.cut(key))
        ]
        scores = ops.cast(_join(scores), "float32")
    allowed = blocking.allowed(frame_mask)
    if allowed is not None:
        scores = scores + ops.where(allowed, 0.0, _MASKED_SCORE)
    attention_map = _softmax(scores)

    weights = ops.cast(attention_map, value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    values = blocking.neighbours(blocking.cut(value))
    parts = ops.split(weights, len(values), axis=-1) if len(values) > 1 else [weights]
    output = sum(ops.matmul(part, near) for part, near in zip(parts, values, strict=True))
    output = blocking.restore(output)
    rows = blocking.restore(attention_map) if return_map else None
    if frame_mask is not None:
        real_query = ops.cast(frame_mask, "float32")[:, None, :, None]
        output = output * ops.cast(real_query, output.dtype)
        rows = rows * real_query if return_map else None
    return output, rows


def _join(parts: list[Tensor]) -> Tensor:
    return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def _softmax(scores: Tensor) -> Tensor:
    # Keras warns about a softmax over one element, which a clip of one frame makes legitimate.
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


def dense_attention_map(
    query: Tensor, key: Tensor, level: AttentionLevel, frame_mask: Tensor | None = None
) -> Tensor:
    """Computes the [T, T] map of a level with the mask of the paper, whatever the level.

    Args:
        query: float [B, N, T, H] with a static `T`.
        key: float [B, N, T, H].
        level: the frames that each frame attends to.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.

    Returns:
        float32 [B, N, T, T], rows that sum to 1, or to 0 for padded queries.

    Reference:
        "Leveraging Local Temporal Information for Multimodal Scene Classification", eq. 5 and 6,
        with masked positions filled before the softmax (a product with -inf, as printed, would
        turn negative scores into +inf).
    """
    allowed = level.dense_mask(query.shape[2])[np.newaxis, np.newaxis]
    if frame_mask is not None:
        real = ops.cast(frame_mask, "bool")
        allowed = ops.logical_and(
            allowed, ops.logical_and(real[:, None, :, None], real[:, None, None, :])
        )
    scores = ops.matmul(query * query.shape[-1] ** -0.5, ops.swapaxes(key, -1, -2))
    scores = ops.where(allowed, ops.cast(scores, "float32"), _MASKED_SCORE)
    return ops.where(allowed, _softmax(scores), 0.0)


def attend_dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    level: AttentionLevel,
    frame_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes what `attend` computes through a masked [T, T] map: the reference of its tests.

    Args:
        query: float [B, N, T, H] with a static `T`.
        key: float [B, N, T, H].
        value: float [B, N, T, H].
        level: the frames that each frame attends to.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.

    Returns:
        The output [B, N, T, H] and the map, float32 [B, N, T, T].
    """
    attention_map = dense_attention_map(query, key, level, frame_mask)
    return ops.matmul(ops.cast(attention_map, value.dtype), value), attention_map


def expand_attention_map(attention_map: Tensor, level: AttentionLevel) -> np.ndarray:
    """Turns a map of `attend` into its [T, T] form, for drawing and for profiles over frames.

    Args:
        attention_map: [B, N, T, K], as returned by `attend` at this level.
        level: the level.

    Returns:
        array [B, N, T, T], 0 outside the level.

    Raises:
        ValueError: if `K` is not what the level gives for `T` frames.
    """
    rows = ops.convert_to_numpy(attention_map)
    num_frames, num_keys = rows.shape[2:]
    blocking = _Blocking.of(level, num_frames)
    if blocking.band is not None and num_keys != blocking.num_keys:
        # A graph that does not know the number of frames always cuts chunks.
        blocking = _Blocking.chunked(level, num_frames)
    if num_keys != blocking.num_keys:
        raise ValueError(
            f"A map at level '{level}' over T={num_frames} frames has {blocking.num_keys} "
            f"columns. Received: a map of shape {rows.shape}; pass it with the level that it "
            "came from"
        )
    # The frame that each column of each row stands for, counted from 1; 0: none.
    # [1, 1, P, chunk, 1] -> [1, 1, P, 1, num_keys] -> [1, 1, P, chunk, num_keys] -> [1, 1, T, K]
    frames = blocking.cut(ops.arange(1, num_frames + 1)[None, None, :, None])
    frames = _join([ops.swapaxes(near, -1, -2) for near in blocking.neighbours(frames)])
    frames = ops.repeat(frames, blocking.chunk, axis=-2)
    allowed = blocking.allowed(None)
    if allowed is not None:
        frames = ops.where(allowed, frames, 0)
    frames = ops.convert_to_numpy(blocking.restore(frames))
    expanded = np.zeros((*rows.shape[:3], num_frames + 1), rows.dtype)
    np.put_along_axis(expanded, np.broadcast_to(frames, rows.shape), rows, axis=-1)
    return expanded[..., 1:]


__all__ = ["attend", "attend_dense", "dense_attention_map", "expand_attention_map"]
