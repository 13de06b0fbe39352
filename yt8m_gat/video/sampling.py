"""Chooses frames by their presentation times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Matroska rounds times to milliseconds, so a frame counts as shown this many seconds early: half a
# millisecond, and a margin for the rounding of floats.
_ROUNDING = 0.000_6


def between(
    frames: Iterable[tuple[float, T]], start: float, end: float
) -> Iterator[tuple[float, T]]:
    """Yields the frames whose time is in [start, end).

    Args:
        frames: (seconds, frame) in order.
        start: Seconds.
        end: Seconds.
    """
    for seconds, frame in frames:
        if seconds >= end - _ROUNDING:
            return
        if seconds >= start - _ROUNDING:
            yield seconds, frame


def at_rate(
    frames: Iterable[tuple[float, T]],
    start: float,
    end: float,
    rate: float,
    last_end: Callable[[], float],
) -> Iterator[tuple[float, T]]:
    """Yields (time, frame) for each time `start + k / rate` below `end`.

    The frame is the last one that begins by that time, or the first one before it begins.

    Args:
        frames: (seconds, frame) in order.
        start: Seconds.
        end: Seconds.
        rate: Times a second.
        last_end: Returns the seconds at which the last frame ends; called after it.

    Example:
        >>> frames = [(0.0, "a"), (0.9, "b"), (1.0, "c"), (3.5, "d")]
        >>> list(at_rate(frames, 0.0, 9.0, 1.0, lambda: 4.0))
        [(0.0, 'a'), (1.0, 'c'), (2.0, 'c'), (3.0, 'c')]
    """
    count = 0
    shown: list[T] = []
    for seconds, frame in frames:
        while (time := start + count / rate) < min(seconds - _ROUNDING, end):
            yield time, (shown or [frame])[0]
            count += 1
        if time >= end:
            return
        shown = [frame]
    while shown and (time := start + count / rate) < min(last_end() - _ROUNDING, end):
        yield time, shown[0]
        count += 1
