"""Promise 42: URIs are fetched by workers, never by the server; what a worker must not fetch or send can be configured.

Every address of these tests leads to listeners that count who comes.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from env import PROGRAM
from services import Ftp
from stores import ACCOUNT, ACCOUNT_KEY, S3

SCHEMES = ("http", "https", "ftp", "s3", "azure", "fasp", "run+fastq", "file", "nobodys")
REDIRECT = "/leads-to/"


class Listener:
    """A web server of one address of loopback: it gives `body` to whoever comes, or leads on; who came for what is in `asked`."""

    def __init__(self, host: str = "127.0.0.1", body: bytes = b"data", kind: str = "application/octet-stream"):
        self.asked: list[str] = []
        self.accepted = 0
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.asked.append(f"{self.command} {self.path}")
                to = self.path.partition(REDIRECT)[2]
                self.send_response(302 if to else 200)
                if to:
                    self.send_header("Location", to)
                self.send_header("Content-Length", "0" if to else str(len(body)))
                self.send_header("Content-Type", kind)
                self.end_headers()
                if self.command == "GET" and not to:
                    self.wfile.write(body)

            do_HEAD = do_PUT = do_POST = do_GET

            def log_message(self, *_) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self):
                listener.accepted += 1
                return super().get_request()

        self._server = Server((host, 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://{host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def listening(*hosts: str) -> Iterator[list[Listener]]:
    made = [Listener(host) for host in hosts]
    try:
        yield made
    finally:
        for one in made:
            one.close()


@pytest.fixture
def listener():
    with listening("127.0.0.1") as (one,):
        yield one


def fetch(*words, refuse: str = "", only: str = "", **variables) -> subprocess.CompletedProcess:
    told = {"SCITQ_FETCH_REFUSE": refuse, "SCITQ_FETCH_ONLY": only, **variables}
    return subprocess.run(
        [*PROGRAM, "fetch", *map(str, words)], env={**os.environ, **told}, capture_output=True, text=True, timeout=60
    )


def get(uri, tmp_path, **more) -> subprocess.CompletedProcess:
    return fetch("get", "-q", uri, tmp_path / "came", **more)


def refused(done: subprocess.CompletedProcess, words: str = "refused on this machine") -> None:
    assert done.returncode == 4 and done.stderr.count("\n") == 1 and words in done.stderr, done


# --- by whom ------------------------------------------------------------------------------------------------------------------


def test_the_server_opens_no_uri(env_on_each, listener):
    """Whatever is done with tasks, and wherever their words may be looked at: nobody calls."""
    env = env_on_each
    server = env.server(
        variables={"AWS_ENDPOINT_URL": listener.url, "SCITQ_ENA_PORTAL": listener.url, "HTTP_PROXY": listener.url}
    )
    host = listener.url.partition("://")[2]
    uris = [f"{scheme}://{host}/bucket/file" for scheme in SCHEMES]
    specs = [
        {"command": f"cat {uri}", "input": [uri, uri + "/|untar"], "resource": [uri + "|gunzip"], "output": uri + "/out/",
         "name": uri, "batch": "nobody", "use_cache": True, "container": f"{host}/image:latest"}
        for uri in uris
    ]  # fmt: skip
    tasks = env.create(*specs)
    env.api("POST", "/tasks/edit", {"ids": tasks, "set": {"input": uris, "resource": uris, "output": uris[0]}})
    for task in tasks:
        env.api("GET", f"/tasks/{task}")
    env.items("/tasks", name=f"*{host}*")
    env.cli("manage", "task", "list", "-b", "nobody")
    env.api("POST", "/tasks/cancel", {"ids": tasks})
    env.api("POST", "/tasks/relaunch", {"ids": tasks})
    env.api("POST", "/tasks/delete", {"ids": tasks})
    server.restart()
    env.items("/events")
    assert listener.accepted == 0, listener.asked
    assert not _connections_to(server.pid, listener.port)
    env.worker(1)
    [real] = env.create({"command": "cat $INPUT/file", "shell": "sh", "input": [f"{listener.url}/file"]})
    env.wait_state(real)
    assert listener.accepted > 0 and env.stdout(real) == b"data", "the listener does notice"


def _connections_to(pid: int, port: int) -> bool:
    """Whether a process has a connection to a port of loopback."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            sockets.add(os.readlink(entry))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return any(f"socket:[{words[9]}]" in sockets and words[2].endswith(f":{port:04X}") for words in lines)


