"""Attention pooling: a weighted mean of the frames, whose weights are learned."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.reduction import sum_over

Tensor = Any

# Added to the scores of padding, in float32: its exp() is exactly 0 next to any real score, and a
# clip without real frames stays finite (infinity would give NaN there).
_MASKED_SCORE = -1e9


@keras.saving.register_keras_serializable(package="yt8m_gat")
class AttentionPooling(keras.Layer):
    """Averages the frames of each clip with learned weights.

        e_t = u . tanh(W x_t + b)                       [B, T]
        y   = sum over t of a_t x_t,  a = softmax(e)    [B, D]

    Weights and sum are computed in float32.

    Masking: padded frames have the weight 0; a clip without any real frame gives exactly 0.

    Args:
        units: size of W x_t; `None`: D.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown. Padded frames must be finite.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.

    Returns:
        float [B, D].

    Raises:
        ValueError: if `units` is not positive.

    Reference:
        "Hierarchical Attention Networks for Document Classification" (Yang et al., 2016), eq. 5-7.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import AttentionPooling
        >>> frames = np.array([[[1.0], [1.0], [50.0]]], "float32")
        >>> AttentionPooling(2)(frames, frame_mask=np.array([[True, True, False]])).numpy()
        array([[1.]], dtype=float32)
    """

    def __init__(self, units: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if units is not None and units < 1:
            raise ValueError(f"`units` must be positive. Received: units={units}")
        self.units = units
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates W [D, units], b and u."""
        size = input_shape[-1]
        units = self.units or size
        self.kernel = self.add_weight(shape=(size, units), name="kernel")
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.query = self.add_weight(shape=(units, 1), name="query")

    def call(self, x: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Averages over frames; see the class."""
        rows = ops.reshape(x, (-1, x.shape[-1]))
        hidden = ops.tanh(ops.add(ops.matmul(rows, self.kernel), self.bias))
        scores = ops.reshape(ops.matmul(hidden, self.query), ops.shape(x)[:2])
        scores = ops.cast(scores, "float32")
        real = ops.ones_like(scores) if frame_mask is None else ops.cast(frame_mask, "float32")
        scores += (1.0 - real) * _MASKED_SCORE
        # Keras' softmax warns of clips of one frame.
        shares = real * ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=1, keepdims=True)))
        # At least 1, the share of the largest score, unless there is no real frame.
        weights = shares / ops.maximum(ops.sum(shares, axis=1, keepdims=True), 0.5)
        total = sum_over(ops.cast(x, "float32") * ops.expand_dims(weights, -1), axis=1)
        return ops.cast(total, self.compute_dtype)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> None:
        """Returns no mask: the output has no time axis."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, [B, D]."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "units": self.units}
