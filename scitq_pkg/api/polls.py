"""Requests that are held until there is news: whom to wake, and how many may be held at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

SPARE_THREADS = 16  # beside the held requests, for all others
STEP = 32  # threads are started and ended so many at a time
HELD_SHARE = 0.8  # of the most threads there may be


class Bells:
    """A bell for each worker: it rings when the worker's orders changed, or when a newer request of it came in."""

    def __init__(self):
        self._lock = threading.Lock()
        self._rings: dict[int, int] = {}
        self._held: dict[int, threading.Event] = {}
        self._all = 0
        self._closed = False

    def enter(self, worker_id: int) -> int:
        """A request of this worker came in; an older one that is held is answered. The number of rings so far."""
        with self._lock:
            self._let_go(worker_id)
            return self._count(worker_id)

    def ring(self, worker_ids: set[int] | None) -> None:
        """The orders of these workers changed (None: any may have)."""
        with self._lock:
            if worker_ids is None:
                self._all += 1
                worker_ids = set(self._held)
            for worker_id in worker_ids:
                self._rings[worker_id] = self._rings.get(worker_id, 0) + 1
                self._let_go(worker_id)

    def wait(self, worker_id: int, rings: int, seconds: float) -> int | None:
        """Wait for a ring after the first `rings`: their number then; None when the time is over, or it is to wait no more."""
        with self._lock:
            if self._count(worker_id) != rings or self._closed:
                return None if self._closed else self._count(worker_id)
            mine = self._held[worker_id] = threading.Event()
        mine.wait(seconds)
        with self._lock:
            if self._held.get(worker_id) is mine:
                del self._held[worker_id]
            count = self._count(worker_id)
            return count if count != rings and not self._closed else None

    def close(self) -> None:
        """Answer everything that is held, and hold nothing any more."""
        with self._lock:
            self._closed = True
            for worker_id in list(self._held):
                self._let_go(worker_id)

    def _count(self, worker_id: int) -> int:
        return self._rings.get(worker_id, 0) + self._all

    def _let_go(self, worker_id: int) -> None:
        held = self._held.pop(worker_id, None)
        if held is not None:
            held.set()


class Seats:
    """Counts the requests that are held, each of which takes a thread, and has threads started for them."""

    def __init__(self, most_threads: int):
        self._most = most_threads
        self._room = int(most_threads * HELD_SHARE)
        self._lock = threading.Lock()
        self._taken = 0
        self._threads = SPARE_THREADS
        self.set_threads: Callable[[int], None] = lambda count: None  # given by what runs the threads

    @contextlib.contextmanager
    def seat(self) -> Iterator[bool]:
        """Whether this request may be held."""
        with self._lock:
            seated = self._taken < self._room
            self._taken += seated
            self._fit()
        try:
            yield seated
        finally:
            with self._lock:
                self._taken -= seated
                self._fit()

    def _fit(self) -> None:
        """So many threads that all others have some to spare; not one step back and forth at each request."""
        wanted = min(self._most, self._taken + SPARE_THREADS)
        if wanted > self._threads or wanted < self._threads - 2 * STEP:
            self._threads = min(self._most, wanted + STEP - wanted % STEP)
            self.set_threads(self._threads)
