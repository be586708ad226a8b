"""Promise 3: a bulk submission is all or nothing; a bad item is named by its index."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from env import Env
from scitq.errors import ScitqError
from scitq.transport import Connection
from strikes import ready_or_dead, start_struck

MANY = 3000
BAD = {
    "no command": ({"name": "x"}, "command"),
    "a command that is none": ({"command": 7}, "command"),
    "an empty command": ({"command": "  "}, "command"),
    "NUL": ({"command": "a\0b"}, "command"),
    "half a character": ({"command": "a\ud800b"}, "command"),
    "an unknown field": ({"command": "x", "retries": 2}, "retries"),
    "a wrong type": ({"command": "x", "retry": "often"}, "retry"),
    "a number without end": ({"command": "x", "run_timeout": -1}, "run_timeout"),
    "a shell that is none": ({"command": "x", "shell": "tcsh"}, "shell"),
    "needs what is not there": ({"command": "x", "require": [10**8]}, "require"),
    "needs an item that is not there": ({"command": "x", "require": ["#7"]}, "require"),
    "needs itself": ({"command": "x", "require": ["#4"]}, "require"),
    "not a task": ("x", None),
    "nothing": (None, None),
    "a list": ([], None),
}


def everything(env: Env) -> list:
    return [env.items(path) for path in ("/tasks", "/batches", "/events")]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_item_is_named_and_nothing_is_kept(served, batch, kind):
    item, field = BAD[kind]
    good = {"command": "x", "batch": f"new {batch}"}
    before = everything(served)
    answer = served.answer("POST", "/tasks", {"tasks": [good, good, good, good, item, good, good]})
    assert answer.status == 400, answer.body
    error = answer.json()["error"]
    assert error["field"] == ("tasks[4]" if field is None else f"tasks[4].{field}") and error["message"], error
    assert everything(served) == before


def test_a_bad_item_among_many_is_the_first_or_the_last(served, batch):
    good = {"command": "x", "batch": batch}
    for index in (0, MANY - 1):
        tasks = [good] * MANY
        tasks[index] = {**good, "priority": "high"}
        error = served.answer("POST", "/tasks", {"tasks": tasks}).json()["error"]
        assert error["field"] == f"tasks[{index}].priority"
    tasks = [{**good, "require": [f"#{(i + 1) % MANY}"]} for i in range(MANY)]
    answer = served.answer("POST", "/tasks", {"tasks": tasks})
    assert answer.status == 400 and answer.json()["error"]["field"].startswith("tasks[")
    assert served.items("/tasks", batch=batch) == []


def test_nobody_sees_a_part(served, batch):
    stop, seen = threading.Event(), set()

    def look() -> None:
        with Connection(served.url, served.token) as connection:
            while not stop.is_set():
                counts = connection.request("GET", "/api/v1/tasks/counts", query={"batch": batch}).json()["counts"]
                seen.add(sum(counts.values()))

    served.create({"command": "x", "batch": batch})
    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(3):
        served.create(*[{"command": "x", "batch": batch}] * MANY)
    stop.set()
    thread.join()
    assert seen <= {1, MANY + 1, 2 * MANY + 1, 3 * MANY + 1}, seen


def test_a_bad_item_of_a_bulk_change_changes_nothing(served, batch):
    """An edit of many whose result is wrong for one; a change that one of them does not allow is told by id."""
    first, second = served.create({"command": "echo a", "batch": batch}, {"command": "b", "batch": batch, "require": ["#0"]})
    before = served.items("/tasks", batch=batch)
    assert served.answer("POST", "/tasks/edit", {"ids": [second, first], "set": {"require": [second]}}).status == 400
    assert served.items("/tasks", batch=batch) == before
    done = served.api("POST", "/tasks/cancel", {"ids": [first, 10**8]})
    assert done["ids"] == [first] and [row["id"] for row in done["skipped"]] == [10**8]


def test_a_body_that_breaks_off(served, batch):
    """The line is cut inside of it: what came whole of it counts for nothing."""
    body = json.dumps({"tasks": [{"command": "x", "batch": batch}] * 100}).encode()
    parts = urlsplit(served.url)
    for sent in (body[:-1], body[: len(body) // 2], body[:-2] + b"}"):
        head = f"POST /api/v1/tasks HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {served.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((parts.hostname, parts.port)) as line:
            line.sendall(head.encode() + sent)
            line.shutdown(socket.SHUT_WR)
            line.settimeout(10)
            assert b" 201 " not in line.recv(1000)
    assert served.items("/tasks", batch=batch) == []


def test_killed_amid_a_bulk(env_on_each):
    env, moments = env_on_each, random.Random(3)
    server = env.server()
    seen = set()
    for number in range(3):
        _bulk_and_kill(env, server, number, moments.uniform(0.0, 0.25))
        server.start()
        seen.add(len(env.items("/tasks", batch=f"b{number}")))
    assert seen <= {0, MANY}


@pytest.mark.slow
def test_killed_at_any_write_of_a_bulk(env):
    """A bulk is many pages of the WAL: killed after any of them there is none of it."""
    server = env.server()
    seen = {}
    for when in (30, 100, 180):
        server.stop()
        start_struck(server, "pwrite64", when)
        assert ready_or_dead(server)
        _bulk_and_kill(env, server, when, 10.0)
        server.start()
        seen[when] = len(env.items("/tasks", batch=f"b{when}"))
    assert set(seen.values()) <= {0, MANY} and 0 in seen.values(), seen


def _bulk_and_kill(env: Env, server, number: int, seconds: float) -> None:
    """Sends a bulk and kills the server so many seconds later, unless it has ended before."""

    def send() -> None:
        body = {"tasks": [{"command": "x", "batch": f"b{number}"}] * MANY}
        with contextlib.suppress(ScitqError, OSError), Connection(env.url, env.token) as connection:  # the server dies meanwhile
            connection.request("POST", "/api/v1/tasks", body)

    request = threading.Thread(target=send)
    request.start()
    deadline = time.monotonic() + seconds
    while server.alive and request.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    server.kill9()
    request.join()
