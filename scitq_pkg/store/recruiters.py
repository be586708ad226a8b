"""Recruiters: rules by which a batch takes idle workers; and the workers that were taken, until they go home."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache

from ..errors import Conflict
from . import batches, events, queue, stints
from .schema import LIVE_SQL, Recruiter
from .transaction import Transaction, marks
from .workers import AT_HOME

_SELECT = (
    "SELECT recruiter.id, batch.name AS batch, rank, flavor, provider, region, tasks_per_worker, minimum_tasks, maximum_workers, "
    "concurrency, prefetch, origin, recruiter.created_at FROM recruiter JOIN batch ON batch.id = recruiter.batch_id WHERE 1 = 1"
)
_GB = 1e9


# --- what people write ---------------------------------------------------------------------------------------------------


def put(tx: Transaction, given: dict, who: str) -> dict:
    """The recruiter of this batch and rank, made or made like this one: twice is once."""
    columns = {name: value for name, value in given.items() if name != "batch"}
    batch_id = batches.ensure(tx, given["batch"])
    known = _of_rank(tx, batch_id, given["rank"])
    if known is None:
        (recruiter_id,) = tx.new_ids("recruiter", 1)
        known = _of_rank(tx, batch_id, given["rank"])  # by another server, until new ids were to be had
    if known is None:
        tx.insert(Recruiter, {"id": recruiter_id, "batch_id": batch_id, "created_at": tx.now, **columns})
        events.add(tx, who, "recruiter.create", "recruiter", [recruiter_id], _of_event(given))
        tx.wake()
        return get(tx, recruiter_id)
    return update(tx, known, columns, who)


def _of_rank(tx: Transaction, batch_id: int, rank: int) -> int | None:
    return tx.value("SELECT id FROM recruiter WHERE batch_id = ? AND rank = ?", (batch_id, rank))


def _of_event(columns: dict) -> dict:
    return {name: value for name, value in columns.items() if value is not None}


def get(tx: Transaction, recruiter_id: int) -> dict:
    """A recruiter. Raises NotFound."""
    return tx.get(f"recruiter {recruiter_id}", f"{_SELECT} AND recruiter.id = ?", (recruiter_id,))


def find(tx: Transaction, chosen: dict, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Recruiters in the order of their ids, those past `after`; `chosen`: batch, rank."""
    tests, params = [], []
    for column, name in (("batch.name", "batch"), ("rank", "rank")):
        if chosen.get(name) is not None:
            tests.append(f" AND {column} = ?")
            params.append(chosen[name])
    if after is not None:
        tests.append(f" AND recruiter.id {'<' if descending else '>'} ?")
        params.append(after)
    order = f" ORDER BY recruiter.id {'DESC' if descending else 'ASC'} LIMIT ?"
    return tx.all(_SELECT + "".join(tests) + order, (*params, limit))


def update(tx: Transaction, recruiter_id: int, changes: dict, who: str) -> dict:
    """The recruiter, changed; what stays as it was is no change. Raises NotFound, Conflict if another one has the rank."""
    known = get(tx, recruiter_id)
    changes = {name: value for name, value in changes.items() if known[name] != value}
    if not changes:
        return known
    if "rank" in changes and find(tx, {"batch": known["batch"], "rank": changes["rank"]}, 1, None, False):
        raise Conflict(f"batch {known['batch']} has a recruiter of rank {changes['rank']}", field="rank")
    tx.update(Recruiter, recruiter_id, changes)
    events.add(tx, who, "recruiter.update", "recruiter", [recruiter_id], {"batch": known["batch"], **changes})
    tx.wake()
    return get(tx, recruiter_id)


def delete(tx: Transaction, recruiter_id: int, who: str) -> None:
    """Remove a recruiter; the workers that it took stay until they idle. Raises NotFound."""
    known = get(tx, recruiter_id)
    tx.run("DELETE FROM recruiter WHERE id = ?", (recruiter_id,))
    events.add(tx, who, "recruiter.delete", "recruiter", [recruiter_id], {"batch": known["batch"], "rank": known["rank"]})
    tx.wake()


