"""Why a task is where it is, and what would move it on: one sentence for each state."""

from __future__ import annotations

import shlex

from .durations import short_duration
from .protocol import ACCEPTED, ASSIGNED, CANCELED, COMING, FAILED, FINAL, PENDING, RUNNING, SUCCEEDED, UPLOADING, WAITING
from .recruiting import ANY, counts_for, enough, wanted
from .store import Transaction, costs, providers, recruiters
from .store.transaction import marks

NAMED = 5  # tasks or workers named in a sentence, at most


def explain(tx: Transaction, task_id: int) -> dict:
    """`{"state", "sentence"}` of a task. Raises NotFound."""
    task = tx.get(
        f"task {task_id}",
        "SELECT task.*, batch.name AS batch, batch.stopped FROM task JOIN batch ON batch.id = task.batch_id WHERE task.id = ?",
        (task_id,),
    )  # fmt: skip
    return {"state": task["state"], "sentence": _SENTENCES[task["state"]](tx, task)}


def _waiting(tx: Transaction, task: dict) -> str:
    unmet = tx.all(
        "SELECT task.id, task.state FROM requirement JOIN task ON task.id = requirement.required_id "
        "WHERE requirement.task_id = ? AND task.state <> ? ORDER BY task.id", (task["id"], SUCCEEDED),
    )  # fmt: skip
    ended = [row for row in unmet if row["state"] in (FAILED, CANCELED)]
    if ended:
        return f"It waits for {_named(ended)}: relaunch what failed or was canceled, and it goes on by itself."
    return f"It waits for {_named(unmet)} to succeed."


