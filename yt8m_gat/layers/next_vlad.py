"""NeXtVLAD: NetVLAD over groups of expanded features, with attention over the groups."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.dual_batch_normalization import DualBatchNormalization
from yt8m_gat.layers.head_projection import linear
from yt8m_gat.layers.residual_pooling import pool_residuals

Tensor = Any


def _initializer(mode: str) -> keras.initializers.Initializer:
    """Returns slim's variance scaling, which the authors use for all weights."""
    return keras.initializers.VarianceScaling(2.0, mode, "truncated_normal")


@keras.saving.register_keras_serializable(package="yt8m_gat")
class NeXtVLAD(keras.Layer):
    """Pools frames into residuals to cluster centres, over groups of expanded features.

    With the expansion E, G groups and K clusters:

        x'    = x W_0 + b_0, cut into G groups x'_g                [B, T, G, E D / G]
        b_g   = sigmoid(x' U + u)                                  [B, T, G]
        a_g   = softmax over k of BN(x' W)                         [B, T, G, K]
        V_k   = sum over t and g of b_g a_gk (x'_g - c_k)          [B, K, E D / G]
        y     = BN(V_k / |V_k| for all k, in a row)                [B, K E D / G]

    All groups share the centres c. The residuals are never in memory; see `pool_residuals`.

    Masking: padded frames have the weight 0, and do not count in the moments of the batch
    normalization; they must be finite. A clip without real frames gives BN(0).

    Args:
        num_clusters: K.
        expansion: E.
        groups: G; must divide E D.
        dual_normalization: whether there is a second set of normalization weights for an auxiliary
            (adversarial) path.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether batch normalization uses the moments of the batch.
        auxiliary_normalization: whether to use the second set of normalization weights.

    Returns:
        float [B, K E D / G].

    Raises:
        ValueError: if a size is not positive, or if `groups` does not divide E D.

    Reference:
        "NeXtVLAD" (Lin, Xiao and Fan, 2018), eq. 3-5 and section 3.2. The batch normalization of
        the assignments and of the output, and the normalization of each V_k, are those of the
        authors' code.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import NeXtVLAD
        >>> vlad = NeXtVLAD(num_clusters=3, expansion=2, groups=4)
        >>> frames = np.ones((1, 5, 8), "float32")
        >>> vlad(frames, frame_mask=np.array([[True] * 4 + [False]])).shape  # 3 * 2 * 8 / 4
        TensorShape([1, 12])
    """

    def __init__(
        self,
        num_clusters: int,
        expansion: int = 2,
        groups: int = 8,
        dual_normalization: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, size in (
            ("num_clusters", num_clusters),
            ("expansion", expansion),
            ("groups", groups),
        ):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        self.num_clusters = num_clusters
        self.expansion = expansion
        self.groups = groups
        self.dual_normalization = dual_normalization
        self.cluster_normalization, self.normalization = (
            DualBatchNormalization(dual_normalization, dtype=self.dtype_policy, name=name)
            for name in ("cluster_normalization", "normalization")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights.

        Raises:
            ValueError: if `groups` does not divide E D.
        """
        size = input_shape[-1]
        expanded = self.expansion * size
        if expanded % self.groups:
            raise ValueError(
                "`groups` must divide the size of the expanded features. "
                f"Received: groups={self.groups}, expansion={self.expansion}, "
                f"input shape {tuple(input_shape)}"
            )
        self.group_size = expanded // self.groups
        scores = self.groups * self.num_clusters
        self.expansion_kernel = self._add("expansion_kernel", (size, expanded))
        self.expansion_bias = self._add("expansion_bias", (expanded,))
        self.attention_kernel = self._add("attention_kernel", (expanded, self.groups))
        self.attention_bias = self._add("attention_bias", (self.groups,))
        self.cluster_kernel = self._add("cluster_kernel", (expanded, scores))
        self.centres = self.add_weight(
            shape=(self.num_clusters, self.group_size),
            initializer=_initializer("fan_out"),
            name="centres",
        )
        self.cluster_normalization.build((*input_shape[:-1], scores))
        self.normalization.build((input_shape[0], self.num_clusters * self.group_size))

    def _add(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        initializer = _initializer("fan_in") if len(shape) > 1 else "zeros"
        return self.add_weight(shape=shape, initializer=initializer, name=name)

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
    ) -> Tensor:
        """Pools the frames; see the class."""
        path = {"training": training, "auxiliary_normalization": auxiliary_normalization}
        batch, num_frames = ops.shape(x)[:2]
        expanded = linear(x, self.expansion_kernel, self.expansion_bias)  # [B, T, E D]
        attention = ops.sigmoid(linear(expanded, self.attention_kernel, self.attention_bias))
        if frame_mask is not None:
            attention *= ops.cast(ops.expand_dims(frame_mask, -1), attention.dtype)
        scores = self.cluster_normalization(
            ops.matmul(expanded, self.cluster_kernel), frame_mask=frame_mask, **path
        )
        # From here on the groups of a frame are rows of their own: [B, T G, ...].
        rows = num_frames * self.groups
        assignments = ops.softmax(ops.reshape(scores, (batch, rows, self.num_clusters)), axis=-1)
        assignments *= ops.reshape(attention, (batch, rows, 1))
        pooled = pool_residuals(
            ops.reshape(expanded, (batch, rows, self.group_size)), assignments, self.centres
        )
        flat = ops.reshape(pooled, (batch, self.num_clusters * self.group_size))
        return self.normalization(ops.cast(flat, self.compute_dtype), **path)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the first set of normalization weights to the second, if there is one."""
        for normalization in (self.cluster_normalization, self.normalization):
            normalization.copy_normalization_to_auxiliary()

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, [B, K E D / G]."""
        size = self.expansion * input_shape[-1] // self.groups
        return (input_shape[0], self.num_clusters * size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "expansion": self.expansion,
            "groups": self.groups,
            "dual_normalization": self.dual_normalization,
        }
