"""The user's own code, named `module:name` by a flag or by the configuration of a run.

Standard library only.
"""

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from yt8m_gat.config import ConfigError, RunConfig


class UntrustedCodeError(ConfigError):
    """A run names code that is not trusted; the message names the code and the remedy."""


def require_trust(config: RunConfig, trust_code: bool, where: str | os.PathLike) -> None:
    """Refuses a run that names code, unless the code is trusted.

    Args:
        config: The run, as read from a folder or an archive that anyone may have written.
        trust_code: Whether the user trusts the code.
        where: Where the configuration was read, for the error.

    Raises:
        UntrustedCodeError: It names code, and `trust_code` is False.
    """
    if config.code and not trust_code:
        raise UntrustedCodeError(
            f"{where} names code outside of yt8m_gat: loading it runs the code of "
            f"{' and of '.join(config.code)}. If you trust whoever wrote both, give --trust_code "
            "(in Python: trust_code=True)"
        )


def import_object(flag: str, path: str) -> Any:
    """Imports what `module:name` names, from the current folder too.

    The current folder comes first, as with `python -m`; `python -P` (or PYTHONSAFEPATH) leaves it
    out. The import runs the module's code: see `require_trust`.

    Args:
        flag: The flag, for the error.
        path: The import path.

    Raises:
        ConfigError: There is no such module, it cannot be imported, or it has no such name.
    """
    module_name, _, name = path.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The missing module may be one that the user's module imports.
        missing = error.name or module_name
        if not f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(f"--{flag}={path}: {module_name} needs {missing}: {error}") from error
        raise ConfigError(
            f"--{flag}={path}: there is no module {missing}. It must be importable from the "
            f"current folder, {folder}, or installed"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"--{flag}={path}: importing {module_name} failed: {described(error)}"
        ) from error
    if not hasattr(module, name):
        own = (n for n, v in vars(module).items() if getattr(v, "__module__", "") == module_name)
        raise ConfigError(
            f"--{flag}={path}: {_place_of(module)} has no {name}; it defines "
            f"{', '.join(sorted(own)) or 'nothing'}"
        )
    return getattr(module, name)


def _place_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or f"the package {module.__name__}"


def words_of(error: Exception) -> str:
    """Returns an error's message in one line; of an error in a layer, the part that is bold."""
    return " ".join(str(error).rpartition("\x1b[1m")[2].partition("\x1b[0m")[0].split())


def described(error: Exception, file: str | None = None) -> str:
    """Returns one line about an error in the user's code: its type, its message and its place.

    Args:
        error: The error.
        file: The user's file; the place is the last line of it in the traceback. None: the last
            line of the traceback.
    """
    words = words_of(error) or "no message"
    if isinstance(error, SyntaxError):  # Its message has the place.
        return f"{type(error).__name__}: {words}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if file is None or frame.filename == file]
    place = f" ({ours[-1].filename}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {words}{place}"