# --- what the decider reads ------------------------------------------------------------------------------------------------


def standing(tx: Transaction) -> list[dict]:
    """The recruiters of batches that are going, in the order of their batches and ranks."""
    return tx.all(
        "SELECT recruiter.*, batch.name AS batch FROM recruiter JOIN batch ON batch.id = recruiter.batch_id "
        "WHERE NOT batch.stopped ORDER BY batch_id, rank"
    )


def of_batch(tx: Transaction, batch_id: int) -> list[dict]:
    """The recruiters of a batch, the first rank first."""
    return tx.all("SELECT * FROM recruiter WHERE batch_id = ? ORDER BY rank", (batch_id,))


def pending(tx: Transaction, batch_ids: Iterable[int], most: int) -> dict[int, int]:
    """How many tasks wait for a slot in each of these batches, those that are stopped left out; `most` are as good as more."""
    ids = list(batch_ids)
    if not ids:
        return {}
    rows = tx.all(
        "SELECT id, (SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE task.batch_id = batch.id AND state = 'pending' LIMIT ?) "
        f"AS found) AS n FROM batch WHERE id IN ({marks(ids)}) AND NOT stopped", (most, *ids),
    )  # fmt: skip
    return {row["id"]: row["n"] for row in rows if row["n"]}


def uploading(tx: Transaction) -> set[int]:
    """Workers that send outputs."""
    return set(tx.column(f"SELECT DISTINCT worker_id FROM execution WHERE state IN {LIVE_SQL} AND state = 'uploading'"))


def machines(tx: Transaction, worker_ids: list[int] | None, measured: bool) -> list[dict]:
    """Workers with what is known of their machines: `flavor`, `known`, by the items of protofilters, `kind`, equal for the like;
    and `unfit`, the batches in which they became unfit lately.

    Without `measured` disks and GPUs are left out, which cost more to read. `worker_ids` None: all.
    """
    if worker_ids == []:
        return []
    which = "" if worker_ids is None else f" AND id IN ({marks(worker_ids)})"
    rows = tx.all(
        "SELECT id, name, batch_id, flavor, provider, region, cpus, memory_bytes, unfit, "
        f"{'stats' if measured else 'NULL AS stats'} FROM worker WHERE deleted_at IS NULL{which} ORDER BY id", worker_ids or (),
    )  # fmt: skip
    kinds: dict[tuple, int] = {}
    for row in rows:
        row["known"] = _known(row)
        row["unfit"] = queue.unfit_lately(row, tx.now).keys()
        row["kind"] = kinds.setdefault((row["flavor"], *row["known"].items()), len(kinds))
    return rows


def states(tx: Transaction) -> list[dict]:
    """Every worker: its batch, what keeps it from work, and how much it holds."""
    return tx.all(
        "SELECT worker.id, batch.name AS batch, offline, problem, draining, (SELECT COUNT(*) FROM execution "
        f"WHERE worker_id = worker.id AND state IN {LIVE_SQL}) AS held FROM worker JOIN batch ON batch.id = worker.batch_id "
        "WHERE deleted_at IS NULL"
    )


def _known(row: dict) -> dict:
    known = {"cpu": row["cpus"], "ram": _gigabytes(row["memory_bytes"]), "provider": row["provider"], "region": row["region"]}
    return known | _measured(row["stats"]) if row["stats"] else known


