"""Follows a run that another process is training."""

import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from yt8m_gat.config import CONFIG_FILE, RunConfig
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.state import TrainingState
from yt8m_gat.weights.checkpoints import readable_prefix
from yt8m_gat.weights.files import checkpoint_prefix, checkpoint_steps

_STATE = "state/.ATTRIBUTES/VARIABLE_VALUE"
"""TensorFlow's name for the variable `state` of a checkpoint."""


def read_state(folder: RunFolder) -> TrainingState | None:
    """Returns the state in the newest readable checkpoint of a run; None if there is none."""
    for step in checkpoint_steps(folder.checkpoints):
        prefix = checkpoint_prefix(folder.checkpoints, step)
        try:
            with readable_prefix(prefix) as path:
                text = tf.train.load_checkpoint(path).get_tensor(_STATE)
            return TrainingState.from_json(text.decode())
        # The run has just deleted it, or it is damaged, which training will report.
        except (tf.errors.OpError, OSError, RuntimeError, ValueError):
            continue
    return None


def follow(
    folder: RunFolder,
    checkpoint: str = "best",
    poll_seconds: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Waits for the states of a run, and ends when the run is finished.

    A run that was interrupted is not finished: it may be resumed. States that appear and disappear
    while the caller is busy are skipped.

    Args:
        folder: The run; it need not exist yet.
        checkpoint: `best` (by validation GAP) or `last` (newest checkpoint).
        poll_seconds: Seconds between two checks.
        sleep: Function that waits for that many seconds.

    Yields:
        The step of each new such state, including one that exists at the start; its weights are
        in the folder.

    Raises:
        ConfigError: The configuration in the folder does not read as one.
    """
    seen = None
    while True:
        state = read_state(folder) if (folder.path / CONFIG_FILE).is_file() else None
        over = False
        if state is not None:
            # The last validation and the best weights are written before this checkpoint.
            over = (
                state.last_validation == state.step
                and state.finished(RunConfig.load(folder.path).training) is not None
            )
            if checkpoint == "best" and state.best_gap is not None:
                step = state.best_step
            else:  # Without validation the last weights are the best.
                step = state.step if checkpoint == "last" or over else None
            if step is not None and step != seen:
                seen = step
                yield step
        if over:
            return
        sleep(poll_seconds)
