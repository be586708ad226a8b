"""Looks at the tasks of a workflow whenever some changed, with a few small questions however many they are."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping

from ..errors import NotFound
from ..lib.client import Client
from ..lib.ends import exit_words, last_lines
from ..lib.join import DELETED, blocked_tasks
from ..lib.objects import range_groups, ranges
from ..protocol import ACCEPTED, ASSIGNED, FAILED, FINAL, PENDING, RUNNING, UPLOADING, WAITING
from .steps import Batch
from .summary import Summary

ACTIVE = (ASSIGNED, ACCEPTED, RUNNING, UPLOADING)
LATEST = 20  # failures that are looked at
_MOST_SECONDS = 60.0  # that a server lets us wait
_NEW = 5  # of them, whose last line is asked for at once
_LINE_CHARACTERS = 200
_STUCK_SECONDS = 10.0  # without anything that runs though something could: then the server is asked why
_BLOCKED_SECONDS = 5.0  # between two looks whether what waits waits for ever


class Watch:
    """What is known of a workflow's tasks: `summary`, `workers` and `stopped` by batch, `over`, and `why` nothing starts."""

    def __init__(self, client: Client, name: str, batches: list[Batch], ids: Mapping[tuple[str, str], int]):
        """`ids`: of the steps that are watched."""
        self.client, self.batches = client, batches
        sent = {batch.name: [step for step in batch.steps.values() if step.key in ids] for batch in batches}
        self.ids = {name: [ids[step.key] for step in steps] for name, steps in sent.items()}
        self.labels = {ids[step.key]: step.label for steps in sent.values() for step in steps}
        self.summary = Summary(name, {batch.name: {} for batch in batches})
        self.workers: dict[str, int] = {}
        self.stopped: dict[str, bool] = {}
        self.over = False
        self.why = ""
        self._glob = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name) + ".*"
        self._version: int | None = None
        self._last_lines: dict[tuple[int, int], str] = {}  # by task and execution
        self._failures: dict[str, list[tuple[str, int, str]]] = {}
        self._start = self._moved = self._blocked_at = time.monotonic()
        self._any = str(min(self.labels, default=0))

    def look(self, patience: float) -> None:
        """Returns with news as soon as tasks changed, or after so many seconds; a crowded server may answer at once."""
        wait = {} if self._version is None else {"wait": min(patience, _MOST_SECONDS), "version": self._version}
        version = self.client.get("/tasks/counts", ids=self._any, **wait)["version"]  # first: nothing is missed
        before = self.summary.counts
        rows = {row["name"]: row for row in self.client.pages("/batches", name=self._glob)}
        for batch in self.batches:
            self._look_at(batch, rows.get(batch.full_name) or {"counts": {}, "workers": 0, "stopped": False})
        if self.summary.counts != before:
            self._moved, self.why = time.monotonic(), ""
            self._blocked_at = 0.0
        self.summary.seconds = time.monotonic() - self._start
        self._judge()
        self._version = version

    def forget(self) -> None:
        """The next look waits for no news."""
        self._version = None

    def _look_at(self, batch: Batch, row: dict) -> None:
        counts = {state: number for state, number in row["counts"].items() if number}
        if sum(counts.values()) != len(self.ids[batch.name]):  # others are there too, or some were deleted
            counts = self._exactly(self.ids[batch.name])
        self.workers[batch.name], self.stopped[batch.name] = row["workers"], row["stopped"]
        failed, known = counts.get(FAILED, 0), self.summary.batches[batch.name].get(FAILED, 0)
        self.summary.batches[batch.name] = counts
        if failed != known:
            self._failures[batch.name] = self._failed(batch) if failed else []
            self.summary.failures = [one for batch in self.batches for one in self._failures.get(batch.name, ())]

    def _exactly(self, ids: list[int]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for group in range_groups(ids):
            total.update(self.client.get("/tasks/counts", ids=group)["counts"])
        total[DELETED] = len(ids) - sum(total.values())
        return {state: number for state, number in total.items() if number}

    def _failed(self, batch: Batch) -> list[tuple[str, int, str]]:
        rows = self.client.pages("/tasks", LATEST, batch=batch.full_name, state=FAILED, order="-id")
        mine = [row for row in rows if row["id"] in self.labels]
        if new := [row for row in mine if (row["id"], row["execution_id"]) not in self._last_lines][:_NEW]:
            said = self._said([row["id"] for row in new])
            self._last_lines.update({(row["id"], row["execution_id"]): said.get(row["id"], "") for row in new})
        return [(self.labels[row["id"]], row["id"], self._words(row)) for row in mine]

    def _said(self, ids: list[int]) -> dict[int, str]:
        """The last line of each of these tasks."""
        found = {}
        for item in self.client.get("/tasks/outputs", ids=ranges(ids))["items"]:
            lines = (item["stderr"].strip() or item["stdout"].strip()).splitlines()
            found[item["id"]] = lines[-1][:_LINE_CHARACTERS] if lines else ""
        return found

    def _words(self, row: dict) -> str:
        line = self._last_lines.get((row["id"], row["execution_id"]))
        return f"{exit_words(row)}: {line}" if line else exit_words(row)

    def _judge(self) -> None:
        """Whether anything can still happen, and if nothing does, why."""
        counts = self.summary.counts
        left = sum(number for state, number in counts.items() if state not in FINAL and state != DELETED)
        if not left:
            self.over, self.summary.blocked = True, []
            return
        now = time.monotonic()
        self.over = False
        if left == counts.get(WAITING, 0) and now > self._blocked_at + _BLOCKED_SECONDS:
            self._blocked_at = now
            blocked = blocked_tasks(self.client, self.labels)
            self.over = len(blocked) >= left
            self.summary.blocked = [(self.labels[task], self._cause(*cause)) for task, cause in blocked.items()]
        elif counts.get(PENDING) and not any(counts.get(state) for state in ACTIVE) and now > self._moved + _STUCK_SECONDS:
            self._moved = now
            self.why = self._explained()

    def _cause(self, task: int, state: str) -> str:
        return f"{self.labels.get(task, f'task {task}')} is {state}"

    def _explained(self) -> str:
        for batch in self.batches:
            if self.summary.batches[batch.name].get(PENDING):
                for task in self.client.pages("/tasks", 1, batch=batch.full_name, state=PENDING):
                    with contextlib.suppress(NotFound):  # somebody deleted it meanwhile
                        sentence = self.client.get(f"/tasks/{task['id']}/explain")["sentence"]
                        return f"{self.labels.get(task['id'], task['id'])}: {sentence}"
        return ""

    def last_words(self, task_id: int, most: int) -> list[str]:
        """The end of what a failed task said."""
        attempts = self.client.get("/executions", task=task_id, order="-id", limit=1)["items"]
        return last_lines(self.client, attempts[0], most) if attempts else []
