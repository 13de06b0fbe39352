"""Classification losses of the YouTube-8M starter code, computed from logits.

All of them reduce over the classes to one value per example; the caller averages over the batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from keras import KerasTensor, backend, ops, saving

from yt8m_gat.reduction import sum_over

_CLASS_REDUCTIONS = ("mean", "sum")


class ClassificationLoss(ABC):
    """Base of the classification losses: precision, label weights and the class reduction.

    The loss is computed in float32 or, where they are wider, in the dtype of the logits.

    With `label_weights` w (for example the ratings of the 2019 segments) the reduction is
    sum(w * term) and, for "mean", that divided by sum(w), or 0 where no pair is rated. The label
    of a pair with weight 0 is unknown and read as 0.

    Args:
        class_reduction: "mean" over the classes (as the GAT papers' models) or "sum" (as the
            starter code; a fresh logistic model then starts at C ln 2 with `CrossEntropyLoss`).
        unrated_as_negative: Whether to ignore the label weights: all pairs count equally, and
            pairs with weight 0 have the label in `labels`.

    Raises:
        ValueError: If `class_reduction` is neither.
    """

    def __init__(self, class_reduction: str, unrated_as_negative: bool = False):
        if class_reduction not in _CLASS_REDUCTIONS:
            raise ValueError(
                f"`class_reduction` must be one of {', '.join(_CLASS_REDUCTIONS)}. "
                f"Received: class_reduction={class_reduction!r}"
            )
        self.class_reduction = class_reduction
        self.unrated_as_negative = unrated_as_negative

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "class_reduction": self.class_reduction,
            "unrated_as_negative": self.unrated_as_negative,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ClassificationLoss":
        """Makes the loss from the result of `get_config`."""
        return cls(**config)

    def __call__(
        self,
        labels: KerasTensor,
        logits: KerasTensor,
        label_weights: KerasTensor | None = None,
    ) -> KerasTensor:
        """Computes the loss of each example.

        Args:
            labels: Multi-hot or soft labels in [0, 1], `[B, C]`.
            logits: Scores before the sigmoid or softmax, `[B, C]`.
            label_weights: Weights >= 0, `[B, C]`, or None for 1 everywhere.

        Returns:
            `[B]`, float32 or wider.

        Raises:
            ValueError: If the static shapes differ.
        """
        logits = ops.convert_to_tensor(logits)
        dtype = backend.result_type(logits.dtype, "float32")
        logits = ops.cast(logits, dtype)
        labels = ops.cast(labels, dtype)
        _check_same_shape("`labels`", labels, logits)
        if label_weights is None or self.unrated_as_negative:
            total = sum_over(self.class_terms(labels, logits), axis=-1)
            if self.class_reduction == "sum":
                return total
            return total / ops.cast(ops.shape(logits)[-1], dtype)
        label_weights = ops.cast(label_weights, dtype)
        _check_same_shape("`label_weights`", label_weights, logits)
        labels = self.known(labels, label_weights)
        total = sum_over(self.class_terms(labels, logits) * label_weights, axis=-1)
        if self.class_reduction == "sum":
            return total
        return ops.divide_no_nan(total, ops.sum(label_weights, axis=-1))

    def known(self, labels: KerasTensor, label_weights: KerasTensor) -> KerasTensor:
        """Returns the labels with 0 where the weight is 0 and the label thus unknown."""
        return ops.where(label_weights > 0, labels, ops.zeros_like(labels))

    @abstractmethod
    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the term of each class, `[B, C]`, from labels and logits of one dtype."""


@saving.register_keras_serializable(package="yt8m_gat")
class CrossEntropyLoss(ClassificationLoss):
    """Binary cross-entropy of independent sigmoids.

        term = -y log sigmoid(z) - (1 - y) log(1 - sigmoid(z))
             = max(z, 0) - z y + log(1 + exp(-|z|))

    computed in the second form, which is exact up to rounding for any finite logit. (The starter
    code adds 1e-5 inside the logs of probabilities instead.) Reduction and weights are those of
    `ClassificationLoss`.

    Args:
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.
        label_smoothing: s in [0, 1]: labels y become (1 - s) y + s / 2, as in
            `keras.losses.BinaryCrossentropy`.

    Examples:
        >>> from yt8m_gat.losses import CrossEntropyLoss
        >>> CrossEntropyLoss("sum")([[1.0, 0.0]], [[0.0, 0.0]]).numpy().round(4)  # 2 log 2
        array([1.3863], dtype=float32)
    """

    def __init__(
        self, class_reduction: str, unrated_as_negative: bool = False, label_smoothing: float = 0.0
    ):
        super().__init__(class_reduction, unrated_as_negative)
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the binary cross-entropy of each class, `[B, C]`."""
        if self.label_smoothing:
            labels = (1.0 - self.label_smoothing) * labels + self.label_smoothing / 2
        return ops.binary_crossentropy(labels, logits, from_logits=True)


@saving.register_keras_serializable(package="yt8m_gat")
class HingeLoss(ClassificationLoss):
    """Hinge loss with margin 1.

        term = max(0, 1 - (2 y - 1) z)

    on the logit z. (The starter code applies it to the probability, which cannot reach the margin
    of a negative label.) Reduction and weights are those of `ClassificationLoss`.

    Examples:
        >>> from yt8m_gat.losses import HingeLoss
        >>> HingeLoss("sum")([[1.0, 0.0]], [[0.5, -2.0]]).numpy()
        array([0.5], dtype=float32)
    """

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the hinge loss of each class, `[B, C]`."""
        return ops.relu(1.0 - (2.0 * labels - 1.0) * logits)


