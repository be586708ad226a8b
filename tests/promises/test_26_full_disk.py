"""Promise 26: a full disk: what cannot be kept is not acknowledged, it is said, and with room all goes on by itself."""

from __future__ import annotations

import contextlib
import random
import shutil

import psycopg2
import pytest
from disks import small_disk
from env import Env
from scitq.errors import ScitqError
from scitq.transport import Connection

POSTGRESQL_BYTES = 24 * 2**20  # an empty database has 8 MB already
COMMAND = "echo {} " + random.Random(26).randbytes(10_000).hex()  # which no database compresses to nothing
MOST_REQUESTS = 600  # far more than such a disk can hold


class Place:
    """A server whose database is on a small disk."""

    def __init__(self, env: Env, disk):
        self.env, self.disk = env, disk
        self.acknowledged: list[int] = []

    def submit_until_refused(self):
        """Tasks until the disk is full; the refusal."""
        for number in range(MOST_REQUESTS):
            answer = self.env.answer("POST", "/tasks", {"command": COMMAND.format(number), "batch": "big"})
            if answer.status != 201:
                return answer
            self.acknowledged += answer.json()["ids"]
        raise AssertionError("a disk of some megabytes took more than it can hold")

    def kept(self) -> list[int]:
        return [row["id"] for row in self.env.items("/tasks", batch="big", order="id")]

    def health(self) -> tuple[int, dict]:
        with Connection(self.env.url) as connection:
            answer = connection.request("GET", "/health/ready")
            return answer.status, answer.json()


@pytest.fixture
def sqlite_place(tmp_path):
    with small_disk(tmp_path / "small") as disk:
        env = Env(tmp_path / "env")
        env.server(data=disk.directory / "data")
        yield Place(env, disk)
        env.close()


@pytest.fixture
def postgresql_place(tmp_path, postgres):
    """The tables are on the small disk; PostgreSQL's own log is elsewhere, as it would stop for want of room for that."""
    with small_disk(postgres.directory / "small", POSTGRESQL_BYTES) as disk, _database_on(postgres, disk) as url:
        env = Env(tmp_path / "env", url)
        env.server()
        yield Place(env, disk)
        env.close()


@contextlib.contextmanager
def _database_on(postgres, disk):
    """The URL of a database on that disk."""
    room = disk.directory / "tables"
    room.mkdir()
    shutil.chown(room, "postgres", "postgres")
    url = postgres.new_database()
    with contextlib.closing(psycopg2.connect(url)) as admin:
        admin.autocommit = True
        words = admin.cursor()
        words.execute(f"CREATE TABLESPACE small LOCATION '{room}'")
        words.execute("CREATE DATABASE small TABLESPACE small")
        yield url.rpartition("/")[0] + "/small"
        words.execute("DROP DATABASE small WITH (FORCE)")
        words.execute("DROP TABLESPACE small")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request):
    return request.getfixturevalue(f"{request.param}_place")


# --- the server's ---------------------------------------------------------------------------------------------------------


def test_what_the_database_cannot_keep_is_refused_and_what_it_took_stays(place):
    env, (server,) = place.env, place.env.processes
    place.disk.fill(leave=2 * 2**20)
    refusal = place.submit_until_refused()
    assert refusal.status == 507 and refusal.json()["error"]["code"] == "storage_full"
    assert "make room" in refusal.json()["error"]["message"]
    assert place.acknowledged and place.kept() == place.acknowledged
    server.kill9()
    place.disk.empty()
    server.start()
    assert place.kept() == place.acknowledged
    assert [env.task(task)["command"] for task in place.acknowledged[:3]] == [COMMAND.format(number) for number in range(3)]


def test_a_full_server_says_so_and_recovers_by_itself(place):
    env = place.env
    place.disk.fill()
    assert place.submit_until_refused().status == 507
    done = env.cli("launch", "-b", "big", "echo " + "y" * 100_000, code=1)
    assert "full" in done.stderr and "make room" in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert env.api("GET", "/server")["version"]
    place.disk.empty()
    env.until(lambda: place.health()[0] == 200, what="ready")
    place.acknowledged += env.create({"command": COMMAND, "batch": "big"})
    assert place.kept() == place.acknowledged


def test_an_end_that_a_full_database_cannot_take_comes_when_it_can(place, tmp_path):
    """Its worker keeps what was not acknowledged: the end is told once, and the output is whole."""
    env, go, ran = place.env, tmp_path / "go", tmp_path / "ran"
    env.worker(1, scratch=tmp_path / "scratch")
    (task,) = env.create(f"until [ -e {go} ]; do sleep 0.05; done; head -c 300000 /dev/zero | tr '\\0' a; echo once >> {ran}")
    env.wait_state(task, "running")
    place.disk.fill()
    assert place.submit_until_refused().status == 507
    go.touch()
    env.until(ran.exists, what="the command ended")
    assert place.submit_until_refused().status == 507
    assert env.state(task) in ("running", "uploading")
    place.disk.empty()
    env.wait_state(task)
    assert env.stdout(task) == b"a" * 300_000
    assert ran.read_text() == "once\n" and len(env.executions(task)) == 1


