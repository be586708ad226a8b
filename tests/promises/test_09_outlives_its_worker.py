"""Promise 9: a running task survives stop, kill -9 and upgrade of its worker."""

from __future__ import annotations

import random
import time
from datetime import datetime
from pathlib import Path

import pytest
from env import PROGRAM, Env, WorkerProcess, stands_still
from hands import Hands
from scitq.keeper.processes import process
from scitq.protocol import Report
from strikes import copied_program

COUNTS = "i=0; while [ ! -e go ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo end; exit 5"


def place(env: Env, worker: WorkerProcess, task: int) -> Path:
    """The directory of a task's latest execution."""
    return worker.directory / "executions" / str(env.executions(task)[-1]["id"])


def finish(env: Env, worker: WorkerProcess, task: int) -> None:
    (place(env, worker, task) / "temp" / "go").touch()


def goes_on(env: Env, task: int) -> None:
    """New output arrives."""
    size = len(env.stdout(task))
    env.until(lambda: len(env.stdout(task)) > size, what="its output goes on")


def as_version(program: list[str], version: str) -> list[str]:
    """The copy of the program says that it is of this version."""
    path = Path(program[-1]).parent / "scitq_pkg" / "__init__.py"
    text = path.read_text()
    before = text.partition('__version__ = "')[2].partition('"')[0]
    path.write_text(text.replace(f'"{before}"', f'"{version}"'))
    return program


def test_one_task_through_everything(env):
    """Stopped, killed, upgraded, downgraded, and its program replaced under its feet: one process, one output."""
    env.server()
    worker = env.worker(1)
    (task,) = env.create(COUNTS)
    env.wait_state(task, "running")
    goes_on(env, task)
    pid = env.executions(task)[0]["pid"]
    copy = copied_program(env.directory / "copy")
    now = worker.row["version"]
    steps = [
        (worker.stop, PROGRAM, now), (worker.kill9, PROGRAM, now), (worker.stop, as_version(copy, "9.1.0"), "9.1.0"),
        (worker.kill9, copy, "9.1.0"), (lambda: as_version(copy, "9.2.0"), None, "9.1.0"), (worker.stop, copy, "9.2.0"),
        (worker.kill9, PROGRAM, now),
    ]  # fmt: skip
    for end, program, version in steps:
        end()
        if program:
            assert not worker.alive and process(pid) is not None
            worker.program = program
            worker.start()
        goes_on(env, task)
        assert (env.state(task), env.executions(task)[0]["pid"], worker.row["version"]) == ("running", pid, version)
    finish(env, worker, task)
    env.wait_state(task, "failed")
    (execution,) = env.executions(task)
    assert (execution["exit_code"], execution["pid"]) == (5, pid)
    lines = env.stdout(task).decode().split()
    assert lines == [*map(str, range(1, len(lines))), "end"]


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_it_ends_while_the_worker_is_away(env, how):
    """The end is told as it was, with the time at which it was."""
    env.server()
    worker = env.worker(2)
    fails, kills = env.create(COUNTS, "while [ ! -e go ]; do sleep 0.02; done; kill -11 $$")
    env.wait_state([fails, kills], "running")
    getattr(worker, how)()
    for task in (fails, kills):
        finish(env, worker, task)
    env.until(lambda: all((place(env, worker, task) / "end.json").exists() for task in (fails, kills)))
    ended = time.time()
    env.until(lambda: time.time() > ended + 1.0)
    worker.start()
    env.wait_state([fails, kills], "failed")
    rows = [env.executions(task)[0] for task in (fails, kills)]
    assert [(row["exit_code"], row["signal"]) for row in rows] == [(5, None), (None, 11)]
    for row in rows:
        assert abs(datetime.fromisoformat(row["ended_at"].replace("Z", "+00:00")).timestamp() - ended) < 0.9
    assert all(len(env.executions(task)) == 1 for task in (fails, kills)) and env.stdout(fails).endswith(b"\nend\n")


def test_a_suspended_one_stays_suspended(env):
    env.server()
    worker = env.worker(1)
    (task,) = env.create(COUNTS)
    env.wait_state(task, "running")
    env.api("POST", "/tasks/signal", {"ids": [task], "action": "suspend"})
    pid = env.executions(task)[0]["pid"]
    env.until(lambda: stands_still(pid))
    worker.kill9()
    assert stands_still(pid)
    worker.start()
    (other,) = env.create({"command": "true", "priority": 1})
    env.until(lambda: worker.row["state"] == "online" and env.task(task)["suspended"])
    assert stands_still(pid) and env.state(other) == "pending", "it keeps its slot"
    env.api("POST", "/tasks/signal", {"ids": [task], "action": "resume"})
    goes_on(env, task)
    finish(env, worker, task)
    env.wait_state(task, "failed")
    env.wait_state(other)
    assert len(env.executions(task)) == 1


def test_killed_again_and_again_while_tasks_start_and_end(env):
    """At whatever moment: each command begins once, each end counts once, nothing is lost."""
    server, moments = env.server(), random.Random(9)
    worker = env.worker(4, "--prefetch", "4")
    notes = env.directory / "notes"
    command = f"echo $SCITQ_TASK_ID $SCITQ_EXECUTION_ID >> {notes}; sleep 0.$((SCITQ_TASK_ID % 5)); echo $SCITQ_TASK_ID"
    ids = env.create(*[command] * 60)
    for kill in range(10):
        time.sleep(moments.uniform(0.0, 0.5))
        worker.kill9()
        if kill % 4 == 3:
            server.kill9()
            server.start()
        worker.start()
    env.wait_state(ids)
    rows = env.items("/executions")
    assert sorted(row["task_id"] for row in rows) == ids, "nothing was lost, nothing was done again"
    noted = [tuple(map(int, line.split())) for line in notes.read_text().splitlines()]
    assert sorted(noted) == sorted((row["task_id"], row["id"]) for row in rows)
    assert all(env.stdout(task) == b"%d\n" % task for task in ids[::7])


def test_what_a_new_process_does_not_know_is_lost(served, batch):
    """Its first requests may get lost on the way: what it does not list when it is heard has no process any more."""
    worker = Hands(served, batch, batch, 1)
    (task,) = served.create({"command": "x", "batch": batch})
    (order,) = worker.sync().orders
    worker.sync(Report(order.id, "running", started_ago=1.0))
    worker.incarnation, worker.sequence, worker.held = "a new process", 3, {}
    told = worker.sync()
    first, second = served.executions(task)
    assert first["state"] == "lost" and "no trace" in first["reason"]
    assert [given.id for given in told.orders] == [second["id"]] and told.orders[0].spec
