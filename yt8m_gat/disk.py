"""Writing that cannot go on: the path, what the system said, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

_REMEDIES = {
    errno.ENOSPC: "free some space or name a place on another disk",
    errno.EDQUOT: "free some space, ask for a larger quota or name a place elsewhere",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) or name a place elsewhere",
    errno.EACCES: "change its permissions or name another place",
    errno.EPERM: "change its permissions or name another place",
    errno.EROFS: "name a place on a disk that can be written",
    errno.ENOTDIR: "a part of the path is a file: remove it or name another place",
    errno.EISDIR: "remove what is there or name another place",
    errno.EEXIST: "remove what is there or name another place",
    errno.ENOENT: "make its folder or name another place",
    errno.EIO: "check the disk, or name a place on another one",
}


class WriteError(OSError):
    """Something could not be written; names the path and the remedy."""


@contextlib.contextmanager
def writing(path: str | os.PathLike, *error_types: type[Exception]) -> Iterator[None]:
    """Gives errors of what is written inside the path and a remedy.

    Args:
        path: What is being written.
        *error_types: Errors besides `OSError` that a library reports the disk's by, in words.

    Raises:
        WriteError: In place of an `OSError`, and of an error of `error_types` that is the disk's.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, *error_types) as error:
        code = _code_of(error)
        if code is None and getattr(error, "errno", None) is None:
            raise  # Not the system's: it says already what it is about.
        what = os.strerror(code) if code is not None else str(error)
        remedy = _REMEDIES.get(code, "check the disk, or name another place")
        raise WriteError(
            f"{os.fspath(path)} cannot be written: {what}. Remedy: {remedy}, and run the same "
            "command again"
        ) from error


def _code_of(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REMEDIES else None
    # HDF5 and TensorFlow keep the system's words alone.
    text = str(error).lower()
    return next((code for code in _REMEDIES if os.strerror(code).lower() in text), None)
