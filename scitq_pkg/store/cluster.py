"""Several server processes on one PostgreSQL database: one of them decides, and all hear of each other's commits.

The decider holds a session's advisory lock; it goes with its connection. Two that both believe to decide, for a moment, do no
harm: a claim takes only tasks that are pending, under their row locks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import threading
import uuid
from collections.abc import Callable

from ..errors import ScitqError
from .databases import Postgresql

log = logging.getLogger(__name__)

CHANNEL = "scitq"
LEADER_LOCK = 0x5C17
RETRY_SECONDS = 2.0  # between two tries to lead, or to connect again
MOST_NAMED = 400  # workers named in one notification (its payload is limited to 8,000 bytes); more mean all


class Cluster:
    """A thread with a connection of its own, that listens and stands for election.

    `on_news(touched, woken)`: another process committed; `touched` is None when too many workers were to be named.
    `on_lead()`: this process decides from now on.
    """

    def __init__(self, database: Postgresql, on_news: Callable[[set[int] | None, bool], None], on_lead: Callable[[], None]):
        self._database = database
        self._on_news = on_news
        self._on_lead = on_lead
        self.identity = uuid.uuid4().hex
        self.leads = False
        self._stopping = threading.Event()
        self._ear, self._mouth = socket.socketpair()  # so that `stop` is heard at once
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)

    def start(self) -> None:
        """Begin to listen and to stand for election."""
        self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """End the thread, for which it has so long; the lock goes with its connection."""
        self._stopping.set()
        self._mouth.close()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._ear.close()

    def payload(self, touched: set[int], woken: bool) -> str:
        """What a commit of this process tells the others."""
        named = sorted(touched) if len(touched) <= MOST_NAMED else None
        return json.dumps({"from": self.identity, "touched": named, "woken": woken}, separators=(",", ":"))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with contextlib.closing(self._database.connect()) as connection:
                    self._listen(connection)
            except (ScitqError, *self._database.driver_errors()) as error:
                log.warning("listening to the database goes on after: %s", str(error).strip())
            self.leads = False
            self._stopping.wait(RETRY_SECONDS)

    def _listen(self, connection) -> None:
        cursor = connection.cursor()
        cursor.execute(f"LISTEN {CHANNEL}")
        self._on_news(None, False)  # what was told while nobody listened
        while not self._stopping.is_set():
            if not self.leads:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,))
                if cursor.fetchone()[0]:
                    self.leads = True
                    self._on_lead()
            select.select([connection, self._ear], [], [], RETRY_SECONDS / 4 if self.leads else RETRY_SECONDS)
            connection.poll()
            while connection.notifies:
                self._hear(json.loads(connection.notifies.pop(0).payload))

    def _hear(self, news: dict) -> None:
        if news["from"] != self.identity:
            touched = None if news["touched"] is None else set(news["touched"])
            self._on_news(touched, news["woken"])
