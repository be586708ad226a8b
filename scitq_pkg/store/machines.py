"""Machines of providers, each written down before it is asked for, and the workers on them.

    planned ──► creating ──► booting ──► up ──► evicted ──► gone
       └───────────┴────────────┴────────┴─────────┴──► deleting ──► gone

Every change here is conditional on the state: asked twice, late, or of a machine that is gone, nothing more happens.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence

from ..errors import Conflict
from ..protocol import COMING, DEFAULT_BATCH, MACHINE_STATES
from . import batches, events, jobs, queue, stints, workers
from .filters import words_of
from .schema import Machine, Worker
from .transaction import Transaction, marks

NAMED = 20  # workers in an event, at most
SETTLES_SECONDS = 120.0  # a provider's list may be so old, and a machine so young that it is not in there
_COMING = "('planned', 'creating', 'booting')"
_THERE = "('planned', 'creating', 'booting', 'up', 'evicted', 'deleting')"
_PLACE = ("provider", "region", "flavor", "price", "currency")
_HOURS = "SUM((COALESCE(stint.ended_at, ?) - stint.started_at) / 3600.0)"
_SELECT = (
    "SELECT machine.id, machine.name, machine.provider, machine.region, machine.flavor, machine.state, machine.unknown, "
    "provider_id, address, worker_id, worker.name AS worker, batch.name AS batch, price, currency, message, asked_by, "
    "machine.created_at, asked_at, up_at, gone_at, seen_at, "
    "(SELECT MAX(id) FROM job WHERE machine_id = machine.id AND job.state IN ('pending', 'running')) AS job, "
    f"(SELECT {_HOURS} FROM stint WHERE machine_id = machine.id) AS hours "
    "FROM machine LEFT JOIN worker ON worker.id = machine.worker_id LEFT JOIN batch ON batch.id = worker.batch_id WHERE 1 = 1"
)


# --- what people see and ask ---------------------------------------------------------------------------------------------


def get(tx: Transaction, machine_id: int) -> dict:
    """A machine, those that are gone too. Raises NotFound."""
    return _shown(tx.get(f"machine {machine_id}", f"{_SELECT} AND machine.id = ?", (tx.now, machine_id)))


def find(tx: Transaction, chosen: dict, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Machines in the order of their ids, those past `after`; `chosen`: provider, unknown, state (several, commas between).

    Those that are gone are left out unless the state asks for them. Raises InvalidRequest.
    """
    states = words_of(chosen.get("state"), "machine", MACHINE_STATES) or [state for state in MACHINE_STATES if state != "gone"]
    tests, params = [f" AND machine.state IN ({marks(states)})"], [tx.now, *states]
    for name in ("provider", "unknown"):
        if chosen.get(name) is not None:
            tests.append(f" AND machine.{name} = ?")
            params.append(chosen[name])
    if after is not None:
        tests.append(f" AND machine.id {'<' if descending else '>'} ?")
        params.append(after)
    order = f" ORDER BY machine.id {'DESC' if descending else 'ASC'} LIMIT ?"
    return [_shown(row) for row in tx.all(_SELECT + "".join(tests) + order, (*params, limit))]


def _shown(row: dict) -> dict:
    row["unknown"] = bool(row["unknown"])
    hours = row["hours"] or 0.0
    row["hours"], row["cost"] = round(hours, 2), None if row["price"] is None else round(hours * row["price"], 4)
    return row


def plan(tx: Transaction, specs: Sequence[Mapping], who: str) -> list[dict]:
    """Write down machines, the workers that they will be and the jobs that make them: their ids, `machine`, `worker`, `job`,
    and the worker's `name` of each.

    A spec: batch, concurrency, prefetch, permanent, provider, region, flavor; if known price, currency; name of the worker (else
    one is made); `wish` (what was asked for: provider, region, flavor, as given); `retry`. Raises Conflict if a name is taken.
    """
    made = [_plan(tx, spec, who) for spec in specs]
    first = {key: specs[0].get(key) for key in ("batch", *_PLACE)} | {"names": [one["name"] for one in made][:NAMED]}
    events.add(tx, who, "worker.deploy", "worker", [one["worker"] for one in made], first)
    return made


