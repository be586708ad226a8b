"""Promise 19: what a task writes is visible within 2 s while it runs, and at once at its end."""

from __future__ import annotations

import statistics
import time

import pytest
from env import Env

SECONDS = 2.0
CLOCK = "import sys, time\n"  # of this machine: the same for the command and for who looks


def ticks(count: int, pause: float, stream: str = "stdout") -> str:
    """A command that writes the time, again and again, and then goes on without a word."""
    line = f"print(time.monotonic(), file=sys.{stream}, flush=True)"
    return f'python3 -c "{CLOCK}for i in range({count}): {line}; time.sleep({pause})\ntime.sleep(100)"'


def delays(env: Env, task: int, count: int, stream: str = "stdout") -> list[float]:
    """How long each of the first `count` lines took from the command to a reader that waits for it."""
    [execution] = env.executions(task)
    found, offset, rest = [], 0, b""
    while len(found) < count:
        answer = env.answer("GET", f"/executions/{execution['id']}/{stream}", offset=offset, wait=5.0)
        now, offset = time.monotonic(), int(answer.headers["X-Scitq-Next"])
        assert answer.body, "nothing came for five seconds"
        *lines, rest = (rest + answer.body).split(b"\n")
        found += [now - float(line) for line in lines]
    return found


def kill(env: Env, *tasks: int) -> None:
    env.api("POST", "/tasks/signal", {"ids": list(tasks), "action": "kill"})
    env.wait_state(tasks, "failed")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_each_line_is_there_soon(lab, stream):
    [task] = lab.create(ticks(15, 0.2, stream))
    lab.wait_state(task, "running")
    found = delays(lab, task, 15, stream)
    assert max(found) < SECONDS and statistics.median(found) < 1.2, found
    kill(lab, task)


def test_one_line_without_end_and_then_silence(lab):
    """Nothing that is written waits for the end of a line, for more, or for the end of the command."""
    [task] = lab.create("printf 'no end of line'; sleep 100")
    lab.wait_state(task, "running")
    lab.until(lambda: lab.stdout(task) == b"no end of line", SECONDS)
    kill(lab, task)


def test_all_of_it_is_there_at_the_end_at_once(lab):
    """The end is told with the last bytes, not a look later."""
    took = []
    for _ in range(5):
        [task] = lab.create(f'python3 -c "{CLOCK}print(time.monotonic(), end=str())"')
        lab.wait_state(task)
        took.append(time.monotonic() - float(lab.stdout(task)))
    assert min(took) < 0.5 and max(took) < SECONDS, took


@pytest.mark.slow
def test_the_quiet_are_not_drowned_by_the_loud(env):
    """Beside tasks that write megabytes, and a stream of its own that does, on a line of a few megabytes a second."""
    env.server()
    relay = env.relay()
    relay.rate, relay.delay = 4e6, 0.02
    env.worker(3, server=relay.url)
    loud = env.create("yes | head -c 2500000; sleep 100", "yes | head -c 2500000 >&2; sleep 100")
    [quiet] = env.create(ticks(10, 0.2).replace(CLOCK, f"{CLOCK}print('x' * 2500000, file=sys.stderr)\n"))
    env.wait_state([*loud, quiet], "running")
    assert max(delays(env, quiet, 10)) < SECONDS
    kill(env, *loud, quiet)


@pytest.mark.slow
def test_it_is_there_soon_again_after_an_outage(env):
    """A pause of the worker after the line is back, not at the next end of a task."""
    env.server()
    relay = env.relay()
    env.worker(1, server=relay.url)
    [task] = env.create(ticks(1000, 0.1))
    env.wait_state(task, "running")
    relay.refusing = True
    relay.cut()
    time.sleep(1.0)  # this long the outage is
    relay.refusing = False
    back = time.monotonic()
    env.until(lambda: float((env.stdout(task).split() or [0])[-1]) > back, SECONDS + 1.6, "new lines")
    kill(env, task)
