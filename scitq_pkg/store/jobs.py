"""Jobs: what this server does with providers, step by step, with a log. Each ends once, by whoever runs it.

    pending ──► running ──► succeeded
       ▲           ├──────► failed      (relaunched by a person: pending)
       └───────────┴──────► canceled
    (another attempt, or its server process is gone)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import Conflict
from ..protocol import JOB_KINDS, JOB_STATES
from . import events
from .filters import words_of
from .schema import Job
from .transaction import Transaction, marks

RETRY = 2  # attempts of a deployment that may fail
KEPT_LINES = 2000  # of the log of a job
KEPT_CHARACTERS = 2000  # of a line
UNFINISHED = ("pending", "running")
KEPT_SECONDS = 90 * 86400.0  # for which what ended can be looked at: jobs, and machines that are gone
FORGOTTEN_AT_ONCE = 100  # so many are removed by one write, each with up to KEPT_LINES
_SELECT = (
    "SELECT job.id, job.kind, job.state, job.provider, job.machine_id AS machine, machine.name AS machine_name, job.worker_id, "
    "worker.name AS worker, batch.name AS batch, machine.region, machine.flavor, job.attempt, job.retry, job.progress, job.step, "
    "job.message, job.canceled_by, job.asked_by, job.not_before AS not_before_at, job.created_at, job.started_at, "
    "job.finished_at FROM job LEFT JOIN machine ON machine.id = job.machine_id LEFT JOIN worker ON worker.id = job.worker_id "
    "LEFT JOIN batch ON batch.id = worker.batch_id WHERE 1 = 1"
)


# --- what people see and ask ---------------------------------------------------------------------------------------------


def get(tx: Transaction, job_id: int) -> dict:
    """A job. Raises NotFound."""
    return tx.get(f"job {job_id}", f"{_SELECT} AND job.id = ?", (job_id,))


def find(tx: Transaction, chosen: dict, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Jobs in the order of their ids, those past `after`; `chosen`: state and kind (several, commas between), provider, worker
    (name or id), batch. Raises InvalidRequest.
    """
    tests, params = [], []
    for name, known in (("state", JOB_STATES), ("kind", JOB_KINDS)):
        if words := words_of(chosen.get(name), "job", known, name):
            tests.append(f" AND job.{name} IN ({marks(words)})")
            params += words
    for column, name in (("job.provider", "provider"), ("batch.name", "batch")):
        if chosen.get(name) is not None:
            tests.append(f" AND {column} = ?")
            params.append(chosen[name])
    if chosen.get("worker") is not None:
        tests.append(" AND (worker.name = ? OR CAST(worker.id AS TEXT) = ?)")
        params += [chosen["worker"]] * 2
    if after is not None:
        tests.append(f" AND job.id {'<' if descending else '>'} ?")
        params.append(after)
    order = f" ORDER BY job.id {'DESC' if descending else 'ASC'} LIMIT ?"
    return tx.all(_SELECT + "".join(tests) + order, (*params, limit))


def troubled(tx: Transaction, limit: int) -> list[dict]:
    """The newest jobs that failed, or wait because an attempt has; of those that ask a provider for its flavors its last."""
    return tx.all(
        f"{_SELECT} AND (job.state = 'failed' OR (job.state IN ('pending', 'running') AND job.message IS NOT NULL)) "
        "AND NOT (job.kind = 'flavors' AND EXISTS (SELECT 1 FROM job AS later WHERE later.machine_id IS NULL "
        "AND later.kind = 'flavors' AND later.provider = job.provider AND later.id > job.id)) "
        "ORDER BY job.id DESC LIMIT ?", (limit,),
    )  # fmt: skip


def log(tx: Transaction, job_id: int, after: int, limit: int) -> list[dict]:
    """Lines of its log past the number `after`, each `seq`, `at`, `line`. Raises NotFound."""
    lines = tx.all(
        "SELECT seq, at, line FROM joblog WHERE job_id = ? AND seq > ? ORDER BY seq LIMIT ?", (job_id, after, limit)
    )  # fmt: skip
    if not lines:
        get(tx, job_id)
    return lines


def delete(tx: Transaction, job_id: int, who: str) -> None:
    """Forget a job that ended, with its log. Raises NotFound, Conflict."""
    job = get(tx, job_id)
    if job["state"] in UNFINISHED:
        raise Conflict(f"job {job_id} is {job['state']}: cancel it first")
    _forget(tx, [job_id])
    events.add(tx, who, "job.delete", "job", [job_id], {"kind": job["kind"], "state": job["state"]})
    tx.wake()


