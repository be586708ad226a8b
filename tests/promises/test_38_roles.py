"""Promise 38: roles, and what is not given is denied: the whole table of routes against all kinds of callers."""

from __future__ import annotations

import pytest
from doors import EVERY, GUARDED, OPEN, TABLE, Doors, body_of, error
from env import Env
from hands import Hands
from scitq.protocol import Report

# What is not written here: a user and an administrator reach it, a worker does not.
ADMIN_ALONE = {
    "GET /api/v1/tokens", "POST /api/v1/tokens", "DELETE /api/v1/tokens/<id:id>", "POST /api/v1/backup",
}  # fmt: skip
WORKER_ALONE = {"POST /api/v1/workers/<id:id>/sync", "GET /api/v1/workers/<id:id>/cache/<key>"}
OF_THE_WORKER_ITSELF = {"GET /api/v1/workers/<id:id>", *WORKER_ALONE}
OF_ANY_WORKER = {"GET /install/scitq.pyz"}  # it holds nothing of anybody
DENIED = {"user": ADMIN_ALONE | WORKER_ALONE, "admin": WORKER_ALONE}


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


def key(route) -> str:
    return f"{route.method} {route.path}"


def test_the_exceptions_are_routes():
    assert (ADMIN_ALONE | OF_THE_WORKER_ITSELF | WORKER_ALONE | OF_ANY_WORKER) <= set(EVERY)
    assert all(route.roles for route in TABLE if route.path not in OPEN)


@pytest.mark.parametrize("role", ["user", "admin"])
def test_people_reach_what_is_theirs_and_nothing_else(doors, role):
    """Asked for what is not there or not right, so that all stays as it is: let in is whoever is not told 401 or 403."""
    token, wrong = getattr(doors, role), []
    before = doors.picture()
    for route in GUARDED:
        body = {"there is no such field": 1} if route.method in ("POST", "PATCH") else None
        answer = doors.knock(route, token, number=2**31 - 1, body=body)
        if (answer.status in (401, 403)) != (key(route) in DENIED[role]):
            wrong.append((key(route), answer.status))
    assert wrong == []
    assert doors.picture()["tasks"] == before["tasks"]


@pytest.mark.parametrize("route", [r for r in GUARDED if key(r) in ADMIN_ALONE], ids=key)
def test_what_is_an_administrators_is_told_to_a_user(doors, route):
    answer = doors.knock(route, doors.user, body=body_of(route))
    assert answer.status == 403 and error(answer)["code"] == "not_allowed"
    assert "admin" in error(answer)["message"] and "ursula" in error(answer)["message"]


@pytest.mark.parametrize("route", GUARDED, ids=key)
def test_a_worker_reaches_itself_alone(doors, route):
    itself = doors.knock(route, doors.worker, body=body_of(route), number=doors.worker_id)
    other = doors.knock(route, doors.worker, body=body_of(route), number=doors.other_id)
    assert (itself.status != 403) == (key(route) in OF_THE_WORKER_ITSELF | OF_ANY_WORKER)
    assert (other.status != 403) == (key(route) in OF_ANY_WORKER)


def test_what_workers_were_refused_left_nothing_behind(doors):
    before = doors.picture()
    for route in GUARDED:
        if key(route) not in WORKER_ALONE:
            doors.knock(route, doors.worker, body=body_of(route), number=doors.other_id)
            doors.knock(route, doors.worker, body=body_of(route))
    assert doors.picture() == before


def test_a_user_makes_nobody_more_than_he_is(doors):
    """Neither himself nor a worker of his becomes an administrator."""
    env = doors.env
    for body in ({"name": "u", "role": "admin"}, {"name": "u", "role": "user"}, {"name": "u", "role": "worker"}):
        (create,) = [route for route in TABLE if key(route) == "POST /api/v1/tokens"]
        assert doors.knock(create, doors.user, body=body).status == 403
    for role in ("worker", "root", "", None, ["admin"]):
        assert env.answer("POST", "/tokens", {"name": "u", "role": role}).status == 400
    (register,) = [route for route in TABLE if key(route) == "POST /api/v1/workers"]
    body = {"name": "mine", "key": "m" * 40, "hostname": "h", "concurrency": 0}
    for more in ({"role": "admin"}, {"token": "x"}, {"id": 1}):
        assert doors.knock(register, doors.user, body=body | more).status == 400
    made = doors.knock(register, doors.user, body=body).json()
    assert doors.get("/api/v1/tasks", made["token"]).status == 403
    env.api("DELETE", f"/workers/{made['id']}")
    assert doors.get(f"/api/v1/workers/{made['id']}", made["token"]).status in (401, 429)


def test_one_worker_says_nothing_of_another(doors):
    """Its sync speaks of its own executions: those of others it names are refused as not its own, and stay as they are."""
    env = doors.env
    (task,) = env.create({"command": "true", "batch": "theirs"})
    theirs = Hands(env, "theirs", "theirs")
    theirs.sync()
    (execution,) = theirs.held
    intruder = Hands(env, "intruder", "intruders")
    told = intruder.sync(
        Report(execution, "failed", exit_code=1, stdout_size=3, stderr_size=0), output=[(execution, "stdout", 0, b"lie")]
    )
    assert execution in told.fenced and told.acknowledged == []
    assert env.state(task) == "assigned" and env.stdout(task) == b""
    theirs.end(task, stdout=b"truth")
    assert env.state(task) == "succeeded" and env.stdout(task) == b"truth"
