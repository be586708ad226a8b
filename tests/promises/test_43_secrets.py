"""Promise 43: secrets are in no words of a process, no log, no error, no listing, no event.

Of a URI that is given with a password, or is signed, the server keeps all and shows `:...@` and `=...`: to everybody, the giver
and administrators too. Commands and names are shown as they were given: they are no place for secrets.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from env import PROGRAM, Env
from ports import free_port
from scitq.errors import TransferFailed
from scitq.fetch import info
from scitq.uris import is_only_shown, shown
from services import PASSWORD, Ftp, Nginx, needed
from stores import KEY, S3, Variables

SECRET = "geheim-Xyz123"  # noqa: S105 - it is what must be seen nowhere
SIGNED = f"?X-Amz-Credential={SECRET}&X-Amz-Date=20261121&X-Amz-Signature={SECRET}&x=1"
FORMS = [
    base64.b64encode(f"ann:{SECRET}".encode()).decode(), base64.b64encode(SECRET.encode()).decode(), SECRET,
]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        (f"ftp://ann:{SECRET}@host/f", "ftp://ann:...@host/f"),
        (f"ftp://ann@x.org:{SECRET}@host/f@2", "ftp://ann@x.org:...@host/f@2"),
        (f"ftp://ann:a@b:{SECRET}@host/", "ftp://ann:...@host/"),
        (f"ftp://ann:a/b{SECRET}@host/", "ftp://ann:...@host/"),
        (f"http://:{SECRET}@host:80/f|untar", "http://:...@host:80/f|untar"),
        (f"https://{SECRET}@host/f", "https://...@host/f"),
        (f"https@aria2://{SECRET}:@host/f", None),
        (f"https://h/f{SIGNED}", "https://h/f?X-Amz-Credential=...&X-Amz-Date=20261121&X-Amz-Signature=...&x=1"),
        (f"https://h/f?sv=1&sig={SECRET}|gunzip", "https://h/f?sv=1&sig=...|gunzip"),
        (f"https://h/f?AWSAccessKeyId=A&Expires=1&Signature={SECRET}", "https://h/f?AWSAccessKeyId=...&Expires=1&Signature=..."),
        (
            f"https://h/f?api_key={SECRET}&access_token={SECRET}&password={SECRET}",
            "https://h/f?api_key=...&access_token=...&password=...",
        ),
        (f"failed: http://u:{SECRET}@h/a and ftp://b:{SECRET}@h/c", "failed: http://u:...@h/a and ftp://b:...@h/c"),
        ("s3://bucket/a:b@c/d?x=1", "s3://bucket/a:b@c/d?x=1"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("https://h/f?design=1&keyword=2&monkey=3", "https://h/f?design=1&keyword=2&monkey=3"),
        ("no uri at all: a@b", "no uri at all: a@b"),
    ],
)
def test_how_a_uri_is_shown(uri, told):
    found = shown(uri)
    assert found == told if told else SECRET not in found
    assert is_only_shown(found) == (found != uri) and not is_only_shown(uri) and shown(found) == found


# --- what everybody on a machine can see ------------------------------------------------------------------------------


class Watch:
    """Looks at the words of all processes, over and over."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.seen: set[str] = set()
        self.own = {os.getpid()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._stop.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) not in self.own:
                    with contextlib.suppress(OSError):  # it ended meanwhile
                        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        self.seen.add(words.partition(" ")[0].rpartition("/")[2])
                        if any(form in words for form in FORMS):
                            self.found.add(words)
            time.sleep(0.002)


@contextlib.contextmanager
def password_of_services(monkeypatch) -> Iterator[None]:
    import services

    monkeypatch.setattr(services, "PASSWORD", SECRET)
    monkeypatch.setattr(services, "_FTP", services._FTP.replace(f'"{PASSWORD}"', f'"{SECRET}"'))
    yield


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    """A web and an FTP server that want `SECRET`; their own words do not hold it."""
    with password_of_services(monkeypatch):
        web = Nginx(tmp_path / "web")
        (web.root / "file").write_bytes(bytes(3_000_000))
        (tmp_path / "ftp").mkdir()
        (tmp_path / "ftp" / "file").write_bytes(bytes(2_000_000))
    yield web, tmp_path / "ftp"
    web.close()


def test_no_process_has_them_among_its_words(env, hosts, tmp_path):
    """A worker that fetches and sends through every way there is, and programs of others."""
    needed("aria2c", "aria2")
    web, served = hosts
    env.server()
    env.worker(4)
    slow = web.url.replace("http://", f"http://ann:{SECRET}@") + "slow/file"
    specs = [
        {"input": [slow]}, {"resource": [slow.replace("http", "http@aria2", 1)]}, {"input": [web.url + "slow/file" + SIGNED]},
        {"output": f"ftp://ann:{SECRET}@127.0.0.1:{free_port()}/", "input": [slow]},
        {"input": [f"fasp://ann:{SECRET}@127.0.0.1/f"]},
    ]  # fmt: skip
    with Watch() as watch:
        tasks = env.create(*({"command": "true", "env": {"AWS_SECRET_ACCESS_KEY": SECRET}, **spec} for spec in specs))
        env.wait_state(tasks, "succeeded", "failed")
    assert not watch.found and "aria2c" in watch.seen
    assert env.state(tasks[0]) == env.state(tasks[1]) == "succeeded", env.report()


