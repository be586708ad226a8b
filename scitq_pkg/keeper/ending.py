"""Ends everything that a worker's directory has: the worker's process, its keeper, and what the keeper runs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

from ..protocol import KILL_GRACE_SECONDS
from . import LOCK_FILE, WORKER_LOCK_FILE, processes
from .command import MARK

_LAST_WORDS_SECONDS = 5.0  # for a worker that is asked to end
_KEEPER_SECONDS = KILL_GRACE_SECONDS + 10.0  # for a keeper that ends what it runs
_POLL_SECONDS = 0.02


def end(directory: str) -> None:
    """Returns when nothing of a worker's directory lives any more. One that is not there has nothing.

    The worker is asked first and tells its server what it still can; then the keeper, which ends what it runs, containers too;
    what is left is killed. Killed half-way it may be done again. Raises TimeoutError if something outlives SIGKILL.
    """
    directory = os.path.realpath(directory)
    _ended(_holders(directory, WORKER_LOCK_FILE), signal.SIGTERM, _LAST_WORDS_SECONDS)
    _ended(_holders(directory, WORKER_LOCK_FILE), signal.SIGKILL, _LAST_WORDS_SECONDS)
    keepers = _holders(directory, LOCK_FILE)
    _ended(keepers, signal.SIGTERM, _KEEPER_SECONDS)
    table = processes.processes()
    below = processes.descendants(table, [one.pid for one in keepers if _lives(one)])
    left = [table[pid] for pid in below] + _marked(directory)
    if not _ended(left, signal.SIGKILL, _LAST_WORDS_SECONDS):
        raise TimeoutError(
            f"processes of {directory} outlive SIGKILL: {', '.join(str(one.pid) for one in left if _lives(one))}"
        )


def _holders(directory: str, name: str) -> list[processes.Process]:
    """The processes that have this file of the directory open: a lock that only its owner opens for longer than a moment."""
    path, found = os.path.join(directory, name), []
    for one in processes.processes().values():
        with contextlib.suppress(OSError):  # it ended, or is another user's
            fds = os.listdir(f"/proc/{one.pid}/fd")
            if path in processes.links(one.pid, *(f"fd/{fd}" for fd in fds)):
                found.append(one)
    return found


def _marked(directory: str) -> list[processes.Process]:
    """Commands of the directory that no keeper has any more: it was killed."""
    executions = os.path.join(directory, "executions") + os.sep
    found = processes.processes().values()
    return [one for one in found if (processes.environment_value(one.pid, MARK) or "").startswith(executions)]


def _ended(some: Iterable[processes.Process], number: int, seconds: float) -> bool:
    """Signals these very processes and waits for their ends, so long at most; whether all have ended."""
    some = list(some)
    for one in some:
        processes.signal_exactly(one, number)
    return _until(lambda: not any(map(_lives, some)), seconds)


def _lives(one: processes.Process) -> bool:
    now = processes.process(one.pid)
    return now is not None and now.start == one.start and now.state != "Z"


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
