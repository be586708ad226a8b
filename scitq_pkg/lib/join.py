"""Waiting for many tasks at once, with progress, second chances, and no waiting for what cannot come."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable

from ..errors import TaskFailed
from ..protocol import CANCELED, FAILED, FINAL, SUCCEEDED, WAITING
from .client import Client
from .objects import range_groups, ranges
from .progress import Progress

DELETED = "deleted"  # in the counts of `join`: tasks that somebody deleted meanwhile
_POLL_SECONDS = 20.0
_CROWDED_SECONDS = 0.5  # a crowded server answers at once that nothing is new
_SHOWN_IDS = 5


def join(client: Client, ids: list[int], retry: int = 1, check: bool = False, progress: bool | None = None) -> dict[str, int]:
    """See `Server.join`."""
    if not ids:
        return {}
    with contextlib.closing(client.another()) as own, Progress(len(set(ids)), progress) as shown:
        wait = _Wait(own, ids, retry, shown)
        counts = wait.until_done()
        if check and counts.get(SUCCEEDED, 0) < len(wait.ids):
            raise TaskFailed(wait.sentence(counts))
    return counts


class _Wait:
    """One call of join: what is waited for, and who has had how many chances."""

    def __init__(self, client: Client, ids: list[int], retry: int, progress: Progress):
        self.client, self.ids, self.retry, self.progress = client, sorted(set(ids)), retry, progress
        self.groups = range_groups(self.ids)
        self.chances: Counter[int] = Counter()
        # Between two questions: many tasks end every second, and each question counts them all.
        self.pause_seconds = 0.05 + len(self.ids) / 100_000

    def until_done(self) -> dict[str, int]:
        """The counts of the end."""
        version, known_failures = None, 0
        while True:
            before, (version, counts) = version, self._counts(version)
            self.progress.show(counts)
            failures = counts.get(FAILED, 0)
            done = self._all_final(counts)
            if failures and self.retry > 0 and (done or failures != known_failures):
                if self._relaunch():
                    continue
            known_failures = failures
            if done or self._rest_is_blocked(counts):
                return counts
            time.sleep(self.pause_seconds if version != before else _CROWDED_SECONDS)

    def _counts(self, version: int | None) -> tuple[int, dict[str, int]]:
        """The tasks in each state, as soon as they changed. The version is that of the first request: nothing is missed."""
        total: Counter[str] = Counter()
        first = None
        for group in self.groups:
            wait = {"version": version, "wait": _POLL_SECONDS} if first is None and version is not None else {}
            answer = self.client.get("/tasks/counts", ids=group, **wait)
            first = answer["version"] if first is None else first
            total.update({state: number for state, number in answer["counts"].items() if number})
        if missing := len(self.ids) - sum(total.values()):
            total[DELETED] = missing
        return first, dict(total)

    def _relaunch(self) -> bool:
        """Queues again the failures that have a chance left; whether there were any."""
        again = [task["id"] for task in self._tasks(state=FAILED) if self.chances[task["id"]] < self.retry]
        if again:
            self.chances.update(again)
            self.client.send("POST", "/tasks/relaunch", {"ids": again})
        return bool(again)

    def _all_final(self, counts: dict[str, int]) -> bool:
        return all(state in FINAL or state == DELETED for state in counts)

    def _rest_is_blocked(self, counts: dict[str, int]) -> bool:
        """Whether all that is left waits for tasks that will not succeed; says so."""
        left = sum(number for state, number in counts.items() if state not in FINAL and state != DELETED)
        if left != counts.get(WAITING, 0):
            return False
        blocked = blocked_tasks(self.client, self.ids)
        if len(blocked) < left:
            return False
        for number, (cause, state) in sorted(blocked.items())[:_SHOWN_IDS]:
            self.progress.say(f"task {number} is not waited for: it needs task {cause}, which is {state}")
        return True

    def _tasks(self, **query) -> list[dict]:
        return tasks_of(self.client, self.ids, **query)

    def sentence(self, counts: dict[str, int]) -> str:
        """What did not succeed, and which ones to look at."""
        bad = {state: number for state, number in counts.items() if state != SUCCEEDED}
        told = ", ".join(f"{number} {state}" for state, number in sorted(bad.items()))
        failed = ranges([task["id"] for task in self._tasks(state=FAILED)][:_SHOWN_IDS]) if FAILED in bad else ""
        hint = f": look at {failed} first" if failed else ""
        return f"{sum(bad.values())} of {len(self.ids)} tasks did not succeed ({told}){hint}"


def blocked_tasks(client: Client, ids: Iterable[int]) -> dict[int, tuple[int, str]]:
    """The tasks that wait, directly or through others, for one that will not succeed: that one, and its state."""
    waiting = {task["id"]: task.get("require") or [] for task in tasks_of(client, ids, state=WAITING)}
    mine, lost = set(waiting), {}
    seen = set(waiting)
    while unknown := {number for needs in waiting.values() for number in needs} - seen:
        seen |= unknown
        found = {task["id"]: task for task in tasks_of(client, unknown)}
        for number in unknown:
            state = found[number]["state"] if number in found else DELETED
            if state == WAITING:
                waiting[number] = found[number].get("require") or []
            elif state in (FAILED, CANCELED, DELETED):
                lost[number] = (number, state)
    while reached := {n: lost[need] for n, needs in waiting.items() if n not in lost for need in needs if need in lost}:
        lost |= reached
    return {number: lost[number] for number in sorted(mine) if number in lost}


def tasks_of(client: Client, ids: Iterable[int], **query) -> list[dict]:
    """Those of these tasks that are there and pass the filters."""
    return [task for group in range_groups(ids) for task in client.pages("/tasks", ids=group, **query)]
