"""Which idle workers a batch with too few takes, by its recruiters, and when they go home: pure functions, and what applies them.

`scheduler.decide` calls `call_home` before it gives out tasks and `recycle` after it: what idles then has nothing to do in its
own batch, and for each that moves a task is given out in the same transaction. So no more workers move than tasks start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from .errors import InvalidRequest
from .protofilter import is_met, is_protofilter, parse
from .store import Transaction, costs, recruiters

log = logging.getLogger(__name__)

HOME_SECONDS = 60.0  # that a worker idles where it was taken to before it goes home
ANY = "auto"  # as a provider or a region: whichever
_MEASURED = ("disk", "tags", "gpumem")  # items of protofilters that need a worker's statistics


# --- pure decisions ------------------------------------------------------------------------------------------------------


def wanted(recruiter: dict, pending: int, workers: int) -> int:
    """How many workers a recruiter would add to the `workers` of its batch that can work, with so many tasks `pending`."""
    if pending < max(1, recruiter["minimum_tasks"] or 0):
        return 0
    most = recruiter["maximum_workers"]
    full = -(-pending // recruiter["tasks_per_worker"])
    return max(0, (full if most is None else min(full, most)) - workers)


def matches(recruiter: dict, machine: dict) -> bool:
    """Whether a machine is what a recruiter looks for. One of no flavor is taken by recruiters alone that ask for none."""
    for name in ("provider", "region"):
        if recruiter[name] not in (None, ANY, machine[name]):
            return False
    flavor = recruiter["flavor"]
    if flavor is None or machine["flavor"] is None:
        return flavor is None
    return is_met(flavor, machine["known"]) if is_protofilter(flavor) else flavor == machine["flavor"]


def counts_for(worker: dict) -> bool:
    """Whether a worker is one of those that its batch has: it is there, and may work."""
    return not (worker["offline"] or worker["problem"] or worker["draining"])


def idle(workers: list[dict], uploading: set[int]) -> list[dict]:
    """Workers that hold nothing, and have slots for which their batch has no task, now and as soon as it can be foreseen.

    Rows of `queue.workers_with_load`, after all tasks that could be were given out.
    """
    expecting = {w["batch_id"] for w in workers if w["busy"] > w["concurrency"] or (w["held"] and not counts_for(w))}
    return [
        w for w in workers
        if not w["busy"] and w["concurrency"] > 0 and counts_for(w) and not w["stopped"]
        and w["id"] not in uploading and w["batch_id"] not in expecting
    ]  # fmt: skip


def called_home(away: list[dict], lacking: int) -> list[dict]:
    """As many of a batch's own workers that are away as it takes for the tasks that lack a slot, those that run least first."""
    called = []
    for worker in sorted(away, key=lambda w: (_lasting(w), w["id"])):
        free = worker["home_concurrency"] - (worker["busy"] - worker["held"])
        if lacking > 0 and free > 0:
            called.append(worker)
            lacking -= free
    return called


def _lasting(worker: dict) -> int:
    """What takes slots of a worker and will not be asked back."""
    return worker["busy"] - worker["strange"]


def choose(
    standing: list[dict], pending: dict[int, int], present: dict[int, int], machines: list[dict]
) -> list[tuple[dict, dict]]:
    """Pairs of a recruiter and the idle machine it takes. Batches take turns, a machine each; in a batch lower ranks go first.

    `pending` tasks and `present` workers by batch; `standing` in the order of batches and ranks.
    """
    present, taken, pairs = dict(present), set(), []
    seekers: dict[int, list[tuple[dict, Iterator[dict]]]] = {}
    for recruiter in standing:
        seekers.setdefault(recruiter["batch_id"], []).append((recruiter, _fitting(recruiter, machines)))
    turns = [batch_id for batch_id in seekers if pending.get(batch_id)]
    while turns:
        again = []
        for batch_id in turns:
            pair = _next(seekers[batch_id], pending[batch_id], present.get(batch_id, 0), taken)
            if pair is not None:
                pairs.append(pair)
                taken.add(pair[1]["id"])
                present[batch_id] = present.get(batch_id, 0) + 1
                again.append(batch_id)
        turns = again
    return pairs


