"""Copying of weights from one classifier to another."""

import re
from collections.abc import Iterable

import keras

from yt8m_gat.models import VideoClassifier

# In the names of parts that help in training alone.
_AUXILIARY = ("auxiliary_normalization", "auxiliary_head")


def copy_weights(source: VideoClassifier, target: VideoClassifier) -> None:
    """Copies all weights of `source` to `target`, matched by their paths; none if it raises.

    If only `target` has a second set of normalization layers, it starts as a copy of the first, so
    that both paths of fine-tuning start from the same function. If only `source` has one, or an
    auxiliary head, that is not copied.

    Raises:
        ValueError: `target` has another architecture; the message names the difference. Or two
            weights of one model have the same path.
    """
    source_weights, target_weights = _weights_by_path(source), _weights_by_path(target)
    if type(source) is type(target) and (
        _without_numbers(source_weights) == _without_numbers(target_weights)
    ):
        source_weights = dict(zip(target_weights, source_weights.values(), strict=True))
    if list(source.feature_sizes) != list(target.feature_sizes):
        raise ValueError(
            f"the two models differ: features {', '.join(target.feature_sizes)} needed, "
            f"{', '.join(source.feature_sizes)} found"
        )
    for path in {**target_weights, **source_weights}:
        shapes = [
            weights[path].shape if path in weights else None
            for weights in (target_weights, source_weights)
        ]
        if None in shapes and any(name in path for name in _AUXILIARY):
            continue
        if shapes[0] != shapes[1]:
            needed, present = ("none" if shape is None else f"shape {shape}" for shape in shapes)
            raise ValueError(f"the two models differ: {path} needs {needed}, found {present}")
    for path in target_weights.keys() & source_weights.keys():
        target_weights[path].assign(source_weights[path])
    if target.dual_normalization and not source.dual_normalization:
        target.copy_normalization_to_auxiliary()


def _weights_by_path(classifier: VideoClassifier) -> dict[str, keras.Variable]:
    """Returns the weights by their paths within the model; Keras numbers the model's own name.

    Raises:
        ValueError: Two weights have the same path.
    """
    weights: dict[str, keras.Variable] = {}
    for variable in classifier.weights:
        path = variable.path.removeprefix(f"{classifier.path}/")
        if path in weights:
            raise ValueError(
                f"two weights of {classifier.name} have the path {path}; give their layers "
                "different names"
            )
        weights[path] = variable
    return weights


def _without_numbers(paths: Iterable[str]) -> list[str]:
    """Removes the numbers that Keras appends to automatic layer names from paths.

    Keras counts the layers of a process, so the second model of a class has other numbers.
    """
    return [re.sub(r"_[0-9]+(?=/)", "", path) for path in paths]


def without_auxiliary(classifier: VideoClassifier) -> VideoClassifier:
    """Returns the same classifier without the parts for training alone, for serving.

    These are a second set of normalization layers, and an auxiliary head.
    """
    if not classifier.training_options:
        return classifier
    config = {**classifier.get_config(), **classifier.training_options}
    single = type(classifier).from_config(config)
    copy_weights(classifier, single)
    return single
