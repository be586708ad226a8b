"""Tasks: one, a page, many at once."""

from __future__ import annotations

from ..byhand import line
from ..errors import Conflict
from ..explain import explain as explain_task
from ..protocol import API, STREAMS
from ..rewriting import rewritten
from ..store import Transaction, executions, tasks
from ..store.filters import Filter
from .answers import page, with_iso_times
from .call import Call, known_id
from .newtasks import accept, newest_known
from .routes import USER, route
from .schemas import BulkBody, CountsQuery, EditBody, NewTasks, OutputsQuery, SignalBody, TaskChange, TasksQuery
from .selection import filter_of, selected
from .shapes import BulkAnswer, ByHand, Counts, Explanation, Ids, Task, TaskOutputPage, TaskPage

PATH = f"{API}/tasks"
TAIL_BYTES = 64 * 1024  # of a stream in a page of outputs
PAGE_BYTES = 4 * 2**20  # of such a page, about


@route("POST", PATH, USER, "Queues a task, or all of `tasks` or none", body=NewTasks, answer=Ids, status=201)
def create(call: Call) -> dict:
    specs, newest = accept(call.plain), newest_known(call.plain)
    return call.write(lambda tx: {"ids": tasks.add(tx, specs, call.who, newest)})


@route("GET", PATH, USER, "Tasks that pass the filter, a page of them", query=TasksQuery, answer=TaskPage)
def find(call: Call) -> dict:
    query = call.query
    chosen = filter_of(query)
    needed, descending = query.get("requires"), query["order"] == "-id"
    rows = call.read(lambda tx: tasks.find(tx, chosen, query["limit"] + 1, query["after"], descending, needed))
    return page(rows, query["limit"])


@route(
    "GET",
    f"{PATH}/counts",
    USER,
    "How many tasks in each state; with `version` and `wait` as soon as that changed",
    query=CountsQuery,
    answer=Counts,
)
def counts(call: Call) -> dict:
    """`version` is that of before the count: what changes in between is news for the next call."""
    chosen, query, changes = filter_of(call.query), call.query, call.service.store.changes
    if query["wait"] and query["version"] == changes.version:
        with call.service.seats.seat() as seated:
            if seated:
                changes.wait(query["version"], query["wait"])
    version = changes.version
    return {"version": version, "counts": call.read(lambda tx: tasks.counts(tx, chosen))}


@route(
    "GET", f"{PATH}/outputs", USER, "The ends of what tasks wrote, of those that pass the filter",
    query=OutputsQuery, answer=TaskOutputPage,
)  # fmt: skip
def outputs(call: Call) -> dict:
    """Of the latest attempt of each, as text. A page may be shorter than its `limit`: only a cursor that is null ends it."""
    query = call.query
    chosen = filter_of(query)
    return call.read(lambda tx: _page_of_outputs(tx, chosen, query["after"], query["limit"]))


def _page_of_outputs(tx: Transaction, chosen: Filter, after: int | None, limit: int) -> dict:
    rows = tasks.find(tx, chosen, limit + 1, after, False)
    items: list[dict] = []
    size = 0
    for row in rows[:limit]:
        items.append(_outputs_of(tx, row))
        size += len(items[-1]["stdout"]) + len(items[-1]["stderr"])
        if size > PAGE_BYTES:
            break
    return {"items": items, "next": items[-1]["id"] if len(items) < len(rows) else None}


def _outputs_of(tx: Transaction, row: dict) -> dict:
    told = {"id": row["id"], "name": row["name"], "state": row["state"], "stdout": "", "stderr": "", "truncated": False}
    if row["execution_id"] is not None:
        for stream in STREAMS:
            data, written = executions.tail(tx, row["execution_id"], stream, TAIL_BYTES)
            told[stream] = data.decode("utf-8", "replace")
            told["truncated"] |= written > len(data)
    return told


@route("GET", f"{PATH}/<id:id>/by-hand", USER, "The line with which somebody tries it by hand", answer=ByHand)
def by_hand(call: Call, id: int) -> dict:
    return {"line": line(call.read(lambda tx: tasks.get(tx, known_id(id, "task"))))}


