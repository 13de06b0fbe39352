"""The interface of all attacks: their inputs, results and base class."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf

from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames
from yt8m_gat.attacks.feature_space import clip_features, round_features

# (features: {name: [B, T, D]}, frame_mask [B, T]) -> logits [B, C], or an object that has `logits`:
# `yt8m_gat.models.ModelOutputs`, with `frames` and `attention_maps` for the attacks that use them.
Model = Callable[[Mapping[str, tf.Tensor], Any], Any]
# (labels [B, C], logits [B, C]) -> loss [B], one a clip.
LossFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Problem(NamedTuple):
    """The clips that an attack perturbs, the model that it fools and the loss that it raises.

    Attributes:
        model: `(features, frame_mask) -> outputs`, in inference mode; see `Model`.
        loss: `(labels [B, C], logits [B, C]) -> [B]`.
        features: {name: float [B, T, D]}, or [B, T, H, W, C] for frames of pixels.
        frame_mask: Bool [B, T], True = real frame; None where features are [B, D].
        labels: Float [B, C], multi-hot.
        seed: Integer, for attacks that draw anything.
        label_weights: [B, C], above 0 at the classes that count (the rated ones of a segment);
            None: all do. `loss` takes them into account by itself.
    """

    model: Model
    loss: LossFn
    features: Mapping[str, tf.Tensor]
    frame_mask: Any
    labels: Any
    seed: Any = 0
    label_weights: Any = None

    def outputs_at(self, point: Mapping[str, tf.Tensor]) -> Any:
        """Returns the model's outputs on perturbed features."""
        return self.model(point, self.frame_mask)

    def loss_of(self, outputs: Any) -> tf.Tensor:
        """Returns the loss [B] of the model's outputs."""
        return self.loss(self.labels, logits_of(outputs))


class AttackResult(NamedTuple):
    """The result of an attack on each clip.

    Attributes:
        features: Perturbed features, {name: float [B, T, D]}, exactly 0 on padding.
        norm: Float [B], the norm that the perturbation really has, in the attack's own ball.
        relative_norm: Float [B], ||r||_2 / ||x||_2 over all modalities and real frames (DeepFool's
            rho); 0 for a clip that is all 0.
        success: Bool [B], whether the attack's criterion is met.
        loss: Float [B], the loss that the attack raised, on the perturbed clip.
        logits: Float [B, C] on the perturbed clip.
        outputs: The model's outputs on the perturbed clip.
        clean_outputs: The model's outputs on the clean clip; None if the attack does not run the
            model there.
        figures: {name: float [B]}, further figures of some attacks.
    """

    features: Tensors
    norm: tf.Tensor
    relative_norm: tf.Tensor
    success: tf.Tensor
    loss: tf.Tensor
    logits: tf.Tensor
    outputs: Any
    clean_outputs: Any
    figures: Mapping[str, tf.Tensor] = MappingProxyType({})


class Perturbed(NamedTuple):
    """Perturbed clips, with the model's outputs that the attack computed, to save further passes.

    Attributes:
        features: {name: float [B, T, D]}.
        outputs: The model's outputs on them; None if the attack has not computed them.
        clean_outputs: The model's outputs on the clean clips; None if not computed.
        figures: Further figures of the attack itself, {name: float [B]}; None: there are none.
    """

    features: Tensors
    outputs: Any = None
    clean_outputs: Any = None
    figures: Tensors | None = None


class PassCount(NamedTuple):
    """Passes through the attacked model for one batch."""

    forward: int
    backward: int


def logits_of(outputs: Any) -> tf.Tensor:
    """Returns the logits [B, C] of a model's outputs."""
    return getattr(outputs, "logits", outputs)


def top1_is_label(labels: Any, logits: Any) -> tf.Tensor:
    """Returns a bool [B]: whether the highest logit is one of the clip's labels.

    Examples:
        >>> from yt8m_gat.attacks import top1_is_label
        >>> top1_is_label([[1.0, 0.0], [1.0, 0.0]], [[2.0, 1.0], [1.0, 2.0]]).numpy()
        array([ True, False])
    """
    top = tf.argmax(logits, axis=-1)
    return tf.gather(tf.convert_to_tensor(labels) > 0, top, axis=1, batch_dims=1)


