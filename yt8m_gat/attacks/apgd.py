"""APGD: projected gradient ascent that chooses its own step, clip by clip."""

import dataclasses
import itertools
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

MOMENTUM = 0.75
"""alpha: the share of the new step beside the last one (Croce and Hein, 2020, section 3)."""

RISING_SHARE = 0.75
"""rho: the share of the steps since the last checkpoint that must have raised the objective."""

# point -> the objective to climb [B], the value by which a point is kept [B], and the gradients.
Look = Callable[[Tensors], tuple[tf.Tensor, tf.Tensor, Tensors]]


@dataclasses.dataclass(frozen=True)
class APGD(Attack):
    """Ascent with momentum whose step, 2 epsilon at first, is halved where it stops paying.

    ```
    z      = project(x_i + step * steepest ascent direction at x_i)
    x_i+1 <- project(x_i + 0.75 (z - x_i) + 0.25 (x_i - x_i-1))
    ```

    The first step has no momentum. At the checkpoints w_j, each clip by itself halves its step and
    goes back to its highest point if (1) fewer than 0.75 of the steps since w_j-1 raised its
    objective, or (2) its step was not halved at w_j-1 and its highest value has not risen since.
    `checkpoints` gives the w_j. Of the paper's two readings of when, the conditions look at the
    steps up to x_(w_j), as the authors' program does.

    Norm and axes: the ball's. Space: the features as the model takes them. Bounds:
    `clip_to_range`, kept at every step. Success: the top-1 class is none of the labels. Cost:
    restarts * (steps + 1) + 1 forward passes, restarts * (steps + 1) backward.

    Each clip keeps the point with the highest objective over all restarts. The first restart starts
    at the clean clip unless `random_start`; the others at a point drawn uniformly from the ball.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        steps: Ascent steps of each restart.
        restarts: Number of starts, including the first.
        random_start: Whether the first restart, too, begins at a random point.
        objective: The kind of loss that the caller passes: one of `OBJECTIVES`.

    Raises:
        ValueError: If a count is not positive or an objective unknown.

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks", 2020, algorithm 1.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import APGD, Ball, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = APGD(Ball("linf"), epsilon=0.25, steps=10)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels)
        >>> result.features["x"].numpy(), result.success.numpy()
        (array([[[1.75, 1.25]]], dtype=float32), array([False]))
    """

    ball: Ball
    epsilon: float
    steps: int = 100
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
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"`objective` must be one of {', '.join(OBJECTIVES)}. Received: "
                f"objective={self.objective!r}"
            )

    @property
    def name(self) -> str:
        """`apgd`, `apgd_margin` or `apgd_dlr`, with `_linf` where the ball is."""
        return self._named("apgd" if self.objective == "loss" else f"apgd_{self.objective}")

    @property
    def cost(self) -> PassCount:
        """restarts * (steps + 1) + 1 forward passes, restarts * (steps + 1) backward."""
        looks = self.restarts * (self.steps + 1)
        return PassCount(looks + 1, looks)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point with the highest objective seen, for each clip."""

        def look(point: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
            value, gradients, _ = loss_and_gradients(problem, point)
            return value, value, gradients

        features = mask_frames(problem.features, problem.frame_mask)
        nothing = Highest.nothing(features)
        return Perturbed(self.ascend(problem, look, nothing).point)

    def ascend(
        self,
        problem: Problem,
        look: Look,
        highest: Highest,
        stop_above: float = float("inf"),
    ) -> Highest:
        """Climbs from every start and returns the highest points seen.

        Args:
            problem: The clips.
            look: See `Look`. What is climbed and what is kept may differ.
            highest: The points to beat.
            stop_above: Stops once the kept values of all clips are above this.
        """
        features = mask_frames(problem.features, problem.frame_mask)

        def restart(index: tf.Tensor, highest: Highest) -> tuple[tf.Tensor, Highest]:
            drawn = self.ball.random_start(
                features, problem.frame_mask, self.epsilon, problem.seed, index
            )
            start = self._add(features, drawn, problem.frame_mask)
            if not self.random_start:
                start = keep_where(index[tf.newaxis] == 0, features, start)
            climb = _Climb(self, features, problem.frame_mask, look, stop_above)
            return index + 1, climb.from_start(start, highest)

        _, highest = tf.while_loop(
            lambda index, highest: tf.logical_and(
                index < self.restarts, tf.reduce_any(highest.value <= stop_above)
            ),
            restart,
            (tf.constant(0), highest),
            maximum_iterations=self.restarts,
            parallel_iterations=1,
        )
        return highest


def checkpoints(steps: int) -> list[int]:
    """Returns the w_j: 0, then ceil(p_j steps), p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06).

    p_0 is 0, p_1 is 0.22. Computed in hundredths: 100 steps have exact checkpoints.

    Examples:
        >>> from yt8m_gat.attacks.apgd import checkpoints
        >>> checkpoints(100)
        [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0, 22]
    while shares[-1] <= 100:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    return sorted({-(-share * steps // 100) for share in shares[:-1]})


class _State(NamedTuple):
    """One ascent: all clips at the same index, each with a step of its own.

    Attributes:
        index: The number of the next point.
        point: x_i.
        previous: x_i-1.
        value: The objective at x_i, float32 [B].
        gradients: Those at x_i.
        best: The highest point of this ascent by the objective.
        best_gradients: Those at `best`.
        step: [B], in radii.
        rises: [B], steps since the last checkpoint that raised the objective.
        best_at_check: [B], the highest objective at the last checkpoint.
        halved: Bool [B], whether the step was halved there.
        highest: The highest points over all ascents, by what is kept.
    """

    index: tf.Tensor
    point: Tensors
    previous: Tensors
    value: tf.Tensor
    gradients: Tensors
    best: Highest
    best_gradients: Tensors
    step: tf.Tensor
    rises: tf.Tensor
    best_at_check: tf.Tensor
    halved: tf.Tensor
    highest: Highest


class _Climb:
    """The ascent over one batch from one start; the padding of `features` is 0."""

    def __init__(
        self, attack: APGD, features: Tensors, frame_mask: Any, look: Look, stop_above: float
    ) -> None:
        self.attack = attack
        self.features = features
        self.frame_mask = frame_mask
        self.look = look
        self.stop_above = stop_above
        windows = [0] * (attack.steps + 1)
        places = checkpoints(attack.steps)
        for before, place in itertools.pairwise(places):
            windows[place] = place - before
        self.windows = tf.constant(windows, tf.float32)  # 0: no checkpoint.

    def from_start(self, start: Tensors, highest: Highest) -> Highest:
        """Returns the highest points, including those of earlier ascents."""
        value, kept, gradients = self._look(start)
        zeros = tf.zeros_like(value)
        state = _State(
            index=tf.constant(1),
            point=start,
            previous=start,
            value=value,
            gradients=gradients,
            best=Highest(start, value),
            best_gradients=gradients,
            step=zeros + 2.0,
            rises=zeros,
            best_at_check=value,
            halved=tf.zeros_like(value, tf.bool),
            highest=highest.or_where_higher(start, kept),
        )
        (state,) = tf.while_loop(
            lambda state: tf.reduce_any(state.highest.value <= self.stop_above),
            lambda state: (self._check(self._advance(state)),),
            (state,),
            maximum_iterations=self.attack.steps,
            parallel_iterations=1,
        )
        return state.highest

    def _look(self, point: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        value, kept, gradients = self.look(point)
        require_gradients(gradients)
        return tf.cast(value, tf.float32), tf.cast(kept, tf.float32), gradients

    def _within(self, point: Tensors) -> Tensors:
        change = {name: point[name] - self.features[name] for name in point}
        projected = self.attack.ball.project(change, None, self.attack.epsilon)
        return self.attack._add(self.features, projected, None)

    def _advance(self, state: _State) -> _State:
        """Takes a step and looks at where it leads."""
        attack = self.attack
        ascent = attack.ball.steepest_ascent(state.gradients, self.frame_mask, attack.epsilon)
        stepped = self._within(
            {name: x + _per_clip(state.step, x) * ascent[name] for name, x in state.point.items()}
        )
        share = tf.where(state.index == 1, 1.0, MOMENTUM)
        moved = {}
        for name, x in state.point.items():
            alpha = tf.cast(share, x.dtype)
            moved[name] = x + alpha * (stepped[name] - x) + (1 - alpha) * (x - state.previous[name])
        point = self._within(moved)
        value, kept, gradients = self._look(point)
        higher = value > state.best.value
        return state._replace(
            point=point,
            previous=state.point,
            value=value,
            gradients=gradients,
            best=state.best.or_where_higher(point, value),
            best_gradients=keep_where(higher, gradients, state.best_gradients),
            rises=state.rises + tf.cast(value > state.value, tf.float32),
            highest=state.highest.or_where_higher(point, kept),
        )

    def _check(self, state: _State) -> _State:
        """At a checkpoint, halves the steps that have stopped paying; counts the index on."""
        window = self.windows[state.index]
        # Few steps are checkpoints; choosing points and gradients in all would cost as many copies.
        state = tf.cond(window > 0, lambda: self._halve(state, window), lambda: state)
        return state._replace(index=state.index + 1)

    def _halve(self, state: _State, window: tf.Tensor) -> _State:
        few_rises = state.rises < RISING_SHARE * window
        no_gain = tf.logical_and(
            tf.logical_not(state.halved), state.best.value <= state.best_at_check
        )
        halve = tf.logical_or(few_rises, no_gain)
        return state._replace(
            point=keep_where(halve, state.best.point, state.point),
            value=tf.where(halve, state.best.value, state.value),
            gradients=keep_where(halve, state.best_gradients, state.gradients),
            step=tf.where(halve, state.step / 2.0, state.step),
            rises=tf.zeros_like(state.rises),
            best_at_check=state.best.value,
            halved=halve,
        )


def _per_clip(values: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
    """Reshapes [B] so that it broadcasts against `feature` [B, ...], in its type."""
    shaped = tf.reshape(values, [-1] + [1] * (feature.shape.rank - 1))
    return tf.cast(shaped, feature.dtype)
