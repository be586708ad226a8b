"""Promise 17: no byte of output twice or missing after retries: it is appended at its offset."""

from __future__ import annotations

import random
import threading
import time
from copy import copy

import pytest
from env import Env
from hands import Hands
from scitq.protocol import Report
from scitq.transport import Connection

LINES = 400  # a command writes so many lines of 200 bytes to each stream, in a few seconds
LINE = "%06d " + "x" * 192 + "\n"


def writer(seconds: float) -> str:
    """A command that writes numbered lines to both streams, little by little."""
    loop = f"for i in range({LINES}): [(f.write('{LINE[:-1]}' % i + chr(10)), f.flush()) for f in (sys.stdout, sys.stderr)]"
    return f'python3 -c "import sys, time\n{loop}; time.sleep({seconds / LINES})"'


EXPECTED = "".join(LINE % number for number in range(LINES)).encode()


def check(env: Env, task: int) -> None:
    """Each byte is there once."""
    [execution] = env.executions(task)
    for stream in ("stdout", "stderr"):
        found = env.stdout(task, stream)
        assert found == EXPECTED, f"{stream}: {len(found)} bytes of {len(EXPECTED)}, first wrong at {first_difference(found)}"
        assert execution[f"{stream}_size"] == len(EXPECTED)


def first_difference(found: bytes) -> int:
    pairs = zip(found, EXPECTED)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(found), len(EXPECTED)))


@pytest.mark.slow
def test_whatever_happens_to_the_requests(env_on_each):
    """Lines cut, answers lost, requests repeated late, worker and server killed, while two commands write."""
    env = env_on_each
    server = env.server()
    relay = env.relay()
    relay.recording = True
    worker = env.worker(2, server=relay.url)
    tasks = env.create(writer(3.0), writer(2.0))
    env.wait_state(tasks, "running")
    chance = random.Random(17)

    def lose_answers() -> None:
        relay.silent = {"down"}
        time.sleep(0.3)  # what is sent meanwhile is not answered
        relay.cut()
        relay.silent = set()

    def kill(process) -> None:
        process.kill9()
        process.start()

    troubles = [relay.cut, lose_answers, lambda: relay.replay(4), lambda: kill(worker), lambda: kill(server)]
    for trouble in [*troubles, relay.cut, lose_answers]:
        time.sleep(chance.uniform(0.05, 0.2))  # any moment will do
        trouble()
    env.wait_state(tasks)
    for task in tasks:
        check(env, task)
    relay.replay(12)  # and very late
    for task in tasks:
        check(env, task)
        assert env.state(task) == "succeeded"


def started(env: Env, name: str = "h") -> tuple[Hands, int, int]:
    """A worker by hand, a task that runs on it, its execution."""
    hands = Hands(env, name, name)
    [task] = env.create({"command": "true", "batch": name})
    env.until(lambda: hands.sync() and hands.held, what="the worker is given it")
    [execution] = hands.held
    hands.sync(Report(execution, "running", started_ago=1.0))
    return hands, task, execution


def test_pieces_in_any_order_repeated_and_overlapping(env_on_each):
    """What leaves a hole is refused and asked for; what is there is passed over; several in one request are applied in order."""
    env = env_on_each
    env.server()
    hands, task, execution = started(env)
    chance = random.Random(18)
    size = 0
    for _ in range(150):
        pieces = []
        for _ in range(chance.randint(1, 4)):
            start = max(0, size + chance.randint(-800, 200))
            data = EXPECTED[start : start + chance.randint(0, 900)]
            pieces.append((execution, chance.choice(["stdout", "stdout", "stderr"]), start, data))
        told = hands.sync(Report(execution, "running"), output=pieces)
        row = env.executions(task)[-1]
        size = row["stdout_size"]
        for _, stream, start, data in pieces:
            if start + len(data) > row[f"{stream}_size"]:
                assert told.offsets[str(execution)][stream] == row[f"{stream}_size"]
    assert size > 10_000
    for stream in ("stdout", "stderr"):
        size = env.executions(task)[-1][f"{stream}_size"]
        assert env.stdout(task, stream) == EXPECTED[:size]


def test_the_same_bytes_from_several_connections_at_once(env_on_each):
    env = env_on_each
    env.server()
    hands, task, execution = started(env)
    copies = [copy(hands) for _ in range(4)]

    def send(one: Hands, index: int) -> None:
        one.sequence, one.connection = 100 * (index + 1), Connection(env.url, hands.row["token"])
        with one.connection:
            for start in range(0, 20_000, 1000):
                data = EXPECTED[start : start + 1000 + 10 * index]
                one.sync(Report(execution, "running"), output=[(execution, "stdout", start, data)])

    threads = [threading.Thread(target=send, args=(one, index)) for index, one in enumerate(copies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = env.stdout(task)
    assert found == EXPECTED[: len(found)] and len(found) >= 20_000


def test_an_end_waits_for_its_last_bytes_and_nothing_follows_it(env_on_each):
    env = env_on_each
    env.server()
    hands, task, execution = started(env)
    hands.sync(Report(execution, "running"), output=[(execution, "stdout", 0, EXPECTED[:5000])])
    end = Report(execution, "succeeded", exit_code=0, ended_ago=0.1, stdout_size=8000, stderr_size=10)
    told = hands.sync(end, output=[(execution, "stderr", 0, EXPECTED[:10])])
    assert execution not in told.acknowledged and told.offsets[str(execution)] == {"stdout": 5000, "stderr": 10}
    assert env.state(task) == "running"
    told = hands.sync(end, output=[(execution, "stdout", 5000, EXPECTED[5000:8000])])
    assert execution in told.acknowledged and env.state(task) == "succeeded"
    hands.sync(Report(execution, "running"), output=[(execution, "stdout", 8000, b"late")])
    hands.sync(end, output=[(execution, "stdout", 8000, b"late"), (execution, "stderr", 0, b"other")])
    assert env.stdout(task) == EXPECTED[:8000] and env.stdout(task, "stderr") == EXPECTED[:10]


def test_each_attempt_has_its_own_bytes(env_on_each):
    env = env_on_each
    env.server()
    env.worker(1)
    [task] = env.create({"command": "echo $SCITQ_EXECUTION_ID; exit 1", "shell": "sh", "retry": 2})
    env.wait_state(task, "failed")
    rows = env.executions(task)
    assert len(rows) == 3
    for row in rows:
        assert env.answer("GET", f"/executions/{row['id']}/stdout").body == b"%d\n" % row["id"]


def test_another_workers_bytes_are_not_taken(env_on_each):
    env = env_on_each
    env.server()
    hands, task, execution = started(env)
    hands.sync(Report(execution, "running"), output=[(execution, "stdout", 0, b"mine")])
    told = Hands(env, "thief", "h").sync(Report(execution, "running"), output=[(execution, "stdout", 4, b"not mine")])
    assert told.fenced == [execution] and env.stdout(task) == b"mine"
