"""Promise 51: health is true: alive; ready while the database takes writes and the scheduler ticks, and only then."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass

import psutil
import psycopg2
import pytest
from disks import small_disk
from env import Env
from postgres import Postgres
from scitq.errors import ScitqError
from scitq.transport import Connection

ANSWERS_WITHIN_SECONDS = 8.0  # a write may take 5


@dataclass
class Health:
    """What a server says of itself, asked as a load balancer does: without a token, again and again."""

    env: Env

    def ask(self, which: str) -> tuple[int, dict]:
        with Connection(self.env.url) as connection:
            answer = connection.request("GET", f"/health/{which}", timeout=ANSWERS_WITHIN_SECONDS)
            return answer.status, answer.json()

    def becomes(self, status: int) -> list[str]:
        """Waits until readiness is answered so; its reasons."""
        self.env.until(lambda: self.ask("ready")[0] == status, what=f"readiness is {status}")
        told = self.ask("ready")[1]
        assert told["ready"] == (status == 200) == (told["reasons"] == [])
        return told["reasons"]

    def falls(self, *words: str) -> None:
        """It is not ready, says why, is alive all the same, and takes nothing it could not keep."""
        reasons = " ".join(self.becomes(503))
        assert all(word in reasons for word in words), reasons
        assert self.ask("live") == (200, {"live": True})


@pytest.fixture
def health(env):
    return Health(env)


# --- all is well ------------------------------------------------------------------------------------------------------------


def test_ready_means_that_work_is_taken(env_on_each):
    env = env_on_each
    env.server()
    health = Health(env)
    assert health.ask("ready") == (200, {"ready": True, "reasons": []})
    assert health.ask("live") == (200, {"live": True})
    env.worker(1)
    env.wait_state(env.create("true"))
    assert health.ask("ready")[0] == 200


def test_a_server_that_was_paused_is_ready_again_at_once(env_on_each):
    """Its scheduler has not ticked meanwhile: a moment later it has."""
    env = env_on_each
    server = env.server()
    server.pause()
    with pytest.raises(ScitqError), Connection(env.url) as connection:
        connection.request("GET", "/health/live", timeout=0.5)
    server.resume()
    Health(env).becomes(200)


# --- the database takes no writes ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_locked_sqlite_file(env, health):
    server = env.server()
    with contextlib.closing(sqlite3.connect(server.data / "scitq.db", isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        health.falls("took no write")
        assert time.monotonic() - began < 2 * ANSWERS_WITHIN_SECONDS
        assert env.api("GET", "/tasks")["items"] == []  # reading goes on
    health.becomes(200)
    assert env.create("true")


def test_a_full_disk_under_sqlite(env, health, tmp_path):
    with small_disk(tmp_path / "small") as disk:
        server = env.server(data=disk.directory / "data")
        disk.fill()
        health.falls("full", "make room")
        disk.empty()
        health.becomes(200)
        assert env.create("true")
        server.stop()


@pytest.fixture
def durable(postgres):
    """A PostgreSQL that keeps what it acknowledged."""
    made = Postgres(("-c", "max_connections=50"))
    yield made
    made.close()


@pytest.mark.slow
def test_a_postgresql_that_is_killed(env, health, durable):
    """Its address is told, its password is not; the server finds it again by itself."""
    postgres, name = durable, durable.new_database().rpartition("/")[2]
    server = env.server(database=f"postgresql://scitq:open-sesame@127.0.0.1:{postgres.port}/{name}")
    (task,) = env.create("true")
    postgres.kill9()
    try:
        health.falls("database", str(postgres.port))
        assert "open-sesame" not in str(health.ask("ready")[1])
        assert env.answer("POST", "/tasks", {"command": "true"}).status == 503
    finally:
        postgres.start()
    health.becomes(200)
    assert env.create("true") and env.state(task) == "pending"
    assert "open-sesame" not in server.output()


def test_a_postgresql_that_takes_no_writes(env, health, postgres):
    """As a replica, or one whose administrator has set it so."""
    url = postgres.new_database()
    env.server(database=url)
    with only_reading(url):
        health.falls("read-only")
        assert env.answer("POST", "/tasks", {"command": "true"}).status == 503
        assert env.api("GET", "/tasks")["items"] == []
    health.becomes(200)
    assert env.create("true")


@contextlib.contextmanager
def only_reading(url: str):
    name = url.rpartition("/")[2]
    with contextlib.closing(psycopg2.connect(url.rpartition("/")[0] + "/postgres")) as admin:
        admin.autocommit = True
        words = admin.cursor()
        for setting in ("on", "off"):
            words.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}")
            words.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            if setting == "on":
                yield


@pytest.mark.slow
def test_a_postgresql_that_hangs(env, health, postgres):
    """Nothing comes back from it, and nothing says that it is gone: the answer comes all the same, and in time."""
    env.server(database=postgres.new_database())
    backends = psutil.Process(postgres.process.pid).children()
    for backend in backends:
        backend.suspend()
    try:
        health.falls("took no write")
    finally:
        for backend in backends:
            backend.resume()
    health.becomes(200)
    assert env.create("true")
