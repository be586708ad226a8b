"""huey on SQLite as it comes: no fsync; 8 worker processes."""

from __future__ import annotations

import os
import subprocess
import time

from huey import SqliteHuey

from .base import HERE, LONGEST_SECONDS, PYTHON, SLOTS, STAMP, Base, seconds_since, stamped, writer

DATABASE = "SCITQ_BENCHMARK_HUEY"


def _queue(path: str) -> SqliteHuey:
    queue = SqliteHuey("benchmark", filename=path, timeout=60)
    queue.run = queue.task(name="run")(_run)
    return queue


def _run(command: list[str]) -> list:
    """A command, its output captured."""
    done = subprocess.run(command, capture_output=True, check=False)
    return [done.returncode, done.stdout, done.stderr]


queue = _queue(os.environ[DATABASE]) if DATABASE in os.environ else None  # what its consumer looks for


class System(Base):
    """One consumer that starts 8 processes."""

    title = "huey + SQLite (no fsync)"

    def start(self, workers: bool = True) -> None:
        path = str(self.directory / "huey.db")
        self.queue = _queue(path)
        self.path = path
        if workers:
            consumer = os.path.join(os.path.dirname(PYTHON), "huey_consumer")
            words = (consumer, "peers.huey.queue", "-w", str(SLOTS), "-k", "process", "-d", "0.005", "-m", "0.1")
            self.spawn(PYTHON, *words, "-q", **{DATABASE: path})
            self._get(self.queue.run(["true"]))

    def _get(self, result, pause: float = 0.005) -> list:
        return result.get(blocking=True, timeout=LONGEST_SECONDS, max_delay=pause)

    def burst(self, count: int) -> float:
        start = time.perf_counter()
        for result in [self.queue.run(["true"]) for _ in range(count)]:
            self._get(result)
        return seconds_since(start)

    def one(self) -> tuple[float, float]:
        submitted = time.time()
        _, stdout, _ = self._get(self.queue.run(STAMP), 0.0005)
        return stamped(stdout, submitted)

    def write(self, size: int) -> float:
        start = time.perf_counter()
        self._get(self.queue.run(writer(size)))
        return seconds_since(start)

    def submit(self, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            self.queue.run(["true"])
        return seconds_since(start)

    def launch_words(self) -> list[str]:
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); from peers.huey import queue; queue.run(['true'])"
        return ["env", f"{DATABASE}={self.path}", PYTHON, "-c", code]
