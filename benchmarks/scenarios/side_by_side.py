"""What scitq and its peers both do: many small tasks, one call of the command line, one task on an idle system, a big output."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from measure import PeakMemory, cpu_seconds, median
from peers.base import BARE_PYTHON, writer
from results import OURS

from . import Bench, scenario

BURST = 1000
SINGLES = 15
OUTPUT_BYTES = 200_000_000
MEGABYTE = 1e6


@scenario
def throughput(bench: Bench) -> None:
    """1,000 times `true`, 8 at once, output captured."""

    def ask(system) -> None:
        pids = system.pids()
        before = cpu_seconds(pids)
        seconds = system.burst(BURST)
        spent = cpu_seconds(pids) - before
        bench.results.add("throughput", "tasks", "/s", system.title, BURST / seconds)
        bench.results.add("throughput", "CPU a task", "ms", system.title, 1000 * spent / BURST)

    with bench.running() as systems:
        bench.warm(systems, lambda system: system.burst(200))
        bench.alternate(systems, ask)
    ours = bench.results.median("throughput", "tasks")
    for name in ("hyperqueue", "celery"):
        theirs = bench.results.median("throughput", "tasks", systems[name].title) if name in systems else None
        if theirs:
            bench.results.at_least("throughput", f"tasks/s against {systems[name].title}", 1.2, "x", ours / theirs)
    bench.results.at_most("throughput", "CPU a task", 2.0, "ms")


@dataclass
class Line:
    """A command line that is timed."""

    title: str
    words: list[str]
    variables: dict | None

    def seconds(self) -> float:
        start = time.perf_counter()
        subprocess.run(self.words, env=self.variables, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


@scenario
def launch(bench: Bench) -> None:
    """One submission from the command line, the server warm."""
    with bench.running() as systems:
        lines = {name: Line(system.title, system.launch_words(), system.variables) for name, system in systems.items()}
        lines["python"] = Line("an empty Python program", [BARE_PYTHON, "-c", "pass"], None)
        bench.warm(lines, Line.seconds)
        bench.alternate(
            lines, lambda line: bench.results.add("launch", "wall", "ms", line.title, 1000 * line.seconds()), 2 * bench.rounds
        )
    bench.results.at_most("launch", "wall", 100, "ms")


@scenario
def latency(bench: Bench) -> None:
    """One task on an idle system: from the submission to its start, from its end until the client knows."""

    def ask(system) -> None:
        times = []
        for _ in range(SINGLES):
            time.sleep(0.05)
            times.append(system.one())
        for what, seconds in zip(("submit to start, p50", "end to visible, p50"), zip(*times)):
            bench.results.add("latency", what, "ms", system.title, 1000 * median(seconds))

    with bench.running() as systems:
        bench.warm(systems, lambda system: [system.burst(20), system.one()])
        bench.alternate(systems, ask)
    bench.results.at_most("latency", "submit to start, p50", 10, "ms")
    bench.results.at_most("latency", "end to visible, p50", 10, "ms")


@scenario
def output(bench: Bench) -> None:
    """200 MB to stdout: the most memory of all processes together, and the time against the same command writing to a file."""

    def ask(system) -> None:
        plain = _plain_write(system.directory)
        with PeakMemory(system.pids) as peak:
            seconds = system.write(OUTPUT_BYTES)
        bench.results.add("output", "peak memory", "MB", system.title, peak.bytes / MEGABYTE)
        bench.results.add("output", "submit to end visible", "s", system.title, seconds)
        bench.results.add("output", "the same to a file", "s", "the command alone", plain)
        if system.title == OURS:
            bench.results.add("output", "run of the command", "s", OURS, system.run_seconds())

    with bench.running() as systems:
        bench.warm(systems, lambda system: system.write(1000))
        bench.alternate(systems, ask, min(3, bench.rounds))
    bench.results.at_most("output", "peak memory", 150, "MB")
    plain = bench.results.median("output", "the same to a file", "the command alone")
    for what in ("run of the command", "submit to end visible"):
        against = f"{what}, against the plain write"
        bench.results.add("output", against, "x", OURS, bench.results.median("output", what) / plain)
        bench.results.at_most("output", against, 2, "x")


def _plain_write(directory: Path) -> float:
    start = time.perf_counter()
    with open(directory / "plain", "wb") as file:
        subprocess.run(writer(OUTPUT_BYTES), stdout=file, check=True)
    taken = time.perf_counter() - start
    (directory / "plain").unlink()
    return taken
