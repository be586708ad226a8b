"""Attempts as time went: those that run, those that ended lately, when those of a batch ran."""

from __future__ import annotations

from ..protocol import SUCCEEDED
from .filters import among
from .schema import LIVE_SQL
from .transaction import Transaction

MANY = 20_000  # tasks of a batch, of which then the newest attempts of all batches are looked through
NEWEST = 4000  # attempts that are looked at, where nothing is known yet
_TIMES = "id, batch_id, state, started_at, COALESCE(ended_at, finished_at) AS ended_at, finished_at"
_COUNTED = "state IN ('succeeded', 'failed')"


def live(tx: Transaction) -> list[dict]:
    """Every attempt that a worker holds: `id`, `batch_id`, `state`, `started_at`."""
    return tx.all(f"SELECT id, batch_id, state, started_at FROM execution WHERE state IN {LIVE_SQL}")


def ended(tx: Transaction, seen: int, gone: list[int]) -> tuple[list[dict], int]:
    """What succeeded or failed of the attempts made after `seen` (the newest of them only) and of those in `gone`.

    Rows with `batch_id`, `state`, `started_at`, `ended_at`, `finished_at`; and the id to give as `seen` the next time.
    """
    newest = tx.value("SELECT MAX(id) FROM execution") or 0
    found = tx.all(f"SELECT {_TIMES} FROM execution WHERE id > ? AND {_COUNTED}", (max(seen, newest - NEWEST),))
    if gone:
        test, params = among(tx, "id", [(number, number) for number in gone])
        known = {row["id"] for row in found}
        found += [
            row for row in tx.all(f"SELECT {_TIMES} FROM execution WHERE {test} AND {_COUNTED}", params) if row["id"] not in known
        ]
    return found, max(seen, newest)


def newest_succeeded(tx: Transaction, batch_id: int, count: int) -> list[dict]:
    """The attempts by which the newest tasks of a batch succeeded, in the order of their ends; rows as those of `ended`."""
    return tx.all(
        f"SELECT {_TIMES} FROM execution WHERE id IN "
        "(SELECT execution_id FROM task WHERE batch_id = ? AND state = ? ORDER BY id DESC LIMIT ?) ORDER BY finished_at",
        (batch_id, SUCCEEDED, count),
    )


def timeline(tx: Transaction, batch_id: int, since: float, most: int) -> list[dict]:
    """When the newest attempts of a batch ran, those that ran at `since` or later; `execution_id`, task, worker, state, times."""
    tasks = tx.value("SELECT COUNT(*) FROM task WHERE batch_id = ?", (batch_id,))
    by_tasks = (
        "execution.id IN (SELECT execution.id FROM task JOIN execution ON execution.task_id = task.id WHERE task.batch_id = ?)"
    )
    ours = by_tasks if tasks <= MANY else "execution.batch_id = ?"
    return tx.all(
        "SELECT execution.id AS execution_id, task_id, task.name, worker.name AS worker, execution.state, started_at, "
        "COALESCE(ended_at, finished_at) AS ended_at FROM execution JOIN task ON task.id = task_id "
        f"LEFT JOIN worker ON worker.id = worker_id WHERE {ours} AND started_at IS NOT NULL "
        "AND COALESCE(ended_at, finished_at, ?) >= ? ORDER BY execution.id DESC LIMIT ?", (batch_id, tx.now, since, most),
    )  # fmt: skip
