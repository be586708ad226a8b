"""Promise 2: sent twice with one request id it is done once; another request with the same id is a 409."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from env import Env
from scitq.errors import ScitqError
from scitq.transport import Connection

AT_ONCE = 8


def send(env: Env, key: str, body: dict, url: str | None = None, path: str = "/tasks", method: str = "POST"):
    """One keyed request on a connection of its own."""
    with Connection(url or env.url, env.token) as connection:
        return connection.request(method, f"/api/v1{path}", body, headers={"Idempotency-Key": key})


def at_once(calls: list) -> list:
    """The results of calls that begin at the same moment, each in a thread."""
    gate = threading.Barrier(len(calls))

    def run(call):
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def everything(env: Env) -> list:
    """All that a request may change."""
    return [env.items(path) for path in ("/tasks", "/batches", "/events", "/tokens")]


def test_twice_and_at_the_same_time(served, batch):
    body = {"tasks": [{"command": f"c {i}", "batch": batch} for i in range(50)]}
    first = at_once([lambda: send(served, batch, body)] * AT_ONCE)
    before = everything(served)
    later = [send(served, batch, body) for _ in range(2)]
    assert {answer.status for answer in first + later} == {201}
    ids = first[0].json()["ids"]
    assert all(answer.json() == first[0].json() for answer in first + later)
    assert [task["id"] for task in served.items("/tasks", batch=batch)] == ids and len(ids) == 50
    assert everything(served) == before


def test_another_body_path_or_caller_is_refused(served, batch):
    body = {"command": "x", "batch": batch}
    (task,) = send(served, batch, body).json()["ids"]
    other = served.api("POST", "/tokens", {"name": f"other {batch}", "role": "user"})
    before = everything(served)
    refused = [
        send(served, batch, {**body, "command": "y"}),
        send(served, batch, {**body, "priority": 1}),
        send(served, batch, {"tasks": [body]}),
        send(served, batch, {"ids": [task]}, path="/tasks/cancel"),
        send(served, batch, body, path=f"/tasks/{task}", method="PATCH"),
    ]
    with Connection(served.url, other["token"]) as connection:
        refused.append(connection.request("POST", "/api/v1/tasks", body, headers={"Idempotency-Key": batch}))
    for answer in refused:
        assert answer.status == 409 and answer.json()["error"]["field"] == "Idempotency-Key", answer.body
    assert everything(served) == before
    assert send(served, batch, body).json()["ids"] == [task]


def test_different_bodies_at_the_same_time_are_one_task(served, batch):
    answers = at_once([lambda i=i: send(served, batch, {"command": f"c {i}", "batch": batch}) for i in range(AT_ONCE)])
    assert sorted(answer.status for answer in answers) == [201] + [409] * (AT_ONCE - 1)
    assert len(served.items("/tasks", batch=batch)) == 1


def test_every_verb_is_done_once(served, batch):
    """What would do something again if it were done again: the second time the task is in another state."""
    (task,) = served.create({"command": "x", "batch": batch})

    def twice(key: str, path: str, body: dict, between=lambda: None) -> None:
        first = send(served, f"{batch} {key}", body, path=path)
        assert first.status < 300, first.body
        between()
        before = everything(served)
        again = send(served, f"{batch} {key}", body, path=path)
        assert (again.status, again.body) == (first.status, first.body) and everything(served) == before

    twice("cancel", "/tasks/cancel", {"ids": [task]}, lambda: served.api("POST", "/tasks/relaunch", {"ids": [task]}))
    twice("edit", "/tasks/edit", {"ids": [task], "sub": {"pattern": "x", "replacement": "xx"}})
    assert served.task(task)["command"] == "xx"
    served.api("POST", "/tasks/cancel", {"ids": [task]})
    twice("relaunch", "/tasks/relaunch", {"ids": [task]}, lambda: served.api("POST", "/tasks/cancel", {"ids": [task]}))
    assert served.state(task) == "canceled"
    twice("stop", f"/batches/{batch}/stop", {}, lambda: served.api("POST", f"/batches/{batch}/go"))
    twice("delete", "/tasks/delete", {"ids": [task]})


def test_an_id_is_remembered_over_kill9(env_on_each):
    """Sent, and the server dies before, while or after it does it: sent again it is done, once."""
    env = env_on_each
    server = env.server()
    for delay in (0.0, 0.005, 0.02, 0.06):
        key, body = f"after {delay}", {"tasks": [{"command": "x", "batch": f"b{delay}"}] * 500}
        request = threading.Thread(target=lambda: _send_to_the_dying(env, key, body))
        request.start()
        time.sleep(delay)
        server.kill9()
        request.join()
        server.start()
        answers = [send(env, key, body) for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 201] and answers[0].json() == answers[1].json()
        assert [task["id"] for task in env.items("/tasks", batch=f"b{delay}")] == answers[0].json()["ids"]


def _send_to_the_dying(env: Env, key: str, body: dict) -> None:
    with contextlib.suppress(ScitqError, OSError):  # the server dies meanwhile: that is what this is for
        send(env, key, body)


@pytest.mark.parametrize("way", ["up", "down"])
def test_launch_on_a_line_that_is_cut(env, way):
    """The request, or only its answer, is lost: the command line sends it again by itself."""
    env.server()
    relay = env.relay()
    relay.silent = {way}
    launch = env.start("launch", "launch", "-s", relay.url, "true", variables={"SCITQ_TOKEN": env.token})
    launch.ended_by_test = True
    if way == "down":
        env.until(lambda: env.items("/tasks"), what="the request has arrived")
    else:
        env.until(lambda: relay.requests, what="the request is on its way")
    relay.cut()
    relay.silent = set()
    assert launch.wait_exit() == 0
    assert [task["id"] for task in env.items("/tasks")] == [int(launch.output())]


def test_sent_to_two_servers_of_one_database_at_the_same_time(tmp_path, postgres):
    env = Env(tmp_path, postgres.new_database())
    try:
        servers = [env.server(), env.server(name="second")]
        for number in range(5):
            body = {"tasks": [{"command": "x", "batch": f"b{number}"}] * 200}
            calls = [lambda url=servers[i % 2].url: send(env, f"k{number}", body, url) for i in range(AT_ONCE)]
            answers = at_once(calls)
            assert {answer.status for answer in answers} == {201}, [answer.body[:200] for answer in answers]
            assert len({json.dumps(answer.json()) for answer in answers}) == 1
            assert len(env.items("/tasks", batch=f"b{number}")) == 200
    finally:
        env.close()
