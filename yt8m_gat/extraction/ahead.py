"""Runs an iterator in a thread, a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_END = object()
_WAIT_SECONDS = 0.1


class Ahead(Generic[T]):
    """An iterator whose items a thread makes, at most `depth` ahead.

    The thread starts at once. An error that it meets is raised by `__next__` after the items
    before it.

    Args:
        start: Returns the iterator; called in the thread, which also closes the iterator.
        depth: Items that wait at most.
    """

    def __init__(self, start: Callable[[], Iterator[T]], depth: int = 2) -> None:
        self._items: queue.Queue[Any] = queue.Queue(depth)
        self._closed = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, args=(start,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        if self._is_over:
            raise StopIteration
        item, error = self._items.get()
        if item is not _END:
            return item
        self._is_over = True
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Ends the thread, and waits for it."""
        self._closed.set()
        self._is_over = True
        self._thread.join()

    def _run(self, start: Callable[[], Iterator[T]]) -> None:
        error: BaseException | None = None
        try:
            iterator = start()
            try:
                for item in iterator:
                    if not self._put((item, None)):
                        return
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as caught:  # noqa: BLE001 - raised in the consumer's thread
            error = caught
        self._put((_END, error))

    def _put(self, item: tuple[Any, BaseException | None]) -> bool:
        """Waits until there is room; returns False if the consumer has closed this."""
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue
            return True
        return False
