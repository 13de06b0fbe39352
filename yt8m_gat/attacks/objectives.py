"""The objectives of attacks other than the model's training loss."""

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


def dlr_loss(labels: Any, logits: Any, label_weights: Any = None) -> tf.Tensor:
    """Returns the difference of logits ratio: the margin over a spread of the logits, float [B].

    ```
    dlr = (max over k not in labels of z_k  -  max over k in labels of z_k) / (z_(1) - z_(P + 2))
    ```

    z_(i) is the i-th highest logit and P the number of the clip's labels. The sign is that of
    `margin_loss`, and no scaling or shift of the logits changes the value or the direction of its
    gradient: a model cannot hide behind large or small logits.

    With one label this is the DLR of the paper. Our multi-label reading takes the rank after the
    one that the first of the other classes has where all labels lead, so that, as in the paper, the
    value is then in [-1, 0]. Where only P + 1 classes are rated or exist, z_(P + 2) is the lowest
    logit and the spread counts as a constant: differentiated, it would cancel the margin.

    A clip without labels, or without other classes, has no margin: its value and gradient are 0.
    They are 0, too, where all the logits in the spread are equal.

    Args:
        labels: [B, C], multi-hot.
        logits: Float [B, C].
        label_weights: As in `margin_loss`: a class that was not rated is in neither part.

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks", 2020, eq. 3, for a single label.

    Examples:
        >>> from yt8m_gat.attacks import dlr_loss
        >>> dlr_loss([[1.0, 0.0, 0.0]], [[30.0, 20.0, 10.0]]).numpy()  # (20 - 30) / (30 - 10)
        array([-0.5], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    positive = tf.convert_to_tensor(labels) > 0
    rated = tf.ones_like(positive)
    if label_weights is not None:
        rated = tf.convert_to_tensor(label_weights) > 0
    positive = tf.logical_and(rated, positive)
    num_labels, num_rated = _count(positive), _count(rated)
    ordered = tf.sort(tf.where(rated, logits, logits.dtype.min), axis=-1, direction="DESCENDING")
    last = tf.gather(
        ordered, tf.clip_by_value(num_labels + 1, 0, tf.maximum(num_rated - 1, 0)), batch_dims=1
    )
    spread = ordered[:, 0] - last
    spread = tf.where(num_labels + 1 < num_rated, spread, tf.stop_gradient(spread))
    has_margin = tf.logical_and(num_labels > 0, num_labels < num_rated)
    # A quotient by 0 in the branch that is not taken would make the gradient NaN.
    divides = tf.logical_and(has_margin, spread > 0)
    ratio = margin_loss(labels, logits, label_weights) / tf.where(divides, spread, 1.0)
    return tf.where(divides, ratio, tf.zeros_like(ratio))


def _count(classes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(classes, tf.int32), axis=-1)


# Objective -> `(labels, logits, label_weights) -> [B]`; a further one, `loss`, is the model's own.
OBJECTIVE_LOSSES = {"margin": margin_loss, "dlr": dlr_loss}
OBJECTIVES = ("loss", *OBJECTIVE_LOSSES)
