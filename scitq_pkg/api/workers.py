"""Workers: registered by themselves, changed by people."""

from __future__ import annotations

from .. import auth
from ..protocol import API
from ..store import workers
from .answers import Answer, iso, page, with_iso_times
from .call import Call, known_id
from .callers import Caller
from .machines import destroyed
from .routes import USER, WORKER, route
from .schemas import NewWorker, WorkerChange, WorkersQuery
from .shapes import RegisteredWorker, Worker, WorkerHistory, WorkerPage

PATH = f"{API}/workers"


@route(
    "POST",
    PATH,
    USER + WORKER,
    "Registers a worker; its own token is shown this once",
    body=NewWorker,
    answer=RegisteredWorker,
    status=201,
)
def register(call: Call) -> dict:
    """The same name and key again is the same worker with a new token, so no request id is needed.

    A worker that was deployed comes with its own token, which is kept.
    """
    caller = call.caller
    if caller is not None and caller.role == "worker":
        return _register_own(call, caller)
    given, token = call.body, auth.new_token()
    worker = call.service.store.write(lambda tx: workers.register(tx, given, auth.hash_token(token), call.who))
    call.service.callers.forget()
    return with_iso_times(worker) | {"token": token}


def _register_own(call: Call, caller: Caller) -> dict:
    given = call.body
    worker = call.service.store.write(lambda tx: workers.register_own(tx, caller.worker_id, caller.token_id, given, call.who))
    call.service.callers.forget()
    return with_iso_times(worker) | {"token": call.token}


@route("GET", PATH, USER, "Workers that pass the filter, a page of them", query=WorkersQuery, answer=WorkerPage)
def find(call: Call) -> dict:
    query = call.query
    rows = call.read(lambda tx: workers.find(tx, query, query["limit"] + 1, query["after"], query["order"] == "-id"))
    return page(rows, query["limit"])


@route("GET", f"{PATH}/<id:id>", USER + WORKER, "A worker", answer=Worker)
def get(call: Call, id: int) -> dict:
    return with_iso_times(call.read(lambda tx: workers.get(tx, known_id(id, "worker"))))


@route(
    "GET",
    f"{PATH}/<id:id>/history",
    USER,
    "What its machine did in the last hour, as far as this server heard",
    answer=WorkerHistory,
)
def history(call: Call, id: int) -> dict:
    """Kept in memory: a server that was started again begins anew."""
    call.read(lambda tx: workers.get(tx, known_id(id, "worker")))
    return {"items": [row | {"at": iso(row["at"])} for row in call.service.history.of(id)]}


@route("PATCH", f"{PATH}/<id:id>", USER, "Changes a worker while it works", body=WorkerChange, answer=Worker)
def change(call: Call, id: int) -> dict:
    changes = call.body

    def apply(tx) -> dict:
        workers.update(tx, known_id(id, "worker"), changes, call.who)
        return with_iso_times(workers.get(tx, id))

    return call.write(apply)


@route(
    "DELETE", f"{PATH}/<id:id>", USER, "Forgets a worker; what it held goes back to the queue. 202: a job destroys its machine",
    status=204,
)  # fmt: skip
def delete(call: Call, id: int) -> Answer:
    return destroyed(call, call.write(lambda tx: workers.delete(tx, known_id(id, "worker"), call.who)))
