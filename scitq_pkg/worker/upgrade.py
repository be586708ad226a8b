"""A worker becomes the one file that its server names: fetched, checked, tried, and then this very process goes on as it.

What runs belongs to the keeper and notices nothing. Whatever fails leaves the worker as it is, and is told to the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable

from .. import program
from ..errors import ScitqError
from ..transport import Connection, raise_for
from .errand import Errand

FETCH_SECONDS = 1800.0
TRY_SECONDS = 120.0  # the new file has to tell its version
PATH = "/install/scitq.pyz"


class UpgradeFailed(ScitqError):
    """This worker cannot become what it should."""


class Upgrade:
    """What the server wants this worker to run, and how far that is."""

    def __init__(self, connect: Callable[[], Connection], tell: Callable[[], None], broken: str | None):
        """`connect()` gives a connection with the worker's own token; `tell()` has the server told. `broken`: what the worker
        had gone on as, and ended before it had registered."""
        self.ready = asyncio.Event()  # the file at `path` is to be gone on as
        self.wanted: str | None = None
        self.path: str | None = None
        self.failed: str | None = None  # what it could not be upgraded to, and
        self.why: str | None = None  # why not
        self._connect, self._tell = connect, tell
        self._task: asyncio.Task | None = None
        if broken is not None:
            self.fail(broken, "it ended before it had registered with the server: its log tells more")

    def hear(self, wanted: str | None) -> None:
        """What an answer of the server says of it."""
        if wanted is None:
            self.failed = self.why = None
        elif wanted != self.failed and self._task is None and not self.ready.is_set():
            self.wanted = wanted
            self._task = asyncio.get_running_loop().create_task(self._prepare(wanted))

    def fail(self, wanted: str, why: str) -> None:
        """It stays as it is."""
        self.failed, self.why, self.path = wanted, why, None
        self._tell()

    async def _prepare(self, wanted: str) -> None:
        try:
            self.path = await Errand("upgrade").do(_fetched, self._connect, wanted)
            self.ready.set()
        except (ScitqError, OSError) as error:
            self.fail(wanted, getattr(error, "message", None) or getattr(error, "strerror", None) or str(error))
        finally:
            self._task = None


def _fetched(connect: Callable[[], Connection], wanted: str) -> str:
    """The path of a copy of the one file with this sum, which runs here. Raises ScitqError, OSError."""
    if program.the_one_file() is None:
        raise UpgradeFailed("it runs from a checkout or an install, and not from the one file: upgrade it there, and restart it")
    error: OSError = FileNotFoundError(2, "there is no folder to fetch it to")
    for path in program.places_of(wanted):
        beside = f"{path}.{os.getpid()}"
        try:
            if os.path.exists(path) and program.sum_of(path) == wanted:
                _try_out(path)
            else:
                _fetch(connect, wanted, beside)
                _try_out(beside)
                os.rename(beside, path)
            return path
        except OSError as raised:  # a full or read-only cache: the next one may do
            error = raised
        finally:
            with contextlib.suppress(OSError):  # it is in its place, or was never there
                os.unlink(beside)
    raise error


def _fetch(connect: Callable[[], Connection], wanted: str, path: str) -> None:
    """Writes it, whole and on the disk."""
    with open(path, "wb+") as file, connect() as connection:
        raise_for(connection.request("GET", PATH, timeout=FETCH_SECONDS, into=file))
        file.flush()
        os.fsync(file.fileno())
    found = program.sum_of(path)
    if found != wanted:
        raise UpgradeFailed(f"the server gave {found[:12]} and had named {wanted[:12]}: ask for the upgrade again")


def _try_out(path: str) -> None:
    """Raises UpgradeFailed when the file does not run with this Python on this machine."""
    words = [*program.interpreter(), path, "--version"]
    try:
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TRY_SECONDS, check=True)
    except subprocess.TimeoutExpired:
        raise UpgradeFailed(f"the new version did not tell its version within {TRY_SECONDS:g} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"it ended with {error.returncode}"])[-1]
        raise UpgradeFailed(f"the new version does not run here: {said:.300}") from None


def children() -> list[int]:
    """The processes that this one had started as what it was before."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # a kernel that does not tell
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    return found


def reap(pids: list[int]) -> None:
    """Takes leave of those that have ended: nobody else waits for them."""
    for pid in list(pids):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            pids.remove(pid)
