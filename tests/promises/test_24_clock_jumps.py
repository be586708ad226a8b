"""Promise 24: clock jumps change nothing: neither the server's nor a worker's time of day is trusted for any duration."""

from __future__ import annotations

import select
import socket
import time
from datetime import datetime
from urllib.parse import urlsplit

import pytest
from clock import Clock
from env import Env, ServerProcess

JUMPS = ["+400d", "-3000d", "+1d"]


def gated(env: Env, name: str) -> dict:
    """A task that runs until its file is there."""
    return {"command": f"echo begun; while [ ! -e {env.directory / name} ]; do sleep 0.05; done; echo ended", "shell": "sh"}


def seconds(row: dict, name: str) -> float:
    return datetime.fromisoformat(row[name].replace("Z", "+00:00")).timestamp()


def opened(server: ServerProcess) -> socket.socket:
    """A connection on which one request was answered."""
    parts = urlsplit(server.url)
    connection = socket.create_connection((parts.hostname, parts.port), 10)
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.strip().endswith(b"}"):  # the whole of its JSON
        answer += connection.recv(10_000)
    assert b" 200 " in answer
    return connection


def check_once(env: Env, task: int, output: bytes = b"begun\nended\n") -> None:
    env.wait_state(task)
    assert [row["state"] for row in env.executions(task)] == ["succeeded"] and env.stdout(task) == output


def check_limit(env: Env, task: int) -> None:
    """It was ended because its time was up."""
    env.wait_state(task, "failed")
    assert "time limit" in env.executions(task)[0]["reason"]


@pytest.mark.slow
def test_the_servers_clock_jumps(env):
    """Days and years, to and fro, while tasks wait, run, end, and are submitted twice."""
    clock = Clock(env.directory)
    server = env.server("--lost-after", "5s", variables=clock.variables)
    worker = env.worker(3)
    [long] = env.create(gated(env, "go"))
    env.wait_state(long, "running")
    idle = opened(server)
    key = {"Idempotency-Key": "the-same-request"}
    first = env.answer("POST", "/tasks", {"command": "echo once"}, headers=key).json()["ids"]
    began = time.monotonic()
    [limited] = env.create({"command": "sleep 100", "run_timeout": 3.0})
    tasks = []
    for jump in JUMPS:
        clock.set(jump)
        tasks += env.create("echo now; sleep 0.2", {"command": "false", "retry": 1})
        env.wait_state(tasks[-2:], "succeeded", "failed")
        assert env.answer("POST", "/tasks", {"command": "echo once"}, headers=key).json()["ids"] == first
        assert worker.row["state"] == "online" and env.state(long) == "running"
        assert server.alive and env.answer("GET", "/server").status == 200
    assert tasks == sorted(tasks)
    with idle:
        assert not select.select([idle], [], [], 0)[0], "a connection was closed"
    check_limit(env, limited)
    assert time.monotonic() - began > 2.9
    (env.directory / "go").touch()
    check_once(env, long)
    check_once(env, first[0], b"once\n")
    assert all(len(env.executions(task)) == 1 + (index % 2) for index, task in enumerate(tasks))


def test_a_duration_is_never_negative(env):
    """A task begins before the server's clock is set back, and ends after it."""
    clock = Clock(env.directory)
    env.server(variables=clock.variables)
    env.worker(1)
    [task] = env.create(gated(env, "go"))
    env.wait_state(task, "running")
    clock.set("-2h")
    (env.directory / "go").touch()
    check_once(env, task)
    [row] = env.executions(task)
    assert seconds(row, "ended_at") >= seconds(row, "started_at")


@pytest.mark.slow
def test_a_workers_clock_is_wrong_and_jumps(env):
    """Its times are told by the server's clock; limits hold; it is killed and restarted at another time of day."""
    clock = Clock(env.directory)
    clock.set("+400d")
    env.server("--lost-after", "20s")
    worker = env.worker(3, variables=clock.variables)
    true_time = time.time()
    [long, ends_meanwhile] = env.create(gated(env, "go"), gated(env, "meanwhile"))
    [limited] = env.create({"command": "sleep 100", "run_timeout": 3.0})
    env.wait_state([long, ends_meanwhile, limited], "running")
    for jump in ("-2000d", "+1h"):
        clock.set(jump)
        env.until(lambda seen=worker.row["contact_at"]: worker.row["contact_at"] > seen, what="it goes on speaking")
        assert worker.row["state"] == "online" and env.state(long) == "running"
    worker.kill9()
    clock.set("-1d")
    (env.directory / "meanwhile").touch()
    env.until(lambda: not any("meanwhile" in line for line in env.leftovers().values()), what="it ended without a worker")
    clock.set("+10d")
    worker.start()
    check_once(env, ends_meanwhile)
    check_limit(env, limited)
    (env.directory / "go").touch()
    check_once(env, long)
    for task in (long, ends_meanwhile, limited):
        [row] = env.executions(task)
        assert true_time - 1 < seconds(row, "started_at") < seconds(row, "ended_at") - 0.3 < time.time() + 1
    [row] = env.executions(limited)
    assert 2.5 < seconds(row, "ended_at") - seconds(row, "started_at") < 30


def test_who_waits_is_not_confused(env):
    """A client whose clock jumps while it follows a task."""
    clock = Clock(env.directory)
    env.server()
    env.worker(1)
    command = "echo begun; sleep 1.5; echo ended"
    waiting = env.start("client", "launch", "--wait", "--shell", command, variables=clock.variables)
    env.until(lambda: "begun" in waiting.output())
    for jump in ("+3000d", "-3000d"):
        clock.set(jump)
        time.sleep(0.3)  # it looks at the clock, if it does
    assert waiting.wait_exit() == 0 and waiting.output().count("ended") == 1
