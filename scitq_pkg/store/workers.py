"""Workers: registered by themselves, changed by people."""

from __future__ import annotations

import fnmatch
import json

from ..errors import Conflict, InvalidRequest, NotFound, nearest
from ..protocol import WORKER_STATES
from . import batches, events, queue, tokens
from .filters import checked_glob
from .schema import Worker
from .transaction import Transaction

_LIVE = "('assigned', 'accepted', 'running', 'uploading')"
_SELECT = (
    "SELECT worker.id, worker.name, hostname, batch.name AS batch, concurrency, prefetch, permanent, draining, offline, problem, "
    "version, cpus, memory_bytes, flavor, provider, region, (SELECT name FROM batch WHERE id = home_batch_id) AS home, stats, "
    "worker.created_at, contact_at, "
    f"(SELECT COUNT(*) FROM execution WHERE worker_id = worker.id AND state IN {_LIVE}) AS held, "
    f"(SELECT COUNT(*) FROM execution WHERE worker_id = worker.id AND state IN {_LIVE} AND state = 'running') AS running "
    "FROM worker JOIN batch ON batch.id = worker.batch_id WHERE deleted_at IS NULL"
)


AT_HOME = {"home_batch_id": None, "home_concurrency": None, "home_prefetch": None}


def register(tx: Transaction, given: dict, hashed: str, who: str) -> dict:
    """The worker of this name and key, new or known, with a new token of this hash.

    A known one keeps the concurrency, prefetch and batch that it has here: a person may have changed them since.
    Raises Conflict if another machine has the name and is there, or is still expected to bring back what it runs.
    """
    known = tx.one("SELECT * FROM worker WHERE name = ? AND deleted_at IS NULL", (given["name"],))
    if known is not None and known["key"] != given["key"]:
        _make_way(tx, known)
        known = None
    worker_id = _renew(tx, known, given) if known is not None else _create(tx, given)
    events.add(tx, who, "worker.register", "worker", [worker_id], {"name": given["name"], "hostname": given["hostname"]})
    tokens.revoke_of_worker(tx, worker_id)
    tokens.create(tx, given["name"], "worker", hashed, who, worker_id)
    tx.wake()
    return get(tx, worker_id)


def _make_way(tx: Transaction, known: dict) -> None:
    """The name of a worker that is gone and holds nothing is free."""
    holds = tx.value(f"SELECT id FROM execution WHERE worker_id = ? AND state IN {_LIVE} LIMIT 1", (known["id"],))
    if not known["offline"] or holds is not None:
        raise Conflict(
            f"worker {known['name']} exists, on {known['hostname'] or 'another machine'}: give another --name, or "
            "delete that one first",
            field="name",
        )
    _remove(tx, known["id"])


def _create(tx: Transaction, given: dict) -> int:
    (worker_id,) = tx.new_ids("worker", 1)
    columns = {
        name: given[name] for name in ("name", "key", "hostname", "concurrency", "prefetch", "permanent", "cpus", "memory_bytes")
    }
    columns |= _machine(given)
    batch_id = batches.ensure(tx, given["batch"])
    flags = {"draining": False, "offline": False, "created_at": tx.now, "contact_at": tx.now}
    tx.insert(Worker, {"id": worker_id, "batch_id": batch_id, **columns, **flags})
    return worker_id


def _renew(tx: Transaction, known: dict, given: dict) -> int:
    columns = {name: given[name] for name in ("hostname", "permanent", "cpus", "memory_bytes")} | _machine(given)
    tx.update(Worker, known["id"], {**columns, "offline": False, "contact_at": tx.now})
    return known["id"]


def _machine(given: dict) -> dict:
    """What kind of machine it says it is; what it does not say stays as it is known here."""
    return {name: given[name] for name in ("flavor", "provider", "region") if given.get(name) is not None}


