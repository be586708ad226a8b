"""Promise 50: errors say what to do, exit codes differ, and every wait has an end."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time

import pytest
from doors import GUARDED, Doors
from env import ROOT, Env
from scitq.errors import ScitqError, Unreachable
from scitq.lib import Server
from scitq.transport import Connection

from scitq import errors

KINDS = [ScitqError]
for _kind in KINDS:
    KINDS += [kind for kind in _kind.__subclasses__() if kind.__module__ == errors.__name__]
EXIT_CODES = {0, 1, 2, 3, 4, 5, 10, 130}


# --- exit codes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_kind_of_end_has_a_code_of_its_own(env, tmp_path):
    env.server()
    env.worker(1)
    (tmp_path / "b.yaml").write_text("batch: b\ntasks: [{name: x, command: 'false'}]\n")
    wrong = {"SCITQ_TOKEN": "scitq_wrong"}
    seen = {
        env.cli("launch", "true").returncode: "done",
        env.cli(
            "worker", env.url, "1", "--name", "w1", "--scratch", str(env.directory / "scratch")
        ).returncode: "its state forbids it",
        env.cli("launch", "--nonsense").returncode: "wrong words",
        env.cli("manage", "task", "get", "-i", "999").returncode: "not there",
        env.cli("launch", "true", variables=wrong).returncode: "not allowed",
        env.cli("launch", "-s", "127.0.0.1:1", "true").returncode: "no server",
        env.cli("run", "-q", str(tmp_path / "b.yaml"), cwd=tmp_path).returncode: "a task failed",
    }
    follower = env.start("follower", "launch", "--wait", "sleep", "100")
    env.until(lambda: [row for row in env.items("/tasks") if row["state"] == "running"], what="it runs")
    follower.signal(signal.SIGINT)
    seen[follower.wait_exit()] = "interrupted"
    assert seen == dict(zip(sorted(EXIT_CODES), seen.values(), strict=True))


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 10)])
def test_who_waits_for_a_task_gets_its_code(lab, script, code):
    done = lab.cli("launch", "--wait", "--shell", f"echo out; echo err >&2; {script}", code=code)
    assert done.stdout == "out\n" and done.stderr.startswith("err\n")
    assert "SIGKILL" in done.stderr or code != 10


def test_errors_are_as_their_page_says():
    """The table at the top of `errors.py`, the classes, and what the API's description and the docs tell."""
    table = dict(re.findall(r"^[│├└─ ]*(\w+) +(\d+ +[\d-]+) ", errors.__doc__, re.MULTILINE))
    assert table.keys() == {kind.__name__ for kind in KINDS}
    for kind in KINDS:
        code, status = table[kind.__name__].split()
        assert int(code) == kind.exit_code and kind.exit_code in EXIT_CODES
        assert status == "-" or int(status) == kind.http_status
    told = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert "130" in told and all(f"{code}" in told for code in EXIT_CODES)


# --- what an error says ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
def test_every_refusal_of_every_route_is_a_sentence(doors, route):
    """What is not there, what is wrong, who may not: its code, its status, and words for a person."""
    asked = [(doors.admin, 2**31 - 1, {}), (doors.admin, 10**17, {}), (None, 1, {}), (doors.worker, doors.other_id, {})]
    asked += [(doors.admin, 1, body) for body in ({"there is no such field": 1}, ["x"], {"ids": "all"}, {"command": 5})]
    refused = 0
    for token, number, body in asked:
        answer = doors.knock(route, token, number=number, body=body, query=None if route.writes else {"nonsense": "1"})
        if answer.status >= 400:
            refused += 1
            told = answer.json()["error"]
            kind = next(kind for kind in KINDS if kind.code == told["code"])
            assert kind.http_status == answer.status and set(told) == {"code", "message", "field"}
            assert_is_a_sentence(told["message"])
    assert refused >= 2


def assert_is_a_sentence(message: str) -> None:
    assert 8 <= len(message) <= 300 and "\n" not in message, message
    assert not re.search(
        r"Traceback|object at 0x|<class|\bNone\b|Exception|Error\b|psycopg|sqlite3\.|marshmallow|Not a valid", message
    ), message