def test_the_watch_does_see():
    with Watch() as watch:
        subprocess.run(["sh", "-c", f"sleep 0.3; true {SECRET}"], check=True)
    assert watch.found


# --- what is shown and kept -------------------------------------------------------------------------------------------


def everything(env: Env) -> str:
    """All that the server shows, by its API and its commands, and all that any process has written."""
    said = [json.dumps(env.items(f"/{noun}")) for noun in ("tasks", "executions", "events", "workers", "batches", "tokens")]
    for task in env.items("/tasks"):
        said += [json.dumps(env.task(task["id"])), env.answer("GET", f"/tasks/{task['id']}/explain").body.decode()]
    for words in (
        ["task", "list", "--long"],
        ["task", "list", "--format", "json"],
        ["execution", "list"],
        ["event", "list"],
        ["worker", "list"],
    ):
        done = env.cli("manage", *words, code=0)
        said += [done.stdout, done.stderr]
    said += [process.output() for process in env.processes]
    logs = [path for path in env.directory.rglob("*.log") if path.is_file()]
    errors = (env.directory / "home").rglob("errors/*")
    return "\n".join(said + [path.read_text(errors="replace") for path in [*logs, *errors]])


def test_nothing_shows_them(env_on_each, tmp_path):
    """Tasks that work and that fail, at every phase, edited, relaunched, explained, canceled."""
    env = env_on_each
    (tmp_path / "ftp").mkdir()
    server = env.server()
    env.worker(16)
    nobody = free_port()
    uris = [
        f"http://ann:{SECRET}@127.0.0.1:{nobody}/f", f"http://127.0.0.1:{nobody}/f{SIGNED}",
        f"https://{SECRET}@127.0.0.1:{nobody}/f",
        f"ftp://ann:{SECRET}@127.0.0.1:{nobody}/f", f"ftp://ann:{SECRET}/x@127.0.0.1/f", f"http://ann:{SECRET}@127.0.0.1:port/f",
        f"fasp://ann:{SECRET}@h/f", f"nobodys://ann:{SECRET}@h/f", f"http@aria3://ann:{SECRET}@h/f",
        f"ftp://ann:{SECRET}@h/f|unpack",
        f"file://ann:{SECRET}@h/f", f"http://ann:{SECRET}@[::1/f", f"http@aria2://ann:{SECRET}@127.0.0.1:{nobody}/f",
        f"ftp://ann:{SECRET}@127.0.0.1:{nobody}/a%0Ab",
    ]  # fmt: skip
    specs = [{noun: [uri], "download_timeout": 4} for uri in uris for noun in ("input", "resource")]
    specs += [{"output": uri, "download_timeout": 4} for uri in uris if not uri.startswith("ftp://ann:" + SECRET + "@127")]
    secret = {"env": {"TOKEN": "in variables"}}
    tasks = env.create(*({"command": "echo > $OUTPUT/f", "shell": "sh", **secret, **spec} for spec in specs))
    env.wait_state(tasks[: 2 * len(uris)], "failed")
    env.api("POST", "/tasks/cancel", {"ids": tasks[2 * len(uris) :]})
    env.api("POST", "/tasks/edit", {"ids": tasks[:2], "set": {"input": uris, "resource": uris, "output": uris[0]}})
    env.api("POST", "/tasks/relaunch", {"ids": tasks[:1]})
    env.wait_state(tasks[0], "failed")
    said = everything(env)
    for form in FORMS:
        assert form not in said, said[max(0, said.index(form) - 300) : said.index(form) + 100]
    assert "ann:...@127.0.0.1" in said and "X-Amz-Signature=..." in said
    server.stop()


def test_what_is_shown_cannot_be_given_back(env):
    env.server()
    [task] = env.create(
        {"command": "true", "batch": "nobody", "input": [f"ftp://ann:{SECRET}@h/f"], "output": f"ftp://a:{SECRET}@h/"}
    )
    row = env.task(task)
    assert (row["input"], row["output"]) == (["ftp://ann:...@h/f"], "ftp://a:...@h/")
    for changes in ({"input": row["input"]}, {"output": row["output"]}):
        answer = env.answer("PATCH", f"/tasks/{task}", changes)
        assert answer.status == 400 and b"give the whole URI" in answer.body
    answer = env.answer("POST", "/tasks", {"command": "true", "resource": row["input"]})
    assert answer.status == 400
    env.api("PATCH", f"/tasks/{task}", {"priority": 3})


