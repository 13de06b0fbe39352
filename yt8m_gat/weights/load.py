"""Loading of the trained classifier from a run folder."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import tensorflow as tf

from yt8m_gat.config import CONFIG_FILE, ConfigError, RunConfig
from yt8m_gat.digests import digest_of_files
from yt8m_gat.import_path import require_trust
from yt8m_gat.models import VideoClassifier, build_from_config
from yt8m_gat.weights.checkpoints import checkpointable, newest_checkpoint, readable_prefix
from yt8m_gat.weights.files import (
    BEST_WEIGHTS,
    CHECKPOINTS,
    opened_checkpoint,
    stored_architecture,
)
from yt8m_gat.weights.hdf5 import NEWEST, load_weights
from yt8m_gat.weights.loaded_classifier import LoadedClassifier


def load_newest_checkpoint(
    classifier: VideoClassifier, folder: str | os.PathLike
) -> LoadedClassifier:
    """Loads the newest intact checkpoint of a folder into a classifier.

    Its files are held open while TensorFlow reads them by their names. If a run in training has
    removed or replaced one in the meantime, the search for the newest starts again.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointsError: There are checkpoints, but all are damaged.
    """
    while True:
        prefix = newest_checkpoint(folder)
        if prefix is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint yet")
        with contextlib.suppress(FileNotFoundError), opened_checkpoint(prefix) as files:
            try:
                with readable_prefix(prefix) as path:
                    checkpoint = tf.train.Checkpoint(classifier=checkpointable(classifier))
                    # The optimizer's part stays unread.
                    checkpoint.read(path).assert_existing_objects_matched().expect_partial()
            except (tf.errors.OpError, ValueError, AssertionError):
                if _have_their_names(files):
                    raise
                continue
            digest = digest_of_files(files)
            if _have_their_names(files):
                return LoadedClassifier(classifier, digest, int(prefix.rpartition("-")[2]))


def _have_their_names(files: Sequence[BinaryIO]) -> bool:
    """Returns whether open files are still those that their names refer to."""
    try:
        return all(os.path.samestat(os.fstat(f.fileno()), os.stat(f.name)) for f in files)
    except FileNotFoundError:
        return False


def load_classifier(
    train_dir: str | os.PathLike,
    config: RunConfig,
    checkpoint: str = "best",
    trust_code: bool = False,
) -> VideoClassifier:
    """Loads only the classifier of a run; see `load_run`."""
    return load_run(train_dir, config, checkpoint, trust_code).classifier


def load_run(
    train_dir: str | os.PathLike,
    config: RunConfig,
    checkpoint: str = "best",
    trust_code: bool = False,
) -> LoadedClassifier:
    """Loads the classifier of a run, with the digest and step of its weights.

    Args:
        train_dir: The run folder.
        config: Its configuration.
        checkpoint: `best` (by validation GAP) or `last` (newest checkpoint).
        trust_code: Whether to run the code that the run names (`RunConfig.code`): its own model
            and loss.

    Raises:
        FileNotFoundError: The run has no such weights yet.
        ConfigError: They are damaged, or the folder now holds another run than `config`.
        UntrustedCodeError: The run names code that is not trusted.
        ValueError: `checkpoint` is neither.
    """
    folder = Path(train_dir)
    require_trust(config, trust_code, folder)
    classifier = build_from_config(
        config, trust_code, backbone_architecture=stored_architecture(folder)
    )
    if checkpoint == "best":
        try:
            loaded = load_weights(classifier, folder / BEST_WEIGHTS)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{folder / BEST_WEIGHTS} is missing: the run has not been validated yet. Let "
                f"train.py go on, or {NEWEST}"
            ) from error
    elif checkpoint == "last":
        loaded = load_newest_checkpoint(classifier, folder / CHECKPOINTS)
    else:
        raise ValueError(f"`checkpoint` must be 'best' or 'last'. Received: {checkpoint!r}")
    if (folder / CONFIG_FILE).is_file():
        now = RunConfig.load(folder)
        # These settings fix the meaning of the weights and of their figures.
        if (now.data, now.model, now.objective) != (config.data, config.model, config.objective):
            raise ConfigError(
                f"{folder} holds another run than a moment ago: train.py "
                "--start_new_model began there. Run the same command again"
            )
    return loaded
