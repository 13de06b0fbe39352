"""Projected gradient ascent."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from yt8m_gat.attacks.attack import (
    Attack,
    LogitsFn,
    LossFn,
    PassCount,
    Perturbed,
    keep_where,
    logits_of,
    loss_and_gradients,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames

OBJECTIVES = ("loss", "margin")


@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Steps of steepest ascent, each projected back onto the ball; the worst point seen is kept.

    ```
    r <- project(r + step_size * steepest ascent direction at x + r)
    ```

    Norm and axes: the ball's. Space: the features as the model takes them. Bounds:
    `clip_to_range`, kept at every step. Success: the top-1 class is none of the labels. Cost:
    restarts * (steps + 1) + 1 forward passes, restarts * steps backward; one that sets out from the
    clean clip and does not restart has the model's outputs there from its first pass, and spends
    the last pass on those clips alone whose highest point is not where they ended.

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
        objective: What the caller passes to be climbed, `loss` or `margin`; see `Attack`. The
            attack climbs whatever it is given.

    Raises:
        ValueError: If a count is not positive, a step negative or an objective unknown.

    Reference: Madry et al., 2018.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import PGD, Ball, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = PGD(Ball("linf"), epsilon=0.25, steps=5)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels)
        >>> result.features["x"].numpy(), result.success.numpy()
        (array([[[1.75, 1.25]]], dtype=float32), array([False]))
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
    ) -> Perturbed:
        """The point of the highest objective seen, clip by clip."""

        def look(point: Tensors, clean: Any) -> tuple[tf.Tensor, Tensors, Any]:
            del clean
            return loss_and_gradients(logits_fn, loss_fn, point, frame_mask, labels)

        return self._climb(logits_fn, loss_fn, look, features, frame_mask, labels, seed)

    def _climb(
        self,
        logits_fn: LogitsFn,
        loss_fn: LossFn,
        look: Callable[[Tensors, Any], tuple[tf.Tensor, Tensors, Any]],
        features: Mapping[str, tf.Tensor],
        frame_mask: Any,
        labels: Any,
        seed: Any,
        clean: Any = None,
    ) -> Perturbed:
        """The point of the highest objective seen, clip by clip, on the way along the gradients.

        Each point but the last is looked at once: what tells how high it is tells the next step.

        Args:
            logits_fn: The model.
            loss_fn: `(labels, logits) -> [B]`, by which points are kept.
            look: (point, the model's outputs on the clean clips) -> the objective [B], the
                gradients that are followed, and the outputs; the clean clips themselves come with
                None where their outputs are not given.
            features: Float [B, T, D] per feature.
            frame_mask: Bool [B, T], or None.
            labels: Float [B, C].
            seed: Integer.
            clean: The outputs on the clean clips; None: the first look gives them, which needs a
                single restart that sets out there.
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

        def move(point: Tensors, gradients: Tensors) -> Tensors:
            ascent = self.ball.steepest_ascent(gradients, frame_mask, step_size)
            moved = {name: point[name] + ascent[name] - features[name] for name in features}
            # The padding of all three is 0, so nobody has to look for it again.
            projected = self.ball.project(moved, None, self.epsilon)
            return self._add(features, projected, None)

        def climb(start: Tensors, worst: Tensors, worst_value: tf.Tensor) -> _Climb:
            value, gradients, first = look(start, clean)
            worst, worst_value = keep_worst(start, value, worst, worst_value)

            def step(
                index: tf.Tensor,
                point: Tensors,
                gradients: Tensors,
                worst: Tensors,
                worst_value: tf.Tensor,
            ) -> tuple[tf.Tensor, Tensors, Tensors, Tensors, tf.Tensor]:
                point = move(point, gradients)
                value, gradients, _ = look(point, first if clean is None else clean)
                return index + 1, point, gradients, *keep_worst(point, value, worst, worst_value)

            _, point, gradients, worst, worst_value = tf.while_loop(
                lambda index, *_: index < self.steps,
                step,
                (tf.constant(1), start, gradients, worst, worst_value),
                maximum_iterations=self.steps - 1,
                parallel_iterations=1,
            )
            point = move(point, gradients)
            last = logits_fn(point, frame_mask)
            value = loss_fn(labels, logits_of(last))
            worst, worst_value = keep_worst(point, value, worst, worst_value)
            return _Climb(worst, worst_value, first, last, _same_clips(point, worst))

        def restart(
            index: tf.Tensor, worst: Tensors, worst_value: tf.Tensor
        ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
            drawn = self.ball.random_start(features, frame_mask, self.epsilon, seed, index)
            start = self._add(features, drawn, frame_mask)
            if not self.random_start:
                start = keep_where(index[tf.newaxis] == 0, features, start)
            climbed = climb(start, worst, worst_value)
            return index + 1, climbed.worst, climbed.worst_value

        length = tf.shape(next(iter(features.values())))[:1]
        nothing = tf.fill(length, tf.constant(float("-inf"), tf.float32))
        nothing = tf.ensure_shape(nothing, next(iter(features.values())).shape[:1])
        if self.restarts == 1 and not self.random_start:
            found = climb(features, features, nothing)
            outputs = _outputs_on(found, logits_fn, frame_mask)
            return Perturbed(found.worst, outputs, found.first)
        _, worst, _ = tf.while_loop(
            lambda index, *_: index < self.restarts,
            restart,
            (tf.constant(0), features, nothing),
            maximum_iterations=self.restarts,
            parallel_iterations=1,
        )
        return Perturbed(worst, clean_outputs=clean)


def _same_clips(points: Tensors, others: Tensors) -> tf.Tensor:
    """Bool [B]."""
    same = [
        tf.reduce_all(value == others[name], axis=list(range(1, value.shape.rank)))
        for name, value in points.items()
    ]
    return tf.reduce_all(tf.stack(same), axis=0)


class _Climb(NamedTuple):
    """One restart: the highest point, the outputs where it set out and where it ended, and whether
    the highest point is the end, bool [B]."""

    worst: Tensors
    worst_value: tf.Tensor
    first: Any
    last: Any
    ends_there: tf.Tensor


def _outputs_on(climbed: _Climb, logits_fn: LogitsFn, frame_mask: Any) -> Any:
    """The outputs on the highest points: a pass of those clips alone that are not at the end."""
    others = tf.where(tf.logical_not(climbed.ends_there))

    def look_again() -> Any:
        points = {name: tf.gather_nd(value, others) for name, value in climbed.worst.items()}
        mask = None if frame_mask is None else tf.gather_nd(frame_mask, others)
        return tf.nest.map_structure(
            lambda last, again: tf.tensor_scatter_nd_update(last, others, again),
            climbed.last,
            logits_fn(points, mask),
        )

    return tf.cond(tf.reduce_all(climbed.ends_there), lambda: climbed.last, look_again)
