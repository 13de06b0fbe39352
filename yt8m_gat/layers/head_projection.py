"""Base of the multi-head attention layers: Q, K, V from one product, heads, padding."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.seeding import derive_seed

Tensor = Any


def side_by_side_glorot(num_parts: int, seed: int | None, role: str) -> Callable[..., Tensor]:
    """Returns an initializer of matrices that lie side by side in one kernel.

    Each part is Glorot uniform by itself: for the kernel as a whole the fan-out, and with it the
    scale, would be different.

    Args:
        num_parts: number of matrices of equal width along the last axis.
        seed: the layer's seed, or `None` for the global seed of Keras.
        role: name of the kernel, unique within the layer.
    """

    def initialize(shape: tuple[int, int], dtype: Any = None) -> Tensor:
        part_shape = (shape[0], shape[1] // num_parts)
        parts = [
            keras.initializers.GlorotUniform(derive_seed(seed, f"{role}/{index}"))
            for index in range(num_parts)
        ]
        return ops.concatenate([part(part_shape, dtype=dtype) for part in parts], axis=-1)

    return initialize


def linear(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Computes `x W + b` along the last axis, [..., D] -> [..., D'].

    For a matrix of all rows, TensorFlow fuses the bias into the product and runs it on all cores;
    a product of this size without a bias runs on a single core.
    """
    rows = ops.reshape(x, (-1, x.shape[-1]))
    # `ops.add` of a bias is TensorFlow's BiasAdd; its gradient is far faster than that of +.
    y = ops.add(ops.matmul(rows, kernel), bias)
    return ops.reshape(y, (*ops.shape(x)[:-1], y.shape[-1]))


class HeadProjection(keras.Layer):
    """Base of the attention layers: owns the Q, K, V kernel and splits it into heads.

    Args:
        num_heads: number of heads `N`; must divide the feature size `D`.
        uniform: whether the attention map is fixed to uniform over the real frames of a level.
            Then there are no Q and K.
        dropout: rate of the dropout on attention maps, in [0, 1).
        seed: integer for the initial weights and the dropout; `None`: the global seed of Keras.
        blockwise: whether `attend` computes global levels in blocks where no map is needed.

    Raises:
        ValueError: if `num_heads` is not positive or `dropout` is not in [0, 1).
    """

    def __init__(
        self,
        num_heads: int,
        *,
        uniform: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
        blockwise: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"`num_heads` must be positive. Received: num_heads={num_heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
        self.num_heads = num_heads
        self.uniform = uniform
        self.dropout = dropout
        self.seed = seed
        self.blockwise = blockwise
        self._map_dropout = keras.layers.Dropout(
            dropout, seed=derive_seed(seed, "map_dropout"), dtype=self.dtype_policy
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernel [D, 3 D] and bias of Q, K and V, or [D, D] of only V if uniform.

        Raises:
            ValueError: if `num_heads` does not divide D.
        """
        size = input_shape[-1]
        if size % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the feature size. "
                f"Received: num_heads={self.num_heads}, input shape {tuple(input_shape)}"
            )
        self.projection_kernel, self.projection_bias = self._add_matrices(
            "projection", size, num_parts=1 if self.uniform else 3
        )

    def _add_matrices(
        self, name: str, size: int, num_parts: int, num_biases: int | None = None
    ) -> tuple[keras.Variable, keras.Variable]:
        """Adds `num_parts` matrices [D, D] as one kernel; the first `num_biases` have a bias."""
        kernel = self.add_weight(
            shape=(size, num_parts * size),
            initializer=side_by_side_glorot(num_parts, self.seed, name),
            name=f"{name}_kernel",
        )
        biases = num_parts if num_biases is None else num_biases
        bias = self.add_weight(shape=(biases * size,), initializer="zeros", name=f"{name}_bias")
        return kernel, bias

    def _project(self, x: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Projects [B, T, D] to Q, K, V [B, N, T, H]; if uniform, to None, None, V [B, 1, T, D]."""
        projected = linear(x, self.projection_kernel, self.projection_bias)
        if self.uniform:
            # Heads that share one map equal a single head.
            return None, None, ops.expand_dims(projected, 1)
        batch, num_frames, size = ops.shape(x)
        heads = ops.reshape(
            projected, (batch, num_frames, 3, self.num_heads, size // self.num_heads)
        )
        return tuple(ops.unstack(ops.transpose(heads, (2, 0, 3, 1, 4)), 3, axis=0))

    def _dropout_of_maps(self, training: bool | None) -> Callable[[Tensor], Tensor] | None:
        """Returns the dropout of attention maps, or `None`: then it needs no map."""
        if not training or not self.dropout:
            return None
        return lambda weights: self._map_dropout(weights, training=True)

    def _merge_heads(self, x: Tensor) -> Tensor:
        """Concatenates the heads: [B, N, T, H] -> [B, T, N * H]."""
        batch, heads, num_frames, size = ops.shape(x)
        if heads == 1:
            return ops.squeeze(x, 1)
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, num_frames, heads * size))

    def _zero_padding(self, x: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Sets the padded rows of [B, T, D] to exactly 0."""
        if frame_mask is None:
            return x
        return x * ops.cast(ops.expand_dims(frame_mask, -1), x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "seed": self.seed,
        }
