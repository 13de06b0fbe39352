"""Weights of classes by their frequency."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import KerasTensor, ops, saving

from yt8m_gat.losses.classification import ClassificationLoss

CLASS_WEIGHTINGS = ("inverse", "effective")


def class_weights(kind: str, counts: Sequence[int], beta: float = 0.999) -> np.ndarray:
    """Returns the weight of each class, float64 [C], with mean 1.

    ```
    inverse:    w_c ~ 1 / n_c
    effective:  w_c ~ (1 - beta) / (1 - beta^n_c)
    ```

    n_c is the number of examples of class c, and a class without any counts as having one. The
    effective number of examples, (1 - beta^n) / (1 - beta), is n for beta -> 1, and 1 for beta = 0,
    which gives all classes the weight 1.

    Args:
        kind: `inverse` or `effective`.
        counts: Int [C].
        beta: In [0, 1).

    Raises:
        ValueError: `kind` is neither, or `beta` is out of range.

    Reference: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019, eq. 3,
    and section 4.3 for the normalization, to sum C.

    Examples:
        >>> class_weights("inverse", [1, 3]).tolist()
        [1.5, 0.5]
        >>> class_weights("effective", [1, 2], beta=0.5).round(3).tolist()  # 1 and 1 / 1.5
        [1.2, 0.8]
    """
    if kind not in CLASS_WEIGHTINGS:
        raise ValueError(f"`kind` must be one of {', '.join(CLASS_WEIGHTINGS)}. Received: {kind!r}")
    if not 0 <= beta < 1:
        raise ValueError(f"`beta` must be in [0, 1). Received: beta={beta!r}")
    numbers = np.maximum(np.asarray(counts, np.float64), 1)
    if kind == "effective":
        numbers = (1 - beta**numbers) / (1 - beta)
    weights = 1 / numbers
    return weights * len(weights) / weights.sum()


@saving.register_keras_serializable(package="yt8m_gat")
class ClassWeightedLoss(ClassificationLoss):
    """A loss whose term of each class is multiplied by a weight.

        term = w_c * term of the loss

    Reduction and label weights are those of `ClassificationLoss`: a mean still divides by C, or by
    the sum of the label weights.

    Args:
        loss: The loss.
        weights: w, [C].

    Examples:
        >>> from yt8m_gat.losses import CrossEntropyLoss
        >>> loss = ClassWeightedLoss(CrossEntropyLoss("sum"), [1.5, 0.5])
        >>> loss([[1.0, 0.0]], [[0.0, 0.0]]).numpy().round(4)  # (1.5 + 0.5) log 2
        array([1.3863], dtype=float32)
    """

    def __init__(self, loss: ClassificationLoss, weights: Sequence[float]):
        super().__init__(loss.class_reduction, loss.unrated_as_negative)
        self.loss = loss
        self.weights = [float(weight) for weight in weights]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"loss": saving.serialize_keras_object(self.loss), "weights": self.weights}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ClassWeightedLoss":
        """Makes the loss from the result of `get_config`."""
        return cls(saving.deserialize_keras_object(config["loss"]), config["weights"])

    def known(self, labels: KerasTensor, label_weights: KerasTensor) -> KerasTensor:
        """Returns what the loss knows."""
        return self.loss.known(labels, label_weights)

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the weighted term of each class, `[B, C]`."""
        weights = ops.convert_to_tensor(self.weights, logits.dtype)
        return self.loss.class_terms(labels, logits) * weights
