"""When and by which command a result was made, for the files that record it."""

import datetime
import os
import sys


def utc_now() -> str:
    """Returns the time in ISO 8601, to the second: `2026-01-31T12:00:00+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line() -> list[str]:
    """Returns this process's arguments as text, the script first; other bytes are escaped."""
    return [os.fsencode(argument).decode("utf-8", "backslashreplace") for argument in sys.argv]
