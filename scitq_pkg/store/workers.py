"""Workers: registered by themselves, changed by people."""

from __future__ import annotations

import fnmatch
import json

from .. import __version__
from ..errors import Conflict, NotAllowed
from ..protocol import COMING, WORKER_STATES
from . import batches, events, queue, stints, tokens
from .filters import checked_glob, words_of
from .schema import LIVE_SQL, Worker
from .transaction import Transaction

_OF_MACHINE = (  # most workers have none: nothing is looked for then
    "machine_id AS machine, machine.state AS machine_state, machine.price, machine.currency, "
    "CASE WHEN machine_id IS NULL THEN NULL ELSE (SELECT SUM((COALESCE(stint.ended_at, ?) - stint.started_at) / 3600.0) "
    "FROM stint WHERE stint.machine_id = worker.machine_id) END AS hours, "
    "CASE WHEN machine_id IS NULL THEN NULL ELSE (SELECT MAX(job.id) FROM job WHERE job.machine_id = worker.machine_id "
    "AND job.state IN ('pending', 'running')) END AS job, "
)
_SELECT = (
    "SELECT worker.id, worker.name, hostname, batch.name AS batch, concurrency, prefetch, permanent, draining, offline, problem, "
    "version, cpus, memory_bytes, worker.flavor, worker.provider, worker.region, "
    "(SELECT name FROM batch WHERE id = home_batch_id) AS home, stats, worker.created_at, contact_at, "
    "upgrade, upgrade_problem, " + _OF_MACHINE +
    f"(SELECT COUNT(*) FROM execution WHERE worker_id = worker.id AND state IN {LIVE_SQL}) AS held, "
    f"(SELECT COUNT(*) FROM execution WHERE worker_id = worker.id AND state IN {LIVE_SQL} AND state = 'running') AS running "
    "FROM worker JOIN batch ON batch.id = worker.batch_id LEFT JOIN machine ON machine.id = worker.machine_id "
    "WHERE deleted_at IS NULL"
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
    holds = tx.value(f"SELECT id FROM execution WHERE worker_id = ? AND state IN {LIVE_SQL} LIMIT 1", (known["id"],))
    if not known["offline"] or holds is not None or known["machine_id"] is not None:
        raise Conflict(
            f"worker {known['name']} exists, on {known['hostname'] or 'another machine'}: give another --name, or "
            "delete that one first",
            field="name",
        )
    remove(tx, known["id"])


def register_own(tx: Transaction, worker_id: int, token_id: int, given: dict, who: str) -> dict:
    """A worker that comes with its own token, as one does that was deployed: that stays, all others of it are worth nothing.

    Its name is the one it has here, a person may have given it another. Raises NotAllowed for another key.
    """
    known = tx.one("SELECT * FROM worker WHERE id = ? AND deleted_at IS NULL", (worker_id,))
    if known is None or known["key"] != given["key"]:
        raise NotAllowed("a worker's token registers that worker alone, by its key")
    if not tokens.is_valid(tx, token_id):  # the attempt that made this machine was given up: it is being removed
        raise NotAllowed("this token was revoked")
    tokens.revoke_of_worker(tx, worker_id, but=token_id)
    _renew(tx, known, given)
    events.add(tx, who, "worker.register", "worker", [worker_id], {"name": given["name"], "hostname": given["hostname"]})
    tx.wake()
    return get(tx, worker_id)


def _arrived(tx: Transaction, known: dict) -> None:
    from . import machines  # which uses this module

    if known["machine_id"] is not None:
        machines.up(tx, known["machine_id"])


def let_in(tx: Transaction, worker_id: int, hashed: str, who: str) -> None:
    """One more token for a worker that is being deployed: whichever its machine was given, it may come with it."""
    worker = get(tx, worker_id)
    tokens.create(tx, worker["name"], "worker", hashed, who, worker_id)


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
    columns = {name: given[name] for name in ("hostname", "cpus", "memory_bytes")}
    if known["machine_id"] is None:  # else it was decided when it was deployed
        columns |= {"permanent": given["permanent"], **_machine(given)}
    tx.update(Worker, known["id"], {**columns, "offline": False, "contact_at": tx.now})
    _arrived(tx, known)
    return known["id"]


def _machine(given: dict) -> dict:
    """What kind of machine it says it is; what it does not say stays as it is known here."""
    return {name: given[name] for name in ("flavor", "provider", "region") if given.get(name) is not None}


def get(tx: Transaction, worker_id: int) -> dict:
    """A worker. Raises NotFound."""
    return _shown(tx.get(f"worker {worker_id}", f"{_SELECT} AND worker.id = ?", (tx.now, worker_id)))


def find(tx: Transaction, chosen: dict, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Workers in the order of their ids, those past `after`; `chosen`: batch, name (a glob), state (several, commas between)."""
    checked_glob(chosen.get("name", "*"))
    rows = [_shown(row) for row in tx.all(f"{_SELECT} ORDER BY worker.id {'DESC' if descending else 'ASC'}", (tx.now,))]
    states = words_of(chosen.get("state"), "worker", WORKER_STATES)
    kept = [
        row
        for row in rows
        if _passes(row, chosen, states) and (after is None or (row["id"] < after) == descending and row["id"] != after)
    ]
    return kept[:limit]


def _passes(row: dict, chosen: dict, states: list[str]) -> bool:
    if chosen.get("batch") not in (None, row["batch"]) or (states and row["state"] not in states):
        return False
    return "name" not in chosen or fnmatch.fnmatchcase(row["name"], chosen["name"])


def _shown(row: dict) -> dict:
    row["stats"] = json.loads(row["stats"]) if row["stats"] else None
    for flag in ("permanent", "draining"):
        row[flag] = bool(row[flag])
    row["state"] = _state(row, row.pop("offline"))
    row["outdated"] = row["version"] not in (None, __version__)
    row["upgrading"] = row.pop("upgrade") is not None
    row["gpus"], row["gpu"] = _gpus(row["stats"])
    row["cost"] = None if row["price"] is None else round((row["hours"] or 0.0) * row["price"], 4)
    if row["machine"] is not None:
        row["hours"] = round(row["hours"] or 0.0, 2)
    return row


def _gpus(stats: object) -> tuple[int | None, str | None]:
    """How many GPUs a worker told of, and what the first is; None before it has measured."""
    if not isinstance(stats, dict):
        return None, None
    found = stats.get("gpus")
    cards = [card for card in found if isinstance(card, dict)] if isinstance(found, list) else []
    return len(cards), str(cards[0]["name"]) if cards and cards[0].get("name") else None


def _state(row: dict, offline: bool) -> str:
    """One word, the worst of what there is to say; of a machine that comes or goes that alone."""
    if row["machine_state"] in COMING:
        return "deploying"
    if row["machine_state"] == "deleting":
        return "destroying"
    return "offline" if offline else "unfit" if row["problem"] else "draining" if row["draining"] else "online"


def update(tx: Transaction, worker_id: int, changes: dict, who: str) -> None:
    """Change name, batch, concurrency, prefetch, draining, permanent, flavor, provider or region; the worker is told at once.

    One that is given a batch has it for its own. Raises NotFound, Conflict.
    """
    get(tx, worker_id)
    columns = dict(changes)
    if "name" in columns:
        check_free(tx, columns["name"], worker_id)
    if "batch" in columns:
        columns["batch_id"] = batches.ensure(tx, columns.pop("batch"))
        columns |= AT_HOME
    tx.update(Worker, worker_id, columns)
    if "batch" in changes:
        stints.move(tx, [worker_id])
    if changes:
        events.add(tx, who, "worker.update", "worker", [worker_id], changes)
        tx.touch(worker_id)
        tx.wake()


def check_free(tx: Transaction, name: str, worker_id: int | None = None) -> None:
    """Raises Conflict if a worker other than this one has the name."""
    other = tx.value("SELECT id FROM worker WHERE name = ? AND deleted_at IS NULL", (name,))
    if other not in (None, worker_id):
        raise Conflict(f"worker {other} has this name: give another one", field="name")


def upgrade(tx: Transaction, worker_id: int, sha256: str, who: str) -> dict:
    """Have a worker go on as the one file of this sum, when it is there; the worker. Raises NotFound."""
    get(tx, worker_id)
    tx.update(Worker, worker_id, {"upgrade": sha256, "upgrade_problem": None})
    events.add(tx, who, "worker.upgrade", "worker", [worker_id], {"sha256": sha256})
    tx.touch(worker_id)
    tx.changed = True
    return get(tx, worker_id)


def unaware_machine(tx: Transaction, worker_id: int) -> int | None:
    """The machine of a worker, unless it is known already that it is taken away."""
    return tx.value(
        "SELECT machine.id FROM worker JOIN machine ON machine.id = worker.machine_id WHERE worker.id = ? AND deleted_at IS NULL "
        "AND machine.state NOT IN ('evicted', 'deleting', 'gone')", (worker_id,),
    )  # fmt: skip


def delete(tx: Transaction, worker_id: int, who: str) -> int | None:
    """Forget a worker: what it holds goes back to the queue, and is refused if it still reports it. Raises NotFound.

    One that was deployed stays until its machine is destroyed: the id of the job that does it.
    """
    worker = get(tx, worker_id)
    events.add(tx, who, "worker.delete", "worker", [worker_id], {"name": worker["name"]})
    if worker["machine_state"] not in (None, "gone"):
        from . import machines  # which uses this module

        return machines.unmake(tx, worker["machine"], who)
    queue.declare_lost(tx, [worker_id], f"worker {worker['name']} was deleted by {who}")
    remove(tx, worker_id)
    return None


def remove(tx: Transaction, worker_id: int) -> None:
    """It is there no more, nor are its tokens; its row stays for what it did. Its name is free."""
    tx.run("UPDATE worker SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL", (tx.now, worker_id))
    tokens.revoke_of_worker(tx, worker_id)
    tx.touch(worker_id)
    tx.wake()
