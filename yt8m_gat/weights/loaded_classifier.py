"""A classifier that was read, and which weights it has."""

import dataclasses
import os
from typing import Any

import yt8m_gat
from yt8m_gat.models import VideoClassifier


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A classifier that was read, and which weights it has.

    Attributes:
        classifier: The classifier.
        digest: SHA-256 of the bytes that its weights were read from, as
            `yt8m_gat.weights.files.weights_digest` gives it while they are in the folder.
        step: The step of training that they are of; None: the file, of an older version, does not
            say.
    """

    classifier: VideoClassifier
    digest: str
    step: int | None


def weights_of(
    train_dir: str | os.PathLike, checkpoint: str, loaded: LoadedClassifier
) -> dict[str, Any]:
    """What a result says of the weights that it was made with, for people to read."""
    return {
        "version": yt8m_gat.__version__,
        "train_dir": os.fspath(train_dir),
        "checkpoint": checkpoint,
        "weights": loaded.digest,
        "step": loaded.step,
    }
