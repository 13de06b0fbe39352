"""An attack that sees only the model's decisions: whether a clip counts as broken."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks.attack import (
    Attack,
    PassCount,
    Perturbed,
    Problem,
    keep_where,
    logits_of,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames, seed_pair
from yt8m_gat.attacks.gradient_free import CURVE
from yt8m_gat.attacks.objectives import Criterion

# Random directions that are tried first, each at twice the radius of the one before.
STARTS = 16
# Probes around the first point of the boundary; around the t-th, sqrt(t) times as many (the paper
# takes 100).
PROBES = 50
# Step sizes that are tried, each half of the one before.
STEP_SIZES = 6
# Halvings of a radius: the boundary is then 4,000 times as near as the clean clip.
HALVINGS = 12
# Length of a probe, as a share of the distance from the clean clip.
PROBE_LENGTH = 0.1

# (perturbation) -> whether each clip is broken there, bool [B].
Oracle = Callable[[Tensors], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class HopSkipJump(Attack):
    """Walks along the decision boundary towards the clean clip, by yes or no answers only.

    With phi(x) = 1 where the criterion is met and -1 elsewhere, R_t a perturbation on the boundary,
    and directions u_b drawn from the unit ball's surface:

    ```
    v        = sum over b of (phi(X + R_t + 0.1 ||R_t|| u_b) - mean of phi) u_b
    R'       = R_t + ||R_t|| / sqrt(t) / 2^i * (unit step along v), i the least that breaks
    R_(t+1)  = R' within the smallest ball around X that breaks, by halving; R_t if that is larger
    ```

    Neither the logits' values nor the loss nor a gradient is looked at, so that a model whose loss
    leads attacks astray is attacked like an honest one. The walk does not depend on epsilon but for
    its first radius. It ends at the point of the sphere of radius epsilon in the direction that it
    found, or at the boundary if that point is not broken and the boundary lies inside.

    Every other direction is the same in all frames of a clip: models that average over frames react
    to those hundreds of times more, and a few thousand answers say little about all T * D entries.

    `AttackResult.figures` has `distance`, the norm of the nearest broken perturbation (0 where the
    clean clip is broken, infinite where none was found), and `success_after_100_queries` and so on
    for the numbers of `CURVE` below `queries`: whether it was within epsilon by then.

    Norm and axes: the ball's. Space: the features as the model takes them. Bounds: `clip_to_range`.
    Success: the criterion. Cost: queries + 3 forward passes: the clean clip, the point of the
    sphere and the result cost one each.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        queries: Decisions that the walk asks for.
        criterion: When a clip counts as broken.

    Raises:
        ValueError: If `queries` is not positive.

    Reference: Chen, Jordan and Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based
    Attack", 2020. Deviations: the criterion is multi-label; steps and radii are those of the ball,
    per frame too; a point that is not nearer is not taken; the directions that frames share (as
    QEBA, Li et al., 2020, draws from a subspace); the start is the first of 16 random directions
    that breaks; there are half as many probes.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, HopSkipJump, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = HopSkipJump(Ball("l2"), epsilon=1.0, queries=200)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels, seed=0)
        >>> result.success.numpy(), result.figures["distance"].numpy().round(2)  # 1 / sqrt(2)
        (array([ True]), array([0.71], dtype=float32))
    """

    ball: Ball
    epsilon: float
    queries: int = 1000
    criterion: Criterion = dataclasses.field(default_factory=Criterion)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1:
            raise ValueError(f"`queries` must be at least 1. Received: queries={self.queries}")

    @property
    def name(self) -> str:
        """`hop_skip_jump` or `hop_skip_jump_linf`."""
        return self._named("hop_skip_jump")

    @property
    def cost(self) -> PassCount:
        """Exactly queries + 3 forward passes."""
        return PassCount(self.queries + 3, 0)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point of the sphere, or of the boundary; does not use the loss."""
        frame_mask = problem.frame_mask
        features = mask_frames(problem.features, frame_mask)
        problem = problem._replace(features=features, seed=tf.cast(problem.seed, tf.int32))
        clean = problem.outputs_at(features)

        def met(outputs: Any) -> tf.Tensor:
            return self.criterion.met(problem.labels, logits_of(outputs), problem.label_weights)

        def is_broken(perturbation: Tensors) -> tf.Tensor:
            return met(problem.outputs_at(self._add(features, perturbation, frame_mask)))

        starts, halvings, probes = self._plan()
        found, point = self._start(problem, is_broken, met(clean), starts)
        point, radius = self._shrink(problem, is_broken, point, halvings)
        # Numbers of queries after the start, and after each round.
        ends = np.cumsum([starts + halvings, *(count + STEP_SIZES + HALVINGS for count in probes)])
        counts = [count for count in CURVE if ends[0] <= count < self.queries]
        rounds = [int(np.searchsorted(ends, count, side="right")) - 1 for count in counts]

        def advance(
            number: tf.Tensor, found: tf.Tensor, point: Tensors, radius: tf.Tensor, curve: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, Tensors, tf.Tensor, tf.Tensor]:
            count = tf.gather(tf.constant(probes, tf.int32), number)
            direction = self._estimate(problem, is_broken, point, radius, number, count)
            stepped, moved = self._step(problem, is_broken, point, radius, direction, number)
            moved, moved_radius = self._shrink(problem, is_broken, moved, HALVINGS)
            nearer = tf.logical_and(
                stepped, tf.logical_or(moved_radius < radius, tf.logical_not(found))
            )
            found = tf.logical_or(found, stepped)
            point = keep_where(nearer, moved, point)
            radius = tf.where(nearer, moved_radius, radius)
            number += 1
            now = tf.reshape(tf.constant(rounds, tf.int32) == number, [-1, 1])
            return number, found, point, radius, tf.where(now, _distance(found, radius), curve)

        curve = tf.tile(_distance(found, radius)[tf.newaxis], [len(counts), 1])
        _, found, point, radius, curve = tf.while_loop(
            lambda number, *_: number < len(probes),
            advance,
            (tf.constant(0), found, point, radius, curve),
            maximum_iterations=len(probes),
            parallel_iterations=1,
        )
        sphere = self._cast(self.ball.surface(point, frame_mask, self.epsilon), features)
        inside = tf.logical_and(found, radius <= self.epsilon)
        kept = keep_where(tf.logical_and(inside, tf.logical_not(is_broken(sphere))), point, sphere)
        figures = {"distance": _distance(found, radius)}
        for place, count in enumerate(counts):
            within = tf.cast(curve[place] <= self.epsilon, tf.float32)
            figures[f"success_after_{count}_queries"] = within
        return Perturbed(
            self._add(features, kept, frame_mask), clean_outputs=clean, figures=figures
        )

    def _plan(self) -> tuple[int, int, list[int]]:
        """Splits the queries into starts, halvings of the first radius, and probes by round."""
        starts = min(STARTS, self.queries)
        left = self.queries - starts
        halvings = min(HALVINGS, left)
        left -= halvings
        probes: list[int] = []
        while left > 0:
            count = round(PROBES * (len(probes) + 1) ** 0.5)
            if left < count + STEP_SIZES + HALVINGS:
                break
            probes.append(count)
            left -= count + STEP_SIZES + HALVINGS
        if probes:
            probes[-1] += left
        else:
            halvings += left
        return starts, halvings, probes

    def _start(
        self, problem: Problem, is_broken: Oracle, clean_is_broken: tf.Tensor, starts: int
    ) -> tuple[tf.Tensor, Tensors]:
        """Tries random directions at growing radii until one breaks the clip."""
        nothing = {name: tf.zeros_like(value) for name, value in problem.features.items()}

        def attempt(
            number: tf.Tensor, found: tf.Tensor, point: Tensors
        ) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
            radius = self.epsilon * 2.0 ** tf.cast(number, tf.float32)
            tried = self._direction(problem, number)
            tried = {name: tf.cast(radius, value.dtype) * value for name, value in tried.items()}
            point = keep_where(found, point, tried)
            return number + 1, tf.logical_or(found, is_broken(tried)), point

        _, found, point = tf.while_loop(
            lambda number, *_: number < starts,
            attempt,
            (tf.constant(0), clean_is_broken, nothing),
            maximum_iterations=starts,
            parallel_iterations=1,
        )
        return found, point

    def _shrink(
        self, problem: Problem, is_broken: Oracle, point: Tensors, halvings: int
    ) -> tuple[Tensors, tf.Tensor]:
        """Returns a broken point within the smallest ball that breaks, and the ball's radius."""
        largest = self.ball.norm_of(point, problem.frame_mask)

        def within(radius: tf.Tensor) -> Tensors:
            unit = {
                name: tf.math.divide_no_nan(value, _for_clips(radius, value))
                for name, value in point.items()
            }
            projected = self.ball.project(unit, problem.frame_mask, 1.0)
            return {name: value * _for_clips(radius, value) for name, value in projected.items()}

        def halve(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            middle = (low + high) / 2.0
            broken = is_broken(within(middle))
            return tf.where(broken, low, middle), tf.where(broken, middle, high)

        _, radius = tf.while_loop(
            lambda *_: tf.constant(True),
            halve,
            (tf.zeros_like(largest), largest),
            maximum_iterations=halvings,
            parallel_iterations=1,
        )
        return within(radius), radius

    def _estimate(
        self,
        problem: Problem,
        is_broken: Oracle,
        point: Tensors,
        radius: tf.Tensor,
        number: tf.Tensor,
        count: tf.Tensor,
    ) -> Tensors:
        """Returns v: the probes that break, less those that do not."""
        nothing = {name: tf.zeros_like(value) for name, value in point.items()}

        def probe(
            index: tf.Tensor, answers: tf.Tensor, toward: Tensors, drawn: Tensors
        ) -> tuple[tf.Tensor, tf.Tensor, Tensors, Tensors]:
            # The rounds' draws do not overlap: none has as many probes.
            unit = self._direction(problem, STARTS + self.queries * number + index)
            length = PROBE_LENGTH * radius
            broken = is_broken(
                {name: point[name] + _for_clips(length, u) * u for name, u in unit.items()}
            )
            answer = tf.where(broken, 1.0, -1.0)
            toward = {name: toward[name] + _for_clips(answer, u) * u for name, u in unit.items()}
            drawn = {name: drawn[name] + u for name, u in unit.items()}
            return index + 1, answers + answer, toward, drawn

        _, answers, toward, drawn = tf.while_loop(
            lambda index, *_: index < count,
            probe,
            (tf.constant(0), tf.zeros_like(radius), nothing, nothing),
            parallel_iterations=1,
        )
        mean = answers / tf.cast(count, radius.dtype)
        return {name: toward[name] - _for_clips(mean, u) * u for name, u in drawn.items()}

    def _step(
        self,
        problem: Problem,
        is_broken: Oracle,
        point: Tensors,
        radius: tf.Tensor,
        direction: Tensors,
        number: tf.Tensor,
    ) -> tuple[tf.Tensor, Tensors]:
        """Takes the longest of the steps that breaks; returns whether one does."""
        unit = self._cast(self.ball.surface(direction, problem.frame_mask, 1.0), point)

        def attempt(
            length: tf.Tensor, stepped: tf.Tensor, moved: Tensors
        ) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
            tried = {name: point[name] + _for_clips(length, u) * u for name, u in unit.items()}
            longest = tf.logical_and(is_broken(tried), tf.logical_not(stepped))
            return (
                length / 2.0,
                tf.logical_or(stepped, longest),
                keep_where(longest, tried, moved),
            )

        _, stepped, moved = tf.while_loop(
            lambda *_: tf.constant(True),
            attempt,
            (
                radius / tf.sqrt(tf.cast(number + 1, radius.dtype)),
                tf.zeros_like(radius, tf.bool),
                point,
            ),
            maximum_iterations=STEP_SIZES,
            parallel_iterations=1,
        )
        return stepped, moved

    def _direction(self, problem: Problem, draw: tf.Tensor) -> Tensors:
        """Draws from the unit ball's surface; every other time the same in all frames."""
        alike = draw % 2 == 0 if problem.frame_mask is not None else False
        return self.ball.random_surface(
            problem.features, problem.frame_mask, 1.0, seed_pair(problem.seed, draw), alike
        )

    def _cast(self, values: Tensors, features: Tensors) -> Tensors:
        return {name: tf.cast(value, features[name].dtype) for name, value in values.items()}

    def _succeeded(self, problem: Problem, logits: tf.Tensor, clean_outputs: Any) -> tf.Tensor:
        del clean_outputs
        return self.criterion.met(problem.labels, logits, problem.label_weights)


def _for_clips(values: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Gives `values` [B] axes of 1, in the type of `features` [B, ...]."""
    return tf.cast(tf.reshape(values, [-1] + [1] * (features.shape.rank - 1)), features.dtype)


def _distance(found: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    return tf.where(found, radius, float("inf"))
