"""Stints: the times for which machines served batches. What a batch costs is made of them."""

from __future__ import annotations

from .schema import Stint
from .transaction import Transaction, marks


def begin(tx: Transaction, machine_id: int, batch_id: int) -> None:
    """From now on the machine serves this batch; one that serves it already goes on."""
    serving = tx.value("SELECT batch_id FROM stint WHERE machine_id = ? AND ended_at IS NULL", (machine_id,))
    if serving == batch_id:
        return
    end(tx, machine_id)
    (stint_id,) = tx.new_ids("stint", 1)
    tx.insert(Stint, {"id": stint_id, "machine_id": machine_id, "batch_id": batch_id, "started_at": tx.now})


def end(tx: Transaction, machine_id: int) -> None:
    """It serves nobody any more."""
    tx.run("UPDATE stint SET ended_at = ? WHERE machine_id = ? AND ended_at IS NULL", (tx.now, machine_id))


def move(tx: Transaction, worker_ids: list[int]) -> None:
    """The batch of these workers has changed: their machines serve the new one, as far as they serve."""
    if not worker_ids:
        return
    moved = tx.all(
        "SELECT worker.machine_id, worker.batch_id FROM worker JOIN stint ON stint.machine_id = worker.machine_id "
        f"WHERE worker.id IN ({marks(worker_ids)}) AND stint.ended_at IS NULL AND stint.batch_id <> worker.batch_id", worker_ids,
    )  # fmt: skip
    for row in moved:
        begin(tx, row["machine_id"], row["batch_id"])
