"""Self-attention that gates a global and a local attention map (GateAtt)."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.attention import dense_attention_map
from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.head_projection import HeadProjection, linear
from yt8m_gat.layers.seeding import derive_seed

Tensor = Any

_GLOBAL = AttentionLevel("global")


@keras.saving.register_keras_serializable(package="yt8m_gat")
class GatedMapAttention(HeadProjection):
    """Multi-head self-attention over a gated mixture of a global and a local attention map.

    With `A^g` and `A^l` [B, N, T, T] the maps of one head at the two levels:

        R^g, R^l = softmax across the two of (A^g W_g^g, A^l W_g^l)     W_g in R^{T x T}
        A = R^g * A^g + R^l * A^l
        Y = concat over heads of (A V) W^o + b^o

    The heads share `W_g^g` and `W_g^l`, which have no bias. As these are [T, T], they fix the
    number of frames: pad every clip to `max_frames`.

    The gate differs from element to element of a row, so the rows of `A` do not sum to one in
    general, although the paper says that they do; `renormalize` divides each row by its sum.

    Masking: padded frames are never attended to, and their rows of the output are exactly 0.

    Args:
        num_heads: number of heads `N`; must divide the feature size `D`.
        level: the local level, in the form of `AttentionLevel.parse`.
        max_frames: the number of frames `T` of every input, padding included.
        renormalize: whether each row of `A` is divided by its sum.
        dropout: rate of the dropout on the gated map, in [0, 1).
        seed: integer for the initial weights and the dropout; `None`: the global seed of Keras.

    Call arguments:
        x: float [B, T, D] with T = `max_frames`.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether dropout is applied.
        return_attention_maps: whether to return the maps too.

    Returns:
        float [B, T, D], and with `return_attention_maps` the tuple `(A^g, A^l, A)` in the order
        of `map_names`, each float32 [B, N, T, T].

    Raises:
        ValueError: if `level` is global or cannot be parsed, if `max_frames` is not positive or
            is not the T of the input, if `num_heads` does not divide `D`, or if `dropout` is
            not in [0, 1).

    Reference:
        "Leveraging Local Temporal Information for Multimodal Scene Classification", eq. 7.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import GatedMapAttention
        >>> layer = GatedMapAttention(num_heads=2, level="bd2", max_frames=4)
        >>> output, maps = layer(np.ones((1, 4, 6), "float32"), return_attention_maps=True)
        >>> output.shape, [tuple(one.shape) for one in maps]
        (TensorShape([1, 4, 6]), [(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)])
    """

    def __init__(
        self,
        num_heads: int = 8,
        level: str | AttentionLevel = "bd20",
        max_frames: int = 300,
        renormalize: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(num_heads, dropout=dropout, seed=seed, **kwargs)
        self._parsed_level = AttentionLevel.parse(level)
        if self._parsed_level == _GLOBAL:
            raise ValueError(f"`level` must be a local level. Received: level={level!r}")
        if max_frames < 1:
            raise ValueError(f"`max_frames` must be positive. Received: max_frames={max_frames}")
        self.level = str(self._parsed_level)
        self.max_frames = max_frames
        self.renormalize = renormalize

    @property
    def map_names(self) -> tuple[str, ...]:
        """The names of the returned maps: the two that are mixed, and the mixture."""
        return ("global", self.level, "gated")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates Q, K, V, the output projection [D, D] and the gates [T, T].

        Raises:
            ValueError: if the input does not have `max_frames` frames.
        """
        if input_shape[1] != self.max_frames:
            raise ValueError(
                "The gates of GatedMapAttention need inputs of exactly `max_frames` frames. "
                f"Received: max_frames={self.max_frames}, input shape {tuple(input_shape)}; "
                "pad the batches to `max_frames`"
            )
        super().build(input_shape)
        self.output_kernel, self.output_bias = self._add_matrices("output", input_shape[-1], 1)
        self.global_gate_kernel = self._add_gate("global_gate_kernel")
        self.local_gate_kernel = self._add_gate("local_gate_kernel")

    def _add_gate(self, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(self.max_frames, self.max_frames),
            initializer=keras.initializers.GlorotUniform(derive_seed(self.seed, name)),
            name=name,
        )

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        return_attention_maps: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """Attends with the gated map; see the class."""
        query, key, value = self._project(x)
        global_map = dense_attention_map(query, key, _GLOBAL, frame_mask)
        local_map = dense_attention_map(query, key, self._parsed_level, frame_mask)
        # A softmax over two values is the sigmoid of their difference.
        global_relevance = ops.sigmoid(
            ops.matmul(global_map, ops.cast(self.global_gate_kernel, "float32"))
            - ops.matmul(local_map, ops.cast(self.local_gate_kernel, "float32"))
        )
        gated_map = local_map + global_relevance * (global_map - local_map)
        if self.renormalize:
            # Rows of padded queries are 0 and stay so.
            gated_map = ops.divide_no_nan(gated_map, ops.sum(gated_map, axis=-1, keepdims=True))
        weights = self._map_dropout(ops.cast(gated_map, value.dtype), training=training)
        context = self._merge_heads(ops.matmul(weights, value))
        y = linear(context, self.output_kernel, self.output_bias)
        y = self._zero_padding(y, frame_mask)
        return (y, (global_map, local_map, gated_map)) if return_attention_maps else y

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "level": self.level,
            "max_frames": self.max_frames,
            "renormalize": self.renormalize,
        }
