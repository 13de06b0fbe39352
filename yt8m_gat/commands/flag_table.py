"""Tables of a command's flags, which define them, read them and make the text of `--help`."""

import dataclasses
import os
import tempfile
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from yt8m_gat.cli import comma_separated, integers, numbers
from yt8m_gat.paths import PathReader
from yt8m_gat.starter_flags import REPLACED

DEFAULT_RUN = os.path.join(tempfile.gettempdir(), "yt8m_model")
"""The starter code's `--train_dir`."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: Its name, without dashes.
        help: What it does: a phrase that ends with a full stop.
        kind: `str`, `int`, `float` or `bool`; `tuple[T, ...]` are values separated by commas.
        default: The value without the flag.
        choices: The valid values; shown by `--help`.
        least: The least value of a number.
        most: The greatest one.
        path: Reader of the path that it names; None: it is no path.
        unset: What holds without the flag, in words, if that is not a single value.
        config: The class with a field of this name, which has the kind and the default. If it
            checks its fields itself (`__post_init__`), the flag leaves the choices to it.
    """

    name: str
    help: str
    kind: Any = str
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    path: PathReader | None = None
    unset: str = ""
    config: type | None = None

    @property
    def text(self) -> str:
        """The help text with the choices."""
        return f"{self.help[:-1]}: {', '.join(self.choices)}." if self.choices else self.help

    @property
    def rule(self) -> str:
        """What a value must be, for error messages: `a whole number of at least 1`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        rule = {int: "a whole number", float: "a number", bool: "true or false"}[self.kind]
        if self.most is not None:
            return f"{rule} in [{self.least:g}, {self.most:g}]"
        return rule if self.least is None else f"{rule} of at least {self.least:g}"


Sections = Mapping[str, Sequence[Flag]]
"""Title of a section of `--help` -> its flags."""


def field(config: type, name: str, help: str, **more: Any) -> Flag:
    """Returns the flag that sets a field of a configuration class.

    Args:
        config: The class; its field has the kind and the default.
        name: The name of both the field and the flag.
        help: See `Flag`.
        **more: Further attributes of `Flag`.
    """
    [default] = [f.default for f in dataclasses.fields(config) if f.name == name]
    kind = _kind(typing.get_type_hints(config)[name])
    return Flag(name, help, kind, default, config=config, **more)


def _kind(hint: Any) -> Any:
    """Returns the kind of flag for the type annotation of a field."""
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (tuple, Sequence):
        return tuple[typing.get_args(hint)[0], ...]
    return hint


def without_effect(script: str) -> tuple[Flag, ...]:
    """Returns the starter code's flags that a script accepts but does not use."""
    return tuple(
        Flag(name, f"No effect: {replacement}", int)
        for name, replacement in REPLACED[script].items()
    )


def all_flags(sections: Sections) -> list[Flag]:
    """Returns the flags of all sections, in order."""
    return [flag for section in sections.values() for flag in section]


def path_readers(sections: Sections) -> dict[str, PathReader]:
    """Returns flag -> reader of the path that it names."""
    return {flag.name: flag.path for flag in all_flags(sections) if flag.path is not None}


def define(sections: Sections, values: flags.FlagValues) -> None:
    """Defines the flags on `values`; one that sets a field is None unless it is set."""
    for flag in all_flags(sections):
        default = None if flag.config is not None else flag.default
        arguments = (flag.name, default, flag.text)
        if flag.kind is bool:
            flags.DEFINE_boolean(*arguments, flag_values=values)
        elif flag.kind is int:
            flags.DEFINE_integer(*arguments, flag.least, flag.most, flag_values=values)
        elif flag.kind is float:
            flags.DEFINE_float(*arguments, flag.least, flag.most, flag_values=values)
        elif flag.choices and not hasattr(flag.config, "__post_init__"):
            flags.DEFINE_enum(flag.name, default, flag.choices, flag.text, flag_values=values)
        else:
            flags.DEFINE_string(*arguments, flag_values=values)


def given(values: flags.FlagValues, chosen: Iterable[Flag]) -> dict[str, Any]:
    """Returns the values of those `chosen` flags that the command line sets, lists as tuples.

    Raises:
        ConfigError: Something in a list of numbers is not a number.
    """
    values_by_name = {}
    for flag in chosen:
        value = values[flag.name].value
        if value is None:
            continue
        if typing.get_origin(flag.kind) is tuple:
            item = typing.get_args(flag.kind)[0]
            if item is int:
                value = integers(flag.name, value)
            else:
                value = numbers(flag.name, value) if item is float else comma_separated(value)
        values_by_name[flag.name] = value
    return values_by_name
