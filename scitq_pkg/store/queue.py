"""The hot paths: what a worker reports is applied, what it should do is answered, and an execution changes its state.

Both halves of a sync are level-triggered: `apply` brings the rows up to what the worker says, `answer` is made from the rows
alone. Everything here is plain SQL in batches: it runs for every task.
"""

from __future__ import annotations

import hashlib
import json

from ..errors import Conflict, NotFound
from ..protocol import (
    ACCEPTED, ASSIGNED, BUILD_DIGITS, CANCEL, CANCELED, ENDED, FAILED, KILL, LIVE, LOST, PENDING, RETURN, RUN, RUNNING, SUCCEEDED,
    SUSPEND, TERM, UPLOADING, WAITING, Order, Report, SyncAnswer, SyncRequest,
)  # fmt: skip
from . import streams
from .schema import LIVE_SQL, Worker
from .transaction import Transaction, marks

MAX_LOSSES = 10  # a task that lost so many workers is taken for what ends them
KEPT_INCARNATIONS = 10
UNFIT_SECONDS = 900.0  # for which recruiters of a batch leave alone a worker that its work made unfit

_RANK = {state: rank for rank, state in enumerate((ASSIGNED, ACCEPTED, RUNNING, UPLOADING))}
_EXECUTION_COLUMNS = "id, task_id, worker_id, state, desired, asked_by, suspended, started_at, stdout_size, stderr_size"


# --- a sync: what the worker says ------------------------------------------------------------------------------------


def apply(tx: Transaction, worker_id: int, request: SyncRequest, data: list[memoryview]) -> None:
    """Record all that a worker reports. Twice, late or out of order changes nothing more.

    Raises NotFound when the worker was deleted, Conflict for a process of it that was replaced.
    """
    worker = _worker(tx, worker_id)
    is_new = _note_worker(tx, worker, request)
    rows = _executions(tx, [report.id for report in request.executions], lock=True)
    own = {row["id"]: row for row in rows if row["worker_id"] == worker_id and row["state"] in LIVE}
    for chunk, piece in zip(request.output, data):
        if chunk.id in own:
            streams.append(tx, own[chunk.id], chunk.stream, chunk.offset, piece)
    ended = []
    for report in request.executions:
        row = own.get(report.id)
        if row is None:
            continue
        if report.state not in ENDED:
            _progress(tx, row, report)
        elif _is_whole(row, report):
            ended.append((row, report))
    if ended:
        finish(tx, ended)
    if is_new:
        _lose_unknown(tx, worker_id, {report.id for report in request.executions})


def needs_apply(tx: Transaction, worker_id: int, request: SyncRequest) -> bool:
    """Whether a request says anything that the rows do not have: an idle one is answered without a write."""
    if request.output or request.stats:
        return True
    worker = _worker(tx, worker_id)
    if worker["offline"] or worker["problem"] != request.problem or _incarnations(worker)[0] != request.incarnation:
        return True
    if worker["upgrade"] is not None and _upgraded(worker["upgrade"], request) is not None:
        return True
    rows = {row["id"]: row for row in _executions(tx, [report.id for report in request.executions])}
    return any(_differs(rows.get(report.id), report, worker_id) for report in request.executions)


def _differs(row: dict | None, report: Report, worker_id: int) -> bool:
    if row is None or row["worker_id"] != worker_id or row["state"] in ENDED:
        return False
    return report.state != row["state"] or bool(row["suspended"]) != report.suspended or report.cpu_seconds is not None


def _worker(tx: Transaction, worker_id: int) -> dict:
    worker = tx.one("SELECT * FROM worker WHERE id = ? AND deleted_at IS NULL", (worker_id,))
    if worker is None:
        raise NotFound(f"no worker {worker_id}: it was deleted; register again")
    return worker


def _incarnations(worker: dict) -> list[str]:
    return (worker["incarnation"] or "").split(",")


