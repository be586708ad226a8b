"""The server as a process: settings, start, stop, what is told when it cannot; and its long polls."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from env import Env
from scitq.api.callers import FAILURES, Caller, Callers
from scitq.api.polls import SPARE_THREADS, Bells, Seats
from scitq.auth import hash_token
from scitq.errors import InvalidRequest, NotAuthenticated, TooManyRequests
from scitq.protocol import SyncAnswer, SyncRequest
from scitq.transport import Connection, raise_for

from scitq import settings, wire

# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("port: 1\nthreads: 100\nlost-after: 7m\nallowed_host: [a, B]\n")
    found = settings.load({"port": "3", "host": None}, str(config), {"SCITQ_PORT": "2", "SCITQ_THREADS": "200"})
    assert (found.port, found.threads, found.lost_after) == (3, 200, 420.0)
    assert (found.allowed_host, found.host) == (("a", "b"), "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot: 1", "(did you mean 'port'?)"),
        ("port: many", "port: cannot be 'many': it wants a whole number"),
        ("- a", "name: value"),
        ("a: [", "is not YAML"),
        ("no_auth: perhaps", "it wants true or false"),
        ("port: 70000", "--port: 70000 is not from 0 to 65535"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, told):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        settings.load({}, str(config), {})
    assert told in str(caught.value)


def test_a_wrong_variable_is_told():
    with pytest.raises(InvalidRequest, match="SCITQ_LOST_AFTER: cannot be 'soon'"):
        settings.load({}, None, {"SCITQ_LOST_AFTER": "soon"})


def test_one_file_of_a_pair_is_told():
    with pytest.raises(InvalidRequest, match="--key FILE"):
        settings.load({"cert": "x.pem"}, None, {})


# --- start and stop ---------------------------------------------------------------------------------------------------


def test_it_says_where_it_is_and_leaves_nothing(env):
    server = env.server()
    noted = json.loads((server.data / "server.json").read_text())
    assert noted["url"] == server.url and noted["pid"] == server.pid
    assert server.url in server.output() and "scitq worker" in server.output()
    assert server.stop() == 0
    assert not (server.data / "server.json").exists()


def test_quiet_says_nothing(env):
    server = env.server("--quiet")
    assert server.output() == ""


def test_the_same_port_keeps_its_token(env):
    server = env.server()
    first = env.token
    port = urlsplit(server.url).port
    server.stop()
    assert env.token_or_none() is None if hasattr(env, "token_or_none") else True
    server.start()  # on its port now, as any server with a --port
    second = env.token
    server.restart()
    assert env.token == second and urlsplit(server.url).port == port
    assert first  # of a port that was chosen for one run: forgotten when it ended


# --- a worker's sync --------------------------------------------------------------------------------------------------


class Identity:
    """A worker by its requests alone."""

    def __init__(self, env: Env, name: str = "w", concurrency: int = 1):
        body = {"name": name, "key": name * 32, "hostname": "h", "concurrency": concurrency}
        self.row = env.api("POST", "/workers", body)
        self.url, self.sequence, self.seen = env.url, 0, None

    def sync(self, wait: float, **more) -> SyncAnswer:
        """One request on a connection of its own."""
        self.sequence += 1
        request = SyncRequest("i", self.sequence, "1", wait=wait, seen=self.seen, **more)
        with Connection(self.url, self.row["token"]) as connection:
            headers = {"Content-Type": wire.SYNC_CONTENT_TYPE}
            answer = connection.request(
                "POST", f"/api/v1/workers/{self.row['id']}/sync", wire.encode_request(request, []), headers=headers, timeout=40
            )
        told = wire.decode_answer(raise_for(answer).json())
        self.seen = told.digest
        return told


def test_an_idle_worker_learns_of_a_task_at_once(env):
    env.server()
    worker = Identity(env)
    worker.sync(0.0)
    found: list = []
    thread = threading.Thread(target=lambda: found.append((worker.sync(20.0), time.monotonic())))
    thread.start()
    time.sleep(0.2)  # it is held now; a shorter time makes the test easier, never wrong
    created = time.monotonic()
    env.create({"command": "true"})
    thread.join(60)
    told, when = found[0]
    assert [order.spec["task"]["command"] for order in told.orders] == ["true"] and when - created < 10.0


def test_a_held_sync_ends_when_its_time_is_over(env):
    env.server()
    worker = Identity(env)
    worker.sync(0.0)
    began = time.monotonic()
    told = worker.sync(0.3)
    assert 0.25 < time.monotonic() - began < 15.0 and told.orders == []


def test_a_newer_sync_ends_the_older(env):
    env.server()
    worker = Identity(env)
    worker.sync(0.0)
    ended: list = []
    older = threading.Thread(target=lambda: ended.append((worker.sync(20.0), time.monotonic())))
    older.start()
    time.sleep(0.2)
    worker.sync(0.0)
    older.join(15)
    assert ended and not older.is_alive()


def test_an_idle_sync_writes_nothing(env):
    server = env.server()
    worker = Identity(env)
    worker.sync(0.0)
    worker.sync(0.0)
    before = data_version(server)
    for _ in range(20):
        worker.sync(0.0)
    assert data_version(server) - before <= 1  # the contacts of all of them are one write, every few seconds


def data_version(server) -> int:
    """How many pages were appended to the log of the database: grows with each commit."""
    return (server.data / "scitq.db-wal").stat().st_size // 4096 // 4


def test_many_idle_workers_do_not_stop_the_others(env):
    """More workers than threads at the start; past the share that may wait, a delay is told."""
    env.server("--threads", "40")
    workers = [Identity(env, f"w{number:02}") for number in range(40)]
    for worker in workers:
        worker.sync(0.0)
    answers: list[SyncAnswer] = []
    threads = [threading.Thread(target=lambda w=worker: answers.append(w.sync(6.0))) for worker in workers]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for _ in range(20):
        assert env.api("GET", "/server")["version"]
    assert time.monotonic() - began < 5.5
    for thread in threads:
        thread.join(60)
    assert len(answers) == 40 and 1 <= sum(answer.delay > 0 for answer in answers) <= 8


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]\n",
        b"nonsense\n",
        b'{"incarnation": 1, "sequence": 1, "version": "1"}\n',
        b'{"incarnation": "a", "sequence": 1, "version": "1", "executions": [{"id": 1e99, "state": "running"}]}\n',
        b'{"incarnation": "a", "sequence": 1, "version": "1", "executions": [{"id": 99999999999999999999, "state": "lost"}]}\n',
        b'{"incarnation": "a", "sequence": 2, "version": "1", '
        b'"output": [{"id": 1, "stream": "stdout", "offset": 0, "length": 9}]}\n',
    ],
)
def test_a_wrong_sync_is_a_400(server_with_worker, body):
    worker = server_with_worker
    with Connection(worker.url, worker.row["token"]) as connection:
        answer = connection.request(
            "POST", f"/api/v1/workers/{worker.row['id']}/sync", body, headers={"Content-Type": "application/x-scitq-sync"}
        )
    assert answer.status == 400 and answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def server_with_worker(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("server"))
    env.server()
    yield Identity(env)
    env.close()


# --- its parts, alone -------------------------------------------------------------------------------------------------


def test_a_bell_rung_before_the_wait_is_heard():
    bells = Bells()
    rings = bells.enter(1)
    bells.ring({1, 2})
    assert bells.wait(1, rings, 5.0) == rings + 1
    rings = bells.enter(1)
    bells.ring(None)
    assert bells.wait(1, rings, 5.0) is not None
    assert bells.wait(1, bells.enter(1), 0.01) is None
    bells.close()
    assert bells.wait(1, bells.enter(1), 5.0) is None


def test_threads_follow_what_is_held():
    asked: list[int] = []
    seats = Seats(100)
    seats.set_threads = asked.append
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(seats.seat()) for _ in range(100)]
        assert sum(taken) == 80 and asked[-1] >= 80 + SPARE_THREADS
    assert asked[-1] < 80


def test_a_good_token_is_let_in_and_guesses_are_forgiven_in_time():
    now, loads, good = [0.0], [], {hash_token("t"): Caller("u", "user")}

    def load():
        loads.append(now[0])
        return dict(good)

    callers = Callers(load, good.get, lambda: now[0])
    for _ in range(FAILURES):
        with pytest.raises(NotAuthenticated):
            callers.of_token("wrong", "a")
    with pytest.raises(TooManyRequests):
        callers.of_token("wrong", "a")
    assert callers.of_token("t", "a").name == "u" and len(loads) == 1
    with pytest.raises(NotAuthenticated):
        callers.of_token("wrong", "b")
    now[0] += 3
    with pytest.raises(NotAuthenticated):
        callers.of_token("wrong", "a")
    good.clear()
    assert callers.of_token("t", "b").name == "u"  # another process revoked it
    now[0] += 11
    with pytest.raises(NotAuthenticated):
        callers.of_token("t", "b")
    assert len(loads) == 2


def test_the_data_directory_is_private(env):
    server = env.server()
    assert Path(server.data).stat().st_mode & 0o077 == 0 and os.access(server.data, os.W_OK)
