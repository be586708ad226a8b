"""A YAML file becomes tasks, and a server is brought in line with it. `batchfile.schema.json` says which keys there are.

Every task of a file has a name, the same each time the file is read: with its batch it says which task of the server it is.
"""

from __future__ import annotations

import fnmatch
import functools
import graphlib
import json
import os
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import yaml

from .errors import InvalidRequest, nearest
from .lib import Server
from .protocol import CANCELED, DEFAULT_BATCH, FAILED, SUCCEEDED, TaskSpec
from .substitution import Row
from .uris import uris_of
from .yamlvalues import Value, compose, kind_of, line_of, mapping, wrong_at


@dataclass(slots=True)
class BatchFile:
    """What a file asks for. A task is a mapping of TaskSpec's fields; its `require` holds names of this file beside ids."""

    path: str
    batch: str
    tasks: list[dict] = field(default_factory=list)


@functools.cache
def schema() -> dict:
    """The JSON schema of batch files."""
    return json.loads(pkgutil.get_data(__package__, "batchfile.schema.json"))


def load(path: str, batch: str | None = None, workdir: str | None = None) -> BatchFile:
    """The tasks of a file, in its order. Raises InvalidRequest: `file:line: what is wrong`.

    `batch` goes before the one that the file names. `workdir` is that of tasks without one, and where relative ones start.
    """
    top = mapping(path, compose(path), {**schema()["properties"], **_task_keys()}, "the file")
    name = Value(path, "batch", top.pop("batch"), {}).text() if "batch" in top else None
    file = BatchFile(path, batch or name or DEFAULT_BATCH)
    lines: dict[str, int] = {}
    needs: list[tuple[dict, Value | None]] = []
    for index, keys in enumerate(_templates(path, top), 1):
        for unnamed, row in _rows_of(path, keys, index):
            task, wanted = _task(file, keys, unnamed, row, workdir)
            _check_new(file, task["name"], line_of(keys.get("name", keys["command"])), lines)
            file.tasks.append(task)
            needs.append((task, wanted))
    _resolve(file, needs)
    return file


# --- the file's parts ---------------------------------------------------------------------------------------------


def _task_keys() -> dict:
    return schema()["$defs"]["task"]["properties"]


def _templates(path: str, top: dict[str, yaml.Node]) -> Iterator[dict[str, yaml.Node]]:
    """The keys of each item of `tasks` over the defaults; a file without `tasks` is itself the only one."""
    defaults = mapping(path, top.pop("defaults"), _task_keys(), "`defaults`") if "defaults" in top else {}
    if "tasks" not in top:
        yield _complete(path, defaults, top, "the file")
        return
    tasks = top.pop("tasks")
    everywhere = top.pop("each", None)
    for name, node in top.items():
        raise wrong_at(path, node, f"beside `tasks`, '{name}' belongs under `defaults`")
    if not isinstance(tasks, yaml.SequenceNode) or not tasks.value:
        raise wrong_at(path, tasks, f"`tasks` must be a list of tasks, not {kind_of(tasks)}")
    if everywhere is not None:
        defaults.setdefault("each", everywhere)
    for node in tasks.value:
        keys = {"command": node} if isinstance(node, yaml.ScalarNode) else mapping(path, node, _task_keys(), "a task")
        yield _complete(path, defaults, keys, "this task", node)


def _complete(path: str, defaults: dict, keys: dict, what: str, node: yaml.Node | None = None) -> dict[str, yaml.Node]:
    """The keys over the defaults. `env` is merged, the rest replaced."""
    merged = {**defaults, **keys}
    if "env" in defaults and "env" in keys:
        merged["env"] = yaml.MappingNode(
            keys["env"].tag, _merged_pairs(path, defaults["env"], keys["env"]), keys["env"].start_mark
        )
    if "command" not in merged:
        where = f"{path}:{line_of(node)}" if node else path
        raise InvalidRequest(f"{where}: {what} has no `command`" + ("" if node else " and no `tasks`"))
    return merged


def _merged_pairs(path: str, under: yaml.Node, over: yaml.Node) -> list:
    for node in (under, over):
        if not isinstance(node, yaml.MappingNode):
            raise wrong_at(path, node, f"`env` must be a mapping of names to values, not {kind_of(node)}")
    given = {key.value for key, _ in over.value}
    return [pair for pair in under.value if pair[0].value not in given] + over.value


