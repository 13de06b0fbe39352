"""Projected gradient ascent that aims at the attention maps too."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.attack import (
    PassCount,
    Perturbed,
    Problem,
    loss_and_gradients,
)
from yt8m_gat.attacks.ball import Tensors, mask_frames
from yt8m_gat.attacks.pgd import PGD, climb

# (maps of the clean clips, maps of the perturbed ones, frame_mask [B, T]) -> distance [B].
MapDistance = Callable[[Any, Any, Any], tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptivePGD(PGD):
    """PGD along the gradient of loss + weight * distance of the attention maps from the clean ones.

    ```
    r <- project(r + step_size * steepest ascent of loss(x + r) + weight * d(A(x), A(x + r)))
    ```

    Models an attacker who knows that the model was trained to keep its attention stable (A-ART,
    GAT): where the loss has no useful gradient, moving the map may help. Each clip keeps the
    visited point with the highest LOSS (or margin), not the highest sum: the map is only a means,
    and a map that moves without changing the output is no success.

    Norm and axes, space, bounds, success: as `PGD`. The model returns `attention_maps` beside its
    `logits`, in the form that `map_distance` takes. Cost: that of `PGD`, plus 1 forward pass for
    the clean maps with restarts or a random start. At the clean clip the distance has no gradient,
    so the first step is PGD's.

    Args:
        map_distance: `(clean maps, perturbed maps, frame_mask) -> [B]`, differentiable also where
            the maps are equal (`yt8m_gat.losses.frobenius_distance` is, summed over the features).
        weight: Weight of the distance beside the loss; 0 is PGD. The default is A-ART's beta. If
            the loss is a mean over hundreds of classes, a large weight moves the map and neglects
            the loss: an SA on AudioSet (GAP .334) drops to .180 under PGD with epsilon 0.5, and to
            .180, .195 and .238 at weights .001, .01 and .1.

    Raises:
        ValueError: If the weight is negative, or for the reasons of `PGD`.

    Reference: Tramer et al., "On Adaptive Attacks to Adversarial Example Defenses", 2020.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import AdaptivePGD, Ball, margin_loss
        >>> from yt8m_gat.models import ModelOutputs
        >>> def model(features, frame_mask):
        ...     x = features["x"]
        ...     return ModelOutputs(tf.reduce_sum(x, axis=1), x, attention_maps=tf.nn.softmax(x))
        >>> def map_distance(clean, perturbed, frame_mask):
        ...     return tf.reduce_sum(tf.square(perturbed - clean), axis=[1, 2])
        >>> attack = AdaptivePGD(Ball("l2"), epsilon=1.0, steps=5, map_distance=map_distance)
        >>> clip, labels = {"x": [[[2.0, 1.0]]]}, [[1.0, 0.0]]
        >>> result = attack.attack(model, margin_loss, clip, [[True]], labels)
        >>> result.norm.numpy().round(3), result.success.numpy()
        (array([1.], dtype=float32), array([ True]))
    """

    map_distance: MapDistance
    weight: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws != 1:
            raise ValueError(f"`draws` must be 1 here. Received: draws={self.draws}")
        if not self.weight >= 0:
            raise ValueError(f"`weight` must be at least 0. Received: weight={self.weight}")

    @property
    def name(self) -> str:
        """`adaptive`, `adaptive_margin` or `adaptive_dlr`, with `_linf` where the ball is."""
        return self._named("adaptive" if self.objective == "loss" else f"adaptive_{self.objective}")

    @property
    def reads_attention_maps(self) -> bool:
        """True: it raises the distance of the maps."""
        return True

    @property
    def cost(self) -> PassCount:
        """PGD's cost, plus 1 forward pass with restarts or a random start."""
        forward, backward = super().cost
        return PassCount(forward + (self.restarts > 1 or self.random_start), backward)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point with the highest loss seen, for each clip."""
        problem = problem._replace(features=mask_frames(problem.features, problem.frame_mask))

        def look(point: Tensors, clean: Any) -> tuple[tf.Tensor, Tensors, Any]:
            if clean is None:  # The point is the clean clip: its map has not moved.
                return loss_and_gradients(problem, point)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                outputs = problem.outputs_at(point)
                losses = problem.loss_of(outputs)
                distances = self.map_distance(
                    clean.attention_maps, outputs.attention_maps, problem.frame_mask
                )
                summed = tf.reduce_sum(losses) + self.weight * tf.reduce_sum(distances)
            return losses, tape.gradient(summed, dict(point)), outputs

        clean = None
        if self.restarts > 1 or self.random_start:
            clean = problem.outputs_at(problem.features)
        return climb(self, problem, look, clean)
