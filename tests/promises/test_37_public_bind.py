"""Promise 37: a server that strangers could reach has tokens and TLS, or does not start."""

from __future__ import annotations

import shlex
import socket
import subprocess

import psutil
import pytest
from env import Env
from scitq.transport import Connection

PUBLIC = [
    "0.0.0.0",
    "::",
    "0",
    "0.0",
    "::0",
    "0:0:0:0:0:0:0:0",
    "::ffff:0.0.0.0",
    "10.255.255.1",
    "example.org",
    "127.0.0.1.evil.example",
]


@pytest.fixture
def refused(env):
    """Starts a server that must refuse in a line, and must have made nothing."""

    def start(*options: str, code: int = 2, **more) -> str:
        done = env.cli("server", "--port", "0", "--data", env.directory / "d", *options, code=code, **more)
        assert done.stderr.count("\n") == 1 and not (env.directory / "d").exists()
        return done.stderr

    return start


@pytest.mark.parametrize("host", PUBLIC)
def test_without_tls_it_listens_to_this_machine_alone(refused, host):
    told = refused("--host", host)
    assert "--cert" in told and f"scitq server --host {host} --port 0 --insecure-http" in told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_without_tokens_it_listens_to_this_machine_alone(refused, host):
    for more in ([], ["--insecure-http"], ["--cert", "c", "--key", "k"]):
        assert "--no-auth" in refused("--host", host, "--no-auth", *more)


def test_by_variables_and_files_neither(refused, tmp_path):
    assert "--insecure-http" in refused(variables={"SCITQ_HOST": "0.0.0.0"})
    assert "--no-auth" in refused(variables={"SCITQ_HOST": "0.0.0.0", "SCITQ_NO_AUTH": "1", "SCITQ_INSECURE_HTTP": "1"})
    (tmp_path / "c.yaml").write_text("host: 0.0.0.0\nno-auth: true\ninsecure-http: true\n")
    assert "--no-auth" in refused("--config", str(tmp_path / "c.yaml"))


def test_the_line_to_type_is_right_and_wants_tokens(env, refused):
    told = refused("--host", "0.0.0.0")
    words = shlex.split(told[told.index("scitq server") :])
    assert words[:3] == ["scitq", "server", "--host"]
    server = env.server(*words[2:4], words[-1])  # the host and the permission; its port is the test's
    for address in (server.url, _elsewhere(server.url)):
        with Connection(address) as stranger:
            assert stranger.request("POST", "/api/v1/tasks", {"command": "true"}).status == 401
    with Connection(_elsewhere(server.url), env.token) as known:
        assert known.request("GET", "/api/v1/server").status == 200


def _elsewhere(url: str) -> str:
    """The server as other machines reach it; where there is no other address, another of loopback's."""
    found = [a.address for list_ in psutil.net_if_addrs().values() for a in list_ if a.family == socket.AF_INET]
    host = next((address for address in found if not address.startswith("127.")), "127.0.0.2")
    return f"http://{host}:{url.rpartition(':')[2]}"


@pytest.mark.parametrize("options", [[], ["--no-auth"], ["--host", "localhost"]])
def test_by_default_nothing_but_loopback_is_bound(tmp_path, options):
    env = Env(tmp_path)
    server = env.server(*options)
    ours = [one.laddr.ip for one in psutil.Process(server.pid).net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert ours and set(ours) <= {"127.0.0.1", "::1"}
    assert not _reaches(_elsewhere(server.url)) or "127.0.0.2" in _elsewhere(server.url)
    env.close()


def _reaches(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        return False
    return True


def test_with_tls_it_listens_and_wants_tokens(env, tmp_path):
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
    subprocess.run([*words, "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    server = env.start(
        "tls", "server", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "d"), "--cert", cert, "--key", key
    )
    url = env.until(
        lambda: next((word for word in server.output().split() if word.startswith("https://")), None), what="it greets"
    )
    with Connection(url, ca=cert) as stranger:
        assert stranger.request("GET", "/api/v1/tasks").status == 401


def test_run_serves_this_machine_alone(env, tmp_path):
    """The embedded server too; whatever variables say that were meant for another."""
    run = env.start("run", "run", "--", "sleep 100", variables={"SCITQ_HOST": "0.0.0.0", "SCITQ_NO_AUTH": "1"}, cwd=tmp_path)
    children = env.until(lambda: _servers(run.pid), what="its server listens")
    assert {address for _, address in children} == {"127.0.0.1"}
    with Connection(f"http://127.0.0.1:{children[0][0]}") as stranger:
        assert stranger.request("GET", "/api/v1/tasks").status == 401


def _servers(pid: int) -> list[tuple[int, str]]:
    """Port and address of all that a process tree listens at."""
    found = [c for one in psutil.Process(pid).children(recursive=True) for c in one.net_connections("inet")]
    return [(one.laddr.port, one.laddr.ip) for one in found if one.status == psutil.CONN_LISTEN]