@saving.register_keras_serializable(package="yt8m_gat")
class SoftmaxLoss(ClassificationLoss):
    """Cross-entropy of one softmax over the classes against the labels divided by their sum.

        term = -y / sum(y) * log softmax(z)

    An example without a label has loss 0. (The starter code feeds probabilities to the softmax,
    this loss feeds logits.) The usual softmax cross-entropy is the "sum" of the terms over the
    classes; "mean" divides it by C. Reduction and weights are those of `ClassificationLoss`; the
    softmax is over all classes, rated or not.

    Args:
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.
        label_smoothing: s in [0, 1]: targets t = y / sum(y) become (1 - s) t + s / C, as in
            `keras.losses.CategoricalCrossentropy`; an example without a label still has loss 0.

    Examples:
        >>> from yt8m_gat.losses import SoftmaxLoss
        >>> SoftmaxLoss("sum")([[1.0, 0.0]], [[3.0, 3.0]]).numpy().round(4)  # log 2
        array([0.6931], dtype=float32)
    """

    def __init__(
        self, class_reduction: str, unrated_as_negative: bool = False, label_smoothing: float = 0.0
    ):
        super().__init__(class_reduction, unrated_as_negative)
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the share of each class in the softmax cross-entropy, `[B, C]`."""
        count = ops.sum(labels, axis=-1, keepdims=True)
        targets = ops.divide_no_nan(labels, count)
        if self.label_smoothing:
            share = self.label_smoothing / ops.cast(ops.shape(labels)[-1], labels.dtype)
            smooth = (1.0 - self.label_smoothing) * targets + share
            targets = ops.where(count > 0, smooth, ops.zeros_like(smooth))
        return -targets * ops.log_softmax(logits, axis=-1)


@saving.register_keras_serializable(package="yt8m_gat")
class FunctionLoss(ClassificationLoss):
    """A loss whose terms a function computes: `(labels [B, C], logits [B, C]) -> [B, C]`.

    Its arguments are in float32 or wider. Reduction and weights are those of `ClassificationLoss`.

    Args:
        function: Computes the term of each class.
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.

    Examples:
        >>> loss = FunctionLoss(lambda labels, logits: (labels - logits) ** 2, "sum")
        >>> loss([[1.0, 0.0]], [[0.5, 2.0]]).numpy()
        array([4.25], dtype=float32)
    """

    def __init__(
        self, function: Callable[..., Any], class_reduction: str, unrated_as_negative: bool = False
    ):
        super().__init__(class_reduction, unrated_as_negative)
        self.function = function

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments; the function must be registered with Keras."""
        function = saving.serialize_keras_object(self.function)
        return {"function": function, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FunctionLoss":
        """Makes the loss from the result of `get_config`."""
        function = saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the terms with the function, `[B, C]`.

        Raises:
            ValueError: If they have another shape.
        """
        terms = ops.convert_to_tensor(self.function(labels, logits))
        _check_same_shape("the terms of the loss", terms, logits)
        return terms


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless an option is in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value!r}")


def check_exponent(name: str, value: float) -> None:
    """Raises ValueError unless an option is an exponent whose power has a bounded gradient."""
    if value != 0 and not 1 <= value < math.inf:
        raise ValueError(f"`{name}` must be 0, or at least 1. Received: {name}={value!r}")


def _check_same_shape(name: str, values: KerasTensor, logits: KerasTensor) -> None:
    same_rank = len(values.shape) == len(logits.shape)
    if not same_rank or any(
        a is not None and b is not None and a != b
        for a, b in zip(values.shape, logits.shape, strict=True)
    ):
        raise ValueError(
            f"{name} must have the shape of `logits`, {tuple(logits.shape)}. "
            f"Received: {tuple(values.shape)}"
        )
