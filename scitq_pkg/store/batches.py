"""Batches: names that tasks and workers share."""

from __future__ import annotations

from ..errors import NotFound, nearest
from ..protocol import DEFAULT_BATCH, KILL, RUN, RUNNING, SUSPEND, TERM
from . import costs, events, queue, stints
from .filters import checked_glob, glob_test
from .schema import LIVE_SQL, Batch
from .transaction import Transaction, marks

_ORDERS = {"suspend": SUSPEND, "term": TERM, "kill": KILL}


def ensure(tx: Transaction, name: str) -> int:
    """The id of the batch of this name, which is made if there is none."""
    locking = " FOR KEY SHARE" if tx.postgresql else ""  # no server deletes it before this is committed
    found = tx.value(f"SELECT id FROM batch WHERE name = ?{locking}", (name,))
    if found is not None:
        return found
    (batch_id,) = tx.new_ids("batch", 1)
    made = tx.value("SELECT id FROM batch WHERE name = ?", (name,))  # by another server, until new ids were to be had
    if made is not None:
        return made
    tx.insert(Batch, {"id": batch_id, "name": name, "stopped": False, "created_at": tx.now})
    return batch_id


def find(tx: Transaction, limit: int, after: int | None, descending: bool, name: str = "*") -> list[dict]:
    """Batches in the order of their ids, those past `after` whose `name` matches the glob. Raises InvalidRequest."""
    test, params = glob_test(tx, "name", checked_glob(name))
    if after is not None:
        test, params = f"{test} AND id {'<' if descending else '>'} ?", [*params, after]
    order = "DESC" if descending else "ASC"
    rows = tx.all(f"SELECT * FROM batch WHERE {test} ORDER BY id {order} LIMIT ?", (*params, limit))
    return _with_counts(tx, rows)


def get(tx: Transaction, name: str) -> dict:
    """A batch. Raises NotFound with the nearest name."""
    return _with_counts(tx, [row(tx, name)])[0]


def row(tx: Transaction, name: str) -> dict:
    """The batch alone. Raises NotFound with the nearest name."""
    found = tx.one("SELECT * FROM batch WHERE name = ?", (name,))
    if found is None:
        raise NotFound(f"no batch {name!r:.80}{nearest(name, tx.column('SELECT name FROM batch'))}")
    return found


def _with_counts(tx: Transaction, rows: list[dict]) -> list[dict]:
    """With `counts` of tasks by state, how many `workers`, and their `cost` in `currency` so far as machines of providers."""
    if not rows:
        return rows
    nothing = {"counts": {}, "workers": 0, "cost": None, "currency": None, "hours": 0.0}
    by_id = {row["id"]: row | nothing | {"stopped": bool(row["stopped"]), "counts": {}} for row in rows}
    ids = list(by_id)
    for batch_id, spent in costs.of_batches(tx, ids).items():
        by_id[batch_id] |= spent
    for found in tx.all(
        f"SELECT batch_id, state, COUNT(*) AS n FROM task WHERE batch_id IN ({marks(ids)}) GROUP BY batch_id, state", ids
    ):
        by_id[found["batch_id"]]["counts"][found["state"]] = found["n"]
    for found in tx.all(
        f"SELECT batch_id, COUNT(*) AS n FROM worker WHERE deleted_at IS NULL AND batch_id IN ({marks(ids)}) GROUP BY batch_id",
        ids,
    ):
        by_id[found["batch_id"]]["workers"] = found["n"]
    return list(by_id.values())


def stop(tx: Transaction, name: str, who: str, running: str | None = None) -> None:
    """Nothing of the batch starts any more; `running`: "suspend", "term" or "kill" what runs. Raises NotFound."""
    batch_id = row(tx, name)["id"]
    tx.run("UPDATE batch SET stopped = ? WHERE id = ?", (True, batch_id))
    if running is not None:
        queue.order(tx, _running(tx, batch_id), _ORDERS[running], who)
    events.add(tx, who, "batch.stop", "batch", [name], {"running": running} if running else None)
    tx.wake()


def go(tx: Transaction, name: str, who: str) -> None:
    """Reverse `stop`; what was suspended runs on. Raises NotFound."""
    batch_id = row(tx, name)["id"]
    tx.run("UPDATE batch SET stopped = ? WHERE id = ?", (False, batch_id))
    suspended = tx.column(
        "SELECT id FROM execution WHERE batch_id = ? AND desired = ? "
        f"AND state IN {LIVE_SQL}",
        (batch_id, SUSPEND),
    )
    queue.order(tx, suspended, RUN, who)
    events.add(tx, who, "batch.go", "batch", [name])
    tx.wake()


def update(tx: Transaction, name: str, changes: dict, who: str) -> None:
    """Change its `budget`: a number, or None for none. Raises NotFound."""
    known = row(tx, name)
    changes = {column: value for column, value in changes.items() if known[column] != value}
    if changes:
        tx.update(Batch, known["id"], changes)
        events.add(tx, who, "batch.update", "batch", [name], changes)
        tx.wake()


def _running(tx: Transaction, batch_id: int) -> list[int]:
    return tx.column(
        "SELECT execution.id FROM execution JOIN task ON task.execution_id = execution.id WHERE task.batch_id = ? "
        "AND task.state = ? AND execution.state = ?", (batch_id, RUNNING, RUNNING),
    )  # fmt: skip


def delete(tx: Transaction, name: str, who: str) -> None:
    """Remove a batch, its tasks, recruiters and notifiers, who still send what they had to tell; what runs is ended, its
    workers go home or to the default batch.

    Raises NotFound, Conflict.
    """
    from . import recruiters, tasks  # which use this module

    batch_id = row(tx, name)["id"]
    # What other servers put into it is there now, or waits.
    tx.column(f"SELECT id FROM batch WHERE id = ?{tx.for_update}", (batch_id,))
    tasks.remove(tx, tx.column("SELECT id FROM task WHERE batch_id = ?", (batch_id,)))
    tx.run("DELETE FROM recruiter WHERE batch_id = ?", (batch_id,))
    tx.run("DELETE FROM notifier WHERE batch_id = ?", (batch_id,))
    default = ensure(tx, DEFAULT_BATCH)
    recruiters.go_home(tx, tx.column("SELECT id FROM worker WHERE batch_id = ? AND home_batch_id IS NOT NULL", (batch_id,)))
    tx.run("UPDATE worker SET home_batch_id = ? WHERE home_batch_id = ?", (default, batch_id))
    left = tx.column("SELECT id FROM worker WHERE batch_id = ?", (batch_id,))
    for worker_id in left:
        tx.run("UPDATE worker SET batch_id = ? WHERE id = ?", (default, worker_id))
        tx.touch(worker_id)
    stints.move(tx, left)
    if batch_id != default:
        tx.run("DELETE FROM batch WHERE id = ?", (batch_id,))
    events.add(tx, who, "batch.delete", "batch", [name])
    tx.wake()
