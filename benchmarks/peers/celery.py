"""Celery with Redis as broker and as result backend, nothing written to disk; 8 worker processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from celery import Celery, group
from measure import until
from redis import Redis
from redis.exceptions import ConnectionError as NotYet

from .base import HERE, LONGEST_SECONDS, PYTHON, SLOTS, STAMP, Base, free_port, seconds_since, stamped, writer

PORT = int(os.environ.get("SCITQ_BENCHMARK_REDIS_PORT") or free_port())
URL = f"redis://127.0.0.1:{PORT}/0"
app = Celery("benchmark", broker=URL, backend=URL)


@app.task(name="run")
def run(command: list[str]) -> list:
    """A command, its output captured."""
    done = subprocess.run(command, capture_output=True, check=False)
    return [done.returncode, done.stdout.decode(), done.stderr.decode()]


class System(Base):
    """redis-server and a prefork worker."""

    title = "Celery + Redis"

    @classmethod
    def check(cls) -> None:
        if not shutil.which("redis-server"):
            raise FileNotFoundError("there is no redis-server here, and apt-get could not install one")

    def start(self, workers: bool = True) -> None:
        self.spawn("redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        until(_answers, "redis answers")
        if workers:
            words = ("-m", "celery", "-A", "peers.celery", "worker", "-c", str(SLOTS), "--without-gossip", "--without-mingle")
            self.spawn(PYTHON, *words, "-l", "ERROR", SCITQ_BENCHMARK_REDIS_PORT=str(PORT))
            run.delay(["true"]).get(timeout=30)

    def burst(self, count: int) -> float:
        start = time.perf_counter()
        group(run.s(["true"]) for _ in range(count))().get(timeout=LONGEST_SECONDS)
        return seconds_since(start)

    def one(self) -> tuple[float, float]:
        submitted = time.time()
        _, stdout, _ = run.delay(STAMP).get(timeout=60, interval=0.001)
        return stamped(stdout, submitted)

    def write(self, size: int) -> float:
        start = time.perf_counter()
        run.delay(writer(size)).get(timeout=LONGEST_SECONDS)
        return seconds_since(start)

    def submit(self, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            run.delay(["true"])
        return seconds_since(start)

    def launch_words(self) -> list[str]:
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); from peers.celery import run; run.delay(['true'])"
        return ["env", f"SCITQ_BENCHMARK_REDIS_PORT={PORT}", PYTHON, "-c", code]


def _answers() -> bool:
    try:
        return Redis(port=PORT).ping()
    except NotYet:
        return False
