"""The file of a classifier's weights: HDF5 with a checksum."""

import io
import os
from pathlib import Path

import h5py

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of
from yt8m_gat.disk import replacing
from yt8m_gat.models import VideoClassifier
from yt8m_gat.weights.loaded_classifier import LoadedClassifier

# Attributes of the weights file.
_CHECKSUM = "yt8m_gat_sha256"
_STEP = "yt8m_gat_step"
NEWEST = "read the newest state with --checkpoint=last of eval.py and inference.py"


def save_weights(
    classifier: VideoClassifier, path: str | os.PathLike, step: int | None = None
) -> None:
    """Writes a classifier's weights as HDF5 (`.weights.h5`), completely or not at all.

    HDF5 crashes on a full disk (a segmentation fault, seen with h5py 3), so the space is allocated
    first. Even if another program takes the space in between, the old file at `path` stays.

    Args:
        classifier: The classifier.
        path: The file.
        step: The training step of the weights; None: it is not stored.

    Raises:
        WriteError: They could not be written.
    """
    # Keras writes only to names with this ending.
    with replacing(path, ending=".weights.h5") as temporary:
        with open(temporary, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _hdf5_bytes(classifier))
        classifier.save_weights(temporary)
        with h5py.File(temporary, "r+") as stored:  # HDF5 has no checksum of its own here.
            stored.attrs[_CHECKSUM] = _checksum(classifier)
            if step is not None:
                stored.attrs[_STEP] = step


# What Keras and HDF5 raise for a file that is truncated, overwritten or of another model.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError),
    *(IndexError, OverflowError, MemoryError),
)


class _WeightsFile(io.BytesIO):
    """The bytes of a weights file, with a name from which Keras derives the format."""

    def __str__(self) -> str:
        return "content.weights.h5"


def load_weights(classifier: VideoClassifier, path: str | os.PathLike) -> LoadedClassifier:
    """Reads a file of `save_weights`; a file without its checksum is not checked.

    The file is read only once, so that the digest belongs to the bytes that the weights come from.
    If it is replaced while it is read, it is read again.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: It is not a weights file, of another architecture, or damaged.
    """
    path = Path(path)
    while True:
        content = path.read_bytes()
        try:
            return LoadedClassifier(
                classifier, digest_of([content]), _load_content(classifier, content, path)
            )
        except ConfigError:
            if path.read_bytes() == content:
                raise


def _load_content(classifier: VideoClassifier, content: bytes, path: Path) -> int | None:
    """Loads the weights from the bytes of a file and returns their step, if it is known."""
    remedy = f"Put back a copy of it, or {NEWEST}"
    try:
        classifier.load_weights(_WeightsFile(content))
        with h5py.File(io.BytesIO(content)) as stored:
            expected = stored.attrs.get(_CHECKSUM)
            step = stored.attrs.get(_STEP)
            step = None if step is None else int(step)
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path} cannot be read as the weights of this model: {error}. {remedy}"
        ) from error
    is_text = isinstance(expected, str)  # An attribute may hold anything, for example an array.
    if expected is not None and not (is_text and expected == _checksum(classifier)):
        raise ConfigError(
            f"{path} is damaged: its weights are not those that were written. {remedy}"
        )
    return step


def _checksum(classifier: VideoClassifier) -> str:
    """Hashes the weights' values, to detect damage to the file that holds them."""
    return digest_of(weight.numpy().tobytes() for weight in classifier.weights)


def _hdf5_bytes(classifier: VideoClassifier) -> int:
    """Returns an upper estimate of the file size, with a generous share for HDF5's own tables."""
    return sum(weight.numpy().nbytes + 4096 for weight in classifier.weights)
