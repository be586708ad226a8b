"""Recruiters: rules by which batches take idle workers."""

from __future__ import annotations

from ..protocol import API
from ..recruiting import counts_for, matches, needs_statistics, readable
from ..store import Transaction, recruiters
from .answers import page, with_iso_times
from .call import Call, known_id
from .routes import USER, route
from .schemas import NewRecruiter, RecruiterChange, RecruitersQuery
from .shapes import MatchPage, Recruiter, RecruiterPage

PATH = f"{API}/recruiters"
_AS_CONCURRENCY = "tasks_per_worker"  # which it is unless it is said


@route(
    "POST", PATH, USER, "Makes the recruiter of a batch and rank, or makes it this one",
    body=NewRecruiter, answer=Recruiter, status=201,
)  # fmt: skip
def put(call: Call) -> dict:
    """The same again changes nothing, so no request id is needed."""
    given = dict(call.body)
    if given[_AS_CONCURRENCY] is None:
        given[_AS_CONCURRENCY] = given["concurrency"] or 1
    return call.write(lambda tx: with_iso_times(recruiters.put(tx, given, call.who)))


@route("GET", PATH, USER, "Recruiters, a page of them", query=RecruitersQuery, answer=RecruiterPage)
def find(call: Call) -> dict:
    return page(call.read(lambda tx: _chosen(tx, call.query)), call.query["limit"])


def _chosen(tx: Transaction, query: dict) -> list[dict]:
    return recruiters.find(tx, query, query["limit"] + 1, query["after"], query["order"] == "-id")


@route(
    "GET", f"{PATH}/match", USER, "Recruiters with the workers that are what they look for",
    query=RecruitersQuery, answer=MatchPage,
)  # fmt: skip
def match(call: Call) -> dict:
    """Those of their own batch too; `idle` says which hold nothing."""

    def look(tx: Transaction) -> dict:
        told = page(_chosen(tx, call.query), call.query["limit"])
        standing = readable(told["items"])
        sound = {row["id"] for row in standing}
        machines = recruiters.machines(tx, None, needs_statistics(standing))
        states = {row["id"]: row for row in recruiters.states(tx)}
        for row in told["items"]:
            row["workers"] = [
                {"id": one["id"], "name": one["name"], "batch": states[one["id"]]["batch"], "idle": _idles(states[one["id"]])}
                for one in machines if row["id"] in sound and matches(row, one)
            ]  # fmt: skip
        return told

    return call.read(look)


def _idles(worker: dict) -> bool:
    return counts_for(worker) and not worker["held"]


@route("GET", f"{PATH}/<id:id>", USER, "A recruiter", answer=Recruiter)
def get(call: Call, id: int) -> dict:
    return with_iso_times(call.read(lambda tx: recruiters.get(tx, known_id(id, "recruiter"))))


@route("PATCH", f"{PATH}/<id:id>", USER, "Changes a recruiter", body=RecruiterChange, answer=Recruiter)
def change(call: Call, id: int) -> dict:
    return call.write(lambda tx: with_iso_times(recruiters.update(tx, known_id(id, "recruiter"), call.body, call.who)))


@route("DELETE", f"{PATH}/<id:id>", USER, "Removes a recruiter; what it took stays until it idles", status=204)
def delete(call: Call, id: int) -> None:
    call.write(lambda tx: recruiters.delete(tx, known_id(id, "recruiter"), call.who))
