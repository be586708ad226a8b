"""The black-box environment: real servers and workers on loopback, killed at will; nothing crashes and no process is left unseen.

    def test_it(env):
        env.server()
        worker = env.worker(concurrency=2)
        task = env.launch("sleep", "100")
        env.wait_state(task, "running")
        worker.kill9()
        ...

The program under test is the checkout's `scitq.py`, or what `SCITQ_TEST_PROGRAM` names (the one file, say).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ports import free_port
from relay import Relay
from scitq.auth import token_key
from scitq.protocol import API, FINAL
from scitq.transport import Answer, Connection

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, os.environ.get("SCITQ_TEST_PROGRAM") or str(ROOT / "scitq.py")]
MARK = "SCITQ_TEST_MARK"
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 25
START_SECONDS = 60.0
STOP_SECONDS = 20.0
ORPHAN_SECONDS = 5.0
PATIENCE_SECONDS = 60.0  # for what must come, however busy the machine is


class Process:
    """One process of the program: started, watched, killed. A test ends it by a method; an end of its own is a crash."""

    def __init__(self, env: Env, name: str, words: list[str], variables: dict[str, str] | None = None, cwd: Path | None = None):
        self.env, self.name, self.words, self.cwd = env, name, words, cwd or env.directory
        self.variables = {**env.variables, **(variables or {})}
        self.log = env.directory / f"{name}.log"
        self.ended_by_test = False
        self.program = env.program  # another copy of it, or one under a tracer, for the next start
        self.start()

    def start(self) -> None:
        """Starts it, again after it was ended; its log goes on."""
        self.ended_by_test = False
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(
                [*self.program, *self.words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.variables, cwd=self.cwd, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill9(self) -> None:
        """Ends the process itself with SIGKILL, nothing else; returns when it is dead."""
        self.ended_by_test = True
        self.popen.kill()
        self.popen.wait(STOP_SECONDS)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Asks it to end (SIGTERM) and waits; its exit code."""
        self.ended_by_test = True
        self.popen.send_signal(signal.SIGCONT)
        self.popen.terminate()
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not end within {seconds:g} s of SIGTERM\n{self.tail()}") from None

    def restart(self) -> None:
        """Ends it in order, if it is still there, and starts it again."""
        if self.alive:
            self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it is there, and does nothing; returns when all its threads have stopped."""
        self.signal(signal.SIGSTOP)
        self.env.until(lambda: _is_stopped(self.pid), what=f"{self.name} is stopped")

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def wait_exit(self, seconds: float = START_SECONDS) -> int:
        """For a process that must end by itself: its exit code."""
        self.ended_by_test = True
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds:g} s\n{self.tail()}") from None

    def output(self) -> str:
        """All it wrote, over all its starts."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        lines = self.output().splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"--- {self.name}: {'runs' if self.alive else f'ended with {self.popen.poll()}'}", *lines])

    def check(self) -> None:
        """Raises if it ended though nobody asked it to."""
        if not self.ended_by_test and not self.alive:
            raise AssertionError(f"{self.name} ended by itself\n{self.tail()}")


class ServerProcess(Process):
    """A server on a free port of loopback; started again it takes the same port.

    The port is chosen here: of one that it chooses itself, a server that stops takes its token away.
    """

    def __init__(
        self,
        env: Env,
        name: str,
        options: Iterable[str],
        database: str | None,
        data: Path,
        variables: dict[str, str] | None = None,
    ):
        self.data, self.url = data, ""
        more = ["--database", database] if database else []
        words = ["server", "--host", "127.0.0.1", "--port", str(free_port()), "--data", str(data), *more, *options]
        super().__init__(env, name, words, variables)

    def start(self) -> None:
        super().start()
        self.env.until(self._is_ready, START_SECONDS, f"{self.name} answers")

    def _is_ready(self) -> bool:
        self.check()
        with contextlib.suppress(FileNotFoundError, ValueError):  # not yet there, not yet whole
            told = json.loads((self.data / "server.json").read_text())
            if told["pid"] == self.pid:
                self.url = told["url"]
                with Connection(self.url, timeout=5) as connection, contextlib.suppress(OSError):  # not yet listening
                    return connection.request("GET", "/health/ready").status == 200
        return False


