"""Workers that recruiters deploy where none can be recycled, and machines that nobody needs any more."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import choosing
from ..cloud.config import AUTO
from ..recruiting import counts_for, enough, readable, wanted
from ..store import Transaction, costs, flavors, jobs, machines, providers, queue, recruiters
from ..store.schema import LIVE_SQL
from .context import WHO, Context

PATIENCE_SECONDS = 2.0  # for which a batch waits for an idle worker before one is deployed
REFRESH_SECONDS = 900.0  # for which quotas that are used up are taken for used up
_MOST_AT_ONCE = 100  # machines that a pass plans for a batch
_BUSY = f"EXISTS (SELECT 1 FROM execution WHERE worker_id = worker.id AND state IN {LIVE_SQL})"


# --- recruiting ----------------------------------------------------------------------------------------------------------


def wants(tx: Transaction, context: Context) -> list[dict]:
    """What recruiters want of providers now, a mapping for each: `recruiter`, `number`, in the order of batches and ranks.

    Batches whose budget is spent want nothing.
    """
    standing = [r for r in recruiters.standing(tx) if r["provider"] is not None]
    if not standing:
        return []
    spent = costs.reached(tx)
    standing = [r for r in readable(standing) if r["batch_id"] not in spent]
    present: dict[int, int] = machines.coming(tx)
    fit = [worker["batch_id"] for worker in queue.workers_with_load(tx) if counts_for(worker)]
    for batch_id in [*fit, *_deployed_unfit(tx)]:
        present[batch_id] = present.get(batch_id, 0) + 1
    most = max((enough(r, present.get(r["batch_id"], 0) + _MOST_AT_ONCE) for r in standing), default=0)
    pending = recruiters.pending(tx, sorted({r["batch_id"] for r in standing}), most)
    found = [
        {"recruiter": r, "number": wanted(r, pending.get(r["batch_id"], 0), present.get(r["batch_id"], 0))} for r in standing
    ]
    return [want for want in found if want["number"]]


def _deployed_unfit(tx: Transaction) -> list[int]:
    """The batches of deployed workers that are there and cannot work. The next ones would be no better, an image without a
    container engine say, and would be paid for too: these count until they are destroyed for idling.
    """
    return tx.column(
        "SELECT worker.batch_id FROM worker JOIN machine ON machine.id = worker.machine_id WHERE machine.state = 'up' "
        "AND problem IS NOT NULL AND NOT offline AND NOT draining AND NOT permanent AND deleted_at IS NULL"
    )


class Patience:
    """Since when each batch wants workers, by a monotonic clock: idle ones of other batches go first."""

    def __init__(self, seconds: float = PATIENCE_SECONDS):
        self._seconds = seconds
        self._since: dict[int, float] = {}

    def over(self, batch_ids: Iterable[int], now: float) -> set[int]:
        """Those of the batches that want workers now which have for so long."""
        self._since = {batch_id: self._since.get(batch_id, now) for batch_id in batch_ids}
        return {batch_id for batch_id, since in self._since.items() if now - since >= self._seconds}


def recruit(tx: Transaction, context: Context, batch_ids: set[int]) -> list[int]:
    """Plan the machines that recruiters of these batches want still, as far as there is room; their ids.

    In a batch lower ranks go first; what they cannot have, the next ones may.
    """
    lacking: dict[int, int] = {}  # by batch: planned already in this pass
    planned: list[int] = []
    for want in wants(tx, context):
        recruiter = want["recruiter"]
        number = min(want["number"] - lacking.get(recruiter["batch_id"], 0), _MOST_AT_ONCE)
        if recruiter["batch_id"] not in batch_ids or number <= 0:
            continue
        found = _places(tx, context, recruiter, number)
        if found:
            made = machines.plan(tx, [_spec(context, recruiter, flavor) for flavor in found], WHO)
            planned += [one["machine"] for one in made]
        lacking[recruiter["batch_id"]] = lacking.get(recruiter["batch_id"], 0) + len(found)
    return planned


def _places(tx: Transaction, context: Context, recruiter: Mapping, number: int) -> Sequence[Mapping]:
    wish = wish_of(recruiter)
    rows = known_flavors(tx, context, wish)
    troubled = {name for name, row in providers.all_of(tx).items() if row["trouble"]}
    rows = [row for row in rows if context.answers(troubled, row)]
    found = choosing.dealt(choosing.candidates(wish, rows, context.clouds.regions, context.resting()), number)
    if len(found) < number:
        for name in _worth_asking(tx, context, wish, rows) - troubled:
            jobs.add(tx, "flavors", name, WHO)
    return found


def _worth_asking(tx: Transaction, context: Context, wish: Mapping, rows: Sequence[Mapping]) -> set[str]:
    """Providers that may have more than they told last: they were not asked yet, or what they told of their quotas is old."""
    clouds = context.clouds
    named = (
        {wish["provider"]} & clouds.providers.keys() if wish["provider"] != AUTO else clouds.providers.keys() - clouds.implied
    )
    lately = {
        job["provider"]
        for job in tx.all(
            "SELECT provider FROM job WHERE machine_id IS NULL AND kind = 'flavors' AND created_at > ?",
            (tx.now - REFRESH_SECONDS,),
        )
    }
    full = {row["provider"] for row in rows if choosing.room(row) == 0 and row["updated_at"] < tx.now - REFRESH_SECONDS}
    unknown = named - {row["provider"] for row in rows}
    return (named & full | unknown) - lately


def known_flavors(tx: Transaction, context: Context, wish: Mapping) -> list[dict]:
    """The catalogue, of the providers that the configuration has; of those that it only implies the one that is named."""
    clouds = context.clouds
    rows = flavors.find(tx, provider=None if wish.get("provider") in (None, AUTO) else wish["provider"])
    named = wish.get("provider")
    return [
        row
        for row in rows
        if row["provider"] in clouds.providers and (row["provider"] not in clouds.implied or row["provider"] == named)
    ]


def wish_of(asked: Mapping) -> dict:
    """What was asked for, `auto` where nothing was."""
    return {name: asked.get(name) or AUTO for name in ("provider", "region", "flavor")}


def _spec(context: Context, recruiter: Mapping, flavor: Mapping) -> dict:
    place = {name: flavor[name] for name in ("provider", "region", "price", "currency")}
    return {
        **place, "flavor": flavor["name"], "batch": recruiter["batch"],
        "concurrency": recruiter["concurrency"] or flavor["cpu"] or 1,
        "prefetch": recruiter["prefetch"] or 0, "permanent": False,
        "wish": {**wish_of(recruiter), "concurrency": recruiter["concurrency"]}, "retry": context.clouds.deployment.retry,
    }  # fmt: skip


# --- machines that nobody needs --------------------------------------------------------------------------------------------


def idle(tx: Transaction) -> list[int]:
    """Machines of workers that are not permanent, hold nothing, and could take nothing of what waits."""
    return tx.column(
        "SELECT machine.id FROM machine JOIN worker ON worker.id = machine.worker_id JOIN batch ON batch.id = worker.batch_id "
        f"WHERE machine.state = 'up' AND NOT permanent AND deleted_at IS NULL AND NOT {_BUSY} AND (offline "
        "OR problem IS NOT NULL OR draining OR concurrency = 0 OR batch.stopped OR NOT EXISTS "
        "(SELECT 1 FROM task WHERE task.batch_id = worker.batch_id AND task.state = 'pending')) ORDER BY machine.id"
    )


@dataclass(slots=True)
class _Spell:
    """How long a machine's worker has idled in all, and the newest execution of all when that began."""

    newest: int
    seconds: float = 0.0
    seen: float | None = None  # when it idled last, if it did at the last look


