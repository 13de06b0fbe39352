"""What a run in training keeps in its folder: its checkpoints and its best weights."""

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.adversarial_model import AdversarialModel
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.nonfinite import check_weights
from yt8m_gat.training.state import TrainingState
from yt8m_gat.weights.checkpoints import Checkpoints, checkpointable, newest_checkpoint
from yt8m_gat.weights.files import checkpoint_prefix
from yt8m_gat.weights.hdf5 import save_weights


class SavedRun:
    """Writes model, optimizer, the layers' random state and `TrainingState`, and restores them.

    The chief writes and decides what to restore; it tells the others.

    Args:
        folder: The run folder.
        model: The model in training, compiled, its optimizer built.
        distribution: The replicas that train.
    """

    def __init__(
        self, folder: RunFolder, model: AdversarialModel, distribution: Distribution
    ) -> None:
        self.folder = folder
        self.model = model
        self.distribution = distribution
        self._state = tf.Variable(TrainingState().to_json(), dtype=tf.string, trainable=False)
        self._checkpoints = Checkpoints(
            folder.checkpoints,
            {
                "classifier": checkpointable(model.classifier),
                "optimizer": checkpointable(model.optimizer),
                "state": self._state,
            },
        )

    def restore(self) -> TrainingState | None:
        """Restores the newest complete checkpoint and returns its state; None if there is none.

        Raises:
            DamagedCheckpointsError: There are checkpoints, but none is complete.
            ConfigError: The checkpoint is of another model, or this worker does not see the
                chief's.
            WorkerLostError: Another worker ended.
        """
        prefix = newest_checkpoint(self.folder.checkpoints) if self.distribution.is_chief else None
        step = -1 if prefix is None else int(prefix.rpartition("-")[2])
        step = int(self.distribution.agree(step))
        if step < 0:
            return None
        prefix = checkpoint_prefix(self.folder.checkpoints, step)
        if not tf.io.gfile.exists(prefix + ".index"):
            raise ConfigError(
                f"--train_dir={self.folder.path} must be a folder that all workers share. The "
                f"chief goes on at {prefix}, which is not there on this one"
            )
        self._checkpoints.read(prefix)
        return TrainingState.from_json(self._state.numpy().decode())

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint, on the chief only.

        Raises:
            NonFiniteLossError: A weight is not finite.
            InUseError: The folder's lock was deleted, and another process trains there now.
        """
        if self.distribution.is_chief:
            check_weights(self.model.classifier, state.step)
            self.folder.put_back()
            self._state.assign(state.to_json())
            self._checkpoints.write(state.step)

    def save_best(self, step: int) -> None:
        """Writes the weights as the best ones, on the chief only; raises as `save` does."""
        if self.distribution.is_chief:
            check_weights(self.model.classifier, step)
            self.folder.put_back()
            save_weights(self.model.classifier, self.folder.best_weights, step)