class WorkerProcess(Process):
    """A worker, and the name the server knows it by."""

    def __init__(self, env: Env, name: str, words: list[str], variables: dict[str, str], scratch: Path):
        self.scratch = scratch
        super().__init__(env, name, words, variables)

    @property
    def directory(self) -> Path:
        """`<scratch>/<worker name>`: its identity, its executions."""
        return self.scratch / self.name

    @property
    def row(self) -> dict:
        """What the server says of it."""
        return next(row for row in self.env.items("/workers") if row["name"] == self.name)


class Env:
    """Everything of one test: processes, relays, directories; `close()` checks that all went well."""

    def __init__(self, directory: Path, database: str | None = None):
        self.directory, self.database = directory, database
        self.mark = uuid.uuid4().hex
        self.program = PROGRAM  # that its processes run, save short commands
        self.orphans_expected = False  # set by a test that kills a keeper on purpose
        self.crashes_expected = False  # set by a test in which a log may hold a traceback
        self.processes: list[Process] = []
        self.relays: list[Relay] = []
        (directory / "home").mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "SCITQ_CACHE") if name in os.environ}
        self.variables = {
            **kept, "HOME": str(directory / "home"), "SCITQ_CONFIG": str(directory / "config"), MARK: self.mark,
        }  # fmt: skip
        self._connection: Connection | None = None

    # --- starting -----------------------------------------------------------------------------------------------------

    def server(
        self, *options: str, database: str | None = None, name: str = "server", data: Path | None = None,
        variables: dict[str, str] | None = None,
    ) -> ServerProcess:  # fmt: skip
        """A server that is ready. The first one is where workers, `cli`, `api` and `client` go."""
        process = ServerProcess(self, name, options, database or self.database, data or self.directory / name, variables)
        self.processes.append(process)
        if "SCITQ_SERVER" not in self.variables:
            self.variables["SCITQ_SERVER"] = process.url
        return process

    def worker(
        self, concurrency: int = 2, *options: str, name: str | None = None, scratch: Path | None = None, batch: str | None = None,
        server: str | None = None, ready: bool = True, variables: dict[str, str] | None = None,
    ) -> WorkerProcess:  # fmt: skip
        """A worker, online when this returns (unless `ready` is false). `server`: another URL, of a relay say."""
        name = name or f"w{sum(isinstance(process, WorkerProcess) for process in self.processes) + 1}"
        scratch = scratch or self.directory / "scratch"
        words = ["worker", server or self.url, str(concurrency), "--name", name, "--scratch", str(scratch), *options]
        token = {"SCITQ_TOKEN": self.token} if server else {}
        process = WorkerProcess(
            self, name, words + (["--batch", batch] if batch else []), {**token, **(variables or {})}, scratch
        )
        self.processes.append(process)
        if ready:
            self.until(
                lambda: (
                    f"worker {name} (id" in process.output()  # it has also written down who it is
                    and any(w["name"] == name and w["state"] == "online" for w in self.items("/workers"))
                ),
                what=f"{name} is online",
            )
        return process

    def start(self, name: str, *words: str, variables: dict[str, str] | None = None, cwd: Path | None = None) -> Process:
        """Any other command of the program, in the background."""
        process = Process(self, name, list(words), variables, cwd)
        self.processes.append(process)
        return process

    def relay(self, target: str | None = None) -> Relay:
        """A relay before the server."""
        relay = Relay(target or self.url)
        self.relays.append(relay)
        return relay

    def cli(self, *words: str, input: str | None = None, code: int | None = None, timeout: float = 60.0, cwd: Path | None = None,
            variables: dict[str, str] | None = None) -> subprocess.CompletedProcess:  # fmt: skip
        """Runs a command to its end; `code` is the exit code it must have (None: any)."""
        done = subprocess.run(
            [*PROGRAM, *map(str, words)], env={**self.variables, **(variables or {})}, cwd=cwd or self.directory, text=True,
            errors="surrogateescape", timeout=timeout, input=input, stdin=subprocess.DEVNULL if input is None else None,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert "Traceback" not in done.stderr or self.crashes_expected, done.stderr
        assert code is None or done.returncode == code, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def launch(self, *words: str) -> int:
        """`scitq launch words...`; the id of the task."""
        return int(self.cli("launch", *words, code=0).stdout)

    # --- speaking with the first server -----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self.variables["SCITQ_SERVER"]

    @property
    def token(self) -> str:
        """The admin token that the server left for its user."""
        tokens = json.loads((self.directory / "config" / "tokens.json").read_text())
        return tokens[token_key(self.url)]

    @property
    def client(self):
        """A `scitq.lib.Server` of its own connection, by the objects style."""
        from scitq.lib import Server

        return Server(self.url, style="object", token=self.token)

    def answer(self, method: str, path: str, body=None, timeout: float = 30.0, headers: dict | None = None, **query) -> Answer:
        """One request to `/api/v1` and its answer, whatever its status."""
        if self._connection is None:
            self._connection = Connection(self.url, token=self.token, timeout=30)
        return self._connection.request(method, API + path, body, query, headers, timeout)

    def api(self, method: str, path: str, body=None, timeout: float = 30.0, **query):
        """One request that must succeed; its JSON."""
        answer = self.answer(method, path, body, timeout, **query)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:500]!r}"
        return json.loads(answer.body) if answer.body else None

    def items(self, path: str, **query) -> list[dict]:
        """A whole list, over all its pages."""
        found, after = [], None
        while True:
            page = self.api("GET", path, after=after, limit=5000, **query)
            found += page["items"]
            after = page["next"]
            if after is None:
                return found

    def create(self, *specs: dict | str) -> list[int]:
        """Tasks by their specs (a text: a command for `sh`), in one request; their ids."""
        tasks = [{"command": spec, "shell": "sh"} if isinstance(spec, str) else spec for spec in specs]
        return self.api("POST", "/tasks", {"tasks": tasks})["ids"]

    def task(self, task: int) -> dict:
        return self.api("GET", f"/tasks/{task}")

    def state(self, task: int) -> str:
        return self.task(task)["state"]

    def executions(self, task: int) -> list[dict]:
        """The attempts of a task, oldest first."""
        return sorted(self.items("/executions", task=task), key=lambda row: row["id"])

    def stdout(self, task: int, stream: str = "stdout") -> bytes:
        """All that the latest attempt of a task has written, as the server knows it."""
        execution, data, offset = self.executions(task)[-1]["id"], b"", 0
        while True:
            answer = self.answer("GET", f"/executions/{execution}/{stream}", offset=offset)
            assert answer.status == 200, answer.body
            data, offset = data + answer.body, int(answer.headers["X-Scitq-Next"])
            if not answer.body:
                return data

    # --- waiting ----------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS, what: str = "") -> object:
        """Waits until the condition holds and returns its value. Fails at once when a process crashed; shows all in the end."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            for process in self.processes:
                process.check()
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what or condition}\n{self.report()}")
            time.sleep(POLL_SECONDS)

    def wait_state(self, tasks: int | Iterable[int], *states: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until each task is in one of the states (default: succeeded). Fails at once when one has ended otherwise."""
        ids, wanted = [tasks] if isinstance(tasks, int) else list(tasks), states or ("succeeded",)

        def all_there() -> bool:
            rows = self.items("/tasks", ids=ids)
            for row in rows:
                if row["state"] in FINAL and row["state"] not in wanted:
                    raise AssertionError(f"task {row['id']} is {row['state']}, wanted is {' or '.join(wanted)}\n{self.report()}")
            return len(rows) == len(ids) and all(row["state"] in wanted for row in rows)

        self.until(all_there, seconds, f"tasks {str(ids):.200} are {' or '.join(wanted)}")

    def report(self) -> str:
        """The tasks, and the ends of all logs."""
        return "\n".join([self._table(), *(process.tail() for process in self.processes)])

    def _table(self) -> str:
        try:
            rows = self.api("GET", "/tasks", timeout=3, limit=30, order="-id")["items"]
        except Exception as error:  # the report of a failure must not hide it behind another one
            return f"(no table of tasks: {error})"
        return "\n".join(f"{row['id']:>6} {row['state']:<10} {row.get('name') or '':<12.12} {row['command']:.80}" for row in rows)

    # --- the end ------------------------------------------------------------------------------------------------------------

    def leftovers(self) -> dict[int, str]:
        """The processes of this test that live now, by pid: their command lines."""
        mark = f"{MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    if mark in (entry / "environ").read_bytes().split(b"\0") and _state_of(entry) != "Z":
                        found[int(entry.name)] = (
                            (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                        )
        return found

    def close(self) -> None:
        """Ends all; raises if a process had crashed, could not be ended, or left something behind."""
        troubles = [trouble for process in self.processes if (trouble := _trouble(process.check))]
        with contextlib.ExitStack() as whatever_happens:
            whatever_happens.callback(self._kill_all)
            for relay in self.relays:
                whatever_happens.callback(relay.close)
            if self._connection is not None:
                whatever_happens.callback(self._connection.close)
            for process in [*self._of(WorkerProcess), *self._of(Process), *self._of(ServerProcess)]:
                if process.alive and (trouble := _trouble(process.stop)):
                    troubles.append(trouble)
            troubles += self._orphans()
        if not self.crashes_expected:
            troubles += [
                f"{p.name} wrote a traceback\n{p.tail()}" for p in self.processes if "Traceback (most recent" in p.output()
            ]
        if troubles:
            raise AssertionError("\n".join(troubles))

    def _of(self, kind: type) -> list[Process]:
        return [process for process in self.processes if type(process) is kind]

    def _orphans(self) -> list[str]:
        """What still lives after a moment and hangs under no keeper: keepers and their tasks outlive workers by design."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while not self.orphans_expected:
            left = self.leftovers()
            keepers = {pid for pid, line in left.items() if "keeper" in line.split()}
            orphans = {pid: line for pid, line in left.items() if not keepers & {pid, *_ancestors(pid)}}
            if not orphans or time.monotonic() > deadline:
                return [f"left behind: process {pid} ({line})" for pid, line in orphans.items()]
            time.sleep(POLL_SECONDS)
        return []

    def _kill_all(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while left := self.leftovers():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise AssertionError(f"cannot be killed: {left}")
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def started(words: list[str], **options) -> Iterator[subprocess.Popen]:
    """A process of whatever kind, killed at the end if it is still there: `Popen` itself would wait for it, for ever."""
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def _trouble(function: Callable[[], object]) -> str | None:
    try:
        function()
    except AssertionError as error:
        return str(error)
    return None


def _state_of(entry: Path) -> str:
    return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def stands_still(pid: int) -> bool:
    """Whether a process is stopped, or waits in vfork() for a child that is: such a parent sleeps on and is never seen stopped.
    """
    with contextlib.suppress(OSError):  # it has just ended
        if _state_of(Path(f"/proc/{pid}")) != "D":
            return _is_stopped(pid)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(_is_stopped(int(child)) for child in children)
    return False


def _is_stopped(pid: int) -> bool:
    """Whether all threads of a process stand still."""
    with contextlib.suppress(OSError):  # one of them has just ended: look again
        return all(_state_of(thread) in "Tt" for thread in Path(f"/proc/{pid}/task").iterdir())
    return False


def _ancestors(pid: int) -> list[int]:
    """Parents of a process, nearest first."""
    found = []
    with contextlib.suppress(OSError):  # one of them ended meanwhile
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            found.append(pid)
    return found
