"""What the tasks of a batch took, and what went wrong."""

from __future__ import annotations

from ..protocol import FAILED, SUCCEEDED
from . import batches
from .transaction import Transaction

_FAILURES = 20  # groups of failures in a report
_NAMED = 100  # tasks of each that are named


def report(tx: Transaction, name: str) -> dict:
    """Durations (seconds) and peak memory of what succeeded, failures by exit code, signal and last line. Raises NotFound."""
    batch_id = batches.row(tx, name)["id"]
    return {
        "batch": name,
        "durations": _durations(tx, batch_id),
        "peak_memory_bytes": _peak(tx, batch_id),
        "failures": _failures(tx, batch_id),
    }


_LATEST = "FROM execution JOIN task ON task.execution_id = execution.id WHERE task.batch_id = ? AND execution.state = ?"


def _durations(tx: Transaction, batch_id: int) -> dict:
    seconds = "COALESCE(execution.ended_at, execution.finished_at) - execution.started_at"
    return tx.one(
        f"SELECT COUNT(*) AS count, MIN({seconds}) AS least, AVG({seconds}) AS mean, MAX({seconds}) AS most {_LATEST} "
        "AND execution.started_at IS NOT NULL", (batch_id, SUCCEEDED),
    )  # fmt: skip


def _peak(tx: Transaction, batch_id: int) -> int | None:
    return tx.value(f"SELECT MAX(execution.peak_memory_bytes) {_LATEST}", (batch_id, SUCCEEDED))


def _failures(tx: Transaction, batch_id: int) -> list[dict]:
    rows = tx.all(
        f"SELECT execution.task_id, execution.exit_code, execution.signal, execution.reason, execution.last_output {_LATEST} "
        "ORDER BY execution.id", (batch_id, FAILED),
    )  # fmt: skip
    groups: dict[tuple, dict] = {}
    for row in rows:
        line = (row["last_output"] or "").rstrip().rpartition("\n")[2][:300] or None
        key = (row["exit_code"], row["signal"], line)
        group = groups.setdefault(
            key, {"exit_code": key[0], "signal": key[1], "last_line": line, "reason": row["reason"], "count": 0, "task_ids": []}
        )
        group["count"] += 1
        if group["count"] <= _NAMED:
            group["task_ids"].append(row["task_id"])
    return sorted(groups.values(), key=lambda group: -group["count"])[:_FAILURES]
