"""Who gets what, who is asked to give back, and who is lost: pure functions over rows, and the passes that apply them.

`decide` runs inside the writer's transaction, right before its commit, whenever something changed: never by polling.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from . import recruiting
from .protocol import OFFLINE_SECONDS, RETURN
from .store import Store, Transaction, queue, recruiters, requests
from .store.schema import LIVE_SQL

log = logging.getLogger(__name__)

DECIDER = "scheduler"  # its name in the event log and in `asked_by`
LOST_AFTER_SECONDS = 1800.0
FLUSH_SECONDS = 5.0  # between two writes of the workers' last contacts, at most
TICK_SECONDS = 1.0
PAUSE_SECONDS = 2.0  # this process was stopped, or waited for its database: time that counts for nobody
FORGET_SECONDS = 3600.0  # between two looks for answers to requests that nobody will repeat


# --- pure decisions ----------------------------------------------------------------------------------------------------


def is_open(worker: dict) -> bool:
    """Whether a worker may be given new work."""
    return not (worker["draining"] or worker["offline"] or worker["problem"] or worker["stopped"])


def rooms(workers: Iterable[dict]) -> dict[int, tuple[list[dict], int]]:
    """By batch: its workers that may get work, and how many tasks they have room for, prefetch included."""
    by_batch: dict[int, list[dict]] = defaultdict(list)
    for worker in workers:
        if is_open(worker) and worker["concurrency"] > 0:
            by_batch[worker["batch_id"]].append(worker)
    room = {batch: (found, sum(max(0, _capacity(w) - w["busy"]) for w in found)) for batch, found in by_batch.items()}
    return {batch: (found, count) for batch, (found, count) in room.items() if count > 0}


def _capacity(worker: dict) -> int:
    return worker["concurrency"] + worker["prefetch"]


def spread(tasks: list, workers: list[dict]) -> list[tuple]:
    """Pair tasks, best first, with workers: the one with most free run slots first; prefetch once no run slot is free anywhere.

    Adds what it gives to each worker's `busy`.
    """
    heap = [(*_preference(worker), worker["id"], worker) for worker in workers if worker["busy"] < _capacity(worker)]
    heapq.heapify(heap)
    pairs = []
    for task in tasks:
        if not heap:
            break
        worker = heap[0][-1]
        pairs.append((task, worker["id"]))
        worker["busy"] += 1
        if worker["busy"] < _capacity(worker):
            heapq.heapreplace(heap, (*_preference(worker), worker["id"], worker))
        else:
            heapq.heappop(heap)
    return pairs


def _preference(worker: dict) -> tuple[bool, int]:
    """Smallest first: a free run slot before prefetch, then most room."""
    free_slots = worker["concurrency"] - worker["busy"]
    return free_slots <= 0, -(free_slots if free_slots > 0 else _capacity(worker) - worker["busy"])


def to_return(workers: list[dict], waiting: list[dict], hungry: dict[int, int]) -> list[int]:
    """Executions to ask back, of those not started (`waiting`, the ones to keep first).

    Those whose worker or batch may start nothing now, those above their worker's capacity, and prefetched ones for which
    another worker of the batch has an idle slot (`hungry`: idle slots by batch, with nothing pending).
    """
    by_id = {worker["id"]: worker for worker in workers}
    hungry = dict(hungry)
    asked = []
    for execution in reversed(waiting):
        worker = by_id.get(execution["worker_id"])
        if execution["desired"] == RETURN:
            if worker is not None:
                worker["busy"] -= 1  # on its way back
                hungry[execution["batch_id"]] = hungry.get(execution["batch_id"], 0) - 1
            continue
        if worker is None or not _may_keep(worker, execution, hungry):
            asked.append(execution["id"])
            if worker is not None:
                worker["busy"] -= 1
    return asked


def _may_keep(worker: dict, execution: dict, hungry: dict[int, int]) -> bool:
    if worker["offline"]:
        return True  # nobody can tell it; the monitor takes them when it has been silent for long enough
    if not is_open(worker) or execution["stopped"] or execution["batch_id"] != worker["batch_id"]:
        return False
    if worker["busy"] > _capacity(worker):
        return False
    if worker["busy"] > worker["concurrency"] and hungry.get(worker["batch_id"], 0) > 0:
        hungry[worker["batch_id"]] -= 1
        return False
    return True


def idle_slots(workers: Iterable[dict]) -> dict[int, int]:
    """Run slots that nothing fills, by batch."""
    idle: dict[int, int] = defaultdict(int)
    for worker in workers:
        if is_open(worker):
            idle[worker["batch_id"]] += max(0, worker["concurrency"] - worker["busy"])
    return {batch: count for batch, count in idle.items() if count > 0}


# --- the pass that applies them -------------------------------------------------------------------------------------------


def decide(tx: Transaction) -> None:
    """Fill every free slot, move workers to where they are wanted, and ask back what should start elsewhere, in this transaction.
    """
    workers = queue.workers_with_load(tx)
    recruiting.call_home(tx, workers, DECIDER)
    exhausted = _fill(tx, workers)
    if moved := recruiting.recycle(tx, workers, DECIDER):
        exhausted |= _fill(tx, [worker for worker in workers if worker["id"] in moved])
    waiting = queue.not_started(tx) if _may_need_return(workers) else []
    if waiting:
        hungry = {batch: count for batch, count in idle_slots(workers).items() if batch in exhausted}
        queue.order(tx, to_return(workers, waiting, hungry), RETURN, DECIDER)


def _fill(tx: Transaction, workers: list[dict]) -> set[int]:
    """Give out tasks as far as these workers have room; the batches that left a slot without one."""
    exhausted = set(idle_slots(workers))
    for batch_id, (found, count) in rooms(workers).items():
        tasks = queue.next_pending(tx, batch_id, count)
        if len(tasks) == count:
            exhausted.discard(batch_id)
        if tasks:
            queue.claim(tx, spread(tasks, found))
    return exhausted


def _may_need_return(workers: list[dict]) -> bool:
    """Whether any worker holds more than it may run, or something that it may not start: else there is nothing to ask back."""
    return any(w["held"] and (w["busy"] > w["concurrency"] or not is_open(w)) or w["strange"] for w in workers)


# --- presence --------------------------------------------------------------------------------------------------------------


class Presence:
    """How long each worker has been silent, by this process's monotonic clock.

    A contact is a change of a number (`contact_at` in the database, or a call of `contact`): clocks that jump change nothing.
    Time in which this process itself did not run counts for nobody.
    """

    def __init__(self, now: float):
        self._seen: dict[int, tuple[float | None, float]] = {}  # worker -> the number last seen, when
        self._ticked = now

    def tick(self, now: float, pause_seconds: float) -> None:
        """Say that time goes on; a gap longer than `pause_seconds` was our own pause: every worker is granted it."""
        gap = now - self._ticked
        if gap > pause_seconds:
            self._seen = {worker: (number, seen + gap) for worker, (number, seen) in self._seen.items()}
        self._ticked = now

    def observe(self, worker_id: int, number: float | None, now: float) -> float:
        """Seconds of silence of a worker whose number is now this one."""
        known = self._seen.get(worker_id)
        if known is None or known[0] != number:
            self._seen[worker_id] = (number, now)
            return 0.0
        return now - known[1]

    def contact(self, worker_id: int, now: float) -> None:
        """A request of this worker came in."""
        number = self._seen[worker_id][0] if worker_id in self._seen else None
        self._seen[worker_id] = (number, now)


class Monitor:
    """A thread that notes the workers' contacts, and declares the silent ones offline and then lost."""

    def __init__(self, store: Store, lost_after_seconds: float = LOST_AFTER_SECONDS, clock: Callable[[], float] = time.monotonic):
        self._store = store
        self._lost_after = lost_after_seconds
        self._flush_seconds = min(FLUSH_SECONDS, lost_after_seconds / 4)  # another server process may be the one that watches
        self._clock = clock
        self._presence = Presence(clock())
        self._contacts: set[int] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._flushed = clock()
        self._forgot = float("-inf")
        self._homesick = recruiting.Homesick()
        self.ticked_at = clock()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Begin to watch; workers known from before have all their time again."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; contacts not yet written are written."""
        self._stopping.set()
        self._thread.join()
        self._flush()

    def contact(self, worker_id: int) -> None:
        """A request of this worker came in. Costs nothing: it is written with others, every few seconds."""
        with self._lock:
            self._contacts.add(worker_id)
            self._presence.contact(worker_id, self._clock())

    def _run(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - a database that is away must not end the watch
                log.warning("the watch over the workers goes on after: %s", error)

    def tick(self) -> None:
        """One look at everybody."""
        now = self._clock()
        with self._lock:
            self._presence.tick(now, PAUSE_SECONDS)
        if now - self._flushed >= self._flush_seconds:
            self._flush()
            self._flushed = now
        silent = self._silences(now) if self._store.leads else []
        if any(silence > limit for _, silence, limit in silent):
            self._store.write(lambda tx: self._declare(tx, silent, now))
        if self._store.leads:
            self._send_home(now)
        if now - self._forgot >= FORGET_SECONDS:
            self._store.write(requests.forget_old)
            self._forgot = now
        self.ticked_at = now

    def _flush(self) -> None:
        with self._lock:
            contacts, self._contacts = self._contacts, set()
        if contacts:
            self._store.write(lambda tx: _note_contacts(tx, sorted(contacts)))

    def _send_home(self, now: float) -> None:
        due = self._homesick.due(self._store.read(recruiters.resting), now)
        if due:
            self._store.write(lambda tx: recruiting.send_home(tx, due, DECIDER))

    def _silences(self, now: float) -> list[tuple[dict, float, float]]:
        """Workers that are not offline yet, or hold something: (row, seconds of silence, the limit that comes next)."""
        workers = self._store.read(_watched)
        with self._lock:
            measured = [(worker, self._presence.observe(worker["id"], worker["contact_at"], now)) for worker in workers]
        return [(worker, silence, self._limit(worker)) for worker, silence in measured]

    def _limit(self, worker: dict) -> float:
        return self._lost_after if worker["offline"] else min(OFFLINE_SECONDS, self._lost_after)

    def _declare(self, tx: Transaction, silent: list[tuple[dict, float, float]], looked_at: float) -> None:
        if self._clock() - looked_at > PAUSE_SECONDS:
            return  # this write had to wait, and so had what the workers said meanwhile: the next look knows more
        for worker, silence, limit in silent:
            if silence <= limit:
                continue
            if not worker["offline"]:
                tx.run("UPDATE worker SET offline = ? WHERE id = ?", (True, worker["id"]))
                queue.declare_lost(
                    tx, [worker["id"]], f"given back before it started: worker {worker['name']} is silent", only_not_started=True
                )
                tx.wake()
            if silence > self._lost_after:
                reason = f"worker {worker['name']} was silent for {silence:.0f} s and is taken for lost"
                if queue.declare_lost(tx, [worker["id"]], reason):
                    log.warning(reason)


def _watched(tx: Transaction) -> list[dict]:
    return tx.all(
        "SELECT id, name, offline, contact_at FROM worker WHERE deleted_at IS NULL AND (NOT offline OR EXISTS "
        f"(SELECT 1 FROM execution WHERE worker_id = worker.id AND state IN {LIVE_SQL}))"
    )


def _note_contacts(tx: Transaction, worker_ids: list[int]) -> None:
    tx.many("UPDATE worker SET contact_at = ? WHERE id = ?", [(tx.now, worker_id) for worker_id in worker_ids])
