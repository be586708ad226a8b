"""Who is let in: every route of the table is tried by those who may not use it, and by what a browser could be made to send."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
from urllib.parse import urlsplit

import pytest
from env import Env
from scitq.api import application  # noqa: F401 - it fills the table
from scitq.api.routes import TABLE
from scitq.transport import Connection

OPEN = {"/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/<name>", "/login"}
GUARDED = [route for route in TABLE if route.path not in OPEN]
IDS = [f"{route.method} {route.path}" for route in GUARDED]
MARKS = {
    "Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Server": "scitq/",
}  # fmt: skip


class Doors:
    """A server, and tokens of every role."""

    def __init__(self, env: Env):
        self.env = env
        self.server = env.server()
        self.user = env.api("POST", "/tokens", {"name": "ursula", "role": "user"})["token"]
        worker = env.api("POST", "/workers", {"name": "w", "key": "k" * 32, "concurrency": 0, "hostname": "h"})
        self.worker, self.worker_id = worker["token"], worker["id"]
        self.other_id = env.api("POST", "/workers", {"name": "v", "key": "l" * 32, "concurrency": 0, "hostname": "h"})["id"]

    def knock(self, route, token: str | None, headers: dict | None = None, number: int = 1):
        """The route with placeholders filled in and an empty body."""
        path = re.sub(r"<\w+:id>", str(number), re.sub(r"<name[^>]*>", "Default", route.path))
        body = b"{}" if route.method != "GET" else None
        kind = {"Content-Type": "application/json"} if body else {}
        with Connection(self.server.url, token) as connection:
            return connection.request(route.method, path, body, headers={**kind, **(headers or {})})

    def get(self, path: str, token: str | None = None, **headers):
        with Connection(self.server.url, token) as connection:
            return connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


def error(answer) -> dict:
    return json.loads(answer.body)["error"]


# --- roles: every route, by birth ---------------------------------------------------------------------------------------


def test_only_these_routes_are_open():
    assert {route.path for route in TABLE if not route.roles} == OPEN


@pytest.mark.parametrize("route", GUARDED, ids=IDS)
def test_nobody_unknown_reaches_anything(doors, route):
    assert doors.knock(route, None).status == 401
    assert doors.knock(route, None, {"Authorization": "Basic dXNlcjp4"}).status == 401
    assert doors.knock(route, "scitq_" + "A" * 43).status in (401, 429)


@pytest.mark.parametrize("route", GUARDED, ids=IDS)
def test_a_worker_reaches_itself_alone(doors, route):
    own = "worker" in route.roles
    assert (doors.knock(route, doors.worker, number=doors.worker_id).status == 403) != own
    assert doors.knock(route, doors.worker, number=doors.other_id).status == 403


@pytest.mark.parametrize("route", [r for r in GUARDED if r.roles == ("admin",)], ids=lambda r: f"{r.method} {r.path}")
def test_a_user_is_no_administrator(doors, route):
    answer = doors.knock(route, doors.user)
    assert answer.status == 403 and error(answer)["code"] == "not_allowed" and "admin" in error(answer)["message"]


def test_nobody_syncs_for_a_worker(doors):
    (sync,) = [route for route in TABLE if route.path.endswith("/sync")]
    assert doors.knock(sync, doors.user, number=doors.worker_id).status == 403
    assert doors.knock(sync, doors.env.token, number=doors.worker_id).status == 403


def test_a_revoked_token_is_refused_at_once(doors):
    made = doors.env.api("POST", "/tokens", {"name": "gone"})
    assert doors.get("/api/v1/server", made["token"]).status == 200
    doors.env.api("DELETE", f"/tokens/{made['id']}")
    assert doors.get("/api/v1/server", made["token"]).status in (401, 429)  # 429: others have guessed from this address


def test_tokens_are_not_shown_again(doors):
    listed = doors.env.answer("GET", "/tokens").body.decode()
    assert "ursula" in listed and doors.user not in listed and "hash" not in listed


def test_no_token_lies_in_the_database_or_the_log(doors):
    doors.env.answer("POST", "/tokens", {"name": "once"}, headers={"Idempotency-Key": "token-once"})
    data = b"".join(path.read_bytes() for path in doors.server.data.iterdir() if path.is_file())
    assert b"ursula" in data and b"scitq_" not in data
    assert "scitq_" not in doors.server.output()


def test_the_tokens_file_is_its_users_own(doors):
    assert (doors.env.directory / "config" / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_guessing_is_slowed_and_others_are_not(tmp_path):
    env = Env(tmp_path)
    server = env.server()
    env.api("GET", "/server")
    with Connection(server.url, "scitq_wrong") as guesser:
        codes = [guesser.request("GET", "/api/v1/server").status for _ in range(40)]
    assert codes[0] == 401 and codes[-1] == 429 and set(codes) == {401, 429}
    assert env.api("GET", "/server")["you"]["role"] == "admin"
    env.close()


# --- what a browser could be made to send -------------------------------------------------------------------------------


@pytest.mark.parametrize("route", TABLE, ids=lambda r: f"{r.method} {r.path}")
def test_other_names_and_origins_are_refused_everywhere(doors, route):
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ):  # fmt: skip
        answer = doors.knock(route, doors.env.token, headers)
        assert answer.status == 403 and error(answer)["code"] == "not_allowed", headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"]
)
def test_a_rebound_name_is_refused(doors, host):
    assert raw(doors, f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").startswith("HTTP/1.1 403 ")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5000", "127.0.0.1:1", "[::1]:5000", "10.1.2.3", socket.gethostname()])
def test_names_of_this_machine_are_its_own(doors, host):
    assert raw(doors, f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").startswith("HTTP/1.1 200 ")


def test_an_allowed_name_is_let_in(tmp_path):
    env = Env(tmp_path)
    server = env.server("--allowed-host", "queue.example.org")
    assert raw(server, "GET /docs HTTP/1.1\r\nHost: queue.example.org\r\nConnection: close\r\n\r\n").startswith("HTTP/1.1 200 ")
    env.close()


def test_the_login_link_gives_a_cookie_that_only_our_pages_use(doors):
    answer = doors.get(f"/login?token={doors.env.token}")
    assert answer.status == 303 and answer.headers["Location"] == "docs"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    name = cookie.partition(";")[0]
    assert doors.get("/api/v1/server", Cookie=name).status == 200
    (create,) = [r for r in TABLE if r.method == "POST" and r.path == "/api/v1/tasks"]
    assert doors.knock(create, None, {"Cookie": name}).status == 403  # written by no page of ours
    assert doors.knock(create, None, {"Cookie": name, "Sec-Fetch-Site": "same-site"}).status == 403
    assert doors.knock(create, None, {"Cookie": name, "Origin": doors.server.url}).status == 400  # let in: the body is wrong
    assert doors.knock(create, None, {"Cookie": name, "Sec-Fetch-Site": "same-origin"}).status == 400


def test_the_login_link_takes_no_wrong_token_and_no_workers(doors):
    assert doors.get("/login?token=nonsense").status in (401, 429)
    assert doors.get(f"/login?token={doors.worker}").status == 400
    assert doors.get("/login").status == 400


def test_a_form_of_another_site_is_no_json(doors):
    with Connection(doors.server.url, doors.env.token) as connection:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = connection.request("POST", "/api/v1/tasks", b'{"command": "true"}', headers={"Content-Type": kind})
            assert answer.status == 400 and error(answer)["field"] == "Content-Type"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/health/live", "/api/v1/server", "/nowhere", "/docs/swagger-ui.css"])
def test_every_answer_forbids_framing_and_sniffing(doors, path):
    headers = doors.get(path).headers
    for name, value in MARKS.items():
        assert value in headers[name], name
    assert "unsafe" not in headers["Content-Security-Policy"] and "Access-Control-Allow-Origin" not in headers


def test_the_refusals_of_the_http_server_are_marked_too(doors):
    answer = raw(doors, "NONSENSE\r\n\r\n")
    assert " 400 " in answer and "\r\nServer: scitq/" in answer and '"error"' in answer


# --- what the server can be started with ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [["--host", "0.0.0.0"], ["--host", "::"], ["--host", "0.0.0.0", "--no-auth", "--insecure-http"]]
)
def test_it_does_not_listen_to_strangers_by_mistake(tmp_path, options):
    env = Env(tmp_path)
    done = env.cli("server", "--port", "0", "--data", tmp_path / "d", *options, code=2)
    assert done.stderr.count("\n") == 1 and ("--insecure-http" in done.stderr or "--no-auth" in done.stderr)
    assert not (tmp_path / "d").exists()
    env.close()


def test_without_tokens_this_machine_is_the_administrator_but_no_other_site_is(tmp_path):
    env = Env(tmp_path)
    server = env.server("--no-auth")
    with Connection(server.url) as connection:
        assert connection.request("GET", "/api/v1/tokens").status == 200
        assert connection.request("POST", "/api/v1/tasks", {"command": "true"}).status == 201
        refused = connection.request("POST", "/api/v1/tasks", {"command": "true"}, headers={"Origin": "http://evil.example"})
        assert refused.status == 403
    env.close()


@pytest.fixture
def certificate(tmp_path):
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
    words += [
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        str(tmp_path / "key.pem"),
        "-out",
        str(tmp_path / "cert.pem"),
    ]
    subprocess.run(words, check=True, capture_output=True)
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


def test_tls(tmp_path, certificate, monkeypatch):
    monkeypatch.setenv("SCITQ_CA", certificate[0])
    env = Env(tmp_path)
    server = env.server("--cert", certificate[0], "--key", certificate[1])
    assert server.url.startswith("https://")
    with Connection(server.url, env.token) as connection:
        sent = {"tasks": [{"command": f"echo {'x' * 1000} {number}"} for number in range(3000)]}
        assert len(json.loads(connection.request("POST", "/api/v1/tasks", sent).body)["ids"]) == 3000
        assert len(json.loads(connection.request("GET", "/api/v1/tasks?limit=3000").body)["items"]) == 3000
        cookie = connection.request("GET", f"/login?token={env.token}").headers["Set-Cookie"]
        assert "Secure" in cookie
    with pytest.raises(ssl.SSLError):
        handshake(server.url, ssl.TLSVersion.TLSv1_1)
    assert handshake(server.url, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    env.close()


def handshake(url: str, version: ssl.TLSVersion) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning) if version < ssl.TLSVersion.TLSv1_2 else contextlib.nullcontext():
        context.minimum_version = context.maximum_version = version
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 10) as plain, context.wrap_socket(plain) as secure:
        return secure.version()


@pytest.mark.parametrize(
    "options",
    [
        ["--cert", "c.pem"],
        ["--key", "k.pem"],
        ["--cert", "none.pem", "--key", "none.pem"],
        ["--cert", "bad.pem", "--key", "bad.pem"],
    ],
)
def test_a_wrong_certificate_is_told(tmp_path, options):
    (tmp_path / "bad.pem").write_text("nonsense")
    env = Env(tmp_path)
    done = env.cli("server", "--port", "0", "--data", tmp_path / "d", *options, code=2)
    assert "--cert" in done.stderr or "--key" in done.stderr
    env.close()


def test_the_token_is_shown_on_a_terminal_only(doors):
    assert "login" in doors.server.output() and doors.env.token not in doors.server.output()


def test_no_secret_is_in_an_argument_list(doors):
    for line in doors.env.leftovers().values():
        assert "scitq_" not in line


def raw(doors, request: str) -> str:
    """The whole answer to bytes that no client would send."""
    parts = urlsplit(doors.server.url if isinstance(doors, Doors) else doors.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.sendall(request.encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received.decode("latin-1")
