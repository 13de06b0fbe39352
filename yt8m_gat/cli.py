"""What the three scripts share besides their flags."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import NoReturn

from yt8m_gat.config import ConfigError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C ended."""


@contextlib.contextmanager
def reported_errors(*error_types: type[Exception]) -> Iterator[None]:
    """Turns errors that the user can mend into one line on stderr and exit code 2.

    Args:
        *error_types: Such errors, besides `ConfigError` and `OSError`.
    """
    try:
        yield
    except (ConfigError, OSError, *error_types) as error:
        print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)


def exit_interrupted(kept: str | os.PathLike | None) -> NoReturn:
    """Ends a command that Ctrl-C interrupted with one line.

    Args:
        kept: File of the rows after which the same command goes on; None, or not there: none.
    """
    name = os.path.basename(sys.argv[0])
    goes_on = kept is not None and os.path.exists(kept)
    again = f"; the same command goes on after the rows in {kept}" if goes_on else ""
    print(f"{name}: interrupted{again}", file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's notices off the terminal; import TensorFlow inside.

    Its C++ code writes some to file descriptor 2 before any setting is read. If the import fails,
    they are shown after all. What it calls errors later at start (no GPU, say) are notices too:
    real ones come as exceptions.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.WARNING)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notices:
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


def refuse_arguments(arguments: Sequence[str]) -> None:
    """Refuses what is left of a command line once its flags are taken.

    `--flag False` leaves `False` behind and sets a boolean flag; a pattern without quotes leaves
    all files but its first. To go on would be to do something else than was asked.

    Raises:
        ConfigError: There is something left.
    """
    if arguments:
        raise ConfigError(
            "all arguments must be flags. A boolean one takes its value after '=' "
            "(--frame_features=false), and a pattern of files needs quotes. "
            f"Received: {' '.join(arguments)}"
        )


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated flag, stripped; empty for an empty flag."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def integers(flag: str, text: str) -> tuple[int, ...]:
    """The parts of a comma-separated flag as integers.

    Raises:
        ConfigError: One is not an integer.
    """
    return tuple(_number(flag, part, int) for part in comma_separated(text))


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """The parts of a comma-separated flag as floats.

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
