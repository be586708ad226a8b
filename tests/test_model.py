"""A small model of the queue, and the real server driven beside it by random users and random workers that repeat themselves."""

from __future__ import annotations

import itertools
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from scitq import wire
from scitq.protocol import API, FINAL, LIVE, Report, SyncAnswer, SyncRequest
from scitq.transport import Connection

OPEN = "open"


class ModelTask:
    """What must be true of a task, whatever the scheduler chose."""

    def __init__(self, retry: int, require: list[int]):
        self.retry, self.require = retry, require
        self.failures = 0
        self.state = OPEN
        self.cancel_asked = False
        self.given = False  # a worker has it, though something that it needs was relaunched since

    def end(self, reported: str) -> None:
        self.given = False
        if reported == "succeeded":
            self.state = "succeeded"
        elif self.cancel_asked:
            self.state = "canceled"
        elif reported == "failed":
            self.failures += 1
            self.state = OPEN if self.failures <= self.retry else "failed"

    def relaunch(self) -> None:
        self.state, self.failures, self.cancel_asked = OPEN, 0, False


class ModelWorker:
    """A worker of the test: it speaks the protocol, and runs nothing."""

    def __init__(self, env, row: dict):
        self.env, self.id, self.token = env, row["id"], row["token"]
        self.sequence = 0
        self.seen: str | None = None
        self.held: dict[int, Report] = {}
        self.task_of: dict[int, int] = {}
        self.last_body = b""

    def sync(self) -> SyncAnswer:
        self.sequence += 1
        request = SyncRequest("one", self.sequence, "test", executions=list(self.held.values()), seen=self.seen)
        self.last_body = wire.encode_request(request, [])
        return self.send()

    def send(self) -> SyncAnswer:
        """Sends the last request (again)."""
        headers = {"Content-Type": wire.SYNC_CONTENT_TYPE}
        with Connection(self.env.url, token=self.token) as connection:
            answer = connection.request("POST", f"{API}/workers/{self.id}/sync", self.last_body, headers=headers)
        assert answer.status == 200, answer.body
        return wire.decode_answer(json.loads(answer.body))