def _forget(tx: Transaction, job_ids: list[int]) -> None:
    for table, column in (("joblog", "job_id"), ("job", "id")):
        tx.many(f"DELETE FROM {table} WHERE {column} = ?", [(job_id,) for job_id in job_ids])


def forget_old(tx: Transaction) -> int:
    """Remove jobs that ended long ago, with their logs, the oldest first and not all at once; how many."""
    old = tx.column(
        "SELECT id FROM job WHERE state IN ('succeeded', 'failed', 'canceled') AND finished_at < ? ORDER BY id LIMIT ?",
        (tx.now - KEPT_SECONDS, FORGOTTEN_AT_ONCE),
    )
    _forget(tx, old)
    return len(old)


def forget_others(tx: Transaction, providers: Collection[str]) -> None:
    """Jobs that have asked other providers than these for their flavors: nobody can try again what failed there."""
    asked = tx.all("SELECT id, provider FROM job WHERE machine_id IS NULL AND state IN ('succeeded', 'failed', 'canceled')")
    _forget(tx, [row["id"] for row in asked if row["provider"] not in providers])


def cancel(tx: Transaction, job_id: int, who: str) -> None:
    """A job that waits ends now, one that runs as soon as whoever runs it has let go of it. One that ended stays as it is.

    What becomes of its machine is the caller's: see `machines.destroy`.
    """
    waits = tx.run(
        "UPDATE job SET state = 'canceled', canceled_by = ?, finished_at = ?, step = NULL, message = ? "
        "WHERE id = ? AND state = 'pending'", (who, tx.now, f"canceled by {who}", job_id),
    )  # fmt: skip
    runs = tx.run("UPDATE job SET canceled_by = ? WHERE id = ? AND state = 'running' AND canceled_by IS NULL", (who, job_id))
    if waits or runs:
        tx.wake()


def requeue(tx: Transaction, job_id: int, machine_id: int | None, worker_id: int | None) -> None:
    """A job that failed or was canceled waits again, as new, for this machine."""
    tx.run(
        "UPDATE job SET state = 'pending', attempt = 0, progress = 0, step = NULL, message = NULL, owner = NULL, "
        "not_before = NULL, canceled_by = NULL, machine_id = ?, worker_id = ?, started_at = NULL, finished_at = NULL "
        "WHERE id = ? AND state IN ('failed', 'canceled')", (machine_id, worker_id, job_id),
    )  # fmt: skip
    tx.wake()


# --- who runs them -------------------------------------------------------------------------------------------------------


def add(
    tx: Transaction, kind: str, provider: str, who: str, machine_id: int | None = None, worker_id: int | None = None,
    retry: int = RETRY,
) -> int:  # fmt: skip
    """A new job, which waits; the one that waits or runs already if there is one of this kind for the same thing. Its id.

    The event is the caller's.
    """
    same = " AND machine_id = ?" if machine_id is not None else " AND machine_id IS NULL"
    of_it = (kind, provider, *((machine_id,) if machine_id is not None else ()))
    rows = tx.all(f"SELECT id, state, canceled_by FROM job WHERE kind = ? AND provider = ?{same} ORDER BY id", of_it)
    for row in rows:
        if row["state"] in UNFINISHED and row["canceled_by"] is None:
            return row["id"]
    if kind == "flavors":  # of those that are over the last one is of interest, if any
        _forget(tx, [row["id"] for row in rows[:-1] if row["state"] not in UNFINISHED])
    (job_id,) = tx.new_ids("job", 1)
    row = {"id": job_id, "kind": kind, "provider": provider, "machine_id": machine_id, "worker_id": worker_id, "retry": retry}
    tx.insert(Job, {**row, "state": "pending", "attempt": 0, "progress": 0, "asked_by": who, "created_at": tx.now})
    tx.wake()
    return job_id


def unfinished_of(tx: Transaction, machine_id: int, kind: str) -> dict | None:
    """The job of this kind that waits or runs for a machine."""
    return tx.one(
        "SELECT id, state, canceled_by FROM job WHERE machine_id = ? AND kind = ? AND state IN ('pending', 'running') "
        "ORDER BY id DESC LIMIT 1", (machine_id, kind),
    )  # fmt: skip


