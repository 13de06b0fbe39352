"""Writes files completely or not at all, with errors that name the remedy."""

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
"""Suffix of a file while it is being written; a killed process leaves such files."""


class WriteError(OSError):
    """A path that could not be written; the message names the path and the remedy."""


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, *error_types: type[Exception], only_in: Path | None = None
) -> Iterator[None]:
    """Adds the path and a remedy to errors of writing inside the block.

    Args:
        path: The path that is being written.
        *error_types: Errors other than `OSError` in which a library reports an error of the disk.
        only_in: Errors that name a file other than this one or one inside it are not changed.

    Raises:
        WriteError: In place of an `OSError`, and of an error of `error_types` from the disk.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, *error_types) as error:
        named = getattr(error, "filename", None)
        is_named = only_in is not None and isinstance(named, str | bytes | os.PathLike)
        if is_named and not Path(os.fsdecode(named)).is_relative_to(only_in):
            raise  # It may be about a file that is read.
        code = _code_of(error)
        if code is None and getattr(error, "errno", None) is None:
            raise  # Not an error of the system: its message is complete.
        reason = os.strerror(code) if code is not None else str(error)
        remedy = _REMEDIES.get(code, "check the disk, or name another place")
        raise WriteError(
            f"{os.fspath(path)} cannot be written: {reason}. Remedy: {remedy}, and run the same "
            "command again"
        ) from error


def _code_of(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REMEDIES else None
    # HDF5 and TensorFlow keep only the text of the system's error.
    text = str(error).lower()
    return next((code for code in _REMEDIES if os.strerror(code).lower() in text), None)


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike, *error_types: type[Exception], ending: str = ""
) -> Iterator[Path]:
    """Writes a file or a new folder completely or not at all.

    The block writes to the temporary path that it gets, `.NAME.unfinished` beside `path`. If the
    block ends without an error, that is synced to the disk and renamed to `path`; otherwise it is
    removed, and `path` stays as it was. Leftovers of a killed process under the temporary name are
    removed first, so two processes must not write one path at a time (`yt8m_gat.locks`).

    Args:
        path: The file, created or replaced, or the folder, created. A link is followed: the file
            that it names is replaced, not the link.
        *error_types: See `writing`.
        ending: Ending of the temporary name, for libraries that require one.

    Raises:
        WriteError: It could not be written.
    """
    target = Path(os.path.realpath(path))
    temporary = unfinished_path(target, ending)
    with writing(path, *error_types, only_in=temporary):
        try:
            _remove(temporary)
            yield temporary
            put_in_place(temporary, target)
        finally:
            _remove(temporary)


def unfinished_path(target: Path, ending: str = "") -> Path:
    """Returns the temporary path under which `target` is written."""
    return target.with_name(f".{target.name}{_UNFINISHED}{ending}")


def put_in_place(temporary: Path, path: Path) -> None:
    """Syncs `temporary` to the disk, then renames it to `path`."""
    files = [temporary]
    if temporary.is_dir():
        files = [Path(place, name) for place, _, names in os.walk(temporary) for name in names]
    for file in files:
        _sync(file)
    temporary.replace(path)
    with contextlib.suppress(OSError):  # Some file systems do not sync folders.
        _sync(path.parent)


def remove_unfinished(folder: str | os.PathLike, *names: str) -> None:
    """Removes temporary files that killed processes left; nobody may be writing them now.

    Args:
        folder: The folder that holds them.
        *names: Names of the files that were being written, as patterns of `glob`.
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
