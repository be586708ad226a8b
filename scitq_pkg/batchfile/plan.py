"""The server is brought in line with a file: what is new is created, what changed is changed, what failed is queued again."""

from __future__ import annotations

import graphlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from ..lib import Server
from ..protocol import CANCELED, FAILED, SUCCEEDED, TaskSpec
from .model import BatchFile

_APART = ("name", "batch", "require")  # compared in ways of their own
_PLAIN = {known.name: getattr(TaskSpec(command=""), known.name) for known in fields(TaskSpec) if known.name not in _APART}


@dataclass(slots=True)
class Applied:
    """What became of each task of a file: its id, by name. `ids` has all of them, in the file's order."""

    ids: dict[str, int] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)  # changed; queued again if it had ended
    relaunched: dict[str, int] = field(default_factory=dict)  # had not succeeded, or what it needs is done again
    kept: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # could not be changed: why


def apply(server: Server, file: BatchFile) -> Applied:
    """Brings the tasks of a batch in line with a file, by their names. Tasks that the file does not name are left alone.

    New ones are created, changed ones changed; failed and canceled ones are queued again, and so are those that succeeded if they
    changed or if what they need is done again. Each step looks at what the server has: killed anywhere and called again it ends
    the same.
    """
    return _Plan(server, file).carry_out()


class _Plan:
    """The steps from what the server has to what the file says, what is needed always before what needs it."""

    def __init__(self, server: Server, file: BatchFile):
        self.server, self.file = server, file
        self.wanted = {task["name"]: task for task in file.tasks}
        there = list(server.client.pages("/tasks", batch=file.batch, order="id"))
        self.rows = {row["name"]: row for row in there if row["name"] in self.wanted}
        self.names = {row["id"]: row["name"] or "" for row in there}
        self.again: set[str] = set()  # succeeded, and done once more
        self.applied = Applied()

    def carry_out(self) -> Applied:
        ids = {name: row["id"] for name, row in self.rows.items()}
        for rank in self._ranks():
            self._change([name for name in rank if name in self.rows], ids)
            self._create([name for name in rank if name not in self.rows], ids)
        self.applied.ids = {name: ids[name] for name in self.wanted}
        return self.applied

    def _needs(self, name: str, with_canaries: bool = False) -> list[str]:
        """The tasks of this file that it needs; `with_canaries` also those that only go first."""
        first = () if with_canaries else self.file.canaries.get(name, ())
        return [need for need in self.wanted[name].get("require", ()) if isinstance(need, str) and need not in first]

    def _ranks(self) -> list[list[str]]:
        """Names in groups that can be sent at once: in each, existing tasks are changed before new ones come."""
        graph = {name: self._needs(name, with_canaries=True) for name in self.wanted}
        rank: dict[str, int] = {}
        for name in graphlib.TopologicalSorter(graph).static_order():
            step = 1 if name in self.rows else 0
            rank[name] = max((rank[need] + step for need in graph[name]), default=0)
        groups: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
        for name in self.wanted:
            groups[rank[name]].append(name)
        return groups

    def _change(self, names: list[str], ids: dict[str, int]) -> None:
        edits: dict[tuple[str, bool], list[str]] = {}  # the same change for many tasks is one request
        relaunched = []
        for name in names:
            row, changes = self.rows[name], self._changes(name, ids)
            again = row["state"] in (FAILED, CANCELED) or row["state"] == SUCCEEDED and (bool(changes) or self._is_stale(name))
            if again and row["state"] == SUCCEEDED:
                self.again.add(name)
            if changes:
                edits.setdefault((json.dumps(changes, sort_keys=True), again), []).append(name)
            elif again:
                relaunched.append(name)
            else:
                self.applied.kept[name] = row["id"]
        for (changes_json, again), group in edits.items():
            self._send("edit", group, self.applied.updated, set=json.loads(changes_json), relaunch=again)
        if relaunched:
            self._send("relaunch", relaunched, self.applied.relaunched)

    def _changes(self, name: str, ids: dict[str, int]) -> dict:
        """The fields of an existing task in which the file differs from it."""
        spec, row = self.wanted[name], self.rows[name]
        found = {key: spec.get(key, plain) for key, plain in _PLAIN.items() if spec.get(key, plain) != row.get(key, plain)}
        require, before = self._required_ids(name, ids), row.get("require") or ()
        if set(require) != set(before) and not (row["state"] == SUCCEEDED and self._alike_but_for_order(name, require, before)):
            found["require"] = require
        return found

    def _alike_but_for_order(self, name: str, require: Iterable[int], before: Iterable[int]) -> bool:
        """Whether two lists of needs differ only in tasks of the own step, which go first but are no part of what it is made of."""
        step = name.partition(":")[0]
        of_others = [{one for one in ids if self.names.get(one, "").partition(":")[0] != step} for ids in (require, before)]
        return self.file.steps > 0 and of_others[0] == of_others[1]

    def _required_ids(self, name: str, ids: dict[str, int]) -> list[int]:
        return [ids[need] if isinstance(need, str) else need for need in self.wanted[name].get("require", ())]

    def _is_stale(self, name: str) -> bool:
        """Whether a task that succeeded did so before the latest attempt of one it needs: ids of executions only grow."""
        latest = self.rows[name].get("execution_id") or 0
        needs = [self.rows[need] for need in self._needs(name) if need in self.rows]
        return any(
            row["name"] in self.again or row["state"] != SUCCEEDED or (row.get("execution_id") or 0) > latest for row in needs
        )

    def _send(self, verb: str, names: list[str], done: dict[str, int], **body) -> None:
        by_id = {self.rows[name]["id"]: name for name in names}
        answer = self.server.client.send("POST", f"/tasks/{verb}", {"ids": list(by_id), **body})
        done.update({by_id[task_id]: task_id for task_id in answer["ids"]})
        self.applied.skipped.update({by_id[item["id"]]: item["why"] for item in answer["skipped"]})

    def _create(self, names: list[str], ids: dict[str, int]) -> None:
        if not names:
            return
        position = {name: f"#{index}" for index, name in enumerate(names)}
        specs = []
        for name in names:
            require = [
                position.get(need) or ids[need] if isinstance(need, str) else need
                for need in self.wanted[name].get("require", ())
            ]
            specs.append({**self.wanted[name], "require": require})
        answer = self.server.client.send("POST", "/tasks", {"tasks": specs})
        created = dict(zip(names, answer["ids"], strict=True))
        ids.update(created)
        self.names.update({task_id: name for name, task_id in created.items()})
        self.applied.created.update(created)