@lru_cache(maxsize=2000)
def _measured(text: str) -> dict:
    """The scratch disk, which a worker tells last, and the GPUs; workers may tell anything, so nothing is taken for granted."""
    stats = json.loads(text)
    if not isinstance(stats, dict):
        return {}
    disks, gpus = stats.get("disks"), stats.get("gpus")
    disk = list(disks.values())[-1] if isinstance(disks, dict) and disks else None
    cards = [gpu for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    memories = [size for gpu in cards if (size := _gigabytes(gpu.get("memory_total"))) is not None]
    return {
        "disk": _gigabytes(disk.get("total")) if isinstance(disk, dict) else None,
        "tags": "G" if cards else "",
        "gpumem": max(memories, default=0 if not cards else None),
    }


def _gigabytes(size: object) -> int | None:
    return round(size / _GB) if isinstance(size, (int, float)) else None


# --- workers that are taken, and given back ----------------------------------------------------------------------------------


def take(tx: Transaction, recruiter: dict, workers: list[dict], who: str) -> set[int]:
    """Idle workers (rows of the decider) become workers of a recruiter's batch; the ids of those that did.

    A permanent one remembers where it was at home. The batch stays until this is committed: it is locked, and may be gone.
    """
    locking = " FOR KEY SHARE" if tx.postgresql else ""
    if not tx.column(f"SELECT id FROM batch WHERE id = ? AND NOT stopped{locking}", (recruiter["batch_id"],)):
        return set()
    home = ", ".join(
        f"{column} = CASE WHEN home_batch_id IS NULL AND permanent THEN {now} ELSE {column} END"
        for column, now in (("home_concurrency", "concurrency"), ("home_prefetch", "prefetch"), ("home_batch_id", "batch_id"))
    )
    ids = [worker["id"] for worker in workers]
    taken = set(tx.column(
        f"UPDATE worker SET {home}, batch_id = ?, concurrency = COALESCE(?, concurrency), prefetch = COALESCE(?, prefetch) "
        f"WHERE id IN ({marks(ids)}) AND concurrency > 0 AND deleted_at IS NULL AND NOT draining RETURNING id",
        (recruiter["batch_id"], recruiter["concurrency"], recruiter["prefetch"], *ids),
    ))  # fmt: skip
    for worker_id in taken:
        tx.touch(worker_id)
    stints.move(tx, sorted(taken))
    if taken:
        detail = _of_event({name: recruiter[name] for name in ("batch", "rank", "concurrency", "prefetch")})
        left = {worker["batch_id"] for worker in workers if worker["id"] in taken}
        events.add(tx, who, "worker.recruit", "worker", sorted(taken), {**detail, "from": _names(tx, left)})
    return taken


def go_home(tx: Transaction, worker_ids: list[int], who: str | None = None) -> None:
    """Workers that were taken are again what they were before; an event tells it unless it is part of another change."""
    if not worker_ids:
        return
    some = f"id IN ({marks(worker_ids)}) AND home_batch_id IS NOT NULL"
    if tx.postgresql:  # no other server deletes the batches before this is committed
        tx.column(f"SELECT id FROM batch WHERE id IN (SELECT home_batch_id FROM worker WHERE {some}) FOR KEY SHARE", worker_ids)
    homes: dict[int, list[int]] = {}
    for row in tx.all(f"SELECT id, home_batch_id FROM worker WHERE {some} ORDER BY id", worker_ids):
        homes.setdefault(row["home_batch_id"], []).append(row["id"])
    for batch_id, ids in homes.items():
        tx.run(
            "UPDATE worker SET batch_id = home_batch_id, concurrency = home_concurrency, prefetch = home_prefetch, "
            + ", ".join(f"{column} = NULL" for column in AT_HOME) + f" WHERE id IN ({marks(ids)})", ids,
        )  # fmt: skip
        stints.move(tx, ids)
        for worker_id in ids:
            tx.touch(worker_id)
        if who is not None:
            events.add(tx, who, "worker.return", "worker", ids, {"batch": _names(tx, [batch_id])[0]})


def _names(tx: Transaction, batch_ids: Iterable[int]) -> list[str]:
    ids = list(batch_ids)
    return tx.column(f"SELECT name FROM batch WHERE id IN ({marks(ids)}) ORDER BY name", ids)


def resting(tx: Transaction) -> list[int]:
    """Workers that were taken and idle: they hold nothing, and nothing that could start waits in their batch."""
    return tx.column(
        "SELECT worker.id FROM worker JOIN batch ON batch.id = worker.batch_id WHERE home_batch_id IS NOT NULL "
        f"AND deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM execution WHERE worker_id = worker.id AND state IN {LIVE_SQL}) "
        "AND (batch.stopped OR NOT EXISTS (SELECT 1 FROM task WHERE task.batch_id = worker.batch_id AND state = 'pending')) "
        "ORDER BY worker.id"
    )
