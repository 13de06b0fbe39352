"""What all commands share: errors, Ctrl-C, TensorFlow's start and the parsing of values."""

import argparse
import contextlib
import importlib
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from yt8m_gat.config import ConfigError
from yt8m_gat.interrupt import (
    CONSOLE,
    EXIT_INTERRUPTED,
    command_name,
    end_at_once,
    end_on_interrupt,
)
from yt8m_gat.near_miss import unknown_flag
from yt8m_gat.untrusted import print_error

SCRIPTS = ("train.py", "eval.py", "inference.py")
EXIT_ERROR = 2


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """A help formatter that appends the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        if action.default in (None, "", False, argparse.SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"


class CommandParser(argparse.ArgumentParser):
    """The parser of a command of `yt8m-gat` that is not one of the three scripts.

    A wrong flag ends with one line on stderr and exit code 2; a near miss gets a suggestion.

    Args:
        name: The command, or a longer name of a subcommand that `add_subparsers` made.
        description: The help text.
        refuses_unknown: Whether a flag that is not defined is an error.
        **options: See `argparse.ArgumentParser`.
    """

    def __init__(
        self,
        name: str = "",
        description: str | None = None,
        *,
        refuses_unknown: bool = True,
        **options: Any,
    ) -> None:
        options.setdefault("prog", f"{CONSOLE} {name}")
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=_Formatter, **options
        )
        self._refuses_unknown = refuses_unknown

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, but reports unknown flags before missing ones."""
        words = sys.argv[1:] if args is None else list(args)
        if self._refuses_unknown and self._subparsers is None:
            for word in words:
                flag = word.partition("=")[0]
                if flag == "--":
                    break
                if flag.startswith("--") and flag not in self._option_string_actions:
                    defined = [name[2:] for name in self._option_string_actions if name[:2] == "--"]
                    self.error(unknown_flag(flag[2:], defined))
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line."""
        print_error(self.prog, message)
        sys.exit(EXIT_ERROR)


@contextlib.contextmanager
def reported_errors(*error_types: type[Exception]) -> Iterator[None]:
    """Turns errors that the user can fix into one line on stderr and exit code 2.

    Args:
        *error_types: Further such errors, in addition to `ConfigError` and `OSError`.
    """
    try:
        yield
    except (ConfigError, OSError, *error_types) as error:
        print_error(command_name(), error)
        sys.exit(EXIT_ERROR)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs the main function of a command and exits with what it returns.

    Ctrl-C at any moment ends with one line and exit code 130: the first one ends the command in
    good order, the second one at once.

    Args:
        main: Returns the exit code; None: 0.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _watch_for_second_interrupt()
    try:
        code = main()
    except KeyboardInterrupt:
        exit_interrupted()
    except BrokenPipeError:
        # The reader of the output has ended, as `head` does; Python would write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_ERROR
    finally:
        # The work is done; an interrupt would only disturb Python's exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _watch_for_second_interrupt() -> None:
    """Ends the process at a second SIGINT, from a thread that long calls into C++ do not block."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    stderr = os.dup(2)  # Descriptor 2 is elsewhere while TensorFlow is imported.

    def watch() -> None:
        for _ in range(2):
            while os.read(receiver, 1) != bytes([signal.SIGINT]):
                pass
        os.write(stderr, b"\n")  # The line may hold a progress bar.
        end_at_once(stderr, "interrupted twice: ended at once")

    threading.Thread(target=watch, daemon=True).start()


def exit_interrupted(kept: str | os.PathLike | None = None, what: str = "rows") -> NoReturn:
    """Ends a command that Ctrl-C interrupted with one line.

    Args:
        kept: File or folder from which the same command resumes; None or missing: it starts again.
        what: What the file holds, for the message.
    """
    goes_on = kept is not None and os.path.exists(kept)
    again = f"; the same command goes on after the {what} in {kept}" if goes_on else ""
    print(f"{command_name()}: interrupted{again}", file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's notices off the terminal; import TensorFlow inside.

    Its C++ code writes some to file descriptor 2 before any setting is read. If the import fails,
    they are shown. Later "errors" at its start (no GPU, say) are hidden as well: real ones come as
    exceptions. Ctrl-C ends the process at once, because an exception in the middle of the import
    would surface as another error.

    Raises:
        ConfigError: KERAS_BACKEND names another backend.
    """
    # Takes precedence over ~/.keras/keras.json, which is meant for other programs.
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ConfigError(
            "KERAS_BACKEND must be tensorflow, or not be set. Received: "
            f"KERAS_BACKEND={backend!r}; run the same command with KERAS_BACKEND=tensorflow"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.WARNING)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notices, _ended_by_interrupt():
        os.dup2(notices.fileno(), 2)
        try:
            yield
        except BaseException:
            notices.seek(0)
            os.write(stderr, notices.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def start_tensorflow() -> None:
    """Imports TensorFlow without its notices, before the command's other imports."""
    with reported_errors(), quiet_tensorflow():
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread receives signals.
        return
    previous = signal.getsignal(signal.SIGINT)
    end_on_interrupt()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def duration(seconds: float) -> str:
    """Returns a duration in words: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def command_to_paste(name: str, *arguments: str) -> str:
    """Returns a command line for another command, called as this process was, to be pasted.

    Args:
        name: A command of `yt8m-gat`.
        *arguments: The words after it.
    """
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    folder, running = os.path.split(sys.argv[0])
    if running == CONSOLE:
        words = [CONSOLE if shutil.which(CONSOLE) == sys.argv[0] else sys.argv[0], name]
    elif running in SCRIPTS and f"{name}.py" in SCRIPTS:
        words = [python, os.path.join(folder, f"{name}.py")]
    else:
        words = [python, "-m", "yt8m_gat", name]
    return shlex.join([*words, *arguments])


def this_command(left_out: str) -> str:
    """Returns this process's command line, to be pasted, without the boolean flag `left_out`."""
    flag = re.compile(rf"--?{left_out}(=.*)?", re.DOTALL)
    return shlex.join(part for part in sys.orig_argv if not flag.fullmatch(part))


def refuse_arguments(arguments: Sequence[str]) -> None:
    """Refuses words of a command line that belong to no flag.

    `--flag False` leaves `False` over and sets the flag to true; a pattern without quotes leaves
    all files but its first. Continuing would do something other than was asked.

    Raises:
        ConfigError: There are such words.
    """
    if arguments:
        raise ConfigError(
            "all arguments must be flags. A boolean one takes its value after '=' "
            "(--frame_features=false), and a pattern of files needs quotes. "
            f"Received: {' '.join(arguments)}"
        )


def comma_separated(text: str) -> tuple[str, ...]:
    """Returns the parts of a comma-separated flag, stripped; empty for an empty flag."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def integers(flag: str, text: str) -> tuple[int, ...]:
    """Returns the parts of a comma-separated flag as integers.

    Raises:
        ConfigError: One is not an integer.
    """
    return tuple(_number(flag, part, int) for part in comma_separated(text))


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Returns the parts of a comma-separated flag as floats.

    Raises:
        ConfigError: One is not a number.
    """
    return tuple(_number(flag, part, float) for part in comma_separated(text))


def _number(flag: str, part: str, kind: type) -> float:
    try:
        return kind(part)
    except ValueError as error:
        raise ConfigError(
            f"--{flag} must be {kind.__name__}s separated by commas. Received: {part!r}"
        ) from error
