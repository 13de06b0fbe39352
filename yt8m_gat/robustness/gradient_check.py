"""Whether the gradient that attacks follow is that of the loss: slopes and finite differences."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames, normal_like, seed_pair

# (features) -> (losses [B], gradients of their sum), as attacks see them.
GradientAt = Callable[[Tensors], tuple[tf.Tensor, Mapping[str, tf.Tensor | None]]]
# (features in float64) -> losses [B], in float64 where the model can compute in it.
LossAt = Callable[[Tensors], tf.Tensor]

# Steps of the differences, as shares of the radius.
STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# Random directions at each point, beside the attack's.
NUM_RANDOM = 2
# A slope may differ by this share of the larger of the two, ...
BAND = 0.1
# ... and by this share of the steepest slope: a random direction is nearly level, so that the
# rounding of the gradient shows.
STEEPEST_BAND = 0.01
# A gradient is nearly zero if a step of the whole radius along it would, by its slope, raise the
# loss by less than this share of the clip's loss.
NEARLY_ZERO = 1e-3
# Two passes on the same clip are the same if no logit differs by more than this share of the
# largest; rounding in another order makes 1e-6.
SAME_PASS = 1e-4
# Factors on the logits, for the check of their scale.
FACTORS = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
# Rounding, relative to the loss, below which the model has computed in float64.
_FLOAT64_ROUNDING = 1e-11


class Slopes(NamedTuple):
    """Slopes of each clip's loss at one point along K directions; the first is the attack's.

    Attributes:
        losses: Float64 [B].
        gradient: Float64 [K, B], the slopes by the model's gradient.
        difference: Float64 [K, B], by central differences.
        error: Float64 [K, B], how far the difference may be off.
        rounding: Float64 [B], the error of the loss itself.
    """

    losses: np.ndarray
    gradient: np.ndarray
    difference: np.ndarray
    error: np.ndarray
    rounding: np.ndarray

    @property
    def steepest(self) -> np.ndarray:
        """Float [B]: the slope along the attack's direction."""
        return np.abs(self.gradient[0])

    def are_outside(self) -> np.ndarray:
        """Returns bool [K, B]: whether the two slopes differ by more than band and error."""
        room = BAND * self._larger() + STEEPEST_BAND * self.steepest + 3 * self.error
        return np.abs(self.gradient - self.difference) > room

    def are_unresolved(self) -> np.ndarray:
        """Returns bool [K, B]: whether the difference is too inexact to say."""
        room = BAND * self._larger() + STEEPEST_BAND * self.steepest
        return ~self.are_outside() & (self.error >= room)

    def _larger(self) -> np.ndarray:
        return np.maximum(np.abs(self.gradient), np.abs(self.difference))


def measure_slopes(
    gradient_at: GradientAt,
    loss_at: LossAt,
    point: Mapping[str, tf.Tensor],
    frame_mask: Any,
    ball: Ball,
    epsilon: float,
    seed: int = 0,
) -> Slopes:
    """Measures slopes at `point`, by the gradient and by differences of the loss.

    ```
    (loss(x + h u) - loss(x - h u)) / 2h    beside    <gradient, u>
    ```

    The directions u are the attack's, the steepest ascent in the ball by the model's own gradient,
    and random ones: channels are drawn and are the same in every frame, because the slope along
    noise that differs in each of 300 frames is too small to measure. The random ones find what the
    first cannot, a gradient from which a part is missing.

    A large step h errs by the curvature, a small one by rounding. Each clip and direction takes the
    pair of neighbouring steps of `STEPS` (times epsilon) with the smallest error, which is the
    difference between the two results, plus the rounding of the loss over the step. The rounding
    is measured: the second differences of the loss over the two smallest steps, without what is
    curvature in them, relative to the loss, median over the batch. It is about 1e-16 where the
    whole model computes in float64, and 1e-7 where a part of it computes in float32.

    Args:
        gradient_at: The losses and gradients at features.
        loss_at: The losses at features in float64.
        point: {name: float [B, T, ...]}.
        frame_mask: Bool [B, T].
        ball: The attack's ball.
        epsilon: Its radius, above 0.
        seed: For the random directions.

    Costs 1 forward and backward pass, and 1 + 2 * 5 * (1 + `NUM_RANDOM`) = 31 forward passes.
    """
    _, gradients = gradient_at(dict(point))
    gradients = mask_frames(
        {
            name: tf.zeros_like(value) if gradients[name] is None else gradients[name]
            for name, value in point.items()
        },
        frame_mask,
    )
    directions = [ball.steepest_ascent(gradients, frame_mask, 1.0)]
    for index in range(NUM_RANDOM):
        drawn = normal_like(
            {name: value[:, :1] for name, value in point.items()}, seed_pair(seed, index)
        )
        drawn = {name: tf.broadcast_to(of, tf.shape(point[name])) for name, of in drawn.items()}
        directions.append(ball.steepest_ascent(drawn, frame_mask, 1.0))
    start = {name: tf.cast(value, tf.float64) for name, value in point.items()}

    def loss_along(direction: Tensors, step: float) -> np.ndarray:
        moved = {
            name: value + step * tf.cast(direction[name], tf.float64)
            for name, value in start.items()
        }
        return loss_at(moved).numpy().astype(np.float64)

    losses = loss_at(start).numpy().astype(np.float64)
    steps = epsilon * np.array(STEPS)
    ups, downs = (
        np.array([[loss_along(u, sign * step) for step in steps] for u in directions])
        for sign in (1.0, -1.0)
    )  # [K, steps, B]
    second = ups - 2.0 * losses + downs
    # The part that the curvature explains is 100 times that of a step of a tenth.
    unexplained = np.abs(second[:, -1] - second[:, -2] / 100.0).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.nan_to_num(np.median(unexplained / np.abs(losses)), nan=0.0, posinf=0.0)
    # A flat loss has second differences of 0; it is still rounded.
    rounding = np.maximum(relative, np.finfo(np.float64).eps) * np.abs(losses)
    central = (ups - downs) / (2.0 * steps[:, None])
    errors = np.abs(np.diff(central, axis=1)) + rounding / steps[1:, None]
    best = np.argmin(errors, axis=1)[:, None]  # [K, 1, B]
    slopes = [
        sum(
            tf.reduce_sum(
                tf.cast(gradients[name], tf.float64) * tf.cast(u[name], tf.float64),
                axis=list(range(1, u[name].shape.rank)),
            ).numpy()
            for name in point
        )
        for u in directions
    ]
    return Slopes(
        losses,
        np.array(slopes),
        np.take_along_axis(central[:, 1:], best, axis=1)[:, 0],
        np.take_along_axis(errors, best, axis=1)[:, 0],
        rounding,
    )


