"""The file of a classifier's weights, HDF5 with a checksum."""

import io
import os
from pathlib import Path

import h5py

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of
from yt8m_gat.disk import replacing
from yt8m_gat.models import VideoClassifier
from yt8m_gat.weights.loaded_classifier import LoadedClassifier

# Attributes of the file of weights.
_CHECKSUM = "yt8m_gat_sha256"
_STEP = "yt8m_gat_step"
NEWEST = "read the newest state with --checkpoint=last of eval.py and inference.py"


def save_weights(
    classifier: VideoClassifier, path: str | os.PathLike, step: int | None = None
) -> None:
    """Writes a classifier's weights as HDF5 (`.weights.h5`), all of them or nothing.

    Args:
        classifier: The classifier.
        path: The file.
        step: The step of training that they are of; None: it is not written down.

    HDF5 dies of a disk that is full (a segmentation fault, seen with h5py 3): the room is asked
    for before. Should another program take it in that moment, what was at `path` still stays.

    Raises:
        WriteError: They could not be written.
    """
    # Keras writes to names of this ending alone.
    with replacing(path, ending=".weights.h5") as temporary:
        with open(temporary, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _hdf5_bytes(classifier))
        classifier.save_weights(temporary)
        with h5py.File(temporary, "r+") as stored:  # HDF5 has no checksum of its own here.
            stored.attrs[_CHECKSUM] = _checksum(classifier)
            if step is not None:
                stored.attrs[_STEP] = step


# What Keras and HDF5 raise for a file that is cut, overwritten or another model's.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError),
    *(IndexError, OverflowError, MemoryError),
)


class _WeightsFile(io.BytesIO):
    """The bytes of a file of weights, under a name by which Keras knows what they are."""

    def __str__(self) -> str:
        return "content.weights.h5"


def load_weights(classifier: VideoClassifier, path: str | os.PathLike) -> LoadedClassifier:
    """Reads what `save_weights` wrote; files without its checksum are read unchecked.

    The file is read once, so that the digest is of the very bytes that the weights come from. One
    that is replaced while it is read is read again.

    Raises:
        FileNotFoundError: It is not there.
        ConfigError: It is no such file, one of another architecture, or damaged.
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
    """Gives a classifier the weights in the bytes of a file; their step, if it is known."""
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
    is_text = isinstance(expected, str)  # An attribute may hold anything, an array say.
    if expected is not None and not (is_text and expected == _checksum(classifier)):
        raise ConfigError(
            f"{path} is damaged: its weights are not those that were written. {remedy}"
        )
    return step


def _checksum(classifier: VideoClassifier) -> str:
    """Of the numbers, by which damage to the file that holds them is noticed."""
    return digest_of(weight.numpy().tobytes() for weight in classifier.weights)


def _hdf5_bytes(classifier: VideoClassifier) -> int:
    """At least what the weights take, with a generous share for HDF5's own tables."""
    return sum(weight.numpy().nbytes + 4096 for weight in classifier.weights)
