"""What an attack raises, beside the loss that the model was trained with."""

from typing import Any

import tensorflow as tf


def margin_loss(labels: Any, logits: Any) -> tf.Tensor:
    """How far the worst label is below the best other class: float [B].

    ```
    margin = max over k not in labels of z_k  -  min over k in labels of z_k
    ```

    Above 0: at least one label is outranked by a class that is none. Unlike the cross-entropy it
    neither saturates on a confident model nor is it drowned by thousands of easy negatives. A clip
    without labels has the first term alone (the attack raises a false class), a clip with all
    labels the second alone.

    Args:
        labels: [B, C], multi-hot.
        logits: Float [B, C].

    Reference: the multi-class margin of Carlini and Wagner, 2017 (f_6), for several labels.
    """
    positive = tf.convert_to_tensor(labels) > 0
    logits = tf.convert_to_tensor(logits)
    highest_other = tf.reduce_max(tf.where(positive, logits.dtype.min, logits), axis=-1)
    lowest_label = tf.reduce_min(tf.where(positive, logits, logits.dtype.max), axis=-1)
    zero = tf.zeros_like(highest_other)
    return tf.where(tf.reduce_all(positive, axis=-1), zero, highest_other) - tf.where(
        tf.reduce_any(positive, axis=-1), lowest_label, zero
    )
