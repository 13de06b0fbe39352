"""Ctrl-C while a command starts; a module of its own because what it needs is there at once.

Each command calls `end_on_interrupt` before its other imports, which take seconds with TensorFlow
among them: Python would print a traceback, and an import that is interrupted may raise anything.
"""

import os
import signal
import sys
from typing import NoReturn

CONSOLE = "yt8m-gat"
"""The command of an installed package; its first word says which of its commands is meant."""

EXIT_INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C ended."""


def command_name() -> str:
    """How this process names itself in what it says."""
    if is_console():
        return " ".join([CONSOLE, *sys.argv[1:2]])
    folder, name = os.path.split(sys.argv[0])
    return os.path.basename(folder) if name == "__main__.py" else name


def is_console() -> bool:
    """Whether this process is `yt8m-gat`, or `python -m yt8m_gat`."""
    folder, name = os.path.split(sys.argv[0])
    return name == CONSOLE or (name == "__main__.py" and os.path.basename(folder) == "yt8m_gat")


def end_at_once(stderr: int, why: str) -> NoReturn:
    """Writes one line to a file descriptor and ends the process.

    What is being written aside stays there, as after a kill, for the next run to remove.
    """
    os.write(stderr, f"{command_name()}: {why}\n".encode(errors="backslashreplace"))
    os._exit(EXIT_INTERRUPTED)


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends the process at once, until `cli.run_command` begins the work.

    Nothing happens where Ctrl-C is ignored, as in the background of a shell.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        stderr = os.dup(2)  # Descriptor 2 is elsewhere while TensorFlow is imported.
        signal.signal(signal.SIGINT, lambda *_: end_at_once(stderr, "interrupted"))
