"""The configuration of a run: frozen, validated dataclasses with a round trip through JSON.

Standard library only, so that the scripts can answer `--help` or refuse a flag before
TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from yt8m_gat.disk import replacing
from yt8m_gat.recipes import ENSEMBLE, RECIPES, Recipe
from yt8m_gat.untrusted import excerpt, parse_json, quoted, read_text

CONFIG_FILE = "config.json"
_MAX_BYTES = 1 << 20
_MAX_SEED = 2**32 - 1  # NumPy's.
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

NORMALIZATIONS = ("none", "per_feature", "concat")
ADVERSARIAL_OBJECTIVES = (
    "none",
    "output",
    "frobenius",
    "jensen_shannon",
    "embedding",
    "temporal",
    "pgd",
    "trades",
    "fast",
)
NORM_SCOPES = ("frame", "example", "joint")
TEMPORAL_LOSSES = ("cam", "ce", "random_noise")
CAM_GRADIENTS = ("logit", "loss")
CAM_NORMALIZATIONS = ("range", "maximum")
TEMPORAL_EXAMPLES = ("both", "correct", "wrong")
LABEL_LOSSES = ("CrossEntropyLoss", "HingeLoss", "SoftmaxLoss", "FocalLoss", "AsymmetricLoss")
CLASS_REDUCTIONS = ("mean", "sum")
CLASS_WEIGHTS = ("none", "inverse", "effective")
LABEL_FORMS = ("indices", "multi_hot")
FEATURE_TYPES = ("uint8", "float32", "float_list")
FRAME_SAMPLINGS = ("segments", "dense")
CLIP_MIXINGS = ("mixup", "cutmix", "framemixup", "cubemixup")
AUGMENTATIONS = (*CLIP_MIXINGS, "randaugment")
CLIP_FEATURE = "image"
"""Name of the input of models that read raw clips."""
CLIP_LABELS_KEY = "clip/label/index"
"""Name of the list of labels in MediaSequence records, which is where raw clips are."""
ON_BAD_RECORD = ("error", "skip")
ON_NONFINITE = ("stop", "skip")
DISTRIBUTIONS = ("none", "mirrored", "multi_worker")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
MAX_BAD_FRACTION = 0.01
# Settings of TrainingConfig that a resumed run must keep.
_FIXED_TRAINING = (
    "batch_size",
    "optimizer",
    "momentum",
    "ema_momentum",
    "mixup_alpha",
    "frame_dropout",
    "feature_dropout",
    "temporal_crop",
    "frame_noise",
    "shuffle_buffer",
    "num_readers",
    "seed",
    "finetune_from",
    "mixed_precision",
)
LEARNING_RATE_SCHEDULES = ("exponential", "cosine")
OPTIMIZERS = ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Lamb")


class ConfigError(ValueError):
    """A setting that cannot work; the message names the flag, the value and the remedy."""


def is_import_path(name: str) -> bool:
    """Returns whether a setting is an import path, `module:name`, and not one of our names."""
    return ":" in name


def get_recipe(name: str) -> Recipe:
    """Returns the recipe called `name`.

    That of a class `module:Class`, or of an ensemble, sets no defaults.

    Raises:
        ConfigError: There is none; the message lists the recipes.
    """
    if is_import_path(name):
        _require_import_path("model", name)
        return Recipe("imported", name, frame_level=None)
    if name == ENSEMBLE:
        return Recipe("ensemble", "several runs", frame_level=None)
    if name not in RECIPES:
        raise ConfigError(
            f"--model must be one of {', '.join(RECIPES)}, or module:Class. Received: {name!r}"
        )
    return RECIPES[name]


def _require_import_path(flag: str, path: str) -> None:
    if not _IMPORT_PATH.fullmatch(path):
        raise ConfigError(
            f"--{flag} must be module:name, as in my_package.my_models:MyModel; a module is named "
            f"as in an import, not as a file. Received: {excerpt(path)}"
        )


def _require_choice(flag: str, value: str, choices: typing.Iterable[str]) -> None:
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(f"--{flag} must be one of {', '.join(choices)}. Received: {value!r}")


def _require_at_least(flag: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ConfigError(f"--{flag} must be at least {least:g}, and finite. Received: {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How T frames of a raw clip are chosen, and cut to squares.

    Attributes:
        num_segments: T, the frames that the model sees.
        crop_size: S, the height and width of these frames, in pixels.
        short_side: Evaluation resizes the short side to this and takes the square in the center;
            None: 8 / 7 of `crop_size`, as 256 for 224.
        sampling: `segments` (TSN): the clip is cut into T segments of equal length and gives one
            frame of each, a random one in training and the middle one in evaluation; `dense`: T
            frames that are `dense_stride` apart, from a random start or around the middle.
        dense_stride: Frames from one of the T to the next with `dense`.
        crop_scales: Training cuts a rectangle whose height and width are these shares of the short
            side, drawn at random, and resizes it to S x S.
        flip: Whether training mirrors half of the clips.
        flip_pairs: Classes that mirroring exchanges, each `LEFT:RIGHT`, in numbers.
        augmentation: In training: one of `mixup`, `cutmix`, `framemixup` and `cubemixup`, which mix
            clips of a batch, and `randaugment`; see `yt8m_gat.data.augmentation`.
    """

    num_segments: int = 8
    crop_size: int = 224
    short_side: int | None = None
    sampling: str = "segments"
    dense_stride: int = 8
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: bool = False
    flip_pairs: tuple[str, ...] = ()
    augmentation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for flag in ("num_segments", "crop_size", "dense_stride"):
            _require_at_least(flag, getattr(self, flag), 1)
        if self.short_side is not None and self.short_side < self.crop_size:
            raise ConfigError(
                "--short_side must be at least --crop_size, which is cut from it. Received: "
                f"{self.short_side} and {self.crop_size}"
            )
        _require_choice("sampling", self.sampling, FRAME_SAMPLINGS)
        if self.sampling != "dense" and self.dense_stride != ClipConfig.dense_stride:
            raise ConfigError(
                "--dense_stride has no effect without --sampling=dense. Received: "
                f"--dense_stride={self.dense_stride} and --sampling={self.sampling}"
            )
        if not self.crop_scales or not all(0 < scale <= 1 for scale in self.crop_scales):
            raise ConfigError(
                "--crop_scales must be shares of the short side, in (0, 1]. "
                f"Received: {list(self.crop_scales)}"
            )
        self.flipped_classes  # noqa: B018 - refuses what does not read as LEFT:RIGHT
        if self.flip_pairs and not self.flip:
            raise ConfigError("--flip_pairs has no effect without --flip")
        for name in self.augmentation:
            _require_choice("augmentation", name, AUGMENTATIONS)
        if sum(self.augmentation.count(name) for name in CLIP_MIXINGS) > 1:
            raise ConfigError(
                f"--augmentation takes one of {', '.join(CLIP_MIXINGS)}, which mix clips. "
                f"Received: {','.join(self.augmentation)}"
            )

    @property
    def central_share(self) -> float:
        """The side of the square in the center, as a share of the frame's short side."""
        return 7 / 8 if self.short_side is None else self.crop_size / self.short_side

    @property
    def flipped_classes(self) -> dict[int, int]:
        """Class -> the class that its mirror image shows, for both classes of each pair."""
        classes: dict[int, int] = {}
        for pair in self.flip_pairs:
            left, _, right = pair.partition(":")
            numbers = [int(part) if part.isdecimal() else -1 for part in (left, right)]
            if min(numbers) < 0 or numbers[0] == numbers[1] or classes.keys() & set(numbers):
                raise ConfigError(
                    "--flip_pairs takes LEFT:RIGHT, two numbers of classes, and each class once. "
                    f"Received: {pair!r}"
                )
            classes |= {numbers[0]: numbers[1], numbers[1]: numbers[0]}
        return classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the records hold and how they become tensors.

    Attributes:
        feature_names: Features read from each record, in order.
        feature_sizes: Their sizes: values per frame, or per video.
        feature_types: How the frames of each are stored: `uint8` (quantized, a byte a value),
            `float32` (4 bytes a value, little endian) or `float_list` (a list of floats); one type
            applies to all. Empty: `uint8`, the official form. Videos are lists of floats.
        num_classes: C, the number of classes of the model.
        num_source_classes: Labels of records are 0 .. num_source_classes - 1, mapped to the
            classes by the run's label map; None: they are the classes.
        label_map: Fingerprint of that map (`yt8m_gat.data.LabelMap`); None: no map.
        max_frames: Longer clips are cut after this many frames.
        frame_features: Frame-level `SequenceExample`s, else video-level `Example`s.
        normalize: l2 normalization after dequantizing: `none` for the papers' models, `concat`
            as the starter code does, or `per_feature`.
        segment_labels: The examples are the rated segments of the records (2019), not whole clips.
        labels_key: Name of the int64 list that holds a record's labels.
        labels_are: Form of that list: class `indices`, or `multi_hot`, a 0 or 1 for each class.
            None: indices, and files without any label, or whose lists look like 0/1 vectors, are
            refused before training or evaluation (`yt8m_gat.data.label_check`).
        clips: The records hold raw clips (`yt8m-gat pack`), read like this; None: features.
    """

    feature_names: tuple[str, ...] = ("rgb", "audio")
    feature_sizes: tuple[int, ...] = (1024, 128)
    feature_types: tuple[str, ...] = ()
    num_classes: int = 3862
    num_source_classes: int | None = None
    label_map: str | None = None
    max_frames: int = 300
    frame_features: bool = True
    normalize: str = "none"
    segment_labels: bool = False
    labels_key: str = "labels"
    labels_are: str | None = None
    clips: ClipConfig | None = None

    def __post_init__(self) -> None:
        if not self.feature_names or len(self.feature_names) != len(self.feature_sizes):
            raise ConfigError(
                "--feature_names and --feature_sizes must be two lists of the same length, at "
                f"least 1. Received: {list(self.feature_names)} and {list(self.feature_sizes)}"
            )
        if len(set(self.feature_names)) != len(self.feature_names):
            raise ConfigError(f"--feature_names must differ. Received: {list(self.feature_names)}")
        for size in self.feature_sizes:
            _require_at_least("feature_sizes", size, 1)
        self._complete_types()
        _require_at_least("num_classes", self.num_classes, 1)
        if (self.label_map is None) != (self.num_source_classes is None):
            raise ConfigError(
                "data.label_map and data.num_source_classes go together. Received: "
                f"{self.label_map!r} and {self.num_source_classes!r}"
            )
        if self.num_source_classes is not None:
            _require_at_least("num_classes", self.num_source_classes, 1)
        _require_at_least("max_frames", self.max_frames, 1)
        _require_choice("normalize", self.normalize, NORMALIZATIONS)
        if not self.labels_key:
            raise ConfigError("--labels_key must name the list of labels. Received: nothing")
        if self.labels_are is not None:
            _require_choice("labels_are", self.labels_are, LABEL_FORMS)
        if self.clips is not None:
            self._check_clips()

    def _check_clips(self) -> None:
        if self.sizes != {CLIP_FEATURE: 3} or self.feature_types or not self.frame_features:
            raise ConfigError(
                f"raw clips have the single feature {CLIP_FEATURE} of size 3, the colors: leave "
                "out --feature_names, --feature_sizes, --feature_types and --frame_features. "
                f"Received: {self.sizes}"
            )
        if self.normalize != "none" or self.segment_labels:
            raise ConfigError("--normalize and --segment_labels are about features, not raw clips")
        if self.max_frames != self.clips.num_segments:
            raise ConfigError(
                "--max_frames is about features; --num_segments says how many frames of a raw clip "
                f"are read. Received: {self.max_frames} and {self.clips.num_segments}"
            )
        greatest = max(self.clips.flipped_classes, default=0)
        if greatest >= self.num_classes:
            raise ConfigError(
                f"--flip_pairs must name classes below --num_classes={self.num_classes}. "
                f"Received: {greatest}"
            )

    def _complete_types(self) -> None:
        kinds = self.feature_types
        if not kinds:
            return
        for kind in kinds:
            _require_choice("feature_types", kind, FEATURE_TYPES)
        if not self.frame_features:
            raise ConfigError(
                "--feature_types is about frames; the features of videos are lists of floats. "
                f"Received: {list(kinds)}; leave it out"
            )
        types = kinds * len(self.feature_names) if len(kinds) == 1 else kinds
        if len(types) != len(self.feature_names):
            raise ConfigError(
                "--feature_types must name one type, or one for each of --feature_names. "
                f"Received: {list(kinds)} for {list(self.feature_names)}"
            )
        # The official form is stored as (), as in runs from before there were other types.
        object.__setattr__(self, "feature_types", () if set(types) == {"uint8"} else types)

    @property
    def has_levels(self) -> bool:
        """Whether the model's inputs are bytes, dequantized or of pixels: known levels."""
        return self.frame_features and not self.feature_types and self.normalize == "none"

    @property
    def sizes(self) -> dict[str, int]:
        """Feature name -> size, in order."""
        return dict(zip(self.feature_names, self.feature_sizes, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The recipe, and the builder's options in addition to the recipe's own.

    Attributes:
        name: A key of `yt8m_gat.recipes.RECIPES`, or the import path `module:Class` of a
            `VideoClassifier`.
        options: Builder options that differ from the builder's defaults (`num_heads`, ...).
    """

    name: str = "GAT"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        get_recipe(self.name)
        # JSON has no tuples: options from flags and from files get one form.
        frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in self.options.items()}
        object.__setattr__(self, "options", frozen)
        self.members  # noqa: B018 - refuses what does not read as members

    @property
    def members(self) -> tuple[EnsembleMember, ...]:
        """The members of an ensemble; none of any other model."""
        if self.name != ENSEMBLE:
            return ()
        members = self.options.get("members")
        if set(self.options) != {"members"} or not isinstance(members, tuple) or not members:
            raise ConfigError(
                f"--model={ENSEMBLE} is made of trained runs by `yt8m-gat ensemble`, which lists "
                f"them as its members. Received: {excerpt(self.options)}"
            )
        return tuple(from_dict(EnsembleMember, member, "members.") for member in members)

    @property
    def code(self) -> tuple[str, ...]:
        """Import paths of the code of the model, or of its members."""
        if is_import_path(self.name):
            return (self.name,)
        return tuple(path for member in self.members for path in member.model.code)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One model of an ensemble, and the run that it was taken from.

    Attributes:
        name: See `ModelConfig`.
        options: Likewise.
        weight: Its weight in the mean.
        train_dir: The run, for people to read.
        digest: That of its weights.
    """

    name: str
    options: dict[str, Any]
    weight: float
    train_dir: str
    digest: str

    def __post_init__(self) -> None:
        self.model  # noqa: B018 - refuses an unknown name
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"--weights must be positive, and finite. Received: {self.weight!r}")

    @property
    def model(self) -> ModelConfig:
        """Its architecture."""
        return ModelConfig(name=self.name, options=self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The objective: L = clean_weight * CE + alpha * CE(X + R) + beta * penalty (GAT, Algorithm 1).

    Attributes:
        label_loss: Loss of the labels, from logits: one of `LABEL_LOSSES`, or the import path
            `module:name` of a function or of a `ClassificationLoss`.
        label_loss_options: Arguments of that loss, as `label_smoothing`; not with an import path.
        class_reduction: Its reduction over the classes. `beta` is chosen for a mean: a sum over
            3,862 classes would need a beta 3,862 times as large.
        adversarial: `none` (CE), `output` (L_Adv, ART), `frobenius` (L_AdvFr, A-ART, GAT),
            `jensen_shannon` (L_AdvJS), `embedding` (a penalty on the clip's embedding, see
            `yt8m_gat.losses.embedding_distance`), `temporal` (TAF), `pgd` (Madry et al., 2018),
            `trades` (Zhang et al., 2019) or `fast` (Wong et al., 2020).
        epsilon: Radius of the perturbation R on the features that the model sees.
        norm_scope: What R's l2 norm is taken over: each real `frame` (the papers' "across rows"),
            the clip of one modality (`example`), or of all modalities (`joint`).
        alpha: Weight of the adversarial loss relative to the clean one (GAT section 4.2); for
            `temporal`, weight of the clean loss, and 1 - alpha that of the adversarial one (TAF
            eq. 7). None: the papers' 1 and 0.7.
        clean_weight: Weight of the clean loss; None: 0 for `pgd` and `fast`, whose papers train on
            adversarial examples only, otherwise 1.
        beta: Weight of the penalty; None: the paper's 0.001 (Frobenius), 0.01 (Jensen-Shannon) or
            6 (the divergence of TRADES), and 0.1 for embeddings.
        adversarial_steps: K, the steps of the ascent; None: the papers' 7 (`pgd`) or 10 (`trades`);
            `fast` takes one.
        adversarial_step_size: Their length, in the units of `epsilon`; None: 2.5 * epsilon / K, and
            1.25 * epsilon for `fast`.
        penalized_levels: Levels whose maps the penalty compares, each `NAME` or `NAME:WEIGHT`.
            The papers use only the global map.
        temporal_loss: What TAF's perturbation ascends: `cam`, `ce` or, without ascent,
            `random_noise`.
        temporal_epsilon: Its radius in quantization levels: 4/255 of a feature, 1/255 of a pixel.
        temporal_steps: K, its signed steps.
        temporal_step_size: In quantization levels; None: temporal_epsilon / K, and for pixels the
            paper's 2 with a radius of 6 and 32 with 64.
        non_key_frames: N, the frames of least class activation; None: all real frames.
        cam_gradient: Class activation from the gradient of the `logit` or of the `loss`.
        cam_normalization: Divisor of its normalization: its `range` over the frames, or its
            `maximum`, as TAF's eq. 3 is printed.
        temporal_examples: Clips that TAF perturbs: `both`, or those classified `correct` or
            `wrong`.
        regularization_penalty: Weight of the layers' own l2 penalties.
        unrated_as_negative: Count the classes that a segment was not rated for as negatives, as in
            the starter code; otherwise they do not count.
        class_weights: Weight of each class in the label loss by its number n of training clips:
            `none`, `inverse` (1 / n) or `effective` ((1 - b) / (1 - b^n)); their mean is 1.
        class_weights_beta: b of `effective`.
        teacher: Run folders whose best weights predict the clips too; the loss of these
            predictions is a part of that of the labels (`yt8m_gat.training.distillation`).
        teacher_digests: Digests of these weights, in that order.
        teacher_temperature: T, which divides the logits of teachers and student.
        teacher_weight: w, the teachers' part of the loss; the labels' is 1 - w.
    """

    label_loss: str = "CrossEntropyLoss"
    label_loss_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    class_reduction: str = "mean"
    adversarial: str = "none"
    epsilon: float = 0.5
    norm_scope: str = "frame"
    alpha: float | None = None
    clean_weight: float | None = None
    beta: float | None = None
    adversarial_steps: int | None = None
    adversarial_step_size: float | None = None
    penalized_levels: tuple[str, ...] = ("global",)
    temporal_loss: str = "cam"
    temporal_epsilon: float = 6.0
    temporal_steps: int = 1
    temporal_step_size: float | None = None
    non_key_frames: int | None = None
    cam_gradient: str = "logit"
    cam_normalization: str = "range"
    temporal_examples: str = "both"
    regularization_penalty: float = 1.0
    unrated_as_negative: bool = False
    class_weights: str = "none"
    class_weights_beta: float = 0.999
    teacher: tuple[str, ...] = ()
    teacher_digests: tuple[str, ...] = ()
    teacher_temperature: float = 2.0
    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        if is_import_path(self.label_loss):
            _require_import_path("label_loss", self.label_loss)
            if self.label_loss_options:
                raise ConfigError(
                    "--label_loss_options is for the losses of this package; give yours other "
                    f"defaults. Received: --label_loss={self.label_loss}"
                )
        else:
            _require_choice("label_loss", self.label_loss, (*LABEL_LOSSES, "module:name"))
        _require_choice("class_reduction", self.class_reduction, CLASS_REDUCTIONS)
        _require_choice("adversarial", self.adversarial, ADVERSARIAL_OBJECTIVES)
        _require_choice("norm_scope", self.norm_scope, NORM_SCOPES)
        _require_at_least("epsilon", self.epsilon, 0)
        if self.alpha is not None:
            _require_at_least("alpha", self.alpha, 0)
            if self.adversarial == "temporal" and self.alpha > 1:
                raise ConfigError(
                    "--alpha is the share of the clean loss with --adversarial=temporal, at most "
                    f"1. Received: {self.alpha!r}"
                )
        if self.adversarial == "fast" and self.adversarial_steps not in (None, 1):
            raise ConfigError(
                "--adversarial=fast takes a single step; --adversarial=pgd takes "
                f"--adversarial_steps. Received: {self.adversarial_steps}"
            )
        for flag in ("clean_weight", "beta"):
            if getattr(self, flag) is not None:
                _require_at_least(flag, getattr(self, flag), 0)
        if self.adversarial_steps is not None:
            _require_at_least("adversarial_steps", self.adversarial_steps, 1)
        for flag in ("adversarial_step_size", "temporal_step_size"):
            size = getattr(self, flag)
            if size is not None and not 0 < size < math.inf:
                raise ConfigError(f"--{flag} must be positive, and finite. Received: {size!r}")
        _require_choice("temporal_loss", self.temporal_loss, TEMPORAL_LOSSES)
        _require_choice("cam_gradient", self.cam_gradient, CAM_GRADIENTS)
        _require_choice("cam_normalization", self.cam_normalization, CAM_NORMALIZATIONS)
        _require_choice("temporal_examples", self.temporal_examples, TEMPORAL_EXAMPLES)
        _require_at_least("temporal_epsilon", self.temporal_epsilon, 0)
        _require_at_least("temporal_steps", self.temporal_steps, 1)
        if self.non_key_frames is not None:
            _require_at_least("non_key_frames", self.non_key_frames, 1)
        self.level_weights  # noqa: B018 - refuses what does not read as NAME[:WEIGHT]
        _require_at_least("regularization_penalty", self.regularization_penalty, 0)
        self._check_class_weights()
        self._check_teacher()

    def _check_class_weights(self) -> None:
        _require_choice("class_weights", self.class_weights, CLASS_WEIGHTS)
        beta = self.class_weights_beta
        if not 0 <= beta < 1:
            raise ConfigError(f"--class_weights_beta must be in [0, 1). Received: {beta!r}")
        if self.class_weights != "effective" and beta != ObjectiveConfig.class_weights_beta:
            raise ConfigError(
                "--class_weights_beta is for --class_weights=effective. Received: "
                f"--class_weights={self.class_weights}"
            )

    def _check_teacher(self) -> None:
        for flag in ("teacher_temperature", "teacher_weight"):
            value = getattr(self, flag)
            if not self.teacher and value != getattr(ObjectiveConfig, flag):
                raise ConfigError(f"--{flag} has no effect without --teacher. Received: {value!r}")
        if not 0 < self.teacher_temperature < math.inf:
            raise ConfigError(
                "--teacher_temperature must be positive, and finite. "
                f"Received: {self.teacher_temperature!r}"
            )
        if not 0 < self.teacher_weight <= 1:
            raise ConfigError(
                f"--teacher_weight must be in (0, 1]. Received: {self.teacher_weight!r}"
            )

    @property
    def level_weights(self) -> dict[str, float]:
        """`penalized_levels` as level -> weight."""
        weights = {}
        for entry in self.penalized_levels:
            name, _, text = entry.partition(":")
            try:
                weight = float(text) if text else 1.0
            except ValueError:
                weight = math.nan
            if not 0 <= weight < math.inf:
                raise ConfigError(
                    "--penalized_levels takes NAME or NAME:WEIGHT, a weight of at least 0. "
                    f"Received: {entry!r}"
                )
            weights[name] = weight
        return weights

    @property
    def penalty_weight(self) -> float:
        """`beta`, or the paper's value for the penalty in use (GAT section 4.2; TRADES, 6)."""
        if self.beta is not None:
            return self.beta
        defaults = {"frobenius": 0.001, "jensen_shannon": 0.01, "embedding": 0.1, "trades": 6.0}
        return defaults.get(self.adversarial, 0.0)

    @property
    def weight_of_clean(self) -> float:
        """`clean_weight`, or the paper's value for the objective in use; not for `temporal`."""
        if self.clean_weight is not None:
            return self.clean_weight
        return 0.0 if self.adversarial in ("pgd", "fast") else 1.0

    @property
    def weight_of_adversarial(self) -> float:
        """`alpha`, or the papers' 1; 0 for `trades`, which compares predictions instead."""
        if self.adversarial == "trades":
            return 0.0
        return 1.0 if self.alpha is None else self.alpha

    @property
    def ascent_steps(self) -> int:
        """`adversarial_steps`, or the paper's value; 0 for objectives without an ascent."""
        papers = {"pgd": 7, "trades": 10, "fast": 1}
        if self.adversarial not in papers:
            return 0
        return self.adversarial_steps or papers[self.adversarial]

    @property
    def ascent_step_size(self) -> float:
        """`adversarial_step_size`, or the paper's value; 0 for objectives without an ascent."""
        if self.adversarial_step_size is not None:
            return self.adversarial_step_size
        if self.adversarial == "fast":
            return 1.25 * self.epsilon
        return 2.5 * self.epsilon / self.ascent_steps if self.ascent_steps else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of training. Counts of steps are optimizer steps.

    Attributes:
        batch_size: Clips per step.
        optimizer: Name of the Keras optimizer.
        base_learning_rate: Learning rate of the first step.
        learning_rate_schedule: `exponential`: the staircase and the drops below; `cosine`: half a
            cosine from the end of the warm-up to 0 at `max_steps` (Loshchilov and Hutter, 2017).
        warmup_steps: The rate rises linearly to the schedule's over these steps; 0: no warm-up.
        learning_rate_decay: Factor applied every `learning_rate_decay_examples` examples, as a
            staircase (1: never).
        learning_rate_decay_examples: See above.
        drop_epochs: The rate is multiplied by `drop_factor` after each of these epochs (TAF: after
            10 of 15).
        drop_factor: See above.
        finetune_from: Run folder whose best weights training starts from; None: fresh weights.
        momentum: Momentum of SGD.
        ema_momentum: m of the exponential moving average of the weights, a <- m a + (1 - m) w after
            each step. With m > 0 the averages are validated, kept as the best weights and
            exported, and the raw weights are validated beside them; 0: there are no averages.
        clip_gradient_norm: Largest l2 norm of one variable's gradient; 0: no clipping.
        clip_global_norm: Largest l2 norm of all gradients together; 0: no clipping.
        num_epochs: Passes over the training data.
        max_steps: Stop after this many steps, regardless of epochs; None: no such limit.
        eval_steps: Steps between validations; an epoch that is shorter ends with one.
        watch_overfitting: Whether each validation of a run that is trained against attacks also
            measures a batch under a single step and under PGD, and warns when only the second
            breaks the model (catastrophic overfitting).
        checkpoint_steps: Steps between checkpoints; a validation writes one too.
        early_stopping_patience: Validations without a better GAP before training stops; 0: never.
        plateau_patience: Validations without a better GAP before the rate is reduced; 0: never.
        plateau_factor: Factor on the rate then.
        mixup_alpha: Clips of features are mixed in pairs, with weights from Beta(alpha, alpha); 0:
            they are not.
        frame_dropout: Probability with which a frame of features is left out.
        feature_dropout: Features that some clips lose, each `NAME:PROBABILITY`.
        temporal_crop: Least share of a clip of features that is kept, as one stretch; 1: all of it.
        frame_noise: Standard deviation of the normal noise that is added to each frame of features,
            in their dequantized units; 0: none.
        shuffle_buffer: Records in the shuffle buffer.
        num_readers: Files read in parallel.
        on_bad_record: `error`: a record that cannot be read ends the run; `skip`: it is left out
            and counted.
        max_bad_fraction: With `skip`: the largest share, of the records and of their bytes, that
            may be bad.
        seed: Fixes the initial weights, the order of the data and every random choice.
        mixed_precision: Keras dtype policy of the model (`float32`, `mixed_bfloat16`, ...).
        jit_compile: Compile the step with XLA.
        micro_batch_size: Most clips that pass through the model at once; a larger batch is split
            and the gradients are summed: the same step in less memory. 0: all at once.
        on_nonfinite: `stop`: a step whose loss or gradients are not finite ends the run; `skip`:
            it does not change the model and is counted, up to 10 in a row.
        distribute: The devices that share each batch: `none`: one; `mirrored`: all of this
            machine; `multi_worker`: all of the machines in TF_CONFIG.
        data_service: Address of a tf.data service (`grpc://host:port`) that reads the training
            data; None: this process reads them.
        callbacks: Import paths `module:function` of functions that make Keras callbacks.
    """

    batch_size: int = 64
    optimizer: str = "Adam"
    base_learning_rate: float = 2e-4
    learning_rate_schedule: str = "exponential"
    warmup_steps: int = 0
    learning_rate_decay: float = 1.0
    learning_rate_decay_examples: float = 4e6
    drop_epochs: tuple[int, ...] = ()
    drop_factor: float = 0.1
    finetune_from: str | None = None
    momentum: float = 0.0
    ema_momentum: float = 0.0
    clip_gradient_norm: float = 0.0
    clip_global_norm: float = 0.0
    num_epochs: int = 5
    max_steps: int | None = None
    eval_steps: int = 10_000
    watch_overfitting: bool = True
    checkpoint_steps: int = 1000
    early_stopping_patience: int = 5
    plateau_patience: int = 3
    plateau_factor: float = 0.1
    mixup_alpha: float = 0.0
    frame_dropout: float = 0.0
    feature_dropout: tuple[str, ...] = ()
    temporal_crop: float = 1.0
    frame_noise: float = 0.0
    shuffle_buffer: int = 1024
    num_readers: int = 8
    on_bad_record: str = "error"
    max_bad_fraction: float = MAX_BAD_FRACTION
    seed: int = 0
    mixed_precision: str = "float32"
    jit_compile: bool = False
    micro_batch_size: int = 0
    on_nonfinite: str = "stop"
    distribute: str = "none"
    data_service: str | None = None
    callbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for path in self.callbacks:
            _require_import_path("callbacks", path)
        _require_choice("optimizer", self.optimizer, OPTIMIZERS)
        for flag in ("batch_size", "num_epochs", "eval_steps", "checkpoint_steps", "num_readers"):
            _require_at_least(flag, getattr(self, flag), 1)
        for flag in (
            "early_stopping_patience",
            "plateau_patience",
            "shuffle_buffer",
            "seed",
            "micro_batch_size",
            "warmup_steps",
        ):
            _require_at_least(flag, getattr(self, flag), 0)
        _require_at_least("learning_rate_decay_examples", self.learning_rate_decay_examples, 1)
        for flag in ("clip_gradient_norm", "clip_global_norm"):
            _require_at_least(flag, getattr(self, flag), 0)
        if self.clip_gradient_norm and self.clip_global_norm:
            raise ConfigError("--clip_gradient_norm and --clip_global_norm exclude each other")
        for flag in ("momentum", "ema_momentum", "frame_dropout"):
            if not 0 <= getattr(self, flag) < 1:
                raise ConfigError(f"--{flag} must be in [0, 1). Received: {getattr(self, flag)!r}")
        if self.momentum and self.optimizer != "SGD":
            raise ConfigError(
                f"--momentum is for --optimizer=SGD. Received: --optimizer={self.optimizer}"
            )
        if self.max_steps is not None:
            _require_at_least("max_steps", self.max_steps, 1)
        self._check_schedule()
        _require_choice("on_bad_record", self.on_bad_record, ON_BAD_RECORD)
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"--max_bad_fraction must be in [0, 1]. Received: {self.max_bad_fraction!r}"
            )
        if self.seed > _MAX_SEED:
            raise ConfigError(f"--seed must be at most {_MAX_SEED}. Received: {self.seed}")
        if not 0 < self.base_learning_rate < math.inf:
            raise ConfigError(
                "--base_learning_rate must be positive, and finite. "
                f"Received: {self.base_learning_rate!r}"
            )
        for flag in ("mixup_alpha", "frame_noise"):
            _require_at_least(flag, getattr(self, flag), 0)
        _ = self.feature_dropout_rates  # Refuses what cannot be read.
        for flag in ("learning_rate_decay", "drop_factor", "plateau_factor", "temporal_crop"):
            if not 0 < getattr(self, flag) <= 1:
                raise ConfigError(f"--{flag} must be in (0, 1]. Received: {getattr(self, flag)!r}")
        _require_choice("mixed_precision", self.mixed_precision, PRECISIONS)
        if self.jit_compile and self.micro_batch_size:
            raise ConfigError(
                "--micro_batch_size and --jit_compile exclude each other: XLA does not compile "
                "parts whose number of clips is known only at run time. Received: "
                f"{self.micro_batch_size}; remove one of the two"
            )
        _require_choice("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        _require_choice("distribute", self.distribute, DISTRIBUTIONS)
        if self.data_service is not None:
            host, _, port = self.data_service.removeprefix("grpc://").rpartition(":")
            if not self.data_service.startswith("grpc://") or not host or not port.isdecimal():
                raise ConfigError(
                    "--data_service must be the address of a dispatcher, grpc://host:port. "
                    f"Received: {self.data_service!r}"
                )
            if self.on_bad_record == "skip":
                raise ConfigError(
                    "--on_bad_record=skip checks records in this process: it needs no "
                    f"--data_service. Received: {self.data_service!r}"
                )

    @property
    def augments_features(self) -> bool:
        """Whether clips of features are cropped, mixed or made noisy, or lose some."""
        return bool(
            self.mixup_alpha
            or self.frame_dropout
            or self.feature_dropout
            or self.frame_noise
            or self.temporal_crop < 1
        )

    @property
    def feature_dropout_rates(self) -> dict[str, float]:
        """Feature -> the probability with which a clip loses it."""
        rates: dict[str, float] = {}
        for pair in self.feature_dropout:
            name, _, rate = pair.rpartition(":")
            try:
                probability = float(rate)
            except ValueError:
                probability = math.nan
            if not name or name in rates or not 0 <= probability < 1:
                raise ConfigError(
                    "--feature_dropout takes NAME:PROBABILITY, each feature once and a probability "
                    f"in [0, 1). Received: {pair!r}"
                )
            rates[name] = probability
        return rates

    def _check_schedule(self) -> None:
        _require_choice(
            "learning_rate_schedule", self.learning_rate_schedule, LEARNING_RATE_SCHEDULES
        )
        if self.learning_rate_schedule != "cosine":
            return
        if self.max_steps is None or self.max_steps <= self.warmup_steps:
            raise ConfigError(
                "--learning_rate_schedule=cosine needs --max_steps, at which the rate is 0, above "
                f"--warmup_steps. Received: {self.max_steps} and {self.warmup_steps}"
            )
        if self.learning_rate_decay != 1 or self.drop_epochs:
            raise ConfigError(
                "--learning_rate_schedule=cosine excludes --learning_rate_decay and --drop_epochs. "
                f"Received: {self.learning_rate_decay:g} and {list(self.drop_epochs)}"
            )


class StoredConfig:
    """A base of frozen dataclasses that are one JSON file of a folder.

    Attributes:
        FILE: The file's name.
    """

    FILE: ClassVar[str]

    def to_json(self) -> str:
        """This configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the configuration that `to_json` wrote.

        Raises:
            ConfigError: It is not JSON, or a field is unknown or of a wrong kind.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ConfigError(f"{cls.FILE} must be JSON: {error}") from error
        return from_dict(cls, values, "")

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the file in `folder` completely or not at all."""
        with replacing(Path(folder) / self.FILE) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(StoredConfig):
    """The complete configuration of a run, for evaluation, inference and resuming."""

    FILE: ClassVar[str] = CONFIG_FILE

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        recipe = get_recipe(self.model.name)
        if recipe.frame_level and not self.data.frame_features:
            raise ConfigError(
                f"--model={self.model.name} reads frames; remove --frame_features=false, or choose "
                "a video-level model"
            )
        if recipe.frame_level is False and self.data.frame_features:
            raise ConfigError(
                f"--model={self.model.name} reads video-level records; remove --frame_features, "
                "or choose a frame-level model"
            )
        if recipe.frame_level is not None and recipe.clips != (self.data.clips is not None):
            raise ConfigError(
                f"--model={self.model.name} reads {'raw clips' if recipe.clips else 'features'}: "
                f"data.clips must {'' if recipe.clips else 'not '}be set"
            )
        single_label = self.model.options.get("single_label")
        softmax = self.objective.label_loss == "SoftmaxLoss"
        if (
            single_label is not None
            and single_label != softmax
            and not is_import_path(self.objective.label_loss)
        ):
            raise ConfigError(
                f"--{'' if single_label else 'no'}single_label and "
                f"--label_loss={self.objective.label_loss} do not fit: probabilities are a softmax "
                "with SoftmaxLoss, sigmoids with the others. Leave --single_label out"
            )
        if self.data.segment_labels and not self.data.frame_features:
            raise ConfigError(
                "--segment_labels needs a frame-level model: a segment is 5 frames. "
                f"Received: --model={self.model.name}"
            )
        if self.objective.unrated_as_negative and not self.data.segment_labels:
            raise ConfigError(
                "--unrated_as_negative is about rated segments: it needs --segment_labels"
            )
        self._check_augmentation()
        if self.data.clips is not None:
            self._check_non_key_frames(self.data.clips.num_segments)
        if not self.data.frame_features and self.objective.adversarial != "none":
            raise ConfigError(
                "--adversarial needs a frame-level model. "
                f"Received: --model={self.model.name} --adversarial={self.objective.adversarial}"
            )

    def _check_augmentation(self) -> None:
        """Refuses augmentation of frame features where there are none, or no known labels."""
        if not self.training.augments_features:
            return
        if self.data.clips is not None or not self.data.frame_features:
            raise ConfigError(
                "--mixup_alpha, --frame_dropout, --feature_dropout, --temporal_crop and "
                "--frame_noise are about frames of features; raw clips have --augmentation=mixup "
                "and --sampling. Received: "
                f"--model={self.model.name}"
            )
        unknown = self.training.feature_dropout_rates.keys() - set(self.data.feature_names)
        if unknown:
            raise ConfigError(
                f"--feature_dropout must name features of --feature_names: "
                f"{', '.join(self.data.feature_names)}. Received: {', '.join(sorted(unknown))}"
            )
        if len(self.data.feature_names) == 1 and self.training.feature_dropout:
            raise ConfigError(
                "--feature_dropout needs another feature, which stays. Received: "
                f"--feature_names={self.data.feature_names[0]}"
            )
        if self.training.mixup_alpha and self.data.segment_labels:
            raise ConfigError(
                "--mixup_alpha needs clips whose labels are all known; rated segments have "
                "--frame_dropout and --temporal_crop. Received: --segment_labels"
            )
        if self.training.frame_noise and self.data.normalize != "none":
            raise ConfigError(
                "--frame_noise is added to dequantized features, and certificates add theirs to "
                "the l2-normalized ones that such a run sees: leave out one of the two. "
                f"Received: --normalize={self.data.normalize}"
            )

    def _check_non_key_frames(self, num_segments: int) -> None:
        """Refuses more frames than each raw clip has; clips of features may be shorter."""
        non_key = self.objective.non_key_frames
        if non_key is not None and non_key > num_segments:
            raise ConfigError(
                "--non_key_frames must be at most --num_segments, the frames of each raw clip. "
                f"Received: {non_key} and {num_segments}"
            )

    @property
    def code(self) -> tuple[str, ...]:
        """Import paths of the code that runs when this run's model and loss are loaded."""
        loss = self.objective.label_loss
        return (*self.model.code, *((loss,) if is_import_path(loss) else ()))

    @classmethod
    def load(cls, train_dir: str | os.PathLike, flag: str | None = "train_dir") -> RunConfig:
        """Reads `train_dir/config.json`.

        Args:
            train_dir: The run folder.
            flag: The flag that named it, for the error; None: it has none.

        Raises:
            ConfigError: There is no such file, or it is not a configuration.
        """
        return cls.load_with_bytes(train_dir, flag)[0]

    @classmethod
    def load_with_bytes(
        cls, train_dir: str | os.PathLike, flag: str | None = "train_dir"
    ) -> tuple[RunConfig, bytes]:
        """Returns the configuration, as `load` does, and the bytes that it was read from."""
        path = Path(train_dir) / CONFIG_FILE
        if not path.is_file():
            named = f"--{flag}={train_dir}" if flag else os.fspath(train_dir)
            raise ConfigError(
                f"{named} holds no {CONFIG_FILE}: it must name the folder that train.py wrote"
            )
        try:
            text = read_text(path, _MAX_BYTES)
            return cls.from_json(text), text.encode("utf-8")
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    def differences(self, other: RunConfig) -> list[str]:
        """Returns the fixed settings in which two runs differ, a line each.

        A resumed run must not change them: those of data, model and objective determine what the
        weights mean, and some of `training` the order of the data and the optimizer's state.
        """
        lines = []
        for section in ("data", "model", "objective", "training"):
            ours = dataclasses.asdict(getattr(self, section))
            theirs = dataclasses.asdict(getattr(other, section))
            if section == "training":
                ours, theirs = (
                    {name: of[name] for name in _FIXED_TRAINING} for of in (ours, theirs)
                )
            lines += _unequal(section, ours, theirs)
        return lines


def _unequal(where: str, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Returns a line for each entry that differs, also for those of `clips`."""
    lines = []
    for name, value in ours.items():
        other = theirs[name]
        if name == "clips" and value and other:
            lines += _unequal(f"{where}.{name}", value, other)
        elif value != other:
            lines.append(f"{where}.{name}: {value!r} != {other!r}")
    return lines


def from_dict(cls: type, values: Any, where: str) -> Any:
    """Builds a dataclass from its fields as read from JSON, each checked against its annotation.

    Raises:
        ConfigError: A field is unknown or of another type; the message puts `where` before it.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where or 'the configuration'} must be a mapping. Received: {excerpt(values)}"
        )
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(
            f"unknown setting {where}{quoted(unknown[0])}: written by another version of yt8m_gat?"
        )
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in values
        and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"the setting {where}{missing[0]} is missing")
    return cls(**{name: as_hinted(hints[name], values[name], where + name) for name in values})


