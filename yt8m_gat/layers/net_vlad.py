"""NetVLAD: the residuals of a clip's frames to learned cluster centres."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.residual_pooling import l2_normalize, pool_residuals
from yt8m_gat.layers.soft_assignment import SoftAssignment

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class NetVLAD(SoftAssignment):
    """Pools frames into their residuals to K centres c, weighted by their soft assignment a.

        V_k = sum over t of a_k(x_t) (x_t - c_k)               [B, K, D]
        y   = v / |v|,  v = V_k / |V_k| for all k, in a row    [B, K D]

    The residuals of the frames are never in memory; see `pool_residuals`.

    Masking: padded frames never count; they must be finite. A clip without real frames gives
    exactly 0.

    Args:
        num_clusters: K.
        dual_normalization: whether there is a second set of normalization weights for an auxiliary
            (adversarial) path.

    Call arguments:
        x: float [B, T, D]; `T` may be unknown.
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether batch normalization uses the moments of the batch.
        auxiliary_normalization: whether to use the second set of normalization weights.

    Returns:
        float [B, K D].

    Raises:
        ValueError: if `num_clusters` is not positive.

    Reference:
        "NetVLAD" (Arandjelovic et al., 2016), eq. 4 and figure 2; over the frames of a video as in
        "Learnable pooling with Context Gating" (Miech, Laptev and Sivic, 2017), section 3.1.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import NetVLAD
        >>> frames = np.random.default_rng(0).normal(size=(1, 5, 4)).astype("float32")
        >>> pooled = NetVLAD(3)(frames, frame_mask=np.array([[True] * 4 + [False]])).numpy()
        >>> pooled.shape, float(np.linalg.norm(pooled).round(3))
        ((1, 12), 1.0)
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights of the assignment and the centres [K, D]."""
        super().build(input_shape)
        self.centres = self.add_weight(
            shape=(self.num_clusters, input_shape[-1]),
            # The authors' normal distribution of deviation 1 / sqrt(D).
            initializer=keras.initializers.VarianceScaling(1.0, "fan_out", "untruncated_normal"),
            name="centres",
        )

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
    ) -> Tensor:
        """Pools the frames; see the class."""
        shares = self.assign(x, frame_mask, training, auxiliary_normalization)
        pooled = pool_residuals(x, shares, self.centres)
        flat = ops.reshape(pooled, (-1, self.num_clusters * x.shape[-1]))
        return ops.cast(l2_normalize(flat), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, [B, K D]."""
        return (input_shape[0], self.num_clusters * input_shape[-1])