# --- what is refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "{url}/file", "{url}/file|untar", "HTTP://{host}/file", "http@aria2://{host}/file", "http://ann:secret@{host}/file",
        "http://2130706433:{port}/file", "http://127.1:{port}/file", "http://localhost:{port}/file",
        "http://[::ffff:127.0.0.1]:{port}/file", "http://0x7f000001:{port}/file",
        "ftp://{host}/file", "s3://bucket/file", "s3://bucket/folder/", "run+fastq://ERR1000001",
        "azure://bucket/file", "azure://bucket/folder/",
    ],
)  # fmt: skip
def test_a_network_is_refused_by_whatever_name(tmp_path, listener, uri):
    """The address counts that is connected to: no spelling, scheme or program goes around it."""
    host = listener.url.partition("://")[2]
    variables = {**stores_at(listener), "SCITQ_ENA_PORTAL": listener.url}
    text = uri.format(url=listener.url, host=host, port=listener.port)
    done = get(text, tmp_path, refuse="127.0.0.0/8", **variables)
    refused(done, "connections to 127.0.0.1 are refused on this machine")
    assert "(tried" not in done.stderr, "what is refused is not tried again and again"
    assert listener.accepted == 0 and not list(tmp_path.iterdir())


def stores_at(listener) -> dict[str, str]:
    """What leads URIs of S3 and Azure there."""
    account = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={listener.url}/a;"
    return {**S3.variables, "AWS_ENDPOINT_URL": listener.url, "AZURE_STORAGE_CONNECTION_STRING": account}


@pytest.mark.parametrize("uri", ["s3://bucket/file", "s3://bucket/folder/", "azure://bucket/file", "azure://bucket/folder/"])
@pytest.mark.parametrize("verb", ["get", "put", "delete"])
def test_where_stores_are_asked_is_seen_too(tmp_path, listener, verb, uri):
    """The address to which the configuration leads a URI; what alone is allowed names the URI."""
    (tmp_path / "file").write_text("x")
    words = {"get": [uri, f"{tmp_path}/came/"], "put": [tmp_path / "file", uri], "delete": [uri]}[verb]
    globs = (f"{listener.url}/*", "http://127.*", "http://*")
    for glob in globs if uri.endswith("file") else globs[:1]:
        refused(fetch(verb, *words, refuse=glob, **stores_at(listener)), f"http://127.0.0.1:{listener.port}/")
    assert listener.accepted == 0
    done = fetch(verb, *words, refuse="http://127.0.0.2*", only="file://* s3://bucket/* azure://bucket/*", **stores_at(listener))
    assert listener.accepted > 0, done


def test_redirects_lead_to_nothing_that_is_refused(tmp_path):
    with listening("127.0.0.1", "127.0.0.2") as (first, second):
        url = f"{first.url}{REDIRECT}{first.url}{REDIRECT}{second.url}/file"
        assert get(url, tmp_path).returncode == 0
        came = second.accepted
        for rules in (
            {"refuse": "127.0.0.2"}, {"refuse": "http://127.0.0.2*"}, {"refuse": "10.0.0.0/8 ftp://* http://*/file"},
            {"only": f"{first.url}/*"}, {"only": "127.0.0.1/32"},
        ):  # fmt: skip
            refused(get(url, tmp_path / "other", **rules))
            refused(get(url.replace("http", "http@aria2", 1), tmp_path / "other", **rules))
        assert second.accepted == came and first.accepted > 2
        assert get(f"{first.url}/file", tmp_path, refuse="127.0.0.2").returncode == 0


