"""Sums whose gradients TensorFlow can merge."""

from typing import Any

import keras
from keras import ops

Tensor = Any


def sum_over(x: Tensor, axis: int) -> Tensor:
    """Returns `ops.sum(x, axis)`, for sums that an adversarial step differentiates twice.

    TensorFlow's own gradient of a sum over a tensor of unknown shape is pinned to operations of
    that one backward pass (colocation), so that a second, identical backward pass is computed
    again from there on, instead of being merged with the first.

    Args:
        x: float, of any shape.
        axis: the axis to sum over, negative from the end.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.sum(x, axis=axis)

    @ops.custom_gradient
    def total(x: Tensor) -> tuple[Tensor, Any]:
        def gradient(upstream: Tensor) -> Tensor:
            return ops.broadcast_to(ops.expand_dims(upstream, axis), ops.shape(x))

        return ops.sum(x, axis=axis), gradient

    return total(x)
