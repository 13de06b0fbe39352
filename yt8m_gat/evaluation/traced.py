"""One graph for batches of any size."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def traced(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """Traces `function` as one graph for any B and T of its tensors.

    Returns the graph itself, not a `tf.function`, which would be traced again for a second size,
    and about which TensorFlow warns if there are many (each row of an evaluation has its own).

    Args:
        function: A function of nested tensors.
        examples: Its arguments for one batch: tensors [], [B], [B, C], [B, D], [B, T] (bool) or
            [B, T, D]; all batches must have the same types and numbers of features and classes.
    """

    def spec_of(value: tf.Tensor) -> tf.TensorSpec:
        rank = value.shape.rank
        free = 2 if rank == 3 or value.dtype == tf.bool else min(rank, 1)
        return tf.TensorSpec([None] * free + value.shape.as_list()[free:], value.dtype)

    signature = tf.nest.map_structure(spec_of, list(examples))
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
