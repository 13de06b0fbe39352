"""Sinusoidal positional encoding."""

import math
from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class SinusoidalPositionalEncoding(keras.Layer):
    """Adds the sines and cosines of Vaswani et al. to the frames; it has no parameters.

    For frame `t` and feature `d` of `D`, with `i = d // 2`:

        y[b, t, d] = x[b, t, d] + sin(t / wavelength^(2 i / D))   even d
                                  cos(t / wavelength^(2 i / D))   odd d

    `D` may be odd; the last sine then has no cosine.

    Masking: padded frames are encoded like real ones; the layers after this one mask them.

    Args:
        max_wavelength: the longest wavelength over 2 pi, in frames.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.

    Returns:
        float [B, T, D].

    Raises:
        ValueError: if `max_wavelength` is not positive.

    Reference:
        "Attention Is All You Need", 3.5. The frames are not scaled by sqrt(D) first.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import SinusoidalPositionalEncoding
        >>> SinusoidalPositionalEncoding()(np.zeros((1, 2, 4), "float32")).numpy().round(2)
        array([[[0.  , 1.  , 0.  , 1.  ],
                [0.84, 0.54, 0.01, 1.  ]]], dtype=float32)
    """

    def __init__(self, max_wavelength: float = 10_000.0, **kwargs):
        super().__init__(**kwargs)
        if max_wavelength <= 0:
            raise ValueError(
                f"`max_wavelength` must be positive. Received: max_wavelength={max_wavelength}"
            )
        self.max_wavelength = max_wavelength

    def call(self, x: Tensor) -> Tensor:
        """Adds the encoding; see the class."""
        _, num_frames, size = ops.shape(x)
        feature = ops.arange(size)
        exponent = ops.cast(feature - feature % 2, "float32") / size
        frequency = ops.exp(exponent * -math.log(self.max_wavelength))
        angle = ops.expand_dims(ops.arange(num_frames, dtype="float32"), 1) * frequency
        encoding = ops.where(feature % 2 == 0, ops.sin(angle), ops.cos(angle))
        return x + ops.cast(encoding, x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, which is that of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "max_wavelength": self.max_wavelength}
