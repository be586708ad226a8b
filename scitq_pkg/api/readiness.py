"""Whether work could be taken now: a real write, the scheduler's last tick, room on the disk."""

from __future__ import annotations

import os
import threading
import time

from ..errors import ScitqError
from ..scheduler import TICK_SECONDS, Monitor
from ..store import Store, Transaction

PROBE_SECONDS = 5.0  # that a write may take
HOLDS_SECONDS = 1.0  # for so long a result holds, however often it is asked for
LATE_TICKS = 10
LEAST_FREE_BYTES = 2**20


class Readiness:
    """Looks when it is asked."""

    def __init__(self, store: Store, monitor: Monitor):
        self._store = store
        self._monitor = monitor
        self._turn = threading.Lock()
        self._looked = float("-inf")
        self._reasons: list[str] = []

    def reasons(self) -> list[str]:
        """Why no work could be taken now, in sentences; none when all is well."""
        with self._turn:
            if time.monotonic() - self._looked > HOLDS_SECONDS:
                found = (self._write_fault(), self._tick_fault(), self._disk_fault())
                self._reasons = [reason for reason in found if reason]
                self._looked = time.monotonic()
            return self._reasons

    def _write_fault(self) -> str | None:
        """A real write, with a real commit."""
        try:
            self._store.write(_probe, timeout=PROBE_SECONDS)
        except ScitqError as error:
            return error.message
        return None

    def _tick_fault(self) -> str | None:
        silence = time.monotonic() - self._monitor.ticked_at
        return f"the scheduler has not ticked for {silence:.0f} s" if silence > LATE_TICKS * TICK_SECONDS else None

    def _disk_fault(self) -> str | None:
        path = getattr(self._store.database, "path", None)
        if path is None:
            return None
        try:
            disk = os.statvfs(path.parent)
        except OSError as error:
            return f"the directory of the database {path.parent} cannot be read: {error.strerror}"
        full = disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES
        return f"the disk of {path} is full: make room, then all goes on by itself" if full else None


def _probe(tx: Transaction) -> None:
    tx.run("UPDATE setting SET value = value WHERE name = 'schema'")