def _note_worker(tx: Transaction, worker: dict, request: SyncRequest) -> bool:
    """Record what a worker says of itself; whether it is the first that its present process says, whatever got lost before."""
    changes: dict = {}
    known = _incarnations(worker)
    is_new = request.incarnation != known[0]
    if is_new:
        if request.incarnation in known:
            raise Conflict(f"a newer process of worker {worker['name']} has taken over", field="incarnation")
        changes["incarnation"] = ",".join([request.incarnation, *filter(None, known)][:KEPT_INCARNATIONS])
    if request.version != worker["version"]:
        changes["version"] = request.version
    if request.problem != worker["problem"]:
        changes["problem"] = request.problem
        if worker["problem"] is None:
            changes["unfit"] = json.dumps({**unfit_lately(worker, tx.now), worker["batch_id"]: tx.now})
        tx.wake()
        tx.touch(worker["id"])
    if request.stats is not None:
        changes["stats"] = json.dumps(request.stats)
    if worker["offline"]:
        changes["offline"] = False
        tx.wake()
    if worker["upgrade"] is not None and (upgraded := _upgraded(worker["upgrade"], request)) is not None:
        changes |= {"upgrade": None, "upgrade_problem": None if upgraded else request.upgrade_problem}
        tx.touch(worker["id"])
    if changes:
        tx.update(Worker, worker["id"], {**changes, "contact_at": tx.now})
    return is_new


def unfit_lately(worker: dict, now: float) -> dict[int, float]:
    """The batches in which a worker became unfit for work in the last minutes, and when."""
    then = json.loads(worker["unfit"]) if worker["unfit"] else {}
    return {int(batch_id): at for batch_id, at in then.items() if at > now - UNFIT_SECONDS}


def _upgraded(wanted: str, request: SyncRequest) -> bool | None:
    """Whether a worker runs what it was told to go on as; False if it cannot, None while it says nothing of it."""
    if request.build == wanted[:BUILD_DIGITS]:
        return True
    return False if request.not_upgraded == wanted else None


def _executions(tx: Transaction, ids: list[int], lock: bool = False) -> list[dict]:
    if not ids:
        return []
    locking = tx.for_update if lock else ""
    return tx.all(f"SELECT {_EXECUTION_COLUMNS} FROM execution WHERE id IN ({marks(ids)}) ORDER BY id{locking}", ids)


def _is_whole(row: dict, report: Report) -> bool:
    """Whether all the output that an end announces is here."""
    return all((getattr(report, f"{stream}_size") or 0) <= row[f"{stream}_size"] for stream in ("stdout", "stderr"))


def _usage(report: Report) -> dict:
    names = ("cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes", "pid")
    return {name: value for name in names if (value := getattr(report, name)) is not None}


def _progress(tx: Transaction, row: dict, report: Report) -> None:
    """A live execution went on, was suspended or resumed, or used more."""
    changes = _usage(report)
    advanced = _RANK[report.state] > _RANK[row["state"]]
    if advanced:
        changes |= {"state": report.state, **_times(tx, row, report)}
        if row["desired"] == RETURN and report.state != ACCEPTED:
            changes["desired"] = RUN  # it had started before it was asked back
    if bool(row["suspended"]) != report.suspended:
        changes["suspended"] = report.suspended
        tx.changed = True
    if not changes:
        return
    assignments = ", ".join(f"{name} = ?" for name in changes)
    tx.run(f"UPDATE execution SET {assignments} WHERE id = ? AND state IN {LIVE_SQL}", (*changes.values(), row["id"]))
    if advanced:
        tx.run(
            "UPDATE task SET state = ?, state_at = ? WHERE id = ? AND execution_id = ?",
            (report.state, tx.now, row["task_id"], row["id"]),
        )
        tx.wake()  # an upload frees a slot; a start changes what may be taken back
        row["state"] = report.state


def _times(tx: Transaction, row: dict, report: Report) -> dict:
    """When the states that this report tells of began, by the server's clock."""
    times = {"accepted_at": tx.now} if report.state == ACCEPTED else {}
    if report.started_ago is not None and row["started_at"] is None:
        row["started_at"] = times["started_at"] = tx.now - max(0.0, report.started_ago)
    if report.ended_ago is not None:
        times["ended_at"] = max(tx.now - max(0.0, report.ended_ago), row["started_at"] or 0.0)  # the clock may have been set back
    return times


def _lose_unknown(tx: Transaction, worker_id: int, listed: set[int]) -> None:
    """A new process of the worker states all it has: what had started and is not listed is gone."""
    rows = tx.all(
        f"SELECT {_EXECUTION_COLUMNS} FROM execution WHERE worker_id = ? AND state IN {LIVE_SQL} "
        f"AND state IN ('running', 'uploading') ORDER BY id{tx.for_update}", (worker_id,),
    )  # fmt: skip
    gone = [row for row in rows if row["id"] not in listed]
    finish(tx, [(row, Report(row["id"], LOST, reason="its worker was restarted and has no trace of it")) for row in gone])


