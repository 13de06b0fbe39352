"""The training objective, composed from a loss, a perturbation and an attention penalty."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from yt8m_gat.attacks import (
    PIXEL_RANGE,
    QUANTIZATION_LEVEL,
    Ball,
    Problem,
    RecordedPass,
    TemporalAugmentation,
    clip_features,
)
from yt8m_gat.config import ConfigError, ObjectiveConfig, is_import_path
from yt8m_gat.losses import (
    ClassificationLoss,
    frobenius_distance,
    get_loss,
    jensen_shannon_divergence,
)
from yt8m_gat.models import VideoClassifier
from yt8m_gat.training.imported_loss import import_loss

PENALTIES: dict[str, Callable[..., Any]] = {
    "frobenius": frobenius_distance,
    "jensen_shannon": jensen_shannon_divergence,
}
CLEAN_WEIGHT_OF_TAF = 0.7  # TAF section 4.1, alpha of eq. 7.
# TAF section 4.3.2: radius -> step, of 255 levels of a pixel. With one step of the larger, half of
# the ball is used.
_STEPS_IN_PIXELS = {6.0: 2.0, 64.0: 32.0}


class CleanPass(NamedTuple):
    """The inputs from which a perturbation is made.

    Attributes:
        features: Clean features, {name: [B, T, D]}.
        frame_mask: Bool [B, T].
        labels: [B, C].
        recorded: The step's forward pass on them.
        loss_term: The loss as a term of the objective, a scalar, recorded in that pass.
        forward: `(features, frame_mask) -> (logits, frames, ...)`, for another pass through the
            clean path.
        loss: `(labels, logits) -> [B]`.
        seed: An integer that differs at each step, and is the same when a step is repeated.
    """

    features: dict[str, tf.Tensor]
    frame_mask: tf.Tensor
    labels: tf.Tensor
    recorded: RecordedPass
    loss_term: tf.Tensor
    forward: Callable[..., tuple[Any, ...]]
    loss: Callable[..., tf.Tensor]
    seed: tf.Tensor


class Perturbation(Protocol):
    """Makes the perturbed features of a training step."""

    def __call__(self, clean: CleanPass) -> dict[str, tf.Tensor]:
        """Returns perturbed features, exactly 0 on padding."""


@keras.saving.register_keras_serializable(package="yt8m_gat")
@dataclasses.dataclass(frozen=True)
class GradientPerturbation:
    """X + R, R = epsilon * G / ||G||, G the gradient of the loss (GAT eq. 3, A-ART eq. 4).

    Attributes:
        ball: The norm and what it is taken over.
        epsilon: The radius.
        clip_to_range: (low, high) that X + R is kept within; None: no bounds.
    """

    ball: Ball
    epsilon: float
    clip_to_range: tuple[float, float] | None = None

    def __call__(self, clean: CleanPass) -> dict[str, tf.Tensor]:
        """Returns X + R; costs the backward pass to the features."""
        step = self.ball.steepest_ascent(
            clean.recorded.gradient(clean.loss_term), clean.frame_mask, self.epsilon
        )
        perturbed = {name: value + step[name] for name, value in clean.features.items()}
        if self.clip_to_range is None:
            return perturbed
        return clip_features(perturbed, clean.features, self.clip_to_range)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientPerturbation":
        """The perturbation that `get_config` described."""
        bounds = config.get("clip_to_range")
        return cls(Ball(**config["ball"]), config["epsilon"], bounds and tuple(bounds))


@keras.saving.register_keras_serializable(package="yt8m_gat")
@dataclasses.dataclass(frozen=True)
class TemporalPerturbation:
    """TAF's augmentation; see `TemporalAugmentation` for its formula and cost."""

    augmentation: TemporalAugmentation

    def __call__(self, clean: CleanPass) -> dict[str, tf.Tensor]:
        """Returns augmented features."""
        problem = Problem(
            clean.forward, clean.loss, clean.features, clean.frame_mask, clean.labels, clean.seed
        )
        return self.augmentation.augment(problem, clean.recorded)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return _serialized(self.augmentation)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TemporalPerturbation":
        """The perturbation that `get_config` described."""
        return cls(TemporalAugmentation(**_deserialized(config)))


