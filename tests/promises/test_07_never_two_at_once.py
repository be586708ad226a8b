"""Promise 7: never two executions of a task at once, unless the worker of the first was declared lost.

The commands watch over themselves: each holds a lock of its task as long as any process of it lives, and notes its start.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from env import PROGRAM, Env
from scitq.errors import ScitqError
from scitq.protocol import FINAL
from scitq.transport import Connection
from strikes import changed_program, copied_program

WATCHED = """
exec 9>>"$WATCH/$SCITQ_TASK_ID"
flock -n 9 || {{ echo $SCITQ_TASK_ID $SCITQ_EXECUTION_ID >> "$WATCH/overlaps"; exit 99; }}
echo $SCITQ_EXECUTION_ID >> "$WATCH/$SCITQ_TASK_ID"
{then}
echo done $SCITQ_TASK_ID
"""


class Watch:
    """The directory in which the commands note what they do."""

    def __init__(self, env: Env):
        self.env, self.directory = env, env.directory / "watch"
        self.directory.mkdir()

    def spec(self, then: str = "", **more) -> dict:
        return {"command": WATCHED.format(then=then), "shell": "sh", "env": {"WATCH": str(self.directory)}, **more}

    def starts(self, task: int) -> list[int]:
        """The executions of a task whose commands began, in their order."""
        with contextlib.suppress(FileNotFoundError):  # none
            return list(map(int, (self.directory / str(task)).read_text().split()))
        return []

    def check(self, task: int) -> None:
        """No command of it met another one; each execution began once at most; what succeeded has its output."""
        overlaps = self.directory / "overlaps"
        assert not overlaps.exists(), f"two at once (task, execution):\n{overlaps.read_text()}{self.env.report()}"
        starts, rows = self.starts(task), self.env.executions(task)
        assert starts == sorted(set(starts)), f"task {task}: an execution began twice: {starts}"
        succeeded = [row["id"] for row in rows if row["state"] == "succeeded"]
        assert set(succeeded) <= set(starts) and len(succeeded) <= 1
        if succeeded:
            assert succeeded == [rows[-1]["id"]] and self.env.stdout(task) == f"done {task}\n".encode()


# --- many at the same time ---------------------------------------------------------------------------------------------------


def test_two_servers_of_one_database_and_their_workers(tmp_path, postgres):
    env = Env(tmp_path, postgres.new_database())
    try:
        env.server()
        second, watch = env.server(name="second"), Watch(env)
        env.worker(4, "--prefetch", "4")
        env.worker(4, "--prefetch", "4", server=second.url)
        ids = env.create(*[watch.spec()] * 30)
        with Connection(second.url, env.token) as connection:
            body = {"tasks": [watch.spec()] * 30}
            ids += connection.request("POST", "/api/v1/tasks", body).json()["ids"]
        env.wait_state(ids)
        for task in ids:
            watch.check(task)
            assert len(watch.starts(task)) == 1
        assert len({row["worker"] for row in env.items("/tasks", ids=ids)}) == 2
    finally:
        env.close()


def test_given_back_while_it_starts(env):
    """Workers come and go and change their slots while everything is prefetched: taken back, or started, never both."""
    env.server()
    watch, chance = Watch(env), random.Random(7)
    workers = [env.worker(2, "--prefetch", "6") for _ in range(3)]
    ids = env.create(*[watch.spec("sleep 0.02")] * 80)
    while any(state not in FINAL for state in env.api("GET", "/tasks/counts")["counts"]):
        row = chance.choice(workers).row
        env.api("PATCH", f"/workers/{row['id']}", {"concurrency": chance.randrange(4), "draining": chance.random() < 0.3})
        if chance.random() < 0.2:
            for row in env.items("/workers"):
                env.api("PATCH", f"/workers/{row['id']}", {"concurrency": 2, "draining": False})
            time.sleep(0.05)
    env.wait_state(ids)
    for task in ids:
        watch.check(task)
        assert len(watch.starts(task)) == 1


# --- a worker that nobody hears -----------------------------------------------------------------------------------------------

QUICKER = {"protocol": {"OFFLINE_SECONDS": 4.0, "START_LEASE_SECONDS": 2.0, "POLL_SECONDS": 1.0}}


@pytest.mark.slow
def test_a_worker_cut_off_does_not_start_what_was_given_to_another(env):
    """It holds a prefetched task; when its slot gets free it has not heard of the server for too long to start it."""
    env.program = changed_program(env.directory / "quicker", QUICKER)
    env.server()
    watch, relay = Watch(env), env.relay()
    cut_off = env.worker(1, "--prefetch", "1", server=relay.url)
    go = env.directory / "go"
    first, second = env.create(*[watch.spec(f"while [ ! -e {go}{n} ]; do sleep 0.05; done") for n in (1, 2)])
    env.wait_state(first, "running")
    env.wait_state(second, "accepted")
    relay.silent = {"up", "down"}
    env.worker(1)
    env.until(lambda: len(watch.starts(second)) == 1, what="the other worker has it")
    Path(f"{go}1").touch()
    end = cut_off.directory / "executions" / str(env.executions(first)[0]["id"]) / "end.json"
    env.until(end.exists, what="the slot is free")
    time.sleep(1.5)  # it would start at once
    watch.check(second)
    relay.silent = set()
    env.wait_state(first)
    Path(f"{go}2").touch()
    env.wait_state(second)
    watch.check(second)
    assert [row["state"] for row in env.executions(second)] == ["lost", "succeeded"] and len(watch.starts(second)) == 1
    assert len(env.executions(first)) == 1, "what ran went on, and counts"


# --- a soak ------------------------------------------------------------------------------------------------------------------

SOAK_SECONDS = 9.0


class Nemesis:
    """Breaks things and mends them, by chance."""

    def __init__(self, env: Env, seed: int, kills_keepers: bool):
        self.env, self.chance = env, random.Random(seed)
        self.server = env.server()
        self.relays = [env.relay() for _ in range(2)]
        self.workers = [env.worker(3, "--prefetch", "2", server=relay.url) for relay in self.relays]
        self.workers.append(env.worker(3, "--prefetch", "2"))
        self.deeds = [self.kill_server, self.pause_server, self.kill_worker, self.restart_worker, self.pause_worker, self.upgrade]
        self.deeds += [self.silence, self.cut, self.half_close, self.refuse, self.slow_down]
        self.deeds += [self.kill_keeper] * kills_keepers

    def strike(self) -> str:
        """One of its deeds; its name."""
        deed = self.chance.choice(self.deeds)
        deed()
        return deed.__name__

    def _a_while(self) -> None:
        time.sleep(self.chance.uniform(0.05, 0.8))

    def kill_server(self) -> None:
        self.server.kill9()
        self._a_while()
        self.server.start()

    def pause_server(self) -> None:
        self.server.pause()
        self._a_while()
        self.server.resume()

    def kill_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        worker.kill9()
        self._a_while()
        worker.start()

    def restart_worker(self) -> None:
        self.chance.choice(self.workers).restart()

    def upgrade(self) -> None:
        """Server and worker go on from another copy of the program, or from the first one again."""
        copy = copied_program(self.env.directory / "copy")
        for process in (self.server, self.chance.choice(self.workers)):
            process.program = copy if process.program == PROGRAM else PROGRAM
            process.restart()

    def pause_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        worker.pause()
        self._a_while()
        worker.resume()

    def kill_keeper(self) -> None:
        name = self.chance.choice(self.workers).name
        for pid, line in self.env.leftovers().items():
            words = line.split()
            if "keeper" in words and words[-1].endswith(f"/{name}"):
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    os.kill(pid, signal.SIGKILL)

    def silence(self) -> None:
        relay = self.chance.choice(self.relays)
        relay.silent = set(self.chance.choice(["u", "d", "ud"]).replace("u", "up ").replace("d", "down ").split())
        self._a_while()
        relay.silent = set()

    def cut(self) -> None:
        self.chance.choice(self.relays).cut()

    def half_close(self) -> None:
        self.chance.choice(self.relays).half_close()

    def refuse(self) -> None:
        relay = self.chance.choice(self.relays)
        relay.refusing = True
        relay.cut()
        self._a_while()
        relay.refusing = False

    def slow_down(self) -> None:
        relay = self.chance.choice(self.relays)
        relay.delay = 0.1
        self._a_while()
        relay.delay = 0.0


class Clients(threading.Thread):
    """Submits tasks under request ids, and suspends, resumes, cancels and stops some of them, until told to stop."""

    def __init__(self, env: Env, watch: Watch, seed: int):
        super().__init__(daemon=True)
        self.env, self.watch, self.chance = env, watch, random.Random(seed)
        self.tasks: list[int] = []
        self.troubles: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        with Connection(self.env.url, self.env.token, timeout=3.0) as connection:
            while not self.stopping.wait(0.1):
                seconds = self.chance.choice((0, 0.1, 0.3, 1.0))
                specs = [self.watch.spec(f"sleep {seconds}", name=f"n{number}.{i}") for i in range(3)]
                specs[0]["command"] += "(setsid sleep 5 &)\n" if self.chance.random() < 0.2 else ""
                specs[1] |= {"retry": 2, "command": specs[1]["command"] + "exit 3\n"} if self.chance.random() < 0.2 else {}
                self.tasks += self._insist(connection, "/tasks", {"tasks": specs}, f"k{number}")["ids"]
                number += 1
                if self.chance.random() < 0.5:
                    self._meddle(connection, f"m{number}")

    def _meddle(self, connection: Connection, key: str) -> None:
        body = {"ids": self.chance.sample(self.tasks[-20:], 2)}
        action = self.chance.choice(("cancel", "suspend", "resume", "term", "kill"))
        if action == "cancel":
            self._insist(connection, "/tasks/cancel", body, key)
        else:
            self._insist(connection, "/tasks/signal", {**body, "action": action}, key)

    def _insist(self, connection: Connection, path: str, body: dict, key: str) -> dict:
        while True:
            with contextlib.suppress(ScitqError, OSError):  # the server is away
                answer = connection.request("POST", f"/api/v1{path}", body, headers={"Idempotency-Key": key})
                if answer.status < 300:
                    return answer.json()
                if answer.status != 503:
                    self.troubles.append(f"{path}: {answer.status} {answer.body[:200]!r}")
            time.sleep(0.05)

    def end(self) -> None:
        self.stopping.set()
        self.join(60)
        assert not self.is_alive() and not self.troubles, self.troubles


@pytest.mark.slow(seconds=17)
@pytest.mark.parametrize("kills_keepers", [False, True])
def test_soak(tmp_path, request, kills_keepers):
    """On SQLite no keeper is killed, so nothing may be lost at all; on PostgreSQL keepers are killed too."""
    env = Env(tmp_path, request.getfixturevalue("postgres").new_database() if kills_keepers else None)
    try:
        nemesis, watch = Nemesis(env, seed=70 + kills_keepers, kills_keepers=kills_keepers), Watch(env)
        clients = Clients(env, watch, seed=7)
        clients.start()
        end, deeds = time.monotonic() + SOAK_SECONDS, Counter()
        while time.monotonic() < end:
            deeds[nemesis.strike()] += 1
            time.sleep(nemesis.chance.uniform(0.0, 0.2))
        clients.end()
        settle(env, clients.tasks)
        rows = [row for task in clients.tasks for row in env.executions(task)]
        assert len(clients.tasks) > 30 and sum(row["state"] == "succeeded" for row in rows) > 10, deeds
        for task in clients.tasks:
            watch.check(task)
        assert len(env.items("/tasks")) == len(clients.tasks) == len(set(clients.tasks))
        if not kills_keepers:
            lost = [row for row in rows if row["state"] == "lost" and row["started_at"]]
            assert not lost, lost
    finally:
        env.close()


def settle(env: Env, tasks: list[int]) -> None:
    """All that is suspended goes on; then every task ends."""

    def all_ended() -> bool:
        left = [row for row in env.items("/tasks") if row["state"] not in FINAL]
        suspended = [row["id"] for row in left if row["suspended"]]
        if suspended:
            env.api("POST", "/tasks/signal", {"ids": suspended, "action": "resume"})
        return not left

    env.until(all_ended, what="every task has ended")