def _fitting(recruiter: dict, machines: list[dict]) -> Iterator[dict]:
    """The machines that are what it looks for, but for those that became unfit by its batch's work lately: without a container
    engine, say. Most are like others: each kind is looked at once.
    """
    fits: dict[int, bool] = {}
    for machine in machines:
        kind = machine["kind"]
        if kind not in fits:
            fits[kind] = matches(recruiter, machine)
        if fits[kind] and machine["batch_id"] != recruiter["batch_id"] and recruiter["batch_id"] not in machine["unfit"]:
            yield machine


def _next(seekers: list[tuple[dict, Iterator[dict]]], pending: int, present: int, taken: set[int]) -> tuple[dict, dict] | None:
    for recruiter, fitting in seekers:
        if wanted(recruiter, pending, present):
            machine = next((machine for machine in fitting if machine["id"] not in taken), None)
            if machine is not None:
                return recruiter, machine
    return None


def readable(standing: Iterable[dict]) -> list[dict]:
    """Those of which the flavor can be read: one that cannot holds up no other."""
    kept = []
    for recruiter in standing:
        try:
            _conditions(recruiter)
            kept.append(recruiter)
        except InvalidRequest as error:
            _warn(f"recruiter {recruiter['rank']} of batch {recruiter['batch']} is left out: {error.message}")
    return kept


@lru_cache(maxsize=100)
def _warn(sentence: str) -> None:
    """Once, however often it is met."""
    log.warning("%s", sentence)


def _conditions(recruiter: dict) -> tuple:
    flavor = recruiter["flavor"]
    return parse(flavor) if flavor is not None and is_protofilter(flavor) else ()


def needs_statistics(standing: Iterable[dict]) -> bool:
    """Whether any of them asks for what only a worker's statistics tell."""
    return any(condition.item in _MEASURED for recruiter in standing for condition in _conditions(recruiter))


# --- what applies them -----------------------------------------------------------------------------------------------------


def recycle(tx: Transaction, workers: list[dict], who: str) -> set[int]:
    """Move idle workers to the batches whose recruiters want them; the ids of those that moved. Their rows are renewed.

    A batch whose budget is spent gets none. What is wanted beyond them is for a provider to deploy: `wanted` says how many
    those are.
    """
    free = idle(workers, set())
    standing = readable(recruiters.standing(tx)) if free else []
    if standing and (spent := costs.reached(tx)):
        standing = [recruiter for recruiter in standing if recruiter["batch_id"] not in spent]
    if not standing:
        return set()
    present: dict[int, int] = {}
    for worker in filter(counts_for, workers):
        present[worker["batch_id"]] = present.get(worker["batch_id"], 0) + 1
    standing = _wanting(tx, standing, present, {w["batch_id"] for w in free})
    free = idle(workers, recruiters.uploading(tx)) if standing else []
    machines = recruiters.machines(tx, [w["id"] for w in free], needs_statistics(standing))
    standing = [recruiter for recruiter in standing if any(_fitting(recruiter, machines))]
    if not standing:
        return set()
    pending = _pending(tx, standing, present, len(free))
    return _move(tx, choose(standing, pending, present, machines), {w["id"]: w for w in free}, who)


def _wanting(tx: Transaction, standing: list[dict], present: dict[int, int], sated: set[int]) -> list[dict]:
    """The recruiters that want a worker; not of `sated` batches that have idle workers: what waits there is another server's."""
    standing = [recruiter for recruiter in standing if recruiter["batch_id"] not in sated]
    pending = _pending(tx, standing, present, 1)
    return [r for r in standing if wanted(r, pending.get(r["batch_id"], 0), present.get(r["batch_id"], 0))]


