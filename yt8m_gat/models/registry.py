"""Builds a model from the name of a recipe or the import path of a class."""

import contextlib
import inspect
import random
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from yt8m_gat.config import (
    CONFIG_FILE,
    ConfigError,
    ModelConfig,
    RunConfig,
    as_hinted,
    get_recipe,
    is_import_path,
)
from yt8m_gat.import_path import described, require_trust, words_of
from yt8m_gat.models.clip import ClipClassifier
from yt8m_gat.models.dbof import DbofClassifier
from yt8m_gat.models.ensemble import EnsembleClassifier
from yt8m_gat.models.frame_level_logistic import FrameLevelLogisticClassifier
from yt8m_gat.models.gru import GruClassifier
from yt8m_gat.models.imported import (
    check_classifier,
    constructor_parameters,
    import_classifier,
)
from yt8m_gat.models.learnable_pooling import LearnablePoolingClassifier
from yt8m_gat.models.lstm import LstmClassifier
from yt8m_gat.models.next_vlad import NeXtVladClassifier
from yt8m_gat.models.transformer import TransformerClassifier
from yt8m_gat.models.video_classifier import VideoClassifier
from yt8m_gat.models.video_level import VideoLevelClassifier
from yt8m_gat.recipes import ENSEMBLE
from yt8m_gat.untrusted import excerpt

# Recipe.family -> builder. The recipes themselves are in `yt8m_gat.recipes`, because the commands
# need their names before Keras is imported.
BUILDERS: dict[str, type[VideoClassifier]] = {
    "clip": ClipClassifier,
    "dbof": DbofClassifier,
    "frame_level_logistic": FrameLevelLogisticClassifier,
    "gru": GruClassifier,
    "learnable_pooling": LearnablePoolingClassifier,
    "lstm": LstmClassifier,
    "next_vlad": NeXtVladClassifier,
    "transformer": TransformerClassifier,
    "video_level": VideoLevelClassifier,
}
# Builder arguments that do not come from `ModelConfig.options`.
_NO_OPTIONS = {
    *("feature_sizes", "num_classes", "max_frames", "num_segments", "crop_size"),
    *("seed", "dtype", "name", "backbone_architecture"),
}
# Options that recipes and copies of models set, and for which there is no flag.
_WITHOUT_FLAG = {"auxiliary_head", "fusion"}


def build_model(
    name: str,
    feature_sizes: dict[str, int],
    num_classes: int,
    max_frames: int = 300,
    *,
    num_segments: int = 8,
    crop_size: int = 224,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int | None = None,
    backbone_architecture: str | None = None,
    **options: Any,
) -> VideoClassifier:
    """Builds the architecture of the recipe `name`, with fresh weights.

    A class `module:Class` is imported, which runs its code. Its constructor gets `feature_sizes`,
    `num_classes` and `dtype`, and `max_frames`, `num_segments`, `crop_size`, `seed` and
    `backbone_architecture` if it has arguments of these names, all by keyword.

    Args:
        name: A key of `yt8m_gat.recipes.RECIPES`, or the import path of a `VideoClassifier`, as
            given to `--model`.
        feature_sizes: Feature name -> size.
        num_classes: C.
        max_frames: T where the architecture needs a fixed one.
        num_segments: T of models that read raw clips.
        crop_size: Height and width of their frames.
        dtype: Dtype policy of the layers, for example `mixed_bfloat16`; None: Keras' global one.
            Logits are always computed in float32.
        seed: At least 0. The same seed gives the same initial weights and dropout masks; None:
            those that `keras.utils.set_random_seed` gives.
        backbone_architecture: See `ClipClassifier`.
        **options: Builder arguments that replace the recipe's, for example
            `local_masks=("tp30",)`.

    Returns:
        A built model; see `VideoClassifier` for its inputs and outputs.

    Raises:
        ConfigError: The recipe or class is unknown, an ensemble has no members, an option is
            unknown or has the wrong type, or the class does not follow the convention of
            `VideoClassifier`.
        ValueError: The seed is negative, or the builder refuses the value of an option.
    """
    if seed is not None and seed < 0:
        # `random.seed` ignores the sign.
        raise ValueError(f"`seed` must be at least 0. Received: seed={seed}")
    shared = {
        **{"max_frames": max_frames, "num_segments": num_segments, "crop_size": crop_size},
        **{"seed": seed, "backbone_architecture": backbone_architecture},
    }
    if name == ENSEMBLE:
        members = ModelConfig(name=name, options=options).members
        models = [
            build_model(
                member.name, feature_sizes, num_classes, dtype=dtype, **shared, **member.options
            )
            for member in members
        ]
        return EnsembleClassifier(models, [member.weight for member in members], dtype=dtype)
    recipe = get_recipe(name)
    imported = is_import_path(name)
    builder = import_classifier(name) if imported else BUILDERS[recipe.family]
    parameters = constructor_parameters(builder)
    arguments = _checked_options(name, parameters, {**recipe.options, **options})
    arguments |= {key: value for key, value in shared.items() if key in parameters}
    arguments |= {"feature_sizes": feature_sizes, "num_classes": num_classes, "dtype": dtype}
    with contextlib.nullcontext() if seed is None else _seeded(seed):
        if not imported:
            return builder(**arguments)
        _check_signature(name, builder, arguments)
        try:
            classifier = builder(**arguments)
        except Exception as error:
            raise ConfigError(
                f"--model={name}: {builder.__name__}.__init__ failed: "
                f"{described(error, inspect.getsourcefile(builder))}"
            ) from error
    check_classifier(classifier, name)
    return classifier


