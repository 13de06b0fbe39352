"""DeepFool: an estimate of the distance to the nearest decision boundary."""

import dataclasses
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.attack import (
    Attack,
    PassCount,
    Perturbed,
    Problem,
    keep_where,
    logits_of,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames, require_gradients

# A difference of float32 logits below this share of the top logit is rounding error.
LOGIT_RESOLUTION = 1e-6


@dataclasses.dataclass(frozen=True)
class DeepFool(Attack):
    """Steps to the nearest boundary of the linearized model until the arg-max changes.

    With k0 the arg-max of the clean logits, at each step, w_k = d(z_k - z_k0)/dx:

    ```
    k      = arg min over the candidates of |z_k - z_k0| / ||w_k||_2
    r     <- r + |z_k - z_k0| / ||w_k||_2^2 * w_k
    x     <- x_0 + (1 + overshoot) * r
    ```

    For multi-label clips the decision is the arg-max of the logits, regardless of the labels.
    Clips that have flipped stay as they are, and so do those at which no difference of logits has
    a gradient.

    Norm and axes: l2, joint over modalities and real frames; `AttackResult.relative_norm` is
    rho = ||r||_2 / ||x||_2. Space: the features as the model takes them. Bounds: only
    `clip_to_range`. Success: the arg-max of the logits is no longer the clean one; a clip that
    did not flip is returned where the last step left it. There is no epsilon. Cost: at most
    steps + 2 forward passes and steps * (candidates - 1) backward.

    On an affine model one step is exact: ||r|| = (1 + overshoot) * min over k of
    |z_k0 - z_k| / ||w_k||.

    Args:
        candidates: Number of highest clean logits that are considered, including the arg-max.
        overshoot: Share by which the boundary is passed.
        steps: Maximum number of steps.

    Raises:
        ValueError: If there are fewer than two candidates or one step, or `overshoot` is not
            positive.

    Reference: Moosavi-Dezfooli et al., 2016; A-ART, 3.2.4.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import DeepFool, margin_loss
        >>> def model(features, frame_mask):  # Two classes: the sums of the two features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clip, frame_mask, labels = {"x": [[[2.0, 1.0]]]}, [[True]], [[1.0, 0.0]]
        >>> result = DeepFool(candidates=2).attack(model, margin_loss, clip, frame_mask, labels)
        >>> result.norm.numpy().round(4)  # 1.02 / sqrt(2): the boundary, and 2 % more.
        array([0.7212], dtype=float32)
    """

    candidates: int = 10
    overshoot: float = 0.02
    steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 2:
            raise ValueError(
                f"`candidates` must be at least 2. Received: candidates={self.candidates}"
            )
        if not self.overshoot > 0:
            raise ValueError(f"`overshoot` must be positive. Received: overshoot={self.overshoot}")
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={self.steps}")

    @property
    def name(self) -> str:
        """`deepfool`."""
        return "deepfool"

    @property
    def ball(self) -> Ball:
        """The l2 ball over all modalities and real frames of a clip."""
        return Ball("l2", "joint")

    @property
    def cost(self) -> PassCount:
        """At most steps + 2 forward and steps * (candidates - 1) backward passes."""
        return PassCount(self.steps + 2, self.steps * (self.candidates - 1))

    def perturb(self, problem: Problem) -> Perturbed:
        """Moves the clips just past the boundary; does not use the loss, the labels or the seed."""
        features, frame_mask = dict(problem.features), problem.frame_mask
        clean = problem.outputs_at(features)
        clean_logits = logits_of(clean)
        num_classes = clean_logits.shape[-1]
        if num_classes is None or num_classes < 2:
            raise ValueError(
                "DeepFool needs a model of at least two classes, their number known when the graph "
                f"is built. Received: logits of shape {clean_logits.shape}"
            )
        # [B, K]; the first is the arg-max.
        classes = tf.math.top_k(clean_logits, min(self.candidates, num_classes)).indices

        def step(
            total: Tensors, point: Tensors, done: tf.Tensor
        ) -> tuple[Tensors, Tensors, tf.Tensor]:
            logits, distance, slope = self._nearest_boundary(problem, point, classes)
            flat = tf.math.is_inf(distance)
            done = tf.logical_or(_argmax_differs(logits, classes[:, 0]), flat)
            advance = tf.where(done, 0.0, distance)
            direction = self.ball.steepest_ascent(slope, frame_mask, 1.0)
            total = {
                name: total[name] + tf.reshape(advance, [-1] + [1] * (value.shape.rank - 1)) * value
                for name, value in direction.items()
            }
            overshot = {name: (1.0 + self.overshoot) * value for name, value in total.items()}
            moved = keep_where(done, point, self._add(features, overshot, frame_mask))
            return total, moved, done

        _, point, _ = tf.while_loop(
            lambda total, point, done: tf.logical_not(tf.reduce_all(done)),
            step,
            (
                {name: tf.zeros_like(value) for name, value in features.items()},
                mask_frames(features, frame_mask),
                tf.zeros_like(classes[:, 0], tf.bool),
            ),
            maximum_iterations=self.steps,
            parallel_iterations=1,
        )
        return Perturbed(point, clean_outputs=clean)

    def _nearest_boundary(
        self, problem: Problem, point: Tensors, classes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        """Returns logits [B, C], distance [B] to the nearest linearized boundary, and its w_k.

        The distance is infinite where no difference of logits has a gradient.
        """
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(point)
            logits = logits_of(problem.outputs_at(point))
            scores = tf.gather(logits, classes, axis=1, batch_dims=1)
            differences = tf.unstack(scores[:, 1:] - scores[:, :1], axis=1)
        resolution = LOGIT_RESOLUTION * tf.abs(scores[:, 0])
        nearest = tf.fill(tf.shape(resolution), tf.constant(float("inf"), tf.float32))
        slope = {name: tf.zeros_like(value) for name, value in point.items()}
        for difference in differences:
            # The backward passes run one after another, in the memory of one.
            with tf.control_dependencies([nearest]):
                gradients = tape.gradient(difference, point)
            gap = tf.cast(tf.maximum(-difference, resolution), tf.float32)
            require_gradients(gradients)
            length = tf.cast(self.ball.norm_of(gradients, problem.frame_mask), tf.float32)
            distance = tf.where(length > 0, gap / tf.where(length > 0, length, 1.0), float("inf"))
            closer = distance < nearest
            nearest = tf.where(closer, distance, nearest)
            slope = keep_where(closer, gradients, slope)
        return logits, nearest, slope

    def _succeeded(self, problem: Problem, logits: tf.Tensor, clean_outputs: Any) -> tf.Tensor:
        del problem
        clean = tf.argmax(logits_of(clean_outputs), axis=-1, output_type=tf.int32)
        return _argmax_differs(logits, clean)


def _argmax_differs(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Checks whether the arg-max is another class; False where a logit is not finite."""
    differs = tf.argmax(logits, axis=-1, output_type=tf.int32) != classes
    return tf.logical_and(differs, tf.reduce_all(tf.math.is_finite(logits), axis=-1))
