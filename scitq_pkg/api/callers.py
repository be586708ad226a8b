"""Who calls: the tokens are few and kept here, so that a good one is always let in; guessing others is slowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..auth import hash_token
from ..errors import NotAuthenticated, TooManyRequests

FRESH_SECONDS = 10.0  # a token that another server process revoked is refused after so long
FAILURES = 20  # wrong tokens of one address at once...
FAILURES_PER_SECOND = 0.5  # ...and this many after that
ADDRESSES = 10_000


@dataclass(frozen=True)
class Caller:
    """Whom a token stands for."""

    name: str
    role: str
    worker_id: int | None = None
    token_id: int | None = None


class Callers:
    """The callers by the hashes of their tokens, and the addresses that guess."""

    def __init__(
        self,
        load: Callable[[], dict[str, Caller]],
        lookup: Callable[[str], Caller | None],
        clock: Callable[[], float] = time.monotonic,
    ):
        """`load()` gives all that the database has, `lookup(hash)` one."""
        self._load = load
        self._lookup = lookup
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Caller] = {}
        self._loaded: float | None = None
        self._guesses: dict[str, tuple[float, float]] = {}  # address -> (failures not yet forgiven, when)

    def of_token(self, token: str, address: str) -> Caller:
        """The caller a token stands for. Raises NotAuthenticated, TooManyRequests for an address that guesses."""
        key = hash_token(token)
        caller = self._fresh().get(key)
        if caller is None:
            self._refuse_guesser(address)
            caller = self._lookup(key)  # another server process may have made it just now
        if caller is None:
            self._note_failure(address)
            raise NotAuthenticated("this token is not known here, or was revoked: ask the administrator of this server for one")
        return caller

    def knows(self, caller: Caller) -> bool:
        """Whether the token that stood for this caller still does."""
        return caller in self._fresh().values()

    def forget(self) -> None:
        """Tokens changed: ask the database again."""
        self._loaded = None

    def _fresh(self) -> dict[str, Caller]:
        loaded, now = self._loaded, self._clock()
        if loaded is None or now - loaded > FRESH_SECONDS:
            self._loaded = now  # before it is read: what changes meanwhile is read again
            self._known = self._load()
        return self._known

    def _failures(self, address: str) -> float:
        count, when = self._guesses.get(address, (0.0, 0.0))
        return max(0.0, count - (self._clock() - when) * FAILURES_PER_SECOND)

    def _refuse_guesser(self, address: str) -> None:
        with self._lock:
            if self._failures(address) > FAILURES - 1:
                raise TooManyRequests("too many wrong tokens came from this address: wait a few seconds, and check the token")

    def _note_failure(self, address: str) -> None:
        with self._lock:
            if len(self._guesses) >= ADDRESSES:
                self._guesses.clear()
            self._guesses[address] = (self._failures(address) + 1, self._clock())
