"""The server is brought in line with what a file or a script declares: new tasks are created, changed ones changed, failed ones
queued again."""

from __future__ import annotations

import contextlib
import graphlib
import json
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from .errors import Conflict, InvalidRequest
from .lib import Server
from .protocol import CANCELED, FAILED, SUCCEEDED, TaskSpec
from .uris import shown

Key = Hashable  # says which task of the server a declared one is; no integer, which is an id

_APART = ("name", "batch", "require")  # compared in ways of their own
_PLAIN = {known.name: getattr(TaskSpec(command=""), known.name) for known in fields(TaskSpec) if known.name not in _APART}
_TRIES = 10  # each time somebody else has queued some of it, who needs one look himself
_ITEM = re.compile(r"tasks\[(\d+)\]\.?(.*)", re.DOTALL)


@dataclass(slots=True)
class Declared:
    """Tasks that should be there. A task is a mapping of TaskSpec's fields; its `require` holds keys beside ids."""

    tasks: Mapping[Key, dict]
    batches: Iterable[str]  # where they are
    key_of: Callable[[dict], Key]  # of a task as the server has it
    firsts: Mapping[Key, Collection[Key]] = field(default_factory=dict)  # what of `require` says only who goes first
    in_steps: bool = False  # the part of a name before a colon is a step


@dataclass(slots=True)
class Applied:
    """What became of each declared task: its id, by key. `ids` has all of them, in the order in which they were declared."""

    ids: dict = field(default_factory=dict)
    created: dict = field(default_factory=dict)
    updated: dict = field(default_factory=dict)  # changed; queued again if it had ended
    relaunched: dict = field(default_factory=dict)  # had not succeeded, or what it needs is done again
    kept: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)  # could not be changed: why


def reconcile(server: Server, declared: Declared) -> Applied:
    """Brings the tasks of batches in line with what is declared, by their keys. Tasks that it does not name are left alone.

    New ones are created, changed ones changed; failed and canceled ones are queued again, and so are those that succeeded if they
    changed or if what they need is done again. Each step looks at what the server has: killed anywhere and called again it ends
    the same. Two that do it at the same moment create no task twice. Raises InvalidRequest, naming the task; new ones that
    need no changed one come all or not at all.
    """
    applied = Applied()
    for _ in range(_TRIES):
        with contextlib.suppress(Conflict):  # another one was faster: what it created is found now
            return Plan(server, declared, applied).carry_out()
    return Plan(server, declared, applied).carry_out()


