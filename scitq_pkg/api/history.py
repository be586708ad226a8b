"""What the workers' machines did in the last hour: kept in memory, a few kilobytes a worker."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable

from .livedata import measures

SPAN_SECONDS = 3600.0
SPACING_SECONDS = 15.0
NAMES = ("load1", "cpu_percent", "memory_used", "memory_total", "disk_used", "disk_total", "received", "sent")
_WIDTH = 1 + len(NAMES)  # the time, then the numbers


class History:
    """Of each worker a row of numbers every SPACING_SECONDS, the oldest first."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._lock = threading.Lock()
        self._points: dict[int, array] = {}

    def note(self, worker_id: int, stats: object) -> None:
        """A worker told its statistics."""
        now = self._clock()
        with self._lock:
            points = self._points.get(worker_id)
            if points is not None and 0 <= now - points[-_WIDTH] < SPACING_SECONDS:
                return
            found = measures(stats)
            if found is None:
                return
            if points is None:
                self._forget_before(now - SPAN_SECONDS)
                points = self._points[worker_id] = array("d")
            points.extend([now, *(math.nan if found[name] is None else float(found[name]) for name in NAMES)])
            while points[0] < now - SPAN_SECONDS:
                del points[:_WIDTH]

    def _forget_before(self, moment: float) -> None:
        """Workers that are gone tell nothing any more."""
        self._points = {worker_id: points for worker_id, points in self._points.items() if points[-_WIDTH] >= moment}

    def of(self, worker_id: int) -> list[dict]:
        """`at` (seconds since the epoch) and each of NAMES, None where it was not told."""
        with self._lock:
            numbers = self._points.get(worker_id, array("d")).tolist()
        rows = [numbers[start : start + _WIDTH] for start in range(0, len(numbers), _WIDTH)]
        oldest = self._clock() - SPAN_SECONDS
        return [
            {"at": row[0], **{name: None if math.isnan(value) else value for name, value in zip(NAMES, row[1:])}}
            for row in rows
            if row[0] >= oldest
        ]
