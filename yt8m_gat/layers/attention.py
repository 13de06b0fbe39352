"""Scaled dot-product attention at one level, without a T x T map where the level needs none."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.blocking import Blocking
from yt8m_gat.layers.recomputation import BlockFunction

Tensor = Any

# Added to masked scores, in float32: its exp() is exactly 0 next to any real score, and a fully
# masked row stays finite (infinity would give NaN there).
_MASKED_SCORE = -1e9

# Queries of a block where the map is not kept. In blocks of 128 the products take 1.1 times as long
# as in blocks of 256, which are as fast as blocks of 512.
_BLOCK = 256


def attend(
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    level: AttentionLevel,
    frame_mask: Tensor | None = None,
    *,
    return_map: bool = False,
    dropout: Callable[[Tensor], Tensor] | None = None,
    blockwise: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Computes `softmax(Q K^T / sqrt(H), over the level's frames) V`.

    Costs `O(T x window)` at a local level: `bd` cuts the frames into segments, `tp` compares
    chunks of queries with their own and the neighbouring frames, and `td` is one `tp` on each of
    `L` interleaved copies of the frames. The result equals `attend_dense` up to rounding. The
    softmax is always computed in float32.

    The global level costs `O(T^2)` time. It also keeps the map for the backward pass, `O(T^2)`
    memory, unless it is `blockwise`: then it takes one block of queries after another, and the
    backward pass, also that of a gradient, computes each block's map again. Memory is `O(T)`, for
    about a quarter more time in the products and the softmax, forward and backward.

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
        blockwise: see above; it changes nothing at a local level, nor with `return_map` or
            `dropout`, which need the map. It needs the TensorFlow backend.

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
    if blockwise and level.kind == "global" and not return_map and dropout is None:
        return _attend_blockwise(query, key, value, frame_mask), None
    batch, _, num_frames, _ = ops.shape(value)
    if frame_mask is not None:
        # From the mask that all features share, so that TensorFlow computes `allowed` once.
        num_frames = ops.shape(frame_mask)[1]
    blocking = Blocking.of(level, num_frames)
    if query is None:
        scores = ops.zeros((batch, 1, blocking.num_blocks, blocking.chunk, blocking.num_keys))
    else:
        query = blocking.cut(query * query.shape[-1] ** -0.5)
        # [B, N, P, chunk, num_keys]
        scores = ops.matmul(query, ops.swapaxes(blocking.cut_keys(key), -1, -2))
    attention_map = _masked_softmax(scores, blocking.allowed(frame_mask))

    weights = ops.cast(attention_map, value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    output = blocking.restore(ops.matmul(weights, blocking.cut_keys(value)))
    rows = blocking.restore(attention_map) if return_map else None
    if return_map:
        rows = _zero_padded_rows(rows, frame_mask)
    return _zero_padded_rows(output, frame_mask), rows


def _attend_blockwise(
    query: Tensor | None, key: Tensor | None, value: Tensor, frame_mask: Tensor | None
) -> Tensor:
    if query is None:  # Scores that are all equal give the uniform map.
        query = key = ops.zeros_like(value[..., :1])
    allowed = None if frame_mask is None else ops.cast(frame_mask, "bool")[:, None, None, :]

    def attend_block(query: Tensor, shared: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[()]]:
        key, value = shared
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
        weights = ops.cast(_masked_softmax(scores, allowed), value.dtype)
        return ops.matmul(weights, value), ()

    query = query * query.shape[-1] ** -0.5
    output, _ = BlockFunction(attend_block, _BLOCK)(query, (key, value), like=(value, ()))
    return _zero_padded_rows(output, frame_mask)


def _zero_padded_rows(x: Tensor, frame_mask: Tensor | None) -> Tensor:
    """Sets the rows [B, N, T, X] of padded frames to exactly 0."""
    if frame_mask is None:
        return x
    return x * ops.cast(ops.cast(frame_mask, "float32")[:, None, :, None], x.dtype)


def _masked_softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    scores = ops.cast(scores, "float32")
    if allowed is not None:
        scores = scores + ops.where(allowed, 0.0, _MASKED_SCORE)
    return _softmax(scores)


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
    blocking = Blocking.of(level, num_frames)
    if blocking.band is not None and num_keys != blocking.num_keys:
        # A graph that does not know the number of frames always cuts chunks.
        blocking = Blocking.chunked(level, num_frames)
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
