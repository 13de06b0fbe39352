"""Attacks that use only loss values; a white-box attack must do at least as well."""

import abc
import dataclasses
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks import draws
from yt8m_gat.attacks.attack import (
    Attack,
    PassCount,
    Perturbed,
    Problem,
    keep_where,
    logits_of,
    top1_missed,
)
from yt8m_gat.attacks.ball import Ball, Tensors, normal_like, seed_pair

# Numbers of queries after which a longer search also gives its figures.
CURVE = (100, 300, 1000, 3000)


@dataclasses.dataclass(frozen=True)
class _SurfaceSearch(Attack):
    """Searches the ball's surface: a proposal that raises a clip's loss replaces its point.

    `AttackResult.figures` has `loss_after_100_queries` and `success_after_100_queries`, and so on
    for the numbers of `CURVE` below `queries`: the loss and the success of the best point until
    then. They are not those of a shorter search, whose steps become small earlier.
    """

    ball: Ball
    epsilon: float
    queries: int = 100
    stop_above: float = dataclasses.field(default=float("inf"), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1:
            raise ValueError(f"`queries` must be at least 1. Received: queries={self.queries}")

    @property
    def cost(self) -> PassCount:
        """At most queries + 2 forward passes: the clean clip and the result cost one each."""
        return PassCount(self.queries + 2, 0)

    @abc.abstractmethod
    def _change(
        self, perturbation: Tensors, frame_mask: Any, index: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        """Returns what is added to the current point before scaling back to the surface."""

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point with the highest loss among the queries and the clean clip."""
        features, frame_mask, seed = dict(problem.features), problem.frame_mask, problem.seed

        def surface(direction: Tensors) -> Tensors:
            point = self.ball.surface(direction, frame_mask, self.epsilon)
            return {name: tf.cast(value, features[name].dtype) for name, value in point.items()}

        def seen_at(perturbation: Tensors) -> tf.Tensor:
            """Returns float [2, B]: the loss, and 1 where no label is the top class."""
            outputs = problem.outputs_at(self._add(features, perturbation, frame_mask))
            missed = top1_missed(problem.labels, logits_of(outputs))
            loss = tf.cast(problem.loss_of(outputs), tf.float32)
            return tf.stack([loss, tf.cast(missed, tf.float32)])

        def ask(
            index: tf.Tensor, current: Tensors, seen: tf.Tensor, curve: tf.Tensor
        ) -> tuple[tf.Tensor, Tensors, tf.Tensor, tf.Tensor]:
            change = self._change(current, frame_mask, index, seed_pair(seed, index))
            proposal = surface({name: current[name] + change[name] for name in features})
            proposed = seen_at(proposal)
            higher = proposed[0] > seen[0]
            current = keep_where(higher, proposal, current)
            seen = tf.where(higher, proposed, seen)
            now = tf.reshape(tf.constant(counts, tf.int32) == index + 1, [-1, 1, 1])
            return index + 1, current, seen, tf.where(now, seen, curve)

        counts = [count for count in CURVE if 1 < count < self.queries]
        nothing = {name: tf.zeros_like(value) for name, value in features.items()}
        clean = seen_at(nothing)
        current = self.ball.random_surface(features, frame_mask, self.epsilon, seed_pair(seed))
        curve = tf.tile(tf.zeros_like(clean)[tf.newaxis], [len(counts), 1, 1])
        asked, current, seen, curve = tf.while_loop(
            lambda index, _, seen, __: tf.logical_and(
                index < self.queries,
                tf.reduce_any(tf.maximum(seen[0], clean[0]) <= self.stop_above),
            ),
            ask,
            (tf.constant(1), current, seen_at(current), curve),
            maximum_iterations=self.queries,
            parallel_iterations=1,
        )
        best = self._add(features, current, frame_mask)
        higher = seen[0] > clean[0]
        kept = keep_where(higher, best, self._add(features, nothing, frame_mask))
        # A search that has ended early would find no more.
        unasked = tf.reshape(tf.constant(counts, tf.int32) > asked, [-1, 1, 1])
        curve = tf.where(unasked, seen, curve)
        # As in the result, the clean clip counts where no query was worse for the model.
        curve = tf.where(curve[:, :1] > clean[0], curve, clean)
        figures = {}
        for place, count in enumerate(counts):
            figures[f"loss_after_{count}_queries"] = curve[place, 0]
            figures[f"success_after_{count}_queries"] = curve[place, 1]
        return Perturbed(kept, figures=figures)


@dataclasses.dataclass(frozen=True)
class RandomSearch(_SurfaceSearch):
    """Proposes the current point plus normal noise of `mutation` times its size.

    Norm and axes: the ball's; a result is on its surface, or the clean clip if no query raised
    the loss. Space: the features as the model takes them. Bounds: `clip_to_range`. Success: the
    top-1 class is none of the labels. Cost: queries + 2 forward passes.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        queries: Number of points at which the loss is evaluated.
        stop_above: The search ends once the loss of every clip is above this.
        mutation: Size of the noise, as a share of the root mean square of each row.

    Raises:
        ValueError: If `queries` or `mutation` is not positive.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, RandomSearch, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = RandomSearch(Ball("l2"), epsilon=1.0, queries=20)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels, seed=0)
        >>> result.norm.numpy().round(4), result.success.numpy()
        (array([1.], dtype=float32), array([ True]))
    """

    mutation: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mutation > 0:
            raise ValueError(f"`mutation` must be positive. Received: mutation={self.mutation}")

    @property
    def name(self) -> str:
        """`random_search` or `random_search_linf`."""
        return self._named("random_search")

    def _change(
        self, perturbation: Tensors, frame_mask: Any, index: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        del frame_mask, index
        noise = normal_like(perturbation, seed)
        return {
            name: self.mutation * _frame_size(value) * tf.cast(noise[name], value.dtype)
            for name, value in perturbation.items()
        }


@dataclasses.dataclass(frozen=True)
class SquareSearch(_SurfaceSearch):
    """Proposes the current point with one block of frames and channels shifted by a constant sign.

    A block is a run of real frames times a run of channels; with frames of pixels, times runs of
    rows and of columns, in all colors. Its place is drawn for each clip and modality; its share of
    the clip's area falls from `first_share` to one entry. Twice the root mean square of each frame
    is added with one random sign, or one for each color (under linf this sets the block to that
    sign), and the sum is scaled back to the surface. The block is the analogue over [T, D] and over
    [T, H, W] of the squares that the attack is named after.

    Norm and axes, space, bounds, success and cost: as `RandomSearch`.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        queries: Number of points at which the loss is evaluated.
        stop_above: The search ends once the loss of every clip is above this.
        first_share: Share of the frames times channels in the first block.

    Raises:
        ValueError: If `queries` is not positive or `first_share` not in (0, 1].

    Reference: Andriushchenko et al., Square Attack, 2020.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import Ball, SquareSearch, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> attack = SquareSearch(Ball("l2"), epsilon=1.0, queries=20)
        >>> result = attack.attack(model, margin_loss, clip, frame_mask, labels, seed=0)
        >>> result.norm.numpy().round(4), result.success.numpy()
        (array([1.], dtype=float32), array([ True]))
    """

    first_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.first_share <= 1:
            raise ValueError(
                f"`first_share` must be in (0, 1]. Received: first_share={self.first_share}"
            )

    @property
    def name(self) -> str:
        """`square` or `square_linf`."""
        return self._named("square")

    def _change(
        self, perturbation: Tensors, frame_mask: Any, index: tf.Tensor, seed: tf.Tensor
    ) -> Tensors:
        # The block's area falls by two decades; its sides are equal shares.
        progress = tf.cast(index, tf.float32) / self.queries
        area = self.first_share * 10.0 ** (-2.0 * progress)
        changes = {}
        for stream, (name, value) in enumerate(perturbation.items()):
            shape, rank = tf.shape(value), value.shape.rank
            has_colors = rank == 5
            num_signs = shape[-1] if has_colors else 1
            drawn = draws.uniform(
                [rank - 1 + num_signs, shape[0]], tf.random.fold_in(seed, stream), axis=1
            )
            axes = range(1, rank - 1 if has_colors else rank)
            # Two sides for [B, D] too, whose second would be time.
            share = area ** (1.0 / max(2, len(axes)))
            block = tf.ones([1] * rank, tf.bool)
            for axis in axes:
                lengths = tf.fill(shape[:1], shape[axis])
                if axis == 1 and frame_mask is not None:
                    lengths = tf.reduce_sum(tf.cast(frame_mask, tf.int32), axis=1)
                run = _run(lengths, shape[axis], share, drawn[rank - 1 - axis])
                along = [-1 if i == 0 else shape[axis] if i == axis else 1 for i in range(rank)]
                block = tf.logical_and(block, tf.reshape(run, along))
            sign = tf.where(tf.transpose(drawn[rank - 1 :]) < 0.5, -1.0, 1.0)  # [B, num_signs]
            sign = tf.reshape(sign, [-1] + [1] * (rank - 2) + [num_signs])
            push = tf.cast(sign, value.dtype) * 2.0 * _frame_size(value)
            changes[name] = tf.where(block, push, tf.zeros_like(value))
        return changes


def _frame_size(value: tf.Tensor) -> tf.Tensor:
    """Returns the root mean square of each frame [..., 1], or of each vector of a video."""
    rank = value.shape.rank
    axes = list(range(min(2, rank - 1), rank))
    return tf.sqrt(tf.reduce_mean(tf.square(value), axis=axes, keepdims=True))


def _run(lengths: tf.Tensor, size: tf.Tensor, share: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Marks a run of `share` of the first `lengths` places: bool [B, size]; `draws` place it."""
    extent = tf.cast(tf.math.ceil(share * tf.cast(lengths, tf.float32)), tf.int32)
    begin = tf.cast(draws * tf.cast(lengths - extent + 1, tf.float32), tf.int32)
    # A draw next to 1 may round up to the end.
    begin = tf.minimum(begin, lengths - extent)[:, tf.newaxis]
    places = tf.range(size)[tf.newaxis, :]
    return tf.logical_and(places >= begin, places < begin + extent[:, tf.newaxis])
