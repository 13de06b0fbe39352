"""Batch normalization over real frames, with a second set of weights for an adversarial path."""

from typing import Any

import keras

Tensor = Any

MOMENTUM = 0.9
"""Momentum of the moving averages: with the 0.999 of the authors' codes, 94 % of the initial values
remain after 60 steps, and an evaluation says little about the training."""


class _BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, which does not hand on its mask: the next layers get theirs as an argument."""

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> None:
        """Returns no mask."""


@keras.saving.register_keras_serializable(package="yt8m_gat")
class DualBatchNormalization(keras.Layer):
    """Normalizes each feature by its mean and variance over the batch: `gamma (x - m) / s + beta`.

    Training uses the moments of the batch and moves their averages; inference uses the averages.

    Masking: padded frames do not count in the moments. They are normalized like the others, so
    that a layer that sums over frames must mask them.

    Args:
        dual_normalization: whether there is a second set of weights and averages for an auxiliary
            (adversarial) path.
        momentum: share of the old value that a moving average keeps at each step.

    Call arguments:
        x: float [B, D] or [B, T, D].
        frame_mask: bool [B, T], True = real frame; `None`: all are real.
        training: whether the moments of the batch are used.
        auxiliary_normalization: whether to use the second set.

    Returns:
        float of the shape of `x`.

    Raises:
        ValueError: if the second set is requested and there is none.

    Reference:
        "Batch Normalization" (Ioffe and Szegedy, 2015), algorithm 1. The second set is that of
        "Adversarial Examples Improve Image Recognition" (Xie et al., 2020), section 3.2, and TAF,
        section 3.3; it is dropped at inference.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import DualBatchNormalization
        >>> frames = np.array([[[1.0], [3.0], [50.0]]], "float32")
        >>> frame_mask = np.array([[True, True, False]])
        >>> normalized = DualBatchNormalization()(frames, frame_mask=frame_mask, training=True)
        >>> normalized[0, :2].numpy().round(2)
        array([[-1.],
               [ 1.]], dtype=float32)
    """

    def __init__(
        self, dual_normalization: bool = False, momentum: float = MOMENTUM, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dual_normalization = dual_normalization
        self.momentum = momentum
        self.normalization = self._make("normalization")
        self.auxiliary_normalization = (
            self._make("auxiliary_normalization") if dual_normalization else None
        )

    def _make(self, name: str) -> _BatchNormalization:
        return _BatchNormalization(momentum=self.momentum, dtype=self.dtype_policy, name=name)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights and averages of both sets."""
        self.normalization.build(input_shape)
        if self.auxiliary_normalization is not None:
            self.auxiliary_normalization.build(input_shape)

    def call(
        self,
        x: Tensor,
        frame_mask: Tensor | None = None,
        training: bool | None = None,
        auxiliary_normalization: bool = False,
    ) -> Tensor:
        """Normalizes; see the class."""
        if not auxiliary_normalization:
            return self.normalization(x, training=training, mask=frame_mask)
        if self.auxiliary_normalization is None:
            raise ValueError(
                "`auxiliary_normalization` needs a second set of normalization layers. "
                "Received: dual_normalization=False; construct the model with "
                "dual_normalization=True"
            )
        return self.auxiliary_normalization(x, training=training, mask=frame_mask)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set to the second, if there is one."""
        if self.auxiliary_normalization is not None:
            self.auxiliary_normalization.set_weights(self.normalization.get_weights())

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, that of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "dual_normalization": self.dual_normalization,
            "momentum": self.momentum,
        }
