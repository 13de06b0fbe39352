"""The files that hold a run's weights: their names, and the digest of what they hold.

Standard library only; `yt8m_gat.weights.checkpoints` and `yt8m_gat.weights.hdf5` read them.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from yt8m_gat.digests import digest_of_files

BEST_WEIGHTS = "best.weights.h5"
CHECKPOINTS = "checkpoints"
_CHECKPOINT_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d{5}-of-\d{5})")


def checkpoint_prefix(folder: str | os.PathLike, step: int) -> str:
    """What the files of the checkpoint of `step` begin with."""
    return os.path.join(folder, f"ckpt-{step}")


def checkpoint_steps(folder: str | os.PathLike) -> list[int]:
    """Steps of the checkpoints in a folder, whole or not, the newest first.

    Read from the names of the files: TensorFlow's own list, the file `checkpoint`, is one more
    thing that can be damaged.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({int(m[1]) for name in names if (m := _CHECKPOINT_FILE.fullmatch(name))})[::-1]


@contextlib.contextmanager
def opened_checkpoint(prefix: str) -> Iterator[list[BinaryIO]]:
    """The files of a checkpoint, held open: what is read from them stays although a run that is
    being trained removes or replaces them.

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
    """The digest of the weights that a run folder holds now; None where it holds none.

    `yt8m_gat.weights.loaded_classifier.LoadedClassifier` has the digest of the bytes that were
    loaded, which need not be in the folder any more. The newest checkpoint goes by its name:
    only TensorFlow can tell whether it is whole.

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
        # Removed since it was listed, it is not the newest any more.
        with (
            contextlib.suppress(FileNotFoundError),
            opened_checkpoint(checkpoint_prefix(folder, step)) as files,
        ):
            return digest_of_files(files)
    return None
