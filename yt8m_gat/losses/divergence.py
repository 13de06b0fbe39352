"""Divergences between a model's predictions on two versions of a clip (the penalty of TRADES)."""

from keras import KerasTensor, ops, saving

from yt8m_gat.losses.classification import ClassificationLoss


class PredictionDivergence(ClassificationLoss):
    """Base of the divergences: calls take the logits of the clean clip in place of labels.

    Reduction and label weights are those of `ClassificationLoss`; a class that was not rated has a
    prediction, but does not count. Gradients flow through both arguments.
    """

    def known(self, labels: KerasTensor, label_weights: KerasTensor) -> KerasTensor:
        """Returns the clean logits as they are: all of them are known."""
        del label_weights
        return labels


@saving.register_keras_serializable(package="yt8m_gat")
class BernoulliDivergence(PredictionDivergence):
    """KL divergence of each class's clean Bernoulli from the perturbed one.

        term = p (log p - log p') + (1 - p) (log(1 - p) - log(1 - p')),
        p = sigmoid(z), p' = sigmoid(z')

    computed from log-sigmoids, so that it is finite for any finite logits. The classes are
    independent labels, so the sum of the terms is the divergence of the joint predictions: the
    multi-label form of TRADES' KL(f(X) || f(X')), whose source has one softmax.

    Reference: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    2019, eq. 5 and the authors' code (KL from the clean prediction, no gradient stopped).

    Examples:
        >>> from yt8m_gat.losses import BernoulliDivergence
        >>> # 0.5 log(0.5 / 0.75) + 0.5 log(0.5 / 0.25), with log 3 the logit of 0.75.
        >>> BernoulliDivergence("sum")([[0.0]], [[1.0986123]]).numpy().round(4)
        array([0.1438], dtype=float32)
    """

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes the divergence of each class, `[B, C]`, from clean and perturbed logits."""
        shown = ops.log_sigmoid(labels) - ops.log_sigmoid(logits)
        not_shown = ops.log_sigmoid(-labels) - ops.log_sigmoid(-logits)
        return ops.sigmoid(labels) * shown + ops.sigmoid(-labels) * not_shown


@saving.register_keras_serializable(package="yt8m_gat")
class SoftmaxDivergence(PredictionDivergence):
    """KL divergence of the clean softmax over the classes from the perturbed one.

        term = p (log p - log p'), p = softmax(z), p' = softmax(z')

    TRADES as published, for models with one label a clip. The "sum" of the terms is the divergence.

    Reference: as for `BernoulliDivergence`.

    Examples:
        >>> from yt8m_gat.losses import SoftmaxDivergence
        >>> SoftmaxDivergence("sum")([[0.0, 0.0]], [[1.0986123, 0.0]]).numpy().round(4)
        array([0.1438], dtype=float32)
    """

    def class_terms(self, labels: KerasTensor, logits: KerasTensor) -> KerasTensor:
        """Computes each class's share of the divergence, `[B, C]`."""
        difference = ops.log_softmax(labels, axis=-1) - ops.log_softmax(logits, axis=-1)
        return ops.softmax(labels, axis=-1) * difference


def get_divergence(
    label_loss: str, class_reduction: str, unrated_as_negative: bool = False
) -> PredictionDivergence:
    """Returns the divergence of the probabilities that a label loss stands for.

    Args:
        label_loss: "SoftmaxLoss" stands for a softmax, all others for independent sigmoids.
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.

    Examples:
        >>> from yt8m_gat.losses import get_divergence
        >>> type(get_divergence("SoftmaxLoss", "sum")).__name__
        'SoftmaxDivergence'
    """
    kind = SoftmaxDivergence if label_loss == "SoftmaxLoss" else BernoulliDivergence
    return kind(class_reduction, unrated_as_negative)
