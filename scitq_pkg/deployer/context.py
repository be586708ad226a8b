"""What everything in this room shares: the store, the providers, who asks them, and how many questions there are at once."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..cloud.calls import DEADLINES, Call, Stopped
from ..cloud.config import Clouds
from ..cloud.provider import CloudRefused
from ..errors import InvalidRequest, ScitqError
from ..store import Store, Transaction

log = logging.getLogger(__name__)

Result = TypeVar("Result")

WHO = "deployer"  # its name in the event log
REST_SECONDS = 300.0  # for which nobody is recruited where there was no room, or where a machine could not be made
_AGAIN_SECONDS = 1.0  # between two tries to write what the database did not take


class Gate:
    """How many questions are asked at once, in all and of one provider: one that hangs leaves room for the others."""

    def __init__(self, most: int, each: int):
        self._most, self._each = most, each
        self._changed = threading.Condition()
        self._asking: dict[str, int] = {}

    @contextlib.contextmanager
    def turn(self, provider: str, stopped: threading.Event) -> Iterator[None]:
        """Waits for a turn. Raises Stopped."""
        with self._changed:
            while not self._is_open(provider):
                if stopped.is_set():
                    raise Stopped(f"provider {provider} is not asked any more")
                self._changed.wait(1.0)
            self._asking[provider] = self._asking.get(provider, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._asking[provider] -= 1
                self._changed.notify_all()

    def _is_open(self, provider: str) -> bool:
        return sum(self._asking.values()) < self._most and self._asking.get(provider, 0) < self._each

    def knock(self) -> None:
        """Those who wait look whether they are stopped."""
        with self._changed:
            self._changed.notify_all()


@dataclass
class Context:
    """Made once, when the server starts."""

    store: Store
    clouds: Clouds
    tag: str  # of this server's machines
    url: str  # by which this server is reached on its own machine
    data: Path
    owner: str = ""  # this process since it began to lead, in the rows of jobs
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate = Gate(self.clouds.deployment.concurrency, self.clouds.per_provider)
        # Whose people wait: no job holds them up.
        self.orders = Gate(self.clouds.deployment.concurrency, self.clouds.per_provider)
        self._resting: dict[tuple, float] = {}
        self._silent: dict[str, Sequence[Mapping]] = {}
        self._lock = threading.Lock()

    def lead(self) -> None:
        """A new name in the rows of jobs: those of before are taken up anew, whoever ran them."""
        self.owner = os.urandom(8).hex()

    # --- asking -------------------------------------------------------------------------------------------------------

    def call(
        self, provider: str, call: str, tell: Callable[[str], None], seconds: float | None = None, about: str | None = None,
        **arguments,
    ) -> Call:  # fmt: skip
        """A question that is yet to be asked; `about`: the name of a machine, of which no two are asked at once.

        Raises CloudRefused for a provider that is configured no more.
        """
        if provider not in self.clouds.providers:
            raise CloudRefused(
                f"provider {provider} is not in the configuration any more: put it back, or remove by hand what it has"
            )
        question = {"provider": provider, "config": dict(self.clouds.providers[provider]), "tag": self.tag, "call": call}
        if about is not None:
            question["lock"] = str(self.data / "asking" / f"{about}.lock")
        return Call({**question, "arguments": arguments}, tell, DEADLINES[call] if seconds is None else seconds)

    # --- the database -------------------------------------------------------------------------------------------------

    def write(self, change: Callable[[Transaction], Result]) -> Result:
        """`store.write`, again and again as long as the database does not take it. Raises Stopped when the server stops."""
        while True:
            try:
                return self.store.write(change)
            except InvalidRequest:
                raise
            except ScitqError as error:
                if error.http_status < 500:
                    raise
                log.warning("the deployer waits: %s", error)
                if self.stopping.wait(_AGAIN_SECONDS):
                    raise Stopped("the server stops") from None

    # --- where nothing can be had for the moment -----------------------------------------------------------------------

    def rest(self, machine: Mapping) -> None:
        """Nobody is recruited there for a while."""
        with self._lock:
            self._resting[_place(machine)] = time.monotonic() + REST_SECONDS

    def resting(self) -> list[tuple]:
        """(provider, region, flavor) where nobody is recruited now."""
        with self._lock:
            now = time.monotonic()
            self._resting = {place: until for place, until in self._resting.items() if until > now}
            return list(self._resting)

    def heard(self, provider: str, silent: Sequence[Mapping] | None) -> None:
        """A provider was looked at: the parts of it that were `silent` (`region`, and `flavor` where it is one host); None: all
        of it.
        """
        with self._lock:
            if silent:
                self._silent[provider] = silent
            else:
                self._silent.pop(provider, None)

    def answers(self, troubled: Container[str], flavor: Mapping) -> bool:
        """Whether a flavor can be asked for, where these providers are in trouble: in those that told which part of them is,
        elsewhere.
        """
        with self._lock:
            parts = self._silent.get(flavor["provider"])
        if parts is None:
            return flavor["provider"] not in troubled
        return not any(hides(part, flavor["region"], flavor["name"]) for part in parts)


def hides(part: Mapping, region: str, flavor: str | None) -> bool:
    """Whether a part of a provider that was silent (`provider.SILENT`) is the one with this region and flavor."""
    return part["region"] == region and part.get("flavor") in (None, flavor)


def _place(machine: Mapping) -> tuple:
    return machine["provider"], machine["region"], machine["flavor"]
