"""Bad input on the command line: one line on stderr that says what to do, the right exit code, and all else stays as it was.

What comes over HTTP: promise 46. Full disks: promise 26. What each part refuses of its own words: the tests of that part.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
from env import PROGRAM, Env

ADDRESS_OF_NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server, a worker that takes nothing, and a task of a batch."""
    env = Env(tmp_path_factory.mktemp("desk"))
    env.server()
    env.worker(0)
    env.create({"command": "true", "batch": "b", "name": "only"})
    yield env
    env.close()


def picture(env: Env) -> dict:
    found = {noun: env.items(f"/{noun}") for noun in ("tasks", "batches", "tokens", "events")}
    return found | {"workers": [row["name"] for row in env.items("/workers")]}


@pytest.fixture
def refused(desk):
    """Runs a command that must be refused: its one line. All that the server holds stays as it was."""

    def run(code: int, *words: str, told: tuple[str, ...] = (), **options) -> str:
        before = picture(desk)
        done = desk.cli(*words, code=code, **options)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("scitq: ") and done.stdout == "", done
        assert len(done.stderr) < 600
        for word in told:
            assert word in done.stderr, done.stderr
        assert picture(desk) == before
        return done.stderr

    return run


# --- words that are not known -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "told"), [
    ("lauch true", "'launch'"), ("--vresion", "scitq -h"), ("launch --nmae x true", "'--name'"), ("launch", "which command"),
    ("launch -n", "needs a value"), ("server --prot 1", "'--port'"), ("worker --scrach /tmp", "'--scratch'"),
    ("worker 127.0.0.1 many", "many"), ("run --quite x", "'--quiet'"), ("run", "what should be run"), ("manage", "task"),
    ("manage taks list", "'task'"), ("manage task", "list"), ("manage task lst", "'list'"),
    ("manage task list --stat x", "'--state'"),
    ("manage batch stop -n b --trem", "'--term'"), ("completion tcsh", "bash"), ("manage task list -o tabel", "tabel"),
    ("manage worker update -n w1 -C many", "many"), ("manage -t soon task list", "soon"), ("launch --retry often true", "often"),
    ("launch --run-timeout soon true", "90s"), ("launch --env X true", "KEY=VALUE"), ("launch --uid root true", "root"),
])  # fmt: skip
def test_unknown_words(refused, line, told):
    refused(2, *line.split(), told=(told,))


@pytest.mark.parametrize(("code", "line", "told"), [
    (2, "task list -S runing", "'running'"), (2, "task list --since yesterday", "yesterday"), (2, "task list -i 1,x", "x"),
    (2, "task list --exit-code x", "x"), (3, "task get -i 999", "999"),
    (3, "task explain -i 999", "999"), (3, "task output -i 999", "999"), (3, "execution get -i 999", "999"),
    (3, "worker get -n nobody", "nobody"), (3, "batch get -n bb", "'b'"), (3, "batch stop -n bb", "'b'"),
    (3, "batch delete -n bb --yes", "'b'"), (2, "worker list -S runing", "runing"),
])  # fmt: skip
def test_unknown_states_ids_names_and_filters(refused, code, line, told):
    refused(code, "manage", *line.split(), told=(told,))


def test_a_task_that_needs_one_that_is_not_there(refused):
    refused(2, "launch", "--require", "999", "true", told=("require", "999"))


@pytest.mark.parametrize("line", ["task edit -n * --sub (/x", "task edit -n * --sub s/(/x/", "task edit -n *"])
def test_edits_that_cannot_be_done(refused, line):
    refused(2, "manage", *line.split(), "--yes")


def test_a_change_of_many_wants_a_yes(desk, refused):
    """Not on a terminal nobody can be asked."""
    before = picture(desk)
    done = desk.cli("manage", "task", "delete", "-b", "b", code=2)
    assert "--yes" in done.stderr and picture(desk) == before


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["launch -s {} true", "manage -t 1 -s {} task list", "launch -s {} --wait true"])
def test_a_server_that_is_not_there(refused, line):
    refused(5, *line.format(ADDRESS_OF_NOBODY).split(), told=(ADDRESS_OF_NOBODY, "scitq server"))


@pytest.mark.parametrize("address", ["no such host", "http://", "ftp://h", "h:port", "h:99999", "u:p@h", "h?x=1"])
def test_what_is_no_address(refused, address):
    refused(2, "launch", "-s", address, "true", told=("URL",))


def test_a_host_that_is_not_known(refused):
    refused(5, "launch", "-s", "no-such-host.invalid", "true", told=("no-such-host.invalid",))


