"""The user's own Keras callbacks by import path, for example experiment trackers."""

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.import_path import import_object

_ARGUMENTS = ("config", "train_dir")


class ImportedCallbacks:
    """The functions that `--callbacks=module:function,...` names, imported now and called later.

    A tracker registers its run when it is called, so nothing is called before all settings are
    checked.

    Args:
        paths: Import paths of functions, or of callback classes.

    Raises:
        ConfigError: One cannot be imported or called, or needs an argument that is not passed.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        for path in paths:
            function = import_object("callbacks", path)
            if not callable(function):
                raise ConfigError(f"--callbacks={path} must be a function. Received: {function!r}")
            needed = [
                name
                for name, parameter in inspect.signature(function).parameters.items()
                if parameter.default is parameter.empty
                and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
                and name not in _ARGUMENTS
            ]
            if needed:
                raise ConfigError(
                    f"--callbacks={path} gets {' and '.join(_ARGUMENTS)} where it has arguments of "
                    f"these names. Received: one that also needs {', '.join(needed)}"
                )
            self._functions[path] = function

    def make(
        self, config: RunConfig, train_dir: str | os.PathLike
    ) -> list[keras.callbacks.Callback]:
        """Calls the functions in order, each with those of these arguments that it names.

        Args:
            config: The run.
            train_dir: Its folder.

        Raises:
            ConfigError: One returns something other than Keras callbacks.
        """
        values = dict(zip(_ARGUMENTS, (config, os.fspath(train_dir)), strict=True))
        callbacks: list[keras.callbacks.Callback] = []
        for path, function in self._functions.items():
            named = inspect.signature(function).parameters
            made = function(**{name: value for name, value in values.items() if name in named})
            of_path = list(made) if isinstance(made, list | tuple) else [made]
            for callback in of_path:
                if not isinstance(callback, keras.callbacks.Callback):
                    raise ConfigError(
                        f"--callbacks={path} must return a Keras callback, or a list of them. "
                        f"Received: {callback!r}"
                    )
            callbacks += of_path
        return callbacks