def _checked_options(
    name: str, parameters: dict[str, inspect.Parameter], options: dict[str, Any]
) -> dict[str, Any]:
    """Returns the options with the types of their parameters; they may come from any file."""
    accepted = parameters.keys() - _NO_OPTIONS
    listed = sorted(accepted)
    if not is_import_path(name):
        listed = [f"--{option}" for option in listed if option not in _WITHOUT_FLAG]
    checked = {}
    for option, value in options.items():
        flag = f"--model_options: {option}" if is_import_path(name) else f"--{option}"
        if option in _WITHOUT_FLAG and not is_import_path(name):
            flag = f"{CONFIG_FILE}: model option {option}"
        if option not in accepted:
            raise ConfigError(
                f"{flag} is no option of --model={name}; it has {', '.join(listed) or 'none'}"
            )
        checked[option] = as_hinted(_hint_of(parameters[option]), value, flag)
    return checked


def _hint_of(parameter: inspect.Parameter) -> Any:
    """Returns its annotation, else the type of its default, else `Any`."""
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    if parameter.default is None or parameter.default is parameter.empty:
        return Any
    return type(parameter.default)


def _check_signature(name: str, builder: type[VideoClassifier], arguments: dict[str, Any]) -> None:
    """Refuses arguments that the constructor does not accept, and missing ones that it needs."""
    signature = inspect.signature(builder.__init__)
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        missing = [
            parameter.name
            for parameter in list(signature.parameters.values())[1:]
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in arguments
        ]
        remedy = "it must take feature_sizes and num_classes by name, and **kwargs for Keras"
        if missing:
            remedy = f"""give --model_options='{{"{missing[0]}": ...}}'"""
        raise ConfigError(
            f"--model={name}: {builder.__name__}.__init__: {error}; {remedy}"
        ) from error


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the layers made inside: Keras draws seeds that are not set from `random`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def build_from_config(
    config: RunConfig,
    trust_code: bool = False,
    to_train: bool = False,
    backbone_architecture: str | None = None,
) -> VideoClassifier:
    """Builds the classifier that `config` describes, with fresh weights.

    Args:
        config: The run.
        trust_code: Whether to import and run the code that `config.code` names.
        to_train: Whether to read the pretrained weights that `--backbone_weights` names; they are
            not needed where the weights of a run are read next.
        backbone_architecture: What the run folder keeps of a backbone that was read from a file;
            None: the file is read.

    Raises:
        ConfigError: The architecture refuses an option, or does not fit into memory.
        UntrustedCodeError: `config` names code that is not trusted.
    """
    require_trust(config, trust_code, "the configuration")
    no_options = inspect.signature(build_model).parameters.keys() & config.model.options.keys()
    if no_options:
        raise ConfigError(f"{min(no_options)} is no option of --model={config.model.name}")
    options, clips = dict(config.model.options), config.data.clips
    if get_recipe(config.model.name).clips and not to_train:
        options.pop("backbone_weights", None)
    sizes = {}
    if clips is not None:
        sizes = {"num_segments": clips.num_segments, "crop_size": clips.crop_size}
    try:
        classifier = build_model(
            config.model.name,
            config.data.sizes,
            config.data.num_classes,
            config.data.max_frames,
            # The models of this package draw from Keras' global seed.
            seed=config.training.seed if is_import_path(config.model.name) else None,
            backbone_architecture=backbone_architecture,
            **sizes,
            **options,
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"--model={config.model.name}: {words_of(error)}") from error
    # The types are right: Keras and TensorFlow raise these for sizes that are too large.
    except (TypeError, OverflowError, MemoryError, tf.errors.OpError) as error:
        raise ConfigError(
            f"--model={config.model.name} cannot be built with these sizes "
            f"({excerpt(config.model.options)}, {config.data.num_classes} classes, features "
            f"{excerpt(config.data.sizes)}): {words_of(error)}"
        ) from error
    if classifier.frame_level != config.data.frame_features:
        reads, remedy = "frames", "leave out --noframe_features"
        if not classifier.frame_level:
            reads = "video-level features"
            remedy = "give --noframe_features and their --feature_names"
        raise ConfigError(f"--model={config.model.name} reads {reads}: {remedy}")
    return classifier
