"""Workflows in Python: thousands of linked steps declared and queued, dependents released, and what their view costs."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from datetime import datetime
from pathlib import Path

from measure import cpu_seconds
from peers.base import BARE_PYTHON, LONGEST_SECONDS
from results import OURS
from surroundings import ONE_FILE

from . import Bench, scenario

CHAINS = 3_334
DEPENDENTS = 10_000
IDLE_SECONDS = 10
SCRIPT = """
import sys
from scitq.workflow import Workflow

wf = Workflow(sys.argv[2], retry=2)
for n in range(int(sys.argv[3])):
    align = wf.step("align", COMMAND, name=f"S{n}", env={"N": str(n)})
    count = wf.step("count", COMMAND, name=f"S{n}", env={"N": str(n)}, required_tasks=align)
    wf.step("check", COMMAND, name=f"S{n}", required_tasks=count)
wf.submit() if sys.argv[1] == "submit" else wf.run()
"""


@scenario
def workflow(bench: Bench) -> None:
    """scitq alone: a script of 10,000 tasks in 3 linked steps, 10,000 dependents released, the processor time of the view."""

    def add(what: str, unit: str, value: float) -> None:
        bench.results.add("workflow", what, unit, OURS, value)

    def queue(system) -> None:
        name = f"w{time.time_ns()}"
        for what in ("queued", "again"):
            start = time.perf_counter()
            subprocess.run(_words(system, "submit", name, "true"), env=_variables(system), check=True, stdout=subprocess.DEVNULL)
            add(what, "s", time.perf_counter() - start)
        assert system.client.get("/tasks/counts", batch=f"{name}.check")["counts"] == {"waiting": CHAINS}

    with bench.running("scitq", workers=False) as systems:
        bench.alternate(systems, queue)
    with bench.running("scitq") as systems:
        bench.alternate(systems, lambda system: add("10,000 dependents released", "s", _released(system)))
        system = systems["scitq"]
        for what, command, seconds in (("tasks end", "true", LONGEST_SECONDS), ("nothing happens", "sleep 1000", IDLE_SECONDS)):
            add(f"view while {what}, share of a core", "%", 100 * _view_share(system, what.replace(" ", "-"), command, seconds))
    bench.results.at_most("workflow", "queued", 10, "s")
    bench.results.at_most("workflow", "10,000 dependents released", 1, "s")
    bench.results.at_most("workflow", "view while tasks end, share of a core", 5, "%")


def _words(system, verb: str, name: str, command: str) -> list[str]:
    script = Path(system.directory) / "workflow.py"
    script.write_text(SCRIPT.replace("COMMAND", repr(command)))
    return [BARE_PYTHON, str(script), verb, name, str(CHAINS)]


def _variables(system) -> dict[str, str]:
    return {**system.variables, "PYTHONPATH": str(ONE_FILE), "TERM": "xterm"}


def _released(system) -> float:
    """Seconds from the end of a task until 10,000 others that need it are known to be pending."""
    batch = f"d{time.time_ns()}"
    first = {"command": "sleep 1", "name": "first"}
    ids = system.create([first, *({"command": "true", "batch": batch, "require": ["#0"]} for _ in range(DEPENDENTS))])
    version = None
    while True:
        told = system.client.get("/tasks/counts", batch=batch, version=version, wait=None if version is None else 20)
        if told["counts"] == {"pending": DEPENDENTS}:
            seen = time.time()
            break
        version = told["version"]
    execution = system.client.get(f"/executions/{system.client.get(f'/tasks/{ids[0]}')['execution_id']}")
    return seen - datetime.fromisoformat(execution["ended_at"].replace("Z", "+00:00")).timestamp()


def _view_share(system, name: str, command: str, seconds: float) -> float:
    """The share of a core that the view takes, from its first picture to its end, or for some seconds."""
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(_words(system, "run", name, command), env=_variables(system), **streams)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + LONGEST_SECONDS
    while b"p pause" not in shown:
        shown += _read(ours, 0.1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the view does not show: {shown[-300:]!r}")
    start, before = time.monotonic(), cpu_seconds([process.pid])
    used, end = before, start
    while time.monotonic() < start + seconds and process.poll() is None:
        _read(ours, 0.1)
        now = cpu_seconds([process.pid])
        if now >= used:
            used, end = now, time.monotonic()
    process.kill()
    process.wait()
    os.close(ours)
    return (used - before) / (end - start)


def _read(terminal: int, seconds: float) -> bytes:
    if select.select([terminal], [], [], seconds)[0]:
        with contextlib.suppress(OSError):  # the program has closed it
            return os.read(terminal, 65536)
    return b""
