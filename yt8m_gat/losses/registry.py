"""The losses by the names of `--label_loss`."""

import inspect
from typing import Any

from yt8m_gat.losses.asymmetric import AsymmetricLoss
from yt8m_gat.losses.classification import (
    ClassificationLoss,
    CrossEntropyLoss,
    HingeLoss,
    SoftmaxLoss,
)
from yt8m_gat.losses.focal import FocalLoss

_LOSSES: dict[str, type[ClassificationLoss]] = {
    "CrossEntropyLoss": CrossEntropyLoss,
    "HingeLoss": HingeLoss,
    "SoftmaxLoss": SoftmaxLoss,
    "FocalLoss": FocalLoss,
    "AsymmetricLoss": AsymmetricLoss,
}


def get_loss(
    name: str, class_reduction: str, unrated_as_negative: bool = False, **options: float | None
) -> ClassificationLoss:
    """Returns the loss that the flag `--label_loss` names.

    Args:
        name: Name of one of the classes of this package.
        class_reduction: "mean" or "sum".
        unrated_as_negative: See `ClassificationLoss`.
        **options: The loss's own options.

    Raises:
        ValueError: If the name, the reduction or an option is unknown, or a value not valid.
    """
    if name not in _LOSSES:
        raise ValueError(f"The loss must be one of {', '.join(_LOSSES)}. Received: {name!r}")
    accepted = _options_of(_LOSSES[name])
    for option, value in options.items():
        if option not in accepted:
            raise ValueError(
                f"{option!r} is no option of {name}; it has {', '.join(accepted) or 'none'}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"`{option}` must be a number. Received: {value!r}")
    return _LOSSES[name](class_reduction, unrated_as_negative, **options)


def _options_of(loss: type[ClassificationLoss]) -> list[Any]:
    of_all = inspect.signature(ClassificationLoss).parameters
    return [name for name in inspect.signature(loss).parameters if name not in of_all]
