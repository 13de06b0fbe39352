"""Self-attention at one local level."""

from typing import Any

import keras

from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.gated_multi_level_attention import GatedMultiLevelAttention


@keras.saving.register_keras_serializable(package="yt8m_gat")
class MaskedLocalAttention(GatedMultiLevelAttention):
    """Multi-head self-attention in which each frame attends only to its neighbourhood.

        Q, K, V = X W + b;  Y = concat over heads of softmax(Q K^T / sqrt(H), masked) V W^o + b^o

    with the mask of `level`. No [T, T] map is computed: the cost is `O(T x window)`.

    Masking: padded frames are never attended to, and their rows of the output are exactly 0.

    Args:
        num_heads: number of heads `N`; must divide the feature size `D`.
        level: the neighbourhood, in the form of `AttentionLevel.parse`: `"bd20"`, `"tp30"`,
            `"td60x4"`.
        uniform: whether the map is fixed to uniform over the real frames in reach.
        dropout: rate of the dropout on the attention map, in [0, 1).
        seed: integer for the initial weights and the dropout; `None`: the global seed of Keras.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether dropout is applied.
        return_attention_maps: whether to return the map too.

    Returns:
        float [B, T, D], and with `return_attention_maps` a tuple of one map, float32
        [B, N, T, K]; `expand_attention_map` gives its [T, T] form.

    Raises:
        ValueError: as for `GatedMultiLevelAttention`.

    Reference:
        "Leveraging Local Temporal Information for Multimodal Scene Classification", eq. 5 and 6.
        Masked positions are filled before the softmax, as its authors say they did.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import MaskedLocalAttention
        >>> layer = MaskedLocalAttention(num_heads=1, level="tp1", seed=0)
        >>> frames = np.random.default_rng(0).normal(size=(1, 5, 4)).astype("float32")
        >>> changed = frames.copy()
        >>> changed[:, 4] = 0
        >>> difference = np.abs(layer(frames) - layer(changed)).max(axis=-1)[0]
        >>> difference > 0  # A frame sees its neighbours and no others.
        array([False, False, False,  True,  True])
    """

    def __init__(
        self,
        num_heads: int = 8,
        level: str | AttentionLevel = "bd20",
        uniform: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            num_heads, levels=(level,), uniform=uniform, dropout=dropout, seed=seed, **kwargs
        )
        (self.level,) = self.levels

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["levels"], config["blockwise"]  # There is no global level.
        return {**config, "level": self.level}
