"""A backup is one file with everything: served in the place of the database, it goes on where that was."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import sqlite3
import stat
import threading

import pytest
from disks import small_disk
from house import House
from scitq.errors import Conflict, StorageFull, Unavailable
from scitq.store import Store, backup, executions, tasks
from scitq.store.filters import Filter
from scitq.transport import Connection


@pytest.fixture
def database_url():
    return "sqlite:///"


def opened(path) -> Store:
    return Store.open(f"sqlite:///{path}", path.parent)


def test_a_copy_has_every_task_and_every_byte_of_output(house, tmp_path):
    house.worker(concurrency=2)
    first, second, waiting = house.add("a", "b", "c")
    house.end(1, first, "failed", 3, bytes(range(256)) * 1000)
    execution_id = house.run(1, second)
    path = tmp_path / "copies" / "copy.db"
    backup.copy(house.store.database, path)
    house.add("after the copy")
    copied = opened(path)
    try:
        same = [("task", "id <= 3"), ("execution", "1 = 1"), ("output", "1 = 1"), ("token", "1 = 1"), ("worker", "1 = 1")]
        for table, test in same:
            mine, theirs = (
                store.read(lambda tx, table=table, test=test: tx.all(f"SELECT * FROM {table} WHERE {test} ORDER BY 1, 2, 3"))
                for store in (house.store, copied)
            )
            assert mine == theirs and mine, table
        assert copied.read(lambda tx: tasks.ids_of(tx, Filter())) == [first, second, waiting]
        told = copied.read(lambda tx: executions.output(tx, 1, "stderr", 0, 2**20))
        assert told["data"] == bytes(range(256)) * 1000
    finally:
        copied.close()
    again = House(opened(path))
    again.sequences = dict(house.sequences)
    again.end(1, second)
    assert again.states(first, second, waiting)[:2] == ["failed", "succeeded"], "its worker goes on with it"
    assert again.rows("execution", "id = ?", execution_id)[0]["state"] == "succeeded"
    again.store.close()


def test_a_copy_made_while_tasks_come_is_one_moment(house, tmp_path):
    stop = threading.Event()

    def add_pairs():
        while not stop.is_set():
            house.add({"command": "a", "name": "pair"}, {"command": "b", "name": "pair", "require": ["#0"]})

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add_pairs)
        try:
            for number in range(5):
                backup.copy(house.store.database, tmp_path / f"copy{number}.db")
        finally:
            stop.set()
        adding.result(60)
    sizes = []
    for number in range(5):
        with sqlite3.connect(tmp_path / f"copy{number}.db") as copied:
            assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            count, needs = (copied.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in ("task", "requirement"))
            assert count == 2 * needs, "no half of a request is in it"
            sizes.append(count)
    assert sizes == sorted(sizes) and sizes[-1] > 0


def test_what_cannot_be_written_leaves_nothing(house, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="could not be written"):
        backup.copy(house.store.database, tmp_path / "file" / "copy.db")
    house.write(lambda tx: tx.insert("setting", {"name": "big", "value": "x" * 2**21}))
    with small_disk(tmp_path / "small", size=2**20) as disk:
        with pytest.raises(StorageFull):
            backup.copy(house.store.database, disk.directory / "copy.db")
        assert os.listdir(disk.directory) == []


def test_a_copy_is_whole_before_it_has_its_name(house, tmp_path):
    """What one that was killed has left is no hindrance."""
    (tmp_path / "copy.db.part").write_bytes(b"half a database")
    backup.copy(house.store.database, tmp_path / "copy.db")
    assert sqlite3.connect(tmp_path / "copy.db").execute("SELECT COUNT(*) FROM batch").fetchone() == (1,)


def test_only_its_owner_reads_it(house, tmp_path):
    backup.copy(house.store.database, tmp_path / "copies" / "copy.db")
    assert stat.S_IMODE((tmp_path / "copies").stat().st_mode) == 0o700


def test_postgresql_is_left_to_its_own_tools(postgres, tmp_path):
    store = Store.open(postgres.new_database(), tmp_path)
    with pytest.raises(Conflict, match="pg_dump"):
        backup.copy(store.database, tmp_path / "copy.db")
    store.close()


def test_a_restored_backup_goes_on_where_it_was_made(env):
    """As docs/server.md says: stop the server, put the copy in the place of its database, start."""
    server = env.server()
    env.worker(1)
    done, running, queued = env.create("printf 'all of it'", f"touch {env.directory}/runs; sleep 3; echo late", "echo queued")
    env.wait_state(done)
    env.until((env.directory / "runs").exists, what="the second task runs")
    env.wait_state(running, "running")
    path = env.api("POST", "/backup")["path"]
    (forgotten,) = env.create("echo made after the backup")
    server.stop()
    for name in ("scitq.db", "scitq.db-wal", "scitq.db-shm"):
        (server.data / name).unlink(missing_ok=True)
    shutil.copy(path, server.data / "scitq.db")
    server.start()
    env.wait_state([running, queued])
    assert (env.stdout(done), env.stdout(running), env.stdout(queued)) == (b"all of it", b"late\n", b"queued\n")
    assert len(env.executions(running)) == 1, "what ran meanwhile was not run again"
    with Connection(env.url, token=env.token) as connection:
        assert connection.request("GET", f"/api/v1/tasks/{forgotten}").status == 404
        names = [event["action"] for event in json.loads(connection.request("GET", "/api/v1/events").body)["items"]]
    assert "server.backup" in names
