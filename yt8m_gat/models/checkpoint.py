"""The checkpoints of a run: which there are, and which of them can be trusted."""

import os
import re
from pathlib import Path

import tensorflow as tf
from absl import logging

from yt8m_gat.config import ConfigError

_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d{5}-of-\d{5})")


class DamagedCheckpointsError(ConfigError):
    """A folder holds checkpoints and none can be read."""


def checkpoint_prefix(folder: str | os.PathLike, step: int) -> str:
    """What the files of the checkpoint of `step` begin with."""
    return os.path.join(folder, f"ckpt-{step}")


def checkpoint_steps(folder: str | os.PathLike) -> list[int]:
    """Steps of the checkpoints in a folder, whole or not, the newest first.

    Read from the names of the files: TensorFlow's own list, the file `checkpoint`, is one more
    thing that can be damaged.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({int(match[1]) for name in names if (match := _FILE.fullmatch(name))})[::-1]


def checkpoint_fault(prefix: str) -> str | None:
    """What is wrong with a checkpoint; None for one of which every byte that counts is good.

    All of it is read: TensorFlow keeps a checksum of each block of the index and of each tensor,
    and looks at them when they are read. Restoring it afterwards cannot fail half-way.
    """
    if not os.path.exists(prefix + ".index"):
        return "its .index file is missing"
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # The reader has its errors in several families.
    except (tf.errors.OpError, RuntimeError, ValueError, TypeError, IndexError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def newest_checkpoint(folder: str | os.PathLike) -> str | None:
    """The newest checkpoint that is whole, as TensorFlow's prefix; None where there is none at all.

    Newer ones that are damaged are passed over with a warning that names them.

    Raises:
        DamagedCheckpointsError: There are some, and all are damaged.
    """
    faults = {}
    for step in checkpoint_steps(folder):
        prefix = checkpoint_prefix(folder, step)
        fault = checkpoint_fault(prefix)
        if fault is None:
            for damaged, reason in faults.items():
                logging.warning(
                    "%s is damaged (%s); the one before it is used, %s", damaged, reason, prefix
                )
            return prefix
        faults[prefix] = fault
    if faults:
        listed = "".join(f"\n  {Path(prefix).name}: {fault}" for prefix, fault in faults.items())
        raise DamagedCheckpointsError(
            f"{folder} holds no checkpoint that can be read:{listed}\nPut back a copy of one, or "
            "train anew with --start_new_model"
        )
    return None
