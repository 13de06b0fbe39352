"""How frames are cut into blocks of queries, and which keys each block attends to."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from yt8m_gat.layers.attention_level import AttentionLevel

Tensor = Any

# The shortest chunk: for smaller matrix products the calls cost more than the arithmetic.
_MIN_CHUNK = 48


@dataclasses.dataclass(frozen=True)
class Blocking:
    """The blocks of one level over a number of frames.

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
    def of(cls, level: AttentionLevel, num_frames: int | Tensor) -> "Blocking":
        """Returns the blocks of any level; the global one is a single block."""
        if level.kind == "global":
            return cls(num_frames, stride=1, num_chunks=1, chunk=num_frames)
        if level.kind == "bd":
            # At least one frame, so that a batch of clips without frames has no blocks.
            chunk = _minimum(level.window, _maximum(1, num_frames))
            return cls(num_frames, stride=1, num_chunks=-(-num_frames // chunk), chunk=chunk)
        chunked = cls.chunked(level, num_frames)
        if isinstance(num_frames, int) and chunked.num_chunks == 1:
            return dataclasses.replace(chunked, halo=0)
        return chunked

    @classmethod
    def chunked(cls, level: AttentionLevel, num_frames: int | Tensor) -> "Blocking":
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
        """P."""
        return self.stride * self.num_chunks

    @property
    def num_keys(self) -> int | Tensor:
        """Keys of each block."""
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
