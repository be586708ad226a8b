"""Promise 14: a task never starts before those it needs succeeded; cycles and unknown tasks are refused."""

from __future__ import annotations

import random
import threading
import time

import pytest
from env import Env
from scitq.transport import Connection


def noted(env: Env, then: str = "true", name: str = "$SCITQ_TASK_NAME") -> str:
    """A command that notes its start and, if it succeeds, its end, in a file that all share: its lines are in order."""
    file = f"{env.directory}/order"
    return f"echo s {name} >> {file}; {then} && echo e {name} >> {file}"


def order(env: Env) -> list[str]:
    path = env.directory / "order"
    return path.read_text().splitlines() if path.exists() else []


def named(env: Env, name: object, *require: object, then: str = "true") -> dict:
    return {"command": noted(env, then), "shell": "sh", "name": str(name), "require": list(require)}


def refused(env: Env, body: dict, method: str = "POST", path: str = "/tasks") -> str:
    """The message of a 400 that left the queue as it was."""
    before = env.items("/tasks")
    answer = env.answer(method, path, body)
    assert answer.status == 400, answer.body[:300]
    assert env.items("/tasks") == before
    told = answer.json()["error"]
    return f"{told['field']}: {told['message']}"


def at_once(*calls) -> list:
    """Calls made at the same moment, in a thread each; their results."""
    gate, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index: int) -> None:
        gate.wait()
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.slow
def test_the_order_holds_whatever_is_killed(env_on_each):
    """A web of tasks, some of which fail first, on two workers; server and workers die meanwhile."""
    env = env_on_each
    server = env.server()
    workers = [env.worker(3), env.worker(3)]
    chance = random.Random(14)
    needs = {n: chance.sample(range(n), min(n, chance.choice([0, 1, 1, 2, 3]))) for n in range(60)}
    hesitant = f"sleep 0.0{chance.randint(1, 9)}; [ $(grep -cx \"s $SCITQ_TASK_NAME\" {env.directory}/order) -gt 1 ]"
    specs = [
        {**named(env, n, *(f"#{m}" for m in needs[n]), then=hesitant if n % 7 == 3 else "sleep 0.05"), "retry": 1} for n in needs
    ]
    tasks = env.create(*specs)
    for victim in (server, workers[0], server, workers[1]):
        time.sleep(chance.uniform(0.1, 0.3))  # any moment will do
        victim.kill9()
        victim.start()
    env.wait_state(tasks)
    lines = order(env)
    for task, required in needs.items():
        assert all(lines.index(f"s {task}") > lines.index(f"e {needed}") for needed in required)
    assert all(len(env.executions(tasks[n])) == 1 + (n % 7 == 3) for n in needs)


def test_a_failure_holds_back_all_that_follow_until_it_is_mended(env_on_each):
    env = env_on_each
    env.server()
    env.worker(2)
    bad, gone, child, grandchild = env.create(
        named(env, "bad", then=f"[ -e {env.directory}/mended ]"),
        {"command": "sleep 100", "batch": "nobody"},
        named(env, "child", "#0", "#1"),
        named(env, "grandchild", "#2"),
    )
    env.wait_state(bad, "failed")
    env.api("POST", "/tasks/cancel", {"ids": [gone]})
    env.wait_state(env.create("true"))
    assert env.state(child) == env.state(grandchild) == "waiting" and order(env) == ["s bad"]
    told = env.api("GET", f"/tasks/{child}/explain")["sentence"]
    assert f"{bad} (failed)" in told and f"{gone} (canceled)" in told and "relaunch" in told
    assert f"{child} (waiting)" in env.api("GET", f"/tasks/{grandchild}/explain")["sentence"]
    (env.directory / "mended").touch()
    env.api("POST", "/tasks/edit", {"ids": [gone], "set": {"batch": "Default", "command": "true"}})
    env.api("POST", "/tasks/relaunch", {"ids": [bad, gone]})
    env.wait_state([bad, gone, child, grandchild])
    assert order(env) == ["s bad", "s bad", "e bad", "s child", "e child", "s grandchild", "e grandchild"]


def test_what_waits_is_not_released_by_a_relaunch_of_its_own(env):
    env.server()
    env.worker(2)
    needed, task = env.create({"command": "true", "batch": "nobody"}, named(env, "t", "#0"))
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.api("POST", "/tasks/relaunch", {"ids": [task]})
    assert env.state(task) == "waiting"
    env.api("POST", "/tasks/edit", {"ids": [needed], "set": {"batch": "Default"}})
    env.wait_state(task)


def test_one_that_succeeded_and_is_relaunched_is_waited_for_again(env):
    env.server()
    env.worker(1)
    [needed] = env.create(named(env, "needed"))
    env.wait_state(needed)
    env.api("POST", "/batches/Default/stop", {})
    env.api("POST", "/tasks/relaunch", {"ids": [needed]})
    [task] = env.create(named(env, "task", needed))
    assert (env.state(needed), env.state(task)) == ("pending", "waiting")
    env.api("POST", "/batches/Default/go", {})
    env.wait_state(task)
    assert order(env)[-4:] == ["s needed", "e needed", "s task", "e task"]


