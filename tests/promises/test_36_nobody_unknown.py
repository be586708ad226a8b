"""Promise 36: no command runs for somebody unknown. Every door of the table is tried, so that a new one is covered by birth."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import sqlite3
import tempfile
from pathlib import Path

import pytest
from doors import GUARDED, OPEN, TABLE, Doors, body_of, error, raw
from env import Env
from scitq.transport import Connection

REFUSED = (401, 429)  # 429: others have guessed from this address
IDS = [f"{route.method} {route.path}" for route in GUARDED]
NOBODY = 65534


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


def strangers(doors: Doors) -> dict[str, tuple[str | None, dict]]:
    """All who are not known, by what they show: a token and headers."""
    hashed = hashlib.sha256(doors.admin.encode()).hexdigest()
    return {
        "nothing": (None, {}),
        "a token of the right shape": ("scitq_" + "A" * 43, {}),
        "a revoked token": (doors.revoked, {}),
        "a token without its last letter": (doors.admin[:-1], {}),
        "a token in capitals": (doors.admin.upper(), {}),
        "what the database keeps of a token": (hashed, {}),
        "a password": (None, {"Authorization": "Basic YWRtaW46YWRtaW4="}),
        "an empty token": (None, {"Authorization": "Bearer "}),
        "two tokens": (None, {"Authorization": f"Bearer x {doors.admin}"}),
        "a cookie of another server": (
            None, {"Cookie": f"scitq={doors.admin}; scitq-0000={doors.admin}", "Origin": doors.server.url},
        ),
        "a proxy's word": (None, {"X-Forwarded-For": "127.0.0.1", "X-Remote-User": "root", "X-Forwarded-User": "root"}),
    }  # fmt: skip


def test_these_routes_alone_are_open_and_the_document_has_them_all(doors):
    assert {route.path for route in TABLE if not route.roles} == OPEN
    paths = doors.get("/openapi.json").json()["paths"]
    assert {(method, path) for path, found in paths.items() for method in found} == {
        (route.method.lower(), re.sub(r"<(\w+)[^>]*>", r"{\1}", route.path)) for route in TABLE
    }
    assert {path for path, found in paths.items() for told in found.values() if told.get("security") == []} == {
        re.sub(r"<(\w+)[^>]*>", r"{\1}", path) for path in OPEN
    }


@pytest.mark.parametrize("route", GUARDED, ids=IDS)
def test_nobody_unknown_passes_a_door(doors, route):
    for shown, (token, headers) in strangers(doors).items():
        answer = doors.knock(route, token, headers, body=body_of(route))
        assert answer.status in REFUSED, shown
        assert error(answer)["code"] in ("not_authenticated", "too_many_requests") and error(answer)["message"]


def test_what_strangers_asked_for_left_nothing_behind(doors):
    """With bodies that would be done at once: no task, no worker, no token, no line of the event log is of them."""
    before = doors.picture()
    for route in GUARDED:
        for token, headers in (*strangers(doors).values(), (None, {"Idempotency-Key": "k"})):
            doors.knock(route, token, headers, body=body_of(route))
    assert doors.picture() == before
    assert before["tasks"] and before["workers"] and before["tokens"] and before["events"]


def test_a_token_in_an_address_opens_nothing(doors):
    """Addresses lie in logs and histories; the login link alone takes one, and trades it for a cookie."""
    for route in GUARDED:
        answer = doors.knock(route, None, query={"token": doors.admin, "access_token": doors.admin}, body=body_of(route))
        assert answer.status in REFUSED, route.path


@pytest.mark.parametrize("path", [
    "//api/v1/tasks", "/api/v1//tasks", "/./api/v1/tasks", "/docs/../api/v1/tasks", "/docs/..%2fapi/v1/tasks", "/API/v1/tasks",
    "/api/v1/tasks/", "/api/v1/tasks;a=b", "/api/v1/tasks%00", "/api/v1/%74asks", "/health/live/../../api/v1/tasks",
    "/login/../api/v1/tasks", "http://127.0.0.1/api/v1/tasks",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "X"])
def test_no_spelling_of_a_path_or_method_leads_around(doors, path, method):
    body = '{"command": "true"}' if method not in ("GET", "HEAD") else ""
    more = "X-HTTP-Method-Override: GET\r\nX-Original-URL: /health/live\r\nX-Rewrite-URL: /health/live\r\n"
    told = raw(
        doors.server.url,
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n{body}",
    )
    status = int(told.split()[1])
    assert 400 <= status < 500, told[:300]


def test_a_request_hidden_in_another_is_not_let_in(doors):
    """Two lengths, or a length beside chunks: the rest of a body must not be read as a request of somebody else."""
    hidden = "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 19\r\n\r\n" + '{"command": "true"}'
    for lengths in (
        f"Content-Length: 0\r\nContent-Length: {len(hidden)}", f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", f"Content-Length: +{len(hidden)}",
    ):  # fmt: skip
        told = raw(
            doors.server.url,
            "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"{lengths}\r\n\r\n{hidden}",
        )
        assert all(line.split()[1] >= "400" for line in told.split("\r\n") if line.startswith("HTTP/1.1 ")), told[:300]


def test_no_worker_runs_what_a_stranger_sends_it(tmp_path):
    """A worker runs what its server says; whoever has no token is no server's client, and a worker shows itself to nobody."""
    env = Env(tmp_path)
    env.server()
    worker = env.worker(2)
    with Connection(env.url) as stranger:
        for path in ("/api/v1/tasks", f"/api/v1/workers/{worker.row['id']}/sync", "/api/v1/workers"):
            assert stranger.request("POST", path, {"command": f"touch {tmp_path}/run"}).status == 401
    done = env.cli("launch", f"touch {tmp_path}/run", code=4, variables={"SCITQ_CONFIG": str(tmp_path / "no-token")})
    assert "token" in done.stderr and done.stderr.count("\n") == 1
    env.wait_state(env.launch("true"))
    assert env.items("/tasks")[0]["command"] == "true" and len(env.items("/tasks")) == 1
    assert not (tmp_path / "run").exists()
    assert listening(worker.pid) == []
    env.close()