def _plan(tx: Transaction, spec: Mapping, who: str, job_id: int | None = None) -> dict:
    """`job_id`: one that ended, which is tried anew."""
    (machine_id,) = tx.new_ids("machine", 1)
    (worker_id,) = tx.new_ids("worker", 1)
    name = spec.get("name") or _made_name(tx, f"{spec['provider']}-{machine_id}")
    workers.check_free(tx, name)
    _insert(tx, machine_id, spec, worker_id, who)
    worker = {key: spec[key] for key in ("concurrency", "prefetch", "permanent", "provider", "region", "flavor")}
    flags = {"draining": False, "offline": True, "created_at": tx.now, "machine_id": machine_id}
    batch_id = batches.ensure(tx, spec["batch"])
    identity = {"id": worker_id, "name": name, "key": secrets.token_hex(16), "hostname": "", "batch_id": batch_id}
    tx.insert(Worker, {**identity, **worker, **flags})
    if job_id is None:
        job_id = jobs.add(tx, "deploy", spec["provider"], who, machine_id, worker_id, spec.get("retry", jobs.RETRY))
    else:
        jobs.requeue(tx, job_id, machine_id, worker_id)
    tx.wake()
    return {"machine": machine_id, "worker": worker_id, "job": job_id, "name": name}


def _made_name(tx: Transaction, name: str) -> str:
    """This name, or one that is free: nobody who calls a worker so stops recruiting."""
    taken = tx.value("SELECT id FROM worker WHERE name = ? AND deleted_at IS NULL", (name,)) is not None
    return f"{name}-{secrets.token_hex(4)}" if taken else name


def _insert(tx: Transaction, machine_id: int, spec: Mapping, worker_id: int | None, who: str) -> None:
    wish = spec.get("wish")
    row = {"id": machine_id, "name": f"{prefix(tx)}{machine_id}", "worker_id": worker_id, "asked_by": who, "created_at": tx.now}
    place = {key: spec.get(key) for key in _PLACE}
    state = {"state": "planned", "unknown": False, "wish": json.dumps(wish) if wish else None}
    tx.insert(Machine, {**row, **place, **state})


def prefix(tx: Transaction) -> str:
    """With what the names of all machines of this server begin."""
    return f"scitq-{server_id(tx)[:8]}-"


def server_id(tx: Transaction) -> str:
    """What this server is, whichever process or address serves it. `scitq-<id>` is the tag of its machines."""
    return tx.value("SELECT value FROM setting WHERE name = 'server_id'")


def destroy(tx: Transaction, machine_id: int, who: str) -> int | None:
    """Have a machine removed: its worker gets no more work and loses what it holds, its deployment is canceled.

    The id of the job that does it; None for one that is gone, or of which the provider never heard. Raises NotFound.
    """
    machine = get(tx, machine_id)
    if machine["state"] not in ("deleting", "gone"):
        events.add(tx, who, "machine.destroy", "machine", [machine_id], {"name": machine["name"], "worker": machine["worker"]})
    return unmake(tx, machine_id, who)


def unmake(tx: Transaction, machine_id: int, who: str) -> int | None:
    """As `destroy`, where it is part of another change."""
    machine = _locked(tx, machine_id)
    if machine is None:
        return None
    deployment = jobs.unfinished_of(tx, machine_id, "deploy")
    if deployment is not None:
        jobs.cancel(tx, deployment["id"], who)
    if machine["asked_at"] is None and not machine["unknown"] and (deployment is None or deployment["state"] == "pending"):
        _gone(tx, machine, f"canceled by {who} before it was asked for")
        return None
    if machine["state"] != "deleting":
        tx.update(Machine, machine_id, {"state": "deleting"})
        _close_worker(tx, machine, f"its machine is being destroyed (asked by {who})")
    return jobs.add(tx, "destroy", machine["provider"], who, machine_id, machine["worker_id"])


