"""The files that a run has used, and what happens when it is resumed with others."""

import dataclasses
from collections.abc import Sequence

from absl import logging

from yt8m_gat.config import ConfigError
from yt8m_gat.data.identity import file_changes, identify_files
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.state import TrainingState


class RunFiles:
    """Records a run's files in its state, and compares them with those of a state.

    Args:
        files: Training files.
        eval_files: Validation files; may be empty.
        folder: The run folder, which messages name.
        distribution: The replicas that train; the chief decides for all.
    """

    def __init__(
        self,
        files: Sequence[str],
        eval_files: Sequence[str],
        folder: RunFolder,
        distribution: Distribution,
    ) -> None:
        self.files = list(files)
        self.eval_files = list(eval_files)
        self.folder = folder
        self.distribution = distribution

    def record(self, state: TrainingState) -> None:
        """Records the files in the state; without validation, its earlier files stay recorded."""
        state.train_files = identify_files(self.files)
        if self.eval_files:
            state.eval_files = identify_files(self.eval_files)

    def compare(self, state: TrainingState, accept_new_data: bool) -> None:
        """Rejects other files than those of the state, or begins a fresh epoch with them.

        Args:
            state: The state of a checkpoint; these files are recorded in it.
            accept_new_data: See `Trainer.restore`.

        Raises:
            ConfigError: There are other files, which are not accepted.
        """
        before = dataclasses.replace(state)
        self.record(state)
        changes = {
            "train_data_pattern": file_changes(before.train_files, state.train_files),
            "eval_data_pattern": file_changes(before.eval_files, state.eval_files),
        }
        # The chief decides, also for a worker that sees other files than it does.
        new = {flag: self.distribution.agree(float(bool(changes[flag]))) for flag in changes}
        named = [
            f"--{flag} names other files than the run in {self.folder.path} has used: "
            f"{changes[flag] or 'the chief sees others'}"
            for flag in changes
            if new[flag]
        ]
        if named and not accept_new_data:
            raise ConfigError(
                f"{'. '.join(named)}. Name the same files, wherever they lie now; or go on with "
                "these with --accept_new_data: in a fresh epoch, and, if they are for validation, "
                "with the best GAP so far forgotten"
            )
        if new["train_data_pattern"] and state.batch:
            state.epoch += 1
            state.batch = 0
            named.append(f"epoch {state.epoch} begins with these files")
        if new["eval_data_pattern"] and state.best_gap is not None:
            named.append(
                f"the best GAP, {state.best_gap:.4f} at step {state.best_step}, was of other files "
                f"and is forgotten; {self.folder.best_weights} stays until the next validation"
            )
            state.forget_best()
        if before.train_files is None:
            named.append(
                "the run, of an older version, does not say which files it has used: nobody can "
                "tell whether these are the same"
            )
        if named and self.distribution.is_chief:
            logging.warning("%s.", "; ".join(named))