# --- a sync: what the worker should do ---------------------------------------------------------------------------------


def answer(tx: Transaction, worker_id: int, request: SyncRequest) -> SyncAnswer:
    """All that the server wants of a worker, from the rows alone. Raises NotFound when it was deleted."""
    worker = tx.one(
        "SELECT worker.*, batch.name AS batch FROM worker JOIN batch ON batch.id = worker.batch_id "
        "WHERE worker.id = ? AND deleted_at IS NULL", (worker_id,),
    )  # fmt: skip
    if worker is None:
        raise NotFound(f"no worker {worker_id}: it was deleted; register again")
    told = SyncAnswer(
        sequence=request.sequence, concurrency=worker["concurrency"], prefetch=worker["prefetch"],
        batch=worker["batch"], draining=bool(worker["draining"]), upgrade=worker["upgrade"],
    )  # fmt: skip
    live = tx.all(
        "SELECT id, state, desired, stdout_size, stderr_size FROM execution "
        f"WHERE worker_id = ? AND state IN {LIVE_SQL} ORDER BY id", (worker_id,),
    )  # fmt: skip
    listed = {report.id: report for report in request.executions}
    specs = _specs(tx, [row["id"] for row in live if row["id"] not in listed])
    told.orders = [Order(row["id"], row["desired"], specs.get(row["id"])) for row in live]
    _answer_ends(tx, worker_id, request, {row["id"]: row for row in live}, told)
    told.digest = _digest(told)
    return told


def is_news(told: SyncAnswer, request: SyncRequest) -> bool:
    """Whether an answer says anything that the worker has not seen: if not, the request may be held."""
    return bool(told.acknowledged or told.fenced or told.offsets) or told.digest != request.seen


def _digest(told: SyncAnswer) -> str:
    words = [told.concurrency, told.prefetch, told.batch, told.draining, told.upgrade]
    words += [(order.id, order.desired) for order in told.orders]
    return hashlib.blake2b(repr(words).encode(), digest_size=8).hexdigest()


def _specs(tx: Transaction, ids: list[int]) -> dict[int, dict]:
    if not ids:
        return {}
    rows = tx.all(f"SELECT id, spec FROM execution WHERE id IN ({marks(ids)})", ids)
    return {row["id"]: json.loads(row["spec"]) for row in rows}


def _answer_ends(tx: Transaction, worker_id: int, request: SyncRequest, live: dict[int, dict], told: SyncAnswer) -> None:
    """Acknowledge what is recorded, fence what is no longer this worker's, ask again for output that is missing."""
    others = {row["id"]: row for row in _executions(tx, [report.id for report in request.executions if report.id not in live])}
    for report in request.executions:
        if report.id in live:
            if report.state in ENDED and not _is_whole(live[report.id], report):
                told.offsets[str(report.id)] = _sizes(live[report.id])
            continue
        row = others.get(report.id)
        recorded = row is not None and row["worker_id"] == worker_id and row["state"] != LOST
        (told.acknowledged if recorded and report.state in ENDED else told.fenced).append(report.id)
    for chunk in request.output:
        row = live.get(chunk.id)
        if row is not None and row[f"{chunk.stream}_size"] < chunk.offset + chunk.length:
            told.offsets[str(chunk.id)] = _sizes(row)


def _sizes(row: dict) -> dict[str, int]:
    return {"stdout": row["stdout_size"], "stderr": row["stderr_size"]}


# --- the end of an execution ---------------------------------------------------------------------------------------------


