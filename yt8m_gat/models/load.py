"""From a run folder to the classifier that it trained."""

import tensorflow as tf

from yt8m_gat.config import RunConfig
from yt8m_gat.models.registry import build_model
from yt8m_gat.models.video_classifier import VideoClassifier
from yt8m_gat.run_folder import RunFolder


def build_from_config(config: RunConfig) -> VideoClassifier:
    """The classifier that `config` describes, with fresh weights."""
    return build_model(
        config.model.name,
        config.data.sizes,
        config.data.num_classes,
        config.data.max_frames,
        **config.model.options,
    )


def load_classifier(
    folder: RunFolder, config: RunConfig, checkpoint: str = "best"
) -> VideoClassifier:
    """The classifier of a run.

    Args:
        folder: The run.
        config: Its configuration.
        checkpoint: `best` (by validation GAP) or `last` (newest checkpoint).

    Raises:
        FileNotFoundError: The run has no such weights yet.
        ValueError: `checkpoint` is neither.
    """
    classifier = build_from_config(config)
    if checkpoint == "best":
        if not folder.best_weights.is_file():
            raise FileNotFoundError(
                f"{folder.best_weights} is missing: the run has not been validated yet. Let "
                "train.py go on, or read the newest state with --checkpoint=last"
            )
        classifier.load_weights(folder.best_weights)
    elif checkpoint == "last":
        newest = tf.train.latest_checkpoint(str(folder.checkpoints))
        if newest is None:
            raise FileNotFoundError(f"{folder.checkpoints} holds no checkpoint yet")
        tf.train.Checkpoint(classifier=classifier).restore(newest).expect_partial()
    else:
        raise ValueError(f"`checkpoint` must be 'best' or 'last'. Received: {checkpoint!r}")
    return classifier