@keras.saving.register_keras_serializable(package="yt8m_gat")
@dataclasses.dataclass(frozen=True)
class Objective:
    """L = clean_weight * l(X) + adversarial_weight * l(X + R) + penalty_weight * P(A, A_adv).

    Attributes:
        loss: `(labels [B, C], logits [B, C], label_weights) -> [B]`.
        clean_weight: Weight of the loss on the clean clips.
        perturbation: How X + R is made; None: only CE.
        adversarial_weight: Weight of the loss on the perturbed clips.
        penalty: `(maps, adversarial maps, frame_mask) -> [B]`, maps averaged over the heads; None:
            no penalty.
        penalty_weight: beta.
        level_weights: Level -> weight of its maps in the penalty (the papers: the global one, 1).
    """

    loss: Callable[..., Any]
    clean_weight: float = 1.0
    perturbation: Perturbation | None = None
    adversarial_weight: float = 0.0
    penalty: Callable[..., Any] | None = None
    penalty_weight: float = 0.0
    level_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"global": 1.0})

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs; Keras must know loss, perturbation and penalty."""
        return _serialized(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """The objective that `get_config` described."""
        return cls(**_deserialized(config))


def _serialized(settings: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass as Keras stores them."""
    return {
        field.name: keras.saving.serialize_keras_object(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
    }


def _deserialized(config: dict[str, Any]) -> dict[str, Any]:
    return {name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}


def check_objective(objective: Objective, classifier: VideoClassifier) -> None:
    """Rejects a penalty on attention maps that the classifier does not have.

    Raises:
        ConfigError: The objective has such a penalty.
    """
    levels = classifier.attention_levels
    if objective.penalty is not None and not set(objective.level_weights) <= set(levels):
        raise ConfigError(
            "this attention penalty needs a model that attends at "
            f"{', '.join(objective.level_weights)}; choose --adversarial=output, other "
            f"--penalized_levels, or such a model. Received: {type(classifier).__name__}, which "
            f"attends at {', '.join(levels) or 'no level'}"
        )


def build_loss(config: ObjectiveConfig, weighted: bool = True) -> ClassificationLoss:
    """Builds the loss of training and evaluation: `(labels, logits, label_weights) -> [B]`.

    A `label_loss` that is an import path is imported, which runs its code. A caller that has read
    `config` from a file calls `yt8m_gat.import_path.require_trust` first.

    Args:
        config: Names the loss.
        weighted: False: `label_weights` are never passed, and `unrated_as_negative` is ignored.

    Raises:
        ConfigError: See `import_loss`.
    """
    make = import_loss if is_import_path(config.label_loss) else get_loss
    return make(config.label_loss, config.class_reduction, config.unrated_as_negative and weighted)


def build_objective(config: ObjectiveConfig, pixels: bool = False) -> Objective:
    """Builds the objective that `config` describes.

    Args:
        config: The settings.
        pixels: Whether the model's inputs are pixels in [0, 255]: these are the bounds of
            perturbed clips, and TAF's radius and step count levels of a pixel.
    """
    bounds = PIXEL_RANGE if pixels else None
    loss = build_loss(config)
    if config.adversarial == "none":
        return Objective(loss)
    if config.adversarial == "temporal":
        alpha = CLEAN_WEIGHT_OF_TAF if config.alpha is None else config.alpha
        cam_loss = None
        if config.cam_gradient == "loss":
            cam_loss = build_loss(config, weighted=False)
        step_size = config.temporal_step_size
        if pixels and step_size is None:
            step_size = _STEPS_IN_PIXELS.get(config.temporal_epsilon)
        augmentation = TemporalAugmentation(
            clip_to_range=bounds,
            epsilon=config.temporal_epsilon,
            num_steps=config.temporal_steps,
            step_size=step_size,
            num_non_key=config.non_key_frames,
            cam_loss=cam_loss,
            temporal_loss=config.temporal_loss,
            examples=config.temporal_examples,
            cam_normalization=config.cam_normalization,
            level_size=1.0 if pixels else QUANTIZATION_LEVEL,
        )
        return Objective(
            loss,
            clean_weight=alpha,
            perturbation=TemporalPerturbation(augmentation),
            adversarial_weight=1.0 - alpha,
        )
    return Objective(
        loss,
        perturbation=GradientPerturbation(Ball("l2", config.norm_scope), config.epsilon, bounds),
        adversarial_weight=1.0 if config.alpha is None else config.alpha,
        penalty=PENALTIES.get(config.adversarial),
        penalty_weight=config.penalty_weight,
        level_weights=config.level_weights,
    )
