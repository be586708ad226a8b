"""What it costs to be there: an idle system, and many idle workers."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from measure import cpu_seconds, median, memory_bytes
from peers.base import PYTHON
from results import OURS

from . import Bench, scenario

IDLE_SECONDS = 30.0
SETTLE_SECONDS = 3.0
CROWD = 500
TASKS = 30
IDLE_WORKERS = Path(__file__).resolve().parent.parent / "idle_workers.py"


@scenario
def idle(bench: Bench) -> None:
    """All systems with nothing to do for 30 s: share of a core, and memory."""
    with bench.running() as systems:
        bench.warm(systems, lambda system: system.burst(100))
        time.sleep(SETTLE_SECONDS)
        pids = {name: system.pids() for name, system in systems.items()}
        before = {name: cpu_seconds(found) for name, found in pids.items()}
        start = time.perf_counter()
        time.sleep(IDLE_SECONDS)
        seconds = time.perf_counter() - start
        for name, system in systems.items():
            share = (cpu_seconds(pids[name]) - before[name]) / seconds
            bench.results.add("idle", "share of a core", "%", system.title, 100 * share)
            bench.results.add("idle", "memory", "MB", system.title, memory_bytes(pids[name]) / 1e6)
    bench.results.at_most("idle", "share of a core", 1, "%")
    bench.results.at_most("idle", "memory", 120, "MB")


@scenario
def workers(bench: Bench) -> None:
    """500 more idle workers: how long a command takes to start; on the real worker beside them, and on any of them."""

    def add(what: str, value: float) -> None:
        bench.results.add("workers", what, "ms", OURS, value)

    with bench.running("scitq") as systems:
        system = systems["scitq"]
        add("no other worker: submit to start, p50", _starts(system))
        with _Crowd(system, "elsewhere", 1):
            add("500 of another batch: submit to start, p50", _starts(system))
    with bench.running("scitq") as systems, _Crowd(systems["scitq"], "Default", 0):
        add("500 of its batch, without slots: submit to start, p50", _starts(systems["scitq"]))
    with bench.running("scitq", workers=False) as systems, _Crowd(systems["scitq"], "Default", 1) as crowd:
        add("any of 500: submit to order, p50", _orders(systems["scitq"], crowd))
    for figure in [figure for figure in bench.results.figures if figure.what.startswith(("500", "any of 500"))]:
        bench.results.at_most("workers", figure.what, 100, "ms")


def _starts(system) -> float:
    """The median time from the submission to the start of a command on the real worker, in ms."""
    system.one()
    times = []
    for _ in range(TASKS):
        time.sleep(0.05)
        times.append(1000 * system.one()[0])
    return median(times)


def _orders(system, crowd: subprocess.Popen) -> float:
    """The median time from the submission to the arrival of the order at one of the crowd, in ms."""
    times = []
    for _ in range(TASKS):
        time.sleep(0.05)
        submitted = time.time()
        [task] = system.create([{"command": "true"}])
        told, came = crowd.stdout.readline().split()
        if int(told) != task:
            raise RuntimeError(f"task {told} came, task {task} was queued")
        times.append(1000 * (float(came) - submitted))
    return median(times)


class _Crowd:
    """500 idle workers while the block runs; returns when all hold their poll."""

    def __init__(self, system, batch: str, concurrency: int):
        self._words = [PYTHON, str(IDLE_WORKERS), system.url, str(CROWD), batch, str(concurrency)]
        self._token = system.token

    def __enter__(self) -> subprocess.Popen:
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdin.write(self._token + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "ready\n":
            self._process.wait()
            raise RuntimeError("the idle workers did not come up")
        return self._process

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()
