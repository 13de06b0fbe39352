"""The soft bag of frames: how often a clip shows each of K clusters."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.residual_pooling import l2_normalize
from yt8m_gat.layers.soft_assignment import SoftAssignment
from yt8m_gat.reduction import sum_over

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class SoftBagOfFrames(SoftAssignment):
    """Sums the soft assignments of the frames to K clusters: `y = s / |s|, s = sum over t of a_t`.

    Masking: padded frames never count. A clip without real frames gives exactly 0.

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
        float [B, K].

    Raises:
        ValueError: if `num_clusters` is not positive.

    Reference:
        "Learnable pooling with Context Gating" (Miech, Laptev and Sivic, 2017), section 3.1
        (Soft-DBoW). The l2 normalization is that of the authors' code (SoftDBoF).

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import SoftBagOfFrames
        >>> SoftBagOfFrames(3)(np.ones((2, 5, 4), "float32")).shape
        TensorShape([2, 3])
    """

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
    ) -> Tensor:
        """Pools the frames; see the class."""
        shares = self.assign(x, frame_mask, training, auxiliary_normalization)
        totals = sum_over(ops.cast(shares, "float32"), axis=1)
        return ops.cast(l2_normalize(totals), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, [B, K]."""
        return (input_shape[0], self.num_clusters)
