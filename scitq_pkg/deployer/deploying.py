"""A deployment: a machine is asked for, and its worker calls; or nothing of it is left.

Killed anywhere it goes on: the machine was written down before, and asked for again by its name it is the one that is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from .. import __version__, choosing, firstboot
from ..auth import hash_token, new_token
from ..cloud.calls import Stopped
from ..cloud.config import AUTO, BOOTED
from ..cloud.provider import BROKEN, CREATING, EVICTED, QUEUED, STOPPED, CloudRefused, CloudTrouble, NoRoom, Order, Start
from ..errors import Conflict, InvalidRequest
from ..onefile import published
from ..protocol import COMING
from ..store import Transaction, jobs, machines, tokens, workers
from .context import WHO
from .hiring import known_flavors
from .work import FAULTS, Work, note_trouble

_MOST_MOVES = 10  # to other places, of one attempt
_PAUSE_SECONDS = 5.0  # before the second attempt; before each later one three times as long
_LOOK_SECONDS = 10.0  # at most between two looks whether the worker has called; `news` makes it look at once


class Deploying(Work):
    """The job `deploy`."""

    def __init__(self, context, job):
        super().__init__(context, job)
        self._moves = 0
        self.seen: Mapping | None = None  # what the provider's list said last of the machine while it was waited for

    def see(self, listed: Mapping[str, Mapping]) -> None:
        """The provider has told what it has, by name."""
        machine = self._machine()
        if machine["state"] == "booting" and machine["name"] in listed:
            self.seen = listed[machine["name"]]
            self.news.set()

    def work(self) -> None:
        while True:
            machine = self._machine()
            try:
                if self._deploy(machine):
                    return
            except FAULTS as error:
                if isinstance(error, Stopped):
                    raise
                if not self._went_elsewhere(machine, error):
                    return
            except (InvalidRequest, Conflict) as error:
                if not self._went_elsewhere(machine, CloudRefused(str(error))):
                    return

    def _machine(self) -> dict:
        return self.context.store.read(lambda tx: machines.order_of(tx, self.machine_id))

    # --- one attempt --------------------------------------------------------------------------------------------------

    def _deploy(self, machine: Mapping) -> bool:
        """True: the job has ended. Raises FAULTS, InvalidRequest, Conflict."""
        if self.context.store.read(lambda tx: _is_shut_out(tx, machine)):
            self._remove(machine)
            self.context.write(lambda tx: machines.replan(tx, machine["id"], machine["message"]))
            machine = self._machine()
        if machine["state"] in ("planned", "creating") and machine["worker"] is not None:
            self.step(10, f"asking {machine['provider']} for {machine['flavor']} in {machine['region']}: {machine['name']}")
            order = self._order(machine)
            if order is not None:
                made = self.seen = self.ask("create", about=machine["name"], order=order)
                self.tell(f"it exists{': ' + made['address'] if made.get('address') else ''}")
                self.context.write(lambda tx: machines.known(tx, machine["id"], made["id"], "booting", made.get("address")))
        return self._wait(machine)

    def _order(self, machine: Mapping) -> dict | None:
        """What to ask for, with a new token; None: the machine is not wanted any more."""
        token = new_token()
        start = self._start(machine, token)
        document = ""
        if self.context.clouds.kind(machine["provider"]) in BOOTED:
            document = firstboot.user_data(start, self.context.clouds.deployment.first_boot)

        def ask(tx: Transaction) -> bool:
            if not machines.asked(tx, machine["id"]):
                return False
            workers.let_in(tx, machine["worker_id"], hash_token(token), WHO)
            return True

        if not self.context.write(ask):
            return None
        plain = {name: getattr(start, name) for name in Start.__slots__}
        order = Order(machine["name"], self.context.tag, machine["flavor"], machine["region"], start, document)
        return {**{name: getattr(order, name) for name in Order.__slots__}, "start": plain}

    def _start(self, machine: Mapping, token: str) -> Start:
        worker, provider = machine["worker"], machine["provider"]
        self.context.clouds.check_name(provider)  # the configuration may be another one by now
        sha256, version = "", __version__
        if self.context.clouds.kind(provider) in BOOTED:
            file = published()
            sha256, version = file.sha256, file.version
        return Start(
            server=self.context.clouds.address(provider, self.context.url), token=token, worker=worker["name"], key=worker["key"],
            concurrency=worker["concurrency"], prefetch=worker["prefetch"], batch=worker["batch"], sha256=sha256, version=version,
            ca=self._authority(),
        )  # fmt: skip

    def _authority(self) -> str | None:
        path = self.context.clouds.deployment.first_boot.get("ca")
        if path is None:
            return None
        try:
            return Path(str(path)).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", field="deployment.ca"
            ) from None

    def _wait(self, machine: Mapping) -> bool:
        """Until its worker has called. True: the job has ended."""
        seconds = self.context.clouds.deployment.boot_timeout
        deadline, said = time.monotonic() + seconds, None
        while True:
            self.news.clear()
            if not self._is_coming() and self.context.write(self._end_if_settled):
                return True
            self._check_seen(machine)
            queued = self._queued()
            if queued is not None:
                deadline = time.monotonic() + seconds
            what = queued or f"waiting for worker {machine['worker']['name']} to call"
            if what != said:
                self.step(60, what)
                said = what
            if time.monotonic() > deadline:
                raise CloudTrouble(f"its worker has not called within {seconds:g} s of its creation")
            if self.stopped.is_set():
                raise Stopped("it was stopped")
            self.news.wait(min(_LOOK_SECONDS, max(0.01, deadline - time.monotonic())))

    def _is_coming(self) -> bool:
        machine = self._machine()
        return machine["state"] in COMING and machine["worker"] is not None

    def _end_if_settled(self, tx: Transaction) -> bool:
        machine = machines.order_of(tx, self.machine_id)
        if machine["state"] in COMING and machine["worker"] is not None:
            return False
        if machine["state"] == "up":
            jobs.write_log(tx, self.id, [f"worker {machine['worker']['name']} is up"], 100)
            jobs.finish(tx, self.id, self.owner, "succeeded")
        elif machine["state"] in ("evicted", "gone"):
            jobs.finish(tx, self.id, self.owner, "failed", machine["message"] or "its machine is gone")
        else:  # it is being destroyed
            self._end_if_canceled(tx)
            jobs.finish(tx, self.id, self.owner, "canceled", "its machine is being destroyed")
        return True

    def _queued(self) -> str | None:
        """A machine that waits for its turn at its provider takes as long as it takes: what it waits for."""
        seen = self.seen or {}
        return seen["message"] if QUEUED in seen.get("extra", ()) else None

    def _check_seen(self, machine: Mapping) -> None:
        seen = self.seen
        if seen is not None and seen["state"] in (BROKEN, STOPPED, EVICTED):
            self.seen = None
            why = f": {seen['message']}" if seen.get("message") else ""
            kind = NoRoom if seen["state"] == EVICTED else CloudTrouble
            raise kind(f"{machine['name']} is {seen['state']} at {machine['provider']}{why}")

    # --- when it fails ------------------------------------------------------------------------------------------------

    def _went_elsewhere(self, machine: Mapping, error: Exception) -> bool:
        """Cleans up; True: there is another place to try at once. Otherwise the job has ended, or waits for another attempt."""
        self.tell(str(error))
        self.flush()
        self.seen = None
        if not self.context.write(self._shut_out):
            self.context.write(self._end_if_settled)
            return False
        machine = self._machine()
        clean = self._cleaned(machine)
        if not isinstance(error, CloudTrouble):
            self.context.rest(machine)
        if isinstance(error, NoRoom) and clean and self._moves < _MOST_MOVES:
            self._moves += 1
            place = self.context.store.read(lambda tx: self._next_place(tx, machine))
            if place is not None:
                return self._moved(machine, place, str(error))
        if isinstance(error, CloudTrouble) and self.job["attempt"] <= self.job["retry"]:
            self.context.write(lambda tx: self._again(tx, clean, error))
        else:
            self.context.rest(machine)
            self.context.write(lambda tx: self._fail(tx, clean, error))
        return False

    def _shut_out(self, tx: Transaction) -> bool:
        """From now on its worker cannot call any more. False: it has, or is not wanted any more."""
        machine = machines.order_of(tx, self.machine_id)
        if machine["state"] not in COMING or machine["worker"] is None:
            return False
        tokens.revoke_of_worker(tx, machine["worker_id"])
        return True

    def _remove(self, machine: Mapping) -> None:
        """Raises FAULTS."""
        self.step(5, "removing what is left of it")
        self.ask("delete", about=machine["name"], machine=machine_of(machine))

    def _cleaned(self, machine: Mapping) -> bool:
        """Whether nothing of the attempt is left at the provider. Raises Stopped."""
        if machine["asked_at"] is None:
            return True
        try:
            self._remove(machine)
            return True
        except FAULTS as error:
            if isinstance(error, Stopped):
                raise
            self.tell(f"what is left of it cannot be removed now: {error}")
            return False

    def _next_place(self, tx: Transaction, machine: Mapping) -> dict | None:
        wish = machine["wish"]
        words = [wish.get(name) or AUTO for name in ("provider", "region", "flavor")]
        if not any(word == AUTO or word.startswith(f"{AUTO}:") for word in words):
            return None
        tried = [*wish.get("tried", ()), (machine["provider"], machine["region"], machine["flavor"])]
        found = choosing.candidates(wish, known_flavors(tx, self.context, wish), self.context.clouds.regions, tried)
        return _place(found[0], wish) if found else None

    def _moved(self, machine: Mapping, place: Mapping, why: str) -> bool:
        new = self.context.write(lambda tx: machines.replan(tx, machine["id"], why, place))
        if new is None:
            self.context.write(self._end_if_settled)
            return False
        self.machine_id, self.provider = new, place["provider"]
        self.step(5, f"trying {place['flavor']} in {place['region']} of {place['provider']} instead")
        return True

    def _again(self, tx: Transaction, clean: bool, error: CloudTrouble) -> None:
        note_trouble(tx, self.provider, error)
        if clean and machines.replan(tx, self.machine_id, str(error)) is None:
            self._end_if_settled(tx)
            return
        pause = _PAUSE_SECONDS * 3 ** (self.job["attempt"] - 1)
        jobs.write_log(tx, self.id, [f"another attempt in {pause:g} s"])
        jobs.again(tx, self.id, self.owner, tx.now + pause, str(error))

    def _fail(self, tx: Transaction, clean: bool, error: Exception) -> None:
        if tx.value("SELECT canceled_by FROM job WHERE id = ?", (self.id,)) is not None:
            self._end_if_canceled(tx)
            return
        jobs.finish(tx, self.id, self.owner, "failed", str(error))
        if clean:
            machines.gone(tx, self.machine_id, str(error))
        else:
            machines.destroy(tx, self.machine_id, WHO)


def _is_shut_out(tx: Transaction, machine: Mapping) -> bool:
    """Whether an attempt before gave it up and could not remove it, or was killed before: what is there has no token that is let
    in.
    """
    there = machine["state"] in ("creating", "booting") and machine["worker"] is not None
    return there and not tokens.has_any(tx, machine["worker_id"])


def machine_of(row: Mapping) -> dict:
    """What a provider is told of a machine of the table: the fields of `cloud.provider.Machine`."""
    told = {"name": row["name"], "region": row["region"], "state": CREATING, "id": row["provider_id"]}
    return {**told, "flavor": row["flavor"], "address": row["address"]}


def _place(flavor: Mapping, wish: Mapping) -> dict:
    """Where a machine is to be made, of a flavor of the catalogue."""
    place = {name: flavor[name] for name in ("provider", "region", "price", "currency")}
    return {**place, "flavor": flavor["name"], "concurrency": wish.get("concurrency") or flavor["cpu"] or 1}
