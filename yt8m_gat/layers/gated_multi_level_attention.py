"""Gated multi-level self-attention (GMSA, GateOp, and plain self-attention with one level)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.attention import attend
from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.head_projection import HeadProjection, linear

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class GatedMultiLevelAttention(HeadProjection):
    """Self-attention at several temporal levels, mixed element by element by a gate.

    Every level `l` uses the same `Q, K, V = X W + b` [B, T, D], split into N heads of H = D / N:

        O^l = concat over heads of softmax(Q K^T / sqrt(H), over the frames of level l) V
        Y^l = O^l W^l + b^l                  [B, T, D]
        Y   = sum over l of R^l * Y^l        R = softmax over the levels of O^l W_g^l

    The softmax of `R` is taken across the levels for each element of [T, D]. With one level there
    is no gate and `Y = Y^0`; `levels=("global",)` is the papers' SA.

    A level may be named twice (the papers' "S" is `("global", "global")`): its map and `O^l` are
    computed once, and each of the two experts has its own `W^l` and `W_g^l`.

    Masking: padded frames are never attended to, and their rows of the output are exactly 0.

    Args:
        num_heads: number of heads `N`; must divide the feature size `D`.
        levels: the level of each expert, in the form of `AttentionLevel.parse`.
        uniform: whether every map is fixed to uniform over the real frames of its level (the
            ablation). Then there are no Q and K.
        dropout: rate of the dropout on attention maps, in [0, 1).
        seed: integer for the initial weights and the dropout; `None`: the global seed of Keras.
        blockwise: whether the global level keeps no [T, T] map where none is returned or dropped
            out: `O(T)` memory in training, for somewhat more time; see `attend`.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether dropout is applied.
        return_attention_maps: whether to return the maps too.

    Returns:
        float [B, T, D], and with `return_attention_maps` a tuple of maps, one for each of
        `map_names`: float32 [B, N, T, K] as `attend` gives them.

    Raises:
        ValueError: if `levels` is empty or one cannot be parsed, if `num_heads` does not divide
            `D`, or if `dropout` is not in [0, 1).

    Reference:
        GAT, section 3.1 (GMSA: `("global", "bd20")`) and "Leveraging Local Temporal Information for
        Multimodal Scene Classification", eq. 9 to 13 (GateOp). Projections and outputs have
        biases and gates have none, which gives the published model sizes.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import GatedMultiLevelAttention
        >>> layer = GatedMultiLevelAttention(num_heads=2, levels=("global", "bd2"))
        >>> frames = np.ones((1, 4, 6), "float32")
        >>> frame_mask = np.array([[True, True, True, False]])
        >>> output, maps = layer(frames, frame_mask=frame_mask, return_attention_maps=True)
        >>> output.shape, layer.map_names
        (TensorShape([1, 4, 6]), ('global', 'bd2'))
        >>> maps[0][0, 0].numpy().round(2)  # The padded frame is not attended to.
        array([[0.33, 0.33, 0.33, 0.  ],
               [0.33, 0.33, 0.33, 0.  ],
               [0.33, 0.33, 0.33, 0.  ],
               [0.  , 0.  , 0.  , 0.  ]], dtype=float32)
    """

    def __init__(
        self,
        num_heads: int = 8,
        levels: Sequence[str | AttentionLevel] = ("global", "bd20"),
        uniform: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
        blockwise: bool = False,
        **kwargs,
    ):
        super().__init__(
            num_heads, uniform=uniform, dropout=dropout, seed=seed, blockwise=blockwise, **kwargs
        )
        if isinstance(levels, str) or not levels:
            raise ValueError(
                f"`levels` must be a sequence of at least one level. Received: levels={levels!r}"
            )
        self._parsed_levels = tuple(AttentionLevel.parse(level) for level in levels)
        self.levels = tuple(map(str, self._parsed_levels))

    @property
    def map_names(self) -> tuple[str, ...]:
        """The distinct levels, in the order of the returned maps."""
        return tuple(dict.fromkeys(self.levels))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates Q, K, V and, per level, `[W^l | W_g^l]` [D, 2 D], or [D, D] without a gate."""
        super().build(input_shape)
        gates = 1 if len(self.levels) > 1 else 0
        self.experts = [
            self._add_matrices(f"expert_{index}", input_shape[-1], 1 + gates, num_biases=1)
            for index in range(len(self.levels))
        ]

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        return_attention_maps: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """Attends at each level and mixes the experts; see the class."""
        query, key, value = self._project(x)
        contexts, maps = {}, {}
        for level in dict.fromkeys(self._parsed_levels):
            context, maps[level] = attend(
                query,
                key,
                value,
                level,
                frame_mask,
                return_map=return_attention_maps,
                dropout=self._dropout_of_maps(training),
                blockwise=self.blockwise,
            )
            contexts[level] = self._merge_heads(context)
        y = self._zero_padding(
            self._mix([contexts[level] for level in self._parsed_levels]), frame_mask
        )
        return (y, tuple(maps.values())) if return_attention_maps else y

    def _mix(self, contexts: list[Tensor]) -> Tensor:
        """Computes Y [B, T, D], the gated sum of the experts, from O^l [B, T, D] of each level."""
        if len(contexts) == 1:
            return linear(contexts[0], *self.experts[0])
        kernels, biases = zip(*self.experts, strict=True)
        outputs = [ops.matmul(*pair) for pair in zip(contexts, kernels, strict=True)]
        values, gates = zip(*(ops.split(output, 2, axis=-1) for output in outputs), strict=True)
        values = [ops.add(value, bias) for value, bias in zip(values, biases, strict=True)]
        if len(outputs) == 2:
            # A softmax over two values is the sigmoid of their difference.
            return values[1] + ops.sigmoid(gates[0] - gates[1]) * (values[0] - values[1])
        relevance = ops.softmax(ops.stack(gates), axis=0)
        return ops.sum(relevance * ops.stack(values), axis=0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "uniform": self.uniform,
            "levels": list(self.levels),
            "blockwise": self.blockwise,
        }
