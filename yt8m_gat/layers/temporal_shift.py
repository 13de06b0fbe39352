"""The shift of channels over time of TSM."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.neighbouring_frames import next_frames, previous_frames

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class TemporalShift(keras.Layer):
    """Moves a share of the channels by one frame, which costs no weights and no multiplications.

    With n = C // shift_div:

        y[:, t, ..., :n]        = x[:, t + 1, ..., :n]
        y[:, t, ..., n : 2 n]   = x[:, t - 1, ..., n : 2 n]
        y[:, t, ..., 2 n :]     = x[:, t, ..., 2 n :]

    and zeros beyond the ends of the clip. In a residual network it belongs before the first
    convolution of each block, inside the branch.

    Masking: there is none; every frame counts as real.

    Args:
        shift_div: 1 / shift_div of the channels take the next frame's value, and as many the
            previous one's.

    Call arguments:
        x: float [B, T, H, W, C], or any [B, T, ..., C].

    Returns:
        As `x`.

    Raises:
        ValueError: `shift_div` is less than 2, or greater than C: nothing would move.

    Reference:
        "TSM: Temporal Shift Module for Efficient Video Understanding" (Lin et al., 2019).

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import TemporalShift
        >>> clip = np.array([[[1, 10, 100], [2, 20, 200], [3, 30, 300]]], "float32")  # [B, T, C]
        >>> TemporalShift(shift_div=3)(clip).numpy()[0]
        array([[  2.,   0., 100.],
               [  3.,  10., 200.],
               [  0.,  20., 300.]], dtype=float32)
    """

    def __init__(self, shift_div: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if shift_div < 2:
            raise ValueError(f"`shift_div` must be at least 2. Received: shift_div={shift_div}")
        self.shift_div = shift_div

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks that at least one channel moves each way."""
        if input_shape[-1] < self.shift_div:
            raise ValueError(
                "`shift_div` must be at most the number of channels. Received: "
                f"shift_div={self.shift_div}, {input_shape[-1]} channels"
            )

    def call(self, x: Tensor) -> Tensor:
        """Shifts; see the class."""
        n = x.shape[-1] // self.shift_div
        moved = next_frames(x[..., :n]), previous_frames(x[..., n : 2 * n])
        return ops.concatenate([*moved, x[..., 2 * n :]], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "shift_div": self.shift_div}
