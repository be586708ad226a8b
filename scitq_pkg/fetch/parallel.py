"""The same work for many things, some at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from .progress import Meter

T = TypeVar("T")
_NOTHING = object()


def together(work: Callable[[T], None], things: Iterable[T], threads: int, meter: Meter) -> None:
    """Does the work for all things, `threads` at a time; the first error ends all, through the meter, and is raised."""
    if threads == 1:
        for thing in things:
            work(thing)
        return
    crew = _Crew(work, things, meter)
    try:
        crew.start(threads)
        crew.join()
    except BaseException:
        crew.stop()
        crew.join()
        raise
    if crew.error:
        raise crew.error


class _Crew:
    """Threads that take one thing after the other: for many small things cheaper than a promise of each."""

    def __init__(self, work: Callable[[T], None], things: Iterable[T], meter: Meter):
        self._work, self._things, self._meter = work, iter(things), meter
        self._lock = threading.Lock()
        self._members: list[threading.Thread] = []
        self._over = False  # no more things are taken
        self.error: BaseException | None = None  # the first

    def start(self, threads: int) -> None:
        """Starts so many, or fewer if nothing is left to take before."""
        for number in range(threads):
            if self._over:
                return
            member = threading.Thread(target=self._serve, name=f"fetch_{number}")
            member.start()
            self._members.append(member)

    def join(self) -> None:
        """Returns when all have ended."""
        for member in self._members:
            member.join()

    def stop(self) -> None:
        """Ends all who count."""
        self._over = True
        self._meter.stop()

    def _serve(self) -> None:
        try:
            while (thing := self._next()) is not _NOTHING:
                self._work(thing)
        except BaseException as error:
            with self._lock:
                self.error = self.error or error
            self.stop()

    def _next(self):
        with self._lock:
            thing = _NOTHING if self._over else next(self._things, _NOTHING)
            if thing is _NOTHING:
                self._over = True
            return thing
