"""What a training step minimizes, composed from a loss, a perturbation and an attention penalty."""

import dataclasses
from collections.abc import Callable
from typing import Any

from yt8m_gat.attacks import Ball
from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.losses import (
    frobenius_distance,
    get_loss,
    jensen_shannon_divergence,
)

PENALTIES: dict[str, Callable[..., Any]] = {
    "frobenius": frobenius_distance,
    "jensen_shannon": jensen_shannon_divergence,
}


@dataclasses.dataclass(frozen=True)
class GradientPerturbation:
    """R = epsilon * G / ||G||, G the gradient of the loss (GAT eq. 3, A-ART eq. 4).

    Attributes:
        ball: The norm and what it is taken over.
        epsilon: The radius.
    """

    ball: Ball
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Objective:
    """L = clean_weight * l(X) + adversarial_weight * l(X + R) + penalty_weight * P(A, A_adv).

    Attributes:
        loss: `(labels [B, C], logits [B, C], label_weights) -> [B]`.
        clean_weight: Weight of the loss on the clean clips.
        perturbation: How X + R is made; None: CE alone.
        adversarial_weight: Weight of the loss on the perturbed clips.
        penalty: `(maps [B, T, S], adversarial maps, frame_mask) -> [B]`, or None.
        penalty_weight: beta.
        penalized_levels: Levels whose maps the penalty compares (the papers: the global one).
    """

    loss: Callable[..., Any]
    clean_weight: float = 1.0
    perturbation: GradientPerturbation | None = None
    adversarial_weight: float = 0.0
    penalty: Callable[..., Any] | None = None
    penalty_weight: float = 0.0
    penalized_levels: tuple[str, ...] = ("global",)


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective that `config` describes."""
    loss = get_loss(config.label_loss, config.class_reduction)
    if config.adversarial == "none":
        return Objective(loss)
    return Objective(
        loss,
        perturbation=GradientPerturbation(Ball("l2", config.norm_scope), config.epsilon),
        adversarial_weight=config.alpha,
        penalty=PENALTIES.get(config.adversarial),
        penalty_weight=config.penalty_weight,
    )
