"""Batches: what they hold, stop and go."""

from __future__ import annotations

from ..protocol import API
from ..store import batches, reports
from .answers import page, with_iso_times
from .call import Call
from .routes import USER, route
from .schemas import Nothing, PageQuery, StopBody
from .shapes import Batch, BatchPage, Report

PATH = f"{API}/batches"


@route(
    "GET",
    PATH,
    USER,
    "The batches, with the number of their workers, and of their tasks in each state",
    query=PageQuery,
    answer=BatchPage,
)
def find(call: Call) -> dict:
    query = call.query
    return page(
        call.read(lambda tx: batches.find(tx, query["limit"] + 1, query["after"], query["order"] == "-id")), query["limit"]
    )


@route("GET", f"{PATH}/<name:path>/report", USER, "Durations, failures by exit code and last line, peak memory", answer=Report)
def report(call: Call, name: str) -> dict:
    return call.read(lambda tx: reports.report(tx, name))


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


@route("DELETE", f"{PATH}/<name:path>", USER, "Deletes it with all its tasks; running ones are stopped first", status=204)
def delete(call: Call, name: str) -> None:
    call.write(lambda tx: batches.delete(tx, name, call.who))
