"""Promise 4: an acknowledged end stays; a final state never changes; late or contradicting reports change nothing."""

from __future__ import annotations

import shutil

import pytest
from env import Env
from hands import Hands
from scitq.errors import Conflict, NotAuthenticated
from scitq.protocol import EXECUTION_STATES, Report

ENDS = {"succeeded": 0, "failed": 3, "canceled": None}
OUTPUT = b"out\x00\xff\n"


def record(env: Env, task: int) -> list:
    """All that is known of a task's end."""
    executions = env.executions(task)
    streams = [
        env.answer("GET", f"/executions/{row['id']}/{stream}").body for row in executions for stream in ("stdout", "stderr")
    ]
    return [env.task(task), executions, streams]


def given(env: Env, worker: Hands, batch: str, **more) -> tuple[int, int]:
    """A new task, given to the worker: its id, and that of its execution, which runs."""
    (task,) = env.create({"command": "x", "batch": batch, **more})
    env.until(lambda: worker.sync(*worker_says(worker)) and task in worker.held.values(), what="the worker is given it")
    (execution,) = [one for one, its_task in worker.held.items() if its_task == task]
    worker.sync(*worker_says(worker))
    return task, execution


def worker_says(worker: Hands) -> list[Report]:
    return [Report(execution, "running", started_ago=1.0) for execution in worker.held]


def contradicting(execution: int, state: str) -> Report:
    """A report that says something else of everything."""
    return Report(
        execution, state, suspended=state == "running", pid=4711, exit_code=9, signal=9, reason="not so", started_ago=1000.0,
        ended_ago=900.0, stdout_size=3, stderr_size=5, cpu_seconds=99.0, peak_memory_bytes=99, read_bytes=9, written_bytes=9,
    )  # fmt: skip


@pytest.mark.parametrize("state", ENDS)
def test_whatever_is_reported_later(served, batch, state):
    worker = Hands(served, batch, batch)
    task, execution = given(served, worker, batch, retry=0)
    worker.end(task, state, ENDS[state], OUTPUT)
    before = record(served, task)
    assert before[0]["state"] == state and before[2] == [OUTPUT, b""]
    for late in EXECUTION_STATES:
        more = [(execution, "stdout", len(OUTPUT), b"more"), (execution, "stderr", 0, b"other")]
        told = worker.sync(contradicting(execution, late), output=more)
        assert record(served, task) == before, f"changed by a late {late!r}"
        assert execution in told.acknowledged + told.fenced and not told.orders
    worker.sync()
    assert record(served, task) == before


def test_another_process_another_worker_an_older_one(served, batch):
    worker, other = Hands(served, batch, batch), Hands(served, f"{batch}-other", f"{batch}-other")
    task, execution = given(served, worker, batch)
    before = record(served, task)
    for late in EXECUTION_STATES:
        told = other.sync(contradicting(execution, late), output=[(execution, "stdout", 0, b"other")])
        assert told.fenced == [execution] and record(served, task) == before, f"changed by another worker's {late!r}"
    worker.end(task, "succeeded", 0, OUTPUT)
    before = record(served, task)
    for report in (contradicting(execution, late) for late in ("running", "failed", "lost")):
        assert other.sync(report).fenced == [execution]
    worker.incarnation, worker.sequence = "a new process", 0
    worker.sync()  # which knows nothing of it
    worker.sync(contradicting(execution, "failed"))
    worker.incarnation = "i"
    with pytest.raises(Conflict):
        worker.sync(contradicting(execution, "failed"))
    with pytest.raises(NotAuthenticated):
        unknown = Hands(served, batch, batch)  # registers anew: the token of before is worth nothing
        unknown.connection, worker.connection = worker.connection, unknown.connection
        unknown.sync(contradicting(execution, "failed"))
    assert record(served, task) == before


