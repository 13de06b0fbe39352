"""Presentation times that never go backward, made from those of a file."""

from __future__ import annotations

MAX_GAP = 3600.0
"""Maximal seconds from one frame to the next; a longer leap is a damaged time."""


class Clock:
    """Gives each frame a time: its own, or where that is missing or wrong, the expected one.

    A time before the previous one, or more than `MAX_GAP` after it, is wrong: joined files begin
    anew in the middle, and damaged ones leap.

    Args:
        duration: Seconds of a frame that does not state its own.

    Attributes:
        expected: Seconds at which the last frame ends, and the next one should begin; None before
            the first.
        first_wrong: Seconds of the first wrong time, or None. A missing time is not wrong.
    """

    def __init__(self, duration: float) -> None:
        self._duration = duration
        self._last = 0.0
        self.expected: float | None = None
        self.first_wrong: float | None = None

    def time_of(self, seconds: float | None, duration: float | None = None) -> float:
        """Returns the time of the next frame.

        Args:
            seconds: Its presentation time in the file, or None.
            duration: How long it is shown, if the file says so.
        """
        if self.expected is None:
            time = 0.0 if seconds is None else seconds
        elif seconds is None:
            time = self.expected
        elif not self._last <= seconds <= self.expected + MAX_GAP:
            time = self.expected
            if self.first_wrong is None:
                self.first_wrong = time
        else:
            time = seconds
        if not duration or not 0 < duration <= MAX_GAP:
            duration = self._duration
        self._last, self.expected = time, time + duration
        return time
