"""Command lines of absl flags: parsing, `--help`, and one-line errors."""

import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags

from yt8m_gat.cli import EXIT_ERROR, refuse_arguments
from yt8m_gat.commands.flag_table import Flag, Sections, all_flags, define
from yt8m_gat.config import ConfigError
from yt8m_gat.interrupt import command_name
from yt8m_gat.near_miss import unknown_flag
from yt8m_gat.untrusted import print_error

_HELP = {"--help", "-help", "-h", "--helpfull", "--helpshort", "-?"}
_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT"}

Defaults = Callable[[flags.FlagValues], tuple[str, Callable[[Flag], str]]]
"""Takes the parsed flags. Returns a sentence that says whose defaults `--help` shows, and a
function from a flag to the remark on its default."""


def parse(
    sections: Sections,
    argv: Sequence[str],
    description: str,
    defaults: Defaults | None = None,
    from_run: Collection[str] = (),
) -> flags.FlagValues:
    """Parses a command line; `--help` and a flag that does not parse end the process.

    Args:
        sections: The flags of the command.
        argv: The words after the command's name.
        description: What the command does, for `--help`.
        defaults: See `Defaults`; None: each flag's default is the one in the table.
        from_run: Flags of train that this command reads from the run folder instead.
    """
    values = flags.FlagValues()
    define(sections, values)
    asks_help = bool(_HELP & set(argv))
    try:
        rest = values([command_name(), *(word for word in argv if word not in _HELP)])
        refuse_arguments(rest[1:])
        if asks_help:
            print(_help(sections, description, *(defaults or _defaults_of_table)(values)))
            sys.exit()
        return values
    except flags.UnrecognizedFlagError as error:
        message = unknown_flag(error.flagname, values)
        if error.flagname in from_run:
            message = f"--{error.flagname} is a flag of train; here the run folder sets it"
    except flags.IllegalFlagValueError as error:
        message = _wrong_value(sections, argv) or str(error)
    except (flags.Error, ConfigError) as error:
        message = str(error)
    print_error(command_name(), message)
    sys.exit(EXIT_ERROR)


def _wrong_value(sections: Sections, argv: Sequence[str]) -> str | None:
    """Returns the message for a value that breaks its flag's rule, or None."""
    for flag in all_flags(sections):
        only_flag = flags.FlagValues()
        define({"": [flag]}, only_flag)
        for index, word in enumerate(argv):
            name, equals, value = word.lstrip("-").partition("=")
            if name != flag.name or not word.startswith("-"):
                continue
            words = [word] if equals or flag.kind is bool else [word, *argv[index + 1 : index + 2]]
            try:
                only_flag(["", *words])
            except flags.IllegalFlagValueError:
                received = value if equals else words[-1]
                return f"--{flag.name} must be {flag.rule}. Received: {received!r}"
    return None


def shown(value: Any) -> str:
    """Returns a default as users write it, or an empty string if there is none."""
    if value is None or value == "" or value == ():
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_remark(flag: Flag, value: Any) -> str:
    """Returns the remark on a default, such as `default: 8`; empty if there is none."""
    text = shown(value) or flag.unset
    return f"default: {text}" if text else ""


def _defaults_of_table(values: flags.FlagValues) -> tuple[str, Callable[[Flag], str]]:
    del values
    return "", lambda flag: default_remark(flag, flag.default)


def _spelled(flag: Flag) -> str:
    if flag.kind is bool:
        return f"--[no]{flag.name}"
    if flag.path is not None:
        return f"--{flag.name}=PATH"
    if typing.get_origin(flag.kind) is tuple:
        item = _PLACEHOLDERS[typing.get_args(flag.kind)[0]]
        return f"--{flag.name}={item},..."
    return f"--{flag.name}={_PLACEHOLDERS[flag.kind]}"


def _help(sections: Sections, description: str, whose: str, default: Callable[[Flag], str]) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    lines = [f"usage: {command_name()} [flags]", "", description.strip()]
    if whose:
        lines += ["", textwrap.fill(whose, width)]
    for title, section in sections.items():
        lines += ["", f"{title}:"]
        for flag in section:
            remark = default(flag)
            text = f"{flag.text} ({remark})" if remark else flag.text
            body = textwrap.wrap(text, width - 8, break_on_hyphens=False)
            lines += [f"  {_spelled(flag)}", *(f"        {line}" for line in body)]
    return "\n".join(lines)