def test_what_is_not_shown_is_used(env, hosts):
    """The worker gets the whole URI, also of a task that was edited in something else and relaunched."""
    web, _ = hosts
    env.server()
    [task] = env.create({"command": "wc -c $INPUT/file", "shell": "sh", "batch": "later",
                         "input": [web.url.replace("http://", f"http://ann:{SECRET}@") + "auth/file"]})  # fmt: skip
    env.api("PATCH", f"/tasks/{task}", {"name": "other", "batch": "Default"})
    env.worker(1)
    env.wait_state(task)
    assert env.stdout(task).startswith(b"3000000 ")


def test_files_of_a_worker_are_read_by_nobody_else(env, hosts):
    web, _ = hosts
    env.server()
    worker = env.worker(1)
    uri = web.url.replace("http://", f"http://ann:{SECRET}@") + "auth/file"
    [task] = env.create({"command": "sleep 100", "input": [uri], "resource": [uri], "output": uri, "env": {"X": SECRET}})
    env.wait_state(task, "running")
    held = [path for path in worker.directory.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert held and all(path.stat().st_mode & 0o077 == 0 for path in held), [oct(path.stat().st_mode) for path in held]
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")
    database = [path for path in (env.directory / "server").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert all(path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0 for path in database)


# --- scitq fetch alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["get", "http://ann:{0}@127.0.0.1:1/f"], ["get", "ftp://ann:{0}@127.0.0.1:1/f"], ["list", "ftp://ann:{0}/x@h/"],
        ["info", "http://ann:{0}@127.0.0.1:x/f"], ["get", "http://127.0.0.1:1/f?sig={0}"], ["put", "f", "http://ann:{0}@h/f"],
        ["get", "ftp://ann:{0}@127.0.0.1:1/f|zip"], ["get", "httpx://ann:{0}@127.0.0.1:1/f"],
        ["get", "http@aria2://ann:{0}@127.0.0.1:1/f"],
        ["copy", "f", "ftp://ann:{0}@127.0.0.1:1/f"], ["get", "http://ann:{0}@127.0.0.1:1/a\nb"], ["get", "file://u:{0}@h"],
    ],
)  # fmt: skip
def test_errors_of_fetch_hold_none(tmp_path, words):
    (tmp_path / "f").write_text("x")
    process = subprocess.Popen(
        [*PROGRAM, "fetch", *(word.format(SECRET) for word in words)], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=3)  # most fail at once; what is tried again says the same in the end
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert SECRET not in said and said.count("\n") <= 1 and "unexpected" not in said


def test_listings_of_fetch_hold_none(tmp_path, monkeypatch):
    (tmp_path / "ftp").mkdir()
    with password_of_services(monkeypatch):
        server = Ftp(tmp_path / "ftp")
    (tmp_path / "ftp" / "file").write_text("x")
    uri = f"ftp://ann:{SECRET}@127.0.0.1:{server.port}/"
    try:
        for words in (
            ["list", uri],
            ["list", "-l", "--md5", uri],
            ["nrlist", uri],
            ["info", uri + "file"],
            ["delete", "-t", uri],
        ):
            done = subprocess.run([*PROGRAM, "fetch", *words], capture_output=True, text=True, timeout=30, check=True)
            assert "file" in done.stdout and SECRET not in done.stdout + done.stderr
    finally:
        server.close()


def test_keys_of_s3_are_told_by_nobody(tmp_path):
    """Not in errors of wrong keys either; nor is the key's name."""
    server = S3(tmp_path / "s3")
    wrong = {**server.variables, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SECRET}
    try:
        with Watch() as watch:
            for words in (["get", "s3://bucket/none"], ["list", "s3://bucket/"], ["put", PROGRAM[-1], "s3://bucket/x"]):
                done = subprocess.run(
                    [*PROGRAM, "fetch", *words],
                    capture_output=True,
                    text=True,
                    cwd=tmp_path,
                    env={**os.environ, **wrong},
                    timeout=60,
                )
                assert done.returncode and SECRET not in done.stdout + done.stderr and KEY not in done.stderr, done
        assert not watch.found
    finally:
        server.close()


def test_signatures_of_azure_are_told_by_nobody():
    """A library's words of a lost connection hold the whole address."""
    variables = Variables({
        "AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_SAS_TOKEN": f"sv=2020-01-01&sig={SECRET}",
        "AZURE_STORAGE_SERVICE_ENDPOINT": "http://127.0.0.1:1",
    })  # fmt: skip
    try:
        with pytest.raises(TransferFailed, match="no answer from Azure.*/bucket/file\\?\\.\\.\\. ") as caught:
            info("azure://bucket/file")
        assert SECRET not in str(caught.value)
    finally:
        variables.restore()