class QueueMachine(RuleBasedStateMachine):
    """Users submit, cancel, relaunch, stop and go; workers report, repeat old reports, and the server is killed now and then."""

    env = None  # set by the test

    def __init__(self):
        super().__init__()
        self.tasks: dict[int, ModelTask] = {}
        self.workers: list[ModelWorker] = []
        self.stopped = False
        self.batch = f"b{next(_numbers)}"

    def _bulk(self, verb: str, task_id: int) -> list[int]:
        return self.env.api("POST", f"/tasks/{verb}", {"ids": [task_id]})["ids"]

    @initialize(concurrency=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=2))
    def start_workers(self, concurrency):
        self.env.api("POST", "/tasks", {"command": "true", "batch": self.batch})  # makes the batch; its task is part of the model
        (row,) = self.env.items("/tasks", batch=self.batch)
        self.tasks[row["id"]] = ModelTask(0, [])
        for slots, prefetch in concurrency:
            name = f"{self.batch}-w{len(self.workers)}"
            body = {"name": name, "key": f"{name:->20}", "hostname": "h", "concurrency": slots, "prefetch": prefetch}
            self.workers.append(ModelWorker(self.env, self.env.api("POST", "/workers", body | {"batch": self.batch})))

    @rule(count=st.integers(1, 4), retry=st.integers(0, 2), priority=st.integers(-1, 1), chained=st.booleans(), data=st.data())
    def submit(self, count, retry, priority, chained, data):
        known = sorted(self.tasks)
        require = data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else []
        specs = [
            {"command": "true", "batch": self.batch, "retry": retry, "priority": priority, "require": list(require)}
            for _ in range(count)
        ]
        if chained:
            for i in range(1, count):
                specs[i]["require"].append(f"#{i - 1}")
        ids = self.env.api("POST", "/tasks", {"tasks": specs})["ids"]
        assert len(set(ids)) == count and not set(ids) & set(self.tasks)
        for i, task_id in enumerate(ids):
            self.tasks[task_id] = ModelTask(retry, [*require, *([ids[i - 1]] if chained and i else [])])

    @rule(data=st.data(), index=st.integers(0, 1), end=st.sampled_from(["succeeded", "failed", "lost"]), repeat=st.booleans())
    def work(self, data, index, end, repeat):
        """A worker takes what it is given, lets some end, tells it, and perhaps tells it again."""
        worker = self.workers[index % len(self.workers)]
        self._take(worker, worker.sync())
        held = sorted(worker.held)
        ending = data.draw(st.lists(st.sampled_from(held), unique=True)) if held else []
        for execution_id in ending:
            code = {"succeeded": 0, "failed": 1}.get(end)
            worker.held[execution_id] = Report(execution_id, end, exit_code=code, started_ago=0.0, ended_ago=0.0)
        told = worker.sync()
        if repeat:
            told = worker.send()
        assert not set(ending) - set(told.acknowledged) - set(told.fenced)
        for execution_id in ending:
            worker.held.pop(execution_id)
            self.tasks[worker.task_of[execution_id]].end(end)
        self._take(worker, told)

    def _may_start(self, task: ModelTask) -> bool:
        return all(self.tasks[required].state == "succeeded" for required in task.require)

    def _take(self, worker: ModelWorker, told: SyncAnswer) -> None:
        worker.seen = told.digest
        for order in told.orders:
            if order.spec is None or order.id in worker.held:
                continue
            task = self.tasks[order.spec["task_id"]]
            assert task.state == OPEN, "a task that has ended is never started again by itself"
            assert task.given or self._may_start(task), "started before what it needs"
            worker.task_of[order.id] = order.spec["task_id"]
            worker.held[order.id] = Report(order.id, "running", started_ago=0.0)
        running = [i for w in self.workers for i, report in w.held.items() if report.state == "running"]
        of_tasks = [w.task_of[i] for w in self.workers for i in w.held]
        assert len(of_tasks) == len(set(of_tasks)), f"a task is held twice: {running}"

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data):
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[task_id]
        done = self._bulk("cancel", task_id)
        assert bool(done) == (task.state == OPEN)
        if done:
            task.cancel_asked = True
            if self.env.state(task_id) == "canceled":
                task.state = "canceled"

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def relaunch(self, data):
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[task_id]
        done = self._bulk("relaunch", task_id)
        assert bool(done) == (task.state in FINAL)
        if done:
            task.relaunch()
            self._find_given(task_id)

    def _find_given(self, needed: int) -> None:
        for row in self.env.items("/tasks", batch=self.batch, state=",".join(LIVE)):
            task = self.tasks[row["id"]]
            task.given = task.given or needed in task.require

    @rule()
    def stop_or_go(self):
        self.env.api("POST", f"/batches/{self.batch}/{'go' if self.stopped else 'stop'}", {})
        self.stopped = not self.stopped

    @rule(data=st.data())
    def kill_the_server(self, data):
        if data.draw(st.integers(0, 9)) == 0:
            self.env.processes[0].kill9()
            self.env.processes[0].start()

    @invariant()
    def the_server_agrees(self):
        if not self.tasks:
            return
        rows = {row["id"]: row for row in self.env.items("/tasks", batch=self.batch)}
        assert set(rows) == set(self.tasks), "no task is lost, none appears"
        for task_id, task in self.tasks.items():
            state = rows[task_id]["state"]
            assert (state if state in FINAL else OPEN) == task.state, f"task {task_id} is {state}, the model says {task.state}"
            if task.state == OPEN and not task.given:
                assert (state == "waiting") == (not self._may_start(task)), f"task {task_id} is {state} against what it needs"
        counts = self.env.api("GET", "/tasks/counts", batch=self.batch)["counts"]
        assert sum(counts.values()) == len(self.tasks)

    def teardown(self):
        """Nothing holds the rest back: every task ends."""
        if self.stopped:
            self.stop_or_go()
        for _ in range(len(self.tasks) * 4 + 4):
            for worker in self.workers:
                self._take(worker, worker.sync())
                for execution_id in list(worker.held):
                    worker.held[execution_id] = Report(execution_id, "succeeded", exit_code=0, started_ago=0.0, ended_ago=0.0)
                told = worker.sync()
                for execution_id in worker.held:
                    self.tasks[worker.task_of[execution_id]].end("succeeded")
                worker.held.clear()
                self._take(worker, told)
        for task_id, task in self.tasks.items():
            blocked = any(
                self.tasks[required].state in ("failed", "canceled") or self.env.state(required) == "waiting"
                for required in task.require
            )
            assert task.state in FINAL or blocked, (
                f"task {task_id} neither ended nor waits for what failed: {self.env.api('GET', f'/tasks/{task_id}/explain')}"
            )


_numbers = itertools.count()


def test_the_queue_is_what_its_model_says(env):
    env.server()
    QueueMachine.env = env
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        QueueMachine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    )
