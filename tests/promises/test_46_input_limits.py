"""Promise 46: what comes in has limits, told by their names; whoever sends more, or nothing, or slowly, keeps nobody else."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from urllib.parse import urlsplit

import psutil
import pytest
from doors import raw
from env import PATIENCE_SECONDS, Env
from scitq.transport import Connection

MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("limits"))
    env.server()
    yield env
    env.close()


@pytest.fixture(autouse=True)
def unharmed(server):
    """After each attack the server answers others at once, has no more tasks, and is not big."""
    before = server.api("GET", "/tasks/counts")["counts"]
    yield
    began = time.monotonic()
    assert server.api("GET", "/tasks/counts")["counts"] == before
    assert time.monotonic() - began < 10.0
    assert psutil.Process(server.processes[0].pid).memory_info().rss < 800 * MIB


def post(server, path: str, content: bytes, **headers) -> tuple[int, dict]:
    with Connection(server.url, server.token, timeout=60) as connection:
        named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = connection.request("POST", "/api/v1" + path, content, headers=named)
        return answer.status, answer.json()["error"] if answer.status >= 400 else answer.json()


def head(server, *lines: str) -> str:
    """A request that a client of ours would make, up to its end."""
    own = ("Host: localhost", f"Authorization: Bearer {server.token}", "Content-Type: application/json")
    return "\r\n".join([lines[0], *own, *lines[1:]]) + "\r\n"


def status_of(told: str) -> int:
    return int(told.split()[1])


# --- bodies -------------------------------------------------------------------------------------------------------------------


def test_a_body_of_100_mb_is_refused(server):
    status, told = post(server, "/tasks", b'{"command": "' + b"x" * 100_000_000 + b'"}')
    assert status == 413 and told["code"] == "too_large" and "in parts" in told["message"]


@pytest.mark.parametrize("length", ["100000000000", "99999999999999999999999999", str(64 * MIB + 2)])
def test_a_body_that_is_announced_too_large_is_not_awaited(server, length):
    told = raw(server.url, head(server, "POST /api/v1/tasks HTTP/1.1", f"Content-Length: {length}") + "\r\n")
    assert status_of(told) == 413 and '"too_large"' in told


def test_a_body_in_pieces_has_the_same_limit(server):
    """Chunked: its length is told nowhere."""
    with socket.create_connection(_address(server), 30) as line:
        line.sendall((head(server, "POST /api/v1/tasks HTTP/1.1", "Transfer-Encoding: chunked") + "\r\n").encode())
        piece = b"100000\r\n" + b" " * MIB + b"\r\n"
        with contextlib.suppress(ConnectionError):  # it may answer and close before all is sent
            for _ in range(80):
                line.sendall(piece)
        assert b" 413 " in line.recv(65536)


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "0x10", " ", "1, 2"])
def test_a_length_that_is_none(server, length):
    told = raw(server.url, head(server, "POST /api/v1/tasks HTTP/1.1", "Connection: close", f"Content-Length: {length}") + "\r\n")
    assert 400 <= status_of(told) < 500


@pytest.mark.parametrize("depth", [1_000, 100_000, 5_000_000])
@pytest.mark.parametrize("way", ["[]", '{"a":}'])
def test_json_that_is_too_deep(server, depth, way):
    opened, closed = (b"[", b"]") if way == "[]" else (b'{"a":', b"}")
    for content in (
        opened * depth + b"1" + closed * depth,
        b'{"command": "x", "env": ' + opened * depth + b"1" + closed * depth + b"}",
    ):
        status, told = post(server, "/tasks", content)
        assert status == 400 and told["code"] == "invalid_request" and len(told["message"]) < 500


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"1", b'"x"', b"[]", b"NaN", b'{"command": NaN}', b"\xff\xfe", b'{"command": "\xff"}', b"{}" * 2, b"\x00",
    b'{"command": "a\\u0000b"}', b'{"command": "\\ud800"}', b'{"retry": ' + b"9" * 5000 + b', "command": "x"}',
    b'{"command": "x", "priority": 1e400}', b'{"command": "x", "run_timeout": -1}', b'{"command": "x", "retry": 99999999999}',
    b'{"command": "x", "command": ""}', b'{"command": "x", "' + b"k" * 100_000 + b'": 1}',
])  # fmt: skip
def test_bodies_that_are_none(server, content):
    status, told = post(server, "/tasks", content)
    assert status == 400 and told["field"] and told["message"] and len(json.dumps(told)) < 1000


@pytest.mark.parametrize(("field", "value"), [
    ("command", "x" * 1_000_001), ("name", "n" * 10_000_000), ("name", "a\nb"), ("name", "a\0b"), ("batch", "b" * 1001),
    ("env", {"K" * 9000: "x"}), ("env", {"K": "x" * 1_000_001}), ("workdir", "/" + "d" * 9000), ("input", ["u" * 9000]),
    ("output", "o" * 9000), ("container", "c\r\nd"), ("require", [0]), ("require", ["#99"]), ("require", [2**31]), ("uid", -1),
])  # fmt: skip
def test_fields_have_limits_and_are_named(server, field, value):
    status, told = post(
        server, "/tasks", json.dumps({"tasks": [{"command": "true"}, {"command": "true", field: value}]}).encode()
    )
    assert status == 400 and told["field"].startswith(f"tasks[1].{field}"), told["field"]
    assert len(json.dumps(told)) < 1000


@pytest.mark.slow
def test_too_many_items(server):
    status, told = post(server, "/tasks", json.dumps({"tasks": [{"command": "x"}] * 100_001}).encode())
    assert status == 400 and told["field"] == "tasks" and "in parts" in told["message"]
    status, told = post(server, "/tasks/cancel", json.dumps({"ids": list(range(1, 1_000_003))}).encode())
    assert status == 400 and told["field"] == "ids"


def test_one_wrong_item_among_many_is_named_and_none_is_taken(server):
    tasks = [{"command": "true"} for _ in range(50_000)]
    tasks[49_999] = {"command": "true", "retry": "often"}
    status, told = post(server, "/tasks", json.dumps({"tasks": tasks}).encode())
    assert status == 400 and told["field"] == "tasks[49999].retry"


@pytest.mark.slow
def test_a_pattern_that_would_take_for_ever(server):
    """A regular expression of a user, on a command made for it: an answer comes all the same."""
    (task,) = server.create({"command": "a" * 40 + "!", "batch": "patterns"})
    try:
        with Connection(server.url, server.token, timeout=PATIENCE_SECONDS) as connection:
            body = {"ids": [task], "sub": {"pattern": "(a+)+$", "replacement": "b"}, "dry_run": True}
            assert connection.request("POST", "/api/v1/tasks/edit", body).status in (200, 400)
    finally:
        server.api("DELETE", f"/tasks/{task}")


# --- paths, queries, headers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [
    "limit=0", "limit=-1", "limit=5001", "limit=x", "limit=1e3", "after=-1", "order=name", "nonsense=1", "ids=a", "ids=9-3-1",
    "ids=" + "9" * 60_000, "state=unknown", "since=yesterday", "batch=" + "b" * 5000, "limit=1&limit=2", "name=%00", "name=%ff",
    "&".join(f"x{i}=1" for i in range(1000)), "grep=%0a", "exit_code=x", "worker=" + "w" * 51_000,
])  # fmt: skip
def test_queries_that_are_none(server, query):
    with Connection(server.url, server.token) as connection:
        answer = connection.request("GET", f"/api/v1/tasks?{query}")
    told = answer.json()["error"]
    assert 400 <= answer.status < 500 and told["message"] and len(answer.body) < 1000


@pytest.mark.parametrize("wait", ["-1", "61", "1e9", "nan", "inf", "x"])
def test_nobody_waits_for_ever(server, wait):
    answer = server.answer("GET", f"/tasks/counts?version=1&wait={wait}")
    assert answer.status == 400 and answer.json()["error"]["field"] == "wait"


@pytest.mark.parametrize("path", [
    "/tasks/0", "/tasks/-1", "/tasks/99999999999", "/tasks/" + "9" * 400, "/tasks/1e3", "/tasks/%F0", "/batches/%00",
    "/executions/99999999999/stdout", "/workers/" + "9" * 18, "/batches/" + "x" * 30_000,
])  # fmt: skip
def test_ids_and_names_that_are_none(server, path):
    answer = server.answer("GET", path)
    assert answer.status in (400, 404) and answer.json()["error"]["message"] and len(answer.body) < 1000


@pytest.mark.parametrize(
    "line", ["X: " + "x" * 70_000, "Cookie: " + "a=b; " * 20_000, "\r\n".join(f"X-{i}: y" for i in range(8000))]
)
def test_headers_that_are_too_large(server, line):
    told = raw(server.url, head(server, "GET /api/v1/tasks HTTP/1.1", line, "Connection: close") + "\r\n")
    assert status_of(told) == 431 and '"too_large"' in told


def test_a_first_line_without_end(server):
    told = raw(server.url, "GET /" + "x" * 300_000)
    assert status_of(told) in (400, 414, 431)


@pytest.mark.parametrize("key", ["", " ", "k" * 201, "\xe9"])
def test_request_ids_that_are_none(server, key):
    body = '{"command": "true"}'
    lines = (f"Idempotency-Key: {key}", f"Content-Length: {len(body)}", "Connection: close")
    told = raw(server.url, (head(server, "POST /api/v1/tasks HTTP/1.1", *lines) + "\r\n" + body).encode("latin-1"))
    assert status_of(told) == 400 and "Idempotency-Key" in told


@pytest.mark.parametrize("content", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 1000, b"SSH-2.0-x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b"\r\n\r\n\r\n\r\nX\r\n\r\n",
])  # fmt: skip
def test_what_is_no_http(server, content):
    with socket.create_connection(_address(server), 10) as line:
        line.sendall(content)
        line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):  # it may not care to answer
            assert b" 2" not in line.recv(65536)[:13]


# --- slow ones, and many -------------------------------------------------------------------------------------------------------


def test_slow_and_silent_connections_keep_nobody(server):
    """Hundreds that say nothing, half a header, half a body, or never read an answer: all others are served at once."""
    begun = head(server, "POST /api/v1/tasks HTTP/1.1", "Content-Length: 100") + "\r\n{"
    asking = head(server, "GET /openapi.json HTTP/1.1") + "\r\n"
    with contextlib.ExitStack() as lines:
        for first in ("", "GET /api/v1/tasks HTTP/1.1\r\nHost: local", begun, asking * 50):
            for _ in range(100):
                line = lines.enter_context(socket.create_connection(_address(server), 10))
                line.sendall(first.encode())
        began = time.monotonic()
        for _ in range(20):
            assert server.api("GET", "/tasks")["items"] is not None
        with Connection(server.url, server.token) as connection:
            assert connection.request("GET", "/health/live").status == 200
        assert time.monotonic() - began < PATIENCE_SECONDS


def test_long_polls_by_the_hundred_keep_nobody(server):
    version = server.api("GET", "/tasks/counts")["version"]
    asking = head(server, f"GET /api/v1/tasks/counts?version={version}&wait=20 HTTP/1.1") + "\r\n"
    with contextlib.ExitStack() as lines:
        for _ in range(200):
            lines.enter_context(socket.create_connection(_address(server), 10)).sendall(asking.encode())
        began = time.monotonic()
        for _ in range(10):
            server.api("GET", "/tasks")
        assert time.monotonic() - began < PATIENCE_SECONDS


def _address(server) -> tuple[str, int]:
    parts = urlsplit(server.url)
    return parts.hostname, parts.port
