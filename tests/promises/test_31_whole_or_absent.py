"""Promise 31: a file is whole or absent, whatever is killed, cut, changed or full meanwhile; what is broken off is gone on
with, or cleaned.

The same command, given again, always brings all, and leaves nothing but the files it is about.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from disks import small_disk
from env import PROGRAM
from relay import Relay
from scitq.fetch import get, put
from services import Ftp, Nginx
from stores import S3, Azure, Variables
from strikes import can_trace

SIZE = 3_000_000
SEED = int(os.environ.get("SCITQ_TESTS_SEED", "0")) or random.randrange(10**6)


def all_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def fetch(*words, **more) -> subprocess.CompletedProcess:
    return subprocess.run([*PROGRAM, "fetch", *map(str, words)], capture_output=True, text=True, timeout=60, **more)


def killed(words: list, when: Callable[[], bool] | float) -> None:
    """Starts it, and ends it with SIGKILL after so many seconds, or when something is so, or not if it has ended before."""
    process = subprocess.Popen([*PROGRAM, "fetch", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + (when if isinstance(when, float) else 60.0)
    while process.poll() is None and time.monotonic() < deadline and (isinstance(when, float) or not when()):
        time.sleep(0.002)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    made = Nginx(tmp_path_factory.mktemp("web"))
    (made.root / "file").write_bytes(os.urandom(SIZE))
    (made.root / "big").write_bytes(os.urandom(2**20) * 66)
    yield made
    made.close()


@pytest.fixture
def ftp(tmp_path):
    """Takes 30 MB a second."""
    made = Ftp(_made(tmp_path / "served"), limit=30_000_000)
    yield made
    made.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# --- killed -----------------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_of_a_download(web, tmp_path):
    """Again and again the same command, killed at random moments; what is there under its name is whole, always."""
    chance = random.Random(SEED)
    data = (web.root / "file").read_bytes()
    here = tmp_path / "here"
    for path, wanted in (("slow/file", data), ("big", (web.root / "big").read_bytes())):
        words = ["get", "-q", web.url + path, f"{here}/"]
        name = path.rpartition("/")[2]
        for _ in range(8):
            killed(words, chance.uniform(0.1, 0.9))
            assert not (here / name).exists() or (here / name).read_bytes() == wanted, f"seed {SEED}"
        assert fetch(*words).returncode == 0
        assert (here / name).read_bytes() == wanted and all_below(here) == [name], f"seed {SEED}"
        (here / name).unlink()
    assert any('" 206 ' in line and "/slow/file" in line for line in web.requests()), "it went on from where it was"


STRIKES = [
    ("write", 1),
    ("write", 2),
    ("write", 4),
    ("write", 9),
    ("flock", 1),
    ("fsync", 1),
    ("utimensat", 1),
    ("rename", 1),
    ("unlink", 1),
]


def test_killed_at_its_system_calls(web, tmp_path):
    if not can_trace():
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)("strace cannot trace here")
    here, data = tmp_path / "here", (web.root / "file").read_bytes()
    words = [*PROGRAM, "fetch", "get", "-q", web.url + "file", f"{here}/"]
    strikes = 0
    for call, when in STRIKES:
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"]
        struck = subprocess.run(["strace", "-D", "-f", "-qq", "-o", "/dev/null", *inject, *words], capture_output=True)
        strikes += struck.returncode == -signal.SIGKILL
        assert not (here / "file").exists() or (here / "file").read_bytes() == data
    assert strikes >= 5, strikes
    subprocess.run(words, check=True)
    assert (here / "file").read_bytes() == data and all_below(here) == ["file"]


def test_killed_at_any_moment_of_an_upload(ftp, tmp_path):
    """What is there afterwards is the whole file, or what was there before; the next one removes what was begun."""
    chance = random.Random(SEED)
    source, there = tmp_path / "file", tmp_path / "served" / "out" / "file"
    there.parent.mkdir()
    there.write_bytes(b"before")
    source.write_bytes(os.urandom(2**20) * 40)
    local = _made(tmp_path / "local")
    begun = 0
    for target, path in ((ftp.writable + "out/", there), (f"file://{local}/", local / "file")):
        before = path.read_bytes() if path.exists() else None
        for _ in range(6):
            least = chance.randrange(1, 2**20)
            killed(["put", "-q", source, target], lambda path=path, least=least: any(
                part.name.startswith(".") and part.stat().st_size >= least for part in path.parent.iterdir()))  # fmt: skip
            begun += all_below(path.parent) != ["file"]
            assert (path.read_bytes() if path.exists() else None) in (before, source.read_bytes()), f"seed {SEED}"
        assert fetch("put", "-q", source, target).returncode == 0
        assert path.read_bytes() == source.read_bytes()
        assert begun, "some were killed in the middle"
        _until(lambda path=path: all_below(path.parent) == ["file"], f"seed {SEED}: {all_below(path.parent)}")


@pytest.fixture(params=[S3, Azure], ids=["s3", "azure"])
def store(request, tmp_path):
    """A store of objects, its URI, and the line to it, which can fall silent."""
    service = request.param(tmp_path / "store")
    name = "AWS_ENDPOINT_URL" if request.param is S3 else "AZURE_STORAGE_CONNECTION_STRING"
    line = Relay(f"http://127.0.0.1:{service.port}")
    variables = Variables({**service.variables, name: service.variables[name].replace(f":{service.port}", f":{line.port}")})
    os.environ["SCITQ_CACHE"] = str(tmp_path / "cache")
    yield ("s3://bucket/x" if request.param is S3 else "azure://bucket/x"), line
    line.close()
    variables.restore()
    service.close()


def test_objects_killed_in_the_middle(store, tmp_path):
    """What is there after an upload is what was there before; a download is gone on with."""
    uri, line = store
    path, back, here, size = tmp_path / "x", tmp_path / "back", tmp_path / "here", 20 * 2**20
    path.write_bytes(b"before")
    put(path, uri)
    path.write_bytes(os.urandom(2**20) * 20)
    line.most["up"] = size // 2
    killed(["put", "-q", path, uri], lambda: bool(line.silent))
    assert line.silent, "it was in the middle"
    line.mend()
    get(uri, back)
    assert back.read_bytes() == b"before"
    put(path, uri)
    line.mend()
    line.most["down"] = size * 9 // 10
    killed(["get", "-q", uri, here / "x"], lambda: bool(line.silent))
    assert line.silent and all_below(here) not in ([], ["x"]), "it was in the middle"
    line.mend()
    get(uri, here / "x")
    assert (here / "x").read_bytes() == path.read_bytes() and all_below(here) == ["x"]
    assert line.passed["down"] < size * 9 // 10, "what had come was not fetched again"


def _until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_couriers_and_workers_killed_over_and_over(env, web, ftp, tmp_path):
    """Inputs, resources and outputs of several tasks, while either process is killed at random moments."""
    chance = random.Random(SEED)
    env.server()
    worker = env.worker(2)
    data = (web.root / "file").read_bytes()
    digest = hashlib.md5(data).hexdigest()
    command = "cat $INPUT/file $RESOURCE/ref/file | md5sum; ls -A $INPUT $RESOURCE/ref; cp $INPUT/file $OUTPUT/out$SCITQ_TASK_ID"
    spec = {"command": command, "shell": "sh", "input": [web.url + "slow/file"], "resource": [web.url + "slow/file|mv:ref"],
            "output": ftp.writable + "out/"}  # fmt: skip
    tasks = env.create(*[spec] * 4)
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(0.2, 1.2))
        for pid, line in env.leftovers().items():
            if line.split()[-1:] == ["courier"] and chance.random() < 0.4:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
        if chance.random() < 0.4:
            worker.kill9()
            worker.start()
    env.wait_state(tasks, seconds=90)
    twice = hashlib.md5(data + data).hexdigest()
    for task in tasks:
        lines = env.stdout(task).decode().split()
        assert lines[0] == twice and [word for word in lines if "scitq" in word] == [], (f"seed {SEED}", lines, digest)
        assert (tmp_path / "served" / "out" / f"out{task}").read_bytes() == data
        assert len(env.executions(task)) == 1, "no command ran again for it"
    _until(lambda: len(all_below(tmp_path / "served" / "out")) == 4, f"seed {SEED}: {all_below(tmp_path / 'served' / 'out')}")


def test_a_resource_holds_nothing_of_an_earlier_try(env, tmp_path):
    """Its worker was killed when a file was there that the source has no more: the resource is what the source is now."""
    env.server()
    worker = env.worker(1)
    source = _made(tmp_path / "source")
    (source / "now").write_text("now")
    [first] = env.create({"command": "true", "resource": [f"file://{source}/"]})
    env.wait_state(first)
    worker.stop()
    (record,) = worker.directory.glob("resources/*/resource.json")
    (record.parent / "files").rename(record.parent / "new")
    record.unlink()
    (record.parent / "new" / "before").write_text("before")
    worker.start()
    [second] = env.create({"command": "ls -A $RESOURCE", "shell": "sh", "resource": [f"file://{source}/"]})
    env.wait_state(second)
    assert env.stdout(second) == b"now\n"


# --- two at once ------------------------------------------------------------------------------------------------------


def test_many_at_once_into_one_place(web, tmp_path):
    words = [*PROGRAM, "fetch", "get", "-q", web.url + "slow/file", f"{tmp_path}/here/"]
    processes = [subprocess.Popen(words) for _ in range(4)]
    processes[1].kill() if processes[1].poll() is None else None
    codes = [process.wait(60) for process in processes]
    assert codes[0] == codes[2] == codes[3] == 0
    assert fetch("get", "-q", web.url + "slow/file", f"{tmp_path}/here/").returncode == 0
    assert (tmp_path / "here" / "file").read_bytes() == (web.root / "file").read_bytes() and all_below(tmp_path / "here") == [
        "file"
    ]


# --- sources that lie -------------------------------------------------------------------------------------------------


class Liar:
    """A web server of one file, and what it does wrong: `how(handler, data, start, number)` answers the number-th GET itself."""

    def __init__(self, data: bytes, how: Callable | None = None, headers: dict | None = None):
        self.data, self.how, self.headers, self.gets, self.ranges = data, how, headers or {}, 0, 0
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.close_connection = True
                start = int((self.headers.get("Range") or "bytes=0-").partition("=")[2].partition("-")[0])
                if self.command == "GET":
                    liar.gets += 1
                    liar.ranges += start > 0
                    if liar.how and liar.how(self, liar.data, start, liar.gets):
                        return
                self.answer(liar.data, start)

            do_HEAD = do_GET

            def answer(self, data: bytes, start: int = 0, sent: int | None = None, **headers) -> None:
                self.send_response(206 if start else 200)
                told = {"Content-Length": len(data) - start, "Accept-Ranges": "bytes", **liar.headers, **headers}
                if start:
                    told.setdefault("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                for name, value in told.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                if self.command == "GET":
                    with contextlib.suppress(OSError):  # whoever asked has had enough
                        self.wfile.write(data[start : start + sent] if sent is not None else data[start:])

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/file"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


OLD, NEW = b"old " * 250_000, b"new!" * 250_000


def test_what_is_cut_off_is_gone_on_with(tmp_path):
    def cuts(handler, data, start, number):
        handler.answer(data, start, 300_000)
        return True

    with Liar(OLD, cuts) as liar:
        assert fetch("get", "-q", liar.url, tmp_path / "x").returncode == 0
        assert liar.ranges == liar.gets - 1 == 3
    assert (tmp_path / "x").read_bytes() == OLD and all_below(tmp_path) == ["x"]


def test_a_page_in_place_of_the_rest_is_no_rest(tmp_path):
    def page(handler, data, start, number):
        if number == 1:
            handler.answer(data, start, 300_000)
        elif number == 2:
            handler.answer(b"<html>come again</html>", Content_Type="text/html")
        return number <= 2

    with Liar(OLD, page) as liar:
        for _ in range(2):  # it may give up, and then goes on
            fetch("get", "-q", liar.url, tmp_path / "x")
            assert not (tmp_path / "x").exists() or (tmp_path / "x").read_bytes() == OLD
    assert (tmp_path / "x").read_bytes() == OLD and all_below(tmp_path) == ["x"]


def test_another_part_than_was_asked_for_is_not_taken(tmp_path):
    def elsewhere(handler, data, start, number):
        if number == 2:
            handler.answer(data, start, Content_Range=f"bytes 0-{len(data) - start - 1}/{len(data)}")
        elif number == 1:
            handler.answer(data, start, 300_001)
        return number <= 2

    data = os.urandom(1_000_000)
    with Liar(data, elsewhere) as liar:
        assert fetch("get", "-q", liar.url, tmp_path / "x").returncode == 0
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("tells", ["etag", "weak etag", "time", "nothing"])
@pytest.mark.parametrize("killed_between", [False, True])
def test_a_source_that_changed_is_never_mixed(tmp_path, tells, killed_between):
    """It becomes another one of the same size when a part has come; `nothing` but the size then tells: an other size."""
    new = NEW[:-4] if tells == "nothing" else NEW
    first = {
        "etag": {"ETag": '"a"'},
        "weak etag": {"ETag": 'W/"a"'},
        "time": {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"},
        "nothing": {},
    }[tells]
    second = {
        "etag": {"ETag": '"b"'},
        "weak etag": {"ETag": 'W/"b"'},
        "time": {"Last-Modified": "Mon, 02 Nov 2026 11:00:00 GMT"},
        "nothing": {},
    }[tells]
    begun = threading.Event()

    def changes(handler, data, start, number):
        if number > 1:
            return False
        handler.answer(data, start, 400_000)
        liar.data, liar.headers = new, second
        begun.set()
        if killed_between:
            time.sleep(0.5)
        return True

    with Liar(OLD, changes, first) as liar:
        words = ["get", "-q", liar.url, tmp_path / "x"]
        if killed_between:
            killed(words, lambda: begun.is_set() and any(path.stat().st_size >= 400_000 for path in tmp_path.iterdir()))
            assert all_below(tmp_path) != ["x"]
        else:
            done = fetch(*words)
            assert done.returncode == 0 or "replaced while it was fetched: fetch it again" in done.stderr
            assert not (tmp_path / "x").exists() or (tmp_path / "x").read_bytes() in (OLD, new)
        assert fetch(*words).returncode == 0
    assert (tmp_path / "x").read_bytes() == new and all_below(tmp_path) == ["x"], "what was begun of the old one is gone"


def test_ftp_goes_on_in_folders_of_servers_that_tell_little(tmp_path):
    """A server without MLSD lists no times: that is no reason to think that a file has changed."""
    served = _made(tmp_path / "served")
    (served / "file").write_bytes(os.urandom(SIZE))
    server = Ftp(served, drop_after=1_000_000, plain=True)
    try:
        assert fetch("get", "-q", server.url, f"{tmp_path}/here/").returncode == 0
    finally:
        server.close()
    assert (tmp_path / "here" / "file").read_bytes() == (served / "file").read_bytes()


# --- full disks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk_is_told_and_left_with_room(web, tmp_path, known):
    """Where the size is known nothing is begun; else it ends when the disk is full, and makes room again."""

    def unsized(handler, data, start, number):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):  # it has had enough
            handler.wfile.write(data)
        return True

    with small_disk(tmp_path / "disk") as disk, Liar(bytes(20 * 2**20), None if known else unsized, {}) as liar:
        if not known:
            liar.headers = {"Content-Length": "x"}
        (disk.directory / "file").write_bytes(b"before")
        done = fetch("get", "-q", liar.url, disk.directory)
        assert done.returncode == 1 and "no space left for" in done.stderr and done.stderr.count("\n") == 1, done
        assert all_below(disk.directory) == ["file"] and (disk.directory / "file").read_bytes() == b"before"
        assert disk.free > 7 * 2**20
        liar.data, liar.how, liar.headers = OLD, None, {}
        assert fetch("get", "-q", liar.url, disk.directory).returncode == 0
        assert (disk.directory / "file").read_bytes() == OLD


def test_a_full_disk_of_somebody_else_keeps_what_was_there(tmp_path):
    (tmp_path / "new").write_bytes(os.urandom(SIZE))
    with small_disk(tmp_path / "disk") as disk:
        (disk.directory / "file").write_bytes(b"before")
        disk.fill(leave=500_000)
        done = fetch("put", "-q", tmp_path / "new", f"file://{disk.directory}/file")
        assert done.returncode == 1 and "o space left" in done.stderr and "unexpected" not in done.stderr, done
        assert all_below(disk.directory) == ["ballast", "file"] and (disk.directory / "file").read_bytes() == b"before"
