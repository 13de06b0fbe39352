"""What tells which files and which weights a result is of."""

import os
from collections.abc import Sequence
from typing import Any

import yt8m_gat
from yt8m_gat.data.tfrecord import file_state
from yt8m_gat.models import LoadedClassifier
from yt8m_gat.run_folder import RunFolder, digest_of


def files_digest(files: Sequence[str]) -> str:
    """Hashes names, sizes and times of change; hashing the contents of terabytes would be slow."""
    return digest_of([repr([file_state(path) for path in files]).encode()])


def weights_of(folder: RunFolder, checkpoint: str, loaded: LoadedClassifier) -> dict[str, Any]:
    """What a result says of the weights that it was made with, for people to read."""
    return {
        "version": yt8m_gat.__version__,
        "train_dir": os.fspath(folder.path),
        "checkpoint": checkpoint,
        "weights": loaded.digest,
        "step": loaded.step,
    }
