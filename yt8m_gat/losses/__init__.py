"""Classification losses and attention-map penalties, in `keras.ops`."""

from yt8m_gat.losses.attention_penalty import (
    average_over_heads,
    distance_to_uniform,
    frobenius_distance,
    jensen_shannon_divergence,
    normalized_entropy,
)
from yt8m_gat.losses.classification import (
    ClassificationLoss,
    CrossEntropyLoss,
    FunctionLoss,
    HingeLoss,
    SoftmaxLoss,
    get_loss,
)
from yt8m_gat.losses.divergence import (
    BernoulliDivergence,
    SoftmaxDivergence,
    get_divergence,
)

__all__ = [
    "BernoulliDivergence",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "FunctionLoss",
    "HingeLoss",
    "SoftmaxDivergence",
    "SoftmaxLoss",
    "average_over_heads",
    "distance_to_uniform",
    "frobenius_distance",
    "get_divergence",
    "get_loss",
    "jensen_shannon_divergence",
    "normalized_entropy",
]
