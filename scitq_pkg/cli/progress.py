"""What `scitq run` shows: each end as a line, failures with their last words, a bar on a terminal, a sum at the end."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter

from ..batchfile import Applied
from ..embedded import WORKER_NAME, Embedded
from ..errors import NotFound
from ..escapes import obeyed
from ..lib.ends import exit_words, last_lines
from ..lib.objects import range_groups, to_datetime
from ..lib.progress import Progress
from ..machine import disk_problem
from ..protocol import FINAL, PENDING, SUCCEEDED, WAITING

_POLL_SECONDS = 2.0  # the longest wait for news; then server and worker are looked at
_STUCK_SECONDS = 10.0  # without any task running: then it is told why


class Watch:
    """The tasks of a file on their way."""

    def __init__(self, embedded: Embedded, applied: Applied, quiet: bool):
        self.embedded, self.client = embedded, embedded.server.client
        self.quiet = quiet
        self.names = {task_id: name for name, task_id in applied.ids.items()}
        self.left = set(self.names)
        self.counts: Counter[str] = Counter()
        self.before = 0  # that had succeeded when this began
        self.start = time.monotonic()
        self.moved = self.start
        self.trouble: str | None = None  # as it was told last
        self.progress = Progress(len(self.names), on=obeyed(sys.stderr) and not quiet)
        self._width = min(40, max(map(len, self.names.values())))
        self._tell_ends(silently=True)

    def __enter__(self) -> Watch:
        self.progress.__enter__()
        return self

    def __exit__(self, *_) -> None:
        self.progress.__exit__()

    @property
    def all_succeeded(self) -> bool:
        return self.counts[SUCCEEDED] == len(self.names)

    def until_done(self) -> None:
        """Until every task has ended, or waits for one that did not succeed."""
        version = None
        while True:
            version = self._count(version)
            self._tell_ends()
            self.progress.show(dict(self.counts))
            if sum(self.counts[state] for state in (*FINAL, WAITING)) == sum(self.counts.values()):
                return
            self.embedded.check()
            self._tell_if_stuck()
            time.sleep(0.05 + len(self.names) / 100_000)  # many end every second, and each question counts them all

    def _count(self, version: int | None) -> int:
        """How many are in each state, as soon as that changed. The version is that of the first request: nothing is missed."""
        counts: Counter[str] = Counter()
        first = None
        for group in range_groups(self.names):
            wait = _POLL_SECONDS if first is None and version is not None else None
            answer = self.client.get("/tasks/counts", wait=wait, version=version if wait else None, ids=group)
            first = answer["version"] if first is None else first
            counts.update(answer["counts"])
        if counts != self.counts:
            self.moved = time.monotonic()
        self.counts = counts
        return first

    def _tell_ends(self, silently: bool = False) -> None:
        """A line for each task that has ended since the last time."""
        for group in range_groups(self.left):
            for task in self.client.pages("/tasks", ids=group, state=",".join(FINAL)):
                self.left.discard(task["id"])
                if silently:
                    self.before += task["state"] == SUCCEEDED
                elif task["state"] == SUCCEEDED:
                    self._say(
                        self._line(task, _seconds(task) + (f", attempt {task['attempts']}" if task["attempts"] > 1 else ""))
                    )
                else:
                    self._tell_failure(task)

    def _tell_failure(self, task: dict) -> None:
        attempts = f", {task['attempts']} attempts" if task["attempts"] > 1 else ""
        self._say(self._line(task, exit_words(task) + attempts), always=True)
        if not task["started_at"]:
            return
        for line in last_lines(self.client, self.client.get(f"/executions/{task['execution_id']}")):
            self._say(f"    | {line}", always=True)
        directory = self.embedded.folder / "scratch" / WORKER_NAME / "executions" / str(task["execution_id"])
        if directory.exists():
            self._say(f"    its files: {os.path.relpath(directory)}/", always=True)

    def _tell_if_stuck(self) -> None:
        """When the disk is full; and when nothing runs though something could: the server knows why."""
        silent = time.monotonic() - self.moved
        if silent >= _POLL_SECONDS:
            self._tell_trouble()
        active = sum(number for state, number in self.counts.items() if state not in (*FINAL, WAITING, PENDING))
        if active or silent < _STUCK_SECONDS:
            return
        self.moved = time.monotonic()
        for task in self.client.pages("/tasks", most=1, ids=range_groups(self.left)[0], state=PENDING):
            try:
                self._say(self._line(task, self.client.get(f"/tasks/{task['id']}/explain")["sentence"]), always=True)
            except NotFound:  # somebody deleted it meanwhile
                return

    def _tell_trouble(self) -> None:
        """A full disk, once; all waits for room then, and the server on that disk cannot note what the worker says."""
        trouble = disk_problem(str(self.embedded.folder / "scratch" / WORKER_NAME))
        if trouble and trouble.partition(" (")[0] != (self.trouble or "").partition(" (")[0]:
            self._say(f"scitq: {trouble}", always=True)
        self.trouble = trouble

    def _line(self, task: dict, detail: str) -> str:
        return f"{task['state']:<9}  {self.names[task['id']]:<{self._width}}  {detail}".rstrip()

    def _say(self, line: str, always: bool = False) -> None:
        if self.progress.on:
            self.progress.say(line)
        elif always or not self.quiet:
            print(line, flush=True)

    def sum_up(self) -> None:
        """One line about all."""
        if self.quiet and self.all_succeeded:
            return
        if self.before == len(self.names):
            print(f"{len(self.names)} tasks: all of them had succeeded before", flush=True)
            return
        now = self.counts[SUCCEEDED] - self.before
        parts = [f"{now} succeeded" + (f" ({self.before} before)" if self.before else "")]
        parts += [f"{number} {state}" for state, number in self.counts.items() if number and state not in (SUCCEEDED, WAITING)]
        if blocked := self.counts[WAITING]:
            parts.append(f"{blocked} wait{'s' if blocked == 1 else ''} for what did not succeed")
        print(f"{len(self.names)} tasks: {', '.join(parts)}; {time.monotonic() - self.start:.1f} s", flush=True)
        if not self.all_succeeded:
            print("Mend it and start the same again: what succeeded is kept, the rest goes on.", flush=True)


def _seconds(task: dict) -> str:
    """How long its last attempt took."""
    if not (task["started_at"] and task["ended_at"]):
        return ""
    return f"{(to_datetime(task['ended_at']) - to_datetime(task['started_at'])).total_seconds():.1f} s"
