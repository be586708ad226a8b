"""The part of the deciding server that deals with providers: a thread that takes jobs, recruits, and compares what is there with
what is written down. It never asks a provider itself: whatever hangs, scheduling and the other providers go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ..cloud.config import Clouds
from ..recruiting import Homesick
from ..store import Store, Transaction, jobs, machines, providers
from . import hiring, ordering
from .context import WHO, Context
from .deploying import Deploying
from .destroying import Cataloguing, Destroying
from .reconciling import Look, Rounds
from .work import Work

log = logging.getLogger(__name__)

PASS_SECONDS = 0.3  # at least between two passes: under load the database changes all the time
TICK_SECONDS = 1.0  # at most
FORGET_SECONDS = 600.0  # between two looks for what is so old that nobody asks for it
CATALOGUE_SECONDS = 86400.0  # after which a provider is asked again for its flavors
_MOST_JOBS = 200  # that run at once; most of them wait for machines that boot
_STOP_SECONDS = 1.0
_AGAIN_SECONDS = 10.0
_REST_SHARE, _MOST_REST_SECONDS = 100.0, 10.0  # after catalogues were searched in vain: so many times as long as that took
_KINDS = {"deploy": Deploying, "destroy": Destroying, "flavors": Cataloguing}


class Deployer:
    """One for each server process; it works while this process decides."""

    def __init__(self, store: Store, clouds: Clouds, server_id: str, url: str, data: Path):
        """`url`: by which the server is reached on its own machine."""
        self.context = Context(store, clouds, f"scitq-{server_id}", url, data)
        self._works: dict[int, Work] = {}
        self._looks: dict[str, Look] = {}
        self._rounds = Rounds(clouds.deployment.reconcile)
        self._patience = hiring.Patience()
        self._hire_at = float("-inf")
        self._idle = Homesick(clouds.deployment.idle)
        self._restless = hiring.Restless(clouds.deployment.idle)
        self._forget_at = float("-inf")
        self._led = False
        self._thread = threading.Thread(target=self._run, name="deployer", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Let go of everything; what was begun goes on when a server starts again."""
        self.context.stopping.set()
        self.context.store.changes.bump()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        self._let_go()

    # --- what the API asks --------------------------------------------------------------------------------------------

    def order(self, wish: Mapping, number: int) -> list[dict]:
        """See `ordering.order`."""
        return ordering.order(self.context, wish, number)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        changes, stopping = self.context.store.changes, self.context.stopping
        version = -1
        while not stopping.is_set():
            try:
                if self.context.store.leads:
                    self._pass()
                elif self._led:
                    self._led = False
                    self._let_go()
            except Exception as error:  # noqa: BLE001 - a database that is away must not end it
                log.warning("the deployer goes on after: %s", error)
            stopping.wait(PASS_SECONDS)
            version = changes.wait(version, TICK_SECONDS - PASS_SECONDS)

    def _pass(self) -> None:
        context = self.context
        if not self._led:
            context.lead()
            context.store.write(self._begin)
            self._led = True
        now = time.monotonic()
        self._works = {job_id: work for job_id, work in self._works.items() if work.thread.is_alive()}
        sight = context.store.read(lambda tx: _Sight(tx, context))
        for step in (self._take, self._heed, self._look, self._hire, self._clear, self._forget):
            try:
                step(sight, now)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others must go on
                log.warning("the deployer goes on after: %s", error)

    def _begin(self, tx: Transaction) -> None:
        jobs.orphans(tx, self.context.owner)
        clouds = self.context.clouds
        jobs.forget_others(tx, clouds.providers)
        for provider in providers.configured(tx, clouds.sums()):  # its prices or regions may be others
            if provider not in clouds.implied:
                jobs.add(tx, "flavors", provider, WHO)

    def _let_go(self) -> None:
        for work in list(self._works.values()):
            work.stop()
        for look in list(self._looks.values()):
            look.stop()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _take(self, sight: _Sight, _now: float) -> None:
        for job_id in sight.running - self._works.keys():  # no thread could be started for it, or its end could not be written
            self.context.store.write(lambda tx, job_id=job_id: self._put_back(tx, job_id))
        room = _MOST_JOBS - len(self._works)
        if not sight.due or room <= 0:
            return
        each = max(1, _MOST_JOBS // len(self.context.clouds.providers))
        for job in self.context.store.write(lambda tx: jobs.take(tx, self.context.owner, room, each)):
            work = _KINDS[job["kind"]](self.context, job)
            self._works[work.id] = work
            work.thread.start()

    def _put_back(self, tx: Transaction, job_id: int) -> None:
        jobs.again(tx, job_id, self.context.owner, tx.now + _AGAIN_SECONDS, "it was interrupted")

    def _heed(self, sight: _Sight, _now: float) -> None:
        """Jobs learn what happened to them and to their machines."""
        for job_id, work in self._works.items():
            work.flush()
            if job_id in sight.canceled:
                work.stop()
            if isinstance(work, Deploying) and sight.states.get(work.machine_id) not in ("creating", "booting"):
                work.news.set()

    # --- providers ----------------------------------------------------------------------------------------------------

    def _look(self, sight: _Sight, now: float) -> None:
        for provider in [name for name, look in self._looks.items() if not look.thread.is_alive()]:
            if self._looks.pop(provider).failed:
                self._rounds.failed(provider, now)
        for provider, states in sight.watched.items():
            self._rounds.hasten(provider, now, states)
            if provider not in self._looks and self._rounds.due(provider, now):
                self._rounds.began(provider, now, states)
                look = self._looks[provider] = Look(self.context, provider, self._seen)
                look.thread.start()

    def _seen(self, provider: str, listed: dict[str, Mapping]) -> None:
        """A look has ended: who waits for a machine is told how it stands with it. Called in its thread."""
        for work in list(self._works.values()):
            if isinstance(work, Deploying) and work.provider == provider:
                work.see(listed)
        if any(machine["state"] in ("stopped", "broken") for machine in listed.values()):
            self._rounds.soon(provider, time.monotonic())

    # --- workers ------------------------------------------------------------------------------------------------------

    def _hire(self, sight: _Sight, now: float) -> None:
        if now < self._hire_at:
            return
        wants = self.context.store.read(lambda tx: hiring.wants(tx, self.context)) if sight.recruits else []
        batches = self._patience.over((want["recruiter"]["batch_id"] for want in wants), now)
        if batches and not self.context.store.write(lambda tx: hiring.recruit(tx, self.context, batches)):
            self._hire_at = now + min(_MOST_REST_SECONDS, _REST_SHARE * (time.monotonic() - now))

    def _clear(self, sight: _Sight, now: float) -> None:
        """Machines that nobody needs any more, and catalogues that are old."""
        due = self._idle.due(sight.idle, now)
        due += self._ran_nothing(self._restless.due(sight.idle, sight.states, sight.newest, now), due)
        if due:
            self.context.store.write(lambda tx: hiring.destroy_idle(tx, due))
        if sight.left_behind:
            self.context.store.write(lambda tx: [machines.destroy(tx, machine_id, WHO) for machine_id in sight.left_behind])
        if sight.outdated:
            self.context.store.write(lambda tx: [jobs.add(tx, "flavors", provider, WHO) for provider in sight.outdated])

    def _ran_nothing(self, over: Mapping[int, int], due: list[int]) -> list[int]:
        """Those of the restless ones, with what was the newest execution, that have run nothing since."""
        found = []
        for machine_id, newest in over.items():
            if machine_id in due:
                continue
            if self.context.store.read(lambda tx, one=machine_id, newest=newest: hiring.has_run(tx, one, newest)):
                self._restless.begin_anew(machine_id)
            else:
                found.append(machine_id)
        return found

    def _forget(self, _sight: _Sight, now: float) -> None:
        """Rows of what ended long ago, a few at a time: others want to write too."""
        if now < self._forget_at:
            return
        self._forget_at = now + FORGET_SECONDS
        store = self.context.store
        gone = store.read(machines.forgettable)
        if gone:
            store.write(lambda tx: machines.forget_old(tx, gone))
        if store.write(jobs.forget_old) + len(gone) >= jobs.FORGOTTEN_AT_ONCE:
            self._forget_at = now


class _Sight:
    """What a pass reads, in one snapshot."""

    def __init__(self, tx: Transaction, context: Context):
        due = jobs.next_due(tx)
        self.due = due is not None and due <= tx.now
        self.canceled = set(jobs.canceled_of(tx, context.owner))
        there = machines.there(tx)
        self.states = {row["id"]: row["state"] for row in there}
        self.watched: dict[str, list[str]] = {
            name: [] for name in context.clouds.providers if name not in context.clouds.implied
        }
        for name, row in providers.all_of(tx).items():
            if row["trouble"] and name in context.clouds.providers:
                self.watched.setdefault(name, [])
        for row in there:
            self.watched.setdefault(row["provider"], []).append(row["state"])
        self.running = set(tx.column("SELECT id FROM job WHERE state = 'running' AND owner = ?", (context.owner,)))
        self.recruits = tx.value("SELECT 1 FROM recruiter WHERE provider IS NOT NULL LIMIT 1") is not None
        self.idle = hiring.idle(tx) if there else []
        self.newest = (tx.value("SELECT MAX(id) FROM execution") or 0) if self.idle else 0
        self.left_behind = hiring.left_behind(tx) if set(self.states.values()) - {"up"} else []
        self.outdated = _outdated(tx, context)


def _outdated(tx: Transaction, context: Context) -> list[str]:
    """Configured providers whose flavors were not asked for lately, whether they answered or not."""
    asked = set(tx.column(  # jobs of no machine: there are few of them, and many others
        "SELECT provider FROM job WHERE machine_id IS NULL AND kind = 'flavors' AND created_at > ?", (tx.now - 3600.0,)
    ))  # fmt: skip
    since = tx.now - CATALOGUE_SECONDS
    return [
        name for name in context.clouds.providers if name not in asked | context.clouds.implied
        and tx.value("SELECT 1 FROM flavor WHERE provider = ? AND updated_at > ? LIMIT 1", (name, since)) is None
    ]  # fmt: skip


__all__ = ["Deployer"]
