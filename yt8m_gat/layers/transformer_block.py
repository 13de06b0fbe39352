"""One Transformer encoder block around any of the attention layers."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.normalization import LayerNormalization
from yt8m_gat.layers.seeding import derive_seed

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class TransformerBlock(keras.Layer):
    """Attention and a feed-forward network, each followed by a residual and layer normalization.

        X' = LayerNorm(X + Dropout(Attention(X)))
        Y  = LayerNorm(X' + Dropout(W_2 relu(W_1 X' + b_1) + b_2))

    With `pre_norm` the normalization is before each of both, and the residual path has none:

        X' = X + Dropout(Attention(LayerNorm(X)))
        Y  = X' + Dropout(W_2 relu(W_1 LayerNorm(X') + b_1) + b_2)

    which trains deep stacks without warm-up. The last block of such a stack normalizes its output.

    Masking: the mask goes to the attention layer, and padded rows of the output are exactly 0.

    Args:
        attention: an attention layer of this package, called with `frame_mask`, `training` and
            `return_attention_maps`.
        feed_forward_size: width of the feed-forward network; `None`: the feature size `D`.
        dropout: rate of the dropout before each residual sum, in [0, 1).
        dual_normalization: whether there is a second pair of normalization layers for an
            auxiliary (adversarial) path that shares everything else.
        seed: integer for the initial weights and the dropout; `None`: the global seed of Keras.
        pre_norm: see above.
        normalize_output: with `pre_norm`: whether Y is normalized.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether dropout is applied.
        auxiliary_normalization: whether to use the second pair of normalization layers.
        return_attention_maps: whether to return the maps of the attention layer too.

    Returns:
        float [B, T, D], and with `return_attention_maps` the maps, named by
        `attention.map_names`.

    Raises:
        ValueError: if `feed_forward_size` is not positive, if `dropout` is not in [0, 1), if
            `normalize_output` is set without `pre_norm`, or if the auxiliary normalization is
            requested without `dual_normalization`.

    Reference:
        "Attention Is All You Need", 3.1; GAT, section 3. The second normalization is that of TAF,
        section 3.3; it is dropped at inference. Pre-norm: "On Layer Normalization in the
        Transformer Architecture" (Xiong et al., 2020), figure 1b and section 3.2.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import GatedMultiLevelAttention, TransformerBlock
        >>> attention = GatedMultiLevelAttention(num_heads=2, levels=("global", "bd2"))
        >>> block = TransformerBlock(attention, feed_forward_size=8)
        >>> frame_mask = np.array([[True, True, False]])
        >>> output = block(np.ones((1, 3, 4), "float32"), frame_mask=frame_mask)
        >>> output.shape, float(np.abs(output[0, 2]).max())  # Padding is exactly 0.
        (TensorShape([1, 3, 4]), 0.0)
    """

    def __init__(
        self,
        attention: keras.Layer,
        feed_forward_size: int | None = None,
        dropout: float = 0.0,
        dual_normalization: bool = False,
        seed: int | None = None,
        pre_norm: bool = False,
        normalize_output: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if feed_forward_size is not None and feed_forward_size < 1:
            raise ValueError(
                "`feed_forward_size` must be positive. "
                f"Received: feed_forward_size={feed_forward_size}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
        if normalize_output and not pre_norm:
            raise ValueError(
                "`normalize_output` is for `pre_norm`: otherwise the output is normalized already. "
                "Received: normalize_output=True, pre_norm=False"
            )
        self.attention = attention
        self.feed_forward_size = feed_forward_size
        self.dropout = dropout
        self.dual_normalization = dual_normalization
        self.seed = seed
        self.pre_norm = pre_norm
        self.normalize_output = normalize_output
        self._attention_dropout = self._make_dropout("attention_dropout")
        self._feed_forward_dropout = self._make_dropout("feed_forward_dropout")
        self.normalizations = self._make_normalizations("normalization")
        self.auxiliary_normalizations = (
            self._make_normalizations("auxiliary_normalization") if dual_normalization else []
        )

    def _make_dropout(self, name: str) -> keras.layers.Dropout:
        return keras.layers.Dropout(
            self.dropout, seed=derive_seed(self.seed, name), dtype=self.dtype_policy, name=name
        )

    def _make_normalizations(self, name: str) -> list[LayerNormalization]:
        return [
            LayerNormalization(dtype=self.dtype_policy, name=f"{part}_{name}")
            for part in ("attention", "feed_forward") + ("output",) * self.normalize_output
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the attention, the two dense layers and the normalization layers."""
        size = input_shape[-1]
        width = self.feed_forward_size or size
        self.hidden_dense = self._make_dense(width, "relu", "feed_forward_hidden")
        self.output_dense = self._make_dense(size, None, "feed_forward_output")
        if not self.attention.built:  # It is built already in a block that is read from a file.
            self.attention.build(input_shape)
        self.hidden_dense.build(input_shape)
        self.output_dense.build((*input_shape[:-1], width))
        for normalization in (*self.normalizations, *self.auxiliary_normalizations):
            normalization.build(input_shape)

    def _make_dense(self, units: int, activation: str | None, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.GlorotUniform(derive_seed(self.seed, name)),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
        return_attention_maps: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """Runs the block; see the class."""
        if auxiliary_normalization and not self.dual_normalization:
            raise ValueError(
                "`auxiliary_normalization` needs a block with a second pair of normalization "
                "layers. Received: dual_normalization=False; construct it with "
                "dual_normalization=True"
            )
        first, second, *last = (
            self.auxiliary_normalizations if auxiliary_normalization else self.normalizations
        )
        attended = self.attention(
            first(x) if self.pre_norm else x,
            frame_mask=frame_mask,
            training=training,
            return_attention_maps=return_attention_maps,
        )
        if return_attention_maps:
            attended, maps = attended
        x = x + self._attention_dropout(attended, training=training)
        if not self.pre_norm:
            x = first(x)
        # As one matrix of all rows; see `linear`.
        rows = ops.reshape(second(x) if self.pre_norm else x, (-1, x.shape[-1]))
        fed_forward = ops.reshape(self.output_dense(self.hidden_dense(rows)), ops.shape(x))
        x = x + self._feed_forward_dropout(fed_forward, training=training)
        for normalization in last if self.pre_norm else (second,):
            x = normalization(x)
        if frame_mask is not None:
            x = x * ops.cast(ops.expand_dims(frame_mask, -1), x.dtype)
        return (x, maps) if return_attention_maps else x

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the main normalization layers to the auxiliary ones.

        Fine-tuning of a trained block starts from this.

        Raises:
            ValueError: if the block has no auxiliary normalization layers or is not built.
        """
        if not self.dual_normalization or not self.built:
            raise ValueError(
                "Copying needs a built block with two pairs of normalization layers. "
                f"Received: dual_normalization={self.dual_normalization}, built={self.built}"
            )
        for main, auxiliary in zip(self.normalizations, self.auxiliary_normalizations, strict=True):
            auxiliary.set_weights(main.get_weights())

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "attention": keras.saving.serialize_keras_object(self.attention),
            "feed_forward_size": self.feed_forward_size,
            "dropout": self.dropout,
            "dual_normalization": self.dual_normalization,
            "seed": self.seed,
            "pre_norm": self.pre_norm,
            "normalize_output": self.normalize_output,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TransformerBlock":
        """Makes the block and its attention layer from the result of `get_config`."""
        attention = keras.saving.deserialize_keras_object(config["attention"])
        return cls(**{**config, "attention": attention})
