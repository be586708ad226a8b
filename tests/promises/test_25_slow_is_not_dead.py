"""Promise 25: slow is not dead: after its own pause or restart the server grants a lease of grace."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest
from env import Env, WorkerProcess

# whoever is silent for longer is lost; twice what a worker pauses at most that found no server for so long
LOST_AFTER = 6.0  # seconds
LATE_SECONDS = 20.0  # ticks of the watch, and a slow machine, come on top


def running_on(env: Env, worker: WorkerProcess, command: str = "sleep 100") -> int:
    """A task that runs on a worker with one slot, alone in its batch."""
    [task] = env.create({"command": command, "shell": "sh", "batch": worker.name})
    env.wait_state(task, "running")
    return task


def check_untouched(env: Env, *tasks: int) -> None:
    """Their first attempt still runs."""
    for task in tasks:
        assert [row["state"] for row in env.executions(task)] == ["running"], env.report()


def wait_lost(env: Env, task: int) -> float:
    """Waits until the attempt is lost; when that was seen."""
    env.until(lambda: env.executions(task)[0]["state"] == "lost", LOST_AFTER + LATE_SECONDS, f"task {task} is lost")
    return time.monotonic()


@pytest.mark.slow(seconds=16)
@pytest.mark.parametrize("how", ["stopped", "restarted"])
def test_time_without_the_server_counts_for_nobody(env, how):
    """One worker is well, one silent for as long as the server and a moment more, one is dead; only the last is lost, in time."""
    server = env.server("--lost-after", f"{LOST_AFTER}s")
    workers = [_, slow, dead] = [env.worker(1, name=name, batch=name) for name in ("well", "slow", "dead")]
    tasks = [running_on(env, worker) for worker in workers]
    slow.pause()
    dead.pause()
    time.sleep(LOST_AFTER / 3)  # so long they are silent already, and the server has noted it
    server.pause() if how == "stopped" else server.kill9()
    time.sleep(LOST_AFTER)  # nobody watches
    back = time.monotonic()
    server.resume() if how == "stopped" else server.start()
    time.sleep(LOST_AFTER / 4)  # the slow one needs that long
    slow.resume()
    lost_at = wait_lost(env, tasks[2])
    assert lost_at - back > LOST_AFTER / 2, "the dead one had its time too"
    check_untouched(env, *tasks[:2])
    assert [worker.row["state"] for worker in workers] == ["online", "online", "offline"]
    dead.resume()  # it is told, and goes on with other work
    env.until(lambda: env.state(tasks[2]) == "running" and len(env.executions(tasks[2])) == 2)


@pytest.mark.slow
def test_a_database_that_stands_still_loses_nobody(env):
    """Somebody else holds it for longer than silence may last: what workers say waits, and nobody is blamed for that."""
    server = env.server("--lost-after", f"{LOST_AFTER}s")
    worker = env.worker(1, name="w", batch="w")
    gate = env.directory / "gate"
    task = running_on(env, worker, f"while [ ! -e {gate} ]; do sleep 0.05; done; echo a report that has to wait; sleep 100")
    with contextlib.closing(sqlite3.connect(server.data / "scitq.db", isolation_level=None, timeout=10)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        gate.touch()
        time.sleep(LOST_AFTER + 1.5)
        holder.execute("ROLLBACK")
    env.until(lambda: env.stdout(task), what="the report that waited")
    time.sleep(1.5)  # a look of the watch
    check_untouched(env, task)
    assert worker.row["state"] == "online"


def test_a_held_poll_is_no_silence(env):
    """A worker that has nothing to say and whose task says nothing is not lost, however short the time for it is."""
    env.server("--lost-after", "2s")
    worker = env.worker(1, name="w", batch="w")
    task = running_on(env, worker)
    time.sleep(5.0)  # more than twice what would be too long
    check_untouched(env, task)
    assert worker.row["state"] == "online"


def test_a_slow_worker_is_waited_for(env):
    env.server("--lost-after", "4s")
    worker = env.worker(1, name="w", batch="w")
    task = running_on(env, worker)
    worker.pause()
    time.sleep(2.0)
    worker.resume()
    [other] = env.create({"command": "true", "batch": "w", "priority": 1})
    env.api("POST", "/tasks/signal", {"ids": [task], "action": "kill"})
    env.wait_state([task, other], "failed", "succeeded")
    assert len(env.executions(task)) == 1