def _close_worker(tx: Transaction, machine: dict, why: str) -> None:
    worker_id = machine["worker_id"]
    if worker_id is not None and tx.run(
        "UPDATE worker SET draining = ? WHERE id = ? AND deleted_at IS NULL", (True, worker_id)
    ):  # fmt: skip
        queue.declare_lost(tx, [worker_id], why)
        tx.touch(worker_id)
        tx.wake()


def cancel(tx: Transaction, job_id: int, who: str) -> None:
    """End a job that has not ended; what a deployment has made is destroyed. Raises NotFound, Conflict."""
    job = jobs.get(tx, job_id)
    if job["state"] == "canceled" or job["canceled_by"] is not None:
        return
    if job["state"] not in jobs.UNFINISHED:
        raise Conflict(f"job {job_id} has {job['state']}: there is nothing to cancel")
    if job["kind"] == "destroy":
        raise Conflict(f"job {job_id} destroys a machine, which costs money until it is gone")
    if job["kind"] == "deploy":
        unmake(tx, job["machine"], who)
    jobs.cancel(tx, job_id, who)
    events.add(tx, who, "job.cancel", "job", [job_id], {"kind": job["kind"], "worker": job["worker"]})


def forget(tx: Transaction, machine_id: int, who: str) -> None:
    """Take a machine for gone without asking its provider, which may be there no more; its jobs end. Raises NotFound."""
    machine = _locked(tx, machine_id)
    if machine is None:
        get(tx, machine_id)
        return
    for kind in ("deploy", "destroy"):
        if (job := jobs.unfinished_of(tx, machine_id, kind)) is not None:
            jobs.cancel(tx, job["id"], who)
    _gone(tx, machine, f"forgotten by {who}")
    events.add(tx, who, "machine.forget", "machine", [machine_id], {"name": machine["name"]})


def forgettable(tx: Transaction) -> list[int]:
    """Machines that are gone for long, of which nothing else tells, not all at once: no job, and no batch whose costs they are
    part of.
    """
    return tx.column(
        "SELECT id FROM machine WHERE state = 'gone' AND gone_at < ? "
        "AND NOT EXISTS (SELECT 1 FROM job WHERE machine_id = machine.id) "
        "AND NOT EXISTS (SELECT 1 FROM stint JOIN batch ON batch.id = stint.batch_id WHERE stint.machine_id = machine.id) "
        "ORDER BY id LIMIT ?", (tx.now - jobs.KEPT_SECONDS, jobs.FORGOTTEN_AT_ONCE),
    )  # fmt: skip


def forget_old(tx: Transaction, machine_ids: Sequence[int]) -> None:
    """Remove the rows of these machines, which were `forgettable`; of one that is there again by now nothing."""
    for machine_id in machine_ids:
        if tx.run("DELETE FROM machine WHERE id = ? AND state = 'gone'", (machine_id,)):
            tx.run("DELETE FROM stint WHERE machine_id = ?", (machine_id,))


def relaunch(tx: Transaction, job_id: int, who: str) -> dict:
    """A job that failed or was canceled is tried anew, a deployment with a new machine and a new worker like the one before.

    The job. Raises NotFound, Conflict if it has not ended, succeeded, or its machine is gone.
    """
    job = jobs.get(tx, job_id)
    if job["state"] not in ("failed", "canceled"):
        raise Conflict(f"job {job_id} is {job['state']}: only one that failed or was canceled can be relaunched")
    if job["kind"] == "destroy" and _locked(tx, job["machine"]) is None:
        raise Conflict(f"the machine of job {job_id} is gone")
    if job["kind"] == "deploy":
        _plan(tx, _like(tx, job), who, job_id)
    else:
        jobs.requeue(tx, job_id, job["machine"], job["worker_id"])
    events.add(tx, who, "job.relaunch", "job", [job_id], {"kind": job["kind"]})
    return jobs.get(tx, job_id)