def finish(tx: Transaction, ended: list[tuple[dict, Report]]) -> None:
    """End live executions for good, and move their tasks on: succeeded, retried, failed, canceled or queued again."""
    if not ended:
        return
    tasks = {
        row["id"]: row
        for row in tx.all(
            f"SELECT id, state, execution_id, retry, failures, losses FROM task WHERE id IN ({marks(ended)})",
            [row["task_id"] for row, _ in ended],
        )
    }
    executions, moved, succeeded = [], [], []
    for row, report in ended:
        state = _ended_state(row, report)
        executions.append(_end_of_execution(tx, row, report, state))
        task = tasks.get(row["task_id"])
        if task is not None and task["execution_id"] == row["id"]:
            moved.append(_end_of_task(tx, task, row, state))
            if state == SUCCEEDED:
                succeeded.append(task["id"])
    tx.many(
        "UPDATE execution SET state = ?, exit_code = ?, signal = ?, reason = ?, pid = COALESCE(?, pid), started_at = ?, "
        "ended_at = ?, finished_at = ?, cpu_seconds = ?, peak_memory_bytes = ?, read_bytes = ?, written_bytes = ?, "
        f"last_output = ?, suspended = ? WHERE id = ? AND state IN {LIVE_SQL}", executions,
    )  # fmt: skip
    _keep_data(tx, ended)
    tx.many("UPDATE task SET state = ?, state_at = ?, failures = ?, losses = ? WHERE id = ?", moved)
    if succeeded:
        release(tx, succeeded)
    _hold_back(tx, [task_id for state, *_, task_id in moved if state == PENDING])
    tx.wake()
    for row, _ in ended:
        tx.touch(row["worker_id"])


def _keep_data(tx: Transaction, ended: list[tuple[dict, Report]]) -> None:
    """What was moved for an execution, and by what others find its outputs; most have nothing of it."""
    for row, report in ended:
        if report.transfers or report.reused or report.cache:
            key, outputs = ((report.cache or {}).get(name) for name in ("key", "outputs"))
            found = [json.dumps(value) if value else None for value in (report.transfers, outputs)]
            tx.run(
                "UPDATE execution SET transfers = ?, outputs = ?, cache_key = ?, reused_id = ? WHERE id = ?",
                (*found, str(key)[:200] if key and outputs else None, report.reused, row["id"]),
            )


def cached(tx: Transaction, key: str) -> dict | None:
    """The newest success with this key: `execution_id`, the `output` it was sent to, and the files that lie there."""
    row = tx.one(
        "SELECT id, spec, outputs FROM execution WHERE cache_key = ? AND state = 'succeeded' ORDER BY id DESC LIMIT 1", (key,)
    )
    if row is None:
        return None
    return {
        "execution_id": row["id"], "output": json.loads(row["spec"])["task"].get("output"), "outputs": json.loads(row["outputs"])
    }  # fmt: skip


def _ended_state(row: dict, report: Report) -> str:
    """A user's cancel counts unless the command had succeeded by itself before it."""
    return CANCELED if row["desired"] == CANCEL and report.state != SUCCEEDED else report.state


def _end_of_execution(tx: Transaction, row: dict, report: Report, state: str) -> tuple:
    times = _times(tx, row, report)
    reason = report.reason
    if reason and row["desired"] in (TERM, KILL, CANCEL) and row["asked_by"]:
        reason = f"{reason} (asked by {row['asked_by']})"
    return (
        state, report.exit_code, report.signal, reason, report.pid, row["started_at"], times.get("ended_at"), tx.now,
        report.cpu_seconds, report.peak_memory_bytes, report.read_bytes, report.written_bytes,
        streams.last_lines(tx, row), False, row["id"],
    )  # fmt: skip


def _end_of_task(tx: Transaction, task: dict, row: dict, state: str) -> tuple:
    """The task's next state; a failure uses up a retry, a loss has its own limit, what a person stopped is not tried again."""
    failures, losses = task["failures"], task["losses"]
    after = state
    if state == FAILED:
        failures += 1
        if failures <= task["retry"] and row["desired"] not in (TERM, KILL):
            after = PENDING
    elif state == LOST:
        losses += row["started_at"] is not None
        after = FAILED if losses > MAX_LOSSES or row["desired"] in (TERM, KILL) else PENDING
    return after, tx.now, failures, losses, task["id"]


# --- changes of place in the queue ---------------------------------------------------------------------------------------


def release(tx: Transaction, succeeded: list[int]) -> None:
    """Tasks that waited for the last of their requirements become pending."""
    candidates = tx.column(  # locked: of two servers that end two requirements at the same time the later one sees both ends
        f"SELECT id FROM task WHERE id IN (SELECT task_id FROM requirement WHERE required_id IN ({marks(succeeded)})) "
        f"AND state = ? ORDER BY id{tx.for_update}", (*succeeded, WAITING),
    )  # fmt: skip
    if candidates:
        _queue(tx, candidates)


