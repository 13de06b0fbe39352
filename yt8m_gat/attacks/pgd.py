"""Projected gradient ascent."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from yt8m_gat.attacks.attack import (
    Attack,
    Highest,
    PassCount,
    Perturbed,
    Problem,
    keep_where,
    loss_and_gradients,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames, require_gradients
from yt8m_gat.attacks.objectives import OBJECTIVES

# (point, outputs on the clean clips) -> the objective [B], the gradients, the outputs.
Look = Callable[[Tensors, Any], tuple[tf.Tensor, Tensors, Any]]


@dataclasses.dataclass(frozen=True)
class PGD(Attack):
    """Steps of steepest ascent, each projected back onto the ball; the worst point seen is kept.

    ```
    r <- project(r + step_size * steepest ascent direction at x + r)
    ```

    Norm and axes: the ball's. Space: the features as the model takes them. Bounds:
    `clip_to_range`, kept at every step. Success: the top-1 class is none of the labels. Cost:
    restarts * (steps + 1) + 1 forward passes, restarts * steps backward. With one restart and no
    random start, the first pass also gives the clean outputs, and the last pass runs only on the
    clips whose highest point is not their last.

    Each clip keeps the point with the highest objective over all restarts: it never ends below the
    clean clip (unless `random_start`), and more restarts never end lower. The first restart starts
    at the clean clip unless `random_start`; the others at a point drawn uniformly from the ball.

    A model that draws anything at inference has no one gradient. With `draws` above 1, each step
    takes as many passes and follows the mean of their gradients, and the highest mean loss counts
    (expectation over transformation); the passes above are multiplied by it, but for the last two.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        steps: Ascent steps of each restart.
        step_size: Length of a step in the ball's norm; None: 2.5 * epsilon / steps.
        restarts: Number of starts, including the first.
        random_start: Whether the first restart, too, begins at a random point.
        objective: The kind of loss that the caller passes, `loss`, `margin` or `dlr`; see `Attack`.
            The attack itself ascends any loss.
        draws: Passes at each point whose gradients are averaged.

    Raises:
        ValueError: If a count is not positive, a step negative or an objective unknown.

    Reference: Madry et al., 2018; Athalye et al., "Synthesizing Robust Adversarial Examples", 2018,
    for the draws.

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
    draws: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("steps", "restarts", "draws"):
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
        """`pgd`, `pgd_margin` or `pgd_dlr`, with `_linf` where the ball is."""
        return self._named("pgd" if self.objective == "loss" else f"pgd_{self.objective}")

    @property
    def cost(self) -> PassCount:
        """restarts * (draws * steps + 1) + 1 forward passes, restarts * draws * steps backward."""
        looks = self.restarts * self.draws * self.steps
        return PassCount(looks + self.restarts + 1, looks)

    @property
    def length_of_step(self) -> float:
        """`step_size`, or 2.5 * epsilon / steps."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def step_from(self, point: Tensors, gradients: Tensors, problem: Problem) -> Tensors:
        """Returns `point` after one step along its gradients, back in the ball and the bounds.

        The padding of the point and of the problem's features is 0.
        """
        features = problem.features
        ascent = self.ball.steepest_ascent(gradients, problem.frame_mask, self.length_of_step)
        moved = {name: point[name] + ascent[name] - features[name] for name in features}
        # The padding of all three is already 0, so no mask is needed.
        projected = self.ball.project(moved, None, self.epsilon)
        return self._add(features, projected, None)

    def random_point(self, problem: Problem, draw: Any = 0) -> Tensors:
        """Returns the features moved to a point drawn uniformly from the ball, within the bounds.

        Args:
            problem: Its seed determines the point.
            draw: Integer, for several points from one seed.
        """
        features, mask = problem.features, problem.frame_mask
        drawn = self.ball.random_start(features, mask, self.epsilon, problem.seed, draw)
        return self._add(features, drawn, mask)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point with the highest objective seen, for each clip."""

        def look(point: Tensors, clean: Any) -> tuple[tf.Tensor, Tensors, Any]:
            del clean
            if self.draws > 1:
                return _mean_of_draws(problem, point, self.draws)
            return loss_and_gradients(problem, point)

        return climb(self, problem, look)


def climb(attack: PGD, problem: Problem, look: Look, clean: Any = None) -> Perturbed:
    """Follows the gradients and returns the point with the highest objective seen, for each clip.

    Each point but the last costs one look, which gives its objective and the next gradient.

    Args:
        attack: The ball, the steps and the restarts.
        problem: The clips and the model; its loss decides which points are kept.
        look: (point, the model's outputs on the clean clips) -> the objective [B], the gradients
            to follow, and the outputs. The second argument is None in the first look if `clean` is.
        clean: The outputs on the clean clips; None: the first look computes them, which needs a
            single restart that starts at the clean clips.
    """
    features = mask_frames(problem.features, problem.frame_mask)
    ascent = _Ascent(attack, problem._replace(features=features), look, clean)
    if attack.restarts == 1 and not attack.random_start:
        return ascent.once()
    return Perturbed(ascent.best_of_restarts(), clean_outputs=clean)