def _like(tx: Transaction, job: dict) -> dict:
    """What its deployment asked for; the batch, if it is gone, is made again by nobody: the default one then."""
    worker = tx.get(
        f"worker of job {job['id']}", "SELECT worker.*, batch.name AS batch FROM worker LEFT JOIN batch "
        "ON batch.id = worker.batch_id WHERE worker.id = ?", (job["worker_id"],),
    )  # fmt: skip
    machine = tx.get(f"machine of job {job['id']}", "SELECT * FROM machine WHERE id = ?", (job["machine"],))
    taken = tx.value("SELECT id FROM worker WHERE name = ? AND deleted_at IS NULL", (worker["name"],))
    made = worker["name"] == f"{machine['provider']}-{machine['id']}"
    kept = {name: worker[name] for name in ("concurrency", "prefetch")} | {name: machine[name] for name in _PLACE}
    wish = json.loads(machine["wish"]) if machine["wish"] else {}
    return {
        **kept, "permanent": bool(worker["permanent"]), "batch": worker["batch"] or DEFAULT_BATCH, "retry": job["retry"],
        "name": None if made or taken is not None else worker["name"],
        "wish": {name: value for name, value in wish.items() if name != "tried"},
    }  # fmt: skip


# --- what the deployer does ------------------------------------------------------------------------------------------------


def order_of(tx: Transaction, machine_id: int) -> dict:
    """The row of a machine, with `wish` as a mapping, and all of its `worker`: the row, with the name of its `batch`. Raises
    NotFound.

    `worker` is None for a machine without one, or whose worker was removed.
    """
    row = tx.get(f"machine {machine_id}", "SELECT * FROM machine WHERE id = ?", (machine_id,))
    worker = tx.one(
        "SELECT worker.*, batch.name AS batch FROM worker JOIN batch ON batch.id = worker.batch_id "
        "WHERE worker.id = ? AND deleted_at IS NULL", (row["worker_id"],),
    )  # fmt: skip
    return {**row, "wish": json.loads(row["wish"]) if row["wish"] else {}, "worker": worker, "unknown": bool(row["unknown"])}


def _locked(tx: Transaction, machine_id: int | None) -> dict | None:
    """The row of a machine that is not gone; no other server changes it before this is committed."""
    return tx.one(f"SELECT * FROM machine WHERE id = ? AND state <> 'gone'{tx.for_update}", (machine_id,))


def asked(tx: Transaction, machine_id: int) -> bool:
    """The provider is about to be asked for it. False: it is not wanted any more, nobody may ask."""
    tx.run(
        "UPDATE machine SET state = CASE WHEN state = 'planned' THEN 'creating' ELSE state END, asked_at = COALESCE(asked_at, ?) "
        f"WHERE id = ? AND state IN {_COMING}", (tx.now, machine_id),
    )  # fmt: skip
    tx.changed = True
    return tx.value(f"SELECT id FROM machine WHERE id = ? AND (state IN {_COMING} OR state = 'up')", (machine_id,)) is not None


def known(
    tx: Transaction, machine_id: int, provider_id: str | None, state: str = "booting", address: str | None = None
) -> bool:  # fmt: skip
    """The provider has it, under this id of its own: `creating`, or `booting`, from when on it costs.

    False: not wanted any more.
    """
    machine = _locked(tx, machine_id)
    if machine is None:
        return False
    told = {"provider_id": provider_id or machine["provider_id"], "address": address or machine["address"], "seen_at": tx.now}
    if machine["state"] in ("planned", "creating"):
        told["state"] = state
    tx.update(Machine, machine_id, told)
    if state == "booting" and machine["state"] in COMING:
        _serve(tx, machine)
    tx.changed = True
    return machine["state"] in (*COMING, "up")


def _serve(tx: Transaction, machine: dict) -> None:
    batch_id = tx.value("SELECT batch_id FROM worker WHERE id = ? AND deleted_at IS NULL", (machine["worker_id"],))
    if batch_id is not None:
        stints.begin(tx, machine["id"], batch_id)


def up(tx: Transaction, machine_id: int) -> bool:
    """Its worker has called. False if it had before, or is not to be any more."""
    machine = _locked(tx, machine_id)
    if machine is None or machine["state"] not in COMING:
        return False
    tx.update(Machine, machine_id, {"state": "up", "up_at": tx.now, "asked_at": machine["asked_at"] or tx.now, "message": None})
    _serve(tx, machine)
    tx.wake()
    return True