def requeue(tx: Transaction, task_ids: list[int]) -> None:
    """Queue tasks again, as new: their counts of failures and losses start over.

    What needs them and is not yet a worker's waits.
    """
    if not task_ids:
        return
    tx.many("UPDATE task SET failures = 0, losses = 0 WHERE id = ?", [(task_id,) for task_id in task_ids])
    if tx.postgresql:
        _hold_requirements(tx, task_ids)
    _queue(tx, task_ids)
    for start in range(0, len(task_ids), 500):
        part = task_ids[start : start + 500]
        _hold_back(tx, tx.column(f"SELECT DISTINCT task_id FROM requirement WHERE required_id IN ({marks(part)})", part))


def _hold_requirements(tx: Transaction, task_ids: list[int]) -> None:
    """Another server that ends one of them does it before this transaction reads its state, or sees who waits for it."""
    for start in range(0, len(task_ids), 500):
        part = task_ids[start : start + 500]
        tx.column(
            f"SELECT id FROM task WHERE id IN (SELECT required_id FROM requirement WHERE task_id IN ({marks(part)})) "
            "ORDER BY id FOR SHARE", part,
        )  # fmt: skip


def _hold_back(tx: Transaction, task_ids: list[int]) -> None:
    """Pending tasks wait again if something that they need was queued again since they were released."""
    tx.many(
        "UPDATE task SET state = 'waiting', state_at = ? WHERE id = ? AND state = 'pending' AND EXISTS "
        "(SELECT 1 FROM requirement JOIN task AS needed ON needed.id = required_id "
        "WHERE task_id = task.id AND needed.state <> 'succeeded')",
        [(tx.now, task_id) for task_id in task_ids],
    )


def _queue(tx: Transaction, task_ids: list[int]) -> None:
    """Pending, or waiting while a requirement has not succeeded."""
    for start in range(0, len(task_ids), 500):
        part = task_ids[start : start + 500]
        unmet = set(
            tx.column(
                f"SELECT DISTINCT requirement.task_id FROM requirement JOIN task ON task.id = requirement.required_id "
                f"WHERE requirement.task_id IN ({marks(part)}) AND task.state <> ?", (*part, SUCCEEDED),
            )
        )  # fmt: skip
        states = [(WAITING if task_id in unmet else PENDING, tx.now, task_id) for task_id in part]
        tx.many("UPDATE task SET state = ?, state_at = ? WHERE id = ?", states)
    tx.wake()


def order(tx: Transaction, execution_ids: list[int], desired: str, who: str) -> None:
    """Want something else of live executions; their workers are told at once.

    An end that was asked for is not taken back by asking for less: RETURN, RUN and SUSPEND never replace TERM, KILL or CANCEL.
    """
    for start in range(0, len(execution_ids), 500):
        part = execution_ids[start : start + 500]
        rows = tx.all(
            f"SELECT id, worker_id, desired FROM execution WHERE id IN ({marks(part)}) AND state IN {LIVE_SQL} "
            f"ORDER BY id{tx.for_update}", part,
        )  # fmt: skip
        rows = [row for row in rows if _may_replace(row["desired"], desired)]
        tx.many("UPDATE execution SET desired = ?, asked_by = ? WHERE id = ?", [(desired, who, row["id"]) for row in rows])
        for row in rows:
            tx.touch(row["worker_id"])


_STRENGTH = {RUN: 0, SUSPEND: 0, RETURN: 0, TERM: 1, KILL: 2, CANCEL: 3}


def _may_replace(present: str, desired: str) -> bool:
    return present != desired and (_STRENGTH[desired] > 0 or _STRENGTH[present] == 0) and _STRENGTH[desired] >= _STRENGTH[present]


def declare_lost(tx: Transaction, worker_ids: list[int], reason: str, only_not_started: bool = False) -> int:
    """End what these workers hold as lost: their tasks go back to the queue. How many executions it were."""
    if not worker_ids:
        return 0
    narrower = " AND state IN ('assigned', 'accepted')" if only_not_started else ""
    rows = tx.all(
        f"SELECT {_EXECUTION_COLUMNS} FROM execution WHERE worker_id IN ({marks(worker_ids)}) AND state IN {LIVE_SQL}{narrower} "
        f"ORDER BY id{tx.for_update}", worker_ids,
    )  # fmt: skip
    finish(tx, [(row, Report(row["id"], LOST, reason=reason)) for row in rows])
    return len(rows)


