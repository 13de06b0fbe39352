"""The frames before and after each frame of a clip."""

from typing import Any

from keras import ops

Tensor = Any


def previous_frames(x: Tensor) -> Tensor:
    """Returns `y[:, t] = x[:, t - 1]`, zero at the first frame; x: [B, T, ...]."""
    return _padded(x[:, :-1], (1, 0))


def next_frames(x: Tensor) -> Tensor:
    """Returns `y[:, t] = x[:, t + 1]`, zero at the last frame; x: [B, T, ...]."""
    return _padded(x[:, 1:], (0, 1))


def _padded(x: Tensor, of_time: tuple[int, int]) -> Tensor:
    return ops.pad(x, ((0, 0), of_time, *((0, 0),) * (len(x.shape) - 2)))
