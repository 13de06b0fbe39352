"""Ensures one writer to an output, by locks of the operating system that end with their process.

The lock is on a separate file, `.NAME.lock` beside an output file and `.lock` inside a folder. The
file names the holder, which removes it at the end. One that a killed process left does no harm: the
system has released its lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import glob
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from yt8m_gat.disk import WriteError, remove_unfinished, writing
from yt8m_gat.interrupt import command_name

LOCK_FILE = ".lock"
"""Name of the lock of a folder, inside it."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_HOLDER_BYTES = 4096
# How long a new holder may take to write its name into the file that it has just locked.
_HOLDER_SECONDS = 0.5
_ATTEMPTS = 10
_TEMPORARY = "yt8m_gat-"


class InUseError(WriteError):
    """Another process is writing there; the message names the path and the holder."""


@dataclasses.dataclass
class _Lock:
    """A lock that this process holds.

    Attributes:
        file: Its file.
        path: The output that it protects, as the user wrote it.
        thread: The thread that holds it, and that may enter it again.
        descriptor: Descriptor of the locked file; None if the file system has no locks.
        made: Folders that were created for it, the outermost first.
        depth: How often it was entered.
    """

    file: Path
    path: str
    thread: int
    descriptor: int | None = None
    made: list[Path] = dataclasses.field(default_factory=list)
    depth: int = 0

    def is_there(self) -> bool:
        """Returns whether the lock file still exists, so that other processes find the lock."""
        if self.descriptor is None:
            return True
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.lstat(self.file))
        except FileNotFoundError:
            return False

    def take(self) -> None:
        """Takes the lock.

        Raises:
            InUseError: Another process holds it.
            WriteError: Its file cannot be created.
        """
        while True:
            # The error names the lock file if that exists, else the output.
            with writing(self.file if os.path.lexists(self.file) else self.path):
                descriptor = os.open(
                    self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
                )
            try:
                if not filelock.lock_descriptor(descriptor, blocking=False):
                    raise _in_use(self.path, descriptor)
                self.descriptor = descriptor
                # Its holder may have removed the file since it was opened here.
                if self.is_there():
                    with writing(self.path):
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, json.dumps(_this_process()).encode(), 0)
                    return
                self.descriptor = None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                print(
                    f"{self.path}: the disk has no locks ({error.strerror}): see to it that no "
                    "second process writes there",
                    file=sys.stderr,
                )
                self.file.unlink(missing_ok=True)
                return
            finally:
                if self.descriptor is None:
                    os.close(descriptor)

    def release(self) -> None:
        """Removes the file, and only then releases the lock."""
        if self.descriptor is not None:
            # A file that cannot be removed does no harm.
            with contextlib.suppress(OSError):
                if self.is_there():
                    self.file.unlink()
            os.close(self.descriptor)
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):  # It holds something by now.
                folder.rmdir()


_held: dict[str, _Lock] = {}
_registry = threading.Lock()


def _forget() -> None:
    """Drops the parent's locks in a forked child, which must not keep them when the parent ends."""
    global _registry
    _registry = threading.Lock()
    for lock in _held.values():
        if lock.descriptor is not None:
            os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def only_writer(path: str | os.PathLike | None, make_folder: bool = False) -> Iterator[None]:
    """Holds the lock of an output file, or of a folder that is replaced as a whole.

    Unfinished files of a killed process are removed. A thread that holds the lock may enter it
    again.

    Args:
        path: The output, which need not exist; None: there is none, and nothing to lock.
        make_folder: Create its folder if needed, and remove the folder if it stays empty.

    Raises:
        InUseError: Another process holds it.
        WriteError: Its folder does not exist or cannot be written.
    """
    if path is None:
        yield
        return
    real = Path(os.path.realpath(path))
    with _holding(_beside(real), path, make_folder) as lock:
        if lock.depth == 1:  # Else it may be this thread's own.
            remove_unfinished(real.parent, glob.escape(real.name))
        yield


