"""Two server processes on one PostgreSQL database, by their stores: what they do at the same moment. None of it may be lost."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest
from house import WHO, House
from scitq.errors import Conflict, InvalidRequest
from scitq.protocol import Chunk, Report, SyncRequest
from scitq.store import Store, batches, queue, tasks

AWHILE = 0.3  # seconds that a transaction is held open, for the other one to come in between


@pytest.fixture
def database_url(postgres):
    url = postgres.new_database()
    yield url
    postgres.give_back(url)


@pytest.fixture
def other(house, database_url, tmp_path):
    """A second server's store; the first one decides."""
    store = Store.open(database_url, tmp_path)
    store.start(lambda tx: None, lambda touched: None)
    yield store
    store.close()


def interleave(house: House, first, other: Store, second):
    """`first(tx)` is done, and not yet committed, when `second(tx)` begins elsewhere; the result of each, or its error."""
    begun, done = threading.Event(), threading.Event()

    def hold(tx):
        result = first(tx)
        begun.set()
        done.wait(AWHILE)  # `second` comes through, or is made to wait for this commit
        return result

    def follow(tx):
        begun.wait(60)
        result = second(tx)
        done.set()
        return result

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(house.store.write, hold), pool.submit(other.write, follow)]
        return [future.exception(20) or future.result() for future in futures]


def ends(execution_id: int, worker_id: int, state: str = "succeeded"):
    """A change: the execution's worker tells its end."""
    request = SyncRequest("one", 9, "1", executions=[Report(execution_id, state, exit_code=0, started_ago=1.0)])
    return lambda tx: queue.apply(tx, worker_id, request, [])


@pytest.fixture
def pair(house):
    """Two tasks that run, each on a worker of its own: (task, execution, worker) of each."""
    ids = house.add("a", "b")
    for name in ("w1", "w2"):
        house.worker(name)
    rows = house.rows("execution")
    for row in rows:
        house.run(row["worker_id"], row["task_id"])
    return sorted((row["task_id"], row["id"], row["worker_id"]) for row in rows if row["task_id"] in ids)


def test_two_that_both_found_nothing_add_a_task_once(house, other):
    def add(tx):
        return tasks.add(tx, [{"command": "c", "name": "n", "batch": "new"}], WHO, newest_known=0)

    first, second = interleave(house, add, other, add)
    assert isinstance(second, Conflict) and f"task {first[0]} of batch 'new'" in str(second)
    assert len(house.rows("task")) == 1


def test_two_requirements_that_end_at_once_release_their_dependent(house, other, pair):
    (last,) = house.add({"command": "c", "require": [task for task, *_ in pair]})
    (_, one, first_worker), (_, two, second_worker) = pair
    interleave(house, ends(one, first_worker), other, ends(two, second_worker))
    assert house.states(last) != ["waiting"]


def test_a_task_added_while_its_requirement_ends_is_released(house, other, pair):
    (needed, execution_id, worker_id), _ = pair
    added, _ = interleave(
        house, lambda tx: tasks.add(tx, [{"command": "c", "require": [needed]}], WHO), other, ends(execution_id, worker_id)
    )
    assert house.states(*added) != ["waiting"]


def test_a_task_relaunched_while_its_requirement_ends_is_released(house, other, pair):
    (needed, execution_id, worker_id), _ = pair
    (last,) = house.add({"command": "c", "require": [needed]})
    house.write(tasks.cancel, [last], WHO)
    interleave(house, lambda tx: tasks.relaunch(tx, [last], WHO), other, ends(execution_id, worker_id))
    assert house.states(last) != ["waiting"]


def test_a_requirement_deleted_while_a_task_is_added_is_there_or_refused(house, other):
    (needed,) = house.add("a")
    added, done = interleave(
        house,
        lambda tx: tasks.add(tx, [{"command": "c", "require": [needed]}], WHO),
        other,
        lambda tx: tasks.delete(tx, [needed], WHO),
    )
    assert [item["id"] for item in done["skipped"]] == [needed] and house.read(tasks.get, added[0])["require"] == [needed]
    house.write(tasks.delete, added, WHO)
    done, refusal = interleave(
        house,
        lambda tx: tasks.delete(tx, [needed], WHO),
        other,
        lambda tx: tasks.add(tx, [{"command": "c", "require": [needed]}], WHO),
    )
    assert done["ids"] == [needed] and isinstance(refusal, InvalidRequest)


def test_a_task_lost_on_two_servers_at_once_is_lost_once(house, other, pair):
    """One takes its worker for lost, to the other a new process of the worker says that it has it no more."""
    (task_id, execution_id, worker_id), _ = pair
    restarted = SyncRequest("two", 1, "1")
    interleave(
        house,
        lambda tx: queue.declare_lost(tx, [worker_id], "silent"),
        other,
        lambda tx: queue.apply(tx, worker_id, restarted, []),
    )
    task = house.read(tasks.get, task_id)
    attempts = house.rows("execution", "task_id = ? ORDER BY id", task_id)
    assert (task["losses"], attempts[0]["id"], attempts[0]["state"]) == (1, execution_id, "lost")
    live = [row["id"] for row in attempts if row["state"] != "lost"]
    assert live == ([task["execution_id"]] if task["state"] == "assigned" else [])


