"""Weights from one classifier to another."""

import re
from collections.abc import Iterable

import keras

from yt8m_gat.models import VideoClassifier

AUXILIARY = "auxiliary_normalization"


def copy_weights(source: VideoClassifier, target: VideoClassifier) -> None:
    """Gives `target` all weights of `source`, matched by their paths; or none, where it raises.

    A second set of normalization layers that `source` lacks starts as a copy of the first, so that
    both paths of fine-tuning start from the same function. One that `target` lacks is left out.

    Raises:
        ValueError: `target` has another architecture; names what differs. Or two weights of one
            model have the same path.
    """
    given, wanted = _weights_by_path(source), _weights_by_path(target)
    if type(source) is type(target) and _without_numbers(given) == _without_numbers(wanted):
        given = dict(zip(wanted, given.values(), strict=True))
    if list(source.feature_sizes) != list(target.feature_sizes):
        raise ValueError(
            f"the two models differ: features {', '.join(target.feature_sizes)} needed, "
            f"{', '.join(source.feature_sizes)} found"
        )
    for path in {**wanted, **given}:
        shapes = [weights[path].shape if path in weights else None for weights in (wanted, given)]
        if AUXILIARY in path and None in shapes:
            continue
        if shapes[0] != shapes[1]:
            needed, found = ("none" if shape is None else f"shape {shape}" for shape in shapes)
            raise ValueError(f"the two models differ: {path} needs {needed}, found {found}")
    for path in wanted.keys() & given.keys():
        wanted[path].assign(given[path])
    if target.dual_normalization and not source.dual_normalization:
        target.copy_normalization_to_auxiliary()


def _weights_by_path(classifier: VideoClassifier) -> dict[str, keras.Variable]:
    """The weights under their paths within the model, whose own name Keras numbers.

    Raises:
        ValueError: Two have the same.
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
    """Paths without what Keras appends to the names of layers that were given none.

    It counts the layers of a process, so that the second model of a class has other numbers.
    """
    return [re.sub(r"_[0-9]+(?=/)", "", path) for path in paths]


def without_auxiliary(classifier: VideoClassifier) -> VideoClassifier:
    """The same function without a second set of normalization layers, for serving."""
    if not classifier.dual_normalization:
        return classifier
    config = {**classifier.get_config(), "dual_normalization": False}
    single = type(classifier).from_config(config)
    copy_weights(classifier, single)
    return single
