"""Executions: the attempts to run tasks, and what they wrote."""

from __future__ import annotations

import time

from ..protocol import API, ENDED
from ..store import executions
from .answers import Answer, page, with_iso_times
from .call import Call, known_id
from .routes import USER, route
from .schemas import ExecutionsQuery, OutputQuery
from .selection import filter_of
from .shapes import Execution, ExecutionPage

PATH = f"{API}/executions"
BYTES = "application/octet-stream"


@route("GET", PATH, USER, "Attempts that pass the filter, a page of them", query=ExecutionsQuery, answer=ExecutionPage)
def find(call: Call) -> dict:
    query = call.query
    chosen, task = filter_of(query), query.get("task")
    rows = call.read(lambda tx: executions.find(tx, chosen, task, query["limit"] + 1, query["after"], query["order"] == "-id"))
    return page(rows, query["limit"])


@route("GET", f"{PATH}/<id:id>", USER, "An attempt", answer=Execution)
def get(call: Call, id: int) -> dict:
    return with_iso_times(call.read(lambda tx: executions.get(tx, known_id(id, "execution"))))


@route("GET", f"{PATH}/<id:id>/stdout", USER, "What its command wrote to stdout, from `offset`", query=OutputQuery, answer=BYTES)
def stdout(call: Call, id: int) -> Answer:
    return _output(call, known_id(id, "execution"), "stdout")


@route("GET", f"{PATH}/<id:id>/stderr", USER, "What its command wrote to stderr, from `offset`", query=OutputQuery, answer=BYTES)
def stderr(call: Call, id: int) -> Answer:
    return _output(call, known_id(id, "execution"), "stderr")


def _output(call: Call, execution_id: int, stream: str) -> Answer:
    """What there is; without anything yet, held until there is, the execution has ended or the time to wait is over."""
    query, changes = call.query, call.service.store.changes
    deadline = time.monotonic() + query["wait"]
    with call.service.seats.seat() as seated:
        while True:
            version = changes.version
            found = call.read(lambda tx: executions.output(tx, execution_id, stream, query["offset"], query["limit"]))
            left = deadline - time.monotonic()
            if found["data"] or found["state"] in ENDED or left <= 0 or not seated or call.service.stopping.is_set():
                return _bytes(found)
            changes.wait(version, left)


def _bytes(found: dict) -> Answer:
    headers = {
        "Content-Type": BYTES, "X-Scitq-Offset": found["offset"], "X-Scitq-Next": found["next"], "X-Scitq-Size": found["size"],
        "X-Scitq-State": found["state"], "X-Scitq-Skipped": found["skipped"],
    }  # fmt: skip
    return Answer(found["data"], headers={name: str(value) for name, value in headers.items()})
