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

# Least number of queries in a chunk: products of a few rows cost more in calls than in work.
_MIN_CHUNK = 16


@dataclasses.dataclass(frozen=True)
class _Blocking:
    """How the frames of one level are cut into blocks that attend to nothing outside themselves.

    Frames are dealt into `stride` interleaved copies; each copy is cut into chunks of `chunk`
    queries; the keys of a chunk are its own frames and `margin` frames to each side. `band` is
    the reach within a copy, `None` where a whole block attends to itself. The fields are
    integers, or scalar tensors when the number of frames is only known at run time.
    """

    num_frames: int | Tensor
    stride: int
    chunk: int | Tensor
    margin: int | Tensor
    band: int | None

    @classmethod
    def of(cls, level: AttentionLevel, num_frames: int | Tensor) -> "_Blocking":
        if level.kind == "global":
            return cls(num_frames, stride=1, chunk=num_frames, margin=0, band=None)
        if level.kind == "bd":
            chunk = _minimum(level.window, num_frames)
            return cls(num_frames, stride=1, chunk=chunk, margin=0, band=None)
        band = level.window // level.dilation
        copy_length = -(-num_frames // level.dilation)
        chunk = max(band, _MIN_CHUNK)
        # Where a copy is no longer than the keys of a chunk, one block holds it whole.
        whole = copy_length <= chunk + 2 * band
        return cls(
            num_frames,
            stride=level.dilation,
            chunk=_choose(whole, copy_length, chunk),
            margin=_choose(whole, 0, band),
            band=band,
        )

    @property
    def num_chunks(self) -> int | Tensor:
        return -(-self.num_frames // (self.stride * self.chunk))

    def _deal(self, x: Tensor) -> Tensor:
        """[B, N, T, H] -> [B, N, stride, num_chunks * chunk, H], zero where there is no frame."""
        batch, heads, _, size = ops.shape(x)
        length = self.num_chunks * self.chunk
        missing = self.stride * length - self.num_frames
        x = ops.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0)))
        if self.stride == 1:
            return ops.expand_dims(x, 2)
        x = ops.reshape(x, (batch, heads, length, self.stride, size))
        return ops.transpose(x, (0, 1, 3, 2, 4))

    def queries(self, x: Tensor) -> Tensor:
        """[B, N, T, H] -> [B, N, stride * num_chunks, chunk, H]."""
        return self._cut(self._deal(x))

    def keys(self, x: Tensor) -> Tensor:
        """[B, N, T, H] -> [B, N, stride * num_chunks, margin + chunk + margin, H]."""
        x = self._deal(x)
        if isinstance(self.margin, int) and self.margin == 0:
            return self._cut(x)
        length, margin = self.num_chunks * self.chunk, self.margin
        x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (margin, margin), (0, 0)))
        left = self._cut(x[..., :length, :])[..., :margin, :]
        centre = self._cut(x[..., margin : margin + length, :])
        right = self._cut(x[..., 2 * margin :, :])[..., self.chunk - margin :, :]
        return ops.concatenate((left, centre, right), axis=-2)

    def _cut(self, x: Tensor) -> Tensor:
        batch, heads, stride, _, size = ops.shape(x)
        return ops.reshape(x, (batch, heads, stride * self.num_chunks, self.chunk, size))

    def restore(self, x: Tensor) -> Tensor:
        """[B, N, stride * num_chunks, chunk, X] -> [B, N, T, X]: the inverse of `queries`."""
        batch, heads, _, _, size = ops.shape(x)
        length = self.num_chunks * self.chunk
        if self.stride > 1:
            x = ops.reshape(x, (batch, heads, self.stride, length, size))
            x = ops.transpose(x, (0, 1, 3, 2, 4))
        x = ops.reshape(x, (batch, heads, length * self.stride, size))
        return x[:, :, : self.num_frames, :]

    def allowed(self, frame_mask: Tensor | None) -> Tensor | None:
        """Bool, to broadcast with the scores [B, N, stride * num_chunks, chunk, keys]."""
        if frame_mask is None:
            frame_mask = ops.ones((1, self.num_frames))
        # [B, T] -> [B, 1, T, 1] -> [B, 1, stride * num_chunks, keys, 1] -> [..., 1, keys]
        real = self.keys(ops.cast(frame_mask, "float32")[:, None, :, None])
        allowed = ops.swapaxes(real, -1, -2) > 0
        if self.band is None:
            return allowed
        query = ops.expand_dims(ops.arange(self.chunk), 1)
        key = ops.expand_dims(ops.arange(self.chunk + 2 * self.margin), 0) - self.margin
        return ops.logical_and(allowed, ops.abs(query - key) <= self.band)


