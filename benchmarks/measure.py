"""What processes cost: CPU seconds with those of their ended children, memory, and the middle of several rounds."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

MARK = "SCITQ_BENCHMARK_MARK"  # a variable that every process of a system inherits: it finds also those that left their parent
TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def processes(mark: str) -> list[int]:
    """The ids of all processes that carry this mark."""
    wanted = f"{MARK}={mark}".encode()
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and wanted in _read(entry / "environ")]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of their children that have ended."""
    return sum(map(_cpu_seconds, pids))


def _cpu_seconds(pid: int) -> float:
    fields = _read(PROC / str(pid) / "stat").rpartition(b")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS  # utime, stime, cutime, cstime; nothing of a process that is gone


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory; a page that several processes share counts once (PSS)."""
    return sum(map(_memory_bytes, pids))


def _memory_bytes(pid: int) -> int:
    for line in _read(PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process ended while we looked
        return b""


class PeakMemory:
    """The most memory that a set of processes had while the block ran, looked at every 10 ms."""

    def __init__(self, find: Callable[[], list[int]]):
        self._find, self.bytes = find, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.bytes = max(self.bytes, memory_bytes(self._find()))


def median(values: list[float]) -> float:
    return statistics.median(values)


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> object:
    """Waits until the condition holds and returns its value; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return value
