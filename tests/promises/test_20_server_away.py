"""Promise 20: the server is away for 24 hours: workers finish what they have and deliver everything later, without a storm."""

from __future__ import annotations

import time

import pytest
from clock import Clock
from env import Env

DAY_SECONDS = 24 * 3600.0
FASTER = 8000  # a day in eleven seconds
LONGEST_PAUSE_SECONDS = 30.0  # between two tries of a worker, at least the half of it


def gated(env: Env, name: str, words: str) -> dict:
    """A task of true time that ends when its file is there."""
    command = f"echo begun; while [ ! -e {env.directory / name} ]; do sleep 0.05; done; {words}"
    return {"command": command, "shell": "sh", "env": {"LD_PRELOAD": ""}}


@pytest.mark.slow(seconds=16)
def test_a_day_without_the_server(env):
    """Time goes faster for the worker while the server is away; all its clocks agree that it was a day."""
    clock = Clock(env.directory, monotonic=True)
    server = env.server()
    relay = env.relay()
    worker = env.worker(3, "--prefetch", "2", server=relay.url, variables=clock.variables)
    good, bad, goes_on, *waiting = env.create(
        gated(env, "away", "seq 100000; echo bye >&2"),
        gated(env, "away", "seq 100000; exit 7"),
        gated(env, "back", "echo whole"),
        gated(env, "away", "echo late"),
        gated(env, "away", "echo later"),
    )
    env.wait_state([good, bad, goes_on], "running")
    env.wait_state(waiting, "accepted")
    server.kill9()
    (env.directory / "away").touch()
    clock.run(FASTER)
    time.sleep(DAY_SECONDS / FASTER)  # the day
    clock.run(100)
    before = relay.accepted
    time.sleep(3.0)  # five more minutes, in which its tries can be counted
    tries = relay.accepted - before
    assert worker.alive and 3 <= tries <= 2 + 1.2 * 300 / (LONGEST_PAUSE_SECONDS / 2), f"{tries} tries in five minutes"
    clock.run(20)  # a pause between tries is soon over
    server.start()
    env.until(lambda: "the server is back" in worker.output(), what="the worker finds the server")
    clock.run(1)
    env.wait_state([good, bad, *waiting], "succeeded", "failed")
    numbers = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert env.stdout(good) == env.stdout(bad) == b"begun\n" + numbers and env.stdout(good, "stderr") == b"bye\n"
    assert [env.state(task) for task in (good, bad, goes_on)] == ["succeeded", "failed", "running"]
    assert env.executions(bad)[0]["exit_code"] == 7
    (env.directory / "back").touch()
    env.wait_state([goes_on, *waiting])
    assert env.stdout(goes_on) == b"begun\nwhole\n"
    for task in (good, bad, goes_on):
        assert len(env.executions(task)) == 1, "what had started is never done again"
    assert worker.output().count("trying again") <= 2, worker.output()


@pytest.mark.slow
def test_many_come_back_without_a_storm(env):
    """Workers that were cut off deliver all they have in few requests, and idle ones come back one by one."""
    env.server()
    relay = env.relay()
    workers = [env.worker(2, server=relay.url) for _ in range(4)]
    tasks = env.create(*[gated(env, "go", "seq 20000") for _ in range(8)])
    env.wait_state(tasks, "running")
    relay.refusing = True
    relay.cut()
    before = relay.accepted
    (env.directory / "go").touch()
    time.sleep(4.0)  # away
    assert relay.accepted - before < len(workers) * 12, "tries while it is away"
    relay.refusing = False
    before = relay.requests
    env.wait_state(tasks)
    time.sleep(1.0)  # nothing comes after it
    assert relay.requests - before < len(workers) * 12, "requests to deliver all"
    expected = b"begun\n" + "".join(f"{n}\n" for n in range(1, 20001)).encode()
    assert all(len(env.executions(task)) == 1 and env.stdout(task) == expected for task in tasks)


def test_nothing_new_starts_on_a_worker_that_hears_nothing(env):
    """After its lease: the server may have given away what it holds."""
    clock = Clock(env.directory, monotonic=True)
    server = env.server()
    env.worker(1, "--prefetch", "1", variables=clock.variables)
    first, second = env.create(gated(env, "go", "true"), {"command": f"touch {env.directory}/started", "env": {"LD_PRELOAD": ""}})
    env.wait_state(first, "running")
    env.wait_state(second, "accepted")
    server.kill9()
    clock.set("+100")
    (env.directory / "go").touch()
    env.until(lambda: not any("sleep 0.05" in line for line in env.leftovers().values()), what="the first has ended")
    time.sleep(1.5)  # it would start at once, or at the next look
    assert not (env.directory / "started").exists()
    server.start()
    env.wait_state([first, second])
    assert (env.directory / "started").exists()
