"""Scaled dot-product attention at one level, without a T x T map where the level needs none."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from yt8m_gat.layers.attention_level import AttentionLevel

Tensor = Any

# Added to masked scores, in float32: its exp() is exactly 0 next to any real score, and a fully
# masked row stays finite (infinity would give NaN there).
_MASKED_SCORE = -1e9

# The shortest chunk: for smaller matrix products the calls cost more than the arithmetic.
_MIN_CHUNK = 48


@dataclasses.dataclass(frozen=True)
class _Blocking:
    """How the frames are cut into blocks of queries, and which keys each block attends to.

    The frames are split into `stride` interleaved copies, and each copy is cut into `num_chunks`
    chunks of `chunk` frames; all of these chunks are the blocks P. The keys of a block are its own
    frames and `halo` frames on each side. A frame attends to those of them that are at most `band`
    frames of the copy away (`None`: no limit).
    Sizes are integers, or scalar tensors where the number of frames is known only at run time.
    """

    num_frames: int | Tensor
    stride: int
    num_chunks: int | Tensor
    chunk: int | Tensor
    halo: int | Tensor = 0
    band: int | None = None

    @classmethod
    def of(cls, level: AttentionLevel, num_frames: int | Tensor) -> "_Blocking":
        if level.kind == "global":
            return cls(num_frames, stride=1, num_chunks=1, chunk=num_frames)
        if level.kind == "bd":
            chunk = _minimum(level.window, num_frames)
            return cls(num_frames, stride=1, num_chunks=-(-num_frames // chunk), chunk=chunk)
        chunked = cls.chunked(level, num_frames)
        if isinstance(num_frames, int) and chunked.num_chunks == 1:
            return dataclasses.replace(chunked, halo=0)
        return chunked

    @classmethod
    def chunked(cls, level: AttentionLevel, num_frames: int | Tensor) -> "_Blocking":
        """Returns the blocks of a `tp` or `td` level, with a halo even if there is one chunk."""
        band = level.window // level.dilation
        copy_length = -(-num_frames // level.dilation)
        # At least two bands, so that a frame is in the halo of at most one other chunk.
        shortest = max(2 * band, _MIN_CHUNK)
        num_chunks = _maximum(1, copy_length // shortest)
        chunk = -(-copy_length // num_chunks)
        return cls(num_frames, level.dilation, num_chunks, chunk, _minimum(band, chunk), band)

    @property
    def num_blocks(self) -> int | Tensor:
        return self.stride * self.num_chunks

    @property
    def num_keys(self) -> int | Tensor:
        return self.chunk + 2 * self.halo

    @property
    def _num_missing(self) -> int | Tensor:
        return self.num_blocks * self.chunk - self.num_frames

    def cut(self, x: Tensor) -> Tensor:
        """Cuts [B, N, T, H] into blocks [B, N, P, chunk, H], zero where there is no frame."""
        batch, heads, _, size = ops.shape(x)
        if not _is_zero(self._num_missing):
            x = ops.pad(x, ((0, 0), (0, 0), (0, self._num_missing), (0, 0)))
        if self.stride > 1:
            x = ops.reshape(x, (batch, heads, self.num_chunks * self.chunk, self.stride, size))
            x = ops.swapaxes(x, 2, 3)
        return ops.reshape(x, (batch, heads, self.num_blocks, self.chunk, size))

    def restore(self, x: Tensor) -> Tensor:
        """Inverts `cut`: [B, N, P, chunk, X] -> [B, N, T, X]."""
        batch, heads, _, _, size = ops.shape(x)
        if self.stride > 1:
            x = ops.reshape(x, (batch, heads, self.stride, self.num_chunks * self.chunk, size))
            x = ops.swapaxes(x, 2, 3)
        x = ops.reshape(x, (batch, heads, self.num_frames + self._num_missing, size))
        if _is_zero(self._num_missing):
            return x
        # Not x[:, :, :T]: its gradient is many times slower than that of slice.
        return ops.slice(x, (0, 0, 0, 0), (batch, heads, self.num_frames, size))

    def key_frames(self) -> Tensor:
        """Returns the frame of each key, int32 [P, num_keys]; outside 0 .. T - 1: no frame."""
        block = ops.arange(self.num_blocks)[:, None]
        copy, place = block // self.num_chunks, block % self.num_chunks
        in_copy = place * self.chunk - self.halo + ops.arange(self.num_keys)[None, :]
        return copy + self.stride * in_copy

    def cut_keys(self, x: Tensor) -> Tensor:
        """Gathers the frames of each block's keys: [B, N, T, H] -> [B, N, P, num_keys, H].

        A key without a frame holds an arbitrary one, which `allowed` masks.
        """
        if _is_zero(self.halo):
            return self.cut(x)
        frames = ops.clip(self.key_frames(), 0, self.num_frames - 1)
        homes = self._places_of_frames()

        @ops.custom_gradient
        def gather(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            def gradient(upstream: Tensor) -> Tensor:
                # Gathers the gradient too: TensorFlow's own would add it row by row.
                batch, heads, _, _, size = ops.shape(upstream)
                rows = ops.reshape(upstream, (batch, heads, -1, size))
                return sum(ops.take(rows, places, axis=2) for places in homes)

            return ops.take(x, frames, axis=2), gradient

        return gather(x)

    def _places_of_frames(self) -> tuple[Tensor, Tensor]:
        """Returns where each frame is among all keys: in its own chunk and in a halo, int32 [T].

        A frame in no halo gets place 0, which holds no frame and so has no gradient.
        """
        frame = ops.arange(self.num_frames)
        copy, in_copy = frame % self.stride, frame // self.stride
        place, in_chunk = in_copy // self.chunk, in_copy % self.chunk

        def position(place: Tensor, in_keys: Tensor) -> Tensor:
            return (copy * self.num_chunks + place) * self.num_keys + in_keys

        own = position(place, in_chunk + self.halo)
        before = position(place - 1, in_chunk + self.halo + self.chunk)
        after = position(place + 1, in_chunk + self.halo - self.chunk)
        in_before = ops.logical_and(place > 0, in_chunk < self.halo)
        in_after = ops.logical_and(place < self.num_chunks - 1, in_chunk >= self.chunk - self.halo)
        return own, ops.where(in_before, before, ops.where(in_after, after, 0))

    def allowed(self, frame_mask: Tensor | None) -> Tensor | None:
        """Returns which scores [B, N, P, chunk, num_keys] count, to broadcast; `None`: all."""
        if frame_mask is None:
            if self.band is None and _is_zero(self._num_missing):
                return None
            frame_mask = ops.ones((1, self.num_frames))
        # [B, T] -> [B, 1, P, num_keys, 1] -> [B, 1, P, 1, num_keys]
        real = self.cut_keys(ops.cast(frame_mask, "float32")[:, None, :, None])
        real = ops.swapaxes(real, -1, -2) > 0
        if self.band is None:
            return real
        frames = self.key_frames()[:, None, :]
        in_clip = ops.logical_and(frames >= 0, frames < self.num_frames)
        distance = ops.arange(self.chunk)[:, None] + self.halo - ops.arange(self.num_keys)[None, :]
        in_reach = ops.logical_and(in_clip, ops.abs(distance) <= self.band)
        return ops.logical_and(real, in_reach)


def _minimum(a: int, b: int | Tensor) -> int | Tensor:
    return min(a, b) if isinstance(b, int) else ops.minimum(a, b)


def _maximum(a: int, b: int | Tensor) -> int | Tensor:
    return max(a, b) if isinstance(b, int) else ops.maximum(a, b)


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

    Costs `O(T x window)` at a local level: `bd` cuts the frames into segments, `tp` compares
    chunks of queries with their own and the neighbouring frames, and `td` is one `tp` on each of
    `L` interleaved copies of the frames. The result equals `attend_dense` up to rounding. The
    softmax is always computed in float32.

    Masking: a padded frame is never attended to, and a padded query, which has nothing to attend
    to, outputs exactly 0. (A real query always has itself.)

    Args:
        query: float [B, N, T, H], or `None` together with `key` for a map that is uniform over
            the real frames of the level: the ablation that shows what attention itself adds.
        key: float [B, N, T, H].
        value: float [B, N, T, H].
        level: the frames that each frame attends to.
        frame_mask: bool [B, T], True = real frame; `None`: all are real. `T` may be unknown.
        return_map: whether to return the attention map too.
        dropout: applied to the map before the product with the values, not to the returned map.

    Returns:
        The output [B, N, T, H], and the map or `None`: float32 [B, N, T, K] (N = 1 when it is
        uniform), whose rows sum to 1, or to 0 for padded queries. `K = T` at the global level;
        at a local one a row holds only the keys near the query, and `expand_attention_map`
        gives the [T, T] form.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import AttentionLevel, attend
        >>> value = np.array([1.0, 3.0, 5.0, 7.0], "float32").reshape(1, 1, 4, 1)
        >>> output, _ = attend(None, None, value, AttentionLevel.parse("bd2"))
        >>> output.numpy().ravel()  # Without queries: the mean of each block.
        array([2., 2., 6., 6.], dtype=float32)
    """
    batch, _, num_frames, _ = ops.shape(value)
    if frame_mask is not None:
        # From the mask that all features share, so that TensorFlow computes `allowed` once.
        num_frames = ops.shape(frame_mask)[1]
    blocking = _Blocking.of(level, num_frames)
    if query is None:
        scores = ops.zeros((batch, 1, blocking.num_blocks, blocking.chunk, blocking.num_keys))
    else:
        query = blocking.cut(query * query.shape[-1] ** -0.5)
        # [B, N, P, chunk, num_keys]
        scores = ops.matmul(query, ops.swapaxes(blocking.cut_keys(key), -1, -2))
        scores = ops.cast(scores, "float32")
    allowed = blocking.allowed(frame_mask)
    if allowed is not None:
        scores = scores + ops.where(allowed, 0.0, _MASKED_SCORE)
    attention_map = _softmax(scores)

    weights = ops.cast(attention_map, value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    output = blocking.restore(ops.matmul(weights, blocking.cut_keys(value)))
    rows = blocking.restore(attention_map) if return_map else None
    if frame_mask is not None:
        real_query = ops.cast(frame_mask, "float32")[:, None, :, None]
        output = output * ops.cast(real_query, output.dtype)
        rows = rows * real_query if return_map else None
    return output, rows


def _softmax(scores: Tensor) -> Tensor:
    # Keras warns about a softmax over one element, but a clip of one frame is legitimate.
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


def dense_attention_map(
    query: Tensor, key: Tensor, level: AttentionLevel, frame_mask: Tensor | None = None
) -> Tensor:
    """Computes the [T, T] map of any level, with the mask of the paper.

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

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import AttentionLevel, dense_attention_map
        >>> query = np.ones((1, 1, 3, 2), "float32")
        >>> dense_attention_map(query, query, AttentionLevel.parse("tp1"))[0, 0].numpy().round(2)
        array([[0.5 , 0.5 , 0.  ],
               [0.33, 0.33, 0.33],
               [0.  , 0.5 , 0.5 ]], dtype=float32)
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

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import AttentionLevel, attend, attend_dense
        >>> rng = np.random.default_rng(0)
        >>> query, key, value = rng.normal(size=(3, 1, 1, 6, 2)).astype("float32")
        >>> level = AttentionLevel.parse("bd3")
        >>> dense, _ = attend_dense(query, key, value, level)
        >>> output, _ = attend(query, key, value, level)
        >>> np.allclose(dense, output, atol=1e-6)
        True
    """
    attention_map = dense_attention_map(query, key, level, frame_mask)
    return ops.matmul(ops.cast(attention_map, value.dtype), value), attention_map


def expand_attention_map(attention_map: Tensor, level: AttentionLevel) -> np.ndarray:
    """Expands a map of `attend` to its [T, T] form, for drawing and for profiles over frames.

    Args:
        attention_map: [B, N, T, K], as returned by `attend` at this level.
        level: the level.

    Returns:
        array [B, N, T, T], 0 outside the level.

    Raises:
        ValueError: if `K` does not fit the level and `T`.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import AttentionLevel, attend, expand_attention_map
        >>> value = np.ones((1, 1, 4, 1), "float32")
        >>> level = AttentionLevel.parse("bd2")
        >>> _, rows = attend(None, None, value, level, return_map=True)
        >>> rows.shape
        TensorShape([1, 1, 4, 2])
        >>> expand_attention_map(rows, level)[0, 0]
        array([[0.5, 0.5, 0. , 0. ],
               [0.5, 0.5, 0. , 0. ],
               [0. , 0. , 0.5, 0.5],
               [0. , 0. , 0.5, 0.5]], dtype=float32)
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
    # The frame of each column of each row, counted from 1; 0: none.
    # [1, 1, P, num_keys, 1] -> [1, 1, P, 1, num_keys] -> [1, 1, P, chunk, num_keys] -> [1, 1, T, K]
    frames = blocking.cut_keys(ops.arange(1, num_frames + 1)[None, None, :, None])
    frames = ops.repeat(ops.swapaxes(frames, -1, -2), blocking.chunk, axis=-2)
    allowed = blocking.allowed(None)
    if allowed is not None:
        frames = ops.where(allowed, frames, 0)
    frames = ops.convert_to_numpy(blocking.restore(frames))
    expanded = np.zeros((*rows.shape[:3], num_frames + 1), rows.dtype)
    np.put_along_axis(expanded, np.broadcast_to(frames, rows.shape), rows, axis=-1)
    return expanded[..., 1:]


__all__ = ["attend", "attend_dense", "dense_attention_map", "expand_attention_map"]