def _pending(tx: Transaction, standing: list[dict], present: dict[int, int], free: int) -> dict[int, int]:
    """Pending tasks by batch, counted as far as it matters for so many `free` workers: counting all would take its time."""
    most = max((enough(r, present.get(r["batch_id"], 0) + free) for r in standing), default=0)
    return recruiters.pending(tx, sorted({r["batch_id"] for r in standing}), most)


def enough(recruiter: Mapping, workers: int) -> int:
    """So many pending tasks as it takes for a recruiter to want more than these workers: counting on would tell nothing."""
    return max(recruiter["minimum_tasks"] or 0, recruiter["tasks_per_worker"] * workers)


def _move(tx: Transaction, pairs: list[tuple[dict, dict]], rows: dict[int, dict], who: str) -> set[int]:
    chosen: dict[int, tuple[dict, list[dict]]] = {}
    for recruiter, machine in pairs:
        chosen.setdefault(recruiter["id"], (recruiter, []))[1].append(rows[machine["id"]])
    moved: set[int] = set()
    for recruiter, workers in chosen.values():
        for worker_id in recruiters.take(tx, recruiter, workers, who):
            row = rows[worker_id]
            row["batch_id"] = recruiter["batch_id"]
            for name in ("concurrency", "prefetch"):
                row[name] = row[name] if recruiter[name] is None else recruiter[name]
            moved.add(worker_id)
    return moved


def call_home(tx: Transaction, workers: list[dict], who: str) -> None:
    """Workers that were taken go home as soon as their own batch has more tasks than slots, or they become unfit where they are;
    what they run there goes on. Rows of those that went are brought up to date.
    """
    lent = [w for w in workers if w["home_batch_id"] not in (None, w["batch_id"])]
    _go_home(tx, [w for w in lent if w["problem"] and not w["offline"]], who)
    away: dict[int, list[dict]] = {}
    for worker in filter(counts_for, lent):
        away.setdefault(worker["home_batch_id"], []).append(worker)
    if not away:
        return
    own: dict[int, int] = {}
    for worker in filter(counts_for, workers):
        own[worker["batch_id"]] = own.get(worker["batch_id"], 0) + max(0, worker["concurrency"] - _lasting(worker))
    slots = sum(own.values()) + sum(w["home_concurrency"] for found in away.values() for w in found)
    waiting = recruiters.pending(tx, sorted(away), slots + 1)
    lacking = {home: waiting.get(home, 0) - own.get(home, 0) for home in away}
    _go_home(tx, [w for home, found in away.items() for w in called_home(found, lacking[home])], who)


def _go_home(tx: Transaction, called: list[dict], who: str) -> None:
    if called:
        recruiters.go_home(tx, [w["id"] for w in called], who)
    for worker in called:
        worker |= {
            "batch_id": worker["home_batch_id"], "concurrency": worker["home_concurrency"], "prefetch": worker["home_prefetch"],
            "home_batch_id": None, "stopped": False, "strange": worker["held"],
        }  # fmt: skip


class Homesick:
    """How long each worker that was taken has idled, by this process's monotonic clock."""

    def __init__(self, home_seconds: float = HOME_SECONDS):
        self._seconds = home_seconds
        self._since: dict[int, float] = {}

    def due(self, resting: list[int], now: float) -> list[int]:
        """Those of the workers that idle now which have for so long that they go home."""
        self._since = {worker_id: self._since.get(worker_id, now) for worker_id in resting}
        return [worker_id for worker_id, since in self._since.items() if now - since >= self._seconds]


def send_home(tx: Transaction, worker_ids: list[int], who: str) -> None:
    """Those of these workers that idle still go home."""
    still = set(recruiters.resting(tx))
    if homeward := [worker_id for worker_id in worker_ids if worker_id in still]:
        recruiters.go_home(tx, homeward, who)
        tx.wake()
