"""Commands as futures: `concurrent.futures` where the work is done by the workers of a server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import TaskFailed
from ..protocol import CANCELED, FINAL, STREAMS, SUCCEEDED
from ..transport import Interrupted
from .follow import next_change
from .join import DELETED
from .objects import NO_ID, ids_of, range_groups
from .output import pieces
from .server import Server

_PAUSE_SECONDS = 0.003  # between two questions, at least: ends that come together are learned of together
_LAST_LINE_CHARACTERS = 200


@dataclass(frozen=True)
class TaskResult:
    """What came of a task, of its last execution."""

    task_id: int
    state: str  # succeeded, failed or canceled; deleted if somebody deleted it
    exit_code: int | None  # None if it was ended by a signal, or never ran
    stdout: bytes
    stderr: bytes
    reason: str | None = None  # a sentence, when it did not simply exit

    @property
    def succeeded(self) -> bool:
        """Whether the command did what it was asked."""
        return self.state == SUCCEEDED


class TaskFuture(concurrent.futures.Future):
    """The future of a task; `result()` is a TaskResult, or raises TaskFailed that carries it."""

    task_id: int

    def __init__(self, executor: Executor, task_id: int):
        super().__init__()
        self._executor, self.task_id = executor, task_id
        self._is_canceling = False

    def cancel(self) -> bool:
        """Cancels the task, also while its command runs. False if it had ended."""
        if self.done():
            return self.cancelled()
        self._is_canceling = True  # the watcher may hear of it before we do
        told = self._executor._server.client.send("POST", "/tasks/cancel", {"ids": [self.task_id]})
        if self.task_id not in told["ids"]:
            return False
        if self._executor._take(self.task_id) is not None:
            self._end_canceled()
        concurrent.futures.wait([self])  # else for the watcher, which has it in its hands
        return self.cancelled()

    def _end_canceled(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()  # wakes those who wait for several futures


class Executor(concurrent.futures.Executor):
    """Runs commands on the workers of a server.

        with Executor(batch="align", shell=True) as executor:
            for result in executor.map([f"wc -l {name}" for name in names]):
                print(result.stdout)

    `server` is a Server or what it takes; `defaults` are options of `task_create` for every command. A task that does not succeed
    makes `result()` raise TaskFailed, unless `check` is False. What `submit` returned is recorded by the server: the
    commands run even if this program ends. With `outputs` False stdout and stderr stay on the server.
    """

    def __init__(self, server: Server | str | None = None, *, check: bool = True, outputs: bool = True, **defaults):
        self._server = server if isinstance(server, Server) else Server(server)
        self._check, self._outputs, self._defaults = check, outputs, defaults
        self._open: dict[int, TaskFuture] = {}
        self._lock = threading.Lock()
        self._shut = False
        self._watcher: threading.Thread | None = None
        self._client = self._server.client  # of the watcher, once there is one

    def submit(self, command: str, /, **options) -> TaskFuture:
        """Queues a command, with options of `task_create`; returns when the server has recorded it."""
        return self.submit_all([{"command": command, **options}])[0]

    def submit_all(self, tasks: Iterable[dict]) -> list[TaskFuture]:
        """Queues many commands in one transaction, each a dictionary of the options of `task_create`."""
        if self._shut:
            raise RuntimeError("cannot submit after shutdown")
        specs = [{**self._defaults, **task} for task in tasks]
        futures = [TaskFuture(self, task_id) for task_id in self._server.tasks_create(specs)]
        with self._lock:
            self._open.update((future.task_id, future) for future in futures)
            if self._open and self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="scitq-executor", daemon=True)
                self._watcher.start()
        return futures

    def map(self, commands: Iterable[str], /, timeout: float | None = None, **options) -> Iterator[TaskResult]:
        """The results of these commands, in their order; all are queued at once. Raises TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        futures = self.submit_all({"command": command, **options} for command in commands)
        return self._results(futures, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more commands; waits for those that were given, or cancels them. Without `wait` they go on on the server."""
        self._shut = True
        with self._lock:
            futures, watcher = list(self._open.values()), self._watcher
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            concurrent.futures.wait(futures)
        if wait and watcher is not None:
            self._client.interrupt()  # all is done: there is nothing to hear of any more
            watcher.join()

    def _results(self, futures: list[TaskFuture], deadline: float | None) -> Iterator[TaskResult]:
        for future in futures:
            yield future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))

    # --- the watcher ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """One thread for all tasks: sleeps on the server until something changed, then asks which of ours ended."""
        version = None
        with contextlib.closing(self._server.client.another()) as self._client:
            while not self._is_over():
                start = time.monotonic()
                try:
                    version = next_change(self._client, version, NO_ID)
                    start = time.monotonic()
                    self._settle_ended()
                except Interrupted:
                    continue
                except Exception as error:
                    self._give_up(error)
                time.sleep(max(_PAUSE_SECONDS, time.monotonic() - start))  # at most half of its time it asks

    def _is_over(self) -> bool:
        with self._lock:
            if not self._open:
                self._watcher = None
            return not self._open

    def _settle_ended(self) -> None:
        with self._lock:
            open_ids = list(self._open)
        for group in range_groups(open_ids):
            counts = self._client.get("/tasks/counts", ids=group)["counts"]
            if any(counts.get(state) for state in FINAL):
                for task in self._client.pages("/tasks", ids=group, state=",".join(FINAL)):
                    self._settle(self._result_of(task))
            if sum(counts.values()) < len(ids_of(group)):
                there = {task["id"] for task in self._client.pages("/tasks", ids=group)}
                for task_id in set(ids_of(group)) - there:
                    self._settle(TaskResult(task_id, DELETED, None, b"", b"", "somebody deleted it"))

    def _settle(self, result: TaskResult) -> None:
        future = self._take(result.task_id)
        if future is None:
            return
        if result.state == CANCELED and future._is_canceling:
            future._end_canceled()
            return
        if not future.set_running_or_notify_cancel():
            return
        if self._check and not result.succeeded:
            future.set_exception(TaskFailed(_sentence(result), result=result))
        else:
            future.set_result(result)

    def _take(self, task_id: int) -> TaskFuture | None:
        """The future of a task, for the one who will set it; None if another has it."""
        with self._lock:
            return self._open.pop(task_id, None)

    def _result_of(self, task: dict) -> TaskResult:
        execution = task.get("execution_id")
        wanted = self._outputs and execution
        out, err = (b"".join(pieces(self._client, execution, stream)) if wanted else b"" for stream in STREAMS)
        return TaskResult(task["id"], task["state"], task.get("exit_code"), out, err, task.get("reason"))

    def _give_up(self, error: Exception) -> None:
        """The server refuses to tell (a revoked token...), or was away for longer than is waited: every future says so."""
        with self._lock:
            futures, self._open = list(self._open.values()), {}
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


def _sentence(result: TaskResult) -> str:
    """Why it failed, with the last line of what it said."""
    ended = result.reason or ("without an exit code" if result.exit_code is None else f"exit code {result.exit_code}")
    last = result.stderr.rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")
    return f"task {result.task_id} {result.state} ({ended})" + (f": {last[-_LAST_LINE_CHARACTERS:]}" if last else "")
