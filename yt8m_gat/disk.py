"""How files are written: whole or not at all, and with an error that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

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

_UNFINISHED = ".unfinished"
"""What the names of files end with that are being written, and stay so when a process is killed."""


class WriteError(OSError):
    """Something could not be written; names the path and the remedy."""


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, *error_types: type[Exception], alone: Path | None = None
) -> Iterator[None]:
    """Gives errors of what is written inside the path and a remedy.

    Args:
        path: What is being written.
        *error_types: Errors besides `OSError` that a library reports the disk's by, in words.
        alone: Errors that name a file which is neither this one nor inside it stay what they are.

    Raises:
        WriteError: In place of an `OSError`, and of an error of `error_types` that is the disk's.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, *error_types) as error:
        named = getattr(error, "filename", None)
        is_named = alone is not None and isinstance(named, str | bytes | os.PathLike)
        if is_named and not Path(os.fsdecode(named)).is_relative_to(alone):
            raise  # Of what is read for it, say.
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


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike, *error_types: type[Exception], ending: str = ""
) -> Iterator[Path]:
    """Writes a file, or a new folder, all of it or nothing.

    The block writes to the path that it gets, `.NAME.unfinished` beside `path`. When the block ends
    without an error, what it wrote reaches the disk and takes the name; otherwise it is removed,
    and what was at `path` stays. What a killed process left under that name is removed first, so
    two processes must not write one path at a time (`yt8m_gat.locks`).

    Args:
        path: The file, created or replaced, or the folder, created. A link is followed: the file
            that it names is replaced, not the link.
        *error_types: See `writing`.
        ending: What the temporary name must end with, for libraries that look at it.

    Raises:
        WriteError: It could not be written.
    """
    target = Path(os.path.realpath(path))
    temporary = unfinished_path(target, ending)
    with writing(path, *error_types, alone=temporary):
        try:
            _remove(temporary)
            yield temporary
            put_in_place(temporary, target)
        finally:
            _remove(temporary)


def unfinished_path(target: Path, ending: str = "") -> Path:
    """Where a file is written that is to be put in place as `target`."""
    return target.with_name(f".{target.name}{_UNFINISHED}{ending}")


def put_in_place(temporary: Path, path: Path) -> None:
    """Gives what was written as `temporary` the name `path`, once all of it is on the disk."""
    files = [temporary]
    if temporary.is_dir():
        files = [Path(place, name) for place, _, names in os.walk(temporary) for name in names]
    for file in files:
        _sync(file)
    temporary.replace(path)
    with contextlib.suppress(OSError):  # Some file systems do not sync folders.
        _sync(path.parent)


def remove_unfinished(folder: str | os.PathLike, *names: str) -> None:
    """Removes what killed processes left of `replacing`, of files that nobody else writes now.

    Args:
        folder: Where they lie.
        *names: Of the files that were being written, as patterns of `glob`.
    """
    for name in names:
        for path in Path(folder).glob(f".{name}{_UNFINISHED}*"):
            _remove(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
