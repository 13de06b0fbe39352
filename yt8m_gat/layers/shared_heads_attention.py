"""Self-attention whose heads are divided between the global and local levels (ShareAtt)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.attention import attend
from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.head_projection import HeadProjection, linear

Tensor = Any

_GLOBAL = AttentionLevel("global")


@keras.saving.register_keras_serializable(package="yt8m_gat")
class SharedHeadsAttention(HeadProjection):
    """Multi-head self-attention: half of the heads are global, each other head has a local level.

        Y = concat(O_1, ..., O_N) W^o + b^o

    with `O_n` global for the first N / 2 heads and at one of `levels` for each of the rest. It has
    as many parameters as plain self-attention.

    Masking: padded frames are never attended to, and their rows of the output are exactly 0.

    Args:
        num_heads: number of heads `N`, even; must divide the feature size `D`.
        levels: N / 2 local levels in the form of `AttentionLevel.parse`. Heads with the same
            level lie side by side and share an entry of the maps.
        uniform: whether every map is fixed to uniform over the real frames of its level. Then
            there are no Q and K.
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
        `map_names`: float32 [B, heads of that level (1 if uniform), T, K] as `attend` gives them.

    Raises:
        ValueError: if there are not N / 2 levels, if one of them is global or cannot be parsed,
            if `num_heads` does not divide `D`, or if `dropout` is not in [0, 1).

    Reference:
        "Leveraging Local Temporal Information for Multimodal Scene Classification", 2.2 and 3
        (ShareAtt).

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import SharedHeadsAttention
        >>> layer = SharedHeadsAttention(num_heads=4, levels=("bd2", "tp1"))
        >>> output, maps = layer(np.ones((1, 4, 8), "float32"), return_attention_maps=True)
        >>> output.shape, layer.map_names
        (TensorShape([1, 4, 8]), ('global', 'bd2', 'tp1'))
        >>> [one.shape[1] for one in maps]  # Heads of each.
        [2, 1, 1]
    """

    def __init__(
        self,
        num_heads: int = 8,
        levels: Sequence[str | AttentionLevel] = ("bd10", "bd20", "bd30", "bd60"),
        uniform: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
        blockwise: bool = False,
        **kwargs,
    ):
        super().__init__(
            num_heads, uniform=uniform, dropout=dropout, seed=seed, blockwise=blockwise, **kwargs
        )
        if isinstance(levels, str) or num_heads != 2 * len(levels):
            raise ValueError(
                "`levels` must be a sequence of num_heads / 2 local levels. "
                f"Received: num_heads={num_heads}, levels={levels!r}"
            )
        parsed = [AttentionLevel.parse(level) for level in levels]
        if _GLOBAL in parsed:
            raise ValueError(
                "`levels` must be local: half of the heads are global without being named. "
                f"Received: levels={levels!r}"
            )
        self.levels = tuple(map(str, parsed))
        self._heads_of_level = {_GLOBAL: len(parsed)}
        for level in parsed:
            self._heads_of_level[level] = self._heads_of_level.get(level, 0) + 1

    @property
    def map_names(self) -> tuple[str, ...]:
        """`"global"` and the distinct local levels, in the order of the returned maps."""
        return tuple(map(str, self._heads_of_level))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates Q, K, V and the output projection [D, D]."""
        super().build(input_shape)
        self.output_kernel, self.output_bias = self._add_matrices("output", input_shape[-1], 1)

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        return_attention_maps: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """Attends with each group of heads at its level; see the class."""
        query, key, value = self._project(x)
        head_size = x.shape[-1] // self.num_heads
        contexts, maps, first = [], [], 0
        for level, heads in self._heads_of_level.items():
            last = first + heads
            if self.uniform:
                group = (None, None, value[..., first * head_size : last * head_size])
            else:
                group = (query[:, first:last], key[:, first:last], value[:, first:last])
            context, attention_map = attend(
                *group,
                level,
                frame_mask,
                return_map=return_attention_maps,
                dropout=self._dropout_of_maps(training),
                blockwise=self.blockwise,
            )
            contexts.append(self._merge_heads(context))
            maps.append(attention_map)
            first = last
        y = linear(ops.concatenate(contexts, axis=-1), self.output_kernel, self.output_bias)
        y = self._zero_padding(y, frame_mask)
        return (y, tuple(maps)) if return_attention_maps else y

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "uniform": self.uniform,
            "levels": list(self.levels),
            "blockwise": self.blockwise,
        }