class Restless:
    """Workers that idle now and then and run nothing in between: one that is unfit every other minute never idles for long,
    and is paid for all the same. By a monotonic clock.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._spells: dict[int, _Spell] = {}

    def due(self, idle_ids: Iterable[int], there: Container[int], newest: int, now: float) -> dict[int, int]:
        """Those of the machines that idle now which have for so long in all, each with the newest execution when that began."""
        idle_ids = set(idle_ids)
        self._spells = {machine_id: spell for machine_id, spell in self._spells.items() if machine_id in there}
        for machine_id in idle_ids:
            self._spells.setdefault(machine_id, _Spell(newest))
        for machine_id, spell in self._spells.items():
            if machine_id in idle_ids and spell.seen is not None:
                spell.seconds += now - spell.seen
            spell.seen = now if machine_id in idle_ids else None
        over = {machine_id for machine_id in idle_ids if self._spells[machine_id].seconds >= self._seconds}
        return {machine_id: self._spells[machine_id].newest for machine_id in over}

    def begin_anew(self, machine_id: int) -> None:
        """It has run something since."""
        self._spells.pop(machine_id, None)


def has_run(tx: Transaction, machine_id: int, newest: int) -> bool:
    """Whether the worker of a machine has started any command of an execution that is newer than this one."""
    return tx.value(
        "SELECT execution.id FROM execution JOIN machine ON machine.worker_id = execution.worker_id "
        "WHERE machine.id = ? AND execution.id > ? AND execution.started_at IS NOT NULL LIMIT 1", (machine_id, newest),
    ) is not None  # fmt: skip


def destroy_idle(tx: Transaction, machine_ids: Iterable[int]) -> None:
    """Those of these machines that idle still are destroyed: nothing can be given to them between the look and the end."""
    still = set(idle(tx))
    for machine_id in machine_ids:
        if machine_id in still:
            machines.destroy(tx, machine_id, WHO)


def left_behind(tx: Transaction) -> list[int]:
    """Machines to be destroyed: those that are being taken away and hold nothing, and those that come or go without a job."""
    return tx.column(
        "SELECT machine.id FROM machine LEFT JOIN worker ON worker.id = machine.worker_id AND deleted_at IS NULL "
        f"WHERE (machine.state = 'evicted' AND (worker.id IS NULL OR NOT {_BUSY})) OR (machine.state IN "
        "('planned', 'creating', 'booting', 'deleting') AND NOT EXISTS (SELECT 1 FROM job WHERE job.machine_id = machine.id "
        "AND job.state IN ('pending', 'running') AND job.kind <> 'flavors')) ORDER BY machine.id"
    )
