"""What tells whether weights or files are those of an earlier evaluation."""

from collections.abc import Sequence

import tensorflow as tf

from yt8m_gat.models import newest_checkpoint
from yt8m_gat.run_folder import RunFolder, checkpoint_digest, digest_of


def weights_digest(folder: RunFolder, checkpoint: str) -> str:
    """Of the bytes that `load_classifier` reads."""
    if checkpoint == "best":
        return folder.best_digest()
    return checkpoint_digest(newest_checkpoint(folder.checkpoints))


def files_digest(files: Sequence[str]) -> str:
    """Of names, sizes and times: reading terabytes to know them again would be no help."""
    found = []
    for path in files:
        stat = tf.io.gfile.stat(path)
        found.append((path, stat.length, stat.mtime_nsec))
    return digest_of([repr(found).encode()])
