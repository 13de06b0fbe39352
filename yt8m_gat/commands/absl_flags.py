"""Command lines of absl flags: parsing, help, and errors of one line."""

import sys
from collections.abc import Callable, Sequence

from absl import flags

from yt8m_gat.cli import EXIT_ERROR, refuse_arguments
from yt8m_gat.config import ConfigError
from yt8m_gat.interrupt import command_name
from yt8m_gat.near_miss import unknown_flag
from yt8m_gat.untrusted import print_error

_HELP = {"--help", "-help", "-h", "--helpfull", "--helpshort", "-?"}


def parse(
    define_flags: Callable[[flags.FlagValues], None], argv: Sequence[str], description: str
) -> flags.FlagValues:
    """The flags of a command line; `--help` and a flag that does not parse end the process.

    Args:
        define_flags: Defines the flags of the command.
        argv: The words after the command's name.
        description: What the command does, for `--help`.
    """
    values = flags.FlagValues()
    define_flags(values)
    if _HELP & set(argv):
        print(f"{description}\n\nflags:\n{values.main_module_help() or values.get_help()}")
        sys.exit()
    try:
        refuse_arguments(values([command_name(), *argv])[1:])
    except flags.UnrecognizedFlagError as error:
        print_error(command_name(), unknown_flag(error.flagname, values))
        sys.exit(EXIT_ERROR)
    except (flags.Error, ConfigError) as error:
        print_error(command_name(), error)
        sys.exit(EXIT_ERROR)
    return values
