"""A real keeper, spoken to over its socket, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from env import PATIENCE_SECONDS, PROGRAM
from scitq.keeper import processes


class KeeperProcess:
    """A keeper of a directory, and one connection to it."""

    def __init__(self, directory: Path):
        self.directory = directory
        (directory / "executions").mkdir(parents=True, exist_ok=True)
        self.events: list[dict] = []
        self._received = b""
        command = [*PROGRAM, "keeper", str(directory)]
        with open(directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.connect()

    def connect(self) -> dict:
        """A new connection, as of a new worker; the keeper's hello."""
        base = os.open(self.directory, os.O_RDONLY)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(f"/proc/self/fd/{base}/keeper.sock")
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self.socket.close()
                assert time.monotonic() < deadline and self.process.poll() is None, "no keeper"
                time.sleep(0.01)
        os.close(base)
        self.say(op="hello", env=dict(os.environ))
        return self.event("hello")

    def say(self, **message) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def run(self, number: int, *argv: str, **more) -> Path:
        """Has a command run; its directory."""
        directory = self.directory / "executions" / str(number)
        (directory / "temp").mkdir(parents=True, exist_ok=True)
        order = {"cwd": str(directory / "temp"), "grace": 5.0, "deadline": processes.boot_seconds() + 60, **more}
        self.say(op="run", id=number, dir=str(directory), argv=list(argv), **order)
        return directory

    def sh(self, number: int, script: str, **more) -> Path:
        return self.run(number, "sh", "-c", script, **more)

    def signal(self, number: int, order: str, **more) -> None:
        self.say(op="signal", id=number, order=order, grace=more.pop("grace", 0.3), **more)

    def event(self, kind: str, number: int | None = None, seconds: float = PATIENCE_SECONDS) -> dict:
        """The next event of a kind (about an execution); those of others are kept for later."""
        deadline = time.monotonic() + seconds
        while True:
            for one in self.events:
                if one["event"] == kind and number in (None, one.get("id")):
                    self.events.remove(one)
                    return one
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"no {kind} of {number} within {seconds} s, but {self.events}") from None
            assert data, f"the keeper is gone: {(self.directory / 'log').read_text()}"
            *lines, self._received = (self._received + data).split(b"\n")
            self.events += map(json.loads, lines)

    def ended(self, number: int, seconds: float = PATIENCE_SECONDS) -> dict:
        return self.event("ended", number, seconds)

    def living(self, directory: Path) -> set[int]:
        """The processes that carry the mark of an execution."""
        table = processes.processes()
        return {
            pid
            for pid in table
            if table[pid].state != "Z" and processes.environment_value(pid, "SCITQ_EXECUTION_DIR") == str(directory)
        }

    def close(self) -> None:
        """Ends the keeper and all its commands; it must not have stumbled."""
        self.socket.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_SECONDS)
        for pid in [pid for execution in (self.directory / "executions").iterdir() for pid in self.living(execution)]:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)
        log = (self.directory / "log").read_text()
        assert "Traceback" not in log, log


def until(condition, seconds: float = PATIENCE_SECONDS):
    """Waits until the condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return value
