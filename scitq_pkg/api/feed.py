"""What changed, made once a second for all who listen, and remembered for a while for those whose line was cut.

It is made by one thread that is there only while somebody listens, or did a moment ago.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import ScitqError
from ..store import Changes

log = logging.getLogger(__name__)

SPACING_SECONDS = 1.0  # between two events at least
COST_SHARE = 0.05  # of a processor that the looking may take
RETRY_SECONDS = 5.0  # after the database did not answer
LINGER_SECONDS = 30.0  # without listeners
FIRST_LOOK_SECONDS = 10.0  # that a new listener waits for
KEPT = 300  # events
KEPT_BYTES = 8 * 2**20
KINDS = ("batches", "workers", "jobs")  # of rows


@dataclass(frozen=True)
class Event:
    """One message; `data` is JSON."""

    id: str
    kind: str
    data: bytes


class Feed:
    """Snapshots, and the changes after them. An id is known to the process that gave it alone: others begin anew."""

    def __init__(self, look: Callable[[], dict], changes: Changes):
        """`look()` is `version`, the rows of KINDS by their keys, `server`; `changes` tells when to look again."""
        self._look, self._changes = look, changes
        self._name = secrets.token_hex(4)
        self._condition = threading.Condition()
        self._number = 0
        self._picture: dict = {}
        self._ring: deque[tuple[int, Event]] = deque()
        self._ring_bytes = 0
        self._told_at = 0.0
        self._listeners = 0
        self._left_at = 0.0
        self._thread: threading.Thread | None = None
        self._is_fresh = False
        self._closing = threading.Event()

    # --- for those who listen ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """As long as somebody is in here there are news."""
        with self._condition:
            self._listeners += 1
            if self._thread is None and not self._closing.is_set():
                self._is_fresh = False
                self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._condition:
                self._listeners -= 1
                self._left_at = time.monotonic()

    def news(self, after: str | None, you: dict, seconds: float) -> list[Event]:
        """What came after an event, waited for; a snapshot for `you` if it is not known any more. Empty: nothing came."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._is_fresh or self._closing.is_set(), FIRST_LOOK_SECONDS):
                return []
            number = self._known(after)
            if number is None:
                return [] if self._closing.is_set() else [self._snapshot(you)]
            self._condition.wait_for(lambda: self._number > number or self._closing.is_set(), seconds)
            return [event for count, event in self._ring if count > number]

    def _known(self, after: str | None) -> int | None:
        """The number of an event from which on all is remembered."""
        name, _, digits = (after or "").partition("-")
        if name != self._name or not (digits.isascii() and digits.isdigit() and len(digits) < 16):
            return None
        oldest = self._ring[0][0] if self._ring else self._number + 1
        return int(digits) if oldest - 1 <= int(digits) <= self._number else None

    def _snapshot(self, you: dict) -> Event:
        picture = self._picture
        rows = {kind: list(picture[kind].values()) for kind in KINDS}
        told = {"version": picture["version"], **rows, "server": picture["server"] | {"you": you}}
        return Event(self._id(), "snapshot", _json(told))

    def _id(self) -> str:
        return f"{self._name}-{self._number}"

    def close(self) -> None:
        """Send everybody away."""
        self._closing.set()
        self._changes.bump()
        with self._condition:
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=1)

    # --- the thread ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = 0.0
        while not self._closing.wait(pause) and self._is_wanted():
            began = time.monotonic()
            try:
                picture = self._look()
            except ScitqError as error:
                log.warning("looking for news goes on after: %s", error)
                pause = RETRY_SECONDS
                continue
            except Exception:
                log.exception("looking for news failed; it goes on")
                pause = RETRY_SECONDS
                continue
            cost = time.monotonic() - began
            self._tell(picture)
            self._changes.wait(picture["version"], SPACING_SECONDS)
            pause = max(0.0, cost / COST_SHARE - SPACING_SECONDS, self._told_at + SPACING_SECONDS - time.monotonic())

    def _is_wanted(self) -> bool:
        with self._condition:
            wanted = self._listeners > 0 or time.monotonic() < self._left_at + LINGER_SECONDS
            if not wanted:
                self._thread = None
            return wanted

    def _tell(self, picture: dict) -> None:
        """Put what is new into the ring and wake who waits."""
        with self._condition:
            before, self._picture = self._picture, picture
            if before and (changes := difference(before, picture)):
                self._number += 1
                self._keep(Event(self._id(), "changes", _json(changes)))
                self._told_at = time.monotonic()
            self._is_fresh = True
            self._condition.notify_all()

    def _keep(self, event: Event) -> None:
        self._ring.append((self._number, event))
        self._ring_bytes += len(event.data)
        while len(self._ring) > KEPT or (self._ring_bytes > KEPT_BYTES and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft()[1].data)


def difference(before: dict, after: dict) -> dict | None:
    """What a page that shows `before` must be told to show `after`; None when there is nothing."""
    found: dict = {}
    for kind in KINDS:
        found[kind] = [row for key, row in after[kind].items() if before[kind].get(key) != row]
        found[f"{kind}_gone"] = [key for key in before[kind] if key not in after[kind]]
    if any(before["server"][name] != after["server"][name] for name in ("counts", "decides")):
        found["server"] = after["server"]
    if not any(found.values()) and before["version"] == after["version"]:
        return None
    return {"version": after["version"], **found}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
