"""The starter code's video-level classifiers as heads of any model: one vector in, logits out."""

import keras

from yt8m_gat.models.mixture_of_experts import L2_PENALTY, MixtureOfExperts

HEADS = ("LogisticModel", "MoeModel")


def logistic_head(num_classes: int, l2_penalty: float = L2_PENALTY) -> keras.Layer:
    """Makes a logistic regression, [B, D] -> float32 logits [B, C]; see `build_head`."""
    return keras.layers.Dense(
        num_classes,
        # Keras' L2 has no factor 1/2.
        kernel_regularizer=keras.regularizers.L2(l2_penalty / 2),
        dtype="float32",
        name="logits",
    )


def build_head(
    name: str, num_classes: int, moe_num_mixtures: int, l2_penalty: float = L2_PENALTY
) -> keras.Layer:
    """Builds the head that the flag `--video_level_classifier_model` names.

    Args:
        name: One of `HEADS`.
        num_classes: C.
        moe_num_mixtures: Experts per class of `MoeModel`.
        l2_penalty: Weight w of the penalty w * ||W||^2 / 2 on the kernels; the starter code's.

    Returns:
        A layer, [B, D] -> logits [B, C].

    Raises:
        ValueError: The name is unknown, or `moe_num_mixtures` is not positive.
    """
    if name == "LogisticModel":
        return logistic_head(num_classes, l2_penalty)
    if name == "MoeModel":
        return MixtureOfExperts(num_classes, moe_num_mixtures, l2_penalty, name="logits")
    raise ValueError(
        f"`video_level_classifier_model` must be one of {', '.join(HEADS)}. "
        f"Received: video_level_classifier_model={name!r}"
    )
