"""When and by which command something was made, for what is kept of it."""

import datetime
import os
import sys


def utc_now() -> str:
    """The time as ISO 8601 has it, to the second: `2026-01-31T12:00:00+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line() -> list[str]:
    """The arguments of this process, the script's name first; text whatever bytes they hold."""
    return [os.fsencode(argument).decode("utf-8", "backslashreplace") for argument in sys.argv]
