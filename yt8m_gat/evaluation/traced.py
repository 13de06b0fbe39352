"""One graph for batches of any size."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def traced(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """`function` as one graph, whatever the B and T of its tensors.

    The graph itself, not a `tf.function`, which is traced anew when a second size comes, and of
    which TensorFlow warns when there are many (each row of an evaluation has one of its own).

    Args:
        function: Of nested tensors.
        examples: Its arguments for one batch: tensors [], [B], [B, C], [B, D], [B, T] (bool) or
            [B, T, D]; their kinds and their numbers of features and classes are those of all
            batches.
    """

    def spec_of(value: tf.Tensor) -> tf.TensorSpec:
        rank = value.shape.rank
        free = 2 if rank == 3 or value.dtype == tf.bool else min(rank, 1)
        return tf.TensorSpec([None] * free + value.shape.as_list()[free:], value.dtype)

    signature = tf.nest.map_structure(spec_of, list(examples))
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
