"""Attention of the frames of one modality to those of others."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.attention import attend
from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.head_projection import linear
from yt8m_gat.layers.seeding import derive_seed

Tensor = Any

_GLOBAL = AttentionLevel.parse("global")


@keras.saving.register_keras_serializable(package="yt8m_gat")
class CrossModalAttention(keras.Layer):
    """Multi-head attention whose queries are one modality, and keys and values the others.

        Q = X W^q + b^q;  K, V = X' W + b
        Y = X + Dropout(concat over heads of softmax(Q K^T / sqrt(H)) V W^o + b^o)

    All frames of X' are attended to, as at the level `global`. There is no normalization: the
    inputs are outputs of blocks that end with one.

    Masking: padded frames are never attended to, and padded rows of the output are exactly 0.

    Args:
        num_heads: number of heads `N`; must divide the feature size `D` of X.
        dropout: rate of the dropout on the map and before the residual sum, in [0, 1).
        seed: integer for the initial weights and the dropout; `None`: the global seed of Keras.
        blockwise: whether no [T, T] map is kept where none is dropped out; see `attend`.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        others: float [B, T, D'], the frames of the other modalities at the same times.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether dropout is applied.

    Returns:
        float [B, T, D].

    Raises:
        ValueError: if `num_heads` is not positive or does not divide `D`.

    Reference:
        "Multimodal Transformer for Unaligned Multimodal Language Sequences" (Tsai et al., 2019),
        section 3.1 and eq. 1 to 3, without its normalization and feed-forward network.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import CrossModalAttention
        >>> picture, sound = np.ones((1, 3, 4), "float32"), np.ones((1, 3, 2), "float32")
        >>> CrossModalAttention(2)(picture, sound).shape.as_list()
        [1, 3, 4]
    """

    def __init__(
        self,
        num_heads: int,
        dropout: float = 0.0,
        seed: int | None = None,
        blockwise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"`num_heads` must be positive. Received: num_heads={num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.seed = seed
        self.blockwise = blockwise
        self._dropouts = [
            keras.layers.Dropout(dropout, seed=derive_seed(seed, role), dtype=self.dtype_policy)
            for role in ("map_dropout", "output_dropout")
        ]

    def build(self, x_shape: tuple[int | None, ...], others_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels and biases of Q [D, D], of K and V [D', 2 D], and of the output."""
        size = x_shape[-1]
        if size % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the feature size. "
                f"Received: num_heads={self.num_heads}, shape {tuple(x_shape)}"
            )
        # K and V are two matrices: Glorot's limits of one of twice the width would be narrower.
        sizes = {"query": x_shape[-1], "key": others_shape[-1], "value": others_shape[-1]}
        self.kernels, self.biases = {}, {}
        for name, rows in {**sizes, "output": size}.items():
            self.kernels[name] = self.add_weight(
                shape=(rows, size),
                initializer=keras.initializers.GlorotUniform(derive_seed(self.seed, name)),
                name=f"{name}_kernel",
            )
            self.biases[name] = self.add_weight(
                shape=(size,), initializer="zeros", name=f"{name}_bias"
            )

    def call(
        self,
        x: Tensor,
        others: Tensor,
        frame_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        """Adds to each frame what it attends to in the other modalities."""
        map_dropout, output_dropout = self._dropouts

        def dropout(weights: Tensor) -> Tensor:
            return map_dropout(weights, training=training)

        output, _ = attend(
            self._heads("query", x),
            self._heads("key", others),
            self._heads("value", others),
            _GLOBAL,
            frame_mask,
            dropout=dropout if training and self.dropout else None,
            blockwise=self.blockwise,
        )
        batch, heads, num_frames, size = ops.shape(output)
        merged = ops.reshape(ops.transpose(output, (0, 2, 1, 3)), (batch, num_frames, heads * size))
        added = linear(merged, self.kernels["output"], self.biases["output"])
        total = x + output_dropout(added, training=training)
        if frame_mask is None:
            return total
        return total * ops.cast(ops.expand_dims(frame_mask, -1), total.dtype)

    def _heads(self, name: str, x: Tensor) -> Tensor:
        """Projects [B, T, D] to the heads [B, N, T, H]."""
        projected = linear(x, self.kernels[name], self.biases[name])
        batch, num_frames, size = ops.shape(projected)
        heads = ops.reshape(projected, (batch, num_frames, self.num_heads, size // self.num_heads))
        return ops.transpose(heads, (0, 2, 1, 3))

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], others_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of x."""
        del others_shape
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "seed": self.seed,
            "blockwise": self.blockwise,
        }
