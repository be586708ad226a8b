"""The one thread that writes: all who wait share a commit, and the decider sees their changes before it.

One writer with group commit, each caller's change a savepoint, is what makes a full fsync per answer affordable.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import peewee

from ..errors import ScitqError, Unavailable
from .databases import Database
from .transaction import Transaction

log = logging.getLogger(__name__)

GROUP = 256  # changes that share one commit, at most
TRIES = 5  # of a group that met a deadlock
PAUSE_SECONDS = 0.02  # before another try, so that the other one of the deadlock is through


class Changes:
    """Counts commits that changed tasks or workers, for those who wait for news."""

    def __init__(self):
        self.version = 1
        self._condition = threading.Condition()

    def bump(self) -> None:
        """A commit changed something."""
        with self._condition:
            self.version += 1
            self._condition.notify_all()

    def wait(self, version: int, timeout: float) -> int:
        """Block until the version is another than `version`, or `timeout` seconds passed; the present version."""
        with self._condition:
            self._condition.wait_for(lambda: self.version != version, timeout)
            return self.version


class _Job:
    __slots__ = ("change", "future", "result", "error")

    def __init__(self, change: Callable):
        self.change = change
        self.future: Future = Future()
        self.result = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Owns the writing connection. See `Store` for `decide` and `on_commit`."""

    def __init__(self, database: Database, changes: Changes):
        self._database = database
        self._changes = changes
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped = False
        self.decide: Callable[[Transaction], None] | None = None
        self.on_commit: Callable[[set[int]], None] | None = None
        self.before_commit: Callable[[Transaction], None] | None = None
        self._driver_errors = (peewee.PeeweeException, sqlite3.Error, *database.driver_errors())
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[Transaction], object]) -> Future:
        """Queue a change; the future is settled after its commit."""
        if self._stopped:
            raise Unavailable("the server is stopping: try again when it is back")
        job = _Job(change)
        self._jobs.put(job)
        return job.future

    def stop(self, seconds: float | None = None) -> bool:
        """Do what is queued, then end; whether that was done within so long."""
        self._stopped = True
        self._jobs.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        going = True
        while going:
            group = self._next_group()
            if group[-1] is None:
                group.pop()
                going = False
            if group:
                self._commit_group(group)
        self._database.writer.close()

    def _next_group(self) -> list:
        group = [self._jobs.get()]
        while group[-1] is not None and len(group) < GROUP:
            try:
                group.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return group

    def _commit_group(self, group: list[_Job]) -> None:
        """Run the group in one transaction and settle its futures, whatever happens."""
        for attempt in range(TRIES):
            try:
                transaction = self._transact(group)
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers must be told
                self._abandon(error)
                if not (self._database.retryable(error) and attempt + 1 < TRIES):
                    self._fail(group, error)
                    return
                time.sleep(PAUSE_SECONDS)
        for job in group:
            job.settle()
        self._announce(transaction)

    def _transact(self, group: list[_Job]) -> Transaction:
        db = self._database.writer
        if db.is_closed():
            self._database.connect_writer()
        transaction = Transaction(db)
        transaction.run(self._database.begin_write)
        for job in group:
            job.error = None
            try:
                job.result = self._changed(transaction, job.change)
            except Exception as error:  # noqa: BLE001 - its caller gets it; the others of the group go on
                if transaction.lost or self._database.retryable(error):
                    raise
                job.error = self._database.explain(error) if isinstance(error, self._driver_errors) else error
        if transaction.woken and self.decide is not None:
            self._decide(transaction)
        if self.before_commit is not None and transaction.changed:
            self.before_commit(transaction)
        transaction.run("COMMIT")
        return transaction

    def _changed(self, transaction: Transaction, change: Callable[[Transaction], object]):
        try:
            return self._with_savepoint(transaction, change)
        except Exception as error:
            if not self._database.overtaken(error):
                raise
        return self._with_savepoint(transaction, change)

    def _decide(self, transaction: Transaction) -> None:
        try:
            self._with_savepoint(transaction, self.decide)
        except Exception as error:
            if transaction.lost or self._database.retryable(error):
                raise
            log.exception("the decider failed; what was asked is recorded, nothing new was assigned")

    def _with_savepoint(self, transaction: Transaction, change: Callable[[Transaction], object]):
        self._mark(transaction, "SAVEPOINT change")
        try:
            result = change(transaction)
        except Exception as error:
            self._undo(transaction, error)
            raise
        self._mark(transaction, "RELEASE SAVEPOINT change")
        return result

    def _mark(self, transaction: Transaction, sql: str) -> None:
        """Set or release a savepoint: what can only fail when the connection is lost, and nothing of the transaction counts."""
        try:
            transaction.run(sql)
        except self._driver_errors:
            transaction.lost = True
            raise

    def _undo(self, transaction: Transaction, error: Exception) -> None:
        """Back to the savepoint.

        A full disk or a lost connection may have taken all the transaction: then nothing of it counts.
        """
        try:
            transaction.run("ROLLBACK TO SAVEPOINT change")
            transaction.run("RELEASE SAVEPOINT change")
        except self._driver_errors as second:
            transaction.lost = True
            raise (error if isinstance(error, self._driver_errors) else second) from None

    def _abandon(self, error: Exception) -> None:
        """Forget the transaction; a broken connection is opened again for the next one."""
        try:
            Transaction(self._database.writer).run("ROLLBACK")
        except Exception:  # noqa: BLE001 - SQLite has rolled back by itself, or the connection is gone
            if not self._database.writer.is_closed():
                self._database.writer.close()
        log.debug("transaction abandoned: %s", error)

    def _fail(self, group: list[_Job], error: Exception) -> None:
        told = error
        if isinstance(error, self._driver_errors):
            told = self._database.explain(error)
        elif not isinstance(error, ScitqError):
            log.exception("the writer failed", exc_info=error)
        for job in group:
            job.error = told
            job.settle()

    def _announce(self, transaction: Transaction) -> None:
        if transaction.changed:
            self._changes.bump()
        if transaction.touched and self.on_commit is not None:
            try:
                self.on_commit(transaction.touched)
            except Exception:
                log.exception("waking the workers failed; they ask again by themselves")
