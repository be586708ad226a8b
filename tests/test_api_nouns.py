"""The API from outside: lists, executions, batches, workers, events, the server, what it refuses, and how it says so."""

from __future__ import annotations

import shlex
import threading
import time
from urllib.parse import quote

import pytest
from env import Env
from hands import Hands, refused
from scitq.api import application  # noqa: F401 - it fills the table
from scitq.api.openapi import document
from scitq.api.routes import TABLE
from scitq.protocol import Report
from scitq.transport import Connection


@pytest.fixture(scope="module")
def env(served):
    return served


# --- lists and filters ------------------------------------------------------------------------------------------------


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


# --- executions and output --------------------------------------------------------------------------------------------


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
    assert time.monotonic() - began < 15


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


# --- batches, workers, events, the server -----------------------------------------------------------------------------


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


def test_a_line_to_type_is_safe_to_type(env, batch):
    name = f"{batch} & others; it's"
    (task,) = env.create({"command": "a", "batch": name})
    assert shlex.quote(name) in env.api("GET", f"/tasks/{task}/explain")["sentence"]
    env.api("POST", f"/batches/{quote(name, safe='')}/stop", {})
    assert shlex.quote(name) in env.api("GET", f"/tasks/{task}/explain")["sentence"]


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
    assert (
        info["database"] == ("postgresql" if env.database else "sqlite")
        and info["decides"]
        and info["time_at"].endswith("Z")
        and info["you"]["role"] == "admin"
    )
    assert info["database_bytes"] > 50_000


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


# --- the document -----------------------------------------------------------------------------------------------------


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
