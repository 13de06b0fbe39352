"""Flags of the YouTube-8M starter code that mean something else, or nothing, here.

Standard library only. The scripts define these flags; docs/FLAGS.md lists all others.
"""

import sys
from collections.abc import Mapping
from typing import Any

_ONE_READER = (
    "files are read one after another, in their order, so that rows and figures repeat; TensorFlow "
    "chooses the threads."
)

# Script -> flag (all are integers) -> its replacement, as the rest of a warning.
REPLACED: dict[str, dict[str, str]] = {
    "train.py": {
        "num_gpu": (
            "--distribute=mirrored trains on all GPUs that CUDA_VISIBLE_DEVICES shows, and "
            "--batch_size is then that of all of them together."
        ),
        "export_model_steps": (
            "--train_dir always holds what inference.py needs; --checkpoint_steps says how often "
            "the state is saved, and --export_dir where a SavedModel is written at the end."
        ),
    },
    "eval.py": {"num_readers": _ONE_READER},
    "inference.py": {"num_readers": _ONE_READER},
}

# Its names of optimizers (those of TensorFlow 1) -> ours (those of Keras).
OPTIMIZERS: dict[str, str] = {
    "AdagradOptimizer": "Adagrad",
    "AdamOptimizer": "Adam",
    "GradientDescentOptimizer": "SGD",
    "RMSPropOptimizer": "RMSprop",
}


def warn_of_replaced(script: str, values: Mapping[str, Any], command: str) -> None:
    """Writes one line to stderr for each flag that is set and has no effect.

    Args:
        script: A key of `REPLACED`.
        values: Flag -> value; None if the user did not set it.
        command: Name of the command.
    """
    for flag, replacement in REPLACED[script].items():
        if values[flag] is not None:
            print(f"{command}: warning: --{flag} has no effect: {replacement}", file=sys.stderr)
