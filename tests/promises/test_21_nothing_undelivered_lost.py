"""Promise 21: a worker that is restarted while the server is away keeps what it has not delivered."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from env import Env, ServerProcess, WorkerProcess

NUMBERS = "".join(f"{n}\n" for n in range(1, 30001)).encode()


def gated(env: Env, then: str, name: str = "away") -> dict:
    command = f"echo $SCITQ_TASK_ID >> {env.directory}/starts; while [ ! -e {env.directory / name} ]; do sleep 0.05; done; {then}"
    return {"command": command, "shell": "sh"}


def wait_all_ended(env: Env, name: str = "away") -> None:
    """No command waits for its gate any more."""
    path = str(env.directory / name)
    env.until(lambda: not any(path in line for line in env.leftovers().values()), what="the commands have ended")


def kill_keeper(env: Env) -> None:
    for pid, line in env.leftovers().items():
        if "keeper" in line.split():
            os.kill(pid, signal.SIGKILL)


def check(env: Env, tasks: list[int]) -> None:
    """Three tasks as `create` makes them: each ended as it did, with all its output, and ran once."""
    good, bad, killed = tasks
    env.wait_state(tasks, "succeeded", "failed")
    assert [env.state(task) for task in tasks] == ["succeeded", "failed", "failed"]
    assert env.stdout(good) == NUMBERS and env.stdout(good, "stderr") == b"bye\n"
    assert env.stdout(bad) == b"" and env.stdout(bad, "stderr") == NUMBERS and env.executions(bad)[0]["exit_code"] == 7
    assert env.executions(killed)[0]["signal"] == 9
    for task in tasks:
        assert len(env.executions(task)) == 1
        assert (env.directory / "starts").read_text().split().count(str(task)) == 1


def create(env: Env) -> list[int]:
    return env.create(gated(env, "seq 30000; echo bye >&2"), gated(env, "seq 30000 >&2; exit 7"), gated(env, "kill -9 $$"))


def away(env: Env) -> tuple[ServerProcess, WorkerProcess, list[int]]:
    """Three tasks have begun, the server is gone."""
    server = env.server()
    worker = env.worker(3)
    tasks = create(env)
    env.wait_state(tasks, "running")
    server.kill9()
    return server, worker, tasks


@pytest.mark.parametrize("how", ["kill9", "stop"])
def test_restarted_after_they_ended(env_on_each, how):
    env = env_on_each
    server, worker, tasks = away(env)
    (env.directory / "away").touch()
    wait_all_ended(env)
    getattr(worker, how)()
    worker.start()
    server.start()
    check(env, tasks)


def test_they_end_while_no_worker_is_there(env):
    server, worker, tasks = away(env)
    worker.kill9()
    (env.directory / "away").touch()
    wait_all_ended(env)
    worker.start()
    server.start()
    check(env, tasks)


def test_they_end_while_it_waits_for_the_server(env):
    """Restarted, it cannot even say who it is; killed once more, and the server comes back before it does."""
    server, worker, tasks = away(env)
    worker.kill9()
    worker.start()
    env.until(lambda: "waiting for it" in worker.output())
    (env.directory / "away").touch()
    wait_all_ended(env)
    worker.kill9()
    server.start()
    worker.start()
    check(env, tasks)


def test_its_keeper_is_killed_too(env):
    """As at a crash of the machine, once the commands have ended: their ends and their output are on its disk."""
    server, worker, tasks = away(env)
    (env.directory / "away").touch()
    wait_all_ended(env)
    env.until(lambda: len(list(worker.directory.glob("executions/*/end.json"))) == 3)
    worker.kill9()
    kill_keeper(env)
    worker.start()
    server.start()
    check(env, tasks)


def test_a_command_that_its_keeper_left_behind_is_run_again_and_the_others_are_kept(env):
    server, worker, tasks = away(env)
    (env.directory / "away").touch()
    wait_all_ended(env)
    env.until(lambda: len(list(worker.directory.glob("executions/*/end.json"))) == 3)
    server.start()
    [unlucky] = env.create(gated(env, "echo whole", "later"))
    env.wait_state(unlucky, "running")
    server.kill9()
    worker.kill9()
    kill_keeper(env)
    worker.start()
    server.start()
    env.until(lambda: len(env.executions(unlucky)) == 2 and env.state(unlucky) == "running")
    (env.directory / "later").touch()
    env.wait_state(unlucky)
    assert [row["state"] for row in env.executions(unlucky)] == ["lost", "succeeded"] and env.stdout(unlucky) == b"whole\n"
    check(env, tasks)


@pytest.mark.slow
def test_killed_again_and_again_while_it_delivers(env_on_each):
    """On a slow line, so that it never gets to the end of what it has to say in one life."""
    env = env_on_each
    env.server()
    relay = env.relay()
    worker = env.worker(3, server=relay.url)
    tasks = create(env)
    env.wait_state(tasks, "running")
    relay.refusing = True
    relay.cut()
    (env.directory / "away").touch()
    wait_all_ended(env)
    relay.refusing, relay.rate = False, 400e3
    chance = random.Random(21)
    for _ in range(4):
        worker.kill9()
        worker.start()
        time.sleep(chance.uniform(0.3, 0.9))  # any moment will do
    relay.rate = None
    check(env, tasks)


def test_what_was_delivered_is_not_kept(env):
    """Nor sent again by the next process of the worker."""
    server, worker, tasks = away(env)
    (env.directory / "away").touch()
    server.start()
    check(env, tasks)
    worker.restart()
    env.wait_state(env.create("true"))
    held = worker.directory / "executions"
    env.until(lambda: len(list(held.iterdir())) == 2, what="the directories of the two failures stay alone")
    assert all((path / "kept.json").exists() for path in held.iterdir())
    check(env, tasks)
