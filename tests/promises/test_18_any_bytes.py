"""Promise 18: output may hold any bytes: NUL, invalid UTF-8, escapes, a line of 100 MB; memory stays bounded."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from env import PROGRAM, Env

EVERY_BYTE = bytes(range(256)) * 4
HOSTILE = [
    EVERY_BYTE,
    b"\0",
    b"\0" * 5000,
    b"\xff\xfe\xed\xa0\x80\xc0\xaf" * 300,  # not UTF-8: halves of characters, overlong ones
    b"a\r\nb\rc\n\r\n",
    b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\x9b31m\x08\x7f",  # escapes that clear, rename and color a terminal
    b'{"error": {"code": "x"}}\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',  # as if it were an answer
    "\u202e\U0001f4a9\ufeff\u2028é".encode(),
    b"\n[scitq: 12 bytes of this output were not kept]\n",
    random.Random(18).randbytes(100_000),
]


def writes(env: Env, data: bytes, name: str) -> str:
    """A command that writes these bytes to both of its streams."""
    path = env.directory / name
    path.write_bytes(data)
    return f"cat {path}; cat {path} >&2; exit 1"


def raw(env: Env, *words: object, code: int = 0) -> subprocess.CompletedProcess:
    """A command of the program, its output as bytes."""
    return raw_of([*PROGRAM, *map(str, words)], env, code)


def raw_of(command: list[str], env: Env, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(command, env=env.variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == code and b"Traceback" not in done.stderr
    return done


def check_everywhere(env: Env, task: int, data: bytes) -> None:
    """The bytes are exact wherever bytes are shown, and all else that tells of the task is text that can be read."""
    assert env.stdout(task) == env.stdout(task, "stderr") == data
    assert raw(env, "manage", "task", "output", "--output", task).stdout == data
    assert raw(env, "manage", "task", "output", "--error", task).stdout == data
    both = raw(env, "manage", "task", "output", task)
    assert (both.stdout, both.stderr) == (data, data)
    for path in (f"/tasks/{task}", f"/tasks/{task}/explain", "/tasks", f"/executions?task={task}", "/batches/Default/report"):
        json.loads(env.answer("GET", path).body.decode("utf-8"))


def test_every_kind_of_bytes_on_both_databases(served):
    env = served
    env.worker(4, name="bytes")
    tasks = env.create(*[writes(env, data, f"data{number}") for number, data in enumerate(HOSTILE)])
    env.wait_state(tasks, "failed")
    for task, data in zip(tasks, HOSTILE):
        assert env.stdout(task) == env.stdout(task, "stderr") == data
    for number in (0, 3, 5, 9):
        check_everywhere(env, tasks[number], HOSTILE[number])


def test_lists_show_no_escape(lab):
    """What a task wrote last is in lists: never as bytes that a terminal obeys."""
    [task] = lab.create({"command": writes(lab, HOSTILE[5], "escapes"), "shell": "sh", "name": "escapes"})
    lab.wait_state(task, "failed")
    for words in (["task", "list", "-i", task], ["task", "get", task], ["task", "explain", task], ["batch", "report", "Default"]):
        shown = raw(lab, "manage", *words).stdout
        assert not set(shown) & (set(range(32)) - {9, 10} | {0x7F}), shown
        assert "\x9b" not in shown.decode()


def test_what_was_written_can_be_searched(lab):
    [task] = lab.create("printf 'before\\000needle\\377after'; exit 1")
    lab.wait_state(task, "failed")
    found = lab.items("/tasks", grep="needle")
    assert [row["id"] for row in found] == [task]


def test_who_follows_gets_the_bytes_too(lab):
    path = lab.directory / "followed"
    path.write_bytes(EVERY_BYTE)
    done = raw(lab, "launch", "--wait", "--shell", f"cat {path}; sleep 0.3; cat {path} >&2; exit 7", code=7)
    assert done.stdout == EVERY_BYTE and done.stderr.startswith(EVERY_BYTE)


@pytest.mark.slow
def test_a_line_of_100_mb_costs_little_memory(env):
    """One line without end, and as many NUL bytes; server and worker stay small, and so does who reads it."""
    server = env.server()
    worker = env.worker(1)
    size = 100 * 2**20
    [task] = env.create(f"head -c {size} /dev/zero | tr '\\000' x; head -c {size} /dev/zero >&2")
    env.wait_state(task)
    [execution] = env.executions(task)
    assert execution["stdout_size"] == execution["stderr_size"] == size
    assert peak(worker.pid) < 50e6 and peak(server.pid) + peak(worker.pid) < 150e6
    measured = raw_of([PROGRAM[0], "-c", MEASURE, *PROGRAM, "manage", "task", "output", "--output", str(task)], env)
    head, _, tail = measured.stdout.partition(b"\n[scitq: ")
    assert set(head) == {ord("x")} and set(tail.partition(b"]\n")[2]) == {ord("x")}
    assert int(measured.stderr) < 100_000, "kilobytes of who reads it"


MEASURE = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"""


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
