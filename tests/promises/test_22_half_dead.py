"""Promise 22: half-dead connections, silent, slow, never reading, reset, stop nobody."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

import pytest
from clock import Clock
from env import Env
from scitq.errors import Unreachable
from scitq.transport import Connection

BIG = "x" * 100_000  # of a command: 200 of them are a page of 20 MB
ANSWER_SECONDS = 3.0


def connect(env: Env) -> socket.socket:
    parts = urlsplit(env.url)
    return socket.create_connection((parts.hostname, parts.port), 10)


def head(env: Env, method: str, path: str, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {env.token}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def silent(env: Env) -> socket.socket:
    """Says nothing at all."""
    return connect(env)


def unfinished(env: Env) -> socket.socket:
    """Announces more than it ever sends."""
    made = connect(env)
    made.sendall(head(env, "POST", "/api/v1/tasks", "Content-Type: application/json", "Content-Length: 100000") + b'{"command"')
    return made


def without_end_of_head(env: Env) -> socket.socket:
    made = connect(env)
    made.sendall(head(env, "GET", "/api/v1/server")[:-2] + b"X-More: ")
    return made


def never_reading(env: Env) -> socket.socket:
    """Asks for a page of many megabytes and does not take it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    parts = urlsplit(env.url)
    made.connect((parts.hostname, parts.port))
    made.sendall(head(env, "GET", "/api/v1/tasks?batch=nobody&limit=200"))
    return made


def waiting(env: Env) -> socket.socket:
    """Asks to be told of changes, and is not there any more."""
    made = connect(env)
    made.sendall(head(env, "GET", "/api/v1/tasks/counts?version=1&wait=60"))
    return made


def reset(env: Env) -> socket.socket:
    """Resets the line in the middle of a request."""
    made = unfinished(env)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()
    return made


KINDS = {kind.__name__: (kind, count) for kind, count in [
    (silent, 100), (unfinished, 60), (without_end_of_head, 60), (never_reading, 10), (waiting, 60), (reset, 60),
]}  # fmt: skip


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A server with a long list of tasks, and a worker."""
    env = Env(tmp_path_factory.mktemp("busy"))
    env.server()
    env.create(*[{"command": BIG, "batch": "nobody"}] * 200)
    env.worker(2)
    yield env
    env.close()


def answers_soon(env: Env) -> bool:
    with Connection(env.url, env.token, timeout=ANSWER_SECONDS) as connection, contextlib.suppress(Unreachable):
        return connection.request("GET", "/api/v1/server").status == 200
    return False


def check_alive(env: Env) -> None:
    """Others get their answers, and tasks run and end, as ever."""
    env.until(lambda: all(answers_soon(env) for _ in range(5)), what="answers come soon")
    began = time.monotonic()
    tasks = env.create(*["echo well"] * 5)
    env.wait_state(tasks)
    assert env.stdout(tasks[0]) == b"well\n" and time.monotonic() - began < 6 * ANSWER_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_clients(busy, kind):
    make, count = KINDS[kind]
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(contextlib.closing(make(busy)))
        check_alive(busy)
    check_alive(busy)


def test_a_slow_client_is_served_and_keeps_nobody(busy):
    """Its request comes byte by byte."""
    request, answers = head(busy, "GET", "/health/live", "Connection: close"), []

    def trickle() -> None:
        with connect(busy) as slow:
            for position in range(0, len(request), 4):
                slow.sendall(request[position : position + 4])
                time.sleep(0.02)
            answers.append(slow.recv(1000))

    threads = [threading.Thread(target=trickle) for _ in range(30)]
    for thread in threads:
        thread.start()
    check_alive(busy)
    for thread in threads:
        thread.join(60)
    assert len(answers) == 30 and all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


def test_a_worker_whose_line_freezes_finds_another(env):
    """Nobody is told that its connections are dead. Its time goes ten times as fast here, so that its patience ends sooner."""
    clock = Clock(env.directory, monotonic=True)
    clock.run(10)
    env.server()
    relay = env.relay()
    env.worker(1, server=relay.url, variables=clock.variables)
    env.worker(1, batch="well")
    gate = env.directory / "gate"
    at_true_time = {"shell": "sh", "env": {"LD_PRELOAD": ""}}
    [task] = env.create({"command": f"while [ ! -e {gate} ]; do sleep 0.05; done; echo x", **at_true_time})
    env.wait_state(task, "running")
    relay.freeze()
    gate.touch()
    others = env.create(*[{"command": "true", "batch": "well"}] * 5)
    env.wait_state(others)
    env.wait_state(task)
    assert len(env.executions(task)) == 1 and env.stdout(task) == b"x\n"
    [after] = env.create({"command": "true", **at_true_time})
    env.wait_state(after)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_line_that_is_silent_one_way_holds_up_its_own_worker_alone(env, way):
    env.server()
    relay = env.relay()
    env.worker(1, server=relay.url)
    env.worker(1, batch="well")
    gate = env.directory / "gate"
    [task] = env.create(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo x")
    env.wait_state(task, "running")
    relay.silent = {way}
    gate.touch()
    env.wait_state(env.create(*[{"command": "true", "batch": "well"}] * 5))
    relay.silent = set()
    env.wait_state(task)
    assert len(env.executions(task)) == 1 and env.stdout(task) == b"x\n"


@pytest.mark.slow
def test_a_line_that_is_cut_all_the_time(env):
    env.server()
    relay = env.relay()
    env.worker(2, server=relay.url)
    tasks = env.create(*["sleep 0.1; echo x"] * 10)
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        time.sleep(0.15)
        relay.cut()
    env.wait_state(tasks)
    assert all(len(env.executions(task)) == 1 and env.stdout(task) == b"x\n" for task in tasks)
