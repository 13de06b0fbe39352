"""The files that hold a run's network and its weights: names, and the digest of the weights.

Standard library only; `yt8m_gat.weights.checkpoints` and `yt8m_gat.weights.hdf5` read the files.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of_files
from yt8m_gat.untrusted import read_text

BEST_WEIGHTS = "best.weights.h5"
CHECKPOINTS = "checkpoints"
BACKBONE = "backbone.json"
_MAX_ARCHITECTURE_BYTES = 64 << 20
_CHECKPOINT_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d{5}-of-\d{5})")


def stored_architecture(train_dir: str | os.PathLike) -> str | None:
    """Returns the architecture of the backbone that a run was trained with, as Keras' JSON.

    None: the run keeps none, because its backbone is not from a file, or because an older version
    of this package trained it.

    Raises:
        ConfigError: The file cannot be read as text.
    """
    path = Path(train_dir) / BACKBONE
    try:
        return read_text(path, _MAX_ARCHITECTURE_BYTES)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path} {error}") from error


def checkpoint_prefix(folder: str | os.PathLike, step: int) -> str:
    """Returns the common prefix of the files of the checkpoint of `step`."""
    return os.path.join(folder, f"ckpt-{step}")


def checkpoint_steps(folder: str | os.PathLike) -> list[int]:
    """Returns the steps of the checkpoints in a folder, intact or not, the newest first.

    Reads them from the file names: TensorFlow's own list, the file `checkpoint`, may be damaged.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({int(m[1]) for name in names if (m := _CHECKPOINT_FILE.fullmatch(name))})[::-1]


@contextlib.contextmanager
def opened_checkpoint(prefix: str) -> Iterator[list[BinaryIO]]:
    """Opens the files of a checkpoint.

    While they are open they can be read, even if a run in training removes or replaces them.

    Raises:
        FileNotFoundError: There are none.
    """
    folder, name = os.path.split(prefix)
    names = sorted(other for other in os.listdir(folder or ".") if other.startswith(f"{name}."))
    if not names:
        raise FileNotFoundError(f"{prefix} is not there")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(open(os.path.join(folder, other), "rb")) for other in names]


def weights_digest(train_dir: str | os.PathLike, checkpoint: str) -> str | None:
    """Returns the digest of the weights that a run folder holds now; None if it holds none.

    `yt8m_gat.weights.loaded_classifier.LoadedClassifier` has the digest of the bytes that were
    loaded, which may have been replaced since. The newest checkpoint is chosen by its name: only
    TensorFlow can tell whether it is intact.

    Args:
        train_dir: The run folder.
        checkpoint: `best` or `last`.
    """
    if checkpoint == "best":
        try:
            with open(Path(train_dir) / BEST_WEIGHTS, "rb") as file:
                return digest_of_files([file])
        except FileNotFoundError:
            return None
    folder = Path(train_dir) / CHECKPOINTS
    for step in checkpoint_steps(folder):
        # If it was removed after the listing, it is no longer the newest.
        with (
            contextlib.suppress(FileNotFoundError),
            opened_checkpoint(checkpoint_prefix(folder, step)) as files,
        ):
            return digest_of_files(files)
    return None
