"""The server's side of a question to a provider: the process is started, heard, and killed when it is too slow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping

from .. import program
from .agent import CODES
from .provider import CloudTrouble

DEADLINES = {"check": 60.0, "create": 900.0, "list": 120.0, "delete": 900.0, "flavors": 600.0}  # seconds
_MOST_CHARACTERS = 2000  # of an error: some providers answer with a whole page
_ENDING_SECONDS = 10.0  # for a process that has answered


class Stopped(CloudTrouble):
    """`stop()` ended the question before its answer came."""

    code = "stopped"


class Call:
    """One question to a provider in a process of its own. Threads may call `stop`."""

    def __init__(self, question: Mapping, tell: Callable[[str], None], seconds: float | None = None):
        """`question` as `agent` says it; `tell` gets the lines of its log."""
        self._question, self._tell = question, tell
        self._seconds = DEADLINES[question["call"]] if seconds is None else seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._why: str | None = None  # why it was killed

    def answer(self):
        """The answer. Raises CloudTrouble, NoRoom, CloudRefused; Stopped after `stop()`."""
        self._start()
        clock = threading.Timer(self._seconds, self._kill, ["slow"])
        clock.daemon = True
        clock.start()
        try:
            said = self._listen()
        finally:
            clock.cancel()
            self._end()
        if said is None:
            raise self._silence()
        if "error" in said:
            raise CODES.get(said["error"]["code"], CloudTrouble)(said["error"]["message"][:_MOST_CHARACTERS])
        return said["result"]

    def stop(self) -> None:
        """Ends the question, begun or not."""
        self._kill("stopped")

    def _start(self) -> None:
        with self._lock:
            if self._why is not None:
                raise self._silence()
            try:
                self._process = subprocess.Popen(
                    program.command("cloud"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/"
                )
            except OSError as error:
                raise CloudTrouble(f"no process can be started that asks the provider: {error.strerror}") from None
        with contextlib.suppress(BrokenPipeError):  # it ended at once: its silence tells
            self._process.stdin.write(json.dumps(self._question).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> dict | None:
        """Its last word; None if it ended without one."""
        for line in self._process.stdout:
            if not line.endswith(b"\n"):  # killed while it said so
                return None
            said = json.loads(line)
            if "log" in said:
                self._tell(said["log"])
            else:
                return said
        return None

    def _end(self) -> None:
        process = self._process
        with contextlib.suppress(BrokenPipeError):  # what it did not read is of no use to it
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill("slow")
        with self._lock:
            self._end_group()
            process.wait()

    def _kill(self, why: str) -> None:
        with self._lock:
            self._why = self._why or why
            if self._process is not None:
                self._end_group()

    def _end_group(self) -> None:
        """Ends it and what it started; the caller has the lock."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it has ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def _silence(self) -> CloudTrouble:
        name, call = self._question["provider"], self._question["call"]
        if self._why == "stopped":
            return Stopped(f"provider {name} is not asked any more: {call} was stopped")
        if self._why == "slow":
            return CloudTrouble(f"provider {name} did not answer {call} within {self._seconds:g} s")
        return CloudTrouble(
            f"the process that asked provider {name} for {call} ended without an answer: the server's log may tell"
        )
