"""Sudden ends: the program killed at its N-th system call of a kind, and clients that go on submitting through it all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from env import PROGRAM, ROOT, Env, Process, ServerProcess
from scitq.errors import ScitqError
from scitq.transport import Connection


@lru_cache(maxsize=1)
def can_trace() -> bool:
    """Whether strace is here and may trace: it ends a process of its own at its first write."""
    if shutil.which("strace") is None:
        return False
    inject = ["-e", "trace=write", "-e", "inject=write:signal=KILL:when=1"]
    done = subprocess.run(["strace", "-D", "-qq", "-o", "/dev/null", *inject, "echo", "x"], capture_output=True)
    return done.returncode == -signal.SIGKILL


def start_struck(process: Process, calls: str, when: int) -> None:
    """Starts it so that SIGKILL comes at the `when`-th of these system calls of any of its threads; `when` 0: never.

    Where strace cannot trace the test is skipped, or fails if it has to run.
    """
    if not can_trace():
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)("strace cannot trace here")
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={when}"] if when else []
    tracer = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *inject]
    process.program = [*tracer, *PROGRAM] if when else PROGRAM
    try:
        Process.start(process)  # one that waits for nothing: it may end before it is ready
    finally:
        process.program = PROGRAM


def copied_program(directory: Path) -> list[str]:
    """How to start a copy of the checkout under test, which may be changed; it is made in this directory unless it is there."""
    checkout = Path(PROGRAM[-1]).parent if PROGRAM[-1].endswith(".py") else ROOT
    if not directory.exists():
        unfinished = shutil.ignore_patterns("*.pyc.*")
        shutil.copytree(checkout / "scitq_pkg", directory / "scitq_pkg", ignore=unfinished)  # compiled: that would take a second
        shutil.copy(checkout / "scitq.py", directory)
    return [sys.executable, str(directory / "scitq.py")]


def changed_program(directory: Path, constants: dict[str, dict[str, float]]) -> list[str]:
    """As `copied_program`, with other values of constants of its modules (`worker/service`): the same with shorter times."""
    program = copied_program(directory)
    for module, values in constants.items():
        file = directory / "scitq_pkg" / f"{module}.py"
        text = file.read_text()
        for name, value in values.items():
            text, count = re.subn(rf"^{name} = [\d.]+", f"{name} = {value}", text, flags=re.MULTILINE)
            assert count == 1, f"{module} has no {name}"
        file.write_text(text)
    return program


def ready_or_dead(server: ServerProcess, seconds: float = 60.0) -> bool:
    """Whether the server is ready; False when it has ended before."""
    server.ended_by_test = True  # it may, at any time
    deadline = time.monotonic() + seconds
    while server.alive:
        if server._is_ready():
            return True
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.02)
    return False


class Submitters:
    """Threads that submit tasks of one name each, one after the other, and note what was acknowledged.

    What got no answer is sent again, under the same request id, until it has one.
    """

    def __init__(self, env: Env, threads: int = 3):
        self.env, self._count = env, threads
        self.acknowledged: dict[str, int] = {}  # name -> id of the task
        self.troubles: list[str] = []
        self._lock = threading.Lock()
        self._numbers = iter(range(10**9))

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """They submit while this lasts; then each finishes the task it was at."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._submit_until, args=(stop,), daemon=True) for _ in range(self._count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a submission got no answer"
        assert not self.troubles, self.troubles

    def _submit_until(self, stop: threading.Event) -> None:
        with Connection(self.env.url, self.env.token, timeout=5.0) as connection:
            while not stop.is_set():
                with self._lock:
                    name = f"n{next(self._numbers)}"
                while not self._submit(connection, name):
                    time.sleep(0.02)

    def _submit(self, connection: Connection, name: str) -> bool:
        body = {"command": "true", "name": name, "batch": "nobody"}
        try:
            answer = connection.request("POST", "/api/v1/tasks", body, headers={"Idempotency-Key": name})
        except (ScitqError, OSError):
            return False
        if answer.status == 201:
            self.acknowledged[name] = answer.json()["ids"][0]
        elif answer.status not in (503, 507):
            self.troubles.append(f"{name}: {answer.status} {answer.body[:200]!r}")
        return answer.status != 503

    def snapshot(self) -> dict[str, int]:
        """What is acknowledged by now."""
        return dict(self.acknowledged)

    def check(self, acknowledged: dict[str, int] | None = None) -> None:
        """Each acknowledged task is there, under its id, and no task is there twice."""
        there = [(row["name"], row["id"]) for row in self.env.items("/tasks", batch="nobody")]
        names = [name for name, _ in there]
        assert len(names) == len(set(names)), "a task was made twice"
        missing = (self.acknowledged if acknowledged is None else acknowledged).items() - dict(there).items()
        assert not missing, f"{len(missing)} acknowledged tasks are lost: {sorted(missing)[:5]}"