def _named(rows: list[dict]) -> str:
    named = ", ".join(f"{row['id']} ({row['state']})" for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"task{'s' if len(rows) > 1 else ''} {named}{more}"


def _pending(tx: Transaction, task: dict) -> str:
    batch = task["batch"]
    if task["stopped"]:
        return f"Batch {batch} is stopped: start it with `scitq manage batch go -n {shlex.quote(batch)}`."
    found = tx.all(
        "SELECT worker.*, machine.state AS machine_state FROM worker LEFT JOIN machine ON machine.id = machine_id "
        "WHERE batch_id = ? AND deleted_at IS NULL ORDER BY worker.id", (task["batch_id"],),
    )  # fmt: skip
    coming = [worker for worker in found if worker["machine_state"] in COMING]
    workers = [worker for worker in found if worker["machine_state"] not in COMING]
    usable = [worker for worker in workers if counts_for(worker)]
    sought = _sought(tx, task, len(usable) + len(coming))
    if coming:
        sought = "; ".join(filter(None, [_coming(tx, coming), sought]))
    if not workers and sought:
        return f"It waits for a worker: {sought}."
    if not workers:
        start = f"scitq worker SERVER --batch {shlex.quote(batch)}"
        return f"No worker is in batch {batch}: start one with `{start}`, or move one there."
    sought = f" {sought[0].upper()}{sought[1:]}." if sought else ""
    if not usable:
        return f"No worker of batch {batch} can take work: {_why_not(workers)}.{sought}"
    slots = sum(worker["concurrency"] for worker in usable)
    if slots == 0:
        advice = "raise it with `scitq manage worker update -n NAME -C 1`"
        return f"The workers of batch {batch} have concurrency 0: {advice}.{sought}"
    before = tx.value(
        "SELECT COUNT(*) FROM task WHERE batch_id = ? AND state = 'pending' AND (priority > ? OR (priority = ? AND id < ?))",
        (task["batch_id"], task["priority"], task["priority"], task["id"]),
    )
    queued = f"{before} task{'s are' if before != 1 else ' is'} before it" if before else "it is the next"
    return f"All {slots} slots of batch {batch} are busy; {queued}.{sought}"


def _coming(tx: Transaction, workers: list[dict]) -> str:
    """Workers that are being deployed, and what holds that up, in half a sentence."""
    rows = tx.all(
        "SELECT job.id, job.message FROM job WHERE kind = 'deploy' AND state IN ('pending', 'running') "
        f"AND worker_id IN ({marks(workers)}) ORDER BY id", [worker["id"] for worker in workers],
    )  # fmt: skip
    jobs = ", ".join(str(row["id"]) for row in rows[:NAMED]) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
    told = f"deploying {len(workers)} worker{'s' if len(workers) > 1 else ''}"
    told += f" (job{'s' if len(rows) > 1 else ''} {jobs})" if rows else ""
    why = next((row["message"] for row in rows if row["message"]), None)
    return f"{told}, of which an attempt has failed: {why}" if why else told


def _sought(tx: Transaction, task: dict, workers: int) -> str:
    """What the recruiters of its batch are about, in half a sentence; nothing without any."""
    told = []
    spent = costs.reached(tx).get(task["batch_id"])
    for recruiter in recruiters.of_batch(tx, task["batch_id"]):
        most = enough(recruiter, workers + 1) + 1
        pending = recruiters.pending(tx, [task["batch_id"]], most).get(task["batch_id"], 0)
        told.append(f"recruiter {recruiter['rank']} of batch {task['batch']} {_outlook(tx, recruiter, pending, workers, spent)}")
    return "; ".join(told[:NAMED])


def _outlook(tx: Transaction, recruiter: dict, pending: int, workers: int, spent: dict | None) -> str:
    """What one does about so many pending tasks.

    Whatever it could take it has taken when they came; `spent`: a budget that is.
    """
    least, most = recruiter["minimum_tasks"] or 0, recruiter["maximum_workers"]
    if pending < least:
        return f"takes no worker for less than {least} pending tasks"
    if most is not None and workers >= most:
        return f"takes no worker where there are {most}"
    if not wanted(recruiter, pending, workers):
        each = recruiter["tasks_per_worker"]
        return f"takes a worker for every {f'{each} pending tasks' if each > 1 else 'pending task'}, and the batch has {workers}"
    where = "".join(f", {name} {recruiter[name]}" for name in ("provider", "region") if recruiter[name] not in (None, ANY))
    flavor = f"a worker of flavor {recruiter['flavor']}" if recruiter["flavor"] else "any worker"
    deploys = f"; {_deploys(tx, recruiter, spent)}" if recruiter["provider"] else ""
    return f"looks for {flavor}{where}, and none idles{deploys}"


def _deploys(tx: Transaction, recruiter: dict, spent: dict | None) -> str:
    """Whether one that has a provider makes a worker there, or what keeps it from that."""
    if spent is not None:
        money = f"{spent['budget']:g} {spent['currency'] or ''}".rstrip()
        name = shlex.quote(spent["name"])
        more = 2 * spent["budget"] or 10
        return f"the budget of {money} is reached: raise it with `scitq manage batch update -n {name} --budget {more:g}`"
    trouble = {name: row["trouble"] for name, row in providers.all_of(tx).items() if row["trouble"]}
    if recruiter["provider"] in trouble:
        return f"provider {recruiter['provider']} is in trouble: {trouble[recruiter['provider']]}"
    return "it deploys one as soon as a provider has room: `scitq manage flavor list` shows what they have"


def _why_not(workers: list[dict]) -> str:
    def why(worker: dict) -> str:
        if worker["machine_state"] == "deleting":
            return "is being destroyed"
        if worker["machine_state"] == "evicted":
            return "is being taken away by its provider"
        if worker["offline"]:
            return "is offline"
        return f"says: {worker['problem']}" if worker["problem"] else "is draining"

    told = "; ".join(f"{worker['name']} {why(worker)}" for worker in workers[:NAMED])
    return told + (f"; and {len(workers) - NAMED} more" if len(workers) > NAMED else "")


def _held(tx: Transaction, task: dict) -> str:
    row = _execution(tx, task)
    if row is None:
        return f"It is {task['state']}."
    silent = ""
    if row["offline"] and row["contact_at"]:
        silent = f" The worker is silent for {short_duration(tx.now - row['contact_at'])}."
    if row["state"] in (ASSIGNED, ACCEPTED):
        waits = "was given it a moment ago" if row["state"] == ASSIGNED else "holds it, and starts it when a slot is free"
        return f"Worker {row['worker']} {waits}.{silent}"
    if row["suspended"]:
        resume = f"scitq manage task signal resume -i {task['id']}"
        return f"It is suspended on worker {row['worker']}: resume it with `{resume}`.{silent}"
    if row["desired"] not in ("run", "return", "suspend"):
        return f"It is being ended on worker {row['worker']} ({row['desired']}, asked by {row['asked_by']}).{silent}"
    doing = "runs" if row["state"] == RUNNING else "ended, its outputs are being uploaded"
    lasting = f" for {short_duration(tx.now - row['started_at'])}" if row["started_at"] and row["state"] == RUNNING else ""
    return f"Its command {doing} on worker {row['worker']}{lasting}.{silent}"


def _ended(tx: Transaction, task: dict) -> str:
    row = _execution(tx, task)
    if row is None:
        return "It was canceled before it started." if task["state"] == CANCELED else f"It is {task['state']}."
    how = row["reason"] or (f"exit code {row['exit_code']}" if row["exit_code"] is not None else f"signal {row['signal']}")
    if task["state"] == SUCCEEDED:
        return f"It succeeded at attempt {row['attempt']}, on worker {row['worker']}."
    tried = f" after {task['failures']} failures" if task["failures"] > 1 else ""
    lost = f" after {task['losses']} lost workers" if row["state"] == "lost" else ""
    became = "was canceled" if task["state"] == CANCELED else "failed"
    again = f"scitq manage task relaunch -i {task['id']}"
    return f"It {became}{tried}{lost} on worker {row['worker']}: {how}. Relaunch it with `{again}`."


def _execution(tx: Transaction, task: dict) -> dict | None:
    return tx.one(
        "SELECT execution.*, worker.name AS worker, worker.offline, worker.contact_at FROM execution "
        "JOIN worker ON worker.id = execution.worker_id WHERE execution.id = ?", (task["execution_id"],),
    )  # fmt: skip


_SENTENCES = {
    WAITING: _waiting, PENDING: _pending, ASSIGNED: _held, ACCEPTED: _held, RUNNING: _held, UPLOADING: _held,
    **dict.fromkeys(FINAL, _ended),
}  # fmt: skip
