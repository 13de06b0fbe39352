"""The training objective, composed from a loss, a perturbation and an attention penalty."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from yt8m_gat.attacks import (
    PGD,
    PIXEL_RANGE,
    QUANTIZATION_LEVEL,
    Ball,
    Problem,
    RecordedPass,
    TemporalAugmentation,
    clip_features,
    loss_and_gradients,
    mask_frames,
)
from yt8m_gat.config import ConfigError, ObjectiveConfig, is_import_path
from yt8m_gat.losses import (
    ClassificationLoss,
    ClassWeightedLoss,
    class_weights,
    embedding_distance,
    frobenius_distance,
    get_divergence,
    get_loss,
    jensen_shannon_divergence,
)
from yt8m_gat.models import VideoClassifier
from yt8m_gat.training.distillation import Distillation
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
        divergence: `(clean logits, logits) -> [B]`, the objective's, if it has one.
        scale_loss: Multiplies a loss by the optimizer's loss scale, for gradients in float16.
        seed: An integer that differs at each step, and is the same when a step is repeated.
    """

    features: dict[str, tf.Tensor]
    frame_mask: tf.Tensor
    labels: tf.Tensor
    recorded: RecordedPass
    loss_term: tf.Tensor
    forward: Callable[..., tuple[Any, ...]]
    loss: Callable[..., tf.Tensor]
    divergence: Callable[..., tf.Tensor] | None
    scale_loss: Callable[[tf.Tensor], tf.Tensor]
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
class AscentPerturbation:
    """The last point of K projected steps from a random point of the ball (Madry, TRADES, fast).

    ```
    X_0     uniform in the ball around X
    X_k + 1 = project(X_k + step_size * steepest ascent of the loss, or divergence, at X_k)
    ```

    Unlike `PGD.perturb`, which keeps the highest point and pays a pass for it, this ends at the
    last point, as the three papers' algorithms do. All steps have the dropout masks and batch
    statistics of a training pass. Cost: K forward and K backward passes; the step's own clean pass
    is not used, since the ascent does not start at X.

    Attributes:
        attack: Ball, radius, steps, step size and bounds. (Its `restarts` have no effect.)
        by_divergence: Whether the steps raise the divergence from the clean prediction, which is
            constant during the ascent, instead of the loss of the labels.

    Reference: Madry et al., 2018; Wong et al., "Fast is better than free", 2020 (K = 1, step size
    1.25 * epsilon); Zhang et al., 2019 (TRADES). Deviations: TRADES starts at X + 0.001 N(0, 1),
    which is a thirtieth of its radius, in pixels; here it starts as the others do, in the units of
    any features. The papers' balls are linf, here the ball is the other objectives'.
    """

    attack: PGD
    by_divergence: bool = False

    def __call__(self, clean: CleanPass) -> dict[str, tf.Tensor]:
        """Returns the perturbed features."""
        targets, raised = clean.labels, clean.loss
        if self.by_divergence:
            targets, raised = tf.stop_gradient(clean.recorded.logits), clean.divergence

        def loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            # The mean over the batch, at which the loss scale is adapted; only directions matter.
            return clean.scale_loss(tf.reduce_mean(raised(targets, logits)))

        features = mask_frames(clean.features, clean.frame_mask)
        problem = Problem(clean.forward, loss, features, clean.frame_mask, targets, clean.seed)

        def step(index: tf.Tensor, point: dict[str, tf.Tensor]) -> tuple[Any, ...]:
            _, gradients, _ = loss_and_gradients(problem, point)
            return index + 1, self.attack.step_from(point, gradients, problem)

        _, point = tf.while_loop(
            lambda index, _: index < self.attack.steps,
            step,
            (tf.constant(0), self.attack.random_point(problem)),
            maximum_iterations=self.attack.steps,
            parallel_iterations=1,
        )
        return point

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AscentPerturbation":
        """The perturbation that `get_config` described."""
        attack = dict(config["attack"])
        for name in ("clip_to_range", "round_to_levels"):
            attack[name] = attack[name] and tuple(attack[name])
        return cls(PGD(**{**attack, "ball": Ball(**attack["ball"])}), config["by_divergence"])


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
    """L = clean_weight * l(X) + adversarial_weight * l(X + R) + penalty_weight * P.

    P compares the attention maps of the two passes, their embeddings, or their predictions
    (TRADES); an objective has at most one of these penalties.

    Attributes:
        loss: `(labels [B, C], logits [B, C], label_weights) -> [B]`.
        clean_weight: Weight of the loss on the clean clips.
        perturbation: How X + R is made; None: only CE.
        adversarial_weight: Weight of the loss on the perturbed clips.
        penalty: `(maps, adversarial maps, frame_mask) -> [B]`, maps averaged over the heads; None:
            no such penalty.
        divergence: `(logits, adversarial logits, label_weights) -> [B]`, the penalty on
            predictions; None: no such penalty.
        embedding_penalty: `(embedding [B, E], adversarial embedding) -> [B]`, the penalty on
            `ModelOutputs.embedding`; None: no such penalty.
        penalty_weight: beta, the weight of the penalty.
        level_weights: Level -> weight of its maps in the penalty (the papers: the global one, 1).
        distillation: How a teacher's predictions change the loss l; None: there is no teacher.
    """

    loss: Callable[..., Any]
    clean_weight: float = 1.0
    perturbation: Perturbation | None = None
    adversarial_weight: float = 0.0
    penalty: Callable[..., Any] | None = None
    divergence: ClassificationLoss | None = None
    embedding_penalty: Callable[..., Any] | None = None
    penalty_weight: float = 0.0
    level_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"global": 1.0})
    distillation: Distillation | None = None

    @property
    def has_penalty(self) -> bool:
        """Whether the two passes are compared."""
        penalties = (self.penalty, self.divergence, self.embedding_penalty)
        return any(penalty is not None for penalty in penalties)

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
    """Rejects a penalty on attention maps, or an embedding, that the classifier does not have.

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
    if objective.embedding_penalty is not None and classifier.embedding_size is None:
        raise ConfigError(
            "--adversarial=embedding needs a model that turns each clip into an embedding before "
            "its head; choose --adversarial=output, or such a model. Received: "
            f"{type(classifier).__name__}, which has none"
        )


def build_loss(config: ObjectiveConfig, weighted: bool = True) -> ClassificationLoss:
    """Builds the loss of training and evaluation: `(labels, logits, label_weights) -> [B]`.

    A `label_loss` that is an import path is imported, which runs its code. A caller that has read
    `config` from a file calls `yt8m_gat.import_path.require_trust` first.

    Args:
        config: Names the loss.
        weighted: False: `label_weights` are never passed, and `unrated_as_negative` is ignored.

    Raises:
        ConfigError: An option of the loss is not valid; see `import_loss` too.
    """
    arguments = (
        config.label_loss,
        config.class_reduction,
        config.unrated_as_negative and weighted,
    )
    if is_import_path(config.label_loss):
        return import_loss(*arguments)
    try:
        return get_loss(*arguments, **config.label_loss_options)
    except ValueError as error:
        raise ConfigError(f"--label_loss_options: {error}") from error


def build_objective(
    config: ObjectiveConfig, pixels: bool = False, class_counts: Sequence[int] | None = None
) -> Objective:
    """Builds the objective that `config` describes.

    Args:
        config: The settings.
        pixels: Whether the model's inputs are pixels in [0, 255]: these are the bounds of
            perturbed clips, and TAF's radius and step count levels of a pixel.
        class_counts: Training clips of each class, for `class_weights`: these are in the loss of
            the labels, which attacks ascend too, not in that of teachers, the divergence of TRADES
            or evaluation.

    Raises:
        ValueError: The classes are weighted, and there are no counts.
    """
    objective = _without_teacher(config, pixels)
    if config.class_weights != "none":
        if class_counts is None:
            raise ValueError("`class_counts` must be given: the objective has class weights")
        weights = class_weights(config.class_weights, class_counts, config.class_weights_beta)
        objective = dataclasses.replace(objective, loss=ClassWeightedLoss(objective.loss, weights))
    if not config.teacher:
        return objective
    kind = "SoftmaxLoss" if config.label_loss == "SoftmaxLoss" else "CrossEntropyLoss"
    distillation = Distillation(
        config.teacher_temperature, config.teacher_weight, get_loss(kind, config.class_reduction)
    )
    return dataclasses.replace(objective, distillation=distillation)


def _without_teacher(config: ObjectiveConfig, pixels: bool) -> Objective:
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
    ball, divergence = Ball("l2", config.norm_scope), None
    perturbation: Perturbation = GradientPerturbation(ball, config.epsilon, bounds)
    if config.ascent_steps:
        attack = PGD(
            ball,
            config.epsilon,
            config.ascent_steps,
            config.ascent_step_size,
            random_start=True,
            clip_to_range=bounds,
        )
        perturbation = AscentPerturbation(attack, by_divergence=config.adversarial == "trades")
    if config.adversarial == "trades":
        divergence = get_divergence(
            config.label_loss, config.class_reduction, config.unrated_as_negative
        )
    return Objective(
        loss,
        clean_weight=config.weight_of_clean,
        perturbation=perturbation,
        adversarial_weight=config.weight_of_adversarial,
        penalty=PENALTIES.get(config.adversarial),
        divergence=divergence,
        embedding_penalty=embedding_distance if config.adversarial == "embedding" else None,
        penalty_weight=config.penalty_weight,
        level_weights=config.level_weights,
    )