class _Climb(NamedTuple):
    """One restart: the highest point, the last point, and the outputs at the first and the last."""

    highest: Highest
    end: Tensors
    first: Any
    last: Any


class _Ascent:
    """The ascent of `climb` over one batch; the padding of `problem.features` is 0."""

    def __init__(self, attack: PGD, problem: Problem, look: Look, clean: Any) -> None:
        self.attack = attack
        self.problem = problem
        self.look = look
        self.clean = clean

    def once(self) -> Perturbed:
        """Climbs once from the clean clips; also gives the outputs there and on the result."""
        climbed = self._climb_from(self.problem.features, Highest.nothing(self.problem.features))
        outputs = _outputs_on(climbed, self.problem)
        return Perturbed(climbed.highest.point, outputs, climbed.first)

    def best_of_restarts(self) -> Tensors:
        """Returns the highest point of all restarts; the first starts at the clean clips unless
        `random_start`."""

        def restart(index: tf.Tensor, highest: Highest) -> tuple[tf.Tensor, Highest]:
            climbed = self._climb_from(self._start(index), highest)
            return index + 1, climbed.highest

        _, highest = tf.while_loop(
            lambda index, _: index < self.attack.restarts,
            restart,
            (tf.constant(0), Highest.nothing(self.problem.features)),
            maximum_iterations=self.attack.restarts,
            parallel_iterations=1,
        )
        return highest.point

    def _start(self, index: tf.Tensor) -> Tensors:
        start = self.attack.random_point(self.problem, index)
        if self.attack.random_start:
            return start
        return keep_where(index[tf.newaxis] == 0, self.problem.features, start)

    def _climb_from(self, start: Tensors, highest: Highest) -> _Climb:
        value, gradients, first = self.look(start, self.clean)
        highest = highest.or_where_higher(start, value)
        clean = first if self.clean is None else self.clean

        def step(
            index: tf.Tensor, point: Tensors, gradients: Tensors, highest: Highest
        ) -> tuple[tf.Tensor, Tensors, Tensors, Highest]:
            point = self.attack.step_from(point, gradients, self.problem)
            value, gradients, _ = self.look(point, clean)
            return index + 1, point, gradients, highest.or_where_higher(point, value)

        _, point, gradients, highest = tf.while_loop(
            lambda index, *_: index < self.attack.steps,
            step,
            (tf.constant(1), start, gradients, highest),
            maximum_iterations=self.attack.steps - 1,
            parallel_iterations=1,
        )
        end = self.attack.step_from(point, gradients, self.problem)
        last = self.problem.outputs_at(end)
        highest = highest.or_where_higher(end, self.problem.loss_of(last))
        return _Climb(highest, end, first, last)


def _mean_of_draws(problem: Problem, point: Tensors, draws: int) -> tuple[tf.Tensor, Tensors, Any]:
    """Returns mean losses and gradients of several passes, and the outputs of the first."""
    losses, gradients, outputs = loss_and_gradients(problem, point)
    require_gradients(gradients)

    def add(index: tf.Tensor, losses: tf.Tensor, gradients: Tensors) -> tuple[Any, ...]:
        more_losses, more, _ = loss_and_gradients(problem, point)
        summed = {name: value + more[name] for name, value in gradients.items()}
        return index + 1, losses + more_losses, summed

    _, losses, gradients = tf.while_loop(
        lambda index, *_: index < draws,
        add,
        (tf.constant(1), losses, gradients),
        maximum_iterations=draws - 1,
        parallel_iterations=1,
    )
    return losses / draws, {name: value / draws for name, value in gradients.items()}, outputs


def _same_clips(points: Tensors, others: Tensors) -> tf.Tensor:
    """Returns a bool [B]: whether each clip is the same in both."""
    same = [
        tf.reduce_all(value == others[name], axis=list(range(1, value.shape.rank)))
        for name, value in points.items()
    ]
    return tf.reduce_all(tf.stack(same), axis=0)


def _outputs_on(climbed: _Climb, problem: Problem) -> Any:
    """Returns the outputs on the highest points; runs only clips whose highest is not the last."""
    point, mask = climbed.highest.point, problem.frame_mask
    ends_there = _same_clips(climbed.end, point)
    others = tf.where(tf.logical_not(ends_there))
    # Outputs that the model does not have are None (a video-level model has no frames).
    last = tf.nest.flatten(climbed.last)
    tensors = [value for value in last if value is not None]

    def look_again() -> list[tf.Tensor]:
        points = {name: tf.gather_nd(value, others) for name, value in point.items()}
        outputs = problem.model(points, None if mask is None else tf.gather_nd(mask, others))
        again = [value for value in tf.nest.flatten(outputs) if value is not None]
        return [
            tf.tensor_scatter_nd_update(value, others, other)
            for value, other in zip(tensors, again, strict=True)
        ]

    outputs = iter(tf.cond(tf.reduce_all(ends_there), lambda: tensors, look_again))
    flat = [None if value is None else next(outputs) for value in last]
    return tf.nest.pack_sequence_as(climbed.last, flat)
