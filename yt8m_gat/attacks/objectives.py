"""What attacks raise other than the model's training loss, and when they have succeeded."""

import dataclasses
from typing import Any

import tensorflow as tf

CRITERIA = ("top1", "any", "all")


@dataclasses.dataclass(frozen=True)
class Criterion:
    """When an attack on a clip has succeeded, and the losses that lead there.

    | name   | met where                                   | j                 | label |
    |--------|---------------------------------------------|-------------------|-------|
    | `top1` | the top class is none of the labels         | 1                 | max   |
    | `any`  | a label is not among the max(k, P) highest  | max(k, P) - P + 1 | min   |
    | `all`  | no label is among the k highest classes     | k                 | max   |

    P is the number of the clip's labels, and the criterion is met where the `margin` is above 0:

    ```
    margin = (the j-th highest logit of the other classes) - (max or min over the labels' logits)
    ratio  = margin / (z_(1) - z_(P + j + 1))
    ```

    with z_(i) the i-th highest of all logits. A clip with P > k labels cannot have them all among
    the k highest, hence max(k, P) in `any`; with fewer than j other classes, the lowest counts.

    `ratio` is the difference of logits ratio (DLR). Its sign is that of the margin, and no scaling
    or shift of the logits changes its value or the direction of its gradient: a model cannot hide
    behind large or small logits. With one label, `top1` is the DLR of the paper (eq. 3). Our
    multi-label reading takes for the denominator the rank below that of the numerator's class where
    all labels lead, so that, as in the paper, the value is then in [-1, 0]. Where that rank does
    not exist, it is the lowest, and the denominator counts as a constant: differentiated, it would
    cancel the numerator.

    A clip without labels or without other classes has only the other term as its margin, and a
    ratio of 0, as where all the logits in the denominator are equal.

    Args:
        name: `top1`, `any` or `all`.
        k: Number of highest classes; `top1` does not use it.

    Raises:
        ValueError: If the name is unknown or k not positive.

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks", 2020, for a single label.

    Examples:
        >>> from yt8m_gat.attacks import Criterion
        >>> labels, logits = [[1.0, 1.0, 0.0, 0.0]], [[4.0, 1.0, 3.0, 0.0]]
        >>> for criterion in (Criterion("top1"), Criterion("any", k=2), Criterion("all", k=2)):
        ...     print(criterion.margin(labels, logits).numpy())
        [-1.]
        [2.]
        [-4.]
    """

    name: str = "top1"
    k: int = 5

    def __post_init__(self) -> None:
        if self.name not in CRITERIA:
            raise ValueError(
                f"`name` must be one of {', '.join(CRITERIA)}. Received: name={self.name!r}"
            )
        if self.k < 1:
            raise ValueError(f"`k` must be at least 1. Received: k={self.k}")

    def margin(
        self, labels: Any, logits: Any, label_weights: Any = None, target: Any = None
    ) -> tf.Tensor:
        """Returns the margin, float [B].

        Args:
            labels: [B, C], multi-hot.
            logits: Float [B, C].
            label_weights: [B, C], above 0 at the classes that count, as in the losses; a class that
                was not rated is in neither term. None: all classes count.
            target: Bool [B, C], see `target`: these classes' lowest logit replaces the first term.
        """
        return self._margin(_Classes.of(labels, logits, label_weights), target)

    def ratio(
        self, labels: Any, logits: Any, label_weights: Any = None, target: Any = None
    ) -> tf.Tensor:
        """Returns the difference of logits ratio, float [B].

        Args:
            labels: As in `margin`.
            logits: As in `margin`.
            label_weights: As in `margin`.
            target: As in `margin`. The denominator is then, as in the paper's eq. 4, z_(1) less the
                mean of z_(P + j + 1) and z_(P + j + 2).
        """
        classes = _Classes.of(labels, logits, label_weights)
        rank = classes.num_labels + self._others_needed(classes)
        ordered = _descending(classes.logits, classes.rated)
        low = classes.at(ordered, rank)
        if target is not None:
            rank += 1
            low = (low + classes.at(ordered, rank)) / 2.0
        spread = ordered[:, 0] - low
        spread = tf.where(rank < classes.num_rated, spread, tf.stop_gradient(spread))
        divides = tf.logical_and(classes.have_margin, spread > 0)
        # A quotient by 0 in the branch that is not taken would make the gradient NaN.
        ratio = self._margin(classes, target) / tf.where(divides, spread, 1.0)
        return tf.where(divides, ratio, tf.zeros_like(ratio))

    def met(self, labels: Any, logits: Any, label_weights: Any = None) -> tf.Tensor:
        """Returns a bool [B]: whether the margin of a clip with both terms is above 0."""
        classes = _Classes.of(labels, logits, label_weights)
        return tf.logical_and(classes.have_margin, self._margin(classes, None) > 0)

    def target(self, labels: Any, logits: Any, rank: Any, label_weights: Any = None) -> tf.Tensor:
        """Returns the bool [B, C] of the j other classes from the `rank`-th highest (from 0) on."""
        classes = _Classes.of(labels, logits, label_weights)
        keys = tf.where(classes.others, classes.logits, classes.logits.dtype.min)
        order = tf.argsort(keys, axis=-1, direction="DESCENDING", stable=True)
        ranks = tf.argsort(order, axis=-1, stable=True)
        needed = self._others_needed(classes)
        num_others = classes.num_rated - classes.num_labels
        first = tf.minimum(rank, tf.maximum(num_others - needed, 0))[:, tf.newaxis]
        chosen = tf.logical_and(ranks >= first, ranks < first + needed[:, tf.newaxis])
        return tf.logical_and(chosen, classes.others)

    def _others_needed(self, classes: "_Classes") -> tf.Tensor:
        """Returns j, int32 [B]."""
        if self.name == "any":
            return tf.maximum(self.k - classes.num_labels, 0) + 1
        return tf.fill(tf.shape(classes.num_labels), self.k if self.name == "all" else 1)

    def _margin(self, classes: "_Classes", target: Any) -> tf.Tensor:
        if target is not None:
            other = _extreme(tf.reduce_min, classes.logits, target)
        elif self.name == "top1":
            other = _extreme(tf.reduce_max, classes.logits, classes.others)
        else:
            num_others = classes.num_rated - classes.num_labels
            last = tf.minimum(self._others_needed(classes), num_others) - 1
            ordered = _descending(classes.logits, classes.others)
            other = tf.gather(ordered, tf.maximum(last, 0), batch_dims=1)
            other = tf.where(num_others > 0, other, tf.zeros_like(other))
        reduce = tf.reduce_min if self.name == "any" else tf.reduce_max
        return other - _extreme(reduce, classes.logits, classes.positive)


