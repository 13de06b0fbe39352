"""A loaded classifier and the identity of its weights."""

import dataclasses
import os
from typing import Any

import yt8m_gat
from yt8m_gat.models import VideoClassifier


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A loaded classifier and the identity of its weights.

    Attributes:
        classifier: The classifier.
        digest: SHA-256 of the bytes that its weights were read from;
            `yt8m_gat.weights.files.weights_digest` returns the same while they are in the folder.
        step: The training step of the weights; None if the file, of an older version, has none.
    """

    classifier: VideoClassifier
    digest: str
    step: int | None


def weights_of(
    train_dir: str | os.PathLike, checkpoint: str, loaded: LoadedClassifier
) -> dict[str, Any]:
    """Returns the description of its weights that a result stores, for people to read."""
    return {
        "version": yt8m_gat.__version__,
        "train_dir": os.fspath(train_dir),
        "checkpoint": checkpoint,
        "weights": loaded.digest,
        "step": loaded.step,
    }
