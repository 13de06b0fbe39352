"""Ctrl-C while a command starts; a separate module because its imports are quick.

Each command calls `end_on_interrupt` before its other imports, which take seconds because of
TensorFlow: Python would print a traceback, and an interrupted import may raise any error.
"""

import os
import signal
import sys
from typing import NoReturn

CONSOLE = "yt8m-gat"
"""The command of the installed package; its first argument names a subcommand."""

EXIT_INTERRUPTED = 130
"""The exit code that shells report for a command that Ctrl-C ended."""


def command_name() -> str:
    """Returns the name of this command, for messages."""
    if is_console():
        return " ".join([CONSOLE, *sys.argv[1:2]])
    folder, name = os.path.split(sys.argv[0])
    return os.path.basename(folder) if name == "__main__.py" else name


def is_console() -> bool:
    """Returns whether this process is `yt8m-gat`, or `python -m yt8m_gat`."""
    folder, name = os.path.split(sys.argv[0])
    return name == CONSOLE or (name == "__main__.py" and os.path.basename(folder) == "yt8m_gat")


def end_at_once(stderr: int, why: str) -> NoReturn:
    """Writes one line to a file descriptor and ends the process.

    Temporary files stay, as after a kill; the next run removes them.
    """
    os.write(stderr, f"{command_name()}: {why}\n".encode(errors="backslashreplace"))
    os._exit(EXIT_INTERRUPTED)


def end_on_interrupt() -> None:
    """Makes Ctrl-C end the process at once, until `cli.run_command` begins the work.

    If Ctrl-C is ignored, as in the background of a shell, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        stderr = os.dup(2)  # Descriptor 2 is elsewhere while TensorFlow is imported.
        signal.signal(signal.SIGINT, lambda *_: end_at_once(stderr, "interrupted"))
