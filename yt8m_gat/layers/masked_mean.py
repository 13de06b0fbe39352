"""Mean over the real frames of a clip."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.reduction import sum_over

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class MaskedMeanPooling(keras.Layer):
    """Averages the frames of each clip: `y[b] = sum over real t of x[b, t] / number of real t`.

    The sum is always computed in float32.

    Masking: padded frames do not count; a clip without any real frame gives exactly 0.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.

    Returns:
        float [B, D].

    Reference:
        GAT, section 3: "a video level representation by taking a mean across the temporal
        dimension".

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import MaskedMeanPooling
        >>> frames = np.array([[[1.0], [3.0], [50.0]]], "float32")
        >>> MaskedMeanPooling()(frames, frame_mask=np.array([[True, True, False]])).numpy()
        array([[2.]], dtype=float32)
    """

    def call(self, x: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Averages over frames; see the class."""
        frames = ops.cast(x, "float32")
        if frame_mask is None:
            count = ops.cast(ops.shape(x)[1], "float32")
            return ops.cast(sum_over(frames, axis=1) / count, x.dtype)
        real = ops.cast(ops.expand_dims(frame_mask, -1), "float32")
        count = ops.maximum(ops.sum(real, axis=1), 1.0)
        return ops.cast(sum_over(frames * real, axis=1) / count, x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, [B, D]."""
        return (input_shape[0], input_shape[2])
