"""The checkpoints of a run: which there are, and which of them can be trusted."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from absl import logging

from yt8m_gat.config import ConfigError
from yt8m_gat.run_folder import checkpoint_prefix, checkpoint_steps


class DamagedCheckpointsError(ConfigError):
    """A folder holds checkpoints and none can be read."""


@contextlib.contextmanager
def readable_prefix(prefix: str) -> Iterator[str]:
    r"""The path by which TensorFlow can read a checkpoint, whatever the names of its folders.

    TensorFlow looks for `PREFIX.index` by a pattern, which `run[1]/ckpt-5` and `a\b/ckpt-5` do not
    match. Linux gives an open folder a name without such characters.
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
    """What is wrong with a checkpoint; None for one of which every byte that counts is good.

    All of it is read: TensorFlow keeps a checksum of each block of the index and of each tensor,
    and looks at them when they are read. Restoring it afterwards cannot fail half-way.
    """
    if not os.path.exists(prefix + ".index"):
        return "its .index file is missing"
    try:
        with readable_prefix(prefix) as path:
            reader = tf.train.load_checkpoint(path)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
    # The reader has its errors in several families.
    except (tf.errors.OpError, RuntimeError, ValueError, TypeError, IndexError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def newest_checkpoint(folder: str | os.PathLike) -> str | None:
    """The newest checkpoint that is whole, as TensorFlow's prefix; None where there is none at all.

    Newer ones that are damaged are passed over with a warning that names them. Where one is removed
    or added meanwhile, by a run that is being trained, all are looked for again.

    Raises:
        DamagedCheckpointsError: There are some, and all are damaged.
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
            "train anew with --start_new_model"
        )
    return None
