"""The writer: calls share a commit, fail alone, and are told the truth when the disk is full or the database is gone."""

from __future__ import annotations

import logging
import sqlite3
import threading

import pytest
from disks import small_disk
from scitq.errors import Conflict, InvalidRequest, NotFound, StorageFull, Unavailable
from scitq.store import Store, batches, events
from scitq.store.databases import READERS
from scitq.store.writer import GROUP


@pytest.fixture
def store(database_url, tmp_path):
    opened = Store.open(database_url, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path):
    opened = Store.open("sqlite:///", tmp_path)
    yield opened
    opened.close()


def note(name: str):
    """A change that can be seen: a batch of this name."""

    def change(tx):
        tx.changed = True
        return batches.ensure(tx, name)

    return change


def noted(store: Store) -> set[str]:
    return set(store.read(lambda tx: tx.column("SELECT name FROM batch"))) - {"Default"}


def together(store: Store, *changes) -> list:
    """The changes, queued while the writer is busy, so that they meet in one group; their results or errors."""
    busy, free = threading.Event(), threading.Event()
    blocker = store._writer.submit(lambda tx: (busy.set(), free.wait(60)))
    busy.wait(60)
    futures = [store._writer.submit(change) for change in changes]
    free.set()
    blocker.result(60)
    return [future.exception(30) or future.result() for future in futures]


def test_calls_that_wait_share_a_commit(store):
    before = store.changes.version
    together(store, *[note(f"b{number}") for number in range(GROUP)])
    assert store.changes.version == before + 1 and len(noted(store)) == GROUP


def test_more_than_a_group_are_done_too(store):
    results = together(store, *[note(f"b{number}") for number in range(2 * GROUP + 1)])
    assert len(set(results)) == len(noted(store)) == 2 * GROUP + 1


@pytest.mark.parametrize("failure", [
    Conflict("no"), KeyError("a mistake"), "SELECT * FROM nothing", "INSERT INTO batch (id, name) VALUES (1, 'twice')",
], ids=lambda failure: type(failure).__name__ if isinstance(failure, Exception) else failure.split()[0])  # fmt: skip
def test_one_that_fails_takes_nothing_with_it(store, failure):
    def fail(tx):
        note("half")(tx)
        if isinstance(failure, Exception):
            raise failure
        tx.run(failure)

    one, error, two = together(store, note("one"), fail, note("two"))
    assert noted(store) == {"one", "two"} and {one, two} == {2, 3}, "its ids were given back with it"
    assert error is failure if isinstance(failure, Exception) else isinstance(error, Unavailable)
    assert store.write(note("later")) == 4


def test_a_change_is_there_for_the_next_and_for_the_decider_before_the_commit(store):
    seen = []
    store.start(lambda tx: seen.append(tx.value("SELECT COUNT(*) FROM batch")), lambda touched: None)
    version = store.changes.version
    while not seen:  # its first look
        version = store.changes.wait(version, 1)
    seen.clear()
    _, second = together(store, lambda tx: (note("a")(tx), tx.wake()), lambda tx: tx.column("SELECT name FROM batch ORDER BY id"))
    assert second == ["Default", "a"] and seen == [2], "it looks once for all of the group"
    store.write(note("b"))
    assert seen == [2], "and only when something woke it"


def test_a_decider_that_fails_loses_no_change_and_decides_again(store, caplog):
    faults = [ZeroDivisionError("a mistake")]

    def decide(tx):
        note("decided")(tx)
        if faults:
            raise faults.pop()

    store._writer.decide = decide
    store.write(lambda tx: (note("kept")(tx), tx.wake()))
    assert noted(store) == {"kept"} and "decider failed" in caplog.text
    store.write(lambda tx: tx.wake())
    assert noted(store) == {"kept", "decided"}


def test_a_bell_that_fails_does_not_end_the_writer(store, caplog):
    def ring(touched):
        raise ZeroDivisionError("a mistake")

    store._writer.on_commit = ring
    store.write(lambda tx: tx.touch(1))
    assert store.write(note("later")) and "waking the workers failed" in caplog.text


def test_who_waits_no_longer_is_told_and_the_change_is_done_all_the_same(store):
    free = threading.Event()
    store._writer.submit(lambda tx: free.wait(60))
    with pytest.raises(Unavailable, match=r"within 0\.05 s"):
        store.write(note("late"), timeout=0.05)
    free.set()
    store.write(lambda tx: None)
    assert noted(store) == {"late"}


def test_what_was_queued_before_the_end_is_done_and_nothing_after(database_url, tmp_path):
    store = Store.open(database_url, tmp_path)
    futures = [store._writer.submit(note(f"b{number}")) for number in range(50)]
    store.close()
    assert len({future.result(0) for future in futures}) == 50
    with pytest.raises(Unavailable):
        store.write(note("too late"))