@pytest.mark.parametrize(
    ("uri", "rules", "allowed"),
    [
        ("file://{dir}/data/f", {"refuse": "file:///etc/*"}, True),
        ("file://{dir}/data/f", {"refuse": "file://{dir}/data/*"}, False),
        ("{dir}/data/f", {"refuse": "file://*"}, False),
        ("file://{dir}/other/../data/f", {"refuse": "file://{dir}/data/*"}, False),
        ("file://{dir}/data/f", {"only": "file://{dir}/data/* s3://*"}, True),
        ("file://{dir}/other/f", {"only": "file://{dir}/data/* s3://*"}, False),
        ("file://{dir}/data/../other/f", {"only": "file://{dir}/data/*"}, False),
        ("file://{dir}/data/link", {"only": "file://{dir}/data/*"}, False),
        ("file://{dir}/data/", {"only": "file://{dir}/data/*"}, False),  # the link is in it
        ("file://{dir}/data/", {"refuse": "file://*/nothing"}, True),
        ("http://h/x", {"only": "file://*"}, False),
        ("http://u:p@H:80/x", {"refuse": "http://h/*"}, False),
        ("http://h/a/%2e%2e/private/x", {"refuse": "http://h/private/*"}, False),
        ("http://h/public/../private/x", {"only": "http://h/public/*"}, False),
        ("ftp://h//etc/x", {"refuse": "ftp://h/etc/*"}, False),
        ("S3://bucket/x", {"refuse": "s3://*"}, False),
        ("s3://bucket/../other/x", {"only": "s3://bucket/*"}, False),
        ("s3://bucket/a/../private/x", {"refuse": "s3://bucket/private/*"}, False),
    ],
)
def test_globs(tmp_path, uri, rules, allowed):
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "other" / "f")
    done = fetch(
        "get", "-q", uri.format(dir=tmp_path), f"{tmp_path}/came/", **{k: v.format(dir=tmp_path) for k, v in rules.items()}
    )
    if allowed:
        assert done.returncode == 0, done
    else:
        refused(done)
        assert not (tmp_path / "came").exists()


@pytest.mark.parametrize(
    "words", [["put", "{dir}/data/f", "{ftp}f"], ["copy", "{dir}/data/", "{ftp}"], ["sync", "{dir}/data/", "{ftp}"],
              ["delete", "{ftp}f"], ["list", "{ftp}"], ["info", "{ftp}f"], ["sync", "{ftp}", "{dir}/new/"]]
)  # fmt: skip
def test_every_verb_is_refused(tmp_path, words):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_text("x")
    (tmp_path / "served").mkdir()
    server = Ftp(tmp_path / "served")
    try:
        words = [word.format(dir=tmp_path, ftp=server.writable) for word in words]
        refused(fetch(*words, refuse="ftp://127.*"))
        refused(fetch(*words, refuse="127.0.0.1"))
        (tmp_path / "served" / "f").write_text("x")
        assert fetch(*words, refuse="ftp://128.*").returncode == 0
    finally:
        server.close()


def test_wrong_rules_are_told(tmp_path, env):
    (tmp_path / "f").write_text("x")
    done = get(tmp_path / "f", tmp_path, refuse="etc/passwd")
    assert done.returncode == 2 and "neither a glob of URIs" in done.stderr and not (tmp_path / "came").exists()
    done = env.cli("worker", "http://127.0.0.1:1", "--refuse", "300.1.1.1", code=2)
    assert "neither a glob of URIs" in done.stderr


# --- on a worker ----------------------------------------------------------------------------------------------------------------


def test_a_worker_fails_what_is_refused_at_its_phase_and_goes_on(env, listener, tmp_path):
    (tmp_path / "store").mkdir()
    env.server()
    worker = env.worker(
        2, "--refuse", "169.254.0.0/16", "--refuse", "127.0.0.1", "--only", f"file://{tmp_path}/store/*", "--only", "http://*",
        variables={"SCITQ_FETCH_REFUSE": "file:///etc/*"},
    )  # fmt: skip
    runs = tmp_path / "runs"
    wrong = {
        "input file:///etc/passwd: refused": {"input": ["file:///etc/passwd"]},
        "input http://169.254.169.254/latest/meta-data/x: connections to 169.254.169.254": {
            "input": ["http://169.254.169.254/latest/meta-data/x"]
        },
        "resource http://127.0.0.1": {"resource": [f"{listener.url}/file"]},
        "input ftp://elsewhere/x: refused": {"input": ["ftp://elsewhere/x"]},
        "output file:///root/out/: refused": {"output": "file:///root/out/"},
    }
    tasks = env.create(*({"command": f"echo >> {runs}; echo x > $OUTPUT/f", "shell": "sh", **spec} for spec in wrong.values()))
    env.wait_state(tasks, "failed")
    for reason, task in zip(wrong, tasks):
        assert env.task(task)["reason"].startswith(reason), env.task(task)["reason"]
    assert runs.read_text() == "\n", "only the one that is refused its output has run"
    assert list(worker.directory.glob("executions/*/output/f")), "which stays"
    [right] = env.create({"command": "echo x > $OUTPUT/f", "shell": "sh", "output": f"file://{tmp_path}/store/out/"})
    env.wait_state(right)
    assert (tmp_path / "store/out/f").read_text() == "x\n" and listener.accepted == 0
