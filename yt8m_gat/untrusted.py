"""Reads untrusted files within bounds, and shows untrusted text without effect on the terminal.

Standard library only, and no other module of the package: every room may import it.
"""

import json
import os
import re
import sys
import unicodedata
from typing import Any

MAX_DEPTH = 64
"""Maximal nesting of lists and objects in JSON; an evaluation has 9 levels."""

MAX_JSON_BYTES = 256 << 20
"""Maximal size of a JSON file; one of all 3,862 classes under 20 attacks has a few MB."""

_MOST_SHOWN = 200  # Characters of a value in a message.
_MAX_INTEGER = 2**63 - 1
# Words that a sentence can hold without quotes: no blanks, no control characters.
_PLAIN = re.compile(r"[\w@%+=:,./~*-]+")


def printable(text: str, keep: str = "") -> str:
    r"""Returns `text` with a backslash escape for each character that is not printable.

    Those are the control characters (ESC, which moves the cursor and hides lines), the marks that
    change the direction of text, line ends and halves of surrogate pairs. Blanks of any width stay.

    Args:
        text: Untrusted text.
        keep: Characters that are not escaped.

    Example:
        >>> print(printable("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in keep or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode()
        for c in text
    )


def print_error(command: str, error: Exception | str) -> None:
    """Prints the final error of a command on stderr.

    Further lines of a message are indented, so that a line end in an untrusted name cannot begin a
    line that looks like another message.
    """
    text = printable(str(error), keep="\n").replace("\n", "\n  ")
    print(f"{command}: error: {text}", file=sys.stderr)


def quoted(text: str) -> str:
    """Returns a name for a sentence: unchanged if it is one plain word, else in quotes."""
    return text if _PLAIN.fullmatch(text) and text.isprintable() else repr(text)


def excerpt(value: Any) -> str:
    """Returns the beginning of a value's `repr`, which escapes as `printable` does."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."


def parse_json(content: str | bytes) -> Any:
    """Parses JSON; `bytes` are UTF-8.

    Integers fit in 64 bits and the nesting is bounded, so that callers can convert and traverse
    the values without checks.

    Raises:
        ValueError: It is not JSON, or exceeds these bounds, which the message names.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        value = json.loads(text, parse_int=_bounded_integer)
    except RecursionError:
        raise _too_deep() from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nodes = [node for node in level if isinstance(node, dict | list)]
        if not nodes:
            return value
        level = [
            child for node in nodes for child in (node.values() if isinstance(node, dict) else node)
        ]
    raise _too_deep()


def read_text(path: str | os.PathLike, max_bytes: int, encoding: str = "utf-8") -> str:
    """Returns the text of a file.

    Raises:
        ValueError: It has more than `max_bytes` bytes, or is not text in that encoding.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"must have at most {max_bytes} bytes. Received: more")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"must be a text file in UTF-8: {error}") from error


def read_json(path: str | os.PathLike, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parses a JSON file; see `parse_json`.

    Raises:
        ValueError: It is too large, not text, or not JSON within bounds.
        OSError: It cannot be read.
    """
    return parse_json(read_text(path, max_bytes))


def fits(value: Any, shape: Any) -> bool:
    """Returns whether a value as read from JSON has a shape.

    Args:
        value: The value.
        shape: A type, other than bool (or several in a tuple); `[shape]`: a list of such;
            `{key: shape}`: an object with that key, which `"key?"` lets be absent, and any others;
            `{str: shape}`: an object of such, with any keys.
    """
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if not isinstance(shape, dict):
        # In Python True is an integer, in JSON it is not.
        return isinstance(value, shape) and not isinstance(value, bool)
    if not isinstance(value, dict):
        return False
    if str in shape:
        return all(fits(item, shape[str]) for item in value.values())
    return all(
        fits(value[name], inner) if (name := key.removesuffix("?")) in value else name != key
        for key, inner in shape.items()
    )


def _bounded_integer(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) > _MAX_INTEGER:
        raise ValueError(f"a whole number must fit in 64 bits. Received: {digits[:30]}")
    return number


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects must not be nested more than {MAX_DEPTH} deep")
