"""The private server and worker of `scitq run`: all of it in one folder and in one process tree, which ends as a whole.

Both children end when the pipe that is their standard input closes: so they do too when this process is killed. They hold the
folder's lock with it: whoever has the lock knows that nothing of an earlier run is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from dataclasses import fields
from pathlib import Path

from . import program
from .address import LOOPBACK
from .auth import TOKENS_FILE, find_token
from .errors import Conflict, NotAllowed, ScitqError
from .lib import Server
from .settings import Settings

WORKER_NAME = "local"
_LOCK_FILE = "run.lock"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0  # the worker kills what runs, and reports it
_PREDECESSOR_SECONDS = 20.0  # for the children of a run that was killed
_POLL_SECONDS = 0.02
_MOST_RESTARTS = 3
_PATIENCE_SECONDS = 5.0  # for an answer of the server: if it has ended, waiting longer would not help
_OF_OTHERS = ("SCITQ_SERVER", "SCITQ_TOKEN", "SCITQ_CA", *(f"SCITQ_{field.name.upper()}" for field in fields(Settings)))


class Embedded:
    """A folder (`.scitq`), and in it a server and a worker that live as long as the `with` block."""

    def __init__(self, folder: Path):
        """Raises Conflict if another run uses the folder, NotAllowed if it cannot be used."""
        self.folder = folder.absolute()
        self.server: Server
        self._children: dict[str, subprocess.Popen] = {}
        self._worker_words: list[str] = []
        self._restarts = 0
        self._make()
        self._lock = self._take_lock()
        for name in _OF_OTHERS:  # meant for other servers
            os.environ.pop(name, None)
        os.environ["SCITQ_CONFIG"] = str(self.folder)

    def __enter__(self) -> Embedded:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    # --- the folder ---------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n")
        except OSError as error:
            raise NotAllowed(f"the folder {self.folder} cannot be used: {error.strerror}: give another with --state") from None

    def _take_lock(self) -> int:
        """The descriptor of the lock, which says who has it. The children of a run that was killed are waited for."""
        descriptor = os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            owner = os.pread(descriptor, 20, 0).decode()
            if _lives(owner) or time.monotonic() > deadline:
                os.close(descriptor)
                raise Conflict(
                    f"another `scitq run` (process {owner}) works in {self.folder}: wait for it, or give another with --state"
                )
            time.sleep(_POLL_SECONDS)

    # --- the two children ---------------------------------------------------------------------------------------------

    def start_server(self) -> Server:
        """Starts the server; a client of it."""
        told = self.folder / "server.json"
        told.unlink(missing_ok=True)
        self._start("server", "--host", LOOPBACK, "--port", "0", "--data", str(self.folder), "--quiet", "--stop-with-parent")
        deadline = time.monotonic() + _START_SECONDS
        while not told.exists():
            self.check()
            if time.monotonic() > deadline:
                raise ScitqError(f"the private server does not start: its log is {self._log('server')}")
            time.sleep(_POLL_SECONDS)
        url = json.loads(told.read_text())["url"]
        os.environ["SCITQ_SERVER"] = url  # what tasks launch goes there too
        self.server = Server(url, get_timeout=_PATIENCE_SECONDS, put_timeout=_PATIENCE_SECONDS)
        return self.server

    def start_worker(self, batch: str, concurrency: int) -> None:
        """Starts the worker. One of an earlier run keeps what the server knows of it, so it is told what holds now."""
        self._worker_words = [
            self.server.url, str(concurrency), "--batch", batch, "--name", WORKER_NAME, "--scratch", str(self.folder / "scratch"),
            "--stop-with-parent",
        ]  # fmt: skip
        known = [worker for worker in self.server.client.pages("/workers") if worker["name"] == WORKER_NAME]
        if known and not (self.folder / "scratch" / WORKER_NAME / "worker.json").exists():  # somebody removed its directory
            self.server.worker_delete(known.pop()["id"])
        self._start("worker", *self._worker_words)
        for worker in known:
            if (worker["batch"], worker["concurrency"]) != (batch, concurrency):
                self.server.worker_update(worker["id"], batch=batch, concurrency=concurrency)

    def check(self) -> None:
        """Starts a worker that was killed again: what it ran goes on. Raises ScitqError if a child has ended for good."""
        for name, child in list(self._children.items()):
            if child.poll() is None:
                continue
            if name == "worker" and child.returncode < 0 and self._restarts < _MOST_RESTARTS:
                self._restarts += 1
                self._start("worker", *self._worker_words)
                continue
            raise ScitqError(
                f"the private {name} ended ({_how(child.returncode)}): {self._last_words(name)}; its log is {self._log(name)}"
            )

    def link(self, private: bool) -> str:
        """The address for a browser. Where nobody else reads it, with the token that signs it in."""
        if private:
            return f"{self.server.url}/login?token={find_token(self.server.url)}"
        return f"{self.server.url}/login, with the token of {self.folder / TOKENS_FILE}"

    def stop(self) -> None:
        """Ends the worker with all it runs, which the server still hears of, then the server. Done again it goes on waiting."""
        for name in ("worker", "server"):
            child = self._children.get(name)
            if child is None:
                continue
            _close(child)
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            del self._children[name]

    def _start(self, name: str, *words: str) -> subprocess.Popen:
        """A child of its own session: Ctrl-C is for this process, which ends its children in order."""
        with open(self._log(name), "wb") as log:
            child = subprocess.Popen(
                program.command(name, *words),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        self._children[name] = child
        return child

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _lives(pid: str) -> bool:
    """Whether the process that wrote its id into the lock is there; one that has not written it yet is."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True


def _close(child: subprocess.Popen) -> None:
    if child.stdin is not None:
        child.stdin.close()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
