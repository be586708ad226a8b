"""What somebody should look at: failures that look alike, work that nobody does, workers that are silent, disks that are full,
jobs that fail, machines that nobody asked for, budgets that are spent, providers that cannot be used.
"""

from __future__ import annotations

import threading
import time

from ..explain import explain
from ..store import Store, Transaction, batches, costs, jobs, machines, providers, reports, workers
from .answers import iso, with_iso_times
from .livedata import MOST_BATCHES, MOST_WORKERS, slots_of

FAILED_LOOKED_AT = 2000  # the newest
GROUPS = 50
NAMED = 20  # tasks of a group, workers of a version
MOST_JOBS = 50  # and machines
COST_SHARE = 0.05  # of a processor that the looking may take
KEEPS_SECONDS = 20.0  # for which an answer will do when nothing changed: disks fill without a change
FULL_SHARE, FULL_BYTES = 0.05, 20 * 10**9  # a disk is told with less free than both
_WAITING = ("pending", "waiting")


class Trouble:
    """Looks when it is asked, and once for all who ask at the same time."""

    def __init__(self, store: Store):
        self._store = store
        self._turn = threading.Lock()
        self._answer: dict = {}
        self._version = -1
        self._looked = self._cost = float("-inf")

    def read(self) -> dict:
        """`failures`, `batches`, `workers`, `disks`, `versions`, `jobs`, `machines`, `budgets`, `providers`."""
        with self._turn:
            began, version = time.monotonic(), self._store.changes.version
            age = began - self._looked
            if age > KEEPS_SECONDS or (version != self._version and age > self._cost / COST_SHARE):
                self._answer = self._store.read(_look)
                self._version, self._looked = version, time.monotonic()
                self._cost = self._looked - began
            return self._answer


def _look(tx: Transaction) -> dict:
    present = workers.find(tx, {}, MOST_WORKERS, None, descending=False)
    return {
        "failures": _failures(tx),
        "batches": _stuck(tx, slots_of(present)),
        "workers": [_silent(row) for row in present if row["state"] in ("offline", "unfit")],
        "disks": [disk for row in present if row["state"] != "offline" for disk in full_disks(row["name"], row["stats"])],
        "versions": _versions(present),
        **_clouds(tx),
    }


def _versions(present: list[dict]) -> list[dict]:
    """Versions that workers run and the server does not, each with the names of some of them."""
    found: dict[str, list[str]] = {}
    for row in present:
        if row["outdated"]:
            found.setdefault(row["version"], []).append(row["name"])
    return [{"version": version, "workers": len(names), "names": names[:NAMED]} for version, names in sorted(found.items())]


def _clouds(tx: Transaction) -> dict:
    strange = machines.find(tx, {"unknown": True}, MOST_JOBS, None, descending=True)
    told = (row for row in providers.all_of(tx).values() if row["trouble"])
    return {
        "jobs": [_part(row, _JOB) for row in jobs.troubled(tx, MOST_JOBS)],
        "machines": [_part(row, ("id", "name", "provider", "region", "message")) for row in strange],
        "budgets": list(costs.reached(tx).values()),
        "providers": [_part(row, ("name", "trouble", "trouble_at")) for row in told],
    }


_JOB = ("id", "kind", "state", "provider", "worker", "batch", "attempt", "message", "finished_at")


def _part(row: dict, names: tuple[str, ...]) -> dict:
    return with_iso_times({name: row[name] for name in names})


def _failures(tx: Transaction) -> list[dict]:
    rows = reports.newest_failed(tx, FAILED_LOOKED_AT)
    groups = reports.grouped(rows, ("batch", "exit_code", "signal", "last_line"), NAMED, alike=True)
    groups.sort(key=lambda group: -group["newest_at"])
    return [with_iso_times(group) for group in groups[:GROUPS]]


def _stuck(tx: Transaction, slots: dict[str, int]) -> list[dict]:
    """Batches of which tasks wait, and nothing will start."""
    found = []
    for row in batches.find(tx, MOST_BATCHES, None, descending=True):
        waits = any(row["counts"].get(state) for state in _WAITING)
        if waits and (row["stopped"] or not slots.get(row["name"])):
            found.append({"name": row["name"], "why": _why(tx, row)})
    return found


def _why(tx: Transaction, row: dict) -> str:
    """The sentence of a task that could start otherwise; of one that waits for others when there is none."""
    state = next(state for state in _WAITING if row["counts"].get(state))
    task = tx.value("SELECT MIN(id) FROM task WHERE batch_id = ? AND state = ?", (row["id"], state))
    return explain(tx, task)["sentence"]


def _silent(row: dict) -> dict:
    at = row["contact_at"]
    return {name: row[name] for name in ("id", "name", "state", "problem")} | {"contact_at": at and iso(at)}


def full_disks(worker: str, stats: object) -> list[dict]:
    """The disks of a worker with little room; one that is mounted at several places is told once."""
    disks = stats.get("disks") if isinstance(stats, dict) else None
    seen, found = set(), []
    for mount, disk in disks.items() if isinstance(disks, dict) else ():
        free, total = (disk.get(name) for name in ("free", "total")) if isinstance(disk, dict) else (None, None)
        if not (isinstance(free, (int, float)) and isinstance(total, (int, float))) or (free, total) in seen:
            continue
        seen.add((free, total))
        if 0 <= free < min(FULL_SHARE * total, FULL_BYTES):
            found.append({"worker": worker, "mount": str(mount), "free_bytes": int(free), "total_bytes": int(total)})
    return found
