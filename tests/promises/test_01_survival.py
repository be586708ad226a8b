"""Promise 1: an acknowledged submission survives kill -9 of the server and power loss."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from disks import powered
from env import Env
from postgres import Postgres, programs
from scitq.keeper import processes
from strikes import Submitters, ready_or_dead, start_struck


def test_kill9_at_any_moment(env_on_each):
    env, random_moment = env_on_each, random.Random(1)
    server, clients = env.server(), Submitters(env_on_each)
    with clients.going():
        for _ in range(4):
            time.sleep(random_moment.uniform(0.05, 0.4))
            server.kill9()
            server.start()
            clients.check(clients.snapshot())
    clients.check()
    assert len(clients.acknowledged) > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "calls, strikes", [("fsync,fdatasync", range(2, 8)), ("pwrite64", range(40, 90, 9)), ("sendto", range(2, 7))]
)
def test_killed_at_every_call(env, calls, strikes):
    """Before a commit is on disk, while it is written, and between the commit and the answer."""
    server, clients = env.server(), Submitters(env)
    reached = 0
    with clients.going():
        for when in strikes:
            before = clients.snapshot()
            server.kill9()
            start_struck(server, calls, when)
            if ready_or_dead(server):
                server.wait_exit()
                reached += 1
            server.start()
            clients.check(before)
    clients.check()
    assert reached >= 3, "the strikes came while the server started"


@pytest.mark.slow
def test_power_cut(env):
    """The disk as it is at the moment: what was not brought there by fsync is missing."""
    with powered(env.directory / "disk") as disk:
        server, clients = env.server(data=disk.directory / "data"), Submitters(env)
        try:
            with clients.going():
                for seconds in (1.0, 0.3, 0.7):
                    time.sleep(seconds)
                    server.pause()
                    acknowledged = clients.snapshot()
                    disk.keep()
                    server.kill9()
                    disk.cut()
                    server.start()
                    clients.check(acknowledged)
            clients.check()
        finally:
            server.kill9()
    assert len(clients.acknowledged) > 50


@pytest.mark.slow
def test_the_database_server_is_killed(tmp_path):
    """All processes of PostgreSQL at once, with its usual durability; our server goes on when it is back."""
    if programs() is None:
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)("PostgreSQL is not installed")
    postgres = Postgres(options=("-c", "fsync=off"))  # nothing cuts the power here, and the disk is a slow one
    env = Env(tmp_path, postgres.new_database())
    try:
        env.server()
        clients = Submitters(env)
        with clients.going():
            for seconds in (0.5, 0.2, 0.4):
                time.sleep(seconds)
                acknowledged = clients.snapshot()
                processes.signal_processes(processes.descendants(processes.processes(), [postgres.process.pid]), signal.SIGKILL)
                postgres.process.wait()
                postgres.start()
                env.until(lambda: len(clients.acknowledged) > len(acknowledged) + 10, what="submissions go on")
                clients.check(acknowledged)
        clients.check()
    finally:
        with contextlib.closing(postgres):
            env.close()