def test_a_reader_sees_one_moment(store):
    def twice(tx):
        before = tx.value("SELECT COUNT(*) FROM batch")
        store.write(note("meanwhile"))
        return before, tx.value("SELECT COUNT(*) FROM batch")

    assert store.read(twice) == (1, 1) and noted(store) == {"meanwhile"}


def test_readers_write_nothing(store):
    with pytest.raises(Unavailable):
        store.read(note("x"))
    with pytest.raises(NotFound):
        store.read(lambda tx: tx.get("batch 9", "SELECT * FROM batch WHERE id = 9"))
    assert noted(store) == set()


def test_more_readers_than_there_is_room_for_are_told_to_come_again(store, monkeypatch):
    monkeypatch.setattr(store.database._readers, "_wait_timeout", 0.01)
    inside, free = threading.Barrier(READERS + 1), threading.Event()
    threads = [threading.Thread(target=store.read, args=(lambda tx: (inside.wait(60), free.wait(60)),)) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    inside.wait(60)
    with pytest.raises(Unavailable, match="ask again"):
        store.read(lambda tx: 1)
    free.set()
    for thread in threads:
        thread.join()
    assert store.read(lambda tx: tx.value("SELECT 1")) == 1


def test_news_is_waited_for(store):
    version = store.changes.version
    assert store.changes.wait(version, 0.01) == version
    timer = threading.Timer(0.05, lambda: store.write(note("news")))
    timer.start()
    assert store.changes.wait(version, 10) == version + 1
    timer.join()
    quiet = store.write(lambda tx: events.add(tx, "ann", "x", "y", [1]))
    assert quiet is None and store.changes.version == version + 1, "what concerns no task wakes nobody"


# --- a database that fails --------------------------------------------------------------------------------------------


def big(name: str, megabytes: int):
    def change(tx):
        note(name)(tx)
        for number in range(megabytes):
            tx.insert("setting", {"name": f"{name} {number}", "value": "x" * 2**20})

    return change


def test_a_database_at_its_limit_keeps_what_it_told(sqlite_store):
    pages = sqlite_store.write(lambda tx: tx.value("PRAGMA page_count"))
    sqlite_store.write(lambda tx: tx.value(f"PRAGMA max_page_count = {pages + 100}"))
    one, error, two = together(sqlite_store, note("one"), big("big", 2), note("two"))
    assert isinstance(error, StorageFull) and "make room" in str(error)
    told = {name for name, result in (("one", one), ("two", two)) if isinstance(result, int)}
    assert noted(sqlite_store) == told
    sqlite_store.write(lambda tx: tx.value("PRAGMA max_page_count = 1000000"))
    sqlite_store.write(big("later", 2))
    assert noted(sqlite_store) == told | {"later"}


@pytest.mark.parametrize("megabytes", [4, 40])  # fails at the commit; or before, when changes no longer fit into the cache
def test_a_full_disk_takes_all_or_nothing_and_the_truth_is_told(tmp_path, megabytes):
    with small_disk(tmp_path / "small") as disk:
        store = Store.open("sqlite:///", disk.directory)
        try:
            store.write(note("before"))
            disk.fill(leave=2**20)
            results = together(store, note("one"), big("big", megabytes), note("two"))
            assert isinstance(results[1], StorageFull)
            told = {name for name, result in zip(("one", "big", "two"), results) if not isinstance(result, Exception)}
            assert noted(store) == {"before"} | told
            disk.empty()
            store.write(note("after"))
            assert noted(store) == {"before", "after"} | told
        finally:
            store.close()
        again = Store.open("sqlite:///", disk.directory)
        assert noted(again) == {"before", "after"} | told and again.read(lambda tx: tx.value("PRAGMA integrity_check")) == "ok"
        again.close()


def test_a_lost_connection_is_opened_again(postgres, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    store = Store.open(postgres.new_database(), tmp_path)
    killer = store.database.connect()

    def end_all() -> None:
        killer.cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def die(tx):
        note("half")(tx)
        end_all()
        tx.value("SELECT 1")

    store.read(lambda tx: None)
    results = together(store, note("one"), die, note("two"))
    assert all(isinstance(result, Unavailable) for result in results), "the transaction is gone with all that it held"
    assert store.write(note("later")) and noted(store) == {"later"}
    end_all()
    with pytest.raises(Unavailable):  # or the first to ask afterwards hears of it
        store.write(note("unlucky"))
    store.write(note("last"))
    store._writer.decide = lambda tx: end_all()  # nothing was asked since: the end of its savepoint finds out
    with pytest.raises(Unavailable):
        store.write(lambda tx: (note("undecided")(tx), tx.wake()))
    store._writer.decide = None
    store.write(note("decided"))
    assert noted(store) == {"later", "last", "decided"} and not caplog.records
    killer.close()
    store.close()


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "scitq.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(InvalidRequest, match="not a usable SQLite database"):
        Store.open("sqlite:///", tmp_path)
    (tmp_path / "scitq.db").unlink()
    Store.open("sqlite:///", tmp_path).close()
    assert sqlite3.connect(tmp_path / "scitq.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)
