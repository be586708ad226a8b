"""Who calls: tokens are looked up once and remembered for a while; guessing them is slowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..auth import hash_token
from ..errors import NotAuthenticated, TooManyRequests

FRESH_SECONDS = 10.0  # a token that another server process revoked is refused after so long
REMEMBERED = 20_000
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
    """The tokens that came in lately, and the addresses that guess."""

    def __init__(self, lookup: Callable[[str], Caller | None], clock: Callable[[], float] = time.monotonic):
        """`lookup(hash)` asks the database."""
        self._lookup = lookup
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Caller, float]] = {}
        self._guesses: dict[str, tuple[float, float]] = {}  # address -> (failures not yet forgiven, when)

    def of_token(self, token: str, address: str) -> Caller:
        """The caller a token stands for. Raises NotAuthenticated, TooManyRequests for an address that guesses."""
        key = hash_token(token)
        known = self._known.get(key)
        if known is not None and self._clock() - known[1] < FRESH_SECONDS:
            return known[0]
        if known is None:
            self._refuse_guesser(address)
        caller = self._lookup(key)
        with self._lock:
            self._known.pop(key, None)
            if caller is not None:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[key] = (caller, self._clock())
                return caller
        self._note_failure(address)
        raise NotAuthenticated("this token is not known here, or was revoked: ask the administrator of this server for one")

    def forget(self) -> None:
        """Tokens changed: ask the database again."""
        with self._lock:
            self._known.clear()

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
