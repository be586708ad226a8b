"""Promise 30: SIGTERM ends server, worker and run in order in less than 5 seconds, whatever they are doing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from urllib.parse import urlsplit

import psutil
import pytest
from env import PROGRAM, Process
from scitq.errors import ScitqError
from scitq.transport import Connection

WITHIN_SECONDS = 5.0
COUNT = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done"
STUBBORN = "trap '' TERM INT HUP; while true; do sleep 0.1; done"


def end(process: Process, number: int = signal.SIGTERM) -> int:
    """Asks it to end: its exit code. Fails if that takes too long."""
    process.ended_by_test = True
    process.signal(number)
    return process.wait_exit(WITHIN_SECONDS)


# --- the server ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_ends_among_long_polls_output_and_submissions(env_on_each):
    """Held requests are answered, slow and silent connections hold nobody up, and what was acknowledged is there again."""
    end_busy(env_on_each, signal.SIGTERM)


@pytest.mark.slow
def test_a_busy_server_ends_with_ctrl_c(env):
    end_busy(env, signal.SIGINT)


def end_busy(env, number: int) -> None:
    server = env.server()
    env.worker(2)
    tasks = env.create(COUNT, COUNT)
    env.wait_state(tasks, "running")
    version, execution = env.api("GET", "/tasks/counts")["version"], env.executions(tasks[0])[0]["id"]
    acknowledged: list[int] = []
    calls = [lambda: submit(env, acknowledged)] * 2
    calls += [lambda: poll(env, f"/tasks/counts?version={version + 10**6}&wait=30")] * 3
    calls += [lambda: poll(env, f"/executions/{execution}/stderr?wait=30")] * 3
    threads = [threading.Thread(target=quietly, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    silent, slow = connect(server.url), connect(server.url)
    slow.sendall(b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    env.until(lambda: len(acknowledged) > 20, what="submissions")
    assert end(server, number) == 0
    for thread in threads:
        thread.join(WITHIN_SECONDS)
        assert not thread.is_alive()
    silent.close()
    slow.close()
    assert not (server.data / "server.json").exists()
    server.start()
    assert set(acknowledged) <= {row["id"] for row in env.items("/tasks")}
    env.until(lambda: len(env.stdout(tasks[0]).split()) > 100, what="its output goes on")
    assert in_order(env.stdout(tasks[0])) and [len(env.executions(task)) for task in tasks] == [1, 1]


def in_order(output: bytes) -> bool:
    lines = output.split(b"\n")[:-1]
    return lines == [b"%d" % number for number in range(1, len(lines) + 1)]


def submit(env, acknowledged: list[int]) -> None:
    with Connection(env.url, env.token) as connection:
        while (answer := connection.request("POST", "/api/v1/tasks", {"command": "true", "batch": "nobody"})).status == 201:
            acknowledged += answer.json()["ids"]


def poll(env, path: str) -> None:
    with Connection(env.url, env.token) as connection:
        connection.request("GET", "/api/v1" + path, timeout=40)


def quietly(call) -> None:
    """A request that may come too late for a server that ends, or be refused by it."""
    with contextlib.suppress(ScitqError, AssertionError):
        call()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), 10)


@pytest.mark.slow
def test_a_server_ends_though_its_sqlite_file_is_locked(env):
    """A tool that holds the file makes writes wait; it does not keep the server."""
    server = env.server()
    (task,) = env.create("true")
    with contextlib.closing(sqlite3.connect(server.data / "scitq.db", isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=quietly, args=(lambda: env.create("true"),))
        waiting.start()
        env.until(lambda: waiting.is_alive(), what="a submission waits")
        end(server)
        waiting.join(WITHIN_SECONDS)
        assert not waiting.is_alive()
    server.start()
    assert env.state(task) == "pending"


@pytest.mark.slow
def test_a_server_ends_though_its_postgresql_hangs(env, postgres):
    """The connections stand still, as when the other machine is cut off."""
    server = env.server(database=postgres.new_database())
    env.create("true")
    backends = psutil.Process(postgres.process.pid).children()
    try:
        for backend in backends:
            backend.suspend()
        waiting = threading.Thread(target=quietly, args=(lambda: env.create("true"),))
        waiting.start()
        end(server)
        waiting.join(WITHIN_SECONDS)
        assert not waiting.is_alive()
    finally:
        for backend in backends:
            backend.resume()
    server.start()
    assert env.items("/tasks")


@pytest.mark.parametrize("after", [0.02, 0.1, 0.2, 0.4])
def test_a_server_ends_while_it_starts(env, after):
    """Whenever the signal comes: it ends, and the next start finds all in order."""
    words = ["server", "--port", "0", "--data", str(env.directory / "d")]
    starting = env.start(f"early{after}", *words)
    time.sleep(after)  # not to wait for anything: the moment is what is tried
    assert end(starting) in (0, -signal.SIGTERM)
    env.server(data=env.directory / "d")
    assert env.create("true")


# --- the worker ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_among_tasks_and_their_output(env, number):
    """Its commands go on, and the next one goes on with them: nothing is missing, nothing was run twice."""
    env.server()
    worker = env.worker(3)
    tasks = env.create(COUNT, STUBBORN, "head -c 20000000 /dev/zero; sleep 1000")
    env.wait_state(tasks, "running")
    env.until(lambda: len(env.stdout(tasks[0])) > 50, what="output")
    assert end(worker, number) == 0
    assert "3 commands go on without the worker" in worker.output()
    worker.start()
    env.until(lambda: len(env.stdout(tasks[0]).split()) > 200, what="its output goes on")
    assert in_order(env.stdout(tasks[0])) and [len(env.executions(task)) for task in tasks] == [1, 1, 1]


def test_a_worker_ends_though_its_server_stands_still(env):
    server = env.server()
    worker = env.worker(1)
    env.wait_state(env.create(COUNT), "running")
    server.pause()
    assert end(worker) == 0
    server.resume()


def test_a_worker_ends_while_it_waits_for_its_server(env):
    server = env.server()
    worker = env.worker(1)
    assert end(worker) == 0
    server.stop()
    worker.start()
    env.until(lambda: "waiting for it" in worker.output(), what="it waits")
    assert end(worker) == 0


def test_a_keeper_ends_and_its_commands_with_it(env):
    """As a machine that shuts down would have it: asked, then, after the grace of the stubborn, killed with the machine."""
    env.server()
    worker = env.worker(2)
    tasks = env.create(COUNT, COUNT)
    env.wait_state(tasks, "running")
    (keeper,) = [pid for pid, line in env.leftovers().items() if "keeper" in line.split()]
    assert end(worker) == 0
    began = time.monotonic()
    os.kill(keeper, signal.SIGTERM)
    env.until(
        lambda: not [line for line in env.leftovers().values() if "server" not in line.split()], WITHIN_SECONDS, "all ended"
    )
    assert time.monotonic() - began < WITHIN_SECONDS


# --- run and the commands that wait ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_run_ends_with_all_that_it_started(env, tmp_path, number, code):
    """Server, worker, keeper and commands, the stubborn too; the same command goes on where it was."""
    (tmp_path / "b.yaml").write_text(
        "batch: b\ntasks:\n"
        f"  - {{name: done, shell: true, command: 'echo once >> {tmp_path}/once'}}\n"
        f"  - {{name: long, shell: true, command: 'until [ -e {tmp_path}/go ]; do sleep 0.05; done'}}\n"
        f'  - {{name: stubborn, shell: true, command: "[ -e {tmp_path}/go ] || {{ {STUBBORN}; }}"}}\n'
    )
    run = env.start("run", "run", "-j", "3", str(tmp_path / "b.yaml"), cwd=tmp_path)
    env.until(lambda: (tmp_path / "once").exists() and len(re.findall("sleep 0", str(env.leftovers()))) >= 2, what="they run")
    assert end(run, number) == code
    assert "goes on where it was" in run.output()
    env.until(lambda: env.leftovers() == {}, 10.0, "nothing is left")
    (tmp_path / "go").touch()
    env.cli("run", "-q", str(tmp_path / "b.yaml"), cwd=tmp_path, code=0)
    assert (tmp_path / "once").read_text() == "once\n"


def test_commands_that_wait_are_interrupted(env):
    """Ctrl-C: 130, and the task goes on."""
    env.server()
    env.worker(1)
    follower = env.start("follower", "launch", "--wait", "--shell", COUNT)
    env.until(lambda: follower.output().count("\n") > 3, what="it follows")
    assert end(follower, signal.SIGINT) == 130
    assert "Traceback" not in follower.output()
    assert [row["state"] for row in env.items("/tasks")] == ["running"]


def test_a_full_pipe_keeps_nobody(env):
    """Whoever reads the output of a command that follows has stopped reading."""
    env.server()
    env.worker(1)
    follower = subprocess.Popen(
        [*PROGRAM, "launch", "--wait", "yes"], env=env.variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd=env.directory,
    )  # fmt: skip
    env.until(lambda: [row for row in env.items("/tasks") if row["state"] == "running"], what="it runs")
    follower.stdout.read(100)
    follower.send_signal(signal.SIGINT)
    assert follower.wait(WITHIN_SECONDS) in (130, -signal.SIGINT)
    follower.stdout.close()
