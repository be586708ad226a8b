"""The hot paths of the store: a worker's reports, the answers made from the rows, and how executions end. On both databases."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scitq import scheduler
from scitq.errors import Conflict, NotFound
from scitq.protocol import Chunk, Report, SyncRequest
from scitq.store import Store, queue, streams
from scitq.store.schema import Task, Worker


class Queue:
    """A store with tasks and workers made by hand, and the two halves of a sync."""

    def __init__(self, store: Store):
        self.store = store
        self.sequences: dict[int, int] = {}
        store.start(scheduler.decide, lambda touched: None)

    def task(self, **columns) -> int:
        def add(tx):
            (task_id,) = tx.new_ids("task", 1)
            defaults = {"batch_id": 1, "command": "true", "priority": 0, "retry": 0, "use_cache": False, "state": "pending"}
            counts = {"failures": 0, "losses": 0, "attempts": 0}
            times = {"created_at": tx.now, "modified_at": tx.now, "state_at": tx.now}
            tx.insert(Task, {"id": task_id, **defaults, **counts, **times, **columns})
            tx.wake()
            return task_id

        return self.store.write(add)

    def needing(self, *required: int) -> int:
        task_id = self.task(state="waiting")
        self.store.write(
            lambda tx: tx.many("INSERT INTO requirement (task_id, required_id) VALUES (?, ?)", [(task_id, r) for r in required])
        )
        return task_id

    def worker(self, **columns) -> int:
        def add(tx):
            (worker_id,) = tx.new_ids("worker", 1)
            defaults = {"name": f"w{worker_id}", "key": "k", "hostname": "h", "batch_id": 1, "concurrency": 1, "prefetch": 0}
            flags = {"permanent": True, "draining": False, "offline": False, "created_at": tx.now}
            tx.insert(Worker, {"id": worker_id, **defaults, **flags, **columns})
            tx.wake()
            return worker_id

        return self.store.write(add)

    def sync(self, worker_id: int, *reports: Report, output=(), incarnation="a", sequence=None, **more):
        """A whole sync; its answer."""
        sequence = sequence or self.sequences.get(worker_id, 0) + 1
        self.sequences[worker_id] = sequence
        chunks = [Chunk(i, stream, offset, len(data)) for i, stream, offset, data in output]
        request = SyncRequest(incarnation, sequence, "1", executions=list(reports), output=chunks, **more)
        data = [memoryview(data) for *_, data in output]
        if self.store.read(lambda tx: queue.needs_apply(tx, worker_id, request)):
            self.store.write(lambda tx: queue.apply(tx, worker_id, request, data))
        return self.store.read(lambda tx: queue.answer(tx, worker_id, request))

    def given(self, worker_id: int) -> int:
        """The one execution that this worker has now."""
        (order,) = self.sync(worker_id).orders
        return order.id

    def row(self, table: str, row_id: int) -> dict:
        return self.store.read(lambda tx: tx.get(table, f"SELECT * FROM {table} WHERE id = ?", (row_id,)))

    def state(self, task_id: int) -> str:
        return self.row("task", task_id)["state"]


@pytest.fixture
def q(database_url, tmp_path):
    store = Store.open(database_url, tmp_path)
    queue_ = Queue(store)
    deadline = 100
    while not store.leads and deadline:
        store.changes.wait(store.changes.version, 0.1)
        deadline -= 1
    yield queue_
    store.close()


def ended(execution_id: int, state="succeeded", **more) -> Report:
    return Report(
        execution_id, state, **{"exit_code": 0 if state == "succeeded" else 1, "stdout_size": 0, "stderr_size": 0, **more}
    )


def test_a_tasks_whole_way(q):
    worker_id, task_id = q.worker(), q.task(command="echo hello", retry=2)
    (order,) = q.sync(worker_id).orders
    assert order.spec == {"id": order.id, "task_id": task_id, "attempt": 1, "task": {"batch": "Default", "command": "echo hello"}}
    assert q.state(task_id) == "assigned"
    for state in ("accepted", "running"):
        assert q.sync(worker_id, Report(order.id, state, started_ago=1.0 if state == "running" else None)).orders[0].spec is None
        assert q.state(task_id) == state
    told = q.sync(worker_id, ended(order.id, stdout_size=6), output=[(order.id, "stdout", 0, b"hello\n")])
    assert (told.acknowledged, told.orders) == ([order.id], [])
    execution = q.row("execution", order.id)
    assert (q.state(task_id), execution["exit_code"], execution["last_output"]) == ("succeeded", 0, "hello\n")
    assert execution["assigned_at"] - 1 < execution["started_at"] < execution["finished_at"]


def test_an_end_told_twice_counts_once(q):
    worker_id, task_id = q.worker(), q.task(retry=3)
    execution_id = q.given(worker_id)
    q.sync(worker_id, ended(execution_id, "failed"))
    again = q.sync(worker_id, ended(execution_id, "failed"))
    assert again.acknowledged == [execution_id]
    assert q.row("task", task_id)["failures"] == 1


@pytest.mark.parametrize("late", ["accepted", "running", "uploading", "failed", "succeeded", "lost"])
def test_a_final_state_never_changes(q, late):
    worker_id, task_id = q.worker(), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, ended(execution_id, "succeeded"))
    before = q.row("execution", execution_id)
    told = q.sync(worker_id, ended(execution_id, late, exit_code=9))
    assert q.row("execution", execution_id) == before and q.state(task_id) == "succeeded"
    assert execution_id in (told.acknowledged if late in ("failed", "succeeded", "lost") else told.fenced)


def test_a_state_never_goes_back(q):
    worker_id, task_id = q.worker(), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "running", started_ago=0.0))
    q.sync(worker_id, Report(execution_id, "accepted"))
    assert q.state(task_id) == "running"


def test_a_failing_task_is_tried_retry_plus_one_times(q):
    worker_id, task_id = q.worker(), q.task(retry=2)
    for attempt in (1, 2, 3):
        assert q.row("task", task_id)["attempts"] == attempt
        q.sync(worker_id, ended(q.given(worker_id), "failed"))
    assert (q.state(task_id), q.sync(worker_id).orders) == ("failed", [])


def test_a_loss_uses_no_retry_and_has_its_own_limit(q):
    worker_id, task_id = q.worker(), q.task()
    for loss in range(queue.MAX_LOSSES + 1):
        assert q.row("task", task_id)["losses"] == loss
        q.sync(worker_id, ended(q.given(worker_id), "lost", started_ago=1.0, reason="gone"))
    task = q.row("task", task_id)
    assert (task["state"], task["failures"], task["losses"]) == ("failed", 0, queue.MAX_LOSSES + 1)


def test_what_is_given_back_unstarted_is_no_loss(q):
    worker_id, task_id = q.worker(), q.task()
    q.sync(worker_id, ended(q.given(worker_id), "lost"))
    assert q.row("task", task_id)["losses"] == 0


def test_a_lost_workers_late_result_is_fenced(q):
    slow, task_id = q.worker(), q.task()
    execution_id = q.given(slow)
    q.sync(slow, Report(execution_id, "running", started_ago=0.0))
    q.store.write(lambda tx: tx.run("UPDATE worker SET offline = ? WHERE id = ?", (True, slow)))
    q.store.write(lambda tx: queue.declare_lost(tx, [slow], "silent"))
    fresh = q.worker()
    second = q.given(fresh)
    told = q.sync(slow, ended(execution_id, "succeeded"))
    assert told.fenced == [execution_id] and not told.acknowledged
    assert (q.state(task_id), q.row("execution", execution_id)["state"]) == ("assigned", "lost")
    q.sync(fresh, ended(second, "failed"))
    assert q.state(task_id) == "failed", "only the second attempt counts"


def test_another_workers_execution_is_fenced_and_untouched(q):
    mine, other, task_id = q.worker(), None, q.task()
    execution_id = q.given(mine)
    other = q.worker()
    told = q.sync(other, ended(execution_id), Report(424242, "running"))
    assert told.fenced == [execution_id, 424242] and q.state(task_id) == "assigned"


def test_an_end_waits_for_its_output(q):
    worker_id, task_id = q.worker(), q.task()
    execution_id = q.given(worker_id)
    told = q.sync(worker_id, ended(execution_id, stdout_size=10), output=[(execution_id, "stdout", 0, b"12345")])
    assert (told.acknowledged, told.offsets) == ([], {str(execution_id): {"stdout": 5, "stderr": 0}})
    assert q.state(task_id) == "assigned"
    told = q.sync(worker_id, ended(execution_id, stdout_size=10), output=[(execution_id, "stdout", 5, b"67890")])
    assert told.acknowledged == [execution_id]


def test_a_newer_process_of_a_worker_replaces_the_older_one(q):
    worker_id = q.worker()
    q.sync(worker_id, incarnation="old")
    q.sync(worker_id, incarnation="new", sequence=1)
    with pytest.raises(Conflict):
        q.sync(worker_id, incarnation="old")


def test_what_a_restarted_worker_does_not_know_any_more_is_lost(q):
    worker_id, task_id = q.worker(concurrency=2), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "running", started_ago=0.0))
    q.sync(worker_id, incarnation="b", sequence=2)  # its first request got lost on the way
    assert q.row("execution", execution_id)["state"] == "lost"
    assert q.row("task", task_id)["attempts"] == 2


def test_a_first_request_that_comes_late_loses_nothing(q):
    worker_id, _ = q.worker(), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "running", started_ago=0.0))
    q.sync(worker_id, sequence=1)
    assert q.row("execution", execution_id)["state"] == "running"


def test_a_deleted_worker_is_told_so(q):
    worker_id = q.worker(deleted_at=1.0)
    with pytest.raises(NotFound):
        q.sync(worker_id)


def test_a_task_is_released_by_the_last_of_its_requirements(q):
    worker_id = q.worker(concurrency=3)
    first, second = q.task(), q.task()
    last = q.needing(first, second)
    orders = q.sync(worker_id).orders
    q.sync(worker_id, ended(orders[0].id))
    assert q.state(last) == "waiting"
    q.sync(worker_id, ended(orders[1].id))
    assert q.state(last) == "assigned"


def test_a_failed_requirement_keeps_its_dependents_waiting_until_it_is_relaunched(q):
    worker_id, first = q.worker(), q.task()
    last = q.needing(first)
    q.sync(worker_id, ended(q.given(worker_id), "failed"))
    assert q.state(last) == "waiting"
    q.store.write(lambda tx: queue.requeue(tx, [first]))
    q.sync(worker_id, ended(q.given(worker_id)))
    assert q.state(last) == "assigned"


@pytest.mark.parametrize("state", ["canceled", "failed", "succeeded", "running"])
def test_only_what_waits_is_released(q, state):
    worker_id, first = q.worker(), q.task()
    last = q.needing(first)
    q.store.write(lambda tx: tx.run("UPDATE task SET state = ? WHERE id = ?", (state, last)))
    q.sync(worker_id, ended(q.given(worker_id)))
    assert q.state(last) == state


def test_what_was_released_waits_again_when_its_requirement_is_relaunched(q):
    worker_id, first = q.worker(), q.task()
    running, waiting = q.needing(first), q.needing(first)
    q.sync(worker_id, ended(q.given(worker_id)))
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "running", started_ago=0.0))
    q.store.write(lambda tx: queue.requeue(tx, [first]))
    assert (q.state(running), q.state(waiting)) == ("running", "waiting"), "only what a worker has goes on"
    q.sync(worker_id, ended(execution_id, "lost"))
    assert q.state(running) == "waiting", "its next attempt needs the new result"
    q.sync(worker_id, ended(q.given(worker_id)))
    assert sorted([q.state(running), q.state(waiting)]) == ["assigned", "pending"]


@pytest.mark.parametrize("desired, reported, after", [
    ("cancel", "failed", "canceled"), ("cancel", "succeeded", "succeeded"), ("cancel", "lost", "canceled"),
    ("kill", "failed", "failed"), ("term", "succeeded", "succeeded"),
])  # fmt: skip
def test_what_a_person_ended_is_not_tried_again(q, desired, reported, after):
    worker_id, task_id = q.worker(), q.task(retry=5)
    execution_id = q.given(worker_id)
    q.store.write(lambda tx: queue.order(tx, [execution_id], desired, "ann"))
    assert q.sync(worker_id, Report(execution_id, "running")).orders[0].desired == desired
    q.sync(worker_id, ended(execution_id, reported, reason="ended by SIGKILL"))
    assert q.state(task_id) == after
    assert "ann" in q.row("execution", execution_id)["reason"]


@pytest.mark.parametrize(
    ("desired", "after"), [("term", "failed"), ("kill", "failed"), ("cancel", "canceled"), ("suspend", "assigned")]
)
def test_a_loss_does_not_bring_back_what_a_person_ended(q, desired, after):
    worker_id, task_id = q.worker(), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "running", started_ago=0.0))
    q.store.write(lambda tx: queue.order(tx, [execution_id], desired, "ann"))
    q.store.write(lambda tx: queue.declare_lost(tx, [worker_id], "its worker was silent"))
    assert q.state(task_id) == after


def test_a_kill_is_not_softened(q):
    worker_id, _ = q.worker(), q.task()
    execution_id = q.given(worker_id)
    for desired in ("kill", "term", "run", "suspend", "return"):
        q.store.write(lambda tx: queue.order(tx, [execution_id], desired, "ann"))
    assert q.row("execution", execution_id)["desired"] == "kill"


def test_one_that_started_before_it_was_asked_back_goes_on(q):
    worker_id, task_id = q.worker(), q.task()
    execution_id = q.given(worker_id)
    q.store.write(lambda tx: queue.order(tx, [execution_id], "return", "scheduler"))
    told = q.sync(worker_id, Report(execution_id, "running", started_ago=0.0))
    assert (told.orders[0].desired, q.state(task_id)) == ("run", "running")


def test_an_idle_sync_is_no_news_and_writes_nothing(q):
    worker_id, _ = q.worker(), q.task()
    told = q.sync(worker_id)
    running = Report(told.orders[0].id, "running", started_ago=0.0)
    told = q.sync(worker_id, running)
    request = SyncRequest("a", 9, "1", seen=told.digest, executions=[running])
    assert not q.store.read(lambda tx: queue.needs_apply(tx, worker_id, request))
    assert not queue.is_news(q.store.read(lambda tx: queue.answer(tx, worker_id, request)), request)
    q.store.write(lambda tx: queue.order(tx, [running.id], "suspend", "ann"))
    assert queue.is_news(q.store.read(lambda tx: queue.answer(tx, worker_id, request)), request)


def test_a_suspended_process_is_shown_so_until_it_goes_on(q):
    worker_id, _ = q.worker(), q.task()
    execution_id = q.given(worker_id)
    for suspended in (True, False):
        q.sync(worker_id, Report(execution_id, "running", suspended=suspended))
        assert bool(q.row("execution", execution_id)["suspended"]) is suspended
    q.sync(worker_id, Report(execution_id, "running", suspended=True))
    q.sync(worker_id, ended(execution_id, "failed"))
    assert not q.row("execution", execution_id)["suspended"], "what has ended is not suspended"


def test_usage_and_times_are_by_the_servers_clock(q):
    worker_id, _ = q.worker(), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "running", pid=77, started_ago=100.0, cpu_seconds=1.0, peak_memory_bytes=5))
    assert q.row("execution", execution_id)["cpu_seconds"] == 1.0
    usage = {"cpu_seconds": 9.5, "peak_memory_bytes": 2**40, "read_bytes": 3, "written_bytes": 4}
    q.sync(worker_id, ended(execution_id, started_ago=5.0, ended_ago=1.0, **usage))
    row = q.row("execution", execution_id)
    assert {name: row[name] for name in usage} == usage and row["pid"] == 77
    assert row["started_at"] == pytest.approx(row["assigned_at"] - 100, abs=5), "a start is told once"
    assert row["ended_at"] == pytest.approx(row["finished_at"] - 1)


def test_a_worker_that_was_silent_is_given_work_again(q):
    worker_id, task_id = q.worker(offline=True), q.task()
    assert q.state(task_id) == "pending"
    q.sync(worker_id)
    assert q.state(task_id) == "assigned" and not q.row("worker", worker_id)["offline"]


def test_a_worker_with_a_problem_gets_nothing_until_it_is_over(q):
    worker_id = q.worker()
    q.sync(worker_id, problem="its disk is full")
    task_id = q.task()
    assert (q.state(task_id), q.row("worker", worker_id)["problem"]) == ("pending", "its disk is full")
    q.sync(worker_id)
    assert q.state(task_id) == "assigned"


def test_of_a_silent_worker_only_what_has_not_started_is_taken(q):
    worker_id, started, held = q.worker(concurrency=2), q.task(), q.task()
    first, second = q.sync(worker_id).orders
    q.sync(worker_id, Report(first.id, "running", started_ago=0.0), Report(second.id, "accepted"))
    q.store.write(lambda tx: tx.run("UPDATE worker SET offline = ?", (True,)))
    assert q.store.write(lambda tx: queue.declare_lost(tx, [worker_id], "silent", only_not_started=True)) == 1
    assert (q.state(started), q.state(held)) == ("running", "pending")
    assert q.store.write(lambda tx: queue.declare_lost(tx, [worker_id], "silent")) == 1
    assert q.state(started) == "pending"


def test_a_specification_is_sent_until_the_worker_lists_it(q):
    worker_id, _ = q.worker(), q.task()
    (order,) = q.sync(worker_id).orders
    (again,) = q.sync(worker_id).orders
    assert order.spec == again.spec is not None, "an answer may be lost"
    assert q.sync(worker_id, Report(order.id, "accepted")).orders[0].spec is None


def test_an_upload_holds_no_slot(q):
    worker_id, first, second = q.worker(), q.task(), q.task()
    execution_id = q.given(worker_id)
    q.sync(worker_id, Report(execution_id, "uploading", started_ago=1.0, ended_ago=0.0))
    assert (q.state(first), q.state(second)) == ("uploading", "assigned")


def test_a_prefetched_task_goes_to_a_worker_that_idles(q):
    busy = q.worker(concurrency=1, prefetch=1)
    q.task(), q.task()
    first, second = q.sync(busy).orders
    idle = q.worker()
    orders = {
        order.id: order.desired for order in q.sync(busy, Report(first.id, "running"), Report(second.id, "accepted")).orders
    }
    assert orders == {first.id: "run", second.id: "return"}
    q.sync(busy, Report(first.id, "running"), ended(second.id, "lost", reason="given back"))
    assert len(q.sync(idle).orders) == 1


def test_priority_then_age_decides(q):
    old, urgent, new = q.task(), q.task(priority=5), q.task()
    worker_id = q.worker()
    order_of_start = []
    for _ in range(3):
        (order,) = q.sync(worker_id).orders
        order_of_start.append(order.spec["task_id"])
        q.sync(worker_id, ended(order.id))
    assert order_of_start == [urgent, old, new]


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_cap(monkeypatch):
    monkeypatch.setattr(streams, "HEAD_BYTES", 20)
    monkeypatch.setattr(streams, "TAIL_BYTES", 20)
    monkeypatch.setattr(streams, "OUTPUT_CAP_BYTES", 40)
    monkeypatch.setattr(streams, "TRIM_BYTES", 5)


def _stored(q, execution_id):
    return q.store.read(
        lambda tx: [
            (r["start"], bytes(r["data"]))
            for r in tx.all("SELECT * FROM output WHERE execution_id = ? ORDER BY start", (execution_id,))
        ]
    )


def test_a_hole_in_the_head_is_refused_and_asked_for(q):
    worker_id, _ = q.worker(), q.task()
    execution_id = q.given(worker_id)
    told = q.sync(worker_id, Report(execution_id, "running"), output=[(execution_id, "stdout", 3, b"late")])
    assert told.offsets == {str(execution_id): {"stdout": 0, "stderr": 0}} and _stored(q, execution_id) == []


_sends = st.lists(st.tuples(st.integers(0, 10), st.integers(1, 30), st.integers(0, 40)), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sends=_sends)
def test_any_order_of_repeats_and_jumps_keeps_head_and_tail(q, small_cap, sends):
    """Each send begins some bytes back (repeats), or, once the head is full, some bytes ahead (passes bytes over)."""
    q.worker()
    execution_id = q.row("task", q.task())["execution_id"]
    whole = bytes(range(256)) * 4
    pieces_sent, sent = [], 0
    for back, length, ahead in sends:
        start = sent + ahead if sent >= 20 and ahead > 20 else max(0, sent - back)
        pieces_sent.append((start, start + length))
        sent = max(sent, start + length)
    row = q.row("execution", execution_id)

    def append_all(tx):
        for start, end in pieces_sent:
            streams.append(tx, row, "stdout", start, memoryview(whole[start:end]))

    q.store.write(append_all)
    pieces = _stored(q, execution_id)
    for start, piece in pieces:
        assert piece == whole[start : start + len(piece)]
    covered = {i for start, piece in pieces for i in range(start, start + len(piece))}
    assert set(range(min(20, sent))) <= covered
    assert q.row("execution", execution_id)["stdout_size"] == sent
    assert sum(len(piece) for _, piece in pieces) <= 40 + 5 + 30 and (not covered or max(covered) == sent - 1)