def passes_differ(first: tf.Tensor, second: tf.Tensor) -> np.ndarray:
    """Returns bool [B]: whether the logits [B, C] of two passes on the same clips differ."""
    first, second = (np.asarray(logits, np.float64) for logits in (first, second))
    largest = np.abs(first).max(axis=1)
    return np.abs(first - second).max(axis=1) > SAME_PASS * largest


class GradientFigures:
    """Shares of clips over batches, for the check `gradient` and its relatives.

    Args:
        epsilon: The radius.
    """

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon
        self._slopes: dict[str, list[Slopes]] = {}
        self._random: list[np.ndarray] = []
        self._by_factor: list[np.ndarray] = []

    def update(
        self, differ: np.ndarray, by_factor: np.ndarray, slopes: Mapping[str, Slopes]
    ) -> None:
        """Adds a batch.

        Args:
            differ: See `passes_differ`.
            by_factor: Float [K, B], the clean loss with the logits times each of `FACTORS`.
            slopes: Point -> its slopes; `clean` and others.
        """
        self._random.append(differ)
        self._by_factor.append(by_factor)
        for point, of_batch in slopes.items():
            self._slopes.setdefault(point, []).append(of_batch)

    def result(self) -> dict[str, Any]:
        """Returns shares of the clips:

        `random_share`: those with two passes that differ; `nearly_zero_share`: those with a
        gradient at the clean point that is nearly zero (`NEARLY_ZERO`); `points`: a
        `{"point", "direction", "outside_share", "unresolved_share", "ratio"}` for the attack's
        direction and for the random ones. `ratio` is the median of difference / gradient over the
        resolved slopes, None without any. `precision` is that of the differences. `loss_by_factor`
        has the mean clean loss with the logits times a factor.
        """
        points = []
        for point, batches in self._slopes.items():
            gradient, difference = (
                np.concatenate([getattr(of, name) for of in batches], axis=1)
                for name in ("gradient", "difference")
            )
            outside, unresolved = (
                np.concatenate([of() for of in functions], axis=1)
                for functions in (
                    [of.are_outside for of in batches],
                    [of.are_unresolved for of in batches],
                )
            )
            for direction, rows in (("attack", slice(1)), ("random", slice(1, None))):
                resolved = ~unresolved[rows] & (gradient[rows] != 0)
                ratios = difference[rows][resolved] / gradient[rows][resolved]
                points.append(
                    {
                        "point": point,
                        "direction": direction,
                        "outside_share": float(outside[rows].any(axis=0).mean()),
                        "unresolved_share": float(unresolved[rows].all(axis=0).mean()),
                        "ratio": float(np.median(ratios)) if ratios.size else None,
                    }
                )
        clean = self._slopes["clean"]
        losses, steepest, rounding = (
            np.concatenate([getattr(of, name) for of in clean])
            for name in ("losses", "steepest", "rounding")
        )
        exact = np.all(rounding <= _FLOAT64_ROUNDING * np.abs(losses))
        return {
            "epsilon": self.epsilon,
            "num_clips": len(losses),
            "precision": "float64" if exact else "float32",
            "random_share": float(np.concatenate(self._random).mean()),
            "nearly_zero_share": float(
                (self.epsilon * steepest <= NEARLY_ZERO * np.abs(losses)).mean()
            ),
            "loss_by_factor": dict(
                zip(
                    map(str, FACTORS),
                    np.concatenate(self._by_factor, axis=1).mean(axis=1).tolist(),
                    strict=True,
                )
            ),
            "points": points,
        }
