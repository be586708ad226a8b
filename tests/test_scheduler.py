"""The scheduler's decisions are pure functions over rows: who gets what, what is asked back, how silence is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scitq.scheduler import Presence, idle_slots, is_open, rooms, spread, to_return


def worker(id=1, batch_id=1, concurrency=1, prefetch=0, busy=0, **other):
    defaults = {"draining": False, "offline": False, "problem": None, "stopped": False}
    return {"id": id, "batch_id": batch_id, "concurrency": concurrency, "prefetch": prefetch, "busy": busy, **defaults, **other}


def held(id, worker_id=1, batch_id=1, desired="run", stopped=False):
    return {"id": id, "worker_id": worker_id, "batch_id": batch_id, "desired": desired, "stopped": stopped}


def test_fewer_tasks_than_slots_are_spread_over_the_workers():
    workers = [worker(1, concurrency=4), worker(2, concurrency=4), worker(3, concurrency=4)]
    assert sorted(worker_id for _, worker_id in spread(["a", "b", "c"], workers)) == [1, 2, 3]


def test_every_run_slot_is_filled_before_any_prefetch():
    workers = [worker(1, concurrency=1, prefetch=5), worker(2, concurrency=1, prefetch=0), worker(3, concurrency=2, prefetch=1)]
    given_to = [worker_id for _, worker_id in spread(list("abcdef"), workers)]
    assert sorted(given_to[:4]) == [1, 2, 3, 3]


def test_the_best_task_is_given_first():
    assert [task for task, _ in spread(["best", "second"], [worker(concurrency=1)])] == ["best"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 6)), max_size=8), st.integers(0, 30))
def test_spread_gives_all_it_can_and_never_more_than_a_worker_takes(sizes, count):
    workers = [worker(i, concurrency=c, prefetch=p, busy=b) for i, (c, p, b) in enumerate(sizes)]
    room = {w["id"]: max(0, w["concurrency"] + w["prefetch"] - w["busy"]) for w in workers}
    pairs = spread(list(range(count)), workers)
    assert [task for task, _ in pairs] == list(range(min(count, sum(room.values()))))
    for worker_id, allowed in room.items():
        assert sum(given_to == worker_id for _, given_to in pairs) <= allowed


def test_closed_workers_have_no_room():
    closed = [worker(i, **{why: True}) for i, why in enumerate(("draining", "offline", "problem", "stopped"))]
    assert rooms([*closed, worker(9, concurrency=0, prefetch=3)]) == {}
    assert not any(is_open(w) for w in closed)


def test_batches_have_their_own_room():
    found = rooms(
        [worker(1, batch_id=1, concurrency=2), worker(2, batch_id=2, concurrency=3, busy=1), worker(3, batch_id=2, busy=1)]
    )
    assert {batch: count for batch, (_, count) in found.items()} == {1: 2, 2: 2}


def test_a_prefetched_task_is_asked_back_when_another_worker_idles():
    workers = [worker(1, concurrency=1, prefetch=2, busy=3), worker(2, concurrency=1)]
    assert to_return(workers, [held(11), held(12)], {1: 1}) == [12]


def test_what_is_asked_back_already_counts_for_the_idle_slot():
    workers = [worker(1, concurrency=1, prefetch=2, busy=3), worker(2, concurrency=1)]
    assert to_return(workers, [held(11), held(12, desired="return")], {1: 1}) == []


def test_nothing_within_the_run_slots_is_asked_back_for_others():
    assert to_return([worker(1, concurrency=2, busy=2), worker(2)], [held(11), held(12)], {1: 1}) == []


def test_draining_stopping_and_moving_ask_back_all_that_has_not_started():
    assert sorted(to_return([worker(busy=2, concurrency=2, draining=True)], [held(1), held(2)], {})) == [1, 2]
    assert to_return([worker(busy=1)], [held(1, stopped=True)], {}) == [1]
    assert to_return([worker(busy=1, batch_id=2)], [held(1, batch_id=1)], {}) == [1]


def test_lowered_concurrency_gives_back_the_last_ones():
    assert sorted(to_return([worker(concurrency=1, busy=4)], [held(1), held(2), held(3), held(4)], {})) == [2, 3, 4]


def test_an_offline_worker_is_left_to_the_monitor():
    assert to_return([worker(busy=1, offline=True)], [held(1)], {}) == []


def test_idle_slots_count_free_run_slots_only():
    assert idle_slots([worker(1, concurrency=2, prefetch=5, busy=1), worker(2, concurrency=3, draining=True)]) == {1: 1}


def test_silence_is_the_time_since_the_number_last_changed():
    presence = Presence(now=0.0)
    assert presence.observe(1, 100.0, now=0.0) == 0.0
    assert presence.observe(1, 100.0, now=30.0) == 30.0
    assert presence.observe(1, 50.0, now=31.0) == 0.0, "a clock that jumped back is a contact like any other"
    presence.contact(1, now=40.0)
    assert presence.observe(1, 50.0, now=45.0) == 5.0


def test_our_own_pause_counts_for_nobody():
    presence = Presence(now=0.0)
    presence.observe(1, 1.0, now=0.0)
    presence.tick(now=1.0, pause_seconds=5.0)
    presence.tick(now=1000.0, pause_seconds=5.0)
    assert presence.observe(1, 1.0, now=1000.0) == 1.0
