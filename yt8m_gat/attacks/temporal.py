"""Temporal adversarial augmentation (TAF): shifts a clip's class activation in time."""

import dataclasses
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks import draws
from yt8m_gat.attacks.attack import (
    Attack,
    LossFn,
    PassCount,
    Perturbed,
    Problem,
    keep_where,
    top1_is_label,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames, normal_like, seed_pair
from yt8m_gat.attacks.recorded_pass import RecordedPass

TEMPORAL_LOSSES = ("cam", "ce", "random_noise")
EXAMPLES = ("both", "correct", "wrong")
CAM_NORMALIZATIONS = ("range", "maximum")
# One step of an 8-bit feature: 4 / 255.
QUANTIZATION_LEVEL = 4.0 / 255.0


@dataclasses.dataclass(frozen=True)
class TemporalAugmentation(Attack):
    """Raises the class activation of the frames where it is lowest.

    With F [B, T, D] the contextual frames before pooling, or [B, T, H, W, C] the last
    convolutional map, and z the logits:

    ```
    C_i     = sum over channels of (d z_y^ / d F_i) * F_i        class activation of frame i
              (of a map: the mean of that over H and W)
    C^_i    = (C_i - min C) / (max C - min C)                    over the real frames of the clip
    L_C     = mean of C^ over the N real frames where it is smallest (the non-key frames)
    x      <- clip(x + step_size * sign(d L_C / d x), x_0 - epsilon, x_0 + epsilon)    K times
    ```

    C is inside the gradient, and so is its normalization (`normalize_in_gradient`): this is a
    gradient of a gradient. Without the normalization and with N = T it would be a targeted attack
    on the logit. The non-key frames are chosen again at each step; all real frames move. A clip
    whose class activation is the same at all its frames (for example a clip of one frame) has no
    such gradient and stays as it is.

    y^ is chosen once, on the clean clip: if the top-1 class is one of the labels, a random class
    that is not a label (or the labels, if all classes are); otherwise the labels, with their
    logits summed. A clip without labels in the second case stays as it is.

    The model returns `frames` beside its `logits`, by the path with the clean normalization layers;
    the logits must depend on the features through those frames.

    Norm and axes: linf, entry by entry. Space: the features as the model takes them; dequantized
    ones are intended. Bounds: `clip_to_range`. Success: the top-1 class is none of the labels.
    Cost: K forward passes, K backward through the head, K backward through head and model, and one
    forward pass that evaluates the result. `augment` saves this last one, and the first if passed.

    Args:
        epsilon: Radius, in quantization levels.
        num_steps: K.
        step_size: In quantization levels; None: epsilon / K.
        num_non_key: N; None, or a number above the clip's length: all real frames.
        cam_loss: None: C differentiates the logit, as in Grad-CAM, so a high C_i supports the
            class. `(y^, logits) -> [B]`: C differentiates this loss towards y^, as eq. 2 is
            printed, which has the opposite sign. It differs from the call's loss, which may leave
            out unrated classes: y^ may be one of these.
        temporal_loss: `cam`: L_C; `ce`: the loss on the true labels instead (the paper's table
            2a); `random_noise`: a normal draw in place of the gradient (table 4).
        examples: Which clips move: `both`, or those whose top-1 class is (`correct`) or is not
            (`wrong`) one of their labels.
        normalize_in_gradient: Whether the minimum and the maximum are differentiated.
        cam_normalization: `range`: C^ as above; `maximum`: (C_i - min C) / max C, as eq. 3 is
            printed. Then C^ is not in [0, 1], is negative where no C_i is positive, and a clip
            whose max C is 0 stays as it is.
        level_size: Size of a quantization level, in the units of the features; 1 for pixels.

    Raises:
        ValueError: If a name is unknown or a count is not positive.

    Reference: TAF, 3.2, eq. 2 to 6. Deviations: the logit's gradient by default; by default the
    range max - min where eq. 3 has max; perturbations in quantization levels of a feature.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import QUANTIZATION_LEVEL, TemporalAugmentation, margin_loss
        >>> from yt8m_gat.models import ModelOutputs
        >>> def model(features, frame_mask):
        ...     frames = tf.square(features["x"])
        ...     return ModelOutputs(tf.reduce_sum(frames, axis=1), frames, attention_maps={})
        >>> clip = {"x": [[[4.0, 1.0], [2.0, 3.0], [1.0, 2.0]]]}
        >>> attack = TemporalAugmentation(epsilon=6, num_non_key=2)
        >>> result = attack.attack(model, margin_loss, clip, [[True] * 3], [[1.0, 0.0]])
        >>> (result.norm / QUANTIZATION_LEVEL).numpy().round(3)
        array([6.], dtype=float32)
    """

    epsilon: float = 6.0
    num_steps: int = 1
    step_size: float | None = None
    num_non_key: int | None = None
    cam_loss: LossFn | None = None
    temporal_loss: str = "cam"
    examples: str = "both"
    normalize_in_gradient: bool = True
    cam_normalization: str = "range"
    level_size: float = QUANTIZATION_LEVEL

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, names in (
            ("temporal_loss", TEMPORAL_LOSSES),
            ("examples", EXAMPLES),
            ("cam_normalization", CAM_NORMALIZATIONS),
        ):
            if getattr(self, field) not in names:
                raise ValueError(
                    f"`{field}` must be one of {', '.join(names)}. Received: "
                    f"{field}={getattr(self, field)!r}"
                )
        for field in ("num_steps", "num_non_key"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"`{field}` must be at least 1. Received: {field}={value}")
        for field in ("step_size", "level_size"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise ValueError(f"`{field}` must be positive. Received: {field}={value}")

    @property
    def name(self) -> str:
        """`temporal`."""
        return "temporal"

    @property
    def ball(self) -> Ball:
        """The linf ball."""
        return Ball("linf")

    @property
    def cost(self) -> PassCount:
        """K + 1 forward and 2 K backward passes with `cam`; fewer with other losses."""
        if self.temporal_loss == "random_noise":
            return PassCount(1 if self.examples == "both" else 2, 0)
        backward = (2 if self.temporal_loss == "cam" else 1) * self.num_steps
        return PassCount(self.num_steps + 1, backward)

    def augment(self, problem: Problem, clean: RecordedPass | None = None) -> Tensors:
        """Returns augmented features; no gradient flows through them.

        Args:
            problem: The clips; its model returns `logits` and `frames`.
            clean: The pass through that model on these features, if the caller has run it.
        """
        augmented = self.perturb(problem, clean)
        return {name: tf.stop_gradient(value) for name, value in augmented.features.items()}

    def perturb(self, problem: Problem, clean: RecordedPass | None = None) -> Perturbed:
        """Takes K signed steps within the ball; the model returns `logits` and `frames`."""
        model, _, features, frame_mask, labels, seed, _ = problem
        features = dict(features)
        epsilon = self.epsilon * self.level_size
        step_size = self.step_size
        if step_size is None:
            step_size = self.epsilon / self.num_steps
        needs_pass = self.temporal_loss != "random_noise"
        moving = tf.constant([True])
        if needs_pass or self.examples != "both":
            clean = clean or RecordedPass(model, features, frame_mask)
            moving = self._selects(labels, clean.logits)
            target = target_labels(labels, clean.logits, seed)
        point = features
        for index in range(self.num_steps):
            if needs_pass:
                recorded = RecordedPass(model, point, frame_mask) if index else clean
                with recorded.recording():
                    if self.temporal_loss == "ce":
                        loss = tf.reduce_sum(problem.loss_of(recorded.outputs))
                    else:
                        activation = self._class_activation(recorded, target)
                        loss = tf.reduce_sum(self.activation_loss(activation, frame_mask))
                gradients = recorded.gradient(loss)
            else:
                gradients = normal_like(features, seed_pair(seed, index + 1))
            ascent = self.ball.steepest_ascent(gradients, frame_mask, step_size * self.level_size)
            moved = {
                name: point[name] + tf.cast(ascent[name], value.dtype) - value
                for name, value in features.items()
            }
            projected = self.ball.project(moved, frame_mask, epsilon)
            point = self._add(features, projected, frame_mask)
        kept = keep_where(moving, point, mask_frames(features, frame_mask))
        return Perturbed(kept, clean_outputs=None if clean is None else clean.outputs)

    def _class_activation(self, recorded: RecordedPass, target: tf.Tensor) -> tf.Tensor:
        """Returns C, float32 [B, T]."""

        def score(logits: tf.Tensor) -> tf.Tensor:
            if self.cam_loss is None:
                return tf.reduce_sum(logits * tf.cast(target, logits.dtype))
            return tf.reduce_sum(self.cam_loss(target, logits))

        slope = recorded.slope(score)
        if slope is None:
            raise ValueError(
                "class activations need logits that depend on the frames. Received: a "
                "model whose logits have no gradient by the frames that it returns; "
                "return the very tensor that the head pools"
            )
        return tf.cast(frame_activation(slope, recorded.frames), tf.float32)

    def activation_loss(self, activation: tf.Tensor, frame_mask: Any) -> tf.Tensor:
        """Returns L_C, float [B]: mean normalized activation [B, T] of the non-key frames.

        It is 0, without gradient, for a clip whose activation is the same at all real frames.
        """
        real = tf.ones_like(activation, tf.bool) if frame_mask is None else frame_mask
        lowest = tf.reduce_min(tf.where(real, activation, activation.dtype.max), 1, keepdims=True)
        highest = tf.reduce_max(tf.where(real, activation, activation.dtype.min), 1, keepdims=True)
        if not self.normalize_in_gradient:
            lowest, highest = tf.stop_gradient(lowest), tf.stop_gradient(highest)
        if self.cam_normalization == "maximum":
            spread, divides = highest, tf.not_equal(highest, 0.0)
        else:
            spread, divides = highest - lowest, highest > lowest
        normalized = tf.where(
            tf.logical_and(real, divides),
            (activation - lowest) / tf.where(divides, spread, 1.0),
            0.0,
        )
        non_key = real
        if self.num_non_key is not None:
            # Padding sorts last, and is excluded where a clip has fewer than N real frames.
            keys = tf.stop_gradient(tf.where(real, activation, activation.dtype.max))
            rank = tf.argsort(tf.argsort(keys, axis=1, stable=True), axis=1, stable=True)
            non_key = tf.logical_and(real, rank < self.num_non_key)
        chosen = tf.cast(non_key, activation.dtype)
        return tf.math.divide_no_nan(
            tf.reduce_sum(normalized * chosen, axis=1), tf.reduce_sum(chosen, axis=1)
        )

    def _selects(self, labels: Any, logits: tf.Tensor) -> tf.Tensor:
        correct = top1_is_label(labels, logits)
        if self.examples == "both":
            return tf.ones_like(correct)
        return correct if self.examples == "correct" else tf.logical_not(correct)


def frame_activation(slope: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    """Returns the class activation [B, T] of frames [B, T, D] or of their maps [B, T, H, W, C].

    It is the sum over channels of `slope` * `frames`; of maps, the mean of that over H and W.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import frame_activation
        >>> frame_activation(tf.constant([[[1.0, 2.0]]]), tf.constant([[[3.0, 4.0]]])).numpy()
        array([[11.]], dtype=float32)
    """
    per_place = tf.reduce_sum(slope * frames, axis=-1)
    return tf.reduce_mean(per_place, axis=list(range(2, per_place.shape.rank)))


def target_labels(labels: Any, logits: tf.Tensor, seed: Any) -> tf.Tensor:
    """Returns y^, multi-hot float32 [B, C]: the classes whose activations are computed.

    A random class that is not a label if the top-1 class is a label; else the labels themselves.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import target_labels
        >>> logits = tf.constant([[3.0, 1.0], [1.0, 3.0]])
        >>> target_labels([[1.0, 0.0], [1.0, 0.0]], logits, seed=0).numpy()
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    labels = tf.cast(tf.convert_to_tensor(labels) > 0, tf.float32)
    draw = draws.uniform(tf.shape(logits), seed_pair(seed))
    random_class = tf.one_hot(tf.argmax(tf.where(labels > 0, -1.0, draw), -1), tf.shape(logits)[-1])
    shifts = tf.logical_and(top1_is_label(labels, logits), tf.reduce_any(labels == 0, axis=-1))
    return tf.where(shifts[:, tf.newaxis], random_class, labels)
