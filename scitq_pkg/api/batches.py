"""Batches: what they hold, stop and go."""

from __future__ import annotations

from ..batchtext import batch_text
from ..errors import Conflict
from ..protocol import API
from ..store import Transaction, attempts, batches, notifiers, recruiters, reports, tasks
from ..store.filters import Filter, moment_of
from .answers import Answer, iso, page, with_iso_times
from .call import Call
from .cloudforms import BatchChange
from .routes import USER, route
from .schemas import MAX_PAGE, BatchesQuery, Nothing, ReportQuery, StopBody, TimelineQuery
from .shapes import Batch, BatchPage, Report, Steps, Timeline

PATH = f"{API}/batches"
MOST_ATTEMPTS = 2000  # of a timeline
MOST_STEPS = 200
MOST_IN_FILE = 50_000  # tasks


@route(
    "GET",
    PATH,
    USER,
    "The batches, with the number of their workers, and of their tasks in each state",
    query=BatchesQuery,
    answer=BatchPage,
)
def find(call: Call) -> dict:
    query = call.query
    limit, after, descending = query["limit"], query["after"], query["order"] == "-id"
    return page(call.read(lambda tx: batches.find(tx, limit + 1, after, descending, query["name"])), limit)


@route(
    "GET", f"{PATH}/<name:path>/report", USER, "Durations, failures by exit code and last line, peak memory",
    query=ReportQuery, answer=Report,
)  # fmt: skip
def report(call: Call, name: str) -> dict:
    return call.read(lambda tx: reports.report(tx, name, call.query["alike"]))


@route(
    "GET", f"{PATH}/<name:path>/timeline", USER, "When its newest attempts ran, and where", query=TimelineQuery, answer=Timeline
)
def timeline(call: Call, name: str) -> dict:
    """The newest of those that ran at `since` or later; `from` and `to` are the ends of what is told."""

    def look(tx: Transaction) -> dict:
        begin = moment_of(call.query["since"], tx.now)
        rows = attempts.timeline(tx, batches.row(tx, name)["id"], begin, MOST_ATTEMPTS)
        first = max(begin, min((row["started_at"] for row in rows), default=tx.now))
        return {"from": iso(first), "to": iso(tx.now), "items": [with_iso_times(row) for row in rows]}

    return call.read(look)


@route(
    "GET",
    f"{PATH}/<name:path>/steps",
    USER,
    "Its tasks by the part of their name before a colon, and who needs whom",
    answer=Steps,
)
def steps(call: Call, name: str) -> dict:
    return {"items": call.read(lambda tx: reports.steps(tx, name, MOST_STEPS))}


@route("GET", f"{PATH}/<name:path>/file", USER, "A batch file that makes it again", answer="application/yaml")
def file(call: Call, name: str) -> Answer:
    text = batch_text(name, *call.read(lambda tx: (_all_tasks(tx, name), *_rules(tx, name))))
    return Answer(text.encode(), headers={"Content-Type": "application/yaml; charset=utf-8"})


def _rules(tx: Transaction, name: str) -> tuple[list[dict], list[dict]]:
    """Its recruiters, the first rank first, and its notifiers."""
    found = recruiters.find(tx, {"batch": name}, MAX_PAGE, None, False)
    return sorted(found, key=lambda row: row["rank"]), notifiers.find(tx, name, MAX_PAGE, None, False)


def _all_tasks(tx: Transaction, name: str) -> list[dict]:
    found = batches.get(tx, name)
    if sum(found["counts"].values()) > MOST_IN_FILE:
        raise Conflict(f"batch {name} has more than {MOST_IN_FILE} tasks, which make no file to read: rather list them as JSON")
    rows: list[dict] = []
    while part := tasks.find(tx, Filter(batch=name), MAX_PAGE, rows[-1]["id"] if rows else None, False):
        rows += part
    return rows


@route("GET", f"{PATH}/<name:path>", USER, "A batch", answer=Batch)
def get(call: Call, name: str) -> dict:
    return with_iso_times(call.read(lambda tx: batches.get(tx, name)))


@route(
    "POST",
    f"{PATH}/<name:path>/stop",
    USER,
    "Nothing of it starts any more; `running` says what happens to what runs",
    body=StopBody,
    answer=Batch,
)
def stop(call: Call, name: str) -> dict:
    running = call.body["running"]

    def change(tx) -> dict:
        batches.stop(tx, name, call.who, running)
        return with_iso_times(batches.get(tx, name))

    return call.write(change)


@route("POST", f"{PATH}/<name:path>/go", USER, "Reverses stop", body=Nothing, answer=Batch)
def go(call: Call, name: str) -> dict:
    assert not call.body

    def change(tx) -> dict:
        batches.go(tx, name, call.who)
        return with_iso_times(batches.get(tx, name))

    return call.write(change)


@route("PATCH", f"{PATH}/<name:path>", USER, "Changes its budget", body=BatchChange, answer=Batch)
def change(call: Call, name: str) -> dict:
    changes = call.body

    def apply(tx: Transaction) -> dict:
        batches.update(tx, name, changes, call.who)
        return with_iso_times(batches.get(tx, name))

    return call.write(apply)


@route("DELETE", f"{PATH}/<name:path>", USER, "Deletes it with all its tasks; running ones are stopped first", status=204)
def delete(call: Call, name: str) -> None:
    call.write(lambda tx: batches.delete(tx, name, call.who))
