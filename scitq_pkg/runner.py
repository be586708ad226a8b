"""The worker's side of the keeper: finds it or starts it, tells it what to run, and hears of ends.

The keeper outlives the worker and, rarely, the worker outlives the keeper: after every connection the keeper's `hello` says what
really runs, and whoever uses this compares it with what they think.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable

from . import program
from .errors import ScitqError
from .keeper import LOG_FILE, SOCKET_FILE

START_SECONDS = 20.0  # a machine under load takes long to start a process
_PRIVATE = ("SCITQ_TOKEN", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")


class KeeperGone(ScitqError):
    """The keeper can neither be reached nor started."""


def inherited_environment() -> dict[str, str]:
    """The environment of this process without what is its own secret or its own business with systemd."""
    return {name: value for name, value in os.environ.items() if name not in _PRIVATE}


class Runner(asyncio.Protocol):
    """A connection to the keeper of a worker's directory; `on_event` gets each of its messages (see `keeper`)."""

    def __init__(self, directory: str, on_event: Callable[[dict], None]):
        self.directory = directory
        self._on_event = on_event
        self._base = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._process: subprocess.Popen | None = None
        self._closing = False
        self._again: asyncio.Task | None = None
        self._log_size = 0

    # --- connection -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects to the keeper, starting one if there is none; its `hello` follows as an event. Raises KeeperGone."""
        path = f"/proc/self/fd/{self._base}/{SOCKET_FILE}"  # a socket's own path may have 107 bytes only
        deadline, started_at = time.monotonic() + START_SECONDS, 0.0
        while True:
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: self, path)
                return
            except (FileNotFoundError, ConnectionError) as error:
                now = time.monotonic()
                if now > deadline:
                    raise KeeperGone(
                        f"no process can be started that runs the commands of {self.directory}{self._log_end()}"
                    ) from error
                if self._process is None or self._process.poll() is not None and now > started_at + 1.0:
                    self._start()
                    started_at = now
            await asyncio.sleep(0.01)

    def _start(self) -> None:
        log = os.open(LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600, dir_fd=self._base)
        self._log_size = os.fstat(log).st_size
        try:
            self._process = subprocess.Popen(
                program.command("keeper", self.directory),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", env=inherited_environment(),
            )  # fmt: skip
        except OSError as error:
            raise KeeperGone(f"no process can be started that runs the commands: {error.strerror}") from None
        finally:
            os.close(log)

    def _log_end(self) -> str:
        """What a keeper that failed to start has said."""
        with contextlib.suppress(OSError), open(os.path.join(self.directory, LOG_FILE), errors="replace") as file:
            file.seek(self._log_size)
            if lines := file.read().strip().splitlines():
                return f": {lines[-1]}"
        return ""

    def close(self, leave: bool = True) -> None:
        """Parts from the keeper, which goes on with what runs; with `leave` it ends as soon as nothing does."""
        self._closing = True
        if self._again:
            self._again.cancel()
        if self._process and self._process.poll() is None:
            self._process.returncode = 0  # it outlives this one on purpose
        if self._transport:
            if leave:
                self._say(op="leave")
            self._transport.close()
        os.close(self._base)

    # --- orders ---------------------------------------------------------------------------------------------------

    def run(self, order: dict) -> None:
        """Starts a command: `order` as `keeper` says it, without `op`."""
        self._say(op="run", **order)

    def signal(self, execution: int, order: str, grace: float = 0.0, asked: str | None = None) -> None:
        """Signals the tree of a command: suspend, resume, term (SIGKILL after `grace` seconds) or kill."""
        self._say(op="signal", id=execution, order=order, grace=grace, asked=asked or order)

    def forget(self, execution: int) -> None:
        """The end of this execution is known: the keeper need not tell it again."""
        self._say(op="forget", id=execution)

    def renew(self) -> None:
        """Has another keeper take over, of the version that runs here, as soon as nothing runs."""
        self._say(op="leave")

    def _say(self, **message) -> None:
        if self._transport is not None:  # else: the next `hello` makes good what was not heard
            self._transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    # --- asyncio's side -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._received = transport, b""
        self._say(op="hello", env=inherited_environment())

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._on_event(json.loads(line))

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if not self._closing:
            self._on_event({"event": "parted"})
            self._again = asyncio.get_running_loop().create_task(self._open_again())

    async def _open_again(self) -> None:
        pause = 0.05
        while True:
            try:
                await self.open()
                return
            except KeeperGone as error:
                self._on_event({"event": "unreachable", "why": str(error)})
            await asyncio.sleep(pause)
            pause = min(2 * pause, 10.0)
