"""Promise 11: a killed or out-of-memory task is reported as that, never as succeeded; no orphan stays."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from env import Env
from scitq.keeper import processes

_names = itertools.count(11001)


def sleeper() -> str:
    """The argument of a sleep that nobody else has."""
    return f"{next(_names)}.{os.getpid()}"


def living(word: str) -> list[int]:
    """The processes that have this word in their command line, wherever they went and whatever they forgot."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def keeper_of(env: Env) -> int:
    (pid,) = [pid for pid, line in env.leftovers().items() if "keeper" in line.split()]
    return pid


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A server and a worker of six slots, for the tests that leave them alone."""
    made = Env(tmp_path_factory.mktemp("shop"))
    made.server()
    made.worker(6)
    yield made
    made.close()


# --- how it ended ---------------------------------------------------------------------------------------------------------------

ENDS = [
    ("kill -9 $$", None, 9, "SIGKILL"),
    ("kill -15 $$", None, 15, "SIGTERM"),
    ("kill -11 $$", None, 11, "SIGSEGV"),
    ("sh -c 'kill -9 $$'; exit $?", 137, None, None),
    ("kill -9 $$ & wait; sleep 5", None, 9, "SIGKILL"),
    ("trap '' TERM; kill -15 $$; exit 3", 3, None, None),
    ("exit 255", 255, None, None),
    ("kill -9 0", None, 9, "SIGKILL"),
    ("ulimit -v 100000; exec {python} -c 'x = bytearray(10**10)'", 1, None, None),
]


def test_every_end_is_told_as_it_was(shop):
    ids = shop.create(*[command.format(python=sys.executable) for command, *_ in ENDS])
    shop.wait_state(ids, "failed")
    for task, (command, exit_code, number, word) in zip(ids, ENDS):
        (execution,) = shop.executions(task)
        assert (execution["state"], execution["exit_code"], execution["signal"]) == ("failed", exit_code, number), command
        assert word is None or word in execution["reason"]


def test_killed_from_outside(shop):
    """By a person of that machine, with or without its children."""
    word = sleeper()
    (task,) = shop.create(f"sleep {word}; echo not reached")
    shop.wait_state(task, "running")
    shop.until(lambda: living(word))
    os.kill(shop.executions(task)[0]["pid"], signal.SIGKILL)
    shop.wait_state(task, "failed")
    assert shop.executions(task)[0]["signal"] == 9 and shop.stdout(task) == b""
    shop.until(lambda: not living(word), what="its child is ended too")


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A control group whose processes share so much memory; the test is skipped where none can be made."""
    root = Path("/sys/fs/cgroup")
    first = not (root / "memory").is_dir()
    group = (root if first else root / "memory") / f"scitq-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if first else "memory.limit_in_bytes")).write_text(str(limit_bytes))
    except OSError as error:
        with contextlib.suppress(OSError):  # it could not even be made
            group.rmdir()
        pytest.skip(f"no control group for memory here: {error}")
    try:
        yield group
    finally:
        group.rmdir()


@pytest.mark.parametrize("who", ["the command itself", "a child of it"])
def test_out_of_memory(shop, who):
    eats = f"{sys.executable} -c 'x = bytearray(10**8); [x.__setitem__(i, 1) for i in range(0, 10**8, 4096)]'"
    with memory_group(40 * 2**20) as group:
        enters = f"echo $$ > {group}/cgroup.procs; "
        (task,) = shop.create(enters + (f"exec {eats}" if who == "the command itself" else f"{eats}; exit $?"))
        shop.wait_state(task, "failed")
        shop.until(lambda: not (group / "cgroup.procs").read_text())
    (execution,) = shop.executions(task)
    assert (execution["signal"], execution["exit_code"]) == ((9, None) if who == "the command itself" else (None, 137))
    assert "SIGKILL" in execution["reason"] and "memory" in execution["reason"]


def test_one_that_kills_who_looks_after_it(env):
    """Its end is not known, so it did not succeed, whatever it said at its end."""
    env.server()
    env.worker(1)
    stop = env.directory / "stop"
    (task,) = env.create(f"if [ -e {stop} ]; then exit 5; fi; kill -9 $PPID; exit 0")
    env.until(lambda: len(env.executions(task)) >= 3)
    stop.touch()
    env.wait_state(task, "failed")
    *lost, last = env.executions(task)
    assert {row["state"] for row in lost} == {"lost"} and all("killed" in row["reason"] for row in lost)
    assert last["state"] == "failed"


# --- what it leaves ----------------------------------------------------------------------------------------------------------

LEAVES = [
    "sleep {word} &",
    "nohup sleep {word} &",
    "setsid sleep {word} &",
    "(setsid sh -c 'sleep {word} & exec sleep {word}' &)",
    "(env -i setsid sleep {word} &)",
    "(trap '' TERM HUP INT; setsid sleep {word} &)",
    "(cd /; env -i setsid sh -c 'exec sleep {word} <&- >&- 2>&-' &)",
    "{python} -c 'import os\nfor i in range(3):\n if os.fork(): os._exit(0)\n os.setsid()\n"
    'os.execvp("sleep", ["sleep", "{word}"])\'',
    "sh -c 'kill -STOP $$' {word} &",
]


@pytest.mark.parametrize("end", ["exit 0", "exit 3", "kill -9 $$"])
def test_no_orphan_stays(shop, end):
    """However the command ends and however its descendants hide: in other sessions, without environment, stopped, deaf."""
    words = [sleeper() for _ in LEAVES]
    commands = [leave.format(word=word, python=sys.executable) for leave, word in zip(LEAVES, words)]
    waits = [f"\nuntil [ -e {shop.directory}/{word} ]; do sleep 0.02; done; {end}" for word in words]
    ids = shop.create(*[command + wait for command, wait in zip(commands, waits)])
    for word in words:  # six at a time
        shop.until(lambda word=word: living(word), what=f"{word} runs")
        (shop.directory / word).touch()
    shop.wait_state(ids, "succeeded" if end == "exit 0" else "failed")
    shop.until(lambda: not any(living(word) for word in words), what="no orphan is left")


def test_orphans_of_a_killed_keeper_are_ended(env):
    """Before the task is given away: with the keeper nobody is their parent any more."""
    env.server()
    worker = env.worker(1)
    word = sleeper()
    (task,) = env.create(f"setsid sleep {word} & (setsid sh -c 'sleep {word}; true' &); sleep {word}")
    env.until(lambda: len(living(word)) >= 3)
    before = set(living(word))
    os.kill(keeper_of(env), signal.SIGKILL)
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running")
    assert not before & set(living(word))
    env.api("DELETE", f"/tasks/{task}")
    env.until(lambda: not living(word), what="a deleted task leaves nothing either")
    assert worker.alive


def test_what_the_worker_is_not_told_of_is_ended(env):
    """The worker was away while its task was deleted: when it is back, the command goes."""
    env.server()
    worker = env.worker(1)
    word = sleeper()
    (task,) = env.create(f"(env -i setsid sleep {word} &); sleep {word}")
    env.until(lambda: len(living(word)) == 2)
    worker.kill9()
    env.api("DELETE", f"/tasks/{task}")
    assert len(living(word)) == 2
    worker.start()
    env.until(lambda: not living(word), what="its command is ended")
    assert processes.process(worker.pid) is not None
