"""Promise 10: a reboot or a reused pid is not mistaken for a running task."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from env import Env, WorkerProcess
from scitq.keeper import processes

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def keeper_of(env: Env) -> int:
    (pid,) = [pid for pid, line in env.leftovers().items() if "keeper" in line.split()]
    return pid


def directory(env: Env, worker: WorkerProcess, task: int) -> Path:
    return worker.directory / "executions" / str(env.executions(task)[-1]["id"])


def kill_all(env: Env, worker: WorkerProcess, task: int) -> int:
    """Everything of the worker is dead at once, as after a power cut; the pid that the command had."""
    pid = env.executions(task)[-1]["pid"]
    worker.kill9()
    os.kill(keeper_of(env), signal.SIGKILL)
    for member in processes.descendants(processes.processes(), [pid]):
        os.kill(member, signal.SIGKILL)
    env.until(lambda: processes.process(pid) is None, what="it is dead")
    return pid


def running(env: Env, worker: WorkerProcess, command: str = "echo first; sleep 1010") -> int:
    (task,) = env.create(command)
    env.until(lambda: env.executions(task) and env.stdout(task) == b"first\n")
    return task


@contextlib.contextmanager
def stranger(pid: int | None = None) -> Iterator[subprocess.Popen]:
    """A process of nobody of ours; with the pid that is wanted, if it is free."""
    for _ in range(1000):
        if pid is not None:
            LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "1011"], start_new_session=True)
        if pid in (None, process.pid):
            break
        process.kill()
        process.wait()
    else:
        pytest.fail(f"another process has the pid {pid}")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def runs_anew(env: Env, worker: WorkerProcess, task: int, other: subprocess.Popen, reason: str) -> None:
    """The first execution is lost, the second runs, can be ended, and the stranger never felt anything."""
    worker.start()
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running", what="it runs again")
    lost, runs = env.executions(task)
    assert lost["state"] == "lost" and reason in lost["reason"]
    assert runs["pid"] not in (None, other.pid, lost["pid"])
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")
    assert other.poll() is None
    assert processes.process(other.pid).state != "T"


def test_a_pid_that_is_used_again(env):
    """By a real process, that has the very number."""
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("choosing the pid of a process wants root")
    env.server()
    worker = env.worker(1)
    task = running(env, worker)
    pid = kill_all(env, worker, task)
    with stranger(pid) as other:
        assert other.pid == json.loads((directory(env, worker, task) / "started.json").read_text())["pid"]
        runs_anew(env, worker, task, other, "was killed")


def test_after_a_reboot(env):
    """Another start of the machine: a process with the pid and even the start time of before is a stranger."""
    env.server()
    worker = env.worker(1)
    task = running(env, worker)
    kill_all(env, worker, task)
    with stranger() as other:
        path = directory(env, worker, task) / "started.json"
        record = json.loads(path.read_text())
        record |= {"boot": "before", "pid": other.pid, "start": processes.process(other.pid).start}
        path.write_text(json.dumps(record))
        runs_anew(env, worker, task, other, "the machine was restarted")


@pytest.mark.parametrize("torn", ["empty", "half", "other", "zeros"])
def test_records_that_the_power_cut_tore(env, torn):
    """In doubt it was started, and its end is not known: never taken for running, never for succeeded."""
    env.server()
    worker = env.worker(1)
    task = running(env, worker)
    kill_all(env, worker, task)
    here = directory(env, worker, task)
    started = (here / "started.json").read_bytes()
    content = {"empty": b"", "half": started[: len(started) // 3], "other": b"[1]", "zeros": bytes(512)}[torn]
    (here / "started.json").write_bytes(content)
    (here / "end.json").write_bytes(b'{"id": %d, "kind": "exited", "exit_code": 0' % env.executions(task)[-1]["id"])
    with stranger() as other:
        runs_anew(env, worker, task, other, "")


def test_an_end_of_before_the_reboot_counts(env):
    """The command had ended, the worker had not told: that needs no process any more."""
    env.server()
    worker = env.worker(1)
    task = running(env, worker, "echo first; while [ ! -e go ]; do sleep 0.02; done; echo last; exit 6")
    here = directory(env, worker, task)
    worker.kill9()
    (here / "temp" / "go").touch()
    env.until((here / "end.json").exists)
    os.kill(keeper_of(env), signal.SIGKILL)
    for name in ("started.json", "end.json"):
        record = json.loads((here / name).read_text())
        (here / name).write_text(json.dumps({**record, "boot": "before"}))
    with stranger() as other:
        record = json.loads((here / "started.json").read_text())
        (here / "started.json").write_text(json.dumps({**record, "pid": other.pid}))
        worker.start()
        env.wait_state(task, "failed")
        (execution,) = env.executions(task)
        assert execution["exit_code"] == 6 and env.stdout(task) == b"first\nlast\n"
        assert other.poll() is None


def test_not_yet_started_before_the_reboot(env):
    """It had been accepted only: it starts now, as the same execution."""
    env.server()
    worker = env.worker(1, "--prefetch", "1")
    task = running(env, worker)
    (waits,) = env.create("echo second")
    env.wait_state(waits, "accepted")
    kill_all(env, worker, task)
    worker.start()
    env.until(lambda: len(env.executions(task)) == 2 or env.state(waits) == "succeeded")
    env.wait_state(waits)
    assert len(env.executions(waits)) == 1 and env.stdout(waits) == b"second\n"
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")
