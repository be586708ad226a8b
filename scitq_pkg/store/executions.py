"""Executions: the attempts to run tasks, and the bytes they wrote."""

from __future__ import annotations

import json

from ..protocol import STREAMS
from .filters import Filter
from .transaction import Transaction

_SELECT = (
    "SELECT execution.id, task_id, worker_id, worker.name AS worker, batch.name AS batch, task.name AS name, attempt, "
    "execution.state, desired, asked_by, suspended, pid, exit_code, signal, reason, assigned_at, accepted_at, started_at, "
    "ended_at, finished_at, cpu_seconds, "
    "peak_memory_bytes, read_bytes, written_bytes, stdout_size, stderr_size, last_output, transfers, reused_id "
    "FROM execution "
    "JOIN batch ON batch.id = execution.batch_id JOIN task ON task.id = execution.task_id "
    "LEFT JOIN worker ON worker.id = execution.worker_id"
)


def get(tx: Transaction, execution_id: int) -> dict:
    """An execution with the names of its worker and batch. Raises NotFound."""
    return _shown(tx.get(f"execution {execution_id}", f"{_SELECT} WHERE execution.id = ?", (execution_id,)))


def find(tx: Transaction, chosen: Filter, task_id: int | None, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Executions that pass the filter, of one task or all, in the order of their ids, those past `after`."""
    test, params = chosen.of_executions(tx)
    if task_id is not None:
        test, params = f"{test} AND execution.task_id = ?", [*params, task_id]
    if after is not None:
        test, params = f"{test} AND execution.id {'<' if descending else '>'} ?", [*params, after]
    order = "DESC" if descending else "ASC"
    return [_shown(row) for row in tx.all(f"{_SELECT} WHERE {test} ORDER BY execution.id {order} LIMIT ?", (*params, limit))]


def _shown(row: dict) -> dict:
    row["suspended"] = bool(row["suspended"])
    row["transfers"] = json.loads(row["transfers"]) if row["transfers"] else []
    return row


def output(tx: Transaction, execution_id: int, stream: str, offset: int, limit: int) -> dict:
    """Kept bytes of a stream from `offset` on, `limit` at most, as they follow each other.

    `data`, `offset` (of the first byte), `next`, `size` (of all that was written), `skipped` (bytes between the kept head and
    tail that were passed over), `state` of the execution. Raises NotFound.
    """
    row = tx.get(f"execution {execution_id}", f"SELECT state, {stream}_size AS size FROM execution WHERE id = ?", (execution_id,))
    number = STREAMS.index(stream)
    pieces: list[bytes] = []
    have, position = 0, None
    for start, data in _pieces(tx, execution_id, number, offset):
        begin = max(offset, start)
        if position is not None and begin != position:
            break  # the gap between head and tail: the next call passes it over
        position = begin if position is None else position
        piece = data[begin - start :][: limit - have]
        pieces.append(piece)
        have += len(piece)
        position += len(piece)
        if have >= limit:
            break
    first = offset if position is None else position - have
    return {
        "data": b"".join(pieces),
        "offset": first,
        "next": first + have,
        "size": row["size"],
        "skipped": first - offset,
        "state": row["state"],
    }


def _pieces(tx: Transaction, execution_id: int, number: int, offset: int):
    """The stored pieces that end past `offset`, one after the other: each is read when it is wanted."""
    start = tx.value(
        "SELECT MAX(start) FROM output WHERE execution_id = ? AND stream = ? AND start <= ?", (execution_id, number, offset)
    )
    start = -1 if start is None else start - 1
    while True:
        row = tx.one(
            "SELECT start, data FROM output WHERE execution_id = ? AND stream = ? AND start > ? ORDER BY start LIMIT 1",
            (execution_id, number, start),
        )
        if row is None:
            return
        start = row["start"]
        data = bytes(row["data"])
        if start + len(data) > offset:
            yield start, data


def tail(tx: Transaction, execution_id: int, stream: str, size: int) -> tuple[bytes, int]:
    """The last bytes of a stream, so many at most, and how many were written in all."""
    number = STREAMS.index(stream)
    pieces: list[bytes] = []
    have, before = 0, 2**62
    while have < size:
        row = tx.one(
            "SELECT start, data FROM output WHERE execution_id = ? AND stream = ? AND start < ? ORDER BY start DESC LIMIT 1",
            (execution_id, number, before),
        )
        if row is None:
            break
        before = row["start"]
        pieces.insert(0, bytes(row["data"]))
        have += len(pieces[0])
    written = tx.value(f"SELECT {stream}_size FROM execution WHERE id = ?", (execution_id,)) or 0
    return b"".join(pieces)[-size:], written
