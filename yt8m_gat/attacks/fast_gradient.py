"""The fast gradient method: one step to the surface of the ball."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.attack import (
    Attack,
    PassCount,
    Perturbed,
    Problem,
    loss_and_gradients,
)
from yt8m_gat.attacks.ball import Ball, Tensors


@dataclasses.dataclass(frozen=True)
class FastGradient(Attack):
    """One step: x + R, R = epsilon * G / ||G||_2 (l2) or epsilon * sign(G) (linf).

    The l2 form is what the GAT and A-ART papers call FGSM; elsewhere it is the fast gradient
    method (FGM), and only the linf form is called FGSM.

    Norm and axes: the ball's; by default l2, each real frame of each modality moved by exactly
    epsilon. Space: the features as the model takes them. Bounds: `clip_to_range`. Success: the
    top-1 class is none of the labels. Cost: 2 forward passes (one evaluates the result), 1
    backward. A training step already has the gradient, so it calls `ball.steepest_ascent` directly.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.

    Reference: Goodfellow et al., 2015; GAT eq. 3; A-ART eq. 4.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, FastGradient, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = FastGradient(Ball("l2"), epsilon=1.0)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels)
        >>> result.features["x"].numpy().round(2), result.success.numpy()
        (array([[[1.29, 1.71]]], dtype=float32), array([ True]))
    """

    ball: Ball
    epsilon: float

    @property
    def name(self) -> str:
        """`fgm` or `fgm_linf`."""
        return self._named("fgm")

    @property
    def cost(self) -> PassCount:
        """2 forward passes, 1 backward pass."""
        return PassCount(2, 1)

    def perturb_from_gradient(
        self, features: Mapping[str, tf.Tensor], gradients: Mapping[str, Any], frame_mask: Any
    ) -> Tensors:
        """Returns perturbed features from a gradient that the caller has computed."""
        step = self.ball.steepest_ascent(gradients, frame_mask, self.epsilon)
        return self._add(features, step, frame_mask)

    def perturb(self, problem: Problem) -> Perturbed:
        """Takes one step from the clean clip; nothing is random."""
        _, gradients, clean = loss_and_gradients(problem, problem.features)
        perturbed = self.perturb_from_gradient(problem.features, gradients, problem.frame_mask)
        return Perturbed(perturbed, clean_outputs=clean)
