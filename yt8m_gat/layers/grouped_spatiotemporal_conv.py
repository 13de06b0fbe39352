"""The convolution of GST: some outputs see space, the others space and time."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.neighbouring_frames import next_frames, previous_frames

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class GroupedSpatiotemporalConv(keras.Layer):
    """Replaces a k x k convolution by a spatial and a spatiotemporal one, side by side.

        y = concat(conv_{1 x k x k}(x_s), conv_{3 x k x k}(x_t))       along the channels

    The first gives (1 - 1 / alpha) of the outputs, the second 1 / alpha. With beta = 2, x_s is the
    first half of the input channels and x_t the second (GST); with beta = 1 both are all of them
    (GST-Large). Time is padded with zeros at both ends. There is no bias.

    Masking: there is none; every frame counts as real.

    Args:
        filters: Number of output channels, a multiple of alpha.
        kernel_size: k.
        strides: Step in height and width.
        padding: `same` or `valid`, of height and width, as in `keras.layers.Conv2D`. (PyTorch pads
            both sides alike: put a `ZeroPadding2D` before it and choose `valid`.)
        alpha: See above.
        beta: 1 or 2, see above.
        kernel_initializer: Initializer of both kernels.
        kernel_regularizer: Regularizer of both kernels.

    Call arguments:
        x: float [B, T, H, W, C].

    Returns:
        float [B, T, H', W', filters].

    Raises:
        ValueError: An argument is out of its range, or C is not a multiple of beta.

    Reference:
        "Grouped Spatial-Temporal Aggregation for Efficient Action Recognition" (Luo and Yuille,
        2019), section 3.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import GroupedSpatiotemporalConv
        >>> layer = GroupedSpatiotemporalConv(filters=8)
        >>> layer(np.zeros((1, 4, 6, 6, 8), "float32")).shape
        TensorShape([1, 4, 6, 6, 8])
        >>> [tuple(weight.shape) for weight in layer.weights]
        [(3, 3, 4, 6), (3, 3, 3, 4, 2)]
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
        alpha: int = 4,
        beta: int = 2,
        kernel_initializer: Any = "he_normal",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, lowest in (
            ("kernel_size", kernel_size, 1),
            ("strides", strides, 1),
            ("alpha", alpha, 2),
        ):
            if value < lowest:
                raise ValueError(f"`{name}` must be at least {lowest}. Received: {name}={value}")
        if filters < 1 or filters % alpha:
            raise ValueError(
                "`filters` must be a positive multiple of `alpha`. Received: "
                f"filters={filters}, alpha={alpha}"
            )
        if beta not in (1, 2):
            raise ValueError(f"`beta` must be 1 or 2. Received: beta={beta}")
        if padding not in ("same", "valid"):
            raise ValueError(f"`padding` must be same or valid. Received: padding={padding!r}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.alpha = alpha
        self.beta = beta
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels, [k, k, C', F'] and [3, k, k, C', F']."""
        if input_shape[-1] % self.beta:
            raise ValueError(
                "the number of input channels must be a multiple of `beta`. Received: "
                f"{input_shape[-1]} channels, beta={self.beta}"
            )
        size, channels = self.kernel_size, input_shape[-1] // self.beta
        num_temporal = self.filters // self.alpha
        self.spatial_kernel = self.add_weight(
            shape=(size, size, channels, self.filters - num_temporal),
            initializer=self.kernel_initializer.clone(),
            regularizer=self.kernel_regularizer,
            name="spatial_kernel",
        )
        self.spatiotemporal_kernel = self.add_weight(
            shape=(3, size, size, channels, num_temporal),
            initializer=self.kernel_initializer.clone(),
            regularizer=self.kernel_regularizer,
            name="spatiotemporal_kernel",
        )

    def call(self, x: Tensor) -> Tensor:
        """Convolves; see the class."""
        channels = x.shape[-1] // self.beta
        spatial, temporal = x[..., :channels], x[..., -channels:]
        # Three neighbouring frames as channels of one picture: a two-dimensional convolution is
        # faster than a three-dimensional one on CPUs, and the numbers are the same.
        temporal = ops.concatenate(
            [previous_frames(temporal), temporal, next_frames(temporal)], axis=-1
        )
        kernel = ops.transpose(self.spatiotemporal_kernel, (1, 2, 0, 3, 4))
        kernel = ops.reshape(
            kernel, (self.kernel_size, self.kernel_size, 3 * channels, kernel.shape[-1])
        )
        return ops.concatenate(
            [self._convolve(spatial, self.spatial_kernel), self._convolve(temporal, kernel)],
            axis=-1,
        )

    def _convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolves the pictures of [B, T, H, W, C] with [k, k, C, F]."""
        pictures = ops.reshape(x, (-1, *ops.shape(x)[2:]))  # [B * T, H, W, C]
        y = ops.conv(pictures, kernel, self.strides, self.padding, "channels_last")
        return ops.reshape(y, (-1, ops.shape(x)[1], *ops.shape(y)[1:]))

    def assign_plain_kernel(self, kernel: Any) -> None:
        """Takes the spatial kernel from the kernel [k, k, C, filters] of a plain convolution.

        The authors initialize with ImageNet's weights like this; the other kernel stays random.
        """
        _, _, channels, outputs = self.spatial_kernel.shape
        self.spatial_kernel.assign(kernel[:, :, :channels, :outputs])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "alpha": self.alpha,
            "beta": self.beta,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
