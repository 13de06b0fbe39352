"""Classification losses, and penalties on attention maps and embeddings, in `keras.ops`."""

from yt8m_gat.losses.asymmetric import AsymmetricLoss
from yt8m_gat.losses.attention_penalty import (
    average_over_heads,
    distance_to_uniform,
    frobenius_distance,
    jensen_shannon_divergence,
    normalized_entropy,
)
from yt8m_gat.losses.class_weights import ClassWeightedLoss, class_weights
from yt8m_gat.losses.classification import (
    ClassificationLoss,
    CrossEntropyLoss,
    FunctionLoss,
    HingeLoss,
    SoftmaxLoss,
)
from yt8m_gat.losses.divergence import (
    BernoulliDivergence,
    SoftmaxDivergence,
    get_divergence,
)
from yt8m_gat.losses.embedding_penalty import embedding_distance
from yt8m_gat.losses.focal import FocalLoss
from yt8m_gat.losses.registry import get_loss

__all__ = [
    "AsymmetricLoss",
    "BernoulliDivergence",
    "ClassWeightedLoss",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "FunctionLoss",
    "HingeLoss",
    "SoftmaxDivergence",
    "SoftmaxLoss",
    "average_over_heads",
    "class_weights",
    "distance_to_uniform",
    "embedding_distance",
    "frobenius_distance",
    "get_divergence",
    "get_loss",
    "jensen_shannon_divergence",
    "normalized_entropy",
]