def _rows_of(path: str, keys: dict[str, yaml.Node], index: int) -> list[tuple[str, Row]]:
    """The rows of a template, each with the name of a task that has none. Without `each` one row that has only the built-ins."""
    rows = Value(path, "each", keys["each"], {}).rows() if "each" in keys else None
    base = f"{os.path.splitext(os.path.basename(path))[0]}-{index}"
    if rows is None:
        return [(base, {"row": "1"})]
    firsts = [next(iter(row.values()), "") for row in rows]
    telling = len(set(firsts)) == len(rows)
    return [
        (f"{base}-{first if telling else number}", {"row": str(number), **row})
        for number, (first, row) in enumerate(zip(firsts, rows, strict=True), 1)
    ]


def _task(file: BatchFile, keys: dict[str, yaml.Node], unnamed: str, row: Row, workdir: str | None) -> tuple[dict, Value | None]:
    """The task of one row, and the value of its `needs`."""
    row = {"batch": file.batch, **row}
    name = Value(file.path, "name", keys["name"], row).text() if "name" in keys else None
    row.setdefault("name", name or unnamed)
    task: dict = {"name": name or unnamed, "batch": file.batch}
    for key, node in keys.items():
        if key not in ("name", "each", "needs"):
            value = Value(file.path, key, node, row).read(_task_keys()[key])
            if value is not None:
                task[key] = uris_of(value) if key in ("input", "resource") else value
    if not task.get("command", "").strip():
        raise wrong_at(file.path, keys["command"], "the command is empty")
    if workdir is not None:
        task["workdir"] = os.path.normpath(os.path.join(workdir, task.get("workdir", "")))
    return task, Value(file.path, "needs", keys["needs"], row) if "needs" in keys else None


def _check_new(file: BatchFile, name: str, line: int, lines: dict[str, int]) -> None:
    if name in lines:
        how = (
            "put a column into the name, such as name: count-{sample}"
            if lines[name] == line
            else f"the other is at line {lines[name]}"
        )
        raise InvalidRequest(f"{file.path}:{line}: two tasks are named {name!r}: {how}")
    lines[name] = line


def _resolve(file: BatchFile, needs: list[tuple[dict, Value | None]]) -> None:
    """Puts the names that `needs` stands for into each task's `require`; refuses unknown ones and cycles."""
    names = {task["name"]: None for task in file.tasks}
    matching = functools.cache(lambda pattern: fnmatch.filter(names, pattern))
    graph: dict[str, list[str]] = {}
    for task, wanted in needs:
        found: dict[str, None] = {}
        for text in (wanted.texts() or []) if wanted else []:
            matches = [text] if text in names else [name for name in matching(text) if name != task["name"]]
            if not matches:
                raise wanted.wrong(f"no task of this file is named {text!r}{nearest(text, names)}")
            found.update(dict.fromkeys(matches))
        graph[task["name"]] = list(found)
        if found:
            task["require"] = [*task.get("require", []), *found]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise InvalidRequest(
            f"{file.path}: tasks need each other in a circle: {' needs '.join(reversed(error.args[1]))}"
        ) from None


# --- bringing the server in line ----------------------------------------------------------------------------------


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
        self.rows = {
            row["name"]: row for row in server.client.pages("/tasks", batch=file.batch, order="id") if row["name"] in self.wanted
        }
        self.again: set[str] = set()  # succeeded, and done once more
        self.applied = Applied()

    def carry_out(self) -> Applied:
        ids = {name: row["id"] for name, row in self.rows.items()}
        for rank in self._ranks():
            self._change([name for name in rank if name in self.rows], ids)
            self._create([name for name in rank if name not in self.rows], ids)
        self.applied.ids = {name: ids[name] for name in self.wanted}
        return self.applied

    def _needs(self, name: str) -> list[str]:
        return [need for need in self.wanted[name].get("require", ()) if isinstance(need, str)]

    def _ranks(self) -> list[list[str]]:
        """Names in groups that can be sent at once: in each, existing tasks are changed before new ones come."""
        graph = {name: self._needs(name) for name in self.wanted}
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
        spec, row, plain = self.wanted[name], self.rows[name], TaskSpec(command="")
        found = {}
        for known in fields(TaskSpec):
            if known.name in ("name", "batch", "require"):
                continue
            default = getattr(plain, known.name)
            value = spec.get(known.name, default)
            if value != row.get(known.name, default):
                found[known.name] = value
        require = self._required_ids(name, ids)
        if set(require) != set(row.get("require") or ()):
            found["require"] = require
        return found

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
        self.applied.created.update(created)