def test_what_people_do_afterwards(served, batch):
    """Only asking for another run changes the state of what has ended."""
    worker = Hands(served, batch, batch)
    ended = {state: given(served, worker, batch)[0] for state in ENDS}
    for state, task in ended.items():
        worker.end(task, state, ENDS[state], OUTPUT)
    ids = list(ended.values())
    before = [record(served, task) for task in ids]
    for action in ("suspend", "resume", "term", "kill"):
        done = served.api("POST", "/tasks/signal", {"ids": ids, "action": action})
        assert done["ids"] == [] and len(done["skipped"]) == 3
    assert served.api("POST", "/tasks/cancel", {"ids": ids})["ids"] == []
    for running in ("suspend", "term", "kill"):
        served.api("POST", f"/batches/{batch}/stop", {"running": running})
    served.api("POST", f"/batches/{batch}/go")
    served.api("DELETE", f"/workers/{worker.row['id']}")
    assert [record(served, task) for task in ids] == before


def test_the_late_end_of_an_earlier_attempt(served, batch):
    """The first attempt was lost with its process; its end comes while the second runs, and after that has ended."""
    worker = Hands(served, batch, batch)
    task, first = given(served, worker, batch)
    worker.incarnation, worker.sequence, worker.held = "a new process", 0, {}
    worker.sync()
    (second,) = worker.held
    worker.sync(*worker_says(worker))
    for late in EXECUTION_STATES:
        before = record(served, task)
        told = worker.sync(contradicting(first, late), *worker_says(worker), output=[(first, "stdout", 0, b"late")])
        assert told.fenced == [first] and record(served, task) == before
    assert [row["state"] for row in served.executions(task)] == ["lost", "running"]
    worker.end(task, "failed", 7, OUTPUT)
    before = record(served, task)
    worker.sync(Report(first, "succeeded", exit_code=0, stdout_size=0, stderr_size=0))
    assert record(served, task) == before and before[0]["state"] == "failed"


def test_an_end_is_not_acknowledged_before_its_output_is_here(served, batch):
    worker = Hands(served, batch, batch)
    task, execution = given(served, worker, batch)
    whole = Report(execution, "succeeded", exit_code=0, started_ago=2.0, ended_ago=1.0, stdout_size=10, stderr_size=0)
    for sent in (b"", b"12345"):
        told = worker.sync(whole, output=[(execution, "stdout", 0, sent)] if sent else [])
        assert not told.acknowledged and told.offsets[str(execution)]["stdout"] == len(sent)
        assert served.state(task) == "running"
    assert worker.sync(whole, output=[(execution, "stdout", 5, b"67890")]).acknowledged == [execution]
    assert record(served, task)[2] == [b"1234567890", b""]


def test_it_outlives_kill9(env_on_each):
    """What was acknowledged one moment before."""
    env = env_on_each
    server = env.server()
    worker = Hands(env, "w", "b")
    kept = {}
    for state in ENDS:
        task, _ = given(env, worker, "b")
        worker.end(task, state, ENDS[state], OUTPUT)
        server.kill9()
        server.start()
        kept[task] = record(env, task)
        assert kept[task][0]["state"] == state and kept[task][2] == [OUTPUT, b""]
        assert [row["exit_code"] for row in kept[task][1]] == [ENDS[state]]
    assert {task: record(env, task) for task in kept} == kept


def test_a_worker_whose_disk_is_set_back(env):
    """Its directory is that of a moment when the command ran: the end that the server has stays."""
    env.server()
    worker = env.worker(1)
    (task,) = env.create("echo before; while [ ! -e go ]; do sleep 0.05; done; echo after; exit 4")
    env.until(lambda: env.stdout(task) == b"before\n")
    execution = env.executions(task)[-1]["id"]
    shutil.copytree(worker.directory / "executions", env.directory / "kept")
    (worker.directory / "executions" / str(execution) / "temp" / "go").touch()
    env.wait_state(task, "failed")
    worker.kill9()
    before = record(env, task)
    shutil.rmtree(worker.directory / "executions")
    shutil.copytree(env.directory / "kept", worker.directory / "executions")
    worker.start()
    (later,) = env.create("echo later")
    env.wait_state(later)
    env.until(lambda: not (worker.directory / "executions" / str(execution) / "spec.json").exists(), what="it is thrown away")
    assert record(env, task) == before and before[2] == [b"before\nafter\n", b""]
