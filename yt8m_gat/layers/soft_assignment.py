"""Soft assignment of frames to clusters, on which NetVLAD and the soft bag of frames are built."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.dual_batch_normalization import DualBatchNormalization

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class SoftAssignment(keras.Layer):
    """Shares each frame among K clusters: `a = softmax over k of BN(x W)`.

    Masking: a padded frame is not assigned: its shares are exactly 0. It does not count in the
    moments of the batch normalization either.

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
        float [B, T, K].

    Raises:
        ValueError: if `num_clusters` is not positive.

    Reference:
        "NetVLAD" (Arandjelovic et al., 2016), eq. 3. The batch normalization in the place of a bias
        is that of the code of Miech, Laptev and Sivic (2017).

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import SoftAssignment
        >>> frame_mask = np.array([[True, False]])
        >>> shares = SoftAssignment(3)(np.ones((1, 2, 4), "float32"), frame_mask=frame_mask)
        >>> shares.numpy().sum(axis=-1).round(5)
        array([[1., 0.]], dtype=float32)
    """

    def __init__(self, num_clusters: int, dual_normalization: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_clusters < 1:
            raise ValueError(
                f"`num_clusters` must be positive. Received: num_clusters={num_clusters}"
            )
        self.num_clusters = num_clusters
        self.dual_normalization = dual_normalization
        self.cluster_normalization = DualBatchNormalization(
            dual_normalization, dtype=self.dtype_policy, name="cluster_normalization"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernel [D, K] and the batch normalization."""
        self.cluster_kernel = self.add_weight(
            shape=(input_shape[-1], self.num_clusters),
            # The authors' normal distribution of deviation 1 / sqrt(D).
            initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal"),
            name="cluster_kernel",
        )
        self.cluster_normalization.build((*input_shape[:-1], self.num_clusters))

    def assign(
        self, x: Tensor, frame_mask: Tensor | None, training: bool | None, auxiliary: bool
    ) -> Tensor:
        """Computes the shares [B, T, K]; see the class."""
        scores = self.cluster_normalization(
            ops.matmul(x, self.cluster_kernel),
            frame_mask=frame_mask,
            training=training,
            auxiliary_normalization=auxiliary,
        )
        shares = ops.softmax(scores, axis=-1)
        if frame_mask is None:
            return shares
        return shares * ops.cast(ops.expand_dims(frame_mask, -1), shares.dtype)

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
    ) -> Tensor:
        """Computes the layer's output; see the class."""
        return self.assign(x, frame_mask, training, auxiliary_normalization)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the first set of normalization weights to the second, if there is one."""
        self.cluster_normalization.copy_normalization_to_auxiliary()

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output."""
        return (*input_shape[:-1], self.num_clusters)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "dual_normalization": self.dual_normalization,
        }
