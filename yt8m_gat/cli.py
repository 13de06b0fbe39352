"""What the three scripts share besides their flags."""

import contextlib
import os
import sys
from collections.abc import Iterator

from yt8m_gat.config import ConfigError

EXIT_ERROR = 2


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


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up notices off the terminal; call before it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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
