"""Context gating: each feature is weighted by a gate that depends on all of them."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.dual_batch_normalization import DualBatchNormalization

Tensor = Any


@keras.saving.register_keras_serializable(package="yt8m_gat")
class ContextGating(keras.Layer):
    """Weights each feature by a gate in (0, 1).

        y = sigmoid(BN(x W)) * x                        W [D, D]
        y = sigmoid(relu(BN(x W_1)) W_2) * x            W_1 [D, D / r], W_2 [D / r, D]

    The second form, with a reduction r, is the squeeze-and-excitation form, in which the gates have
    `2 D^2 / r` weights instead of `D^2`. Batch normalization takes the place of the biases, as in
    the authors' codes; the paper prints `sigmoid(W x + b)`.

    Masking: padded frames do not count in the moments of the batch normalization. A row depends on
    no other row otherwise, and a row of zeros stays 0.

    Args:
        reduction: r; `None`: the first form.
        dual_normalization: whether there is a second set of normalization weights for an auxiliary
            (adversarial) path.

    Call arguments:
        x: float [B, D] or [B, T, D].
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether batch normalization uses the moments of the batch.
        auxiliary_normalization: whether to use the second set of normalization weights.

    Returns:
        float of the shape of `x`.

    Raises:
        ValueError: if `reduction` is not between 1 and D.

    Reference:
        "Learnable pooling with Context Gating for video classification" (Miech, Laptev and Sivic,
        2017), eq. 3; with a reduction NeXtVLAD (Lin, Xiao and Fan, 2018), section 3.3 (SE Context
        Gating).

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import ContextGating
        >>> gating = ContextGating(reduction=2)
        >>> gated = gating(np.ones((1, 4), "float32"))
        >>> gated.shape, bool(np.all((gated > 0) & (gated < 1)))
        (TensorShape([1, 4]), True)
    """

    def __init__(
        self, reduction: int | None = None, dual_normalization: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if reduction is not None and reduction < 1:
            raise ValueError(f"`reduction` must be positive. Received: reduction={reduction}")
        self.reduction = reduction
        self.dual_normalization = dual_normalization
        self.normalization = DualBatchNormalization(
            dual_normalization, dtype=self.dtype_policy, name="gate_normalization"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels of the gates and the batch normalization.

        Raises:
            ValueError: if `reduction` is larger than D.
        """
        size = input_shape[-1]
        if self.reduction is None:
            self.kernel = self._add_kernel("kernel", (size, size), 1.0)
            self.normalization.build(input_shape)
            return
        if self.reduction > size:
            raise ValueError(
                "`reduction` must be at most the number of features. "
                f"Received: reduction={self.reduction}, input shape {tuple(input_shape)}"
            )
        width = size // self.reduction
        # The factor 2 is that of the authors' initializer, slim's variance scaling.
        self.kernel = self._add_kernel("kernel", (size, width), 2.0)
        self.expanding_kernel = self._add_kernel("expanding_kernel", (width, size), 2.0)
        self.normalization.build((*input_shape[:-1], width))

    def _add_kernel(self, name: str, shape: tuple[int, int], factor: float) -> keras.Variable:
        initializer = keras.initializers.VarianceScaling(factor, "fan_in", "untruncated_normal")
        return self.add_weight(shape=shape, initializer=initializer, name=name)

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
    ) -> Tensor:
        """Gates the features; see the class."""
        gates = self.normalization(
            ops.matmul(x, self.kernel),
            frame_mask=frame_mask,
            training=training,
            auxiliary_normalization=auxiliary_normalization,
        )
        if self.reduction is not None:
            gates = ops.matmul(ops.relu(gates), self.expanding_kernel)
        return ops.sigmoid(gates) * x

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the first set of normalization weights to the second, if there is one."""
        self.normalization.copy_normalization_to_auxiliary()

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, that of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "reduction": self.reduction,
            "dual_normalization": self.dual_normalization,
        }
