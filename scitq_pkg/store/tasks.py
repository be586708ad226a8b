"""Tasks: submitted, looked at, changed, many at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ..errors import Conflict, InvalidRequest
from ..protocol import (
    CANCEL,
    CANCELED,
    DEFAULT_BATCH,
    FINAL,
    KILL,
    LIVE,
    PENDING,
    RUN,
    RUNNING,
    SUCCEEDED,
    SUSPEND,
    TERM,
    WAITING,
)
from ..uris import shown
from . import batches, events, queue
from .filters import Filter
from .schema import Task
from .transaction import Transaction, marks

PART = 500  # ids in one statement
_LOOKED_AT = 5000  # rows at once
SIGNALS = {"suspend": SUSPEND, "resume": RUN, "term": TERM, "kill": KILL}

_JSON = ("input", "resource", "env")
_PLAIN = (
    "name", "command", "shell", "container", "container_options", "output", "workdir", "uid", "gid", "priority", "retry",
    "download_timeout", "run_timeout", "use_cache",
)  # fmt: skip
_DEFAULTS = {"priority": 0, "retry": 0, "use_cache": False}
_INSERTED = (
    "id",
    "batch_id",
    *_PLAIN,
    *_JSON,
    "state",
    "failures",
    "losses",
    "attempts",
    "created_at",
    "modified_at",
    "state_at",
)
_SELECT = (
    "SELECT task.*, batch.name AS batch, worker.name AS worker, execution.exit_code, execution.signal, execution.reason, "
    "execution.suspended, execution.started_at, execution.ended_at"
)
_FROM = (
    " FROM task JOIN batch ON batch.id = task.batch_id LEFT JOIN execution ON execution.id = task.execution_id "
    "LEFT JOIN worker ON worker.id = execution.worker_id"
)
_BARE = " FROM task JOIN batch ON batch.id = task.batch_id LEFT JOIN execution ON execution.id = task.execution_id"


# --- new ones --------------------------------------------------------------------------------------------------------------


def add(tx: Transaction, specs: list[dict], who: str, newest_known: int | None = None) -> list[int]:
    """Queue tasks, all or none; their ids, in order. `require` may hold `"#N"`, the N-th of these tasks.

    Raises InvalidRequest for a required task that is not there, and for a cycle; Conflict if a task that is newer than
    `newest_known` has the batch and name of one of these: somebody else was faster.
    """
    ids = tx.new_ids("task", len(specs))  # from here until the commit no other server adds any
    if newest_known is not None:
        _refuse_taken(tx, specs, newest_known)
    required = _required_of(specs, ids)
    unmet = _unmet(tx, required, ids)
    batch_ids = {name: batches.ensure(tx, name) for name in {spec.get("batch", DEFAULT_BATCH) for spec in specs}}
    counts_and_times = (0, 0, 0, tx.now, tx.now, tx.now)
    tx.insert_many(
        Task, _INSERTED,
        (
            (
                task_id, batch_ids[spec.get("batch", DEFAULT_BATCH)], *[spec.get(name, _DEFAULTS.get(name)) for name in _PLAIN],
                *[json.dumps(spec[name]) if spec.get(name) else None for name in _JSON],
                WAITING if task_id in unmet else PENDING, *counts_and_times,
            )
            for task_id, spec in zip(ids, specs)
        ),
    )  # fmt: skip
    tx.many(
        "INSERT INTO requirement (task_id, required_id) VALUES (?, ?)",
        [(task, needed) for task, them in required.items() for needed in them],
    )
    events.add(tx, who, "task.create", "task", ids)
    tx.wake()
    return list(ids)


def _refuse_taken(tx: Transaction, specs: list[dict], after: int) -> None:
    names = {(spec.get("batch", DEFAULT_BATCH), spec["name"]) for spec in specs if spec.get("name")}
    while rows := tx.all(
        "SELECT task.id, task.name, batch.name AS batch FROM task JOIN batch ON batch.id = task.batch_id "
        "WHERE task.id > ? ORDER BY task.id LIMIT ?", (after, _LOOKED_AT),
    ):  # fmt: skip
        for row in rows:
            if (row["batch"], row["name"]) in names:
                batch, name = row["batch"], row["name"]
                raise Conflict(f"task {row['id']} of batch {batch!r:.80} has come meanwhile with the name {name!r:.80}")
        after = rows[-1]["id"]


def _required_of(specs: list[dict], ids: range) -> dict[int, set[int]]:
    """What each task needs, by ids. Raises InvalidRequest for an item that is not there, and for a cycle."""
    required: dict[int, set[int]] = {}
    for index, spec in enumerate(specs):
        if spec.get("require"):
            required[ids[index]] = {_one_required(word, ids, _place(index, len(specs))) for word in spec["require"]}
    if any(needed >= ids.start for them in required.values() for needed in them):
        _refuse_cycle(required, ids)
    return required


def _one_required(word: int | str, ids: range, place: str) -> int:
    if isinstance(word, int):
        if word >= ids.start:
            raise InvalidRequest(f"there is no task {word}", field=place)
        return word
    index = int(word[1:])
    if index >= len(ids):
        raise InvalidRequest(f"there is no item {word}: this request holds {len(ids)}, from #0", field=place)
    return ids[index]


def _place(index: int, count: int) -> str:
    return f"tasks[{index}].require" if count > 1 else "require"


def _refuse_cycle(required: dict[int, set[int]], ids: range) -> None:
    """Take away what needs nothing that is left, again and again: what stays needs itself."""
    left = {task: {needed for needed in them if needed in required} for task, them in required.items()}
    dependents: dict[int, list[int]] = {}
    for task, them in left.items():
        for needed in them:
            dependents.setdefault(needed, []).append(task)
    free = [task for task, them in left.items() if not them]
    while free:
        task = free.pop()
        del left[task]
        for dependent in dependents.get(task, ()):
            left[dependent].discard(task)
            if not left[dependent]:
                free.append(dependent)
    if left:
        index = min(left) - ids.start
        raise InvalidRequest("the tasks need each other in a circle, so none of them could start", field=_place(index, len(ids)))


def _unmet(tx: Transaction, required: dict[int, set[int]], ids: range) -> set[int]:
    """Tasks of which something that they need has not succeeded. Raises InvalidRequest for one that is not there."""
    if not required:
        return set()
    locking = " FOR SHARE" if tx.postgresql else ""  # who ends one of them on another server sees who waits for it
    older = sorted({needed for them in required.values() for needed in them if needed < ids.start})
    states = {
        row["id"]: row["state"]
        for part in _parts(older)
        for row in tx.all(f"SELECT id, state FROM task WHERE id IN ({marks(part)}) ORDER BY id{locking}", part)
    }
    for task, them in required.items():
        for needed in them:
            if needed < ids.start and needed not in states:
                raise InvalidRequest(f"there is no task {needed}", field=_place(task - ids.start, len(ids)))
    return {task for task, them in required.items() if any(states.get(needed) != SUCCEEDED for needed in them)}


# --- looking ---------------------------------------------------------------------------------------------------------------


def get(tx: Transaction, task_id: int) -> dict:
    """A task with its batch, what it needs, and the worker and end of its latest execution. Raises NotFound."""
    return _shown(tx, [tx.get(f"task {task_id}", f"{_SELECT}{_FROM} WHERE task.id = ?", (task_id,))])[0]


def find(
    tx: Transaction, chosen: Filter, limit: int, after: int | None, descending: bool, requires: int | None = None
) -> list[dict]:
    """Tasks that pass the filter and need this one, if it is given, in the order of their ids, those past `after`."""
    test, params = chosen.of_tasks(tx)
    if requires is not None:
        test, params = f"{test} AND task.id IN (SELECT task_id FROM requirement WHERE required_id = ?)", [*params, requires]
    if after is not None:
        test, params = f"{test} AND task.id {'<' if descending else '>'} ?", [*params, after]
    rows = tx.all(f"{_SELECT}{_FROM} WHERE {test} ORDER BY task.id {'DESC' if descending else 'ASC'} LIMIT ?", (*params, limit))
    return _shown(tx, rows)


def ids_of(tx: Transaction, chosen: Filter) -> list[int]:
    """The ids of all tasks that pass the filter."""
    test, params = chosen.of_tasks(tx)
    return tx.column(f"SELECT task.id{_BARE} WHERE {test} ORDER BY task.id", params)


def counts(tx: Transaction, chosen: Filter) -> dict[str, int]:
    """How many tasks that pass the filter are in each state."""
    if chosen == Filter():
        rows = tx.all("SELECT state, COUNT(*) AS n FROM task GROUP BY state")
    else:
        test, params = chosen.of_tasks(tx)
        rows = tx.all(f"SELECT task.state, COUNT(*) AS n{_BARE} WHERE {test} GROUP BY task.state", params)
    return {row["state"]: row["n"] for row in rows}


def _shown(tx: Transaction, rows: list[dict]) -> list[dict]:
    required: dict[int, list[int]] = {row["id"]: [] for row in rows}
    for part in _parts(list(required)):
        for found in tx.all(f"SELECT * FROM requirement WHERE task_id IN ({marks(part)}) ORDER BY required_id", part):
            required[found["task_id"]].append(found["required_id"])
    for row in rows:
        for name in _JSON:
            row[name] = json.loads(row[name]) if row[name] else {} if name == "env" else []
        row |= _without_passwords(row)
        row["use_cache"], row["suspended"] = bool(row["use_cache"]), bool(row["suspended"])
        row["require"] = required[row["id"]]
        del row["batch_id"]
    return rows


# --- changing ---------------------------------------------------------------------------------------------------------------


def commands(tx: Transaction, task_ids: list[int]) -> dict[int, str]:
    """The commands of these tasks, of those that are there."""
    return {
        row["id"]: row["command"]
        for part in _parts(task_ids)
        for row in tx.all(f"SELECT id, command FROM task WHERE id IN ({marks(part)})", part)
    }


def edit(
    tx: Transaction, task_ids: list[int], who: str, set: dict | None = None, rewritten: dict[int, tuple[str, str]] | None = None,
    relaunch: bool = False, dry_run: bool = False, detail: dict | None = None,
) -> dict:  # fmt: skip
    """Set fields of tasks that no worker holds, and rewrite their commands; `relaunch` queues the ended ones again.

    With `rewritten`, the commands before and after by the ids of tasks, it is about these tasks and no others. `detail` is for
    the event log. Raises InvalidRequest (no such required task, a cycle).
    """
    changed = set or {}
    rows, skipped = _chosen(tx, task_ids, lambda row: None)
    if rewritten is not None:
        rows = [row for row in rows if row["id"] in rewritten]
        stale = [row["id"] for row in rows if row["command"] != rewritten[row["id"]][0]]
        skipped += [{"id": task_id, "why": "has another command since a moment ago: look again"} for task_id in stale]
        rows = [row for row in rows if row["command"] == rewritten[row["id"]][0]]
    held = [row for row in rows if row["state"] in LIVE]
    skipped += [{"id": row["id"], "why": f"is {row['state']}: cancel it, or wait for its end"} for row in held]
    rows = [row for row in rows if row["state"] not in LIVE]
    done: dict = {"ids": [row["id"] for row in rows], "skipped": skipped}
    becomes = {row["id"]: rewritten[row["id"]][1] for row in rows} if rewritten is not None else {}
    if rewritten is not None:
        done["changes"] = [{"id": row["id"], "before": row["command"], "after": becomes[row["id"]]} for row in rows]
    if not dry_run and rows:
        _apply(tx, rows, changed, becomes)
        again = [row["id"] for row in rows if row["state"] in FINAL] if relaunch else []
        moved = [row["id"] for row in rows if row["state"] in (PENDING, WAITING)] if "require" in changed else []
        queue.requeue(tx, again + moved)
        events.add(
            tx, who, "task.edit", "task", done["ids"], {"set": _without_values(changed), **(detail or {}), "relaunch": relaunch}
        )
        tx.wake()
    return done


def _without_values(changed: dict) -> dict:
    """As the event log tells it: of variables, which may be passwords, the names."""
    told = changed | _without_passwords(changed)
    return told | {"env": sorted(changed["env"])} if "env" in changed else told


def _without_passwords(row: dict) -> dict:
    """The URIs of a task as they are shown, of the fields that are there."""
    told: dict = {name: [shown(uri) for uri in row[name] or ()] for name in ("input", "resource") if name in row}
    return told | {"output": shown(row["output"])} if row.get("output") else told


def _apply(tx: Transaction, rows: list[dict], changed: dict, commands: dict[int, str]) -> None:
    columns = {name: changed[name] for name in _PLAIN if name in changed}
    columns |= {name: json.dumps(changed[name]) if changed[name] else None for name in _JSON if name in changed}
    if "batch" in changed:
        columns["batch_id"] = batches.ensure(tx, changed["batch"])
    assignments = ", ".join(f"{name} = ?" for name in (*columns, "modified_at"))
    tx.many(f"UPDATE task SET {assignments} WHERE id = ?", [(*columns.values(), tx.now, row["id"]) for row in rows])
    tx.many("UPDATE task SET command = ? WHERE id = ?", [(commands[row["id"]], row["id"]) for row in rows if commands])
    if "require" in changed:
        _require(tx, [row["id"] for row in rows], changed["require"])


def _require(tx: Transaction, task_ids: list[int], required: list) -> None:
    """Let tasks need others than before. Raises InvalidRequest: not there, or a cycle."""
    for word in required:
        if not isinstance(word, int):
            raise InvalidRequest(f"{word!r} stands for a task of the same request: give an id", field="require")
    known = {
        i for part in _parts(sorted(set(required))) for i in tx.column(f"SELECT id FROM task WHERE id IN ({marks(part)})", part)
    }
    for needed in required:
        if needed not in known:
            raise InvalidRequest(f"there is no task {needed}", field="require")
    tx.many("DELETE FROM requirement WHERE task_id = ?", [(task_id,) for task_id in task_ids])
    for task_id in task_ids:
        if _leads_to(tx, known, task_id):
            raise InvalidRequest(f"task {task_id} is needed, directly or not, by one that it would need", field="require")
    tx.many(
        "INSERT INTO requirement (task_id, required_id) VALUES (?, ?)",
        [(task_id, needed) for task_id in task_ids for needed in known],
    )


def _leads_to(tx: Transaction, start: Iterable[int], goal: int) -> bool:
    """Whether a task is among these or what they need."""
    seen, front = set(start), list(start)
    while front:
        if goal in seen:
            return True
        part, front = front[:PART], front[PART:]
        found = set(tx.column(f"SELECT DISTINCT required_id FROM requirement WHERE task_id IN ({marks(part)})", part)) - seen
        seen |= found
        front += found
    return goal in seen


def relaunch(tx: Transaction, task_ids: list[int], who: str, dry_run: bool = False) -> dict:
    """Queue ended tasks again, as new."""
    rows, skipped = _chosen(tx, task_ids, lambda row: None if row["state"] in FINAL else f"is {row['state']}, it has not ended")
    return _done(tx, rows, skipped, who, "task.relaunch", dry_run, lambda ids: queue.requeue(tx, ids))


def cancel(tx: Transaction, task_ids: list[int], who: str, dry_run: bool = False) -> dict:
    """End tasks for good: what runs is stopped first, what waits is canceled at once."""
    rows, skipped = _chosen(tx, task_ids, lambda row: f"has ended: it is {row['state']}" if row["state"] in FINAL else None)

    def end(ids: list[int]) -> None:
        idle = [(CANCELED, tx.now, row["id"]) for row in rows if row["state"] not in LIVE]
        tx.many("UPDATE task SET state = ?, state_at = ? WHERE id = ?", idle)
        queue.order(tx, [row["execution_id"] for row in rows if row["state"] in LIVE], CANCEL, who)

    return _done(tx, rows, skipped, who, "task.cancel", dry_run, end)


def signal(tx: Transaction, task_ids: list[int], action: str, who: str, dry_run: bool = False) -> dict:
    """ "suspend", "resume", "term" or "kill" what runs of these tasks."""
    rows, skipped = _chosen(tx, task_ids, lambda row: None if row["state"] == RUNNING else f"is {row['state']}, it does not run")
    return _done(
        tx,
        rows,
        skipped,
        who,
        f"task.{action}",
        dry_run,
        lambda ids: queue.order(tx, [row["execution_id"] for row in rows], SIGNALS[action], who),
    )


def delete(tx: Transaction, task_ids: list[int], who: str, dry_run: bool = False) -> dict:
    """Remove tasks, their executions and output; a worker that holds one ends it. What others still wait for is kept."""
    rows, skipped = _chosen(tx, task_ids, lambda row: None)
    needed = _needed_by_others(tx, rows)
    skipped += [
        {"id": row["id"], "why": f"task {needed[row['id']]} waits for it: delete that one too, or edit it"}
        for row in rows
        if row["id"] in needed
    ]
    rows = [row for row in rows if row["id"] not in needed]
    return _done(tx, rows, skipped, who, "task.delete", dry_run, lambda ids: remove(tx, ids))


def _needed_by_others(tx: Transaction, rows: list[dict]) -> dict[int, int]:
    """Of these tasks, those that have not succeeded and that another one waits for, which is not among them."""
    open_ids = [row["id"] for row in rows if row["state"] != SUCCEEDED]
    chosen = {row["id"] for row in rows}
    found: dict[int, int] = {}
    for part in _parts(open_ids):
        for pair in tx.all(f"SELECT * FROM requirement WHERE required_id IN ({marks(part)})", part):
            if pair["task_id"] not in chosen:
                found[pair["required_id"]] = pair["task_id"]
    return found


def remove(tx: Transaction, task_ids: list[int]) -> None:
    """Remove tasks and all that belongs to them. A worker that holds an execution finds it fenced, and ends it."""
    for part in _parts(task_ids):
        inside = f"IN ({marks(part)})"
        tx.column(f"SELECT id FROM task WHERE id {inside} ORDER BY id{tx.for_update}", part)  # no server claims one meanwhile
        for worker_id in tx.column(f"SELECT worker_id FROM execution WHERE task_id {inside} ORDER BY id{tx.for_update}", part):
            tx.touch(worker_id)
        tx.run(f"DELETE FROM output WHERE execution_id IN (SELECT id FROM execution WHERE task_id {inside})", part)
        tx.run(f"DELETE FROM execution WHERE task_id {inside}", part)
        waiting = tx.column(
            "SELECT DISTINCT task.id FROM requirement JOIN task ON task.id = requirement.task_id "
            f"WHERE required_id {inside} AND task.state = ?",
            (*part, WAITING),
        )
        tx.run(f"DELETE FROM requirement WHERE task_id {inside} OR required_id {inside}", (*part, *part))
        tx.run(f"DELETE FROM task WHERE id {inside}", part)
        queue.requeue(tx, sorted(set(waiting) - set(part)))
    tx.wake()


def _chosen(tx: Transaction, task_ids: list[int], fault) -> tuple[list[dict], list[dict]]:
    """The rows of tasks without `fault(row)`, and the others with the reason."""
    found: dict[int, dict] = {}
    for part in _parts(task_ids):
        for row in tx.all(
            f"SELECT id, state, command, execution_id FROM task WHERE id IN ({marks(part)}) ORDER BY id{tx.for_update}", part
        ):
            found[row["id"]] = row
    rows, skipped = [], []
    for task_id in dict.fromkeys(task_ids):
        why = fault(found[task_id]) if task_id in found else "is not there"
        if why is None:
            rows.append(found[task_id])
        else:
            skipped.append({"id": task_id, "why": why})
    return rows, skipped


def _done(tx: Transaction, rows: list[dict], skipped: list[dict], who: str, action: str, dry_run: bool, change) -> dict:
    ids = [row["id"] for row in rows]
    if ids and not dry_run:
        change(ids)
        events.add(tx, who, action, "task", ids)
        tx.wake()
    return {"ids": ids, "skipped": skipped}


def _parts(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), PART):
        yield ids[start : start + PART]
