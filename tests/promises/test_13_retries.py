"""Promise 13: a failing task runs exactly retry + 1 times; losses count by their own rule."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from env import Env
from scitq.store.queue import MAX_LOSSES


def noted(env: Env, then: str) -> str:
    """A command that notes its start in a file that all share, before anything else."""
    return f"echo $SCITQ_TASK_ID >> {env.directory}/starts; {then}"


def starts(env: Env, task: int) -> int:
    """How often the command of a task really began."""
    path = env.directory / "starts"
    return path.read_text().split().count(str(task)) if path.exists() else 0


def ends(env: Env, task: int) -> list[str]:
    return [row["state"] for row in env.executions(task)]


def explained(env: Env, task: int) -> str:
    return env.api("GET", f"/tasks/{task}/explain")["sentence"]


def failing(env: Env, retry: int, then: str, **more) -> dict:
    return {"command": noted(env, then), "shell": "sh", "retry": retry, **more}


def test_a_failing_task_runs_retry_plus_one_times(env_on_each):
    """Whatever way it fails."""
    env = env_on_each
    env.server()
    env.worker(4)
    counts = {task: retry for retry in (0, 1, 4) for task in env.create(failing(env, retry, "exit 3"))}
    ways = env.create(
        failing(env, 2, "kill -9 $$"),
        failing(env, 2, "sleep 100", run_timeout=0.1),
        failing(env, 2, "kill -TERM $$"),
    )
    counts |= dict.fromkeys(ways, 2)
    [absent] = env.create({"command": "no-such-command-here", "retry": 3})
    env.wait_state([*counts, absent], "failed")
    for task, retry in counts.items():
        rows = env.executions(task)
        assert starts(env, task) == retry + 1 == len(rows)
        assert [row["attempt"] for row in rows] == list(range(1, retry + 2)) and {row["state"] for row in rows} == {"failed"}
        assert all(later["started_at"] >= earlier["ended_at"] for earlier, later in zip(rows, rows[1:]))
    assert ends(env, absent) == ["failed"] * 4
    assert "after 5 failures" in explained(env, max(task for task, retry in counts.items() if retry == 4))


def test_it_stops_at_the_first_success_and_begins_anew_when_relaunched(env_on_each):
    env = env_on_each
    env.server()
    env.worker(2)
    third = f"[ $(grep -cx $SCITQ_TASK_ID {env.directory}/starts) -ge 3 ]"
    good, bad = env.create(failing(env, 5, third), failing(env, 1, "exit 1"))
    env.wait_state([good, bad], "succeeded", "failed")
    assert ends(env, good) == ["failed", "failed", "succeeded"] and starts(env, good) == 3
    assert starts(env, bad) == 2
    env.api("POST", "/tasks/relaunch", {"ids": [bad]})
    env.until(lambda: starts(env, bad) == 4)
    env.wait_state(bad, "failed")
    env.wait_state(env.create("true"))  # whatever would start too many has had its turn
    assert starts(env, bad) == 4 and ends(env, bad) == ["failed"] * 4


@pytest.mark.parametrize("action", ["kill", "term", "cancel"])
def test_what_a_person_ended_is_not_tried_again(env, action):
    env.server()
    env.worker(1)
    [task] = env.create(failing(env, 5, "sleep 100"))
    env.wait_state(task, "running")
    path = "/tasks/cancel" if action == "cancel" else "/tasks/signal"
    env.api("POST", path, {"ids": [task]} if action == "cancel" else {"ids": [task], "action": action})
    env.wait_state(task, "canceled" if action == "cancel" else "failed")
    env.wait_state(env.create("true"))
    assert starts(env, task) == 1 == len(env.executions(task))


@pytest.mark.slow
def test_kills_of_server_and_worker_change_no_count(env_on_each):
    """The processes die at any moment of tasks that fail, again and again: no attempt is added, none is saved."""
    env = env_on_each
    server = env.server()
    worker = env.worker(3)
    chance = random.Random(13)
    retries = [0, 1, 2, 3, 4]
    tasks = env.create(*[failing(env, retry, f"sleep 0.{chance.randint(1, 4)}; exit 1") for retry in retries])
    for _ in range(4):
        victims = chance.choice([[server], [worker], [server, worker]])
        time.sleep(chance.uniform(0.0, 0.4))  # any moment will do
        for victim in victims:
            victim.kill9()
        for victim in victims:
            victim.start()
    env.wait_state(tasks, "failed")
    assert [starts(env, task) for task in tasks] == [retry + 1 for retry in retries]
    assert [ends(env, task) for task in tasks] == [["failed"] * (retry + 1) for retry in retries]


def test_a_loss_uses_no_retry(env_on_each):
    """What looked after the command is killed twice, by the task itself; then the task fails by itself, and has its retry."""
    env = env_on_each
    env.server()
    env.worker(1)
    twice = f"[ $(grep -cx $SCITQ_TASK_ID {env.directory}/starts) -gt 2 ] || kill -9 $PPID; exit 5"
    [task] = env.create(failing(env, 1, twice))
    env.wait_state(task, "failed")
    assert ends(env, task) == ["lost", "lost", "failed", "failed"] and starts(env, task) == 4
    assert env.executions(task)[-1]["exit_code"] == 5


@pytest.mark.slow
def test_a_task_that_ends_whatever_runs_it_is_given_up(env):
    """Losses have a limit of their own, whatever the retries."""
    env.server()
    env.worker(1)
    [task] = env.create(failing(env, 100, "kill -9 $PPID; sleep 100"))
    env.wait_state(task, "failed")
    assert starts(env, task) == MAX_LOSSES + 1
    assert ends(env, task) == ["lost"] * (MAX_LOSSES + 1)
    assert f"after {MAX_LOSSES + 1} lost workers" in explained(env, task)


def test_a_silent_worker_costs_no_retry(env_on_each):
    """The machine is gone: another worker runs the task, whose only retry is still there."""
    env = env_on_each
    env.server("--lost-after", "1s")
    worker = env.worker(1)
    [task] = env.create(failing(env, 1, f"[ $(grep -cx $SCITQ_TASK_ID {env.directory}/starts) -gt 1 ] || sleep 100; exit 1"))
    env.wait_state(task, "running")
    worker.kill9()
    for pid, line in env.leftovers().items():
        if "keeper" in line.split() or "sleep 100" in line:
            os.kill(pid, signal.SIGKILL)
    env.worker(1)
    env.wait_state(task, "failed")
    assert ends(env, task) == ["lost", "failed", "failed"] and starts(env, task) == 3
