"""What a provider has, compared with what is written down here: each provider by itself, at the start and every few minutes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from ..cloud.calls import Call, Stopped
from ..cloud.provider import BROKEN, SILENT, STOPPED
from ..store import Transaction, machines, providers
from .context import WHO, Context, hides
from .work import FAULTS, note_trouble

log = logging.getLogger(__name__)

BOOTING_SECONDS = 30.0  # between two looks while a machine of the provider boots
LEAVING_SECONDS = 10.0  # while one is being taken away, or stands still
TROUBLE_SECONDS = 60.0  # after one that failed
_LEFT_OUT = "its region or host is not in the configuration any more: nobody looks whether it is there"
QUIET_SECONDS = 30.0  # silence of a worker after which its machine, which stands still, is given up


class Look:
    """A look at one provider, in a thread of its own. `seen` gets what it lists, by name."""

    def __init__(self, context: Context, provider: str, seen: Callable[[str, dict[str, Mapping]], None]):
        self.provider = provider
        self._context, self._seen = context, seen
        self.failed = False
        self._call: Call | None = None
        self._stopped = False
        self.thread = threading.Thread(target=self._run, name=f"look at {provider}", daemon=True)

    def stop(self) -> None:
        """Ends it."""
        self._stopped = True
        if (call := self._call) is not None:
            call.stop()

    def _run(self) -> None:
        try:
            asked_at = time.time()
            self._call = self._context.call(self.provider, "list", lambda line: log.info("%s: %s", self.provider, line))
            if self._stopped:
                return
            listed = self._call.answer()
            clouds = self._context.clouds
            self._context.write(
                lambda tx: reconcile(tx, self.provider, listed, asked_at, clouds.deployment.destroy_unknown, clouds.looks_at)
            )
            self._context.heard(self.provider, [machine for machine in listed if machine["state"] == SILENT])
            self._seen(self.provider, {machine["name"]: machine for machine in listed})
        except Stopped:
            self.failed = True
        except FAULTS as error:
            self.failed = True
            self._note(error)
        except Exception:  # a fault of ours: the next look may do better
            self.failed = True
            log.exception("the look at %s", self.provider)

    def _note(self, error: Exception) -> None:
        self._context.heard(self.provider, None)
        try:
            self._context.write(lambda tx: note_trouble(tx, self.provider, error))
        except Stopped:  # the server stops
            return


def reconcile(
    tx: Transaction, provider: str, listed: Iterable[Mapping], asked_at: float, destroy_unknown: bool,
    looks_at: Callable[[Mapping], bool] = lambda row: True,
) -> None:  # fmt: skip
    """Bring what is written down in line with what a provider told when it was asked at `asked_at`.

    Where a part of it was silent, or is not looked at any more (`looks_at`), nothing counts as vanished.
    """
    listed = list(listed)
    silent = [machine for machine in listed if machine["state"] == SILENT]
    there = [machine for machine in listed if machine["state"] != SILENT]
    names = {machine["name"] for machine in there}
    missing = [row for row in machines.ours(tx, provider) if row["name"] not in names]
    left_out = [row for row in missing if not looks_at(row)]
    hidden = left_out + [row for row in missing if row not in left_out and _is_hidden(row, silent)]
    for row in left_out:
        tx.run("UPDATE machine SET message = ? WHERE id = ?", (_LEFT_OUT, row["id"]))
    found = machines.reconcile(tx, provider, [*there, *map(_as_it_was, hidden)], asked_at)
    if silent:
        others = f"; nor do {len(silent) - 1} other parts of it answer" if len(silent) > 1 else ""
        providers.trouble(tx, provider, (silent[0].get("message") or "a part of it does not answer") + others)
    else:
        providers.told(tx, provider)
    for machine_id in found["unknown"]:
        if destroy_unknown or machines.was_to_go(tx, machine_id):
            machines.destroy(tx, machine_id, WHO)
    _give_up_dead(tx, provider, there)


def _is_hidden(row: Mapping, silent: Iterable[Mapping]) -> bool:
    return any(hides(part, row["region"], row["flavor"]) for part in silent)


def _as_it_was(row: Mapping) -> dict:
    return {"name": row["name"], "region": row["region"], "state": row["state"], "id": None, "address": None}


def _give_up_dead(tx: Transaction, provider: str, listed: Iterable[Mapping]) -> None:
    """Machines that stand still and will not come back by themselves: what they ran is lost, and they are removed.

    A permanent worker's machine stays, for a person to look at, unless its provider takes it away.
    """
    dead = {machine["name"]: machine for machine in listed if machine["state"] in (STOPPED, BROKEN)}
    for row in machines.ours(tx, provider):
        if row["name"] in dead and row["state"] in ("up", "evicted") and not row["unknown"] and _is_given_up(tx, row):
            why = dead[row["name"]].get("message") or dead[row["name"]]["state"]
            log.warning("machine %s of %s is given up: %s", row["name"], provider, why)
            tx.run("UPDATE machine SET message = ? WHERE id = ?", (why, row["id"]))
            machines.destroy(tx, row["id"], WHO)


def _is_given_up(tx: Transaction, row: Mapping) -> bool:
    if row["state"] == "evicted":
        return True
    worker = tx.one("SELECT permanent, contact_at FROM worker WHERE id = ? AND deleted_at IS NULL", (row["worker_id"],))
    if worker is None:
        return True
    return not worker["permanent"] and (worker["contact_at"] or 0.0) < tx.now - QUIET_SECONDS


class Rounds:
    """When each provider is looked at next, by a monotonic clock."""

    def __init__(self, every: float):
        self._every = every
        self._due: dict[str, float] = {}

    def due(self, provider: str, now: float) -> bool:
        """Whether it is time; the first time it is."""
        return now >= self._due.get(provider, float("-inf"))

    def began(self, provider: str, now: float, states: Iterable[str]) -> None:
        """A look begins; `states` are those of its machines, which say when the next one is wanted."""
        self._due[provider] = now + self._every
        self.hasten(provider, now, states)

    def hasten(self, provider: str, now: float, states: Iterable[str]) -> None:
        """What is on the move is looked at more often."""
        states = set(states)
        if states & {"creating", "booting"}:
            self._at_most(provider, now + BOOTING_SECONDS)
        if "evicted" in states:
            self._at_most(provider, now + LEAVING_SECONDS)

    def failed(self, provider: str, now: float) -> None:
        self._at_most(provider, now + TROUBLE_SECONDS)

    def soon(self, provider: str, now: float) -> None:
        """Something there stands still."""
        self._at_most(provider, now + LEAVING_SECONDS)

    def _at_most(self, provider: str, at: float) -> None:
        self._due[provider] = min(self._due.get(provider, at), at)
