"""A worker's one request: what it says is applied, what it should do is answered, or waited for."""

from __future__ import annotations

import time

from .. import wire
from ..errors import NotFound
from ..protocol import API, POLL_SECONDS, SyncAnswer, SyncRequest
from ..store import Transaction, machines, queue, workers
from .call import Call, known_id
from .routes import WORKER, route
from .shapes import Cached

CROWDED_SECONDS = 5.0  # between two idle requests of a worker when no more can be held
_MOST_CHARACTERS = 2000  # of why a machine is taken away
HELD_SHARE = 0.25  # of the silence that makes a worker lost: a held request is no sign of life


@route(
    "POST", f"{API}/workers/<id:id>/sync", WORKER, "Everything a worker has to say, and everything it should do",
    raw_body=wire.SYNC_CONTENT_TYPE,
)  # fmt: skip
def sync(call: Call, id: int) -> dict:
    """Answers at once when there is news; otherwise as soon as there is, or when the time to wait is over."""
    service, worker_id = call.service, known_id(id, "worker")
    request, data = wire.decode_request(call.raw)
    rings = service.bells.enter(worker_id)
    service.monitor.contact(worker_id)
    if request.stats:
        service.history.note(worker_id, request.stats)
    if request.evicted:
        _note_eviction(call, worker_id, request.evicted[:_MOST_CHARACTERS])
    told = call.read(lambda tx: _idle_answer(tx, worker_id, request))
    if told is None:
        service.store.write(lambda tx: queue.apply(tx, worker_id, request, data))
        told = call.read(lambda tx: queue.answer(tx, worker_id, request))
    if request.wait > 0 and not queue.is_news(told, request):
        told = _held(call, worker_id, request, told, rings)
    return wire.encode_answer(told)


@route(
    "GET", f"{API}/workers/<id:id>/cache/<key>", WORKER, "The outputs of an equal task that succeeded", answer=Cached,
)  # fmt: skip
def cached(call: Call, id: int, key: str) -> dict:
    """The key is the worker's sum of the command and of what it would run on."""
    found = call.read(lambda tx: queue.cached(tx, key))
    if found is None:
        raise NotFound(f"nothing that succeeded has the key {key:.100}")
    return found


def _note_eviction(call: Call, worker_id: int, why: str) -> None:
    machine_id = call.read(lambda tx: workers.unaware_machine(tx, worker_id))
    if machine_id is not None:
        call.service.store.write(lambda tx: machines.evicted(tx, machine_id, why, call.who))


def _idle_answer(tx: Transaction, worker_id: int, request: SyncRequest) -> SyncAnswer | None:
    """The answer to a request that says nothing new, which then costs no write; None for one that does."""
    return None if queue.needs_apply(tx, worker_id, request) else queue.answer(tx, worker_id, request)


def _held(call: Call, worker_id: int, request: SyncRequest, told: SyncAnswer, rings: int) -> SyncAnswer:
    """Wait for news. The answer is newer than the bell, so nothing is missed between them."""
    longest = HELD_SHARE * call.service.settings.lost_after
    deadline = time.monotonic() + min(request.wait, POLL_SECONDS, longest)
    with call.service.seats.seat() as seated:
        if not seated:
            told.delay = min(CROWDED_SECONDS, longest)
            return told
        while not queue.is_news(told, request):
            rung = call.service.bells.wait(worker_id, rings, deadline - time.monotonic())
            if rung is None:
                break
            rings = rung
            told = call.read(lambda tx: queue.answer(tx, worker_id, request))
    return told