def listening(pid: int) -> list[str]:
    """The addresses at which a process and its children listen."""
    import psutil

    process = psutil.Process(pid)
    found = [connection for one in (process, *process.children(recursive=True)) for connection in one.net_connections("inet")]
    return [f"{one.laddr.ip}:{one.laddr.port}" for one in found if one.status == psutil.CONN_LISTEN]


def test_another_user_of_the_machine_finds_no_way_in():
    """On a login node that all share: the token, the database, the outputs and the keeper's socket are the owner's alone."""
    if os.geteuid() != 0:
        pytest.skip("to be another user wants root")
    base = Path(tempfile.mkdtemp(prefix="scitq-shared-"))
    base.chmod(0o755)
    env = Env(base)
    try:
        env.server()
        worker = env.worker(1)
        (task,) = env.create("echo a secret; sleep 100")
        env.wait_state(task, "running")
        env.until(lambda: env.stdout(task), what="its output")
        closed = [base / "config" / "tokens.json", base / "server" / "scitq.db", base / "server" / "scitq.db-wal"]
        closed += [worker.directory / "worker.json", *worker.directory.glob("executions/*/stdout")]
        assert len(closed) == 5 and all(path.exists() for path in closed)
        for path in closed:
            assert as_nobody(lambda path=path: path.read_bytes()) == "PermissionError", path
        assert as_nobody(lambda: sqlite3.connect(f"file:{closed[1]}?mode=ro", uri=True).execute("SELECT 1 FROM task")) != "done"
        assert as_nobody(lambda: call(worker.directory / "keeper.sock")) == "PermissionError"
        assert as_nobody(lambda: (worker.directory / "executions" / "99").mkdir()) == "PermissionError"
        assert as_nobody(lambda: base.stat()) == "done"  # it could look at all of it otherwise
    finally:
        env.close()
        shutil.rmtree(base)


def call(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))


def as_nobody(what) -> str:
    """What becomes of a call that another user makes: `done`, or the name of its exception."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            what()
            told = "done"
        except BaseException as failure:  # noqa: BLE001 - whatever it is, the parent is told
            told = type(failure).__name__
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="ascii") as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told