def take(tx: Transaction, owner: str, limit: int, per_provider: int | None = None) -> list[dict]:
    """Up to `limit` jobs that wait and are due become running, and are `owner`'s; of a provider no more than `per_provider` run.

    The oldest first. A machine's other job has to end first: its deployment is let go of before it is destroyed. Each row is that
    of the table, with `attempt` counted.
    """
    running = tx.all("SELECT provider, machine_id FROM job WHERE state = 'running'")
    busy = {row["machine_id"] for row in running if row["machine_id"] is not None}
    load: dict[str, int] = {}
    for row in running:
        load[row["provider"]] = load.get(row["provider"], 0) + 1
    taken = []
    for row in tx.all(
        "SELECT * FROM job WHERE state = 'pending' AND (not_before IS NULL OR not_before <= ?) ORDER BY id", (tx.now,)
    ):
        provider = row["provider"]
        full = per_provider is not None and load.get(provider, 0) >= per_provider
        if len(taken) < limit and not full and row["machine_id"] not in busy and _start(tx, row, owner):
            load[provider] = load.get(provider, 0) + 1
            busy |= {row["machine_id"]} - {None}
            taken.append(tx.get(f"job {row['id']}", "SELECT * FROM job WHERE id = ?", (row["id"],)))
    return taken


def _start(tx: Transaction, row: dict, owner: str) -> bool:
    started = tx.run(
        "UPDATE job SET state = 'running', owner = ?, attempt = attempt + 1, not_before = NULL, "
        "started_at = COALESCE(started_at, ?) WHERE id = ? AND state = 'pending'", (owner, tx.now, row["id"]),
    )  # fmt: skip
    tx.changed = tx.changed or bool(started)
    return bool(started)


def next_due(tx: Transaction) -> float | None:
    """When the first of the jobs that wait is due; None if none waits."""
    return tx.value("SELECT MIN(COALESCE(not_before, created_at)) FROM job WHERE state = 'pending'")


def canceled_of(tx: Transaction, owner: str) -> list[int]:
    """The jobs that `owner` runs and should let go of; those that are not its own any more are not among them."""
    return tx.column("SELECT id FROM job WHERE owner = ? AND state = 'running' AND canceled_by IS NOT NULL ORDER BY id", (owner,))


def orphans(tx: Transaction, owner: str) -> list[dict]:
    """Jobs that another process was running wait again, without having used an attempt; those that were canceled end. Their rows.

    To be called by the process that begins to lead: the other one is gone, or leads no more.
    """
    rows = tx.all("SELECT * FROM job WHERE state = 'running' AND owner <> ? ORDER BY id", (owner,))
    for row in rows:
        if row["canceled_by"] is not None:
            finish(tx, row["id"], row["owner"], "canceled", f"canceled by {row['canceled_by']}")
        else:
            again(tx, row["id"], row["owner"], None, None, used=False)
    return rows


def finish(tx: Transaction, job_id: int, owner: str, state: str, message: str | None = None) -> bool:
    """The job that `owner` runs has ended: succeeded, failed or canceled. False if it is not its own any more, or has ended."""
    progress = ", progress = 100" if state == "succeeded" else ""
    ended = tx.run(
        f"UPDATE job SET state = ?, message = ?, step = NULL, finished_at = ?{progress} "
        "WHERE id = ? AND state = 'running' AND owner = ?", (state, message, tx.now, job_id, owner),
    )  # fmt: skip
    if ended:
        events.add(tx, "deployer", f"job.{state}", "job", [job_id], {"message": message} if message else None)
        tx.wake()
    return bool(ended)


def again(
    tx: Transaction, job_id: int, owner: str, not_before: float | None, why: str | None, used: bool = True
) -> bool:  # fmt: skip
    """The job that `owner` runs waits for another attempt, until `not_before`; `used`: this one counts. False: not its own."""
    waits = tx.run(
        "UPDATE job SET state = 'pending', owner = NULL, not_before = ?, message = COALESCE(?, message), step = NULL, "
        "attempt = attempt - ? WHERE id = ? AND state = 'running' AND owner = ?",
        (not_before, why, 0 if used else 1, job_id, owner),
    )  # fmt: skip
    if waits:
        tx.wake()
    return bool(waits)


def write_log(
    tx: Transaction, job_id: int, lines: Iterable[str], progress: int | None = None, step: str | None = None
) -> None:  # fmt: skip
    """Add to the log of a job, and say how far it is and what it does now. Of a job that is gone nothing is kept."""
    tx.changed = True
    if tx.run(
        "UPDATE job SET progress = COALESCE(?, progress), step = COALESCE(?, step) WHERE id = ?", (progress, step, job_id)
    ) == 0:  # fmt: skip
        return
    last = tx.value("SELECT MAX(seq) FROM joblog WHERE job_id = ?", (job_id,)) or 0
    rows = [(job_id, last + n, tx.now, line.replace("\0", "")[:KEPT_CHARACTERS]) for n, line in enumerate(lines, 1)]
    tx.many("INSERT INTO joblog (job_id, seq, at, line) VALUES (?, ?, ?, ?)", rows)
    tx.run("DELETE FROM joblog WHERE job_id = ? AND seq <= ?", (job_id, last + len(rows) - KEPT_LINES))
