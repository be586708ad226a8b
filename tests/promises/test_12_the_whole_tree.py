"""Promise 12: stop and time-out reach the whole process tree, then SIGKILL after the grace."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from pathlib import Path

import pytest
from env import Env, stands_still
from strikes import changed_program

GRACE_SECONDS = 2.0
LATE_SECONDS = 20.0  # of a machine under load
_names = itertools.count(12001)

# Each says `up` when all of it runs; {word} is in the command line of each process that must end.
_WAITS = "while :; do sleep 0.05; done"
_LISTENS = f"trap \"sleep 0.3; echo bye; exit 0\" TERM; sleep {{word}} & echo up; {_WAITS}"
POLITE = {
    "a shell that tidies up": _LISTENS,
    "a child in another session": f"setsid sh -c '{_LISTENS}' & wait",
    "an orphan without environment": f"(env -i setsid sh -c '{_LISTENS}' &); {_WAITS}",
    "a program below a shell that does not wait for it": f"sh -c '{_LISTENS}'; echo the shell goes on",
    "one that was stopped": f"{_LISTENS.partition('while')[0]} kill -STOP $$; {_WAITS}",
}
DEAF = {
    "a shell": "trap '' TERM; sleep {word} & echo up; wait",
    "a child in another session": "setsid sh -c 'trap \"\" TERM; echo up; exec sleep {word}' & wait",
    "an orphan without environment": "(env -i setsid sh -c 'trap \"\" TERM; echo up; exec sleep {word}' &); sleep 99",
    "one that starts anew what ends": "trap '' TERM; echo up; while :; do sleep {word} & sleep 0.01; done",
    "a big family": "trap '' TERM; for i in 1 2 3 4 5 6; do (sleep {word} & (sleep {word} & wait) & wait) & done; echo up; wait",
    "stopped and deaf": "trap '' TERM; sleep {word} & echo up; kill -STOP $$",
    "a daemon": (
        "{python} -c 'import os,signal\nsignal.signal(15, signal.SIG_IGN)\nfor i in range(2):\n if os.fork(): os._exit(0)\n"
        " os.setsid()\n"
        'os.write(1, b"up\\n")\nos.execvp("sleep", ["sleep", "{word}"])\'; while :; do sleep 0.05; done'
    ),
}


def living(word: str) -> list[int]:
    """The processes that have this word in their command line, wherever they went and whatever they forgot."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def brisk(tmp_path_factory):
    """A server and a worker of twelve slots whose grace is short."""
    env = Env(tmp_path_factory.mktemp("brisk"))
    env.program = changed_program(env.directory / "copy", {"protocol": {"KILL_GRACE_SECONDS": GRACE_SECONDS}})
    env.server()
    env.worker(12)
    yield env
    env.close()


class Trees:
    """One task for each kind of tree, all of it running."""

    def __init__(self, env: Env, kinds: dict[str, str], batch: str = "Default", **more):
        self.env, self.kinds, self.batch = env, list(kinds), batch
        self.words = [f"{next(_names)}.{os.getpid()}" for _ in kinds]
        commands = [text.format(word=word, python=sys.executable) for text, word in zip(kinds.values(), self.words)]
        specs = [{"command": command, "shell": "sh", "batch": batch, **more} for command in commands]
        self.ids = env.create(*specs)
        for task, word in zip(self.ids, self.words):
            env.until(lambda task=task, word=word: living(word) and b"up\n" in self._output(task), what=f"task {task} is up")
        self.began = time.monotonic()

    def _output(self, task: int) -> bytes:
        return self.env.stdout(task) if self.env.executions(task) else b""

    def left(self) -> list[str]:
        """The kinds of which something lives."""
        return [kind for kind, word in zip(self.kinds, self.words) if living(word)]

    def seconds_until_gone(self, limit: float) -> float:
        """All is gone within so many seconds; how long it took from when they were up."""
        self.env.until(lambda: not self.left(), limit, "all processes are gone")
        return time.monotonic() - self.began

    def check(self, state: str, reason: str, attempts: int = 1) -> None:
        """Each task ended so, and was tried so often."""
        self.env.wait_state(self.ids, state)
        for task, kind in zip(self.ids, self.kinds):
            rows = self.env.executions(task)
            assert len(rows) == attempts and rows[-1]["state"] == state and reason in rows[-1]["reason"], (kind, rows)

    def check_heard(self) -> None:
        """Each process that listens has heard of it, and had the time to do something."""
        deaf = [kind for task, kind in zip(self.ids, self.kinds) if b"bye\n" not in self.env.stdout(task)]
        assert not deaf, f"{deaf} heard nothing"

    def order(self, verb: str) -> None:
        """Has them ended by a person."""
        self.began = time.monotonic()
        if verb in ("term", "kill"):
            done = self.env.api("POST", "/tasks/signal", {"ids": self.ids, "action": verb})
            assert done["ids"] == self.ids
        elif verb == "cancel":
            self.env.api("POST", "/tasks/cancel", {"ids": self.ids})
        elif verb == "delete":
            self.env.api("POST", "/tasks/delete", {"ids": self.ids})
        else:
            self.env.api("POST", f"/batches/{self.batch}/stop", {"running": verb.removeprefix("stop ")})


