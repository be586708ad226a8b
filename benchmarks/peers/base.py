"""What every system can be asked.

Its clients live in the process that measures; server and workers are processes of their own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from measure import MARK, processes, until

HERE = Path(__file__).resolve().parent.parent
PYTHON = sys.executable  # of the environment that holds the peers
BARE_PYTHON = os.path.realpath(sys.executable)  # a user's
SLOTS = 8
STAMP = ["date", "+%s%N"]  # the command that tells when it started
LINE = "0123456789abcdefghijklmnopqrstuvwxyz ACGTACGTACGTACGTACGTACGTACGT"
LONGEST_SECONDS = 60  # that is waited for anything asked: it takes a few
POLL_SECONDS = 0.02  # between two questions whether many tasks are done
SHORT_POLL_SECONDS = 0.0005  # the same for one task


def writer(size: int) -> list[str]:
    """A command that writes `size` bytes of text to its stdout."""
    return ["sh", "-c", f"yes '{LINE}' | head -c {size}"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Base:
    """A system between `start` and `stop`. Subclasses say how it is started and how it is asked."""

    title = ""  # as the table names it

    @classmethod
    def check(cls) -> None:
        """Raises FileNotFoundError, with the reason, if it cannot run here."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.started: list[subprocess.Popen] = []

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def start(self, workers: bool = True) -> None:
        """Server and a worker of SLOTS slots (or none); returns when they are ready."""
        raise NotImplementedError

    def burst(self, count: int) -> float:
        """Queues `count` times `true`, its output captured; seconds until all are known to have succeeded."""
        raise NotImplementedError

    def one(self) -> tuple[float, float]:
        """Runs one command: seconds from the submission to its start, and from its end until that is visible to the client."""
        raise NotImplementedError

    def write(self, size: int) -> float:
        """Runs one command that writes `size` bytes to its stdout; seconds from the submission until its end is visible."""
        raise NotImplementedError

    def submit(self, count: int) -> float:
        """Queues `count` tasks; seconds until the server has answered for all."""
        raise NotImplementedError

    def launch_words(self) -> list[str]:
        """A command that queues one `true` from the command line."""
        raise NotImplementedError

    # --- processes ----------------------------------------------------------------------------------------------------

    @property
    def variables(self) -> dict[str, str]:
        return {**os.environ, MARK: self.mark, "PYTHONPATH": str(HERE)}

    def spawn(self, *words: str, stdin=subprocess.DEVNULL, **variables: str) -> subprocess.Popen:
        """Starts a process of the system; its words go to a log."""
        with open(self.directory / "log", "ab") as log:
            process = subprocess.Popen(
                words, stdin=stdin, stdout=log, stderr=log, cwd=self.directory, env={**self.variables, **variables}
            )
        self.started.append(process)
        return process

    def pids(self) -> list[int]:
        """All processes of the system that are there now: server, broker, workers, commands."""
        return processes(self.mark)

    def stop(self) -> None:
        """Ends every process of the system."""
        for process in reversed(self.started):
            process.terminate()
        try:
            until(lambda: not self._alive(), "the end of its processes", 5.0)
        except TimeoutError:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait()
        self.started.clear()

    def _alive(self) -> list[int]:
        for process in self.started:
            process.poll()
        return self.pids()


def seconds_since(start: float) -> float:
    return time.perf_counter() - start


def stamped(stdout: bytes | str, submitted: float) -> tuple[float, float]:
    """The two times of `one`, of what STAMP printed and of the clock at the submission (seconds since the epoch) and now."""
    visible, started = time.time(), int(stdout) / 1e9
    return started - submitted, visible - started