@dataclasses.dataclass(frozen=True)
class _Classes:
    """The classes of each clip: [B, C], and their numbers, int32 [B]."""

    logits: tf.Tensor
    rated: tf.Tensor
    positive: tf.Tensor
    others: tf.Tensor
    num_rated: tf.Tensor
    num_labels: tf.Tensor

    @classmethod
    def of(cls, labels: Any, logits: Any, label_weights: Any) -> "_Classes":
        logits = tf.convert_to_tensor(logits)
        positive = tf.convert_to_tensor(labels) > 0
        rated = tf.ones_like(positive)
        if label_weights is not None:
            rated = tf.convert_to_tensor(label_weights) > 0
        positive = tf.logical_and(rated, positive)
        others = tf.logical_and(rated, tf.logical_not(positive))
        return cls(logits, rated, positive, others, _count(rated), _count(positive))

    @property
    def have_margin(self) -> tf.Tensor:
        """Bool [B]: whether a clip has labels and other classes."""
        return tf.logical_and(self.num_labels > 0, self.num_labels < self.num_rated)

    def at(self, ordered: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        """Returns `ordered` [B, C] at `rank` [B] (from 0), or at the last rated class."""
        last = tf.maximum(self.num_rated - 1, 0)
        return tf.gather(ordered, tf.minimum(rank, last), batch_dims=1)


def _count(classes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(classes, tf.int32), axis=-1)


def _descending(logits: tf.Tensor, among: tf.Tensor) -> tf.Tensor:
    return tf.sort(tf.where(among, logits, logits.dtype.min), axis=-1, direction="DESCENDING")


def _extreme(reduce: Any, logits: tf.Tensor, among: tf.Tensor) -> tf.Tensor:
    """Returns the highest or lowest logit among some classes, [B]; 0 where there are none."""
    outside = logits.dtype.max if reduce is tf.reduce_min else logits.dtype.min
    value = reduce(tf.where(among, logits, outside), axis=-1)
    return tf.where(tf.reduce_any(among, axis=-1), value, tf.zeros_like(value))


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
    return Criterion("top1").margin(labels, logits, label_weights)


def dlr_loss(labels: Any, logits: Any, label_weights: Any = None) -> tf.Tensor:
    """Returns the difference of logits ratio: the margin over a spread of the logits, float [B].

    ```
    dlr = (max over k not in labels of z_k  -  max over k in labels of z_k) / (z_(1) - z_(P + 2))
    ```

    with P labels: the `ratio` of `Criterion("top1")`, which says how it extends the loss of Croce
    and Hein, 2020, and when it is 0.

    Args:
        labels: [B, C], multi-hot.
        logits: Float [B, C].
        label_weights: As in `margin_loss`: a class that was not rated is in neither part.

    Examples:
        >>> from yt8m_gat.attacks import dlr_loss
        >>> dlr_loss([[1.0, 0.0, 0.0]], [[30.0, 20.0, 10.0]]).numpy()  # (20 - 30) / (30 - 10)
        array([-0.5], dtype=float32)
    """
    return Criterion("top1").ratio(labels, logits, label_weights)


def normalized_loss(labels: Any, logits: Any, label_weights: Any = None) -> tf.Tensor:
    """Returns the binary cross-entropy of logits that are scaled to a fixed spread: float [B].

    ```
    loss = mean over classes of BCE(y, 2 z / s),  s = standard deviation of z over the classes
    ```

    No positive factor on the logits changes the value or the direction of its gradient, so that a
    model with large logits is attacked like one with small ones. Unlike `dlr_loss` it is about all
    classes, as GAP is. The spread of 2 is about that of the logits of models of YouTube-8M, whose
    own loss it then nearly is. Logits that are all equal count as 0: their gradient is 0.

    Args:
        labels: [B, C], multi-hot.
        logits: Float [B, C].
        label_weights: As in `margin_loss`: classes that were not rated do not count.

    Examples:
        >>> from yt8m_gat.attacks import normalized_loss
        >>> normalized_loss([[1.0, 0.0]], [[3.0, 1.0]]).numpy().round(4)  # As of logits 6 and 2.
        array([1.0647], dtype=float32)
        >>> normalized_loss([[1.0, 0.0]], [[3e4, 1e4]]).numpy().round(4)
        array([1.0647], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    positive = tf.convert_to_tensor(labels) > 0
    rated = tf.ones_like(logits)
    if label_weights is not None:
        rated = tf.cast(tf.convert_to_tensor(label_weights) > 0, logits.dtype)
    num_rated = tf.maximum(tf.reduce_sum(rated, axis=-1, keepdims=True), 1.0)
    # Large logits would overflow when squared.
    largest = tf.stop_gradient(tf.reduce_max(rated * tf.abs(logits), axis=-1, keepdims=True))
    logits = tf.math.divide_no_nan(logits, largest)
    mean = tf.reduce_sum(rated * logits, axis=-1, keepdims=True) / num_rated
    variance = tf.reduce_sum(rated * tf.square(logits - mean), axis=-1, keepdims=True) / num_rated
    # The square root has no gradient at 0.
    deviation = tf.sqrt(tf.where(variance > 0, variance, 1.0))
    scaled = tf.where(variance > 0, 2.0 * logits / deviation, 0.0)
    terms = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(positive, logits.dtype), scaled)
    return tf.reduce_sum(rated * terms, axis=-1) / num_rated[:, 0]


# Objective -> `(labels, logits, label_weights) -> [B]`; a further one, `loss`, is the model's own.
OBJECTIVE_LOSSES = {"margin": margin_loss, "dlr": dlr_loss, "normalized": normalized_loss}
OBJECTIVES = ("loss", *OBJECTIVE_LOSSES)