@pytest.fixture
def batch_of_its_own(brisk, batch):
    """The name of a batch for which the worker works during the test."""
    (worker,) = brisk.items("/workers")
    brisk.api("PATCH", f"/workers/{worker['id']}", {"batch": batch})
    yield batch
    brisk.api("PATCH", f"/workers/{worker['id']}", {"batch": "Default"})


@pytest.mark.parametrize("verb", ["term", "stop term"])
def test_asked_to_end(brisk, batch_of_its_own, verb):
    """Who listens ends at once, in its own way; who does not is killed after the grace, and not before."""
    polite, deaf = (Trees(brisk, kinds, batch_of_its_own, retry=2) for kinds in (POLITE, DEAF))
    polite.order(verb)
    deaf.order(verb)
    polite.seconds_until_gone(LATE_SECONDS)
    polite.check("failed", "ended on request (term)")
    polite.check_heard()
    if time.monotonic() < deaf.began + GRACE_SECONDS - 0.5:
        assert deaf.left() == list(DEAF), "killed before the grace was over"
    assert GRACE_SECONDS - 0.1 <= deaf.seconds_until_gone(GRACE_SECONDS + LATE_SECONDS)
    deaf.check("failed", "ended on request (term)")


@pytest.mark.parametrize("verb", ["kill", "cancel", "delete", "stop kill"])
def test_ended_at_once(brisk, batch_of_its_own, verb):
    """No grace, whoever listens or not."""
    trees = Trees(brisk, DEAF, batch_of_its_own, retry=2)
    trees.order(verb)
    trees.seconds_until_gone(LATE_SECONDS)
    if verb == "delete":
        assert brisk.items("/tasks", ids=trees.ids) == []
    else:
        trees.check("canceled" if verb == "cancel" else "failed", f"ended on request ({verb.removeprefix('stop ')})")


def test_killed_amid_the_grace(brisk):
    """The impatient need not wait for it."""
    trees = Trees(brisk, DEAF)
    trees.order("term")
    trees.order("kill")
    trees.seconds_until_gone(LATE_SECONDS)
    trees.check("failed", "ended on request (")  # some had ended by the first order


def test_suspended_and_then_asked_to_end(brisk):
    """All of a tree stands still; it hears SIGTERM all the same."""
    trees = Trees(brisk, {kind: POLITE[kind] for kind in list(POLITE)[:4]})
    brisk.api("POST", "/tasks/signal", {"ids": trees.ids, "action": "suspend"})
    brisk.until(lambda: all(brisk.task(task)["suspended"] for task in trees.ids))
    for word in trees.words:
        brisk.until(lambda word=word: all(map(stands_still, living(word))), what="all of it stands still")
    trees.order("term")
    trees.seconds_until_gone(LATE_SECONDS)
    trees.check("failed", "ended on request (term)")
    trees.check_heard()


@pytest.mark.slow
def test_time_is_up(brisk):
    """As if somebody had asked; a retry is used up by it."""
    polite, deaf = Trees(brisk, POLITE, run_timeout=2.0), Trees(brisk, DEAF, run_timeout=2.0, retry=1)
    brisk.wait_state(polite.ids + deaf.ids, "failed", seconds=2 * (2.0 + GRACE_SECONDS + LATE_SECONDS))
    assert polite.left() == deaf.left() == []
    polite.check("failed", "longer than its time limit of 2 s")
    polite.check_heard()
    deaf.check("failed", "longer than its time limit of 2 s", attempts=2)


@pytest.mark.slow
def test_time_is_up_while_nobody_is_there(brisk):
    """Neither worker nor server: the limit holds; the end is told when they are back."""
    server, worker = brisk.processes
    trees = Trees(brisk, DEAF, run_timeout=3.0)
    worker.kill9()
    server.kill9()
    trees.seconds_until_gone(3.0 + GRACE_SECONDS + LATE_SECONDS)
    server.start()
    worker.start()
    trees.check("failed", "longer than its time limit of 3 s")


def test_asked_to_end_while_the_worker_is_away(brisk):
    """It hears of it when it is back."""
    _, worker = brisk.processes
    trees = Trees(brisk, DEAF)
    worker.kill9()
    trees.order("kill")
    assert trees.left() == list(DEAF)
    worker.start()
    trees.seconds_until_gone(2 * LATE_SECONDS)
    trees.check("failed", "ended on request (kill)")
