"""Projected gradient ascent."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.attack import (
    Attack,
    LogitsFn,
    LossFn,
    PassCount,
    keep_where,
    loss_and_gradients,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames
from yt8m_gat.attacks.objectives import margin_loss

OBJECTIVES = ("loss", "margin")


@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Steps of steepest ascent, each projected back onto the ball; the worst point seen is kept.

    ```
    r <- project(r + step_size * steepest ascent direction at x + r)
    ```

    Norm and axes: the ball's. Space: the features as the model takes them. Bounds:
    `clip_to_range`, kept at every step. Success: the top-1 class is none of the labels. Cost:
    restarts * (steps + 1) + 1 forward passes, restarts * steps backward.

    Of all points visited, over all restarts, each clip keeps the one with the highest objective:
    it never ends below the clean clip (unless `random_start`), and more restarts never end lower.
    The first restart sets out from the clean clip unless `random_start`; the others from a point
    drawn uniformly from the ball.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        steps: Ascent steps of each restart.
        step_size: Length of a step in the ball's norm; None: 2.5 * epsilon / steps.
        restarts: How many times it sets out.
        random_start: Whether the first restart too begins at a random point.
        objective: `loss`: the caller's; `margin`: `margin_loss`.

    Raises:
        ValueError: If a count is not positive, a step negative or an objective unknown.

    Reference: Madry et al., 2018.
    """

    ball: Ball
    epsilon: float
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = False
    objective: str = "loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("steps", "restarts"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"`{field}` must be at least 1. Received: {field}={getattr(self, field)}"
                )
        if self.step_size is not None and not self.step_size >= 0:
            raise ValueError(
                f"`step_size` must be at least 0. Received: step_size={self.step_size}"
            )
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"`objective` must be one of {', '.join(OBJECTIVES)}. Received: "
                f"objective={self.objective!r}"
            )

    @property
    def name(self) -> str:
        """`pgd` or `pgd_margin`, with `_linf` where the ball is."""
        return self._named("pgd" if self.objective == "loss" else "pgd_margin")

    @property
    def cost(self) -> PassCount:
        """restarts * (steps + 1) + 1 forward, restarts * steps backward."""
        return PassCount(self.restarts * (self.steps + 1) + 1, self.restarts * self.steps)

    def perturb(
        self,
        logits_fn: LogitsFn,
        loss_fn: LossFn,
        features: Mapping[str, tf.Tensor],
        frame_mask: Any,
        labels: Any,
        seed: Any = 0,
    ) -> Tensors:
        """The point of the highest objective seen, clip by clip."""
        objective = margin_loss if self.objective == "margin" else loss_fn
        return self._climb(
            lambda point: loss_and_gradients(logits_fn, objective, point, frame_mask, labels),
            lambda point: objective(labels, logits_fn(point, frame_mask)),
            features,
            frame_mask,
            seed,
        )

    def _climb(
        self,
        value_and_gradients: Callable[[Tensors], tuple[tf.Tensor, Tensors]],
        value_at: Callable[[Tensors], tf.Tensor],
        features: Mapping[str, tf.Tensor],
        frame_mask: Any,
        seed: Any,
    ) -> Tensors:
        """The point of the highest value seen, clip by clip, on the way along the gradients.

        Args:
            value_and_gradients: Point -> the value [B] by which points are kept, and the gradients
                that are followed.
            value_at: Point -> the value alone.
            features: Float [B, T, D] per feature.
            frame_mask: Bool [B, T], or None.
            seed: Integer.
        """
        features = mask_frames(features, frame_mask)
        step_size = self.step_size
        if step_size is None:
            step_size = 2.5 * self.epsilon / self.steps

        def keep_worst(
            point: Tensors, value: tf.Tensor, worst: Tensors, worst_value: tf.Tensor
        ) -> tuple[Tensors, tf.Tensor]:
            value = tf.cast(value, tf.float32)
            higher = value > worst_value
            return keep_where(higher, point, worst), tf.where(higher, value, worst_value)

        def step(
            index: tf.Tensor, point: Tensors, worst: Tensors, worst_value: tf.Tensor
        ) -> tuple[tf.Tensor, Tensors, Tensors, tf.Tensor]:
            value, gradients = value_and_gradients(point)
            worst, worst_value = keep_worst(point, value, worst, worst_value)
            ascent = self.ball.steepest_ascent(gradients, frame_mask, step_size)
            moved = {name: point[name] + ascent[name] - features[name] for name in features}
            projected = self.ball.project(moved, frame_mask, self.epsilon)
            return index + 1, self._add(features, projected, frame_mask), worst, worst_value

        def restart(
            index: tf.Tensor, worst: Tensors, worst_value: tf.Tensor
        ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
            start = features
            if self.random_start or self.restarts > 1:
                drawn = self.ball.random_start(features, frame_mask, self.epsilon, seed, index)
                start = self._add(features, drawn, frame_mask)
                if not self.random_start:
                    start = keep_where(index[tf.newaxis] == 0, features, start)
            _, point, worst, worst_value = tf.while_loop(
                lambda index, *_: index < self.steps,
                step,
                (tf.constant(0), start, worst, worst_value),
                maximum_iterations=self.steps,
                parallel_iterations=1,
            )
            value = value_at(point)
            return index + 1, *keep_worst(point, value, worst, worst_value)

        first = next(iter(features.values()))
        nothing = tf.fill(tf.shape(first)[:1], tf.constant(float("-inf"), tf.float32))
        nothing = tf.ensure_shape(nothing, first.shape[:1])
        _, worst, _ = tf.while_loop(
            lambda index, *_: index < self.restarts,
            restart,
            (tf.constant(0), features, nothing),
            maximum_iterations=self.restarts,
            parallel_iterations=1,
        )
        return worst
