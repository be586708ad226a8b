"""Promise 8: a worker that returns after it was declared lost is fenced: refused, told to kill, and goes on with new work."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from env import Env, WorkerProcess
from hands import Hands
from scitq.errors import NotAuthenticated
from scitq.protocol import ENDED, EXECUTION_STATES, Report

LOST_AFTER = "2"  # seconds


def living(words: str) -> list[int]:
    """The processes whose command line ends in these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip().endswith(words):
                    found.append(int(entry.name))
    return found


def directory(worker: WorkerProcess, execution: int) -> Path:
    return worker.directory / "executions" / str(execution)


def finish(path: Path) -> None:
    """Lets a command of `WAITS` go on to its end."""
    (path / "temp" / "go").touch()


WAITS = "echo $SCITQ_EXECUTION_ID; (setsid sleep 8{n} &); while [ ! -e go ]; do sleep 0.05; done; echo end of $SCITQ_EXECUTION_ID"


def start_and_lose(env: Env, first: WorkerProcess, vanish, number: int) -> tuple[int, WorkerProcess, int, int]:
    """A task runs, its worker vanishes, is declared lost, and another worker runs it: task, the other one, both executions."""
    (task,) = env.create(WAITS.format(n=number))
    env.until(lambda: env.executions(task) and env.stdout(task) == b"%d\n" % env.executions(task)[0]["id"])
    vanish()
    second = env.worker(1)
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running", what="the other worker runs it")
    lost, runs = env.executions(task)
    assert (lost["state"], runs["state"], runs["worker"]) == ("lost", "running", second.name)
    assert first.name in lost["reason"] and "lost" in lost["reason"]
    assert first.row["state"] == "offline"
    return task, second, lost["id"], runs["id"]


def goes_on(env: Env, first: WorkerProcess, second: WorkerProcess, task: int, lost: int, runs: int) -> None:
    """The lost execution ends and counts for nothing; its worker takes new work; the other execution counts."""
    (later,) = env.create({"command": "echo later", "priority": 5})  # the other worker's only slot is taken
    env.wait_state(later)
    assert env.task(later)["worker"] == first.name and first.row["state"] == "online"
    env.until(lambda: not directory(first, lost).exists(), what="its directory is gone")
    before = env.executions(task)
    assert [row["state"] for row in before] == ["lost", "running"]
    finish(directory(second, runs))
    env.wait_state(task)
    assert env.stdout(task) == b"%d\nend of %d\n" % (runs, runs)
    kept, told = env.executions(task)
    assert kept == before[0] and told["state"] == "succeeded"


@pytest.mark.slow
def test_it_stood_still(env):
    """SIGSTOP, as a machine that sleeps: when it wakes, its command still runs, and is killed with all its tree."""
    env.server("--lost-after", LOST_AFTER)
    first = env.worker(1)
    task, second, lost, runs = start_and_lose(env, first, first.pause, 101)
    assert len(living("sleep 8101")) == 2, "both run now: the first worker was declared lost"
    first.resume()
    env.until(lambda: len(living("sleep 8101")) == 1, what="the tree of the lost one is ended")
    goes_on(env, first, second, task, lost, runs)


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"up"}, {"down"}, {"up", "down"}])
def test_its_line_was_silent(env, way):
    """In one direction too. Meanwhile its command ended well: that comes too late."""
    env.server("--lost-after", LOST_AFTER)
    relay = env.relay()
    first = env.worker(1, server=relay.url)

    def vanish() -> None:
        relay.silent = way
        relay.cut()

    task, second, lost, runs = start_and_lose(env, first, vanish, 102)
    finish(directory(first, lost))
    env.until(lambda: (directory(first, lost) / "end.json").exists())
    relay.silent = set()
    relay.cut()
    goes_on(env, first, second, task, lost, runs)


@pytest.mark.slow
def test_it_was_killed_and_comes_back(env):
    """As a new process, which finds the command of before still running."""
    env.server("--lost-after", LOST_AFTER)
    first = env.worker(1)
    task, second, lost, runs = start_and_lose(env, first, first.kill9, 103)
    assert len(living("sleep 8103")) == 2
    first.start()
    env.until(lambda: len(living("sleep 8103")) == 1, what="the tree of the lost one is ended")
    goes_on(env, first, second, task, lost, runs)


def test_it_was_deleted(env):
    """By a person, while it stood still; started again it is a new worker, and what it left counts for nothing."""
    env.server()
    first = env.worker(1)
    (task,) = env.create(WAITS.format(n=104))
    env.until(lambda: len(living("sleep 8104")) == 1)
    first.pause()
    env.api("DELETE", f"/workers/{first.row['id']}")
    first.ended_by_test = True
    second = env.worker(1, name="second")
    env.wait_state(task, "running")
    env.until(lambda: len(living("sleep 8104")) == 2)
    first.resume()
    assert first.wait_exit() == 3 and "was deleted" in first.output()
    env.until(lambda: len(living("sleep 8104")) == 1)
    first.start()
    lost, runs = env.executions(task)
    goes_on(env, first, second, task, lost["id"], runs["id"])


# --- by its requests alone -------------------------------------------------------------------------------------------------


def test_whatever_a_lost_worker_says_is_refused(env_on_each):
    """Every state and output of what it held, again and again; what it is given later counts."""
    env = env_on_each
    server = env.server("--lost-after", "1")
    lost = Hands(env, "lost", "b", 1)
    (task,) = env.create({"command": "x", "batch": "b"})
    (order,) = lost.sync().orders
    lost.sync(Report(order.id, "running", started_ago=1.0), output=[(order.id, "stdout", 0, b"first")])
    env.until(lambda: env.executions(task)[0]["state"] == "lost", what="it is declared lost")
    server.restart()  # which must not make it forget
    other = Hands(env, "other", "b", 1)
    other.sync()
    (given,) = other.held
    for state in EXECUTION_STATES:
        before = env.executions(task)
        report = Report(order.id, state, exit_code=0, stdout_size=11 if state in ENDED else None, started_ago=9.0)
        told = lost.sync(report, output=[(order.id, "stdout", 5, b" comes")])
        assert told.fenced == [order.id] and not told.acknowledged and not told.orders
        assert env.executions(task) == before
        other.sync(Report(given, "running", started_ago=1.0))
    assert env.answer("GET", f"/executions/{order.id}/stdout").body == b"first"
    (more,) = env.create({"command": "x", "batch": "b"})  # the other one's only slot is taken
    lost.sync()
    lost.end(more)
    other.end(task, "succeeded", 0, b"second")
    assert [env.state(task), env.state(more)] == ["succeeded", "succeeded"] and env.stdout(task) == b"second"


def test_the_token_of_a_deleted_worker_is_worth_nothing(served, batch):
    worker = Hands(served, batch, batch)
    (task,) = served.create({"command": "x", "batch": batch})
    (order,) = worker.sync().orders
    served.api("DELETE", f"/workers/{worker.row['id']}")
    with pytest.raises(NotAuthenticated):
        worker.sync(Report(order.id, "succeeded", exit_code=0, stdout_size=0, stderr_size=0))
    assert served.state(task) == "pending" and served.executions(task)[0]["state"] == "lost"
    again = Hands(served, batch, batch)
    assert again.row["id"] != worker.row["id"]
    told = again.sync(Report(order.id, "running"))
    assert told.fenced == [order.id] and [given.spec["task_id"] for given in told.orders] == [task]
