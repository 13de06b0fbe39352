"""The fewest frames whose perturbation fools the model."""

import dataclasses
from typing import NamedTuple

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

# Halvings of the range of numbers of frames: exact for clips of up to 512 frames.
HALVINGS = 9


@dataclasses.dataclass(frozen=True)
class SparseFrames(Attack):
    """PGD on the margin, limited to as few frames as it takes: each clip has its own number.

    1. PGD over all real frames. A frame's gain is the sum over the steps of gradient times
       movement: over all frames the gains add up to what the margin rose, to first order.
    2. A search by halves for the smallest n at which PGD limited to the n frames of the highest
       gain makes the top class none of the labels.

    A clip that is wrong without any perturbation stays as it is, with 0 frames. One that all frames
    do not break ends with all of them, at its highest margin. `AttackResult.figures` has
    `perturbed_frames`, the number of frames that changed.

    Norm and axes: the ball's; within `frame`, each perturbed frame moves by at most epsilon; within
    `example` and `joint` the perturbed frames share the radius. Space: the features as the model
    takes them. Bounds: `clip_to_range`, kept at every step. Success: the top-1 class is none of the
    labels. Cost: at most 10 (steps + 1) + 1 forward passes, 10 steps backward.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        steps: Steps of each PGD, of 2.5 * epsilon / steps.

    Raises:
        ValueError: If `steps` is not positive.

    Reference: Wei et al., "Sparse Adversarial Perturbations for Videos", 2019, who relax the number
    of frames to the l2,1 norm, the sum over the frames of their l2 norms, with a weight beside the
    loss. Deviation: the number itself is searched for within the ball of the other attacks, so that
    there is no weight to choose, and the frames are chosen by their gain, not by hand.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, SparseFrames, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip = {"x": [[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]}
        >>> attack = SparseFrames(Ball("l2"), epsilon=0.5)  # Moves the margin by 0.71 a frame.
        >>> result = attack.attack(model, margin_loss, clip, [[True] * 3], [[1.0, 0.0]])
        >>> result.success.numpy(), result.figures["perturbed_frames"].numpy()
        (array([ True]), array([2.], dtype=float32))
    """

    ball: Ball
    epsilon: float
    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={self.steps}")

    @property
    def name(self) -> str:
        """`sparse` or `sparse_linf`."""
        return self._named("sparse")

    @property
    def objective(self) -> str:
        """`margin`: a clip is broken where it is above 0."""
        return "margin"

    @property
    def cost(self) -> PassCount:
        """At most 10 (steps + 1) + 1 forward passes, 10 steps backward."""
        return PassCount((HALVINGS + 1) * (self.steps + 1) + 1, (HALVINGS + 1) * self.steps)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point with the fewest perturbed frames that breaks each clip."""
        if problem.frame_mask is None:
            raise ValueError("`SparseFrames` needs frames. Received: a `frame_mask` of None")
        real = tf.convert_to_tensor(problem.frame_mask)
        problem = problem._replace(features=mask_frames(problem.features, real))
        everywhere = self._climb(problem, real)
        gains = tf.where(real, everywhere.gains, float("-inf"))
        order = tf.argsort(gains, axis=1, direction="DESCENDING", stable=True)
        ranks = tf.argsort(order, axis=1, stable=True)  # [B, T]; padding comes last.
        count = tf.reduce_sum(tf.cast(real, tf.int32), axis=1)
        wrong = everywhere.clean > 0
        state = _Range(
            too_few=tf.zeros_like(count),
            enough=tf.where(wrong, 0, count),
            point=keep_where(wrong, problem.features, everywhere.highest.point),
        )
        broken = everywhere.highest.value > 0

        def is_open(state: _Range) -> tf.Tensor:
            return tf.logical_and(broken, state.enough - state.too_few > 1)

        def halve(state: _Range) -> tuple[_Range]:
            tried = (state.too_few + state.enough) // 2
            chosen = tf.logical_and(real, ranks < tried[:, tf.newaxis])
            climbed = self._climb(problem, chosen).highest
            breaks = tf.logical_and(is_open(state), climbed.value > 0)
            fails = tf.logical_and(is_open(state), climbed.value <= 0)
            return (
                _Range(
                    too_few=tf.where(fails, tried, state.too_few),
                    enough=tf.where(breaks, tried, state.enough),
                    point=keep_where(breaks, climbed.point, state.point),
                ),
            )

        (state,) = tf.while_loop(
            lambda state: tf.reduce_any(is_open(state)),
            halve,
            (state,),
            maximum_iterations=HALVINGS,
            parallel_iterations=1,
        )
        return Perturbed(state.point)

    def _climb(self, problem: Problem, chosen: tf.Tensor) -> "_Climbed":
        """Runs PGD from the clean clips, moving only the `chosen` frames, bool [B, T]."""
        features = problem.features
        step_size = 2.5 * self.epsilon / self.steps

        def step(
            point: Tensors, gains: tf.Tensor, highest: Highest, clean: tf.Tensor
        ) -> tuple[Tensors, tf.Tensor, Highest, tf.Tensor]:
            value, gradients, _ = loss_and_gradients(problem, point)
            require_gradients(gradients)
            value = tf.cast(value, tf.float32)
            clean = tf.where(tf.math.is_inf(clean), value, clean)
            ascent = self.ball.steepest_ascent(gradients, chosen, step_size)
            moved = {name: point[name] + ascent[name] - features[name] for name in point}
            projected = self.ball.project(moved, chosen, self.epsilon)
            after = self._add(features, projected, problem.frame_mask)
            gains += tf.add_n(
                [
                    _per_frame(gradients[name] * (after[name] - point[name]), tf.reduce_sum)
                    for name in point
                ]
            )
            return after, gains, highest.or_where_higher(point, value), clean

        nothing = Highest.nothing(features)
        point, gains, highest, clean = tf.while_loop(
            lambda *_: tf.constant(True),
            step,
            (dict(features), tf.zeros_like(chosen, tf.float32), nothing, nothing.value),
            maximum_iterations=self.steps,
            parallel_iterations=1,
        )
        last = problem.loss_of(problem.outputs_at(point))
        return _Climbed(highest.or_where_higher(point, last), gains, clean)

    def _figures(self, change: Tensors) -> dict[str, tf.Tensor]:
        moved = [_per_frame(value != 0, tf.reduce_any) for value in change.values()]
        frames = tf.reduce_any(tf.stack(moved), axis=0)
        return {"perturbed_frames": tf.reduce_sum(tf.cast(frames, tf.float32), axis=1)}


class _Range(NamedTuple):
    """Numbers of frames, int32 [B], between which the smallest sufficient one lies."""

    too_few: tf.Tensor
    enough: tf.Tensor
    point: Tensors


class _Climbed(NamedTuple):
    """The highest points, the gains of the frames [B, T], and the clean margin [B]."""

    highest: Highest
    gains: tf.Tensor
    clean: tf.Tensor


def _per_frame(values: tf.Tensor, reduce: object) -> tf.Tensor:
    """Reduces [B, T, ...] to [B, T]; sums are float32."""
    reduced = reduce(values, axis=list(range(2, values.shape.rank)))
    return reduced if reduced.dtype == tf.bool else tf.cast(reduced, tf.float32)
