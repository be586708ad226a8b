"""Small files that have come: brought to the disk many at once, then given their names.

To wait for each alone costs more than fetching it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

MOST = 48  # files that wait; each is an open one, and as many are being settled
THREADS = 4  # that settle: a disk writes what several wait for at once as fast as what one waits for


class Arrivals:
    """Takes files while the block runs; at its end all that were taken are settled.

    The first error is raised by the next call, or the end.
    """

    def __init__(self):
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._serve, name=f"arrivals_{number}") for number in range(THREADS)]

    def __enter__(self) -> Arrivals:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        if self._error and kind is None:
            raise self._error

    def add(self, descriptor: int, settle: Callable[[], None]) -> None:
        """One more: `settle` brings the descriptor's file to the disk and names it, and is called whatever happens to others."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < MOST)
            self._waiting.append((descriptor, settle))
            self._changed.notify_all()
        if self._error:
            raise self._error

    def _serve(self) -> None:
        while some := self._taken():
            for descriptor, _ in some:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # all begin to be written: the first wait is for all
            for _, settle in some:
                try:
                    settle()
                except BaseException as error:
                    self._error = self._error or error

    def _taken(self) -> list[tuple[int, Callable[[], None]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            size = MOST // THREADS
            some, self._waiting = self._waiting[:size], self._waiting[size:]
            self._changed.notify_all()
            return some