@route("GET", f"{PATH}/<id:id>", USER, "A task", answer=Task)
def get(call: Call, id: int) -> dict:
    return with_iso_times(call.read(lambda tx: tasks.get(tx, known_id(id, "task"))))


@route(
    "PATCH",
    f"{PATH}/<id:id>",
    USER,
    "Changes a task that is not running; `relaunch` queues it again",
    body=TaskChange,
    answer=Task,
)
def change(call: Call, id: int) -> dict:
    changes = dict(call.body)
    relaunch = changes.pop("relaunch", False)
    return call.write(lambda tx: _changed(call, tx, known_id(id, "task"), changes, relaunch))


def _changed(call: Call, tx: Transaction, task_id: int, changes: dict, relaunch: bool) -> dict:
    tasks.get(tx, task_id)
    _refuse_skipped(tasks.edit(tx, [task_id], call.who, set=changes, relaunch=relaunch))
    return with_iso_times(tasks.get(tx, task_id))


@route("DELETE", f"{PATH}/<id:id>", USER, "Deletes a task; a running one is stopped first", status=204)
def delete(call: Call, id: int) -> None:
    def change(tx: Transaction) -> None:
        tasks.get(tx, known_id(id, "task"))
        _refuse_skipped(tasks.delete(tx, [id], call.who))

    call.write(change)


def _refuse_skipped(done: dict) -> None:
    """What a bulk request would skip, a request for this one task must not pass over."""
    for skipped in done["skipped"]:
        raise Conflict(f"task {skipped['id']}: {skipped['why']}")


@route("GET", f"{PATH}/<id:id>/explain", USER, "Why a task is where it is, and what would move it on", answer=Explanation)
def explain(call: Call, id: int) -> dict:
    return call.read(lambda tx: explain_task(tx, known_id(id, "task")))


# --- many at once -----------------------------------------------------------------------------------------------------------


@route(
    "POST", f"{PATH}/edit", USER, "Changes many tasks; a dry run shows each change of a command", body=EditBody, answer=BulkAnswer
)
def edit(call: Call) -> dict:
    """What runs is left out, and told in `skipped`.

    What the commands become is found before the transaction: nobody waits for it.
    """
    body = call.body
    sub = body.get("sub")
    becomes = _rewritten(call, body) if sub else None
    change = {"set": body.get("set"), "rewritten": becomes, "relaunch": body["relaunch"], "detail": {"sub": sub}}
    return call.write(lambda tx: tasks.edit(tx, selected(tx, body), call.who, dry_run=body["dry_run"], **change))


def _rewritten(call: Call, body: dict) -> dict[int, tuple[str, str]]:
    """Before and after of the commands that the substitution changes."""
    before = call.read(lambda tx: tasks.commands(tx, selected(tx, body)))
    return {task_id: (before[task_id], after) for task_id, after in rewritten(before, **body["sub"]).items()}


@route("POST", f"{PATH}/relaunch", USER, "Queues ended tasks again", body=BulkBody, answer=BulkAnswer)
def relaunch(call: Call) -> dict:
    body = call.body
    return call.write(lambda tx: tasks.relaunch(tx, selected(tx, body), call.who, dry_run=body["dry_run"]))


@route("POST", f"{PATH}/cancel", USER, "Cancels tasks; running ones are stopped", body=BulkBody, answer=BulkAnswer)
def cancel(call: Call) -> dict:
    body = call.body
    return call.write(lambda tx: tasks.cancel(tx, selected(tx, body), call.who, dry_run=body["dry_run"]))


@route("POST", f"{PATH}/delete", USER, "Deletes tasks; running ones are stopped first", body=BulkBody, answer=BulkAnswer)
def delete_many(call: Call) -> dict:
    body = call.body
    return call.write(lambda tx: tasks.delete(tx, selected(tx, body), call.who, dry_run=body["dry_run"]))


@route(
    "POST",
    f"{PATH}/signal",
    USER,
    "Suspends, resumes, terminates or kills what runs of these tasks",
    body=SignalBody,
    answer=BulkAnswer,
)
def signal(call: Call) -> dict:
    body = call.body
    return call.write(lambda tx: tasks.signal(tx, selected(tx, body), body["action"], call.who, dry_run=body["dry_run"]))
