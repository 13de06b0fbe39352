"""Perturbations made on one model, evaluated on another."""

import dataclasses

from yt8m_gat.attacks.attack import Attack, Model, PassCount, Perturbed, Problem
from yt8m_gat.attacks.ball import Ball


@dataclasses.dataclass(frozen=True)
class Transfer(Attack):
    """Runs `inner` on another model and evaluates the result on the model under test.

    Norm, axes, space and bounds: those of `inner` (this attack's own bounds must be left unset).
    Success: the top-1 class of the model under test is none of the labels. Cost: 1 forward pass of
    the model under test, and the passes of `inner` through the other model.

    Args:
        inner: The attack to run.
        source: The other model, in the form that `attack` takes. It must take the same features as
            the model under test.

    Raises:
        ValueError: If bounds are set here.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, FastGradient, Transfer, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> def other_model(features, frame_mask):  # Looks at the first feature only.
        ...     return tf.reduce_sum(features["x"] * [1.0, 0.0], axis=1)
        >>> attack = Transfer(FastGradient(Ball("l2"), epsilon=1.0), source=other_model)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels)
        >>> result.features["x"].numpy()
        array([[[1., 1.]]], dtype=float32)
    """

    inner: Attack
    source: Model

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_to_range is not None or self.round_to_levels is not None:
            raise ValueError(
                "a transfer has the bounds of its inner attack. Received: clip_to_range="
                f"{self.clip_to_range}, round_to_levels={self.round_to_levels}; set them on "
                "`inner`"
            )

    @property
    def name(self) -> str:
        """`transfer_` and the name of the inner attack."""
        return f"transfer_{self.inner.name}"

    @property
    def ball(self) -> Ball:
        """The inner attack's ball."""
        return self.inner.ball

    @property
    def objective(self) -> str:
        """The inner attack's objective."""
        return self.inner.objective

    @property
    def cost(self) -> PassCount:
        """1 forward pass of the model under test."""
        return PassCount(1, 0)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the clips that the inner attack perturbs against the other model."""
        result = self.inner.attack(*problem._replace(model=self.source))
        return Perturbed(result.features)
