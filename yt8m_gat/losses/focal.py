"""The focal loss."""

from typing import Any

from keras import KerasTensor, ops, saving

from yt8m_gat.losses.classification import ClassificationLoss, check_exponent, check_share


@saving.register_keras_serializable(package="yt8m_gat")
class FocalLoss(ClassificationLoss):
    """Binary cross-entropy in which pairs that the model gets right count less.

        term = a (1 - p_t)^gamma BCE(y, z),  p_t = y p + (1 - y) (1 - p),  p = sigmoid(z)
        a    = y alpha + (1 - y) (1 - alpha), or 1

    It equals `keras.losses.BinaryFocalCrossentropy`, which clips probabilities at 1e-7 and so has
    no gradient for a logit beyond 16; here the logits are used, and a confident error keeps its
    gradient. Reduction and weights are those of `ClassificationLoss`.

    Args:
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.
        gamma: The focusing exponent, 0 (cross-entropy) or at least 1, below which the gradient of a
            power is unbounded.
        alpha: Weight of positive pairs, 1 - alpha that of negative ones; None: both count 1.

    Reference: Lin et al., "Focal Loss for Dense Object Detection", 2017, eq. 4 and 5.

    Examples:
        >>> from yt8m_gat.losses import FocalLoss
        >>> FocalLoss("sum")([[1.0]], [[0.0]]).numpy().round(4)  # 0.5^2 log 2
        array([0.1733], dtype=float32)
    """

    def __init__(
        self,
        class_reduction: str,
        unrated_as_negative: bool = False,
        gamma: float = 2.0,
        alpha: float | None = None,
    ):
        super().__init__(class_reduction, unrated_as_negative)
        check_exponent("gamma", gamma)
        if alpha is not None:
            check_share("alpha", alpha)
        self.gamma = gamma
        self.alpha = alpha

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha}

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the focal loss of each class, `[B, C]`."""
        terms = ops.binary_crossentropy(labels, logits, from_logits=True)
        if self.alpha is not None:
            terms = terms * (labels * self.alpha + (1.0 - labels) * (1.0 - self.alpha))
        if self.gamma == 0:
            return terms
        wrong = labels * ops.sigmoid(-logits) + (1.0 - labels) * ops.sigmoid(logits)
        return terms * ops.power(wrong, self.gamma)
