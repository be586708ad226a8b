"""The API from outside: what each noun does, what it refuses, and how it says so."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from dataclasses import fields

import pytest
from env import Env
from scitq.api import application  # noqa: F401 - it fills the table
from scitq.api.newtasks import accept
from scitq.api.openapi import document
from scitq.api.routes import TABLE
from scitq.api.schemas import NewTask
from scitq.errors import InvalidRequest
from scitq.protocol import Chunk, Report, SyncAnswer, SyncRequest, TaskSpec
from scitq.transport import Connection, raise_for

from scitq import wire


class Hands:
    """A worker by its requests alone: it runs nothing, and says what the test wants."""

    def __init__(self, env: Env, name: str, batch: str, concurrency: int = 4):
        body = {"name": name, "key": (name * 40)[:40], "hostname": "h", "concurrency": concurrency, "batch": batch}
        self.row = env.api("POST", "/workers", body)
        self.connection = Connection(env.url, self.row["token"])
        self.sequence = 0
        self.held: dict[int, int] = {}  # execution -> task

    def sync(self, *reports: Report, output=()) -> SyncAnswer:
        self.sequence += 1
        chunks = [Chunk(i, stream, offset, len(data)) for i, stream, offset, data in output]
        request = SyncRequest("i", self.sequence, "1", executions=list(reports), output=chunks)
        body = wire.encode_request(request, [data for *_, data in output])
        headers = {"Content-Type": wire.SYNC_CONTENT_TYPE}
        answer = self.connection.request("POST", f"/api/v1/workers/{self.row['id']}/sync", body, headers=headers)
        told = wire.decode_answer(raise_for(answer).json())
        self.held |= {order.id: order.spec["task_id"] for order in told.orders if order.spec}
        return told

    def end(self, task: int, state: str = "succeeded", exit_code: int = 0, stdout: bytes = b"") -> int:
        """The execution of a task ends so; its id."""
        (execution,) = [e for e, t in self.held.items() if t == task]
        report = Report(
            execution, state, exit_code=exit_code, started_ago=2.0, ended_ago=0.5, stdout_size=len(stdout), stderr_size=0
        )
        told = self.sync(report, output=[(execution, "stdout", 0, stdout)] if stdout else [])
        assert execution in told.acknowledged
        del self.held[execution]
        return execution


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def env(request, tmp_path_factory):
    """One server for all tests of this page, on each database."""
    url = request.getfixturevalue("postgres").new_database() if request.param == "postgresql" else None
    made = Env(tmp_path_factory.mktemp("api"), url)
    made.server()
    yield made
    made.close()


@pytest.fixture
def batch(request):
    """A name of its own for each test."""
    return request.node.name.replace("[", "-").replace("]", "")


def refused(env, method: str, path: str, body=None, status: int = 400, **query) -> dict:
    answer = env.answer(method, path, body, **query)
    assert answer.status == status, answer.body[:300]
    return answer.json()["error"]


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
    ({"tasks": [{"command": "x"}, {"command": "x", "retry": None}]}, "tasks[1].retry"),
    ({"tasks": [{"command": "x"}, {"command": "x", "require": ["#2"]}, {"command": "x", "require": ["#1"]}]}, "tasks[1].require"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda value: f"{value!r:.50}")
def test_a_wrong_task_is_refused_by_its_field_and_nothing_is_kept(env, body, field):
    before = env.api("GET", "/tasks/counts")
    assert refused(env, "POST", "/tasks", body)["field"] == field
    assert env.api("GET", "/tasks/counts")["counts"] == before["counts"]


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
    assert len(set(ids)) == 10_000 and time.monotonic() - began < 10
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
    assert answer.status == 413 and answer.json()["error"]["code"] == "too_large" and time.monotonic() - began < 5


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


# --- lists and filters ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(env):
    """Six tasks of two batches in several states; their ids."""
    ids = env.create(
        *[{"command": f"c{n}", "name": f"run-{n}" if n else None, "batch": "crowd"} for n in range(5)],
        {"command": "o", "batch": "other"},
    )
    worker = Hands(env, "crowd-worker", "crowd", concurrency=5)
    worker.sync()
    worker.end(ids[0], "succeeded", 0, b"all is well\n")
    worker.end(ids[1], "failed", 3, b"50% of memory\n")
    worker.end(ids[2], "failed", 4, b"no luck\n")
    return ids


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"batch": "crowd"}, [0, 1, 2, 3, 4]),
        ({"batch": "other"}, [5]),
        ({"batch": "crow"}, []),
        ({"batch": "crowd", "state": "failed"}, [1, 2]),
        ({"batch": "crowd", "state": "succeeded,failed"}, [0, 1, 2]),
        ({"batch": "crowd", "name": "run-*"}, [1, 2, 3, 4]),
        ({"batch": "crowd", "name": "run-[1-2]"}, [1, 2]),
        ({"batch": "crowd", "name": "run-[!1]"}, [2, 3, 4]),
        ({"batch": "crowd", "name": "RUN-*"}, []),
        ({"batch": "crowd", "name": "*"}, [0, 1, 2, 3, 4]),
        ({"batch": "crowd", "name": "run-?"}, [1, 2, 3, 4]),
        ({"worker": "crowd-worker"}, [0, 1, 2, 3, 4]),
        ({"worker": "nobody"}, []),
        ({"exit_code": "3"}, [1]),
        ({"exit_code": "3,4"}, [1, 2]),
        ({"grep": "50% of"}, [1]),
        ({"grep": "50_"}, []),
        ({"batch": "crowd", "since": "2h"}, [0, 1, 2, 3, 4]),
        ({"batch": "crowd", "since": "2099-01-01"}, []),
    ],
)
def test_filters(env, crowd, query, found):
    assert [task["id"] for task in env.items("/tasks", **query)] == [crowd[index] for index in found]
    assert sum(env.api("GET", "/tasks/counts", **query)["counts"].values()) == len(found)
    if "state" not in query:
        assert {row["task_id"] for row in env.items("/executions", **query)} <= {crowd[index] for index in found}


def test_ids_and_ranges(env, crowd):
    wanted = f"{crowd[0]},{crowd[2]}-{crowd[4]},999999999999"
    assert [task["id"] for task in env.items("/tasks", ids=wanted)] == [crowd[0], *crowd[2:5]]
    assert env.items("/tasks", ids="1-2000000000", batch="other") == [env.task(crowd[5])]


@pytest.mark.parametrize(
    "query",
    [
        {"state": "suceeded"},
        {"state": ","},
        {"ids": "x"},
        {"ids": "1--2"},
        {"exit_code": "one"},
        {"since": "yesterday"},
        {"stat": "x"},
        {"limit": 0},
        {"limit": 5001},
        {"limit": "x"},
        {"after": -1},
        {"order": "name"},
        {"batch": ""},
        {"name": "a\0b"},
        {"after": 2**40},
    ],
)
def test_a_wrong_filter_is_told_by_its_name(env, query):
    error = refused(env, "GET", "/tasks", **query)
    assert error["field"] == next(iter(query)) and error["message"]
    if query.get("state") == "suceeded":
        assert "did you mean 'succeeded'" in error["message"]


def test_pages_follow_each_other_in_both_orders(env, crowd):
    for order in ("id", "-id"):
        found, after = [], None
        while True:
            page = env.api("GET", "/tasks", batch="crowd", limit=2, order=order, after=after)
            found += [task["id"] for task in page["items"]]
            after = page["next"]
            if after is None:
                break
        assert found == sorted(crowd[:5], reverse=order == "-id")


def test_a_parameter_given_twice_is_refused(env):
    with Connection(env.url, env.token) as connection:
        assert connection.request("GET", "/api/v1/tasks?batch=a&batch=b").status == 400
        assert connection.request("GET", "/api/v1/tasks?batch=%ff").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/0",
        "/tasks/999999",
        "/tasks/99999999999",
        "/executions/999999/stdout",
        "/workers/999999",
        "/batches/nowhere",
        "/batches/nowhere/report",
        "/tasks/999999/explain",
        "/tasks/-1",
        "/tasks/x",
    ],
)
def test_what_is_not_there_is_a_404(env, path):
    assert refused(env, "GET", path, status=404)["code"] == "not_found"


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
    "sub", [{"pattern": "(", "replacement": ""}, {"pattern": "a", "replacement": r"\9"}, {"pattern": "a"}, {}]
)
def test_a_wrong_substitution_is_told(env, batch, sub):
    env.create({"command": "a", "batch": batch})
    assert refused(env, "POST", "/tasks/edit", {"filter": {"batch": batch}, "sub": sub})["field"].startswith("sub.")


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
    assert 0.25 < time.monotonic() - began < 5
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


# --- executions and output --------------------------------------------------------------------------------------------------


def test_output_comes_back_byte_for_byte(env, batch):
    (task,) = env.create({"command": "a", "batch": batch})
    worker = Hands(env, batch, batch)
    worker.sync()
    data = bytes(range(256)) * 5000
    execution = worker.end(task, stdout=data)
    assert env.stdout(task) == data
    answer = env.answer("GET", f"/executions/{execution}/stdout", offset=1000, limit=10)
    assert answer.body == data[1000:1010]
    told = {name: answer.headers[f"X-Scitq-{name}"] for name in ("Offset", "Next", "Size", "State", "Skipped")}
    assert told == {"Offset": "1000", "Next": "1010", "Size": str(len(data)), "State": "succeeded", "Skipped": "0"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Content-Type"] == "application/octet-stream"
    assert env.answer("GET", f"/executions/{execution}/stdout", offset=10**12).body == b""
    refused(env, "GET", f"/executions/{execution}/stdout", offset=-1)


def test_output_is_waited_for(env, batch):
    (task,) = env.create({"command": "a", "batch": batch})
    worker = Hands(env, batch, batch)
    worker.sync()
    (execution,) = worker.held
    timer = threading.Timer(0.3, lambda: worker.sync(Report(execution, "running"), output=[(execution, "stdout", 0, b"now")]))
    timer.start()
    assert env.answer("GET", f"/executions/{execution}/stdout", wait=20).body == b"now"
    timer.join()
    worker.end(task, stdout=b"now")
    began = time.monotonic()
    assert (
        env.answer("GET", f"/executions/{execution}/stdout", offset=3, wait=20).body == b""
    )  # it has ended: nothing more will come
    assert time.monotonic() - began < 5


def test_the_attempts_of_a_task(env, batch):
    (task,) = env.create({"command": "a", "batch": batch, "retry": 1})
    worker = Hands(env, batch, batch)
    for exit_code in (7, 8):
        worker.sync()
        worker.end(task, "failed", exit_code)
    found = env.executions(task)
    assert [(row["attempt"], row["exit_code"], row["state"]) for row in found] == [(1, 7, "failed"), (2, 8, "failed")]
    assert found[0]["started_at"] < found[0]["ended_at"] and found[0]["worker"] == batch
    assert env.state(task) == "failed" and env.api("GET", f"/executions/{found[0]['id']}") == found[0]


# --- batches, workers, events, the server -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "with space", "a/b", "ü", "100%", "q?x#y", "<script>", "..", "'; DROP TABLE task; --"])
def test_batches_of_any_name(env, name):
    from urllib.parse import quote

    env.create({"command": "a", "batch": name})
    path = f"/batches/{quote(name, safe='')}"
    if name != "..":
        assert env.api("GET", path)["counts"] == {"pending": 1}
        assert env.api("POST", f"{path}/stop", {})["stopped"] is True
        assert env.api("POST", f"{path}/go", {})["stopped"] is False
        assert env.api("GET", f"{path}/report")["failures"] == []
        assert env.answer("DELETE", path).status == 204
        assert env.answer("GET", path).status == 404
    assert env.items("/batches")


def test_a_stopped_batch_starts_nothing_and_says_so(env, batch):
    env.create({"command": "a", "batch": batch})
    env.api("POST", f"/batches/{batch}/stop", {"running": "term"})
    worker = Hands(env, batch, batch)
    assert worker.sync().orders == []
    (task,) = env.items("/tasks", batch=batch)
    assert "stopped" in env.api("GET", f"/tasks/{task['id']}/explain")["sentence"]
    env.api("POST", f"/batches/{batch}/go")
    assert len(worker.sync().orders) == 1
    refused(env, "POST", f"/batches/{batch}/stop", {"running": "explode"})


def test_a_report_groups_failures(env, batch):
    ids = env.create(*[{"command": "a", "batch": batch} for _ in range(3)])
    worker = Hands(env, batch, batch)
    worker.sync()
    worker.end(ids[0])
    for task in ids[1:]:
        worker.end(task, "failed", 9, b"first\nlast line\n")
    report = env.api("GET", f"/batches/{batch}/report")
    assert report["durations"]["count"] == 1 and 1.0 < report["durations"]["mean"] < 2.0
    assert [(g["exit_code"], g["last_line"], g["count"], g["task_ids"]) for g in report["failures"]] == [
        (9, "last line", 2, ids[1:])
    ]


def test_a_worker_registers_again_and_keeps_what_was_changed(env, batch):
    body = {"name": batch, "key": "k" * 32, "hostname": "h", "concurrency": 2, "batch": batch}
    first = env.api("POST", "/workers", body)
    changed = env.api("PATCH", f"/workers/{first['id']}", {"concurrency": 5, "draining": True})
    assert (changed["concurrency"], changed["state"]) == (5, "draining")
    again = env.api("POST", "/workers", body)
    assert again["id"] == first["id"] and again["concurrency"] == 5 and again["token"] != first["token"]
    with Connection(env.url, first["token"]) as connection:
        assert connection.request("GET", f"/api/v1/workers/{first['id']}").status in (401, 429)
    with Connection(env.url, again["token"]) as connection:
        assert connection.request("GET", f"/api/v1/workers/{first['id']}").json()["name"] == batch
    assert refused(env, "POST", "/workers", body | {"key": "l" * 32}, status=409)["field"] == "name"
    assert "key" not in again and "hash" not in again


def test_a_deleted_worker_gives_back_what_it_held(env, batch):
    (task,) = env.create({"command": "a", "batch": batch})
    worker = Hands(env, batch, batch)
    worker.sync()
    assert env.answer("DELETE", f"/workers/{worker.row['id']}").status == 204
    assert env.state(task) == "pending" and env.executions(task)[0]["state"] == "lost"
    assert worker.connection.request("POST", f"/api/v1/workers/{worker.row['id']}/sync", b"{}").status in (401, 429)
    refused(env, "GET", f"/workers/{worker.row['id']}", status=404)


def test_workers_are_filtered(env, batch):
    for number in range(3):
        Hands(env, f"{batch}-{number}", batch)
    env.api("PATCH", f"/workers/{env.items('/workers', batch=batch)[0]['id']}", {"draining": True})
    assert len(env.items("/workers", batch=batch)) == 3
    assert [w["name"] for w in env.items("/workers", batch=batch, state="online")] == [f"{batch}-1", f"{batch}-2"]
    assert [w["name"] for w in env.items("/workers", name=f"{batch}-[02]")] == [f"{batch}-0", f"{batch}-2"]
    refused(env, "GET", "/workers", state="onlin")


def test_every_change_is_one_event_and_a_dry_run_none(env, batch):
    def new_events(change) -> list[tuple]:
        last = env.api("GET", "/events", order="-id", limit=1)["items"][0]["id"]
        change()
        return [(event["action"], event["ids"]) for event in env.items("/events") if event["id"] > last]

    ids: list[int] = []
    assert new_events(lambda: ids.extend(env.create(*[{"command": "a", "batch": batch}] * 3))) == [
        ("task.create", [f"{ids[0]}-{ids[2]}"])
    ]
    one = ids[0]
    for path, body, event in (
        (f"/batches/{batch}/stop", {}, ("batch.stop", [batch])),
        (f"/batches/{batch}/go", {}, ("batch.go", [batch])),
        ("/tasks/edit", {"ids": [one], "set": {"retry": 1}}, ("task.edit", [one])),
        ("/tasks/cancel", {"ids": [one]}, ("task.cancel", [one])),
        ("/tasks/relaunch", {"ids": [one]}, ("task.relaunch", [one])),
        ("/tasks/delete", {"ids": [one]}, ("task.delete", [one])),
        ("/tokens", {"name": batch}, ("token.create", None)),
        ("/workers", {"name": batch, "key": "k" * 20, "concurrency": 0}, ("worker.register", None)),
    ):
        if "ids" in body:
            assert new_events(lambda path=path, body=body: env.api("POST", path, body | {"dry_run": True})) == []
        ((action, changed),) = new_events(lambda path=path, body=body: env.api("POST", path, body))
        assert action == event[0] and event[1] in (None, changed)
    assert {event["who"] for event in env.items("/events", object="task")} == {env.api("GET", "/server")["you"]["name"]}


def test_the_server_says_what_it_is(env):
    info = env.api("GET", "/server")
    assert info["database"] == ("postgresql" if env.database else "sqlite") and info["time_at"].endswith("Z") and info["you"]["role"] == "admin"


def test_a_backup_is_a_whole_database(env, tmp_path):
    if env.database:
        assert "pg_dump" in refused(env, "POST", "/backup", status=409)["message"]
        return
    (task,) = env.create({"command": "kept", "batch": "backup"})
    path = env.api("POST", "/backup")["path"]
    other = Env(tmp_path)
    other.variables["SCITQ_CONFIG"] = env.variables["SCITQ_CONFIG"]
    server = other.server(database=f"sqlite:///{path}")
    with Connection(server.url, env.token) as connection:
        assert connection.request("GET", f"/api/v1/tasks/{task}").json()["command"] == "kept"
    other.close()


# --- the document -----------------------------------------------------------------------------------------------------------


def test_every_route_is_described(env):
    described = document()
    assert {(path, method.upper()) for path, methods in described["paths"].items() for method in methods} == {
        (r.template, r.method) for r in TABLE
    }
    names = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    with Connection(env.url) as connection:
        assert connection.request("GET", "/openapi.json").json() == described


def test_the_page_of_the_api_loads_its_own_files_only(env):
    with Connection(env.url) as connection:
        page = connection.request("GET", "/docs").body.decode()
        assert "://" not in page and "<script>" not in page
        for file in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
            assert connection.request("GET", f"/docs/{file}").status == 200
        assert connection.request("GET", "/docs/..%2fpages.py").status == 404


def test_no_such_path_or_method(env):
    assert refused(env, "GET", "/nothing", status=404)["code"] == "not_found"
    assert refused(env, "PUT", "/tasks", {}, status=405)["code"] == "method_not_allowed"
    assert env.answer("PUT", "/tasks", {}).headers["Allow"]
