"""Jobs: what the server does with providers, followed and ended."""

from __future__ import annotations

import time

from ..protocol import API
from ..store import Transaction, jobs, machines
from .answers import iso, page, with_iso_times
from .call import Call, known_id
from .cloudforms import Job, JobLog, JobPage, JobsQuery, LogQuery
from .routes import USER, route
from .schemas import Nothing

PATH = f"{API}/jobs"


@route("GET", PATH, USER, "Jobs that pass the filter, a page of them", query=JobsQuery, answer=JobPage)
def find(call: Call) -> dict:
    query = call.query
    rows = call.read(lambda tx: jobs.find(tx, query, query["limit"] + 1, query["after"], query["order"] == "-id"))
    return page(rows, query["limit"])


@route("GET", f"{PATH}/<id:id>", USER, "A job", answer=Job)
def get(call: Call, id: int) -> dict:
    return with_iso_times(call.read(lambda tx: jobs.get(tx, known_id(id, "job"))))


@route("GET", f"{PATH}/<id:id>/log", USER, "Its log past the line `after`, waited for", query=LogQuery, answer=JobLog)
def log(call: Call, id: int) -> dict:
    """Without a new line it is held until there is one, the job has ended or the time to wait is over."""
    query, changes = call.query, call.service.store.changes
    deadline = time.monotonic() + query["wait"]
    with call.service.seats.seat() as seated:
        while True:
            version = changes.version
            told = call.read(lambda tx: _log(tx, known_id(id, "job"), query["after"], query["limit"]))
            left = deadline - time.monotonic()
            over = told["state"] not in jobs.UNFINISHED
            if told["items"] or over or left <= 0 or not seated or call.service.stopping.is_set():
                return told
            changes.wait(version, left)


def _log(tx: Transaction, job_id: int, after: int, limit: int) -> dict:
    state = jobs.get(tx, job_id)["state"]
    lines = [row | {"at": iso(row["at"])} for row in jobs.log(tx, job_id, after, limit)]
    return {"items": lines, "next": lines[-1]["seq"] if lines else after, "state": state}


@route("POST", f"{PATH}/<id:id>/cancel", USER, "Ends a job; what it deployed is destroyed", body=Nothing, answer=Job)
def cancel(call: Call, id: int) -> dict:
    assert not call.body

    def change(tx: Transaction) -> dict:
        machines.cancel(tx, known_id(id, "job"), call.who)
        return with_iso_times(jobs.get(tx, id))

    return call.write(change)


@route("POST", f"{PATH}/<id:id>/relaunch", USER, "Tries a failed or canceled job anew", body=Nothing, answer=Job)
def relaunch(call: Call, id: int) -> dict:
    assert not call.body
    return call.write(lambda tx: with_iso_times(machines.relaunch(tx, known_id(id, "job"), call.who)))


@route("DELETE", f"{PATH}/<id:id>", USER, "Forgets a job that ended, with its log", status=204)
def delete(call: Call, id: int) -> None:
    call.write(lambda tx: jobs.delete(tx, known_id(id, "job"), call.who))