def _minimum(a: int, b: int | Tensor) -> int | Tensor:
    return min(a, b) if isinstance(b, int) else ops.minimum(a, b)


def _choose(condition: bool | Tensor, yes: int | Tensor, no: int) -> int | Tensor:
    if isinstance(condition, bool):
        return yes if condition else no
    return ops.where(condition, yes, no)


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
    chunks of queries against the keys within reach, `td` as one `tp` on each of `L` interleaved
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
        at a local one a row holds the keys of the query's block alone and
        `expand_attention_map` gives the [T, T] form.
    """
    num_frames = ops.shape(value)[2]
    if frame_mask is not None:
        frame_mask = ops.cast(frame_mask, "bool")
    if level.kind == "global":
        queries = keys = restore = _unchanged
        allowed = None if frame_mask is None else frame_mask[:, None, None, :]
    else:
        blocking = _Blocking.of(level, num_frames)
        queries, keys, restore = blocking.queries, blocking.keys, blocking.restore
        allowed = blocking.allowed(frame_mask)

    # scores [B, N, ..., queries, keys], the axes between being the level's blocks
    if query is None:
        scores = ops.zeros_like(queries(value[:, :1, :, :1]), dtype="float32")
        scores = scores + ops.zeros_like(
            ops.swapaxes(keys(value[:, :1, :, :1]), -1, -2), dtype="float32"
        )
    else:
        scale = query.shape[-1] ** -0.5
        scores = ops.matmul(queries(query * scale), ops.swapaxes(keys(key), -1, -2))
        scores = ops.cast(scores, "float32")
    if allowed is not None:
        scores = scores + ops.where(allowed, 0.0, _MASKED_SCORE)
    attention_map = _softmax(scores)

    weights = ops.cast(attention_map, value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    output = restore(ops.matmul(weights, keys(value)))
    rows = restore(attention_map) if return_map else None
    if frame_mask is not None:
        real_query = frame_mask[:, None, :, None]
        output = output * ops.cast(real_query, output.dtype)
        rows = rows * ops.cast(real_query, "float32") if return_map else None
    return output, rows


def _softmax(scores: Tensor) -> Tensor:
    # Keras warns about a softmax over one element, which a clip of one frame makes legitimate.
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


def _unchanged(x: Tensor) -> Tensor:
    return x


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
    # The frame that each column of each row stands for, counted from 1; 0: no frame.
    frames = blocking.keys(ops.arange(1, num_frames + 1)[None, None, :, None])
    frames = ops.swapaxes(frames, -1, -2)
    frames = ops.repeat(frames, blocking.chunk, axis=-2)
    frames = ops.convert_to_numpy(blocking.restore(frames))
    if frames.shape[3] != num_keys:
        raise ValueError(
            f"A map at level '{level}' over T={num_frames} frames has {frames.shape[3]} columns. "
            f"Received: a map of shape {rows.shape}; pass it with the level that it came from"
        )
    expanded = np.zeros((*rows.shape[:3], num_frames + 1), rows.dtype)
    np.put_along_axis(expanded, np.broadcast_to(frames, rows.shape), rows, axis=-1)
    return expanded[..., 1:]


__all__ = ["attend", "attend_dense", "dense_attention_map", "expand_attention_map"]