@contextlib.contextmanager
def somebody_else(answer: bytes | None):
    """The address of another program: an HTTP server, or one that says this to everybody."""
    if answer is None:
        other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{other.server_address[1]}"
        other.shutdown()
        other.server_close()
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            listening.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(OSError):  # nobody came, or who came went
                    line = listening.accept()[0]
                    line.sendall(answer)
                    line.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("answer", [None, b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"])
@pytest.mark.parametrize("line", ["launch -s {} true", "manage -t 1 -s {} task list", "worker {} 1 --name x --scratch {tmp}"])
def test_a_server_that_is_not_ours(refused, tmp_path, line, answer):
    if "worker" in line and answer is not None and answer.startswith(b"SSH"):
        pytest.skip("a worker waits for a server that does not answer")
    with somebody_else(answer) as address:
        told = refused(5, *line.format(address, tmp=tmp_path).split(), told=(address,))
        assert "not a scitq server" in told or "does not speak HTTP" in told or "closed the connection" in told


@pytest.mark.parametrize(
    "line", ["launch true", "manage task list", "worker {url} 1 --name x --scratch {tmp}", "launch --wait true"]
)
def test_a_token_that_is_refused(desk, refused, tmp_path, line):
    words = line.format(url=desk.url, tmp=tmp_path).split()
    refused(4, *words, variables={"SCITQ_TOKEN": "scitq_wrong"}, told=("token",))


def test_no_token(refused, tmp_path):
    refused(4, "launch", "true", variables={"SCITQ_CONFIG": str(tmp_path)}, told=("SCITQ_TOKEN",))


def test_what_a_role_may_not(desk, refused):
    user = desk.api("POST", "/tokens", {"name": "ursula", "role": "user"})["token"]
    refused(4, "manage", "token", "list", variables={"SCITQ_TOKEN": user}, told=("admin",))
    refused(4, "manage", "token", "create", "x", variables={"SCITQ_TOKEN": user}, told=("admin",))


# --- files ------------------------------------------------------------------------------------------------------------

ABC = "abcdefghijklmnopqrstuvwxyz"
FILES = {
    "a wrong key": ("batch: b\ntasks:\n  - {nmae: x, command: 'true'}\n", ":3:", "'name'"),
    "a wrong type": ("batch: b\ntasks:\n  - name: x\n    command: 'true'\n    retry: often\n", ":5:", "retry"),
    "a cycle": ("batch: b\ntasks: [{name: x, command: 'true', needs: y}, {name: y, command: 'true', needs: x}]\n", "x", "y"),
    "a need of nothing": ("tasks:\n- {name: abc, command: 'true'}\n- {name: y, command: 'true', needs: abd}\n", ":3:", "'abc'"),
    "no YAML": ("batch: [\n", ":", "b.yaml"),
    "no text": ("batch: \x00\n", "b.yaml", ""),
    "nothing": ("", "empty", ""),
    "a list": ("- a\n- b\n", "b.yaml", ""),
    "a newline in a name": ('batch: b\ntasks:\n  - {name: "a\\nb", command: "true"}\n', "newline", "name"),
    "a NUL in a name": ('batch: b\ntasks:\n  - {name: "a\\0b", command: "true"}\n', "control character", "name"),
    "a name of 100 kB": ("batch: b\ntasks:\n  - {name: " + "n" * 100_000 + ", command: 'true'}\n", "name", ""),
    "code": ("batch: !!python/object/apply:os.system ['touch /nobody']\n", ":1:", "tag"),
    "all names of all": (
        "a: &a [x]\n" + "".join(f"{n}: &{n} [{'*' + p}, {'*' + p}]\n" for p, n in itertools.pairwise(ABC)), "", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FILES)
@pytest.mark.parametrize("command", ["launch -f", "run"])
def test_batch_files(refused, tmp_path, fault, command):
    content, *told = FILES[fault]
    (tmp_path / "b.yaml").write_text(content)
    refused(2, *command.split(), str(tmp_path / "b.yaml"), told=tuple(told), cwd=tmp_path, timeout=20)
    assert set(os.listdir(tmp_path)) <= {"b.yaml", ".scitq"}


@pytest.mark.parametrize("command", ["launch -f", "run"])
def test_a_batch_file_of_100_mb(refused, tmp_path, command):
    with open(tmp_path / "b.yaml", "wb") as file:
        file.truncate(100_000_000)
    refused(2, *command.split(), str(tmp_path / "b.yaml"), told=("MiB", "each"), cwd=tmp_path, timeout=20)


@pytest.mark.parametrize(("line", "told"), [
    ("launch -f none.yaml", "none.yaml"), ("run none.yaml", "none.yaml"), ("launch --each none.csv echo {a}", "none.csv"),
    ("run .", "."), ("launch --token-file none true", "none"), ("launch -f /proc/self/mem", "/proc/self/mem"),
    ("launch --token-file /dev/null true", "holds no token"),
])  # fmt: skip
def test_files_that_cannot_be_read(refused, line, told):
    refused(2, *line.split(), told=(told,))


@pytest.mark.slow
def test_more_than_a_request_may_hold(refused, tmp_path):
    """100 MB of tasks: the server's limit is told, and not one of them is queued."""
    rows = "".join(f"{number},{'x' * 100_000}\n" for number in range(1000))
    (tmp_path / "t.csv").write_text("a,b\n" + rows)
    refused(2, "launch", "--each", str(tmp_path / "t.csv"), "echo", "{a}", "{b}", told=("in parts",))


@pytest.mark.parametrize(("option", "value"), [
    ("-n", "n" * 100_000), ("-n", "a\nb"), ("-n", ""), ("-b", "b" * 2000), ("-b", "a\nb"), ("-o", "o\to"),
    ("--workdir", "relative"),
    ("-n", "\udcff"),
])  # fmt: skip
def test_values_that_are_none(refused, option, value):
    refused(2, "launch", option, value, "true")


# --- a server's own start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "options", "told"), [
    (2, ["--database", "mysql://x"], "sqlite:///path or postgresql://"), (2, ["--database", "sqlite://host/x"], "sqlite:///"),
    (2, ["--database", "sqlite:///text.db"], "not a usable SQLite database"),
    (2, ["--database", "postgresql://h"], "names no database"),
    (5, ["--database", "postgresql://127.0.0.1:1/x"], "127.0.0.1"), (2, ["--database", "postgresql://h:port/x"], "port"),
    (2, ["--port", "seventy"], "--port"), (2, ["--port", "70000"], "--port"),
    (2, ["--host", "256.1.1.1", "--insecure-http"], "--host"),
    (2, ["--nonsense"], "--nonsense"), (2, ["--config", "absent.yaml"], "absent.yaml"), (5, ["--data", "text.db/d"], "--data"),
    (2, ["--lost-after", "soon"], "--lost-after"), (2, ["--cert", "text.db", "--key", "text.db"], "--cert"),
])  # fmt: skip
def test_what_a_server_cannot_start_with(env, code, options, told):
    text = "This is no database. " * 100
    (env.directory / "text.db").write_text(text)
    data = [] if "--data" in options else ["--data", str(env.directory / "d")]
    done = env.cli("server", "--port", "0", *data, *options, code=code)
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert (env.directory / "text.db").read_text() == text


def test_a_port_in_use(desk, refused):
    refused(
        1, "server", "--port", str(urlsplit(desk.url).port), "--data", str(desk.directory / "other"), told=("in use", "--port")
    )


def test_two_servers_on_one_database(desk, refused):
    data = desk.directory / "server"
    refused(1, "server", "--port", "0", "--data", str(data), told=("another scitq server",))
    assert json.loads((data / "server.json").read_text())["url"] == desk.url


def test_a_schema_newer_than_the_program(env):
    server = env.server()
    (task,) = env.create("true")
    server.stop()
    with contextlib.closing(sqlite3.connect(server.data / "scitq.db", isolation_level=None)) as database:
        own = database.execute("SELECT value FROM setting WHERE name = 'schema'").fetchone()
        database.execute("UPDATE setting SET value = '999' WHERE name = 'schema'")
        done = env.cli("server", "--port", "0", "--data", server.data, code=1)
        assert "schema 999" in done.stderr and done.stderr.count("\n") == 1
        database.execute("UPDATE setting SET value = ? WHERE name = 'schema'", own)
    server.start()
    assert env.state(task) == "pending"


# --- workers, commands, output ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scratch", ["file/below", "/proc/no/such", "/dev/null"])
def test_a_scratch_directory_that_cannot_be_used(desk, refused, scratch):
    (desk.directory / "file").write_text("")
    refused(4, "worker", desk.url, "1", "--name", "x", "--scratch", scratch, told=("--scratch",))


@pytest.mark.parametrize("name", ["a/b", "", "..", "a b", "a\nb", "n" * 200, "\u00e9"])
def test_a_name_that_no_worker_can_have(desk, refused, tmp_path, name):
    refused(2, "worker", desk.url, "1", f"--name={name}", "--scratch", str(tmp_path), told=("name",))
    assert os.listdir(tmp_path) == []


def test_two_workers_of_one_name(desk, refused, tmp_path):
    refused(1, "worker", desk.url, "1", "--name", "w1", "--scratch", str(desk.directory / "scratch"), told=("w1", "--name"))
    refused(1, "worker", desk.url, "1", "--name", "w1", "--scratch", str(tmp_path), told=("w1", "--name"))


def test_a_command_that_does_not_exist(env):
    """It is a task like others: it fails, and says why."""
    env.server()
    env.worker(1)
    task = env.launch("no-such-command", "x")
    env.wait_state(task, "failed")
    assert "no-such-command" in env.executions(task)[0]["reason"]
    done = env.cli("launch", "--wait", "no-such-command", code=10)
    assert "no-such-command" in done.stderr and done.stderr.count("\n") == 1


def test_output_that_cannot_be_written(desk):
    with open("/dev/full", "w") as full:
        for words in (["manage", "task", "list"], ["manage", "-h"], ["launch", "-t", "true"]):
            done = subprocess.run([*PROGRAM, *words], env=desk.variables, stdout=full, stderr=subprocess.PIPE, text=True)
            assert done.returncode == 1 and done.stderr.count("\n") == 1 and "make room" in done.stderr, (words, done)