@contextlib.contextmanager
def only_writer_in(folder: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of an output folder, created if needed, and removed if it stays empty.

    A thread that holds it may enter it again.

    Raises:
        InUseError: Another process holds it.
        WriteError: The folder cannot be created or written.
    """
    with _holding(Path(os.path.realpath(folder), LOCK_FILE), folder, make_folder=True):
        yield


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a folder that is removed at the end; also removes those that killed processes left."""
    place = Path(os.path.realpath(tempfile.gettempdir()))
    for left in place.glob(f"{_TEMPORARY}*"):
        # It may belong to another user, or be in use.
        with contextlib.suppress(OSError):
            if left.lstat().st_uid == os.geteuid() and not left.is_symlink():
                with _holding(_beside(left), left, make_folder=False) as lock:
                    if lock.descriptor is not None:
                        shutil.rmtree(left)
    folder = place / f"{_TEMPORARY}{secrets.token_hex(8)}"
    with only_writer(folder):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def renew(folder: str | os.PathLike) -> None:
    """Takes the lock of a folder again if this thread holds it and its file was deleted.

    Raises:
        InUseError: Another process has taken it meanwhile.
    """
    lock = _held.get(os.path.join(os.path.realpath(folder), LOCK_FILE))
    if lock is None or lock.is_there():
        return
    lost = lock.descriptor
    with writing(lock.path):
        lock.file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.descriptor = None
        lock.take()
    finally:
        os.close(lost)


@contextlib.contextmanager
def _holding(file: Path, path: str | os.PathLike, make_folder: bool) -> Iterator[_Lock]:
    key, thread = str(file), threading.get_ident()
    with _registry:
        lock = _held.get(key)
        # The system refuses another thread just as it refuses another process.
        if lock is None or lock.thread != thread:
            lock = _Lock(file, os.fspath(path), thread)
            _take(lock, make_folder)
            _held[key] = lock
        lock.depth += 1
    try:
        yield lock
    finally:
        with _registry:
            lock.depth -= 1
            if lock.depth == 0 and _held.get(key) is lock:
                del _held[key]
                lock.release()


def _take(lock: _Lock, make_folder: bool) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            if make_folder:
                with writing(lock.path):
                    lock.made += _make_folder(lock.file.parent)
            lock.take()
            return
        except WriteError as error:
            # Another process may just have removed the folder, because it stayed empty.
            gone = make_folder and isinstance(error.__cause__, FileNotFoundError)
            if not gone or attempt == _ATTEMPTS - 1:
                lock.release()
                raise


def _beside(path: Path) -> Path:
    """Returns the lock file of an output that is replaced as a whole."""
    return path.with_name(f".{path.name}{LOCK_FILE}")


def _make_folder(folder: Path) -> list[Path]:
    """Creates a folder; returns those that did not exist, the outermost first."""
    missing = []
    for place in (folder, *folder.parents):
        if place.exists():
            break
        missing.append(place)
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _this_process() -> dict[str, str | int]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": command_name(),
    }


def _in_use(path: str, descriptor: int) -> InUseError:
    return InUseError(
        f"{path} is being written by {_holder(descriptor)}: two writers would mix their results. "
        "Remedy: wait for it, end it, or name another place"
    )


def _holder(descriptor: int) -> str:
    """Returns the holder that a locked file names."""
    deadline = time.monotonic() + _HOLDER_SECONDS
    while time.monotonic() < deadline:
        try:
            holder = json.loads(os.pread(descriptor, _HOLDER_BYTES, 0))
            # Anyone who may write to that folder may write to this file.
            process, host, since, command = (
                "".join(filter(str.isprintable, str(holder[name])))[:100]
                for name in ("process", "host", "since", "command")
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            time.sleep(0.02)
        else:
            return f"process {process} on {host} since {since} ({command})"
    return "another process"
