"""Folders of numbered pictures, the form in which Something-Something and others store clips."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable

FRAME_ENDINGS = frozenset({".jpg", ".jpeg", ".png"})

FRAMES_PER_SECOND = 12.0
"""The rate at which such a folder is read; Something-Something's frames were stored at it."""

_NUMBERED = re.compile(r"(.*?)(\d+)(\.[A-Za-z]+)")


def is_frame_folder(names: Iterable[str]) -> bool:
    """Returns whether these names of files are those of a folder of numbered pictures."""
    pictures = [name for name in names if _ending(name) in FRAME_ENDINGS]
    return bool(pictures) and all(_NUMBERED.fullmatch(name) for name in pictures)


def num_pictures(names: Iterable[str]) -> int:
    """Returns how many of these names of files are those of pictures."""
    return sum(_ending(name) in FRAME_ENDINGS for name in names)


def frame_pattern(folder: str | os.PathLike) -> tuple[str, int]:
    """Returns the pattern of a folder's pictures for FFmpeg's image2, and the first number.

    The numbers must have no gap, and either the same number of digits or no leading zeros.

    Args:
        folder: The folder; files with other endings than `FRAME_ENDINGS` do not count.

    Raises:
        ValueError: It holds no such pictures; the message is a rule without the folder's name.
        OSError: It cannot be listed.
    """
    names = sorted(name for name in os.listdir(folder) if _ending(name) in FRAME_ENDINGS)
    if not names:
        raise ValueError(
            "must be a video file, or a folder of numbered pictures (00001.jpg, 00002.jpg, ...). "
            "Received: a folder without pictures; name a file"
        )
    matches = [_NUMBERED.fullmatch(name) for name in names]
    if not all(matches) or len({(m[1], m[3]) for m in matches if m}) != 1:
        raise ValueError(
            "a folder of frames must hold pictures whose names differ in their number alone. "
            f"Received: {names[0]!r} and {names[-1]!r}"
        )
    digits = {m[2] for m in matches if m}
    numbers = sorted(map(int, digits))
    width = len(min(digits, key=len))
    padded = {f"{number:0{width}d}" for number in numbers}
    if padded != digits:
        raise ValueError(f"numbers of frames must have {width} digits, as the shortest one has")
    missing = next((a + 1 for a, b in itertools.pairwise(numbers) if b != a + 1), None)
    if missing is not None:
        raise ValueError(f"frame number {missing} is missing; copy the folder again")
    prefix, ending = (matches[0][i] for i in (1, 3))  # type: ignore[index]
    escaped = os.path.join(os.fspath(folder), prefix).replace("%", "%%")
    return f"{escaped}%0{width}d{ending}", numbers[0]


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
