"""Writing and taking up the checkpoints of a run."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing, writing
from yt8m_gat.models import checkpoint_prefix, checkpoint_steps, readable_prefix

KEPT = 3
"""Checkpoints that stay: the newest, and those to fall back on when it is damaged."""


class Checkpoints:
    """The checkpoints of one run, named after their steps; the newest `KEPT` stay.

    TensorFlow writes each under a temporary name and renames it, its index last.

    Args:
        folder: Where they lie.
        variables: Name -> variables, by which `yt8m_gat.models.checkpointable` and the readers of
            the run know them.
    """

    def __init__(self, folder: Path, variables: Mapping[str, Any]) -> None:
        self.folder = folder
        self._checkpoint = tf.train.Checkpoint(**variables)

    def write(self, step: int) -> None:
        """Writes the checkpoint of `step`, then removes old ones.

        Those of later steps go too: they are damaged, or of a run that went on from before them.

        Raises:
            WriteError: It could not be written; those that are there stay.
        """
        prefix = checkpoint_prefix(self.folder, step)
        with writing(self.folder, tf.errors.OpError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._checkpoint.write(prefix)
            earlier = [other for other in checkpoint_steps(self.folder) if other < step]
            kept = [*reversed(earlier[: KEPT - 1]), step]
            self._write_list([checkpoint_prefix("", other) for other in kept])
            for other in set(checkpoint_steps(self.folder)) - set(kept):
                for path in self.folder.glob(f"ckpt-{other}.*"):
                    path.unlink(missing_ok=True)
            for path in self.folder.glob("ckpt-*_temp"):  # Of a run that was killed writing it.
                shutil.rmtree(path, ignore_errors=True)

    def _write_list(self, names: Sequence[str]) -> None:
        """What `tf.train.latest_checkpoint` reads; our own readers go by the files' names."""
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        with replacing(self.folder / "checkpoint") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def read(self, prefix: str) -> None:
        """Gives the variables the values of a checkpoint that is whole.

        Raises:
            ConfigError: It is not one of these variables.
        """
        try:
            with readable_prefix(prefix) as path:
                status = self._checkpoint.read(path)
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise ConfigError(
                f"{prefix} is no checkpoint of this model and optimizer ({error}); give the "
                "settings that it was trained with, another --train_dir, or --start_new_model"
            ) from error