# --- the decider's reading and writing -------------------------------------------------------------------------------------


def workers_with_load(tx: Transaction) -> list[dict]:
    """Every worker with `stopped` (its batch is), `busy` (executions that have or want a run slot) and what of it has not
    started: `held`, and `strange` for another batch than the worker's present one."""
    workers = tx.all(
        "SELECT worker.id, worker.batch_id, home_batch_id, home_concurrency, home_prefetch, concurrency, prefetch, draining, "
        "offline, problem, batch.stopped, 0 AS busy, 0 AS held, 0 AS strange FROM worker "
        "JOIN batch ON batch.id = worker.batch_id WHERE deleted_at IS NULL ORDER BY worker.id"
    )
    by_id = {worker["id"]: worker for worker in workers}
    for load in tx.all(
        f"SELECT worker_id, batch_id, state, COUNT(*) AS n FROM execution WHERE state IN {LIVE_SQL} AND state <> 'uploading' "
        "GROUP BY worker_id, batch_id, state"
    ):
        worker = by_id.get(load["worker_id"])
        if worker is not None:
            worker["busy"] += load["n"]
            if load["state"] != RUNNING:
                worker["held"] += load["n"]
                worker["strange"] += load["n"] if load["batch_id"] != worker["batch_id"] else 0
    return workers


def not_started(tx: Transaction) -> list[dict]:
    """Executions that could still be given back: id, worker_id, desired, batch_id, `stopped`; those to keep first come first."""
    return tx.all(
        "SELECT execution.id, execution.worker_id, execution.desired, execution.batch_id, batch.stopped FROM execution "
        "JOIN task ON task.id = execution.task_id JOIN batch ON batch.id = execution.batch_id "
        f"WHERE execution.state IN {LIVE_SQL} AND execution.state IN ('assigned', 'accepted') "
        "AND execution.desired IN ('run', 'return') ORDER BY task.priority DESC, execution.id"
    )


def next_pending(tx: Transaction, batch_id: int, count: int) -> list[dict]:
    """The tasks of a batch to start next: highest priority first, then oldest."""
    locking = " FOR UPDATE OF task SKIP LOCKED" if tx.postgresql else ""
    return tx.all(
        "SELECT task.*, batch.name AS batch FROM task JOIN batch ON batch.id = task.batch_id "
        f"WHERE batch_id = ? AND state = 'pending' ORDER BY priority DESC, task.id LIMIT ?{locking}", (batch_id, count),
    )  # fmt: skip


_JSON_FIELDS = ("input", "resource", "env")
_IDS = ("uid", "gid")  # of which 0 is one; of the others it is the default
_SPEC_FIELDS = (
    "name", "command", "shell", "container", "container_options", "input", "resource", "output", "env", "workdir", "uid", "gid",
    "priority", "download_timeout", "run_timeout", "use_cache",
)  # fmt: skip


def claim(tx: Transaction, claims: list[tuple[dict, int]]) -> None:
    """Give tasks to workers: an execution row each is the claim, its id the fencing token."""
    ids = tx.new_ids("execution", len(claims))
    rows, tasks = [], []
    for execution_id, (task, worker_id) in zip(ids, claims):
        attempt = task["attempts"] + 1
        spec = {"id": execution_id, "task_id": task["id"], "attempt": attempt, "task": _task_of_spec(task)}
        told = json.dumps(spec, separators=(",", ":"))
        rows.append((execution_id, task["id"], worker_id, task["batch_id"], attempt, ASSIGNED, RUN, False, told, tx.now, 0, 0))
        tasks.append((tx.now, execution_id, attempt, task["id"]))
        tx.touch(worker_id)
    tx.many(
        "INSERT INTO execution (id, task_id, worker_id, batch_id, attempt, state, desired, suspended, spec, assigned_at, "
        "stdout_size, stderr_size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows,
    )  # fmt: skip
    tx.many("UPDATE task SET state = 'assigned', state_at = ?, execution_id = ?, attempts = ? WHERE id = ?", tasks)


def _task_of_spec(task: dict) -> dict:
    spec = {"batch": task["batch"]}
    for name in _SPEC_FIELDS:
        value = task[name]
        if value is not None and (value != 0 or name in _IDS):
            spec[name] = json.loads(value) if name in _JSON_FIELDS else value
    return spec