def test_an_unexpected_error_is_told_in_a_line_and_written_down(env):
    """No traceback reaches a user: it lies in a file, and the line says where."""
    env.crashes_expected = True
    (env.directory / "config").mkdir(mode=0o700)
    (env.directory / "config" / "tokens.json").mkdir()  # as nobody would think of
    done = env.cli("launch", "-s", "127.0.0.1:1", "true", variables={"SCITQ_CACHE": str(env.directory / "cache")})
    assert done.returncode in (1, 2, 4) and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "tokens.json" in done.stderr


# --- waits -------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def deaf(first: bytes, trickle: bytes):
    """The address of a server that takes every connection and says what it says for ever, a byte at a time."""
    stop, lines = threading.Event(), []

    def speak(line: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other side has had enough
            line.sendall(first)
            while not stop.wait(0.05):
                line.sendall(trickle)

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):  # nobody came for a moment
                lines.append(listening.accept()[0])
                threading.Thread(target=speak, args=(lines[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()
            for line in lines:
                line.close()


DEAF = {
    "silent": (b"", b""), "an endless first line": (b"", b"x"), "endless headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "an endless body": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "endless pieces": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "endless promises": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("manner", DEAF)
def test_a_server_that_never_ends_its_answer_is_left(manner):
    """Each request has its time, as a whole: many small pieces do not make it longer."""
    with deaf(*DEAF[manner]) as address, Connection(address, timeout=0.5) as connection:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=address):
            connection.request("GET", "/api/v1/tasks")
        assert time.monotonic() - began < 30


def test_a_client_waits_as_long_as_it_is_told_and_no_longer(env):
    server = env.server()
    with Server(env.url, token=env.token, get_timeout=1, put_timeout=1, timeout=1, connect_timeout=1) as client:
        assert client.tasks() == []
        server.pause()
        for call in (client.tasks, lambda: client.task_create("true")):
            began = time.monotonic()
            with pytest.raises(Unreachable, match="in time"):
                call()
            assert 0.5 < time.monotonic() - began < 20
        server.resume()
        assert client.tasks() is not None


def test_the_server_answers_when_the_time_is_over(lab):
    """A change that never comes, and output of a task that says nothing."""
    (task,) = lab.create({"command": "sleep 100", "batch": "Default"})
    lab.wait_state(task, "running")
    execution = lab.executions(task)[0]["id"]
    for path, query in (
        ("/tasks/counts", {"version": lab.api("GET", "/tasks/counts")["version"]}),
        (f"/executions/{execution}/stdout", {}),
    ):
        began = time.monotonic()
        assert lab.answer("GET", path, wait=0.5, **query).status == 200
        assert time.monotonic() - began < 15
    lab.api("POST", "/tasks/cancel", {"ids": [task]})
    lab.wait_state(task, "canceled")


def test_a_run_ends_when_nothing_can_go_on(env, tmp_path):
    """What needs a task that failed for good never starts: nobody waits for it."""
    (tmp_path / "b.yaml").write_text(
        "tasks:\n- {name: x, command: 'false'}\n- {name: y, command: 'true', needs: x}\n- {name: z, command: 'true', needs: y}\n"
    )
    done = env.cli("run", str(tmp_path / "b.yaml"), cwd=tmp_path, code=10, timeout=40)
    assert "x" in done.stdout + done.stderr


def test_a_worker_that_is_not_wanted_any_more_ends_and_says_so(env):
    env.server()
    deleted = env.worker(1)
    env.api("DELETE", f"/workers/{deleted.row['id']}")
    assert deleted.wait_exit() == 3 and "was deleted" in deleted.output()


def test_what_waits_in_the_queue_says_for_what(env):
    """A task may wait for ever; then it is told for what, and what would help."""
    env.server()
    failed, needing = env.create({"command": "false", "batch": "x"}, {"command": "true", "require": ["#0"], "batch": "x"})
    worker = env.worker(1, batch="x")
    env.wait_state(failed, "failed")
    worker.stop()
    sentences = [
        env.api("GET", f"/tasks/{task}/explain")["sentence"]
        for task in (needing, *env.create({"command": "true", "batch": "none"}))
    ]
    assert f"{failed} (failed)" in sentences[0] and "scitq worker" in sentences[1]
