"""Tokens from their birth to their end, signing in, and TLS. Who reaches which route: `promises/`, 36 to 39."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
from urllib.parse import urlsplit

import pytest
from doors import Doors
from env import Env
from scitq.transport import Connection


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


# --- tokens -------------------------------------------------------------------------------------------------------------


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


# --- signing in ---------------------------------------------------------------------------------------------------------


def test_the_login_link_gives_a_cookie_and_leads_to_the_pages(doors):
    answer = doors.get(f"/login?token={doors.admin}")
    assert answer.status == 303 and answer.headers["Location"] == "ui/"
    assert doors.get("/api/v1/server", Cookie=answer.headers["Set-Cookie"].partition(";")[0]).status == 200


def test_the_login_link_takes_no_wrong_token_and_no_workers(doors):
    assert doors.get("/login?token=nonsense").status in (401, 429)
    assert doors.get(f"/login?token={doors.worker}").status == 400
    asked = doors.get("/login")
    assert asked.status == 303 and asked.headers["Location"] == "ui/" and "Set-Cookie" not in asked.headers


# --- what the server can be started with ----------------------------------------------------------------------------------


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