def evicted(tx: Transaction, machine_id: int, why: str, who: str = "deployer") -> bool:
    """The provider takes it away: its worker gets nothing more, and gives back what it has not started.

    False if it was told before.
    """
    machine = _locked(tx, machine_id)
    if machine is None or machine["state"] in ("evicted", "deleting"):
        return False
    tx.update(Machine, machine_id, {"state": "evicted", "message": why})
    if machine["worker_id"] is not None:
        tx.run("UPDATE worker SET draining = ? WHERE id = ? AND deleted_at IS NULL", (True, machine["worker_id"]))
        tx.touch(machine["worker_id"])
    events.add(tx, who, "machine.evicted", "machine", [machine_id], {"name": machine["name"], "message": why})
    tx.wake()
    return True


def gone(tx: Transaction, machine_id: int, why: str | None, who: str = "deployer") -> bool:
    """It is there no more, and neither is its worker: what it held is lost at once. False if that was known."""
    machine = _locked(tx, machine_id)
    if machine is None:
        return False
    _gone(tx, machine, why)
    events.add(tx, who, "machine.gone", "machine", [machine_id], {"name": machine["name"], "message": why})
    return True


def _gone(tx: Transaction, machine: dict, why: str | None) -> None:
    _end(tx, machine, why)
    if machine["worker_id"] is not None:
        queue.declare_lost(tx, [machine["worker_id"]], f"its machine is gone{f': {why}' if why else ''}")
        workers.remove(tx, machine["worker_id"])
    tx.wake()


def _end(tx: Transaction, machine: dict, why: str | None) -> None:
    stints.end(tx, machine["id"])
    tx.update(Machine, machine["id"], {"state": "gone", "gone_at": tx.now, "message": why or machine["message"]})


def replan(tx: Transaction, machine_id: int, why: str | None, place: Mapping | None = None) -> int | None:
    """After a failed attempt, of which nothing is left at the provider: the id of the machine for the next one; None: not wanted.

    With a `place` (provider, region, flavor; price, currency, concurrency if they change) it is a new machine there, of the same
    worker and job, and the old place is among those `tried`, [provider, region, flavor] each, of its wish.
    """
    machine = _locked(tx, machine_id)
    if machine is None or machine["state"] not in COMING:
        return None
    stints.end(tx, machine_id)
    tx.changed = True
    if place is None:
        tx.update(Machine, machine_id, {"state": "planned", "provider_id": None, "address": None, "message": why})
        return machine_id
    (new_id,) = tx.new_ids("machine", 1)
    wish = json.loads(machine["wish"]) if machine["wish"] else {}
    tried = [*wish.get("tried", ()), [machine["provider"], machine["region"], machine["flavor"]]]
    _insert(tx, new_id, {**place, "wish": {**wish, "tried": tried}}, machine["worker_id"], machine["asked_by"])
    _end(tx, machine, why)
    settings = {name: place[name] for name in ("provider", "region", "flavor", "concurrency") if name in place}
    tx.update(Worker, machine["worker_id"], {**settings, "machine_id": new_id})
    tx.run(
        "UPDATE job SET machine_id = ?, provider = ? WHERE machine_id = ? AND kind = 'deploy'",
        (new_id, place["provider"], machine_id),
    )
    events.add(tx, "deployer", "machine.replan", "machine", [machine_id], {"machine": new_id, "message": why, **settings})
    return new_id


def ours(tx: Transaction, provider: str) -> list[dict]:
    """The rows of a provider's machines that are not gone."""
    return tx.all(f"SELECT * FROM machine WHERE provider = ? AND state IN {_THERE} ORDER BY id", (provider,))


def there(tx: Transaction) -> list[dict]:
    """Every machine that is not gone: id, provider, state."""
    return tx.all(f"SELECT id, provider, state FROM machine WHERE state IN {_THERE}")