def get(tx: Transaction, worker_id: int) -> dict:
    """A worker. Raises NotFound."""
    return _shown(tx.get(f"worker {worker_id}", f"{_SELECT} AND worker.id = ?", (worker_id,)))


def find(tx: Transaction, chosen: dict, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Workers in the order of their ids, those past `after`; `chosen`: batch, name (a glob), state (several, commas between)."""
    checked_glob(chosen.get("name", "*"))
    rows = [_shown(row) for row in tx.all(f"{_SELECT} ORDER BY worker.id {'DESC' if descending else 'ASC'}")]
    states = _states(chosen.get("state"))
    kept = [
        row
        for row in rows
        if _passes(row, chosen, states) and (after is None or (row["id"] < after) == descending and row["id"] != after)
    ]
    return kept[:limit]


def _states(text: str | None) -> list[str]:
    states = [word.strip() for word in (text or "").split(",") if word.strip()]
    for state in states:
        if state not in WORKER_STATES:
            raise InvalidRequest(f"{state!r:.80} is no state of a worker{nearest(state, WORKER_STATES)}", field="state")
    return states


def _passes(row: dict, chosen: dict, states: list[str]) -> bool:
    if chosen.get("batch") not in (None, row["batch"]) or (states and row["state"] not in states):
        return False
    return "name" not in chosen or fnmatch.fnmatchcase(row["name"], chosen["name"])


def _shown(row: dict) -> dict:
    row["stats"] = json.loads(row["stats"]) if row["stats"] else None
    for flag in ("permanent", "draining"):
        row[flag] = bool(row[flag])
    offline = row.pop("offline")
    row["state"] = "offline" if offline else "unfit" if row["problem"] else "draining" if row["draining"] else "online"
    return row


def update(tx: Transaction, worker_id: int, changes: dict, who: str) -> None:
    """Change name, batch, concurrency, prefetch, draining, permanent, flavor, provider or region; the worker is told at once.

    One that is given a batch has it for its own. Raises NotFound, Conflict.
    """
    get(tx, worker_id)
    columns = dict(changes)
    if "name" in columns:
        _check_free(tx, columns["name"], worker_id)
    if "batch" in columns:
        columns["batch_id"] = batches.ensure(tx, columns.pop("batch"))
        columns |= AT_HOME
    tx.update(Worker, worker_id, columns)
    if changes:
        events.add(tx, who, "worker.update", "worker", [worker_id], changes)
        tx.touch(worker_id)
        tx.wake()


def _check_free(tx: Transaction, name: str, worker_id: int) -> None:
    other = tx.value("SELECT id FROM worker WHERE name = ? AND deleted_at IS NULL AND id <> ?", (name, worker_id))
    if other is not None:
        raise Conflict(f"worker {other} has this name", field="name")


def delete(tx: Transaction, worker_id: int, who: str) -> None:
    """Forget a worker: what it holds goes back to the queue, and is refused if it still reports it. Raises NotFound."""
    worker = get(tx, worker_id)
    queue.declare_lost(tx, [worker_id], f"worker {worker['name']} was deleted by {who}")
    _remove(tx, worker_id)
    events.add(tx, who, "worker.delete", "worker", [worker_id], {"name": worker["name"]})


def _remove(tx: Transaction, worker_id: int) -> None:
    tx.run("UPDATE worker SET deleted_at = ? WHERE id = ?", (tx.now, worker_id))
    tokens.revoke_of_worker(tx, worker_id)
    tx.touch(worker_id)
    tx.wake()


def by_name_or_id(tx: Transaction, word: str) -> int:
    """The id of a worker that is named or numbered. Raises NotFound with the nearest name."""
    rows = tx.all("SELECT id, name FROM worker ORDER BY deleted_at IS NULL DESC, id DESC")
    for row in rows:
        if row["name"] == word or str(row["id"]) == word:
            return row["id"]
    raise NotFound(f"no worker {word!r:.80}{nearest(word, [row['name'] for row in rows])}")
