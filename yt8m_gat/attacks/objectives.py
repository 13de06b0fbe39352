"""The margin loss: an attack's objective other than the model's training loss."""

from typing import Any

import tensorflow as tf


def margin_loss(labels: Any, logits: Any, label_weights: Any = None) -> tf.Tensor:
    """Returns how far the best label is below the best other class: float [B].

    ```
    margin = max over k not in labels of z_k  -  max over k in labels of z_k
    ```

    The margin is above 0 exactly where the top-1 class is none of the labels, as `top1_missed` and
    Hit@1 measure it. Unlike the cross-entropy it does not saturate on a confident model, and
    thousands of easy negatives do not dominate it. A clip without labels has only the first term
    (the attack raises a false class), a clip with all labels only the second.

    Args:
        labels: [B, C], multi-hot.
        logits: Float [B, C].
        label_weights: [B, C], above 0 at the classes that count, as in the losses; a class that
            was not rated is in neither term. None: all classes count.

    Reference: the multi-class margin of Carlini and Wagner, 2017 (f_6), with the highest of
    several labels in place of the single label.

    Examples:
        >>> from yt8m_gat.attacks import margin_loss
        >>> margin_loss([[1.0, 0.0, 1.0]], [[0.5, 2.0, 1.0]]).numpy()
        array([1.], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    positive = tf.convert_to_tensor(labels) > 0
    rated = tf.ones_like(positive)
    if label_weights is not None:
        rated = tf.convert_to_tensor(label_weights) > 0

    def highest(among: tf.Tensor) -> tf.Tensor:
        value = tf.reduce_max(tf.where(among, logits, logits.dtype.min), axis=-1)
        return tf.where(tf.reduce_any(among, axis=-1), value, tf.zeros_like(value))

    others = highest(tf.logical_and(rated, tf.logical_not(positive)))
    return others - highest(tf.logical_and(rated, positive))
