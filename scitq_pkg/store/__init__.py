"""The database, in words of the domain: every other module of this room is functions that take a transaction `tx`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import Unavailable
from .databases import Database, open_database
from .migrations import migrate
from .transaction import Transaction
from .writer import Changes, Writer

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Store:
    """An open database: one writer thread with group commit, and pooled readers.

    `decide` is called inside a write transaction, before its commit, whenever `tx.wake()` was called in it;
    `on_commit(touched_workers)` after it, with the ids of workers whose orders changed.
    """

    def __init__(self, database: Database):
        self.database = database
        self.changes = Changes()
        self._writer = Writer(database, self.changes)

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

    @property
    def decide(self) -> Callable[[Transaction], None] | None:
        return self._writer.decide

    @decide.setter
    def decide(self, decide: Callable[[Transaction], None] | None) -> None:
        self._writer.decide = decide

    @property
    def on_commit(self) -> Callable[[set[int]], None] | None:
        return self._writer.on_commit

    @on_commit.setter
    def on_commit(self, on_commit: Callable[[set[int]], None] | None) -> None:
        self._writer.on_commit = on_commit

    def write(self, change: Callable[[Transaction], Result]) -> Result:
        """Run `change(tx)` in the writer thread; its result, once it is durable.

        `change` may be run more than once (a deadlock on PostgreSQL): it must touch nothing but the database.
        Raises what it raised; StorageFull or Unavailable when the database could not keep it.
        """
        return self._writer.submit(change).result()

    def read(self, question: Callable[[Transaction], Result]) -> Result:
        """Run `question(tx)` here, on a reader's connection and one consistent snapshot."""
        with self.database.reader() as transaction:
            return question(transaction)

    def close(self) -> None:
        """Let the writes that wait be done, then close every connection."""
        self._writer.stop()
        self.database.close()


__all__ = ["Store", "Transaction", "Unavailable"]
