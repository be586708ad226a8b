"""Jobs that destroy machines, and that ask providers for their flavors."""

from __future__ import annotations

from ..cloud.calls import Stopped
from ..errors import ScitqError
from ..store import Transaction, flavors, jobs, machines, providers
from .context import WHO
from .deploying import machine_of
from .work import FAULTS, Work, note_trouble

_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 5.0, 600.0


class Destroying(Work):
    """The job `destroy`: it never gives up, for what it cannot remove costs money."""

    def work(self) -> None:
        machine = self.context.store.read(lambda tx: machines.order_of(tx, self.machine_id))
        if machine["state"] != "gone":
            self.step(20, f"removing {machine['name']} from {machine['provider']}")
            try:
                self.ask("delete", about=machine["name"], machine=machine_of(machine))
            except FAULTS as error:
                if isinstance(error, Stopped):
                    raise
                self._later(error)
                return
        self.tell("it is gone")
        self.flush()
        self.context.write(self._end)

    def _end(self, tx: Transaction) -> None:
        machines.gone(tx, self.machine_id, "destroyed")
        jobs.finish(tx, self.id, self.owner, "succeeded")

    def _later(self, error: Exception) -> None:
        pause = min(_MOST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self.job["attempt"] - 1, 10))
        self.tell(f"{error}; another attempt in {pause:g} s")
        self.flush()

        def change(tx: Transaction) -> None:
            note_trouble(tx, self.provider, error)
            jobs.again(tx, self.id, self.owner, tx.now + pause, str(error))

        self.context.write(change)


class Cataloguing(Work):
    """The job `flavors`: what a provider has, for which price."""

    def work(self) -> None:
        self.step(10, f"asking {self.provider} for its flavors")
        try:
            found = self.ask("flavors")
        except FAULTS as error:
            if isinstance(error, Stopped):
                raise
            self.flush()
            self._fail(error)
            return
        self.tell(f"{len(found)} flavor{'s' * (len(found) != 1)}")
        self.flush()
        self.context.write(lambda tx: self._keep(tx, found))

    def _fail(self, error: ScitqError) -> None:
        def change(tx: Transaction) -> None:
            note_trouble(tx, self.provider, error)
            self._finish(tx, "failed", str(error))

        self.context.write(change)

    def _keep(self, tx: Transaction, found: list[dict]) -> None:
        flavors.replace(tx, self.provider, found, WHO)
        providers.told(tx, self.provider)
        self._finish(tx, "succeeded")

    def _finish(self, tx: Transaction, state: str, message: str | None = None) -> None:
        jobs.finish(tx, self.id, self.owner, state, message)
