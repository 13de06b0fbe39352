"""The program `yt8m-gat COMMAND ...`, also run by `python -m yt8m_gat COMMAND ...`."""

import importlib
import sys
from typing import NoReturn

from yt8m_gat import __version__
from yt8m_gat.cli import EXIT_ERROR, run_command
from yt8m_gat.commands.table import COMMANDS, command_names
from yt8m_gat.interrupt import CONSOLE, end_on_interrupt
from yt8m_gat.near_miss import near_miss
from yt8m_gat.untrusted import print_error


def overview() -> str:
    """Returns the text of `yt8m-gat --help`: one line per command."""
    width = max(map(len, command_names()))
    lines = [
        f"usage: {CONSOLE} COMMAND [flags]      {CONSOLE} COMMAND --help lists its flags",
        "Train, attack, evaluate and serve video classifiers, from videos or features.",
    ]
    for part, commands in COMMANDS.items():
        lines += ["", f"{part}:", *(f"  {name:{width}}  {line}" for name, line in commands.items())]
    return "\n".join(lines)


def run(name: str, arguments: list[str] | None = None) -> NoReturn:
    """Runs one command as this process.

    Args:
        name: A command in `COMMANDS`.
        arguments: The words after its name; None: all arguments of this process.
    """
    end_on_interrupt()
    # Imported before `run_command`: an import that Ctrl-C interrupts may raise any error.
    command = importlib.import_module(f"yt8m_gat.commands.{name.replace('-', '_')}")
    run_command(lambda: command.main(sys.argv[1:] if arguments is None else arguments))


def main() -> NoReturn:
    """Runs the command that the first word names."""
    end_on_interrupt()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(overview())
        sys.exit()
    if name == "--version":
        print(f"{CONSOLE} {__version__}")
        sys.exit()
    if name not in command_names():
        meant = near_miss(name, (known.replace("-", "_") for known in command_names()))
        advice = f"did you mean {meant.replace('_', '-')}?" if meant else "--help lists them"
        print_error(CONSOLE, f"{name!r} is not a command; {advice}")
        sys.exit(EXIT_ERROR)
    run(name, arguments)
