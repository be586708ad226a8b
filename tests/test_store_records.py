"""Workers, tokens, events and the answers to requests, as the store keeps them."""

from __future__ import annotations

import pytest
from house import WHO
from scitq.errors import Conflict, InvalidRequest, NotFound
from scitq.protocol import Report
from scitq.scheduler import FORGET_SECONDS, Monitor
from scitq.store import batches, events, requests, tasks, tokens, workers


def shown(house, worker_id: int) -> dict:
    return house.read(workers.get, worker_id)


def log_of(house, **chosen) -> list[tuple]:
    return [(event["action"], event["ids"]) for event in house.read(events.find, chosen, 100, None, False)]


# --- workers ------------------------------------------------------------------------------------------------------------------


def test_a_worker_that_comes_again_is_the_same_with_what_it_has_and_what_was_changed(house):
    worker_id = house.worker("w", concurrency=2)
    (task_id,) = house.add("x")
    house.run(worker_id, task_id)
    house.write(workers.update, worker_id, {"concurrency": 7, "batch": "b"}, WHO)
    assert house.worker("w", concurrency=2, hostname="moved") == worker_id
    row = shown(house, worker_id)
    assert (row["concurrency"], row["batch"], row["hostname"], row["running"]) == (7, "b", "moved", 1)
    assert house.states(task_id) == ["running"]


def test_a_name_is_free_when_its_worker_is_gone_and_holds_nothing(house):
    first = house.worker("w")
    (task_id,) = house.add("x")
    house.run(first, task_id)
    for change in ("UPDATE worker SET offline = (1 = 1)", "UPDATE worker SET offline = (1 = 0)"):
        house.write(lambda tx, change=change: tx.run(change))
        with pytest.raises(Conflict) as refusal:
            house.worker("w", key="of another machine")
        assert refusal.value.field == "name", "it runs a task, or is there"
    house.end(first, task_id)
    house.write(lambda tx: tx.run("UPDATE worker SET offline = (1 = 1)"))
    second = house.worker("w", key="of another machine")
    assert second != first and [row["id"] for row in house.read(workers.find, {}, 10, None, False)] == [second]
    assert house.read(tasks.get, task_id)["worker"] == "w", "what it did is not forgotten"
    with pytest.raises(NotFound):
        house.sync(first)


def test_what_a_worker_is(house):
    worker_id = house.worker()
    assert shown(house, worker_id)["state"] == "online"
    for column, value, state in (("draining", True, "draining"), ("problem", "disk full", "unfit"), ("offline", True, "offline")):
        house.write(lambda tx, column=column, value=value: tx.run(f"UPDATE worker SET {column} = ?", (value,)))
        assert shown(house, worker_id)["state"] == state, "the worst of them is told"


def test_a_changed_worker_is_told_and_work_moves(house):
    worker_id = house.worker("w", concurrency=0)
    ids = house.add("x", "x")
    house.rung.clear()
    house.write(workers.update, worker_id, {"concurrency": 2}, WHO)
    assert house.states(*ids) == ["assigned", "assigned"] and {worker_id} in house.rung
    house.run(worker_id, ids[0])
    house.write(workers.update, worker_id, {"draining": True}, WHO)
    told = house.sync(worker_id, Report(1, "running"))
    assert told.draining and [order.desired for order in told.orders] == ["run", "return"], "what runs goes on"
    house.worker("taken")
    with pytest.raises(Conflict) as refusal:
        house.write(workers.update, worker_id, {"name": "taken"}, WHO)
    assert refusal.value.field == "name"
    house.write(workers.update, worker_id, {"name": "free"}, WHO)
    assert house.read(workers.get, worker_id)["name"] == "free"


def test_a_deleted_worker_gives_all_back_and_its_name(house):
    first = house.worker("w", concurrency=2)
    started, held = house.add("x", "x")
    house.run(first, started)
    house.write(workers.delete, first, WHO)
    assert house.states(started, held) == ["pending", "pending"]
    assert [house.read(tasks.get, task_id)["losses"] for task_id in (started, held)] == [1, 0]
    assert house.rows("token", "worker_id = ? AND revoked_at IS NULL", first) == []
    second = house.worker("w", concurrency=2)
    assert second != first and house.states(started, held) == ["assigned", "assigned"]
    with pytest.raises(NotFound):
        house.write(workers.delete, first, WHO)


def test_workers_are_paged_and_filtered(house):
    ids = [house.worker(f"w{number}", batch="ab"[number % 2]) for number in range(6)]
    house.write(workers.update, ids[0], {"draining": True}, WHO)

    def page(chosen, limit=10, after=None, descending=False):
        return [row["id"] for row in house.read(workers.find, chosen, limit, after, descending)]

    assert page({}, 2) == ids[:2] and page({}, 2, ids[1]) == ids[2:4] and page({}, 2, ids[2], True) == [ids[1], ids[0]]
    assert page({"batch": "a"}) == ids[::2] and page({"batch": "a", "state": "online"}) == ids[2::2]
    assert page({"state": "draining, offline"}) == ids[:1] and page({"name": "w[1-3]"}, 2) == ids[1:3]
    with pytest.raises(InvalidRequest) as refusal:
        page({"state": "onlin"})
    assert refusal.value.field == "state" and "did you mean 'online'" in str(refusal.value)


