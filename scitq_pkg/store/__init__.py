"""The database, in words of the domain: every other module of this room is functions that take a transaction `tx`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeVar

from ..errors import Unavailable
from .cluster import CHANNEL, Cluster
from .databases import Database, Postgresql, open_database
from .migrations import migrate
from .transaction import Transaction
from .writer import Changes, Writer

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Store:
    """An open database: one writer thread with group commit, and pooled readers.

    `decide` is called inside a write transaction, before its commit, whenever `tx.wake()` was called in it;
    `on_commit(touched_workers)` after it, with the ids of workers whose orders changed (None: any may have).
    """

    def __init__(self, database: Database):
        self.database = database
        self.changes = Changes()
        self._writer = Writer(database, self.changes)
        self._decide: Callable[[Transaction], None] | None = None
        self._cluster: Cluster | None = None

    @classmethod
    def open(cls, url: str, data_dir: Path) -> Store:
        """Open `sqlite:///path` or `postgresql://...`, made or migrated as needed.

        Raises InvalidRequest (the URL is wrong, the file is no database), Conflict (newer schema, another server has it),
        Unavailable (no database answers).
        """
        database = open_database(url, data_dir)
        store = cls(database)
        try:
            store.write(migrate)
        except BaseException:
            store.close()
            raise
        return store

    def start(self, decide: Callable[[Transaction], None], on_commit: Callable[[set[int] | None], None]) -> None:
        """Begin to decide, and to hear of other server processes on the same database (PostgreSQL)."""
        self._decide = decide
        self._writer.decide = self._decide_if_leading
        self._writer.on_commit = on_commit
        if isinstance(self.database, Postgresql):
            self._cluster = Cluster(self.database, self._hear, lambda: self.write(Transaction.wake))
            self._writer.before_commit = self._tell_others
            self._cluster.start()
        else:
            self.write(Transaction.wake)

    @property
    def leads(self) -> bool:
        """Whether this process decides: always on SQLite, one of all on PostgreSQL."""
        return self._cluster is None or self._cluster.leads

    def _decide_if_leading(self, tx: Transaction) -> None:
        if self.leads and self._decide is not None:
            self._decide(tx)

    def _tell_others(self, tx: Transaction) -> None:
        assert self._cluster is not None
        payload = self._cluster.payload(tx.touched, tx.woken and not self.leads)
        tx.value("SELECT pg_notify(?, ?)", (CHANNEL, payload))

    def _hear(self, touched: set[int] | None, woken: bool) -> None:
        """Another process committed."""
        self.changes.bump()
        if self._writer.on_commit is not None and (touched is None or touched):
            self._writer.on_commit(touched)
        if woken and self.leads:
            self._writer.submit(Transaction.wake)

    def write(self, change: Callable[[Transaction], Result], timeout: float | None = None) -> Result:
        """Run `change(tx)` in the writer thread; its result, once it is durable.

        `change` may be run more than once (a deadlock on PostgreSQL): it must touch nothing but the database. Raises what it
        raised; StorageFull or Unavailable when the database could not keep it, or has not within `timeout` seconds.
        """
        try:
            return self._writer.submit(change).result(timeout)
        except FutureTimeout:
            if timeout is None:
                raise
            raise Unavailable(f"the database took no write within {timeout:g} s") from None

    def read(self, question: Callable[[Transaction], Result]) -> Result:
        """Run `question(tx)` here, on a reader's connection and one consistent snapshot."""
        with self.database.reader() as transaction:
            return question(transaction)

    def close(self, seconds: float | None = None) -> None:
        """Let the writes that wait be done, then close every connection. A database that stands still is left after so long."""
        if self._cluster is not None:
            self._cluster.stop(seconds)
        if self._writer.stop(seconds):
            self.database.close()
        else:
            log.warning("the database stands still: it is left as it is, nothing of what it did not take was acknowledged")


__all__ = ["Changes", "Store", "Transaction"]
