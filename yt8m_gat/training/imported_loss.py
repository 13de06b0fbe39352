"""The user's own loss, by import path."""

from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.import_path import described, import_object
from yt8m_gat.losses import ClassificationLoss, FunctionLoss


def import_loss(
    path: str, class_reduction: str, unrated_as_negative: bool = False
) -> ClassificationLoss:
    """Imports the loss that `--label_loss=module:name` names, which runs its module.

    Args:
        path: Import path of a subclass of `ClassificationLoss`, constructed with the other two
            arguments by name, or of a function for `FunctionLoss`.
        class_reduction: See `ClassificationLoss`.
        unrated_as_negative: See `ClassificationLoss`.

    Raises:
        ConfigError: It cannot be imported, is neither, or does not return one loss per example.
    """
    value = import_object("label_loss", path)
    settings = {"class_reduction": class_reduction, "unrated_as_negative": unrated_as_negative}
    if isinstance(value, type):
        if not issubclass(value, ClassificationLoss):
            raise _rule(path, value)
    elif not callable(value):
        raise _rule(path, value)
    num_clips, num_classes = 2, 3
    labels = np.eye(num_clips, num_classes, dtype=np.float32)
    logits = np.linspace(-1, 1, labels.size, dtype=np.float32).reshape(labels.shape)
    try:
        loss = value(**settings) if isinstance(value, type) else FunctionLoss(value, **settings)
        losses = tf.convert_to_tensor(loss(labels, logits, None))
    except Exception as error:
        raise ConfigError(
            f"--label_loss={path} failed on labels and logits [B, C]: {described(error)}"
        ) from error
    if losses.shape != (num_clips,):
        raise ConfigError(
            f"--label_loss={path} must give one loss an example, [B]. Received: "
            f"{list(losses.shape)} for labels [{num_clips}, {num_classes}]"
        )
    return loss


def _rule(path: str, value: Any) -> ConfigError:
    return ConfigError(
        f"--label_loss={path} must be a subclass of yt8m_gat.losses.ClassificationLoss, or a "
        "function (labels [B, C], logits [B, C]) -> [B, C] that gives the term of each class. "
        f"Received: {value!r}"
    )