def test_a_server_that_starts_on_a_full_disk_says_so(sqlite_place):
    """It serves what it has, or refuses in a line; what was acknowledged stays."""
    place = sqlite_place
    env, (server,) = place.env, place.env.processes
    place.disk.fill(leave=2 * 2**20)
    place.submit_until_refused()
    server.kill9()
    place.disk.fill()
    again = env.start("again", *server.words)
    again.ended_by_test = True  # it may end, and it may not
    env.until(lambda: not again.alive or _answers(env), what="it serves, or has ended")
    if not again.alive:
        assert again.popen.returncode == 1 and again.output().count("\n") == 1
        assert str(place.disk.directory) in again.output() and "make room" in again.output()
    else:
        assert place.kept() == place.acknowledged
        again.stop()
    place.disk.empty()
    server.start()
    assert place.kept() == place.acknowledged


def _answers(env: Env) -> bool:
    with contextlib.suppress(ScitqError):  # not yet, or no more
        return env.answer("GET", "/server", timeout=2).status == 200
    return False


# --- the worker's ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path):
    with small_disk(tmp_path / "scratch") as disk:
        yield disk


def test_a_worker_whose_disk_is_full_says_so_and_fails_nothing(scratch, env):
    env.server()
    worker = env.worker(2, scratch=scratch.directory)
    scratch.fill()
    tasks = env.create(*["true"] * 6)
    row = env.until(lambda: worker.row["state"] == "unfit" and worker.row, what="it says so")
    assert "is full" in row["problem"] and "make room" in row["problem"] and str(scratch.directory) in row["problem"]
    env.until(lambda: env.api("GET", "/tasks/counts")["counts"] == {"pending": 6}, what="all wait")
    assert "is full" in env.api("GET", f"/tasks/{tasks[0]}/explain")["sentence"]
    scratch.empty()
    env.until(lambda: worker.row["state"] == "online", what="it works again")
    env.wait_state(tasks)
    assert all(env.task(task)["failures"] == 0 for task in tasks)


def test_with_one_worker_full_another_takes_the_work(scratch, env, tmp_path):
    env.server()
    env.worker(2, scratch=scratch.directory)
    scratch.fill()
    good = env.worker(2, scratch=tmp_path / "elsewhere")
    tasks = env.create(*["true"] * 20)
    env.wait_state(tasks)
    assert {env.executions(task)[-1]["worker"] for task in tasks} == {good.name}


def test_what_runs_when_the_disk_fills_goes_on_and_is_told_of(scratch, env, tmp_path):
    """Its end cannot be written down then: it waits, is told when there is room, and the command runs once."""
    env.server()
    worker = env.worker(1, scratch=scratch.directory)
    go, ran = tmp_path / "go", tmp_path / "ran"
    (task,) = env.create(f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo once >> {ran}; exit 7")
    env.wait_state(task, "running")
    env.until(lambda: env.stdout(task) == b"begun\n", what="its output")
    scratch.fill()
    go.touch()
    env.until(ran.exists, what="the command ended")
    env.until(lambda: worker.row["problem"], what="the worker says that its disk is full")
    scratch.empty()
    env.wait_state(task, "failed")
    told = env.executions(task)
    assert len(told) == 1 and told[0]["exit_code"] == 7 and ran.read_text() == "once\n" and env.stdout(task) == b"begun\n"


def test_a_task_that_fills_the_disk_fails_alone(scratch, env):
    """What it left is removed when room is short; those after it succeed."""
    env.server()
    env.worker(1, scratch=scratch.directory)
    (greedy,) = env.create("cat /dev/zero > $TEMP/all")
    env.wait_state(greedy, "failed")
    assert env.executions(greedy)[0]["exit_code"] == 1
    env.wait_state(env.create(*["true"] * 5))


def test_a_worker_that_starts_on_a_full_disk_says_so(scratch, env):
    env.server()
    scratch.fill()
    done = env.cli("worker", env.url, "1", "--name", "w", "--scratch", scratch.directory, code=4)
    assert done.stderr.count("\n") == 1 and "make room" in done.stderr and str(scratch.directory) in done.stderr
    assert env.items("/workers") == []


def test_a_run_on_a_full_disk_says_so_and_ends_when_there_is_room(scratch, env, tmp_path):
    runs, go = tmp_path / "runs", tmp_path / "go"
    command = f"touch {runs}; until [ -e {go} ]; do sleep 0.05; done"
    (scratch.directory / "b.yaml").write_text(f"{{name: long, shell: true, command: '{command}'}}")
    run = env.start("run", "run", "b.yaml", cwd=scratch.directory)
    env.until(runs.exists, what="its task runs")
    scratch.fill()
    env.until(lambda: "scitq: the disk of" in run.output() and "make room" in run.output(), what="it says so")
    go.touch()
    scratch.empty()
    assert run.wait_exit() == 0 and run.output().count("make room") == 1 and "1 succeeded" in run.output()
