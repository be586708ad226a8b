"""HyperQueue from its PyPI package, which holds server and worker but no `hq` program: a process of its own runs both.

It keeps its queue in memory (no journal). Its Python client asks once a second whether a job is done; here the client asks every
20 ms (0.5 ms for one task) by trying to forget the job, which the server refuses until it is over.
"""

from __future__ import annotations

import os
import time

os.environ["RUST_LIB_BACKTRACE"] = "0"  # a refusal would carry a backtrace

from hyperqueue.client import Client
from hyperqueue.job import Job
from measure import until

from .base import (
    LONGEST_SECONDS,
    POLL_SECONDS,
    PYTHON,
    SHORT_POLL_SECONDS,
    SLOTS,
    STAMP,
    Base,
    seconds_since,
    stamped,
    writer,
)  # fmt: skip

HOST = """
import sys, signal
from hyperqueue.cluster import LocalCluster, WorkerConfig
cluster = LocalCluster(sys.argv[1], WorkerConfig(cores=int(sys.argv[2])) if int(sys.argv[2]) else None)
open("ready", "w").close()
signal.pause()
"""
LAUNCH = """
import sys
from hyperqueue.client import Client
from hyperqueue.job import Job
job = Job(default_workdir=sys.argv[2])
job.program(["true"])
Client(sys.argv[1]).submit(job)
"""


class System(Base):
    """Server and worker in one process, as the package's LocalCluster starts them; outputs are files."""

    title = "HyperQueue"

    def start(self, workers: bool = True) -> None:
        self.server = str(self.directory / "server")
        os.mkdir(self.server)
        self.spawn(PYTHON, "-c", HOST, self.server, str(SLOTS if workers else 0))
        until((self.directory / "ready").exists, "the cluster is up")
        self.client = Client(self.server)
        self.jobs = 0

    def _job(self, command: list[str], count: int) -> tuple[Job, str]:
        self.jobs += 1
        folder = self.directory / f"job{self.jobs}"
        folder.mkdir()
        job = Job(default_workdir=str(folder), max_fails=None)
        for _ in range(count):
            job.program(command)
        return job, str(folder)

    def _run(self, job: Job, pause: float) -> None:
        submitted, deadline = self.client.submit(job), time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < deadline:
            time.sleep(pause)
            try:
                return self.client.forget(submitted)
            except RuntimeError:  # not yet
                continue
        raise TimeoutError(f"not done within {LONGEST_SECONDS} s")

    def burst(self, count: int) -> float:
        start = time.perf_counter()
        self._run(self._job(["true"], count)[0], POLL_SECONDS)
        return seconds_since(start)

    def one(self) -> tuple[float, float]:
        job, folder = self._job(STAMP, 1)
        submitted = time.time()
        self._run(job, SHORT_POLL_SECONDS)
        with open(f"{folder}/0.stdout") as stdout:
            return stamped(stdout.read(), submitted)

    def write(self, size: int) -> float:
        job, _ = self._job(writer(size), 1)
        start = time.perf_counter()
        self._run(job, SHORT_POLL_SECONDS)
        return seconds_since(start)

    def submit(self, count: int) -> float:
        start = time.perf_counter()
        self.client.submit(self._job(["true"], count)[0])
        return seconds_since(start)

    def launch_words(self) -> list[str]:
        return [PYTHON, "-c", LAUNCH, self.server, str(self.directory)]
