"""What tells whether weights, files or settings are those of an earlier evaluation."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from yt8m_gat.models import newest_checkpoint
from yt8m_gat.run_folder import RunFolder


def digest_of(parts: Iterable[bytes]) -> str:
    """Of all parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def weights_digest(folder: RunFolder, checkpoint: str) -> str:
    """Of the bytes that `load_classifier` reads."""
    if checkpoint == "best":
        return digest_of([folder.best_weights.read_bytes()])
    newest = newest_checkpoint(folder.checkpoints)
    paths = sorted(Path(newest).parent.glob(Path(newest).name + ".*"))
    return digest_of(path.read_bytes() for path in paths)


def files_digest(files: Sequence[str]) -> str:
    """Of names, sizes and times: reading terabytes to know them again would be no help."""
    found = []
    for path in files:
        stat = tf.io.gfile.stat(path)
        found.append((path, stat.length, stat.mtime_nsec))
    return digest_of([repr(found).encode()])
