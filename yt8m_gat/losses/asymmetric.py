"""The asymmetric loss."""

from typing import Any

from keras import KerasTensor, ops, saving

from yt8m_gat.losses.classification import ClassificationLoss, check_exponent, check_share


@saving.register_keras_serializable(package="yt8m_gat")
class AsymmetricLoss(ClassificationLoss):
    """A focal loss that focuses negatives more than positives and drops the easiest negatives.

        term = -y (1 - p)^positive_gamma log p - (1 - y) q^negative_gamma log(1 - q)
        p = sigmoid(z),  q = max(p - margin, 0)

    Of thousands of classes a clip has a few, and easy negatives would dominate the gradient. The
    powers are differentiated too. Reduction and weights are those of `ClassificationLoss`.

    Args:
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.
        positive_gamma: The focusing exponent of positives, 0 or at least 1.
        negative_gamma: That of negatives.
        margin: m, the probability up to which a negative counts as right.

    Reference: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021, eq. 4 to 7;
    the defaults are the paper's (the authors' code has 1 for `positive_gamma`).

    Examples:
        >>> from yt8m_gat.losses import AsymmetricLoss
        >>> AsymmetricLoss("sum")([[0.0, 0.0]], [[0.0, -3.0]]).numpy().round(4)
        array([0.0245], dtype=float32)
    """

    def __init__(
        self,
        class_reduction: str,
        unrated_as_negative: bool = False,
        positive_gamma: float = 0.0,
        negative_gamma: float = 4.0,
        margin: float = 0.05,
    ):
        super().__init__(class_reduction, unrated_as_negative)
        check_exponent("positive_gamma", positive_gamma)
        check_exponent("negative_gamma", negative_gamma)
        check_share("margin", margin)
        self.positive_gamma = positive_gamma
        self.negative_gamma = negative_gamma
        self.margin = margin

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "positive_gamma": self.positive_gamma,
            "negative_gamma": self.negative_gamma,
            "margin": self.margin,
        }

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the asymmetric loss of each class, `[B, C]`."""
        positive, negative = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
        shifted = ops.sigmoid(logits)
        if self.margin:
            shifted = ops.relu(shifted - self.margin)
            negative = ops.log(ops.minimum(ops.sigmoid(-logits) + self.margin, 1.0))
        if self.positive_gamma:
            positive = positive * ops.power(ops.sigmoid(-logits), self.positive_gamma)
        if self.negative_gamma:
            negative = negative * ops.power(shifted, self.negative_gamma)
        return -labels * positive - (1.0 - labels) * negative
