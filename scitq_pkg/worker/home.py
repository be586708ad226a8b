"""The worker's directory: one process at a time, who it is to its server, and the directory of its executions."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile

from ..durable import write_whole
from ..errors import Conflict, InvalidRequest, NotAllowed
from ..keeper import WORKER_LOCK_FILE
from ..protocol import WORKER_NAME

WORKER_FILE = "worker.json"
EXECUTIONS = "executions"


def default_scratch() -> str:
    """`/scratch` if it is there and writable, else in the user's cache directory, without HOME `TMPDIR/scitq-UID/scratch`."""
    if os.path.isdir("/scratch") and os.access("/scratch", os.W_OK | os.X_OK):
        return "/scratch"
    home = os.environ.get("HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else None)
    if cache and os.access(_nearest_existing(cache), os.W_OK | os.X_OK):
        return os.path.join(cache, "scitq", "scratch")
    return os.path.join(tempfile.gettempdir(), f"scitq-{os.getuid()}", "scratch")


def _nearest_existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


class Home:
    """`<scratch>/<name>/`. Raises a ScitqError in a sentence when it cannot be used, Conflict when another process does."""

    def __init__(self, scratch: str, name: str):
        if not re.fullmatch(WORKER_NAME, name):
            raise InvalidRequest(
                f"{name!r:.120} cannot be the name of a worker: letters, digits, '.', '-' and '_', up to 100", field="name"
            )
        self.name = name
        self.path = os.path.join(os.path.abspath(scratch), name)
        self.executions = os.path.join(self.path, EXECUTIONS)
        self._make(scratch)
        self._lock()

    def _make(self, scratch: str) -> None:
        try:
            os.makedirs(scratch, mode=0o755, exist_ok=True)
            for path in (self.path, self.executions):
                os.makedirs(path, mode=0o711, exist_ok=True)  # a task of another user reaches its own, and sees no other
            owner = os.stat(self.path).st_uid
        except OSError as error:
            message = (
                f"the scratch directory {scratch} cannot be used: {error.strerror or error}: give another one with --scratch"
            )
            raise NotAllowed(message) from None
        if owner != os.geteuid():
            raise NotAllowed(f"{self.path} belongs to another user: give another --scratch or --name")

    def _lock(self) -> None:
        try:
            self._lock_fd = os.open(os.path.join(self.path, WORKER_LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"a worker {self.name} runs already in {self.path}: stop it, or give this one another --name"
            ) from None
        except OSError as error:
            raise NotAllowed(f"{self.path} cannot be written: {error.strerror}: give another one with --scratch") from None

    def read(self) -> dict:
        """What the worker noted of itself (key, id, token, since); empty the first time."""
        try:
            with open(os.path.join(self.path, WORKER_FILE), encoding="utf-8") as file:
                noted = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"{os.path.join(self.path, WORKER_FILE)} cannot be read ({error}): remove it to start as a new worker"
            ) from None
        return noted

    def write(self, noted: dict) -> None:
        """Notes it, in a 0600 file that is replaced in one step. Raises NotAllowed when the disk does not take it."""
        path = os.path.join(self.path, WORKER_FILE)
        try:
            write_whole(path, json.dumps(noted).encode(), 0o600)
        except OSError as error:
            raise NotAllowed(f"{path} cannot be written: {error.strerror}: make room, or give another --scratch") from None

    def discard_executions(self) -> None:
        """Removes the directories of all executions: they are another server's."""
        shutil.rmtree(self.executions, ignore_errors=True)
        os.makedirs(self.executions, mode=0o711, exist_ok=True)
