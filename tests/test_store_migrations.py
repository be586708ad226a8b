"""The schema: made at once, brought up to date in whole steps, refused when it is newer; and killed in between."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys

import pytest
from scitq.errors import Conflict
from scitq.store import Store, flavors, machines, migrations, recruiters, tasks, workers
from scitq.store.filters import Filter
from scitq.store.schema import VERSION

KILLED = """
import os, sys
from pathlib import Path
from scitq.store import Store, transaction

left = int(sys.argv[3])
run = transaction.Transaction._execute

def count_down(self, sql, params=()):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    return run(self, sql, params)

transaction.Transaction._execute = count_down
Store.open(sys.argv[1], Path(sys.argv[2])).close()
print("whole")
"""


def schema_of(store: Store) -> str:
    return store.read(lambda tx: tx.value("SELECT value FROM setting WHERE name = 'schema'"))


def test_opened_again_nothing_changes(database_url, tmp_path):
    store = Store.open(database_url, tmp_path)
    (task_id,) = store.write(lambda tx: tasks.add(tx, [{"command": "kept"}], "ann"))
    before = store.read(lambda tx: tx.all("SELECT * FROM setting ORDER BY name"))
    store.close()
    again = Store.open(database_url, tmp_path)
    assert again.read(lambda tx: tx.all("SELECT * FROM setting ORDER BY name")) == before
    assert again.read(lambda tx: tasks.get(tx, task_id))["command"] == "kept"
    again.close()


def test_a_newer_schema_is_refused_and_left_alone(database_url, tmp_path):
    store = Store.open(database_url, tmp_path)
    store.write(lambda tx: tx.run("UPDATE setting SET value = ? WHERE name = 'schema'", (str(VERSION + 1),)))
    store.close()
    for _ in range(2):
        with pytest.raises(Conflict, match=f"schema {VERSION + 1}, this program knows {VERSION}"):
            Store.open(database_url, tmp_path)


def shape_of(store: Store) -> dict[str, list]:
    """The tables with their columns, kinds aside, and the indexes."""

    def look(tx):
        tables = {name: sorted(column.name for column in tx.db.get_columns(name)) for name in tx.db.get_tables()}
        return tables | {
            f"indexes of {name}": sorted((index.name, index.unique, tuple(index.columns)) for index in tx.db.get_indexes(name))
            for name in list(tables)
        }

    return store.read(look)


def make_schema_3(tx) -> None:
    """What schema 3 was."""
    tx.run("DROP INDEX worker_present")
    for column in ("machine_id", "upgrade", "upgrade_problem", "unfit"):
        tx.run(f"ALTER TABLE worker DROP COLUMN {column}")
    tx.run("ALTER TABLE batch DROP COLUMN budget")
    tx.run("ALTER TABLE recruiter DROP COLUMN origin")
    for table in ("machine", "stint", "job", "joblog", "flavor", "provider", "notifier", "message"):
        tx.run(f"DROP TABLE {table}")
        tx.run("DELETE FROM counter WHERE name = ?", (table,))
    tx.run("UPDATE setting SET value = '3' WHERE name = 'schema'")


def make_schema_2(tx) -> None:
    """What schema 2 was."""
    for column in ("flavor", "provider", "region", "home_batch_id", "home_concurrency", "home_prefetch"):
        tx.run(f"ALTER TABLE worker DROP COLUMN {column}")
    tx.run("DROP TABLE recruiter")
    tx.run("DELETE FROM counter WHERE name = 'recruiter'")
    tx.run("UPDATE setting SET value = '2' WHERE name = 'schema'")


def put_worker(tx) -> None:
    tx.run(
        "INSERT INTO worker (id, name, key, hostname, batch_id, concurrency, prefetch, permanent, draining, offline, created_at) "
        "VALUES (7, 'old', 'k', 'h', 1, 1, 0, ?, ?, ?, 0)", (True, False, False),
    )  # fmt: skip


SPEC = {"batch": "b", "concurrency": 2, "prefetch": 0, "permanent": False, "provider": "p", "region": "r", "flavor": "f"}


@pytest.mark.parametrize("steps", [(make_schema_3, make_schema_2), (make_schema_3,)], ids=["2", "3"])
def test_a_database_of_an_older_schema_becomes_as_one_that_is_new(database_url, tmp_path, steps):
    store = Store.open(database_url, tmp_path)
    new = shape_of(store)
    for step in (*steps, put_worker):
        store.write(step)
    assert shape_of(store) != new
    store.close()
    for _ in range(2):
        later = Store.open(database_url, tmp_path)
        assert schema_of(later) == str(VERSION) and shape_of(later) == new
        old = later.read(lambda tx: workers.get(tx, 7))
        assert (old["flavor"], old["provider"], old["region"], old["home"], old["machine"]) == (None,) * 5
        later.write(lambda tx: recruiters.put(tx, {"batch": "b", "rank": 1, "tasks_per_worker": 1}, "ann"))
        (made,) = later.write(lambda tx: machines.plan(tx, [SPEC], "ann"))
        assert later.write(lambda tx: machines.known(tx, made["machine"], "p-1"))
        assert later.write(lambda tx: flavors.replace(tx, "p", [{"region": "r", "name": "f"}], "ann")) == 1
        later.close()


@pytest.fixture
def two_steps(monkeypatch):
    """The program two versions later; what the steps do may be changed."""
    steps = {
        VERSION + 1: lambda tx: tx.run("ALTER TABLE task ADD COLUMN colour TEXT"),
        VERSION + 2: lambda tx: tx.run("UPDATE task SET colour = 'blue'"),
    }
    monkeypatch.setattr(migrations, "STEPS", steps)
    return steps


def test_an_older_schema_is_brought_up_to_date_step_by_step(database_url, tmp_path, two_steps, monkeypatch):
    store = Store.open(database_url, tmp_path)
    (task_id,) = store.write(lambda tx: tasks.add(tx, [{"command": "kept"}], "ann"))
    store.close()
    monkeypatch.setattr(migrations, "VERSION", VERSION + 2)
    for _ in range(2):
        later = Store.open(database_url, tmp_path)
        assert schema_of(later) == str(VERSION + 2)
        assert later.read(lambda tx: tx.all("SELECT id, colour FROM task")) == [{"id": task_id, "colour": "blue"}]
        later.close()


def test_a_step_that_fails_leaves_the_database_as_it_was(database_url, tmp_path, two_steps, monkeypatch):
    Store.open(database_url, tmp_path).close()

    def fail(tx):
        tx.run("ALTER TABLE batch ADD COLUMN half TEXT")
        raise ZeroDivisionError("a mistake")

    whole = two_steps[VERSION + 2]
    two_steps[VERSION + 2] = fail
    monkeypatch.setattr(migrations, "VERSION", VERSION + 2)
    with pytest.raises(ZeroDivisionError):
        Store.open(database_url, tmp_path)
    monkeypatch.setattr(migrations, "VERSION", VERSION)
    before = Store.open(database_url, tmp_path)
    assert schema_of(before) == str(VERSION), "the older program can still serve it"
    before.close()
    two_steps[VERSION + 2] = whole
    monkeypatch.setattr(migrations, "VERSION", VERSION + 2)
    after = Store.open(database_url, tmp_path)
    assert schema_of(after) == str(VERSION + 2)
    after.close()


def test_killed_at_any_moment_of_its_making_it_is_made_the_next_time(database_url, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    outcomes = []
    for statement in (1, 5, 16, 22, 1000):
        words = [sys.executable, str(tmp_path / "killed.py"), database_url, str(tmp_path), str(statement)]
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=variables)
        outcomes.append(done.stdout or done.returncode)
    assert outcomes[:3] == [-9] * 3 and outcomes[-1] == "whole\n", outcomes
    store = Store.open(database_url, tmp_path)
    (task_id,) = store.write(lambda tx: tasks.add(tx, [{"command": "x"}], "ann"))
    assert task_id == 1 and store.read(lambda tx: tasks.counts(tx, Filter())) == {"pending": 1}
    assert store.read(lambda tx: tx.column("SELECT name FROM batch")) == ["Default"]
    store.close()


def test_several_at_once_on_an_empty_database(postgres, tmp_path):
    url = postgres.new_database()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: Store.open(url, tmp_path), range(6)))
    ids = {store.read(lambda tx: tx.value("SELECT value FROM setting WHERE name = 'server_id'")) for store in stores}
    for store in stores:
        store.close()
    assert len(ids) == 1
