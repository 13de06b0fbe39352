"""Puts a layer of clips into a network of pictures."""

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class AcrossFrames(keras.layers.Wrapper):
    """Calls a layer of clips [B, T, ...] with pictures [B * T, ...], the frames of each in order.

    Masking: there is none; every frame counts as real.

    Args:
        layer: The layer, which keeps T.
        num_frames: T.

    Call arguments:
        x: float [B * T, H, W, C], or any [B * T, ...].

    Returns:
        float [B * T, ...], what `layer` gives for each frame.

    Raises:
        ValueError: `num_frames` is not positive.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import AcrossFrames, TemporalShift
        >>> pictures = np.array([[1, 10], [2, 20], [3, 30], [4, 40]], "float32")  # Two clips.
        >>> AcrossFrames(TemporalShift(shift_div=2), num_frames=2)(pictures).numpy()
        array([[ 2.,  0.],
               [ 0., 10.],
               [ 4.,  0.],
               [ 0., 30.]], dtype=float32)
    """

    def __init__(self, layer: keras.Layer, num_frames: int, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        if num_frames < 1:
            raise ValueError(f"`num_frames` must be positive. Received: num_frames={num_frames}")
        self.num_frames = num_frames

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the layer for clips."""
        if not self.layer.built:
            self.layer.build((None, self.num_frames, *input_shape[1:]))

    def call(self, x: Tensor) -> Tensor:
        """Calls the layer; see the class."""
        y = self.layer(ops.reshape(x, (-1, self.num_frames, *ops.shape(x)[1:])))
        return ops.reshape(y, (-1, *ops.shape(y)[2:]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "num_frames": self.num_frames}
