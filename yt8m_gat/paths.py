"""Checks and expands the paths that users pass in flags, before any work starts.

A shell expands `~` only at the start of a word, so not in `--train_dir=~/runs`; TensorFlow takes
`gs://bucket` for remote storage and Python takes it for a folder named `gs:`; TensorFlow reads
some characters of a name as a pattern. The rules for all of these are defined here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from yt8m_gat.config import ConfigError

PathReader = Callable[[str, str], str]
"""(name of the flag as users write it, its value) -> the path; may raise a `ConfigError`."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(path: str) -> bool:
    """Returns whether a path names its file system, as `gs://bucket/file` does."""
    return _SCHEME.match(path) is not None


def expanded(flag: str, path: str) -> str:
    """Returns the path with the home folder in place of a leading `~`.

    Raises:
        ConfigError: There is no such home folder, or the path is not text in UTF-8, which
            TensorFlow needs.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{flag} must be text in UTF-8. Received: {path!r}; rename the file or folder"
        ) from error
    full = os.path.expanduser(path)
    if full.startswith("~"):
        raise ConfigError(
            f"{flag}: a path that begins with ~ must name a home folder that exists. Received: "
            f"{path!r}; write ./~ for a name that begins so"
        )
    return full


def input_path(flag: str, path: str) -> str:
    """Returns the expanded path of a local file or folder to read.

    Raises:
        ConfigError: It is not local; or see `expanded`.
    """
    if is_remote(path):
        raise ConfigError(
            f"{flag} must be a local path. Received: {path!r}; copy it to this machine and name "
            "the copy"
        )
    return expanded(flag, path)


def output_path(flag: str, path: str) -> str:
    """Returns the expanded path of a local file or folder to write.

    Raises:
        ConfigError: It is not local; or see `expanded`.
    """
    if is_remote(path):
        raise ConfigError(
            f"{flag} must be a local path. Received: {path!r}; write to a local place and copy it "
            "from there"
        )
    return expanded(flag, path)


def require_own_files(
    outputs: Mapping[str, str | os.PathLike | None],
    inputs: Mapping[str | os.PathLike | None, str],
) -> None:
    """Refuses, before any work, outputs that cannot be files of their own.

    Args:
        outputs: Flag, as users write it -> the file that it names; None: none.
        inputs: File that is read -> what it is, for the message: `a video`. None as a file: none.

    Raises:
        ConfigError: An output has no name, or is a folder, an input or another output.
    """
    taken = {os.path.realpath(path): what for path, what in inputs.items() if path is not None}
    for flag, given in outputs.items():
        if given is None:
            continue
        path = os.fspath(given)
        what = "a folder" if os.path.isdir(path) else taken.get(os.path.realpath(path))
        if not path or what:
            raise ConfigError(
                f"{flag} must be a file of its own. Received: "
                + (f"{path!r}, {what}" if what else "an empty name")
            )
        taken[os.path.realpath(path)] = f"the {flag}"


def required(read: PathReader) -> PathReader:
    """Returns a reader that refuses an empty path, which would stand for the current folder.

    Args:
        read: The reader of all other paths.
    """

    def read_named(flag: str, path: str) -> str:
        if not path:
            raise ConfigError(
                f"{flag} must name a folder. Received: an empty name; write . for the current one"
            )
        return read(flag, path)

    return read_named


def saved_model_path(flag: str, path: str) -> str:
    r"""Returns the expanded path of a folder for SavedModels that TensorFlow can load.

    TensorFlow looks for the variables of a SavedModel by a pattern, and takes `[1]` and `\` in the
    names of folders for parts of it.

    Raises:
        ConfigError: TensorFlow could not load from there; or see `output_path`.
    """
    path = output_path(flag, path)
    if path and re.search(r"[\[\\]", os.path.abspath(path)):
        raise ConfigError(
            f"{flag} must have neither [ nor \\ in its full path: TensorFlow reads them as a "
            f"pattern and could not load the SavedModel. Received: {os.path.abspath(path)!r}; "
            "name another folder"
        )
    return path


def read_paths(
    values: Any, readers: Mapping[str, PathReader], positional: Collection[str] = ()
) -> None:
    """Replaces the paths among parsed flags by checked and expanded ones.

    Args:
        values: Parsed flags of absl or argparse; each path of a list is read by itself, and missing
            values are not changed, nor are empty ones that are not `required`.
        readers: Attribute of `values` -> its reader.
        positional: Attributes that users write without their name.

    Raises:
        ConfigError: See the readers.
    """
    for name, read in readers.items():
        value = getattr(values, name, None)
        shown = name if name in positional else f"--{name}"
        if isinstance(value, list):
            setattr(values, name, [read(shown, path) for path in value])
        elif value is not None:
            setattr(values, name, read(shown, value))
