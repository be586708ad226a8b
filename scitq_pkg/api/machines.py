"""Machines: what providers run for this server; and workers that are deployed on new ones."""

from __future__ import annotations

import re

from ..errors import InvalidRequest
from ..protocol import API, WORKER_NAME
from ..store import Transaction, machines
from .answers import Answer, page, with_iso_times
from .call import Call, known_id
from .cloudforms import DeployBody, Deployment, JobOf, Machine, MachineEnd, MachinePage, MachinesQuery
from .routes import USER, route

PATH = f"{API}/machines"


@route(
    "POST", f"{API}/workers/deploy", USER, "Deploys workers on new machines: all of them are written down, or none",
    body=DeployBody, answer=Deployment, status=202,
)  # fmt: skip
def deploy(call: Call) -> dict:
    """Their machines are made by jobs, a job each."""
    asked = call.body
    if (before := call.answered()) is not None:
        return before
    if not re.fullmatch(WORKER_NAME, _name(asked, asked["number"]) or "any"):
        raise InvalidRequest("is too long: the workers would be NAME-1, NAME-2... of up to 100 characters", field="name")
    with call.service.seats.seat():  # it waits for providers: the others need threads meanwhile
        found = call.service.deployer.order(asked, asked["number"])
    retry = call.service.clouds.deployment.retry
    specs = [{**_spec(asked, place, n), "retry": retry} for n, place in enumerate(found, 1)]
    return call.write(lambda tx: {"items": machines.plan(tx, specs, call.who)})


def _spec(asked: dict, place: dict, number: int) -> dict:
    kept = {key: asked[key] for key in ("batch", "prefetch", "permanent")}
    where = {key: place[key] for key in ("provider", "region", "flavor", "price", "currency")}
    wish = {key: asked[key] for key in ("provider", "region", "flavor", "concurrency")}
    slots = asked["concurrency"] or place["cpus"] or 1
    return {**kept, **where, "concurrency": slots, "name": _name(asked, number), "wish": wish}


def _name(asked: dict, number: int) -> str | None:
    return asked["name"] if asked["number"] == 1 or asked["name"] is None else f"{asked['name']}-{number}"


@route("GET", PATH, USER, "Machines that are there, a page of them", query=MachinesQuery, answer=MachinePage)
def find(call: Call) -> dict:
    """Those that are gone are told of by `state=gone` alone."""
    query = call.query
    rows = call.read(lambda tx: machines.find(tx, query, query["limit"] + 1, query["after"], query["order"] == "-id"))
    return page(rows, query["limit"])


@route("GET", f"{PATH}/<id:id>", USER, "A machine", answer=Machine)
def get(call: Call, id: int) -> dict:
    return with_iso_times(call.read(lambda tx: machines.get(tx, known_id(id, "machine"))))


@route(
    "DELETE", f"{PATH}/<id:id>", USER, "Destroys a machine, by a job; 204 where there is nothing to destroy",
    query=MachineEnd, answer=JobOf, status=202,
)  # fmt: skip
def delete(call: Call, id: int) -> Answer:
    forget = call.query["forget"]

    def change(tx: Transaction) -> int | None:
        if forget:
            machines.forget(tx, known_id(id, "machine"), call.who)
            return None
        return machines.destroy(tx, known_id(id, "machine"), call.who)

    return destroyed(call, call.write(change))


def destroyed(call: Call, job_id: int | None) -> Answer:
    """The answer to an order to destroy something: its job, or that there is none to wait for."""
    call.service.callers.forget()
    return Answer(status=204) if job_id is None else Answer({"job": job_id}, status=202)