def test_an_end_that_comes_with_its_worker_declared_lost_counts_once(house, other, pair):
    (task_id, execution_id, worker_id), _ = pair
    interleave(house, ends(execution_id, worker_id), other, lambda tx: queue.declare_lost(tx, [worker_id], "silent"))
    assert house.states(task_id) == ["succeeded"] and house.rows("execution", "id = ?", execution_id)[0]["state"] == "succeeded"


def test_the_stronger_of_two_orders_stands(house, other, pair):
    (_, execution_id, _), _ = pair
    interleave(
        house,
        lambda tx: queue.order(tx, [execution_id], "kill", "ann"),
        other,
        lambda tx: queue.order(tx, [execution_id], "term", "bob"),
    )
    assert house.rows("execution", "id = ?", execution_id)[0]["desired"] == "kill"


def test_a_task_canceled_while_it_ends_has_one_end(house, other, pair):
    (task_id, execution_id, worker_id), _ = pair
    interleave(house, lambda tx: tasks.cancel(tx, [task_id], WHO), other, ends(execution_id, worker_id, "failed"))
    assert house.states(task_id) in (["canceled"], ["failed"])
    assert house.rows("execution", "id = ?", execution_id)[0]["state"] == house.states(task_id)[0]


def test_two_that_decide_give_a_task_once(house, other):
    """For a moment two servers may both believe that they decide."""
    house.worker("w", concurrency=5)
    ids = house.write(lambda tx: _added_quietly(tx, 5))
    (row,) = house.rows("worker")

    def decide(tx):
        found = queue.next_pending(tx, row["batch_id"], 5)
        if found:
            queue.claim(tx, [(task, row["id"]) for task in found])

    interleave(house, decide, other, decide)
    assert sorted(execution["task_id"] for execution in house.rows("execution")) == ids


def _added_quietly(tx, count: int) -> list[int]:
    ids = tasks.add(tx, [{"command": "x"}] * count, WHO)
    tx.woken = False
    return ids


def test_a_deleted_task_leaves_no_output_behind(house, other, pair):
    (task_id, execution_id, worker_id), _ = pair
    request = SyncRequest(
        "one", 9, "1", executions=[Report(execution_id, "running")], output=[Chunk(execution_id, "stdout", 0, 5)]
    )
    interleave(
        house,
        lambda tx: queue.apply(tx, worker_id, request, [memoryview(b"12345")]),
        other,
        lambda tx: tasks.delete(tx, [task_id], WHO),
    )
    assert house.rows("output") == house.rows("execution", "task_id = ?", task_id) == []


def test_a_batch_made_on_two_servers_at_once_is_one(house, other):
    spec = [{"command": "x", "batch": "new"}]
    (one,), (two,) = interleave(house, lambda tx: tasks.add(tx, spec, WHO), other, lambda tx: tasks.add(tx, spec, WHO))
    assert len(house.rows("batch", "name = 'new'")) == 1 and one != two


@pytest.mark.parametrize("deleted_first", [False, True])
def test_a_task_put_into_a_batch_that_is_deleted_goes_with_it_or_into_a_new_one(house, other, deleted_first):
    house.add({"command": "x", "batch": "b"})

    def add(tx):
        return tasks.add(tx, [{"command": "y", "batch": "b"}], WHO)

    def delete(tx):
        batches.delete(tx, "b", WHO)

    interleave(house, delete if deleted_first else add, other, add if deleted_first else delete)
    known = {row["id"] for row in house.rows("batch")}
    left = house.rows("task")
    assert len(left) == deleted_first and {row["batch_id"] for row in left} <= known


def test_the_locks_of_a_server_that_went_dark_are_not_kept_for_hours(house):
    shown = [
        house.read(lambda tx, name=name: tx.value(f"SHOW {name}"))
        for name in ("tcp_keepalives_idle", "idle_in_transaction_session_timeout")
    ]
    assert shown == ["20", "1min"]


def test_transactions_that_block_each_other_are_done_again(house, other):
    one, two = house.add("a", "b")
    both, tried = threading.Barrier(2, timeout=60), []

    def crosswise(tx, first, second):
        tx.run("UPDATE task SET priority = priority + 1 WHERE id = ?", (first,))
        tried.append(first)
        if tried.count(first) == 1:
            both.wait()
        tx.run("UPDATE task SET priority = priority + 1 WHERE id = ?", (second,))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(house.write, crosswise, one, two), pool.submit(other.write, lambda tx: crosswise(tx, two, one)),
        ]  # fmt: skip
        for future in futures:
            future.result(60)
    assert [row["priority"] for row in house.rows("task")] == [2, 2] and len(tried) > 2