# --- tokens -------------------------------------------------------------------------------------------------------------------


def test_tokens_are_known_by_their_hashes_until_they_are_revoked(house):
    admin = house.write(tokens.create, "root", "admin", "hash 1", WHO)
    user = house.write(tokens.create, "bob", "user", "hash 2", WHO)
    assert house.read(tokens.find_by_hash, "hash 2") == user and house.read(tokens.find_by_hash, "hash 3") is None
    house.write(tokens.renew, user["id"], "hash 3")
    assert house.read(tokens.find_by_hash, "hash 2") is None and house.read(tokens.find_by_hash, "hash 3") == user
    house.write(tokens.revoke, user["id"], WHO)
    assert house.read(tokens.find_by_hash, "hash 3") is None
    assert [row["hash"] for row in house.read(tokens.valid)] == ["hash 1"]
    with pytest.raises(NotFound):
        house.write(tokens.revoke, user["id"], WHO)
    with pytest.raises(Conflict, match="last administrator"):
        house.write(tokens.revoke, admin["id"], WHO)


def test_tokens_of_workers_are_not_listed_and_end_with_the_next(house):
    made = [house.write(tokens.create, f"user{number}", "user", f"hash {number}", WHO)["id"] for number in range(3)]
    house.worker("w")
    house.worker("w")
    assert len(house.rows("token", "role = 'worker'")) == 2
    assert [row["role"] for row in house.read(tokens.valid)] == ["user", "user", "user", "worker"]
    assert [row["id"] for row in house.read(tokens.find, 10, None, False)] == made
    assert [row["id"] for row in house.read(tokens.find, 2, made[0], False)] == made[1:]
    assert [row["id"] for row in house.read(tokens.find, 2, made[2], True)] == made[1::-1]


# --- events -------------------------------------------------------------------------------------------------------------------


def test_ids_that_follow_each_other_are_one_word(house):
    house.write(events.add, WHO, "task.x", "task", [1, 2, 3, 7, 9, 8, 10, 11])
    house.write(events.add, WHO, "batch.x", "batch", ["b", "3"])
    house.write(events.add, WHO, "task.x", "task", [])
    assert log_of(house) == [("task.x", ["1-3", 7, 9, 8, "10-11"]), ("batch.x", ["b", "3"]), ("task.x", [])]


def test_the_log_is_paged_and_filtered(house):
    for number in range(6):
        house.write(
            events.add, ["ann", "bob"][number % 2], f"task.{number}", ["task", "worker"][number // 3], [number], {"n": number}
        )
    assert [ids for _, ids in log_of(house, who="bob")] == [[1], [3], [5]]
    assert [ids for _, ids in log_of(house, who="bob", object="worker")] == [[3], [5]]
    house.write(lambda tx: tx.run("UPDATE event SET at = at - 7200 WHERE id <= 4"))
    assert [ids for _, ids in log_of(house, since="1h")] == [[4], [5]]
    newest = house.read(events.find, {}, 2, None, True)
    assert [event["detail"]["n"] for event in newest] == [5, 4]
    assert [event["id"] for event in house.read(events.find, {}, 2, newest[-1]["id"], True)] == [4, 3]


def test_who_stopped_what_is_in_the_log_and_what_failed_is_not(house):
    house.add({"command": "x", "batch": "b"})
    house.write(batches.stop, "b", "bob", "kill")
    with pytest.raises(NotFound):
        house.write(batches.stop, "c", "bob")
    last = house.read(events.find, {}, 1, None, True)[0]
    assert (last["who"], last["action"], last["ids"], last["detail"]) == ("bob", "batch.stop", ["b"], {"running": "kill"})


# --- requests -----------------------------------------------------------------------------------------------------------------


def test_an_answer_is_given_again_to_the_same_request_alone(house):
    assert house.read(requests.seen, "key", "print") is None
    house.write(requests.remember, "key", "print", {"ids": [1, 2]})
    assert house.read(requests.seen, "key", "print") == {"ids": [1, 2]}
    with pytest.raises(Conflict) as refusal:
        house.read(requests.seen, "key", "another print")
    assert refusal.value.field == "Idempotency-Key"


def test_an_answer_goes_with_its_change(house):
    def fail(tx):
        tasks.add(tx, [{"command": "x"}], WHO)
        requests.remember(tx, "key", "print", "done")
        raise Conflict("no")

    with pytest.raises(Conflict):
        house.write(fail)
    assert house.read(requests.seen, "key", "print") is None and house.rows("task") == []


def test_old_answers_are_forgotten_while_the_server_runs(house):
    now = [0.0]
    monitor = Monitor(house.store, clock=lambda: now[0])

    def remember_from_long_ago() -> None:
        house.write(requests.remember, "old", "print", "old")
        house.write(lambda tx: tx.run("UPDATE request SET at = at - ? WHERE key = 'old'", (requests.KEPT_SECONDS + 1,)))

    house.write(requests.remember, "new", "print", "new")
    for _ in range(2):
        remember_from_long_ago()
        monitor.tick()
        assert house.read(requests.seen, "old", "print") is None and house.read(requests.seen, "new", "print") == "new"
        now[0] += FORGET_SECONDS
