"""The checkpoints of a run: writing them, listing them, and finding damaged ones."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing, writing
from yt8m_gat.models import VideoClassifier
from yt8m_gat.weights.files import checkpoint_prefix, checkpoint_steps

KEPT = 3
"""The number of checkpoints to keep: the newest, and others to fall back on if it is damaged."""


def checkpointable(owner: VideoClassifier | keras.optimizers.Optimizer) -> list[tf.Variable]:
    """Returns everything that a checkpoint must hold of `owner`, for `tf.train.Checkpoint`.

    These are the plain variables in their order: given a Keras 3 model, `tf.train.Checkpoint`
    ignores layers that are kept in lists and silently restores nothing.
    """
    return [variable.value for variable in owner.variables]


class DamagedCheckpointsError(ConfigError):
    """A folder holds checkpoints, but none can be read."""


@contextlib.contextmanager
def readable_prefix(prefix: str) -> Iterator[str]:
    r"""Yields a path by which TensorFlow can read a checkpoint in a folder of any name.

    TensorFlow uses `PREFIX.index` as a glob pattern, which fails for `run[1]/ckpt-5` and
    `a\b/ckpt-5`. On Linux an open folder also has a path without such characters.
    """
    if not re.search(r"[\[\\*?]", prefix):
        yield prefix
        return
    folder, name = os.path.split(prefix)
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def checkpoint_fault(prefix: str) -> str | None:
    """Returns what is wrong with a checkpoint; None if it is intact.

    Reads all of it: TensorFlow stores a checksum of each block of the index and of each tensor,
    and verifies it on reading. Restoring the checkpoint afterwards cannot fail half-way.
    """
    if not os.path.exists(prefix + ".index"):
        return "its .index file is missing"
    try:
        with readable_prefix(prefix) as path:
            reader = tf.train.load_checkpoint(path)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
    # The reader raises errors of several unrelated classes.
    except (tf.errors.OpError, RuntimeError, ValueError, TypeError, IndexError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def newest_checkpoint(folder: str | os.PathLike) -> str | None:
    """Returns the newest intact checkpoint, as TensorFlow's prefix; None if there is none at all.

    Skips newer ones that are damaged, with a warning that names them. If a run in training removes
    or adds one in the meantime, the search starts again.

    Raises:
        DamagedCheckpointsError: There are checkpoints, but all are damaged.
    """
    faults: dict[str, str] | None = None
    while faults is None:
        steps, faults = checkpoint_steps(folder), {}
        for step in steps:
            prefix = checkpoint_prefix(folder, step)
            fault = checkpoint_fault(prefix)
            if fault is None:
                for damaged, reason in faults.items():
                    logging.warning(
                        "%s is damaged (%s); the one before it is used, %s", damaged, reason, prefix
                    )
                return prefix
            if checkpoint_steps(folder) != steps:
                faults = None
                break
            faults[prefix] = fault
    if faults:
        listed = "".join(f"\n  {Path(prefix).name}: {fault}" for prefix, fault in faults.items())
        raise DamagedCheckpointsError(
            f"{folder} holds no checkpoint that can be read:{listed}\nPut back a copy of one, or "
            "start a new training with --start_new_model"
        )
    return None


class Checkpoints:
    """The checkpoints of one run, named after their steps; the newest `KEPT` are kept.

    TensorFlow writes each under a temporary name and renames its files, the index last.

    Args:
        folder: Their folder.
        variables: Name -> variables (see `checkpointable`); readers use the same names.
    """

    def __init__(self, folder: Path, variables: Mapping[str, Any]) -> None:
        self.folder = folder
        self._checkpoint = tf.train.Checkpoint(**variables)

    def write(self, step: int) -> None:
        """Writes the checkpoint of `step`, then removes old ones.

        Also removes those of later steps: they are damaged, or were left by a run that was resumed
        from an earlier step.

        Raises:
            WriteError: It could not be written; the existing checkpoints stay.
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
            for path in self.folder.glob("ckpt-*_temp"):  # Left by a run killed while writing.
                shutil.rmtree(path, ignore_errors=True)

    def _write_list(self, names: Sequence[str]) -> None:
        """Writes the list for `tf.train.latest_checkpoint`; this package uses the file names."""
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        with replacing(self.folder / "checkpoint") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def read(self, prefix: str) -> None:
        """Restores the variables from an intact checkpoint.

        Raises:
            ConfigError: The checkpoint is not of these variables.
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
