"""The aggregation of neighbouring frames of TAM."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.neighbouring_frames import next_frames, previous_frames

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class TemporalAggregation(keras.Layer):
    """Weighs the channels of each frame and of its two neighbours, and adds them.

        y[:, t] = relu(w_0 * x[:, t - 1] + w_1 * x[:, t] + w_2 * x[:, t + 1])

    with one weight a channel and frame, which is three depthwise 1 x 1 convolutions without bias,
    and zeros beyond the ends of the clip. In a residual network it belongs before the first
    convolution of each block, inside the branch.

    It starts as the identity of non-negative maps (w_1 = 1, the others 0), so that a pretrained
    network stays what it is; the authors draw the weights from a normal distribution.

    Masking: there is none; every frame counts as real.

    Args:
        kernel_initializer: Initializer of w, float [3, C].
        kernel_regularizer: Its regularizer.

    Call arguments:
        x: float [B, T, H, W, C], or any [B, T, ..., C].

    Returns:
        As `x`.

    Reference:
        The Temporal Aggregation Module of "More Is Less: Learning Efficient Video Representations
        by Big-Little Network and Depthwise Temporal Aggregation" (Fan et al., 2019), section 3.2.
        (The Temporal Adaptive Module, also TAM, is another.)

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import TemporalAggregation
        >>> clip = np.array([[[1], [2], [3]]], "float32")  # [B, T, C]
        >>> layer = TemporalAggregation()
        >>> layer(clip).numpy().ravel()
        array([1., 2., 3.], dtype=float32)
        >>> layer.set_weights([np.array([[-1], [1], [0]])])  # The change from frame to frame.
        >>> layer(clip).numpy().ravel()
        array([1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights [3, C] of the previous, the current and the next frame."""
        self.kernel = self.add_weight(
            shape=(3, input_shape[-1]),
            initializer=self.kernel_initializer or _current_frame,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )

    def call(self, x: Tensor) -> Tensor:
        """Aggregates; see the class."""
        before, now, after = (self.kernel[i] for i in range(3))
        return ops.relu(before * previous_frames(x) + now * x + after * next_frames(x))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer)
            if self.kernel_initializer
            else None,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _current_frame(shape: tuple[int, int], dtype: Any = None) -> Tensor:
    return ops.cast(ops.one_hot([1] * shape[1], shape[0], axis=0), dtype)
