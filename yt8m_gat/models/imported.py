"""Users' own classifiers: imports their class and checks that it follows the convention."""

import inspect
from typing import Any

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.import_path import described, import_object
from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.models.video_classifier import FRAME_MASK, ModelOutputs, VideoClassifier
from yt8m_gat.untrusted import excerpt


def import_classifier(path: str) -> type[VideoClassifier]:
    """Imports the class that `module:Class` names; this runs its module.

    Raises:
        ConfigError: It cannot be imported, or is not a subclass of `VideoClassifier`.
    """
    value = import_object("model", path)
    if not (isinstance(value, type) and issubclass(value, VideoClassifier)):
        raise ConfigError(
            f"--model={path} must be a subclass of yt8m_gat.models.VideoClassifier. "
            f"Received: {value!r}"
        )
    return value


def constructor_parameters(builder: type[VideoClassifier]) -> dict[str, inspect.Parameter]:
    """Returns the named arguments of a classifier's constructor with evaluated annotations.

    They include those of its parents, as far as `**kwargs` passes them on, but not the arguments
    of `VideoClassifier` and Keras.

    Raises:
        ConfigError: An annotation cannot be evaluated.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for cls in builder.__mro__[: builder.__mro__.index(VideoClassifier)]:
        if "__init__" not in vars(cls):
            continue
        try:
            signature = inspect.signature(cls.__init__, eval_str=True)
        except (NameError, TypeError, AttributeError, SyntaxError) as error:
            raise ConfigError(
                f"the annotations of {cls.__name__}.__init__ cannot be evaluated: {error}. Import "
                "what they name where the class is defined"
            ) from error
        of_class = list(signature.parameters.values())[1:]  # Without `self`.
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        for parameter in of_class:
            if parameter.kind not in variadic:
                parameters.setdefault(parameter.name, parameter)
        if inspect.Parameter.VAR_KEYWORD not in [parameter.kind for parameter in of_class]:
            break
    return parameters


def check_classifier(classifier: VideoClassifier, path: str) -> None:
    """Refuses a classifier that does not follow the convention of `VideoClassifier`.

    Traces `forward` once for batches of any size and any number of frames.

    Raises:
        ConfigError: It is not built, its `forward` fails, or an output does not have the shape
            that `ModelOutputs` describes.
    """
    name = type(classifier).__name__
    if not classifier.built:
        raise ConfigError(f"--model={path}: {name}.__init__ must end with self.build_all()")
    inputs = classifier.symbolic_inputs()
    specs = {key: tf.TensorSpec(tensor.shape, tensor.dtype) for key, tensor in inputs.items()}
    features = {feature: specs[feature] for feature in classifier.feature_sizes}
    mask = specs.get(FRAME_MASK)
    traced: list[Any] = []

    def forward(features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None) -> None:
        traced.append(
            classifier.forward(features, frame_mask, training=True, auxiliary_normalization=False)
        )

    try:
        tf.function(forward, autograph=False).get_concrete_function(features, mask)
    except Exception as error:
        sizes = "frames [B, T, D] of any B and T" if classifier.frame_level else "features [B, D]"
        place = described(error, inspect.getsourcefile(type(classifier)))
        raise ConfigError(f"--model={path}: {name}.forward failed on {sizes}: {place}") from error
    problem = _problem_of(traced[0], classifier)
    if problem is not None:
        raise ConfigError(f"--model={path}: {name}.forward must return {problem}")


def _problem_of(outputs: ModelOutputs, classifier: VideoClassifier) -> str | None:
    """Describes what `forward` must return and what it returned instead; None: no problem."""
    num_classes = classifier.num_classes
    if not _has_shape(outputs.logits, (None, num_classes)):
        return f"logits of shape [B, {num_classes}]. Received: {_shown(outputs.logits)}"
    if outputs.logits.dtype != tf.float32:
        return (
            "logits in float32: give the last layer dtype='float32'. "
            f"Received: {_shown(outputs.logits)}"
        )
    frames = outputs.frames
    ranks = (3, 5)  # [B, T, H, W, C] of raw clips.
    if classifier.frame_level and not any(_has_shape(frames, (None,) * rank) for rank in ranks):
        return f"frames of shape [B, T, D], those before pooling. Received: {_shown(frames)}"
    size = classifier.embedding_size
    if size is not None and not _has_shape(outputs.embedding, (None, size)):
        return (
            f"an embedding of shape [B, {size}], as `embedding_size` says. "
            f"Received: {_shown(outputs.embedding)}"
        )
    maps, levels = outputs.attention_maps, classifier.attention_levels
    if not isinstance(maps, dict) or any(set(of) != set(levels) for of in maps.values()):
        return (
            "attention_maps {feature: {level: map}} with the levels that `attention_levels` names, "
            f"{', '.join(levels) or 'none'}. Received: {_shown(maps)}"
        )
    if levels and set(maps) != set(classifier.feature_sizes):
        return (
            f"attention_maps for each of {', '.join(classifier.feature_sizes)}. "
            f"Received: {_shown(maps)}"
        )
    for level in levels:
        try:
            AttentionLevel.parse(level)
        except ValueError as error:
            return f"attention_maps of known levels: {error}"
    for of_feature in maps.values():
        if "global" in levels and not _has_shape(of_feature["global"], (None,) * 4):
            return (
                "attention maps [B, N, T, S] at the level global. "
                f"Received: {_shown(of_feature['global'])}"
            )
    return None


def _has_shape(value: Any, shape: tuple[int | None, ...]) -> bool:
    return tf.is_tensor(value) and value.shape.is_compatible_with(shape)


def _shown(value: Any) -> str:
    """Formats a value for a message; a tensor by its shape and dtype."""
    if tf.is_tensor(value) and value.shape.rank is not None:
        sizes = ", ".join("?" if size is None else str(size) for size in value.shape)
        return f"[{sizes}] {value.dtype.name}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of ({', '.join(map(_shown, value))})"
    return " ".join(excerpt(value).split())
