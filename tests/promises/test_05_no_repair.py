"""Promise 5: the database never needs repair; two servers on one SQLite file: the second refuses."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from env import PROGRAM, Env, Process, ServerProcess
from strikes import Submitters, copied_program, ready_or_dead, start_struck

FRAME_BYTES = 24 + 4096  # of a WAL with pages of 4,096 bytes


def check_whole(server: ServerProcess) -> None:
    """SQLite itself finds nothing wrong with the file."""
    with contextlib.closing(sqlite3.connect(f"file:{server.data / 'scitq.db'}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def a_task_works(env: Env) -> None:
    (task,) = env.create({"command": "true", "batch": "works"})
    assert env.state(task) in ("pending", "assigned")


# --- torn files -----------------------------------------------------------------------------------------------------------


def half_a_transaction(wal: Path) -> None:
    """The begin of a commit that was never finished."""
    data = wal.read_bytes()
    wal.write_bytes(data + data[-FRAME_BYTES:] + data[-FRAME_BYTES : -FRAME_BYTES // 2])


def zeros(wal: Path) -> None:
    """Room that the file system had given, and never filled."""
    with open(wal, "ab") as file:
        file.write(bytes(3 * FRAME_BYTES))


def wrong_index(wal: Path) -> None:
    wal.with_name("scitq.db-shm").write_bytes(b"\xff" * 32768)


def no_index(wal: Path) -> None:
    wal.with_name("scitq.db-shm").unlink()


@pytest.mark.parametrize("tear", [half_a_transaction, zeros, wrong_index, no_index])
def test_what_a_crash_leaves_costs_nothing(env, tear):
    server, clients = env.server(), Submitters(env)
    with clients.going():
        env.until(lambda: len(clients.acknowledged) > 30)
    server.kill9()
    tear(server.data / "scitq.db-wal")
    server.start()
    check_whole(server)
    clients.check()
    a_task_works(env)


def cut_short(wal: Path) -> None:
    """A disk that had said that it kept it, and had not."""
    with open(wal, "r+b") as file:
        file.truncate(wal.stat().st_size * 2 // 3 + 1000)


def flipped(wal: Path) -> None:
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 0x10
    wal.write_bytes(data)


@pytest.mark.parametrize("damage", [cut_short, flipped])
def test_a_damaged_log_is_a_moment_of_before(env, damage):
    """What the disk has lost is lost, from some moment on; all before is there, and whole."""
    server = env.server()
    ids = [env.create({"command": "true", "name": f"n{i}", "batch": "b"}, {"command": "x", "batch": "b"})[0] for i in range(30)]
    server.kill9()
    damage(server.data / "scitq.db-wal")
    server.start()
    check_whole(server)
    left = env.items("/tasks", batch="b")
    assert [row["id"] for row in left] == list(range(ids[0], ids[0] + len(left))) and len(left) % 2 == 0, "half a request is left"
    a_task_works(env)


# --- killed while the schema is made or changed -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("calls, strikes", [("pwrite64", (1, 4, 30)), ("fsync,fdatasync", (1, 2))])
def test_killed_while_the_database_is_made(env, calls, strikes):
    server, died = env.server(), 0
    for when in strikes:
        server.kill9()
        shutil.rmtree(server.data)
        start_struck(server, calls, when)
        died += not ready_or_dead(server)
        server.kill9()
        server.start()
        check_whole(server)
        assert env.launch("true") == 1  # with the token of this database
    assert died


NEXT_STEP = """
def _step(tx):
    import time
    print("the step begins", flush=True)
    tx.run("ALTER TABLE task ADD COLUMN colour TEXT")
    for start in range(0, 1000, 10):
        tx.run("UPDATE task SET colour = 'red' WHERE id BETWEEN ? AND ?", (start, start + 9))
    tx.run("CREATE TABLE swatch (id INTEGER PRIMARY KEY)")
    print("the step is done", flush=True)
    time.sleep(0.3)


STEPS[VERSION] = _step
"""


def next_version(directory: Path) -> list[str]:
    """The program as of the next version, whose schema has one more step; a long one."""
    program = copied_program(directory)
    schema, migrations = (directory / "scitq_pkg" / "store" / name for name in ("schema.py", "migrations.py"))
    text = schema.read_text()
    number = int(text.partition("\nVERSION = ")[2].split()[0])
    schema.write_text(text.replace(f"\nVERSION = {number}\n", f"\nVERSION = {number + 1}\n"))
    migrations.write_text(migrations.read_text() + NEXT_STEP)
    return program


def test_killed_while_the_schema_is_changed(env_on_each):
    """Nothing of it is there: the program of before works as before. Later it is done in one go, and for good."""
    env = env_on_each
    server = env.server()
    ids = env.create(*[{"command": "true", "batch": "b"}] * 500)
    newer = next_version(env.directory / "next")
    for moment in ("the step begins", "the step is done"):
        server.kill9()
        server.program = newer
        Process.start(server)
        server.ended_by_test = True
        seen = server.output().count(moment)
        env.until(lambda: server.output().count(moment) > seen, what=moment)
        server.kill9()
        server.program = PROGRAM
        server.start()
        assert [row["id"] for row in env.items("/tasks", batch="b")] == ids
        a_task_works(env)
    server.stop()
    server.program = newer
    server.start()
    assert [row["id"] for row in env.items("/tasks", batch="b")] == ids
    a_task_works(env)
    server.stop()
    options = ["--database", env.database] if env.database else []
    done = env.cli("server", "--port", "0", "--data", server.data, *options, code=1)
    assert "newer scitq" in done.stderr and done.stderr.count("\n") == 1


# --- two servers ------------------------------------------------------------------------------------------------------------


def test_a_second_server_on_one_sqlite_file_refuses(env):
    """By whatever name it comes there, links that lead nowhere yet among them; the first one goes on."""
    here = env.directory
    (here / "file.db").symlink_to(here / "server" / "scitq.db")
    server = env.server()
    (here / "folder").symlink_to(here / "server")
    names = [f"{here}/server/scitq.db", "server/../server/scitq.db", f"{here}/folder/scitq.db", f"{here}/file.db"]
    for name in names:
        words = ["server", "--port", "0", "--data", here / "other", "--database", f"sqlite:///{name}"]
        done = env.cli(*words, code=1, timeout=10)
        assert "another scitq server has" in done.stderr and "--database" in done.stderr and done.stderr.count("\n") == 1
    a_task_works(env)
    server.kill9()
    server.words[server.words.index("--data") + 1 :] = [str(server.data), "--database", f"sqlite:///{names[-1]}"]
    server.start()  # the lock went with the process
    a_task_works(env)


def test_many_servers_start_at_the_same_time(env_on_each):
    """On a database that is not there yet. On SQLite one gets it; on PostgreSQL all serve it."""
    env = env_on_each
    (env.directory / "data").mkdir()
    options = ["--database", env.database] if env.database else []
    processes = [
        env.start(f"s{i}", "server", "--port", "0", "--data", str(env.directory / "data"), *options) for i in range(4)
    ]
    for process in processes:
        process.ended_by_test = True
    wanted = 1 if env.database in (None, "sqlite:///") else 4
    env.until(lambda: sum("serves" in p.output() for p in processes) == wanted and sum(p.alive for p in processes) == wanted)
    for process in processes:
        if not process.alive:
            assert process.popen.wait() == 1 and "another scitq server has" in process.output()