def top1_missed(labels: Any, logits: Any) -> tf.Tensor:
    """Returns a bool [B]: whether the highest logit is none of the clip's labels.

    False for a clip without labels.

    A clip that the model gets wrong unperturbed counts as missed at epsilon 0, as in robust
    accuracy.

    Examples:
        >>> from yt8m_gat.attacks import top1_missed
        >>> top1_missed([[1.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [1.0, 2.0]]).numpy()
        array([ True, False])
    """
    labelled = tf.reduce_any(tf.convert_to_tensor(labels) > 0, axis=-1)
    return tf.logical_and(labelled, tf.logical_not(top1_is_label(labels, logits)))


def loss_and_gradients(
    problem: Problem, point: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, Tensors, Any]:
    """Returns the loss [B] at `point`, the gradients of its sum over the batch, and the outputs.

    With the sum, unlike the mean, a clip's gradient does not depend on the batch size. Costs one
    forward and one backward pass. A feature that the loss does not depend on has gradient None.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        outputs = problem.outputs_at(point)
        losses = problem.loss_of(outputs)
        summed = tf.reduce_sum(losses)
    return losses, tape.gradient(summed, dict(point)), outputs


def keep_where(
    condition: tf.Tensor, values: Mapping[str, tf.Tensor], others: Mapping[str, tf.Tensor]
) -> Tensors:
    """Selects `values` for the clips where `condition` (bool [B], or [1]) holds, else `others`."""
    return {
        name: tf.where(
            tf.reshape(condition, [-1] + [1] * (value.shape.rank - 1)), value, others[name]
        )
        for name, value in values.items()
    }


class Highest(NamedTuple):
    """The highest point seen so far, clip by clip, and its value, float32 [B]."""

    point: Tensors
    value: tf.Tensor

    @classmethod
    def nothing(cls, features: Tensors) -> "Highest":
        """Returns `features` at minus infinity, which any point beats."""
        first = next(iter(features.values()))
        value = tf.fill(tf.shape(first)[:1], tf.constant(float("-inf"), tf.float32))
        return cls(dict(features), tf.ensure_shape(value, first.shape[:1]))

    def or_where_higher(self, point: Tensors, value: tf.Tensor) -> "Highest":
        """Replaces the point of each clip where the value is higher."""
        value = tf.cast(value, tf.float32)
        higher = value > self.value
        return Highest(keep_where(higher, point, self.point), tf.where(higher, value, self.value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(abc.ABC):
    """The base class of methods that perturb clips so that a model gets them wrong.

    Space: the features as the model takes them ({name: float [B, T, D]}: dequantized, and
    normalized if the model's preprocessing normalizes; [B, T, H, W, C]: pixels). Padding is never
    touched. The constructor takes hyperparameters, `attack` takes data; the same seed gives the
    same perturbation. Runs in eager mode, inside `tf.function` and under XLA.

    Args:
        clip_to_range: (low, high) that perturbed features are kept within, so that dequantization
            could have produced them; an entry of the clean clip that lies outside may stay where
            it is. None: no bounds.
        round_to_levels: (step, offset): the result is rounded to the nearest offset + k * step
            (within `clip_to_range`), as storing the clip as uint8 would do. Rounding may move an
            entry out of the ball by half a step: see `AttackResult.norm`. None: not rounded.

    Raises:
        ValueError: If a range is empty or a step not positive.
    """

    clip_to_range: tuple[float, float] | None = None
    round_to_levels: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.clip_to_range is not None and not self.clip_to_range[0] < self.clip_to_range[1]:
            raise ValueError(
                "`clip_to_range` must be (low, high) with low < high. Received: "
                f"clip_to_range={self.clip_to_range}"
            )
        if self.round_to_levels is not None and not self.round_to_levels[0] > 0:
            raise ValueError(
                "`round_to_levels` must be (step, offset) with a positive step. Received: "
                f"round_to_levels={self.round_to_levels}"
            )
        epsilon = getattr(self, "epsilon", None)
        if epsilon is not None and not epsilon >= 0:
            raise ValueError(f"`epsilon` must be at least 0. Received: epsilon={epsilon}")

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The attack's name in flags and tables."""

    @property
    def objective(self) -> str:
        """The loss that `attack` expects: `loss`, the model's own, or one of `OBJECTIVES`."""
        return "loss"

    @property
    def reads_attention_maps(self) -> bool:
        """Whether the model's outputs must have `attention_maps`."""
        return False

    @property
    @abc.abstractmethod
    def cost(self) -> PassCount:
        """The most passes for one batch, including the one that evaluates the result."""

    @abc.abstractmethod
    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the perturbed clips before rounding."""

    def attack(
        self,
        model: Model,
        loss: LossFn,
        features: Mapping[str, Any],
        frame_mask: Any,
        labels: Any,
        seed: Any = 0,
        label_weights: Any = None,
    ) -> AttackResult:
        """Perturbs a batch and evaluates the model on it.

        Args:
            model: `(features, frame_mask) -> logits [B, C]`, the model in inference mode. It may
                also return an object that has `logits`, as `yt8m_gat.models.ModelOutputs`.
            loss: `(labels, logits) -> [B]`, what the attack raises; see `objective`. It takes
                `label_weights` into account by itself.
            features: {name: float [B, T, D]}.
            frame_mask: Bool [B, T], True = real frame; None where features are [B, D].
            labels: Float [B, C], multi-hot.
            seed: Integer, for attacks that draw anything.
            label_weights: [B, C], above 0 at the classes that count, for the attacks that have
                further losses or another criterion; None: all do.
        """
        features = {name: tf.convert_to_tensor(value) for name, value in features.items()}
        problem = Problem(model, loss, features, frame_mask, labels, seed, label_weights)
        attacked = self.perturb(problem)
        perturbed, outputs = attacked.features, attacked.outputs
        if self.round_to_levels is not None:
            outputs = None
            perturbed = round_features(perturbed, self.round_to_levels, self.clip_to_range)
            perturbed = mask_frames(perturbed, frame_mask)
        perturbed = {name: tf.stop_gradient(value) for name, value in perturbed.items()}
        if outputs is None:
            outputs = problem.outputs_at(perturbed)
        logits = logits_of(outputs)
        real = mask_frames(features, frame_mask)
        change = {name: perturbed[name] - value for name, value in real.items()}
        whole = Ball("l2", "joint")
        return AttackResult(
            features=perturbed,
            norm=self.ball.norm_of(change, None),
            relative_norm=tf.math.divide_no_nan(
                whole.norm_of(change, None), whole.norm_of(real, None)
            ),
            success=self._succeeded(problem, logits, attacked.clean_outputs),
            loss=problem.loss_of(outputs),
            logits=logits,
            outputs=outputs,
            clean_outputs=attacked.clean_outputs,
            figures={**self._figures(change), **(attacked.figures or {})},
        )

    def _named(self, family: str) -> str:
        return family if self.ball.norm == "l2" else f"{family}_{self.ball.norm}"

    def _figures(self, change: Tensors) -> dict[str, tf.Tensor]:
        """Returns further figures [B] of the perturbation, {name: float [B, T, D]}."""
        del change
        return {}

    def _succeeded(self, problem: Problem, logits: tf.Tensor, clean_outputs: Any) -> tf.Tensor:
        """Returns a bool [B]: whether the attack's criterion is met."""
        del clean_outputs
        return top1_missed(problem.labels, logits)

    def _add(self, features: Tensors, perturbation: Tensors, frame_mask: Any) -> Tensors:
        """Returns features plus perturbation, within the bounds, 0 on padding."""
        perturbed = {name: features[name] + perturbation[name] for name in features}
        if self.clip_to_range is not None:
            perturbed = clip_features(perturbed, features, self.clip_to_range)
        return mask_frames(perturbed, frame_mask)
