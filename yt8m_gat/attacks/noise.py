"""Random noise with an attack's norm: the baseline that knows nothing of the model."""

import dataclasses

from yt8m_gat.attacks.attack import Attack, PassCount, Perturbed, Problem
from yt8m_gat.attacks.ball import Ball, seed_pair


@dataclasses.dataclass(frozen=True)
class RandomNoise(Attack):
    """x + R, R drawn uniformly from the ball's surface (l2) or its corners (linf).

    Norm and axes: the ball's; the norm is exactly epsilon, as in `FastGradient`. Space: the
    features as the model takes them. Bounds: `clip_to_range`. Success: the top-1 class is none of
    the labels. Cost: 1 forward pass, which evaluates the result.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, RandomNoise, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = RandomNoise(Ball("l2"), epsilon=0.5)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels, seed=0)
        >>> result.norm.numpy().round(4)
        array([0.5], dtype=float32)
    """

    ball: Ball
    epsilon: float

    @property
    def name(self) -> str:
        """`noise` or `noise_linf`."""
        return self._named("noise")

    @property
    def cost(self) -> PassCount:
        """1 forward pass."""
        return PassCount(1, 0)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the noisy clips without running the model."""
        features, frame_mask = problem.features, problem.frame_mask
        noise = self.ball.random_surface(
            features, frame_mask, self.epsilon, seed_pair(problem.seed)
        )
        return Perturbed(self._add(features, noise, frame_mask))