def test_tasks_submitted_while_what_they_need_ends_are_not_forgotten(env_on_each):
    """Each child is sent in the very moment in which its parent ends."""
    env = env_on_each
    env.server()
    env.worker(4)
    found: list[int] = []

    def family() -> None:
        with env.client as client:
            for _ in range(12):
                parent = client.task_create("true").task_id
                found.append(client.task_create("true", required_task_ids=[parent]).task_id)

    at_once(family, family, family)
    assert len(found) == 36
    env.wait_state(found)


def test_cycles_are_refused(env_on_each):
    env = env_on_each
    env.server()
    a, b, c = env.create(*[{"command": "true", "batch": "nobody", "require": need} for need in ([], ["#0"], ["#1"])])

    def spec(*require):
        return {"command": "true", "require": list(require)}

    assert "circle" in refused(env, {"tasks": [spec("#0")]})
    assert "tasks[1].require" in refused(env, {"tasks": [spec(), spec("#2"), spec("#3"), spec("#1"), spec("#0")]})
    for needed in (a, b, c):
        assert "need" in refused(env, {"ids": [a], "set": {"require": [needed]}}, path="/tasks/edit")
    assert "need" in refused(env, {"require": [c]}, "PATCH", f"/tasks/{a}")
    assert "need" in refused(env, {"ids": [a, b], "set": {"require": [c]}}, path="/tasks/edit")


def test_unknown_tasks_are_refused_and_named(env_on_each):
    env = env_on_each
    env.server()
    [known] = env.create({"command": "true", "batch": "nobody"})
    for wrong in (known + 1, known + 2, 2**40, 2**63, 0, -1, "#1", "#99", "1", "x", None, 1.5, True, [known]):
        assert "require" in refused(env, {"command": "true", "require": [wrong]})
    assert "tasks[2].require" in refused(env, {"tasks": [{"command": "true", "require": [r]} for r in (known, known, 10**6)]})
    for wrong in (known + 100, "#0"):
        assert "require" in refused(env, {"ids": [known], "set": {"require": [wrong]}}, path="/tasks/edit")
    [deleted] = env.create({"command": "true", "batch": "nobody"})
    env.api("DELETE", f"/tasks/{deleted}")
    assert f"no task {deleted}" in refused(env, {"command": "true", "require": [deleted]})


def test_two_edits_at_once_do_not_make_a_cycle(env_on_each):
    """A needs B and B needs A, sent in the same moment: one of them is refused, each time."""
    env = env_on_each
    env.server()

    def need(task: int, other: int):
        return lambda: Asker(env).answer("PATCH", f"/tasks/{task}", {"require": [other]})

    for _ in range(8):
        a, b, c = env.create(*[{"command": "true", "batch": "nobody"}] * 3)
        statuses = sorted(at_once(need(a, b), need(b, c), need(c, a)))
        assert statuses == [200, 200, 400]


class Asker:
    """A connection of a thread's own, to any server."""

    def __init__(self, env: Env, url: str | None = None):
        self.connection = Connection(url or env.url, env.token)

    def answer(self, method: str, path: str, body: dict) -> int:
        with self.connection:
            return self.connection.request(method, f"/api/v1{path}", body).status


def test_a_long_chain_and_a_wide_fan(env):
    env.server()
    env.worker(4)
    chain = env.create(*[{"command": "true", "require": [f"#{n - 1}"] if n else []} for n in range(100)])
    needs = [*(f"#{n}" for n in range(200)), "#7", chain[-1]]
    fan = env.create(*[{"command": "true"}] * 200, {"command": "true", "require": needs})
    env.wait_state([*chain, *fan])
    starts = [env.executions(task)[0]["id"] for task in chain]
    assert starts == sorted(starts)


def test_two_servers_on_one_database_lose_no_release(env, postgres):
    """A child is being added by one server while the other one records that its parent succeeded."""
    import psycopg2

    url = postgres.new_database()
    env.server(database=url)
    second = env.server(database=url, name="second")
    env.worker(1)
    gate = env.directory / "gate"
    [parent] = env.create(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    env.wait_state(parent, "running")
    blocker = psycopg2.connect(url)
    try:
        with blocker.cursor() as cursor:
            cursor.execute("LOCK TABLE requirement IN EXCLUSIVE MODE")  # others read it, and nobody adds to it
            child = {"command": "true", "require": [parent]}
            adding = threading.Thread(target=Asker(env, second.url).answer, args=("POST", "/tasks", child))
            adding.start()
            env.until(lambda: waiting_sessions(url, psycopg2), what="the second server has looked at the parent")
            gate.touch()
            env.until(lambda: env.state(parent) == "succeeded" or waiting_sessions(url, psycopg2) > 1)
        blocker.rollback()
    finally:
        blocker.close()
    adding.join(60)
    env.until(lambda: len(env.items("/tasks")) == 2)
    env.wait_state([row["id"] for row in env.items("/tasks")])


def waiting_sessions(url: str, psycopg2) -> int:
    """How many sessions of a PostgreSQL database wait for a lock."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        return cursor.fetchone()[0]


def test_two_servers_on_one_database_let_no_cycle_in(env, postgres):
    url = postgres.new_database()
    first = env.server(database=url)
    second = env.server(database=url, name="second")

    def need(server, task: int, other: int):
        return lambda: Asker(env, server.url).answer("PATCH", f"/tasks/{task}", {"require": [other]})

    for _ in range(4):
        a, b = env.create(*[{"command": "true", "batch": "nobody"}] * 2)
        assert sorted(at_once(need(first, a, b), need(second, b, a))) == [200, 400]