class Plan:
    """The steps from what the server has to what is declared, what is needed always before what needs it."""

    def __init__(self, server: Server, declared: Declared, applied: Applied | None = None):
        """`applied`: what an earlier plan has come to."""
        self.server, self.declared, self.wanted = server, declared, declared.tasks
        newest = server.client.get("/tasks", limit=1, order="-id")["items"]  # first: what comes after it is news for us
        self.newest = newest[0]["id"] if newest else 0
        there = [row for batch in declared.batches for row in server.client.pages("/tasks", batch=batch, order="id")]
        self.rows = {key: row for row in there if (key := declared.key_of(row)) in self.wanted}
        self.by_id = {row["id"]: row for row in there}
        self.names = {row["id"]: row["name"] or "" for row in there}
        self.again: set[int] = set()  # succeeded, and done once more
        self.applied = Applied() if applied is None else applied
        self.applied.skipped.clear()

    def carry_out(self) -> Applied:
        """Does it."""
        ids = {key: row["id"] for key, row in self.rows.items()}
        for rank in self._ranks():
            self._change([key for key in rank if key in self.rows], ids)
            self._create([key for key in rank if key not in self.rows], ids)
        self.applied.ids = {key: ids[key] for key in self.wanted}
        return self.applied

    def is_done(self, key: Key) -> bool:
        """Whether the server has this task as it is declared, and it has succeeded since what it needs did."""
        row = self.rows.get(key)
        if row is None or row["state"] != SUCCEEDED or any(need not in self.rows for need in self._needs(key)):
            return False
        return not self._changes(key, {known: row["id"] for known, row in self.rows.items()}) and not self._is_stale(key)

    def _needs(self, key: Key, with_firsts: bool = False) -> list[Key]:
        """The declared tasks that it needs; `with_firsts` also those that only go first."""
        first = () if with_firsts else self.declared.firsts.get(key, ())
        return [need for need in self.wanted[key].get("require", ()) if not isinstance(need, int) and need not in first]

    def _ranks(self) -> list[list[Key]]:
        """Keys in groups that can be sent at once: in each, existing tasks are changed before new ones come."""
        graph = {key: self._needs(key, with_firsts=True) for key in self.wanted}
        rank: dict[Key, int] = {}
        for key in graphlib.TopologicalSorter(graph).static_order():
            step = 1 if key in self.rows else 0
            rank[key] = max((rank[need] + step for need in graph[key]), default=0)
        groups: list[list[Key]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
        for key in self.wanted:
            groups[rank[key]].append(key)
        return groups

    def _change(self, keys: list[Key], ids: dict[Key, int]) -> None:
        edits: dict[tuple[str, bool], list[Key]] = {}  # the same change for many tasks is one request
        relaunched = []
        for key in keys:
            row, changes = self.rows[key], self._changes(key, ids)
            again = row["state"] in (FAILED, CANCELED) or row["state"] == SUCCEEDED and (bool(changes) or self._is_stale(key))
            if again and row["state"] == SUCCEEDED:
                self.again.add(row["id"])
            if changes:
                edits.setdefault((json.dumps(changes, sort_keys=True), again), []).append(key)
            elif again:
                relaunched.append(key)
            elif not any(key in done for done in (self.applied.created, self.applied.updated, self.applied.relaunched)):
                self.applied.kept[key] = row["id"]
        for (changes_json, again), group in edits.items():
            self._send("edit", group, self.applied.updated, set=json.loads(changes_json), relaunch=again)
        if relaunched:
            self._send("relaunch", relaunched, self.applied.relaunched)

    def _changes(self, key: Key, ids: dict[Key, int]) -> dict:
        """The fields of an existing task in which what is declared differs from it."""
        spec, row = self.wanted[key], self.rows[key]
        found = {
            name: spec.get(name, plain) for name, plain in _PLAIN.items()
            if spec.get(name, plain) != row.get(name, plain) and _as_shown(name, spec.get(name, plain)) != row.get(name, plain)
        }  # fmt: skip
        require, before = self._required_ids(key, ids), row.get("require") or ()
        if set(require) != set(before) and not (row["state"] == SUCCEEDED and self._alike_but_for_order(row, require, before)):
            found["require"] = require
        return found

    def _alike_but_for_order(self, row: dict, require: Iterable[int], before: Iterable[int]) -> bool:
        """Whether two lists of needs differ only in tasks of the own step, which go first and are no part of its making."""
        step = row["name"].partition(":")[0]
        of_others = [{one for one in ids if self.names.get(one, "").partition(":")[0] != step} for ids in (require, before)]
        return self.declared.in_steps and of_others[0] == of_others[1]

    def _required_ids(self, key: Key, ids: dict[Key, int]) -> list[int]:
        return [need if isinstance(need, int) else ids[need] for need in self.wanted[key].get("require", ())]

    def _is_stale(self, key: Key) -> bool:
        """Whether a task that succeeded did so before the latest attempt of one it needs: ids of executions only grow."""
        latest, first = self.rows[key].get("execution_id") or 0, self.declared.firsts.get(key, ())
        needs = [
            self.by_id.get(need) if isinstance(need, int) else self.rows.get(need)
            for need in self.wanted[key].get("require", ()) if need not in first
        ]  # fmt: skip
        return any(
            row["id"] in self.again or row["state"] != SUCCEEDED or (row.get("execution_id") or 0) > latest
            for row in needs if row
        )  # fmt: skip

    def _send(self, verb: str, keys: list[Key], done: dict[Key, int], **body) -> None:
        by_id = {self.rows[key]["id"]: key for key in keys}
        try:
            answer = self.server.client.send("POST", f"/tasks/{verb}", {"ids": list(by_id), **body})
        except InvalidRequest as error:
            raise InvalidRequest(f"task {self.wanted[keys[0]]['name']!r:.80}: {str(error).removeprefix('set.')}") from None
        done.update({by_id[task_id]: task_id for task_id in answer["ids"]})
        self.applied.skipped.update({by_id[item["id"]]: item["why"] for item in answer["skipped"]})

    def _create(self, keys: list[Key], ids: dict[Key, int]) -> None:
        if not keys:
            return
        position = {key: f"#{index}" for index, key in enumerate(keys)}
        specs = []
        for key in keys:
            needs = self.wanted[key].get("require", ())
            require = [need if isinstance(need, int) else position.get(need) or ids[need] for need in needs]
            specs.append({**self.wanted[key], "require": require})
        try:
            answer = self.server.client.send("POST", "/tasks", {"tasks": specs, "newest_known": self.newest})
        except InvalidRequest as error:
            raise _named(error, specs) from None
        created = dict(zip(keys, answer["ids"], strict=True))
        ids.update(created)
        self.names.update({task_id: self.wanted[key]["name"] for key, task_id in created.items()})
        self.applied.created.update(created)


def _as_shown(name: str, value):
    """A field of a task as the server shows it: what is secret in a URI is nothing to compare."""
    if name in ("input", "resource"):
        return [shown(uri) for uri in value]
    return shown(value) if name == "output" and value else value


def _named(error: InvalidRequest, specs: list[dict]) -> InvalidRequest:
    """The error with the name of the task where the server told its place in the request."""
    found = _ITEM.fullmatch(error.field or "")
    if found is None:
        return error
    about = f"{found[2]}: " if found[2] else ""
    return InvalidRequest(f"task {specs[int(found[1])]['name']!r:.80}: {about}{error.message}")
