"""Ctrl-C and SIGTERM as a request to stop, which the loop handles between two steps."""

import signal
import types


class StopRequest:
    """Context in which SIGINT and SIGTERM only set `signal_name`.

    A second signal has its usual effect and ends the process at once.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, _: types.FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._restore()
