"""The API from outside: tasks, one and many, what it refuses, and how it says so."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from dataclasses import fields

import pytest
from env import Env
from hands import Hands, refused
from scitq.api import application  # noqa: F401 - it fills the table
from scitq.api.newtasks import accept
from scitq.api.schemas import NewTask
from scitq.errors import InvalidRequest
from scitq.protocol import Report, TaskSpec
from scitq.transport import Connection


@pytest.fixture(scope="module")
def env(served):
    return served


# --- tasks ------------------------------------------------------------------------------------------------------------------


def test_a_task_comes_back_as_it_was_given(env, batch):
    given = {
        "command": "echo 'héllo'\nsecond line",
        "name": "größe <b>",
        "batch": batch,
        "shell": "bash",
        "container": "img:1",
        "container_options": "--cpus 2",
        "input": ["s3://b/a b", "file:///x"],
        "resource": ["s3://r|untar"],
        "output": "s3://out/",
        "env": {"A": "1\n2"},
        "workdir": "/w",
        "uid": 3,
        "gid": 4,
        "priority": -5,
        "retry": 2,
        "download_timeout": 1.5,
        "run_timeout": 60,
        "use_cache": True,
        "require": [],
    }
    assert set(given) == {f.name for f in fields(TaskSpec)}
    (task,) = env.api("POST", "/tasks", given)["ids"]
    found = env.task(task)
    assert {name: found[name] for name in given} == given
    assert found["state"] == "pending" and found["created_at"].endswith("Z") and found["execution_id"] is None


def test_shell_and_uris_have_short_forms(env, batch):
    ids = env.create(*[{"command": "x", "batch": batch, "shell": shell, "input": "a b"} for shell in (True, False, "sh", None)])
    assert [env.task(task)["shell"] for task in ids] == ["sh", None, "sh", None]
    assert env.task(ids[0])["input"] == ["a", "b"]


WRONG = [
    ({}, "command"),
    ([], "body"),
    ("x", "body"),
    ({"command": ""}, "command"),
    ({"command": " \n"}, "command"),
    ({"command": None}, "command"),
    ({"command": 5}, "command"),
    ({"command": "a\0b"}, "command"),
    ({"command": "\ud800"}, "command"),
    ({"command": "x" * 1_000_001}, "command"),
    ({"command": "x", "name": "a\nb"}, "name"),
    ({"command": "x", "name": "a\0b"}, "name"),
    ({"command": "x", "name": "\udfff"}, "name"),
    ({"command": "x", "name": "n" * 10_000_000}, "name"),
    ({"command": "x", "name": ""}, "name"),
    ({"command": "x", "batch": "b\r"}, "batch"),
    ({"command": "x", "batch": None}, "batch"),
    ({"command": "x", "retry": -1}, "retry"),
    ({"command": "x", "retry": "1"}, "retry"),
    ({"command": "x", "retry": True}, "retry"),
    ({"command": "x", "priority": 2**31}, "priority"),
    ({"command": "x", "uid": 1.5}, "uid"),
    ({"command": "x", "run_timeout": -1}, "run_timeout"),
    ({"command": "x", "run_timeout": 1e300}, "run_timeout"),
    ({"command": "x", "env": {"a=b": "1"}}, "env.a=b.key"),
    ({"command": "x", "env": {"a": 1}}, "env.a.value"),
    ({"command": "x", "env": []}, "env"),
    ({"command": "x", "shell": "zsh"}, "shell"),
    ({"command": "x", "workdir": "w"}, "workdir"),
    ({"command": "x", "use_cache": 1}, "use_cache"),
    ({"command": "x", "input": [1]}, "input"),
    ({"command": "x", "require": ["1"]}, "require[0]"),
    ({"command": "x", "require": [10**9]}, "require"),
    ({"command": "x", "require": ["#0"]}, "require"),
    ({"command": "x", "require": ["#1"]}, "require"),
    ({"command": "x", "nmae": "b"}, "nmae"),
    ({"tasks": []}, "tasks"),
    ({"tasks": {}}, "tasks"),
    ({"tasks": [{"command": "x"}, 3]}, "tasks[1]"),
    ({"tasks": [{"command": "x"}], "name": "n"}, "name"),
    ({"tasks": [{"command": "x"}], "newest_known": -1}, "newest_known"),
    ({"tasks": [{"command": "x"}], "newest_known": None}, "newest_known"),
    ({"command": "x", "newest_known": 1}, "newest_known"),
    ({"tasks": [{"command": "x"}, {"command": "x", "retry": None}]}, "tasks[1].retry"),
    ({"tasks": [{"command": "x"}, {"command": "x", "require": ["#2"]}, {"command": "x", "require": ["#1"]}]}, "tasks[1].require"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda value: f"{value!r:.50}")
def test_a_wrong_task_is_refused_by_its_field_and_nothing_is_kept(env, body, field):
    before = env.api("GET", "/tasks/counts")
    assert refused(env, "POST", "/tasks", body)["field"] == field
    assert env.api("GET", "/tasks/counts")["counts"] == before["counts"]


def test_nothing_is_queued_twice_by_two_who_looked_first(env, batch):
    def send(newest: int, *names: str) -> int:
        tasks = [{"command": "x", "batch": batch, "name": name} for name in names]
        return env.answer("POST", "/tasks", {"tasks": tasks, "newest_known": newest}).status

    (newest,) = env.create({"command": "x", "batch": f"{batch}-other", "name": "a"})
    assert send(newest, "a", "b") == 201
    assert (send(newest, "c", "b"), send(0, "a")) == (409, 409)
    assert (send(newest, "c"), send(newest + 2, "a")) == (201, 201), "other names; older ones are known"
    assert [row["name"] for row in env.items("/tasks", batch=batch)] == ["a", "b", "c", "a"]


def test_the_nearest_name_is_told(env):
    assert "did you mean 'require'" in refused(env, "POST", "/tasks", {"tasks": [{"command": "x", "requires": []}]})["message"]


@pytest.mark.parametrize("plain", [body for body, _ in WRONG], ids=lambda value: f"{value!r:.50}")
def test_the_quick_check_is_never_more_generous_than_the_schema(plain):
    """What the table of quick tests accepts, the schema accepts unchanged."""
    tasks = plain["tasks"] if isinstance(plain, dict) and "tasks" in plain else [plain]
    for task in tasks if isinstance(tasks, list) else []:
        try:
            accepted = accept(task)
        except InvalidRequest:
            continue
        assert accepted == [NewTask().load(task)]


def test_ten_thousand_tasks_are_one_request(env, batch):
    began = time.monotonic()
    ids = env.api(
        "POST", "/tasks", {"tasks": [{"command": f"echo {n}", "name": f"t{n}", "batch": batch} for n in range(10_000)]}
    )["ids"]
    assert len(set(ids)) == 10_000 and time.monotonic() - began < 30
    assert env.api("GET", "/tasks/counts", batch=batch)["counts"] == {"pending": 10_000}
    assert [task["name"] for task in env.api("GET", "/tasks", batch=batch, limit=2)["items"]] == ["t0", "t1"]
    assert env.api("POST", "/tasks/delete", {"filter": {"batch": batch}})["skipped"] == []
    assert env.api("GET", "/tasks/counts", batch=batch)["counts"] == {}


def test_too_many_tasks_and_too_large_a_body_are_refused(env):
    assert refused(env, "POST", "/tasks", {"tasks": [{}] * 100_001})["field"] == "tasks"
    began = time.monotonic()
    answer = env.answer(
        "POST", "/tasks", b'{"command":"' + b"x" * 100_000_000 + b'"}', headers={"Content-Type": "application/json"}
    )
    assert answer.status == 413 and answer.json()["error"]["code"] == "too_large" and time.monotonic() - began < 30


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, b'{"command": NaN}', b"\xff", b"1" * 10_000, b'{"command": "x"} y', b"null"]
)
def test_what_is_no_json_is_a_400(env, body):
    answer = env.answer("POST", "/tasks", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and answer.json()["error"]["field"] == "body"


def test_requirements_hold_and_are_released(env, batch):
    first, second, third = env.create(
        {"command": "a", "batch": batch},
        {"command": "b", "batch": batch, "require": ["#0"]},
        {"command": "c", "batch": batch, "require": ["#0", "#1"]},
    )
    assert [env.state(task) for task in (first, second, third)] == ["pending", "waiting", "waiting"]
    assert env.task(third)["require"] == [first, second]
    assert f"task {first}" in env.api("GET", f"/tasks/{second}/explain")["sentence"]
    assert [row["id"] for row in env.api("GET", "/tasks", requires=first)["items"]] == [second, third]
    assert [row["id"] for row in env.api("GET", "/tasks", requires=second, limit=1)["items"]] == [third]
    refused(env, "PATCH", f"/tasks/{first}", {"require": [third]})
    worker = Hands(env, batch, batch)
    worker.sync()
    worker.end(first)
    assert env.state(second) in ("pending", "assigned") and env.state(third) == "waiting"


# --- the same request twice -------------------------------------------------------------------------------------------------


def test_a_request_id_is_done_once_even_at_the_same_time(env, batch):
    def send(_):
        with Connection(env.url, env.token) as connection:
            return connection.request(
                "POST", "/api/v1/tasks", {"command": "x", "batch": batch}, headers={"Idempotency-Key": batch}
            ).json()["ids"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert env.api("GET", "/tasks/counts", batch=batch)["counts"] == {"pending": 1}


def test_another_request_under_the_same_id_is_a_409(env, batch):
    keyed = {"Idempotency-Key": batch}
    assert env.answer("POST", "/tasks", {"command": "x", "batch": batch}, headers=keyed).status == 201
    for method, path, body in (("POST", "/tasks", {"command": "y", "batch": batch}), ("POST", "/tasks/cancel", {"ids": [1]})):
        answer = env.answer(method, path, body, headers=keyed)
        assert answer.status == 409 and answer.json()["error"]["field"] == "Idempotency-Key"


def test_a_failed_request_may_be_sent_again_under_its_id(env, batch):
    keyed = {"Idempotency-Key": batch}
    assert env.answer("POST", f"/batches/{batch}/stop", {}, headers=keyed).status == 404
    env.create({"command": "x", "batch": batch})
    assert env.answer("POST", f"/batches/{batch}/stop", {}, headers=keyed).status == 200


def test_deleting_twice_under_one_id_is_deleting_once(env, batch):
    (task,) = env.create({"command": "x", "batch": batch})
    for _ in range(2):
        assert env.answer("DELETE", f"/tasks/{task}", headers={"Idempotency-Key": batch}).status == 204
    assert env.answer("DELETE", f"/tasks/{task}").status == 404


def test_a_token_asked_for_twice_is_one_token_whose_last_secret_counts(env, batch):
    made = [env.answer("POST", "/tokens", {"name": batch}, headers={"Idempotency-Key": batch}).json() for _ in range(2)]
    assert made[0]["id"] == made[1]["id"]
    with Connection(env.url, made[1]["token"]) as connection:
        assert connection.request("GET", "/api/v1/server").status == 200


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_request_id_has_limits(env, key):
    assert env.answer("POST", "/tasks", {"command": "x"}, headers={"Idempotency-Key": key}).status == 400


# --- changing ---------------------------------------------------------------------------------------------------------------


def test_a_task_that_does_not_run_can_be_changed(env, batch):
    (task,) = env.create({"command": "old", "batch": batch, "retry": 3, "env": {"A": "1"}})
    changed = env.api("PATCH", f"/tasks/{task}", {"command": "new", "batch": batch + "2", "env": {}, "run_timeout": 5})
    assert (changed["command"], changed["batch"], changed["env"], changed["run_timeout"], changed["retry"]) == (
        "new",
        batch + "2",
        {},
        5,
        3,
    )
    assert refused(env, "PATCH", f"/tasks/{task}", {"comand": "x"})["field"] == "comand"


def test_a_running_task_cannot_be_changed(env, batch):
    (task,) = env.create({"command": "old", "batch": batch})
    Hands(env, batch, batch).sync()
    assert refused(env, "PATCH", f"/tasks/{task}", {"command": "new"}, status=409)["code"] == "conflict"


def test_a_failed_task_is_edited_and_relaunched(env, batch):
    (task,) = env.create({"command": "ls /old/x", "batch": batch})
    worker = Hands(env, batch, batch)
    worker.sync()
    worker.end(task, "failed", 2)
    body = {
        "filter": {"batch": batch, "state": "failed"},
        "sub": {"pattern": "/old/(.)", "replacement": r"/new/\1"},
        "relaunch": True,
    }
    shown = env.api("POST", "/tasks/edit", body | {"dry_run": True})
    assert (
        shown["changes"] == [{"id": task, "before": "ls /old/x", "after": "ls /new/x"}]
        and env.task(task)["command"] == "ls /old/x"
    )
    assert env.api("POST", "/tasks/edit", body)["ids"] == [task]
    assert env.task(task)["command"] == "ls /new/x" and env.state(task) in ("pending", "assigned")
    assert [order.spec["task"]["command"] for order in worker.sync().orders] == ["ls /new/x"]


@pytest.mark.parametrize(
    "sub", [{"pattern": "(", "replacement": ""}, {"pattern": "b", "replacement": r"\9"}, {"pattern": "a"}, {}]
)
def test_a_wrong_substitution_is_told(env, batch, sub):
    env.create({"command": "a", "batch": batch})
    assert refused(env, "POST", "/tasks/edit", {"filter": {"batch": batch}, "sub": sub})["field"].startswith("sub.")


@pytest.mark.parametrize(("pattern", "replacement"), [("a+", ""), ("a", r"\0"), ("", "x" * 1_000_000)])
def test_no_substitution_makes_a_command_that_cannot_be(env, batch, pattern, replacement):
    (task,) = env.create({"command": "aaaa", "batch": batch})
    body = {"filter": {"batch": batch}, "sub": {"pattern": pattern, "replacement": replacement}}
    assert refused(env, "POST", "/tasks/edit", body)["field"] == "sub.replacement"
    assert env.task(task)["command"] == "aaaa"


def test_a_substitution_is_about_the_tasks_that_it_changes(env, batch):
    runs_old, runs_new, ended_old, ended_new = env.create(
        *({"command": c, "batch": batch} for c in ("old 1", "x 1", "old 2", "x 2"))
    )
    worker = Hands(env, batch, batch)
    worker.sync()
    for task in (ended_old, ended_new):
        worker.end(task, "failed", 1)
    body = {"filter": {"batch": batch}, "sub": {"pattern": "old", "replacement": "new"}, "set": {"priority": 3}, "relaunch": True}
    answer = env.api("POST", "/tasks/edit", body)
    assert (answer["ids"], [one["id"] for one in answer["skipped"]]) == ([ended_old], [runs_old])
    assert [env.task(task)["priority"] for task in (runs_new, ended_old, ended_new)] == [0, 3, 0]
    assert env.state(ended_new) == "failed" and env.task(ended_old)["command"] == "new 2"


def test_a_substitution_that_takes_years_stops_nobody(env, batch):
    (task,) = env.create({"command": f"{'a' * 60}!", "batch": batch})
    body = {"ids": [task], "sub": {"pattern": "(a+)+$", "replacement": "b"}}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(refused, env_with_its_own_connection(env), "POST", "/tasks/edit", body)
        while not asked.done():
            start = time.monotonic()
            assert env.task(task)["state"] == "pending" and env.api("POST", "/tasks/cancel", {"ids": [task + 10**6]})["skipped"]
            assert time.monotonic() - start < 10
    assert (error := asked.result())["field"] == "sub.pattern" and "takes longer than" in error["message"]


def test_a_substitution_in_some_places(env, batch):
    (task,) = env.create({"command": "a a a", "batch": batch})
    for count, command in ((1, "b a a"), (0, "b b b")):
        env.api("POST", "/tasks/edit", {"ids": [task], "sub": {"pattern": "a", "replacement": "b", "count": count}})
        assert env.task(task)["command"] == command


def test_bulk_verbs_want_to_know_which(env):
    for verb in ("edit", "relaunch", "cancel", "delete"):
        for body in ({}, {"filter": {}}, {"ids": [1], "filter": {"batch": "x"}}, {"ids": ["x"]}, {"filter": {"bach": "x"}}):
            refused(env, "POST", f"/tasks/{verb}", body)


def test_cancel_relaunch_and_delete(env, batch):
    done, running, idle = env.create(*[{"command": f"{n}", "batch": batch} for n in range(3)])
    worker = Hands(env, batch, batch, concurrency=2)
    worker.sync()
    worker.end(done)
    idle_first = env.api(
        "POST", "/workers", {"name": f"{batch}-x", "key": "k" * 20, "concurrency": 0}
    )  # has no slot: takes nothing
    assert idle_first["state"] == "online"
    answer = env.api("POST", "/tasks/cancel", {"ids": [done, running, 99999999]})
    assert answer["ids"] == [running] and {item["id"] for item in answer["skipped"]} == {done, 99999999}
    assert "cancel" in {order.desired for order in worker.sync().orders if worker.held.get(order.id) == running}
    worker.end(running, "failed", 1)
    assert env.state(running) == "canceled"
    assert env.api("POST", "/tasks/relaunch", {"ids": [running, idle]})["ids"] == [running]
    assert env.state(running) in ("pending", "assigned")
    assert set(env.api("POST", "/tasks/delete", {"filter": {"batch": batch}})["ids"]) == {done, running, idle}
    assert env.items("/tasks", batch=batch) == [] and env.items("/executions", batch=batch) == []
    told = worker.sync(*[Report(execution, "running") for execution in worker.held])
    assert set(told.fenced) == set(worker.held) and told.orders == []


def test_what_others_wait_for_is_not_deleted(env, batch):
    first, second = env.create({"command": "a", "batch": batch}, {"command": "b", "batch": batch, "require": ["#0"]})
    assert env.api("POST", "/tasks/delete", {"ids": [first]})["skipped"][0]["id"] == first
    assert refused(env, "DELETE", f"/tasks/{first}", status=409)["code"] == "conflict"
    assert env.api("POST", "/tasks/delete", {"ids": [first, second]})["skipped"] == []


def test_signals_reach_what_runs(env, batch):
    running, other = env.create({"command": "a", "batch": batch}, {"command": "b", "batch": batch + "x"})
    worker = Hands(env, batch, batch)
    worker.sync()
    (execution,) = worker.held
    worker.sync(Report(execution, "running", started_ago=0.1))
    for action, desired in (("suspend", "suspend"), ("resume", "run"), ("term", "term"), ("kill", "kill")):
        answer = env.api("POST", "/tasks/signal", {"ids": [running, other], "action": action})
        assert answer["ids"] == [running] and answer["skipped"][0]["id"] == other
        assert [order.desired for order in worker.sync(Report(execution, "running")).orders] == [desired]
    refused(env, "POST", "/tasks/signal", {"ids": [running], "action": "hug"})


# --- counts that wait -------------------------------------------------------------------------------------------------------


def test_counts_wait_for_a_change(env, batch):
    before = env.api("GET", "/tasks/counts", batch=batch)
    began = time.monotonic()
    assert env.api("GET", "/tasks/counts", batch=batch, version=before["version"], wait=0.3)["counts"] == {}
    assert 0.25 < time.monotonic() - began < 15
    timer = threading.Timer(0.3, lambda: Env.api(other, "POST", "/tasks", {"command": "x", "batch": batch}))
    other = env_with_its_own_connection(env)
    version = env.api("GET", "/tasks/counts", batch=batch)["version"]
    timer.start()
    after = env.api("GET", "/tasks/counts", batch=batch, version=version, wait=20)
    assert after["counts"] == {"pending": 1} and after["version"] != version
    timer.join()


def env_with_its_own_connection(env: Env) -> Env:
    import copy

    other = copy.copy(env)
    other._connection = None
    return other
