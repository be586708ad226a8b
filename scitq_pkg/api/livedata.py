"""The rows that a page which is open shows: batches with their pace, workers with what matters of their statistics, jobs."""

from __future__ import annotations

import math
import time

from .. import __version__
from ..store import Store, Transaction, batches, jobs, workers
from .answers import iso, with_iso_times
from .pace import Pace

MOST_BATCHES = 5000  # the newest
MOST_WORKERS = 10_000
MOST_JOBS = 500  # the newest


class LiveData:
    """Reads the rows; counts are read again only when something changed."""

    def __init__(self, store: Store, server_id: str):
        self._store = store
        self._server_id = server_id
        self._pace = Pace()
        self._counted: tuple[int, list[dict], list[dict]] | None = None

    def read(self) -> dict:
        """`version`, `batches` by name, `workers` and `jobs` by id, `server`."""
        version = self._store.changes.version
        return self._store.read(lambda tx: self._read(tx, version))

    def _read(self, tx: Transaction, version: int) -> dict:
        if self._counted is None or self._counted[0] != version:
            newest = jobs.find(tx, {}, MOST_JOBS, None, descending=True)
            self._counted = (version, batches.find(tx, MOST_BATCHES, None, descending=True), newest)
        rows, newest = self._counted[1:]
        present = workers.find(tx, {}, MOST_WORKERS, None, descending=False)
        if self._pace.is_due(tx.now):
            self._pace.look(tx, rows)
        slots = slots_of(present)
        return {
            "version": version,
            "batches": {row["name"]: self._batch(row, slots.get(row["name"], 0), tx.now) for row in reversed(rows)},
            "workers": {row["id"]: worker_row(row) for row in present},
            "jobs": {row["id"]: with_iso_times(row) for row in reversed(newest)},
            "server": about(self._store, self._server_id, _sum(rows)),
        }

    def _batch(self, row: dict, slots: int, now: float) -> dict:
        return with_iso_times(_in_cents(row) | {"slots": slots} | self._pace.of(row, slots, now))


def about(store: Store, server_id: str, counts: dict[str, int]) -> dict:
    """What a server says of itself."""
    return {
        "version": __version__,
        "id": server_id,
        "database": store.database.kind,
        "decides": store.leads,
        "time_at": iso(time.time()),
        "counts": counts,
    }


def slots_of(workers: list[dict]) -> dict[str, int]:
    """Run slots by batch, of the workers that take work."""
    found: dict[str, int] = {}
    for row in workers:
        if row["state"] == "online":
            found[row["batch"]] = found.get(row["batch"], 0) + row["concurrency"]
    return found


def _sum(rows: list[dict]) -> dict[str, int]:
    total: dict[str, int] = {}
    for row in rows:
        for state, count in row["counts"].items():
            total[state] = total.get(state, 0) + count
    return total


# --- workers -----------------------------------------------------------------------------------------------------------------


def worker_row(row: dict) -> dict:
    """A worker as pages show it: of its statistics what they draw."""
    return with_iso_times(_in_cents(row | {"stats": measures(row["stats"])}))


def _in_cents(row: dict) -> dict:
    """Its cost to two digits: with more it would be news at every look."""
    return row if row["cost"] is None else row | {"cost": round(row["cost"], 2)}


def measures(stats: object) -> dict | None:
    """The numbers among a worker's statistics, in bytes and percent; what it did not tell, or not as a number, is None."""
    if not isinstance(stats, dict):
        return None
    memory, network, disk = _part(stats, "memory"), _part(stats, "network"), _scratch(stats)
    gpus = stats.get("gpus")
    load = stats.get("load")
    return {
        "load1": _number(load[0]) if isinstance(load, list) and load else None,
        "cpu_percent": _number(stats.get("cpu_percent")),
        "memory_used": _less(memory.get("total"), memory.get("available")),
        "memory_total": _number(memory.get("total")),
        "disk_used": _less(disk.get("total"), disk.get("free")),
        "disk_total": _number(disk.get("total")),
        "received": _number(network.get("received_per_second")),
        "sent": _number(network.get("sent_per_second")),
        "gpus": [_gpu(gpu) for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else [],
    }


def _part(stats: dict, name: str) -> dict:
    found = stats.get(name)
    return found if isinstance(found, dict) else {}


def _scratch(stats: dict) -> dict:
    """The disk of the scratch directory: a worker tells it last."""
    disks = list(_part(stats, "disks").values())
    return disks[-1] if disks and isinstance(disks[-1], dict) else {}


def _gpu(gpu: dict) -> dict:
    return {
        "name": str(gpu.get("name", "")),
        **{name: _number(gpu.get(name)) for name in ("percent", "memory_used", "memory_total")},
    }


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else None


def _less(total: object, free: object) -> float | None:
    whole, rest = _number(total), _number(free)
    return None if whole is None or rest is None else max(0, whole - rest)