def as_hinted(hint: Any, value: Any, where: str) -> Any:
    """Converts a setting read from JSON to the type of its annotation: lists become tuples.

    Args:
        hint: The annotation: a plain type, `Any`, a union, `Literal`, `tuple[T, ...]`,
            `tuple[T, U]`, `list[T]`, `Sequence[T]`, `dict[str, Any]` or a configuration class.
        value: The setting.
        where: Its name, for the error.

    Raises:
        ConfigError: It is of another type, or a number that is not finite.
    """
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _as_one_of(arguments, value, where)
    if origin is typing.Literal:
        # 1 == True, and 1.0 == 1.
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            choices = ", ".join(map(repr, arguments))
            raise ConfigError(f"{where} must be one of {choices}. Received: {excerpt(value)}")
        return value
    if origin in (tuple, Sequence, list):
        if not isinstance(value, list | tuple):  # A string is a sequence too.
            raise ConfigError(f"{where} must be list. Received: {excerpt(value)}")
        kinds = arguments
        if origin is not tuple or arguments[-1] is Ellipsis:
            kinds = arguments[:1] * len(value)
        if len(kinds) != len(value):
            raise ConfigError(
                f"{where} must be a list of {len(kinds)} values. Received: {excerpt(value)}"
            )
        items = (as_hinted(kind, item, where) for kind, item in zip(kinds, value, strict=True))
        return list(items) if origin is list else tuple(items)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{where} must be finite. Received: {value!r}")
        return float(value)
    expected = origin or hint
    if not isinstance(expected, type):
        raise ConfigError(f"{where} cannot be given: no value of JSON is a {excerpt(hint)}")
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {expected.__name__}. Received: {excerpt(value)}")
    return value


def _as_one_of(hints: Sequence[Any], value: Any, where: str) -> Any:
    """Converts a value to the first member of a union that it fits."""
    if value is None and types.NoneType in hints:
        return None
    *others, last = [hint for hint in hints if hint is not types.NoneType]
    for hint in others:
        with contextlib.suppress(ConfigError):
            return as_hinted(hint, value, where)
    return as_hinted(last, value, where)