def reconcile(tx: Transaction, provider: str, listed: Iterable[Mapping], asked_at: float) -> dict[str, list[int]]:
    """A provider was asked at `asked_at` (the server's time) and has told all its machines: mappings of the fields of
    `cloud.provider.Machine`. Ids of machines that are `unknown` here since now, `vanished` (and gone), or `evicted`.
    """
    listed = {machine["name"]: machine for machine in listed}
    rows = {row["name"]: row for row in ours(tx, provider)}
    found: dict[str, list[int]] = {"unknown": unknown(tx, provider, listed.values()), "vanished": [], "evicted": []}
    for name, machine in listed.items():
        if name in rows:
            _note(tx, rows[name], machine)
            if machine["state"] == "evicted" and evicted(tx, rows[name]["id"], machine.get("message") or "is being evicted"):
                found["evicted"].append(rows[name]["id"])
    for name, row in rows.items():
        since = row["asked_at"] or row["created_at"]
        settled = row["state"] in ("booting", "up", "evicted") and since < asked_at - SETTLES_SECONDS
        if name not in listed and settled and gone(tx, row["id"], "it vanished from its provider"):
            found["vanished"].append(row["id"])
    tx.changed = True
    return found


def _note(tx: Transaction, row: dict, machine: Mapping) -> None:
    told = {"provider_id": machine.get("id") or row["provider_id"], "address": machine.get("address") or row["address"]}
    tx.update(Machine, row["id"], {**told, "seen_at": tx.now})


def unknown(tx: Transaction, provider: str, listed: Iterable[Mapping]) -> list[int]:
    """Those of these machines that carry our tag and are in no row, or were taken for gone long enough ago, get one.

    Their ids.
    """
    found = []
    for machine in listed:
        row = tx.one("SELECT id, state, gone_at FROM machine WHERE name = ?", (machine["name"],))
        if row is None:
            found.append(_adopt(tx, provider, machine))
        elif row["state"] == "gone" and machine["state"] != "deleting" and row["gone_at"] < tx.now - SETTLES_SECONDS:
            changes = {"state": "up", "unknown": True, "gone_at": None, "seen_at": tx.now, "worker_id": None}
            tx.update(Machine, row["id"], {**changes, "message": "it was taken for gone"})
            found.append(row["id"])
        else:
            continue
        events.add(tx, "deployer", "machine.unknown", "machine", [found[-1]], {"name": machine["name"], "provider": provider})
    if found:
        tx.wake()
    return found


def was_to_go(tx: Transaction, machine_id: int) -> bool:
    """Whether a machine was destroyed, or the attempt to deploy it failed: its provider may carry out late what it was asked
    for before.

    One that never came up and whose deployment went on elsewhere, or was tried anew, has no such job any more.
    """
    ended = "(kind = 'destroy' AND state = 'succeeded') OR (kind = 'deploy' AND state = 'failed')"
    moved = (
        "asked_at IS NOT NULL AND up_at IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM job WHERE machine_id = machine.id AND kind = 'deploy')"
    )
    return tx.value(
        f"SELECT id FROM machine WHERE id = ? AND (({moved}) OR EXISTS "
        f"(SELECT 1 FROM job WHERE machine_id = machine.id AND ({ended})))", (machine_id,),
    ) is not None  # fmt: skip


def _adopt(tx: Transaction, provider: str, machine: Mapping) -> int:
    (machine_id,) = tx.new_ids("machine", 1)
    told = {"name": machine["name"], "region": machine.get("region") or "", "flavor": machine.get("flavor")}
    place = {"provider": provider, "provider_id": machine.get("id"), "address": machine.get("address")}
    state = {"state": "up", "unknown": True, "asked_by": "", "created_at": tx.now, "seen_at": tx.now}
    tx.insert(Machine, {"id": machine_id, **told, **place, **state, "message": "nobody here asked for it"})
    return machine_id


def coming(tx: Transaction) -> dict[int, int]:
    """How many workers are being deployed for each batch, by its id."""
    rows = tx.all(
        "SELECT worker.batch_id, COUNT(*) AS n FROM machine JOIN worker ON worker.id = machine.worker_id "
        f"WHERE machine.state IN {_COMING} AND worker.deleted_at IS NULL GROUP BY worker.batch_id"
    )
    return {row["batch_id"]: row["n"] for row in rows}
