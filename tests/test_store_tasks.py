"""Tasks and batches in the store: added, paged, edited, ended and removed, on both databases."""

from __future__ import annotations

import pytest
from house import WHO
from scitq.errors import InvalidRequest, NotFound
from scitq.protocol import FINAL, TASK_STATES, Report
from scitq.store import batches, executions, queue, reports, tasks
from scitq.store.filters import Filter

EVERYTHING = Filter()


def page(house, limit: int, after: int | None = None, descending: bool = False, **words) -> list[int]:
    return [row["id"] for row in house.read(tasks.find, Filter.of(words), limit, after, descending)]


def desired(house, *task_ids: int) -> list[str]:
    rows = {row["task_id"]: row["desired"] for row in house.rows("execution")}
    return [rows[task_id] for task_id in task_ids]


# --- adding and looking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [
    {"command": "c", "require": [10**6]}, {"command": "c", "require": ["#9"]}, {"command": "c", "require": ["#2"]},
])  # fmt: skip
def test_all_or_none_are_added(house, wrong):
    (known,) = house.add("known")
    with pytest.raises(InvalidRequest) as refusal:
        house.add({"command": "a", "batch": "new"}, {"command": "b", "require": [known]}, wrong)
    assert refusal.value.field == "tasks[2].require"
    assert page(house, 10) == [known] and house.rows("requirement") == []
    assert [row["name"] for row in house.rows("batch")] == ["Default"]
    assert house.add("next") == [known + 1]


def test_a_circle_through_many_is_refused_and_a_long_chain_is_not(house):
    circle = [{"command": "x", "require": [f"#{(n + 1) % 50}"]} for n in range(50)]
    with pytest.raises(InvalidRequest, match="circle"):
        house.add({"command": "x"}, *circle[:-1], {"command": "x", "require": ["#1"]})
    chain = house.add(*[{"command": "x", "require": [f"#{n - 1}"] if n else []} for n in range(2000)])
    assert house.read(tasks.counts, EVERYTHING) == {"pending": 1, "waiting": 1999}
    assert house.read(tasks.get, chain[-1])["require"] == [chain[-2]]


def test_what_needs_only_the_succeeded_starts_at_once(house):
    house.worker()
    done, failed = house.add("a", "b")
    house.end(1, done)
    house.end(1, failed, "failed", 1)
    ids = house.add({"command": "c", "require": [done]}, {"command": "d", "require": [done, failed]})
    assert house.states(*ids) == ["assigned", "waiting"]


def test_an_id_is_never_given_twice(house):
    first = house.add("a", "b")
    house.write(tasks.delete, first, WHO)
    assert min(house.add("c")) > max(first)


def test_pages_meet_though_rows_come_and_go_between_them(house):
    ids = house.add(*["x"] * 10)
    first = page(house, 4)
    house.write(tasks.delete, [ids[1], ids[3], ids[5]], WHO)
    (new,) = house.add("new")
    assert first == ids[:4]
    assert page(house, 100, after=first[-1]) == [ids[4], *ids[6:], new]
    assert page(house, 3, descending=True) == [new, ids[9], ids[8]]
    assert page(house, 2, after=ids[8], descending=True) == [ids[7], ids[6]]
    assert page(house, 5, after=new) == page(house, 0) == []


def test_counts_are_those_of_the_filter(house):
    house.worker("w", batch="b", concurrency=2)
    mine = house.add(*[{"command": "x", "batch": "b"}] * 4)
    house.add("other")
    house.end(1, mine[0])
    assert house.read(tasks.counts, EVERYTHING) == {"succeeded": 1, "assigned": 2, "pending": 2}
    assert house.read(tasks.counts, Filter.of({"batch": "b"})) == {"succeeded": 1, "assigned": 2, "pending": 1}
    assert house.read(tasks.counts, Filter.of({"batch": "b", "state": "pending,failed"})) == {"pending": 1}
    assert house.read(tasks.counts, Filter.of({"batch": "none"})) == {}


def test_a_task_that_is_not_there(house):
    with pytest.raises(NotFound, match="no task 7"):
        house.read(tasks.get, 7)


# --- every verb in every state --------------------------------------------------------------------------------------------------


@pytest.fixture
def one_of_each(house):
    """A task in each state, by its name; the worker is 1."""
    house.worker("w", concurrency=6)
    names = ("succeeded", "failed", "assigned", "accepted", "running", "uploading")
    ids = dict(zip(names, house.add(*names)))
    house.end(1, ids["succeeded"])
    house.end(1, ids["failed"], "failed", 1)
    held = [Report(house.read(tasks.get, ids[state])["execution_id"], state, started_ago=1.0) for state in names[3:]]
    house.sync(1, *held)
    house.write(lambda tx: tx.run("UPDATE worker SET concurrency = 0"))
    more = house.add("pending", "canceled", {"command": "waiting", "require": [ids["failed"]]})
    ids |= dict(zip(("pending", "canceled", "waiting"), more))
    house.write(tasks.cancel, [ids["canceled"]], WHO)
    assert {state: house.states(task_id)[0] for state, task_id in ids.items()} == {state: state for state in TASK_STATES}
    return ids


def outcome(house, one_of_each, change, *args, **named) -> tuple[set[str], dict[str, str]]:
    """The states whose tasks are changed, and what each state became; a dry run says the same, and does nothing."""
    by_id = {task_id: state for state, task_id in one_of_each.items()}
    ids = [*one_of_each.values(), 10**6]
    before = house.rows("task", "1 = 1 ORDER BY id"), house.rows("execution", "1 = 1 ORDER BY id"), house.rows("event")
    dry = house.write(change, ids, *args, **named, dry_run=True)
    assert (house.rows("task", "1 = 1 ORDER BY id"), house.rows("execution", "1 = 1 ORDER BY id"), house.rows("event")) == before
    done = house.write(change, ids, *args, **named)
    assert done == dry and {item["id"] for item in done["skipped"]} == set(ids) - set(done["ids"])
    assert all(item["why"] for item in done["skipped"])
    after = {row["id"]: row["state"] for row in house.rows("task")}
    return {by_id[i] for i in done["ids"]}, {state: after.get(task_id, "gone") for task_id, state in by_id.items()}


def test_cancel(house, one_of_each):
    live = {"assigned", "accepted", "running", "uploading"}
    changed, after = outcome(house, one_of_each, tasks.cancel, WHO)
    assert changed == set(TASK_STATES) - set(FINAL)
    assert after == {state: "canceled" if state in ("pending", "waiting") else state for state in TASK_STATES}
    assert desired(house, *(one_of_each[state] for state in live)) == ["cancel"] * 4


def test_relaunch(house, one_of_each):
    changed, after = outcome(house, one_of_each, tasks.relaunch, WHO)
    assert changed == set(FINAL)
    assert after == {state: "pending" if state in FINAL else state for state in TASK_STATES}


@pytest.mark.parametrize(("action", "wanted"), [("suspend", "suspend"), ("term", "term"), ("kill", "kill"), ("resume", "run")])
def test_signal(house, one_of_each, action, wanted):
    changed, after = outcome(house, one_of_each, tasks.signal, action, WHO)
    assert changed == {"running"} and after == {state: state for state in TASK_STATES}
    assert desired(house, one_of_each["running"], one_of_each["uploading"]) == [wanted, "run"]


def test_edit(house, one_of_each):
    changed, after = outcome(house, one_of_each, tasks.edit, WHO, {"command": "new", "retry": 9})
    still = {"pending", "waiting", *FINAL}
    assert changed == still and after == {state: state for state in TASK_STATES}
    commands = {state: house.read(tasks.get, task_id)["command"] for state, task_id in one_of_each.items()}
    assert commands == {state: "new" if state in still else state for state in TASK_STATES}


def test_edit_and_relaunch(house, one_of_each):
    _, after = outcome(house, one_of_each, tasks.edit, WHO, {"priority": 3}, None, True)
    assert after == {state: "pending" if state in FINAL else state for state in TASK_STATES}


def test_delete(house, one_of_each):
    house.rung.clear()
    changed, after = outcome(house, one_of_each, tasks.delete, WHO)
    assert changed == set(TASK_STATES) and set(after.values()) == {"gone"}
    for table in ("task", "execution", "output", "requirement"):
        assert house.rows(table) == []
    assert {1} in house.rung, "the worker is told at once"
    told = house.sync(1, Report(3, "running"))
    assert told.fenced == [3] and told.orders == []


def test_what_another_needs_is_kept_unless_it_has_succeeded_or_goes_with_it(house):
    house.worker()
    done, open_one = house.add("a", "b")
    house.end(1, done)
    (last,) = house.add({"command": "c", "require": [done, open_one]})
    kept = house.write(tasks.delete, [done, open_one], WHO)
    assert kept["ids"] == [done] and kept["skipped"] == [
        {"id": open_one, "why": f"task {last} waits for it: delete that one too, or edit it"}
    ]
    assert house.read(tasks.get, last)["require"] == [open_one]


# --- editing ------------------------------------------------------------------------------------------------------------------


def test_commands_are_rewritten_unless_they_changed_meanwhile(house):
    ids = house.add("run old", "run new", "old old")
    rewritten = {ids[0]: ("run old", "run young"), ids[2]: ("seen before", "young young")}
    done = house.write(tasks.edit, ids, WHO, None, rewritten)
    assert done["ids"] == [ids[0]] and done["changes"] == [{"id": ids[0], "before": "run old", "after": "run young"}]
    assert [item["id"] for item in done["skipped"]] == [ids[2]]
    assert [house.read(tasks.get, i)["command"] for i in ids] == ["run young", "run new", "old old"]
    modified = [row["modified_at"] > row["created_at"] for row in house.rows("task", "1 = 1 ORDER BY id")]
    assert modified == [True, False, False]


def test_a_worker_is_woken_by_every_change_of_its_orders(house):
    house.worker("w", concurrency=2)
    house.worker("idle", batch="b")
    house.rung.clear()
    (task_id,) = house.add("x")
    assert house.rung == [{1}]
    house.run(1, task_id)
    house.rung.clear()
    house.write(tasks.signal, [task_id], "suspend", WHO)
    house.write(tasks.signal, [task_id], "suspend", WHO)
    assert house.rung == [{1}], "nothing changed the second time"
    house.write(tasks.cancel, [task_id], WHO)
    assert house.rung == [{1}, {1}]


def test_other_requirements_move_a_task_between_waiting_and_pending(house):
    first, second, third = house.add("a", "b", {"command": "c", "require": ["#0"]})
    house.write(tasks.edit, [third], WHO, {"require": []})
    assert house.states(third) == ["pending"]
    house.write(tasks.edit, [third, second], WHO, {"require": [first]})
    assert house.states(first, second, third) == ["pending", "waiting", "waiting"]


@pytest.mark.parametrize("required", [[10**6], ["#0"]])
def test_a_wrong_requirement_changes_nothing(house, required):
    first, second = house.add("a", {"command": "b", "require": ["#0"]})
    with pytest.raises(InvalidRequest) as refusal:
        house.write(tasks.edit, [first, second], WHO, {"require": required, "command": "new"})
    assert refusal.value.field == "require"
    assert house.read(tasks.get, first)["command"] == "a" and house.read(tasks.get, second)["require"] == [first]


def test_no_edit_makes_a_circle(house):
    chain = house.add(*[{"command": "x", "require": [f"#{n - 1}"] if n else []} for n in range(600)])
    for goal in (chain[0], chain[-1], chain[300]):
        with pytest.raises(InvalidRequest, match="needed, directly or not"):
            house.write(tasks.edit, [chain[0]], WHO, {"require": [goal]})
    house.write(tasks.edit, [chain[-1]], WHO, {"require": [chain[0]]})


def test_a_task_that_moves_to_another_batch_is_taken_there(house):
    house.worker("w", batch="there")
    (task_id,) = house.add({"command": "x", "batch": "here"})
    house.write(tasks.edit, [task_id], WHO, {"batch": "there"})
    assert house.states(task_id) == ["assigned"] and house.read(tasks.get, task_id)["batch"] == "there"


def test_a_relaunched_task_has_all_its_retries_again(house):
    house.worker()
    (task_id,) = house.add({"command": "x", "retry": 1})
    for _ in range(2):
        house.end(1, task_id, "failed", 1)
    assert house.states(task_id) == ["failed"]
    house.write(tasks.relaunch, [task_id], WHO)
    house.end(1, task_id, "failed", 1)
    assert house.states(task_id) == ["assigned"] and house.read(tasks.get, task_id)["attempts"] == 4


def test_what_was_canceled_on_its_worker_can_be_relaunched_once_it_ended(house):
    house.worker()
    (task_id,) = house.add("x")
    house.run(1, task_id)
    house.write(tasks.cancel, [task_id], WHO)
    assert house.write(tasks.relaunch, [task_id], WHO)["ids"] == []
    house.end(1, task_id, "failed", None, signal=9)
    assert house.states(task_id) == ["canceled"]
    assert house.write(tasks.relaunch, [task_id], WHO)["ids"] == [task_id]
    assert house.states(task_id) == ["assigned"] and desired(house, task_id) == ["run"]


# --- batches ------------------------------------------------------------------------------------------------------------------


def test_stop_and_go(house):
    house.worker("w", batch="b", concurrency=2, prefetch=1)
    running, held, fetched = house.add(*[{"command": "x", "batch": "b"}] * 3)
    execution_id = house.run(1, running)
    house.write(batches.stop, "b", WHO, "suspend")
    assert desired(house, running, held, fetched) == ["suspend", "return", "return"], "what has not started is taken back"
    (new,) = house.add({"command": "x", "batch": "b"})
    house.write(batches.go, "b", WHO)
    assert desired(house, running) == ["run"] and house.read(batches.get, "b")["stopped"] is False
    ends = [Report(row["id"], "lost") for row in house.rows("execution", "id <> ?", execution_id)]
    house.sync(1, Report(execution_id, "running"), *ends)
    assert house.states(running, held, fetched, new) == ["running", "assigned", "assigned", "pending"]


@pytest.mark.parametrize(("running", "wanted"), [(None, "run"), ("suspend", "suspend"), ("term", "term"), ("kill", "kill")])
def test_what_a_stop_does_to_what_runs(house, running, wanted):
    house.worker("w", batch="b", concurrency=2)
    ids = house.add({"command": "x", "batch": "b"}, {"command": "x", "batch": "b"})
    house.worker("other")
    (elsewhere,) = house.add("x")
    house.run(1, ids[0])
    house.run(2, elsewhere)
    house.write(batches.stop, "b", WHO, running)
    assert desired(house, ids[0], elsewhere) == [wanted, "run"], "batches never see each other's work"
    assert house.read(batches.get, "b")["stopped"] is True


def test_a_task_killed_with_its_batch_is_not_tried_again(house):
    house.worker("w", batch="b")
    (task_id,) = house.add({"command": "x", "batch": "b", "retry": 5})
    house.run(1, task_id)
    house.write(batches.stop, "b", WHO, "kill")
    house.end(1, task_id, "failed", None, signal=9, reason="killed")
    assert house.states(task_id) == ["failed"]
    assert house.rows("execution")[0]["reason"] == f"killed (asked by {WHO})"


def test_a_deleted_batch_leaves_nothing_but_its_workers(house):
    house.worker("w", batch="b", concurrency=2)
    house.add({"command": "x", "batch": "b"}, {"command": "y", "batch": "b", "require": ["#0"]})
    (elsewhere,) = house.add({"command": "z", "require": [1]})
    house.run(1, 1)
    house.write(batches.delete, "b", WHO)
    with pytest.raises(NotFound, match="no batch 'b'"):
        house.read(batches.get, "b")
    assert [row["id"] for row in house.rows("task")] == [elsewhere] and house.rows("requirement") == []
    assert house.read(tasks.get, elsewhere)["worker"] == "w", (
        "its worker serves the default batch; who waited for its tasks waits no more"
    )
    assert house.rows("execution", "task_id <> ?", elsewhere) == []


def test_the_default_batch_is_emptied_and_stays(house):
    house.add("x", "y")
    house.write(batches.delete, "Default", WHO)
    assert house.read(batches.get, "Default")["counts"] == {} and house.add("z")


def test_a_report_is_of_the_latest_attempts(house):
    house.worker("w", batch="reads", concurrency=10)
    ids = house.add(*[{"command": "x", "batch": "reads"}] * 7, {"command": "x", "batch": "reads", "retry": 1})
    for number, task_id in enumerate(ids[:3]):
        house.end(1, task_id, peak_memory_bytes=1000 * number)
    for task_id in ids[3:6]:
        house.end(1, task_id, "failed", 2, f"line of {task_id}\nno such file\n".encode())
    house.end(1, ids[6], "failed", None, b"", signal=9, reason="ended by SIGKILL")
    house.end(1, ids[7], "failed", 77)
    report = house.read(reports.report, "reads")
    assert report["durations"]["count"] == 3 and report["peak_memory_bytes"] == 2000
    assert report["durations"]["least"] == pytest.approx(1.5, abs=0.2)
    groups = [(g["exit_code"], g["signal"], g["last_line"], g["count"], g["task_ids"]) for g in report["failures"]]
    assert groups == [(2, None, "no such file", 3, ids[3:6]), (None, 9, None, 1, [ids[6]])], (
        "what is tried again has not failed yet"
    )
    with pytest.raises(NotFound, match="did you mean 'reads'"):
        house.read(reports.report, "raeds")


def test_lines_that_differ_in_numbers_are_alike_to_whom_asks_so(house):
    house.worker("w", batch="reads", concurrency=10)
    lines = ("no S1_R1.fq at 0x7f3a", "no S22_R1.fq at 0x1b", "line 9: killed", "line 9: killed", "")
    ids = house.add(*[{"command": "x", "batch": "reads"}] * len(lines))
    for task_id, line in zip(ids, lines):
        house.end(1, task_id, "failed", 2, line.encode())
    exact = house.read(reports.report, "reads")["failures"]
    assert [group["count"] for group in exact] == [2, 1, 1, 1] and "pattern" not in exact[0]
    alike = house.read(reports.report, "reads", alike=True)["failures"]
    assert [(group["last_line"], group["pattern"], group["task_ids"]) for group in alike] == [
        (lines[0], "no S#_R1.fq at #", ids[:2]), ("line 9: killed", None, ids[2:4]), (None, None, ids[4:])
    ]  # fmt: skip


# --- output -------------------------------------------------------------------------------------------------------------------


def test_output_is_read_in_pieces_of_any_size(house):
    house.worker()
    (task_id,) = house.add("x")
    execution_id = house.run(1, task_id)
    whole = bytes(range(256)) * 20
    for start in range(0, len(whole), 700):
        house.sync(1, Report(execution_id, "running"), output=[(execution_id, "stdout", start, whole[start : start + 700])])
    house.sync(1, Report(execution_id, "running"), output=[(execution_id, "stderr", 0, b"apart")])
    for limit in (1, 699, 700, 701, 5000, 6000):
        data, offset = b"", 0
        while (told := house.read(executions.output, execution_id, "stdout", offset, limit))["data"]:
            assert (told["offset"], told["skipped"], told["size"]) == (offset, 0, len(whole)) and len(told["data"]) <= limit
            data, offset = data + told["data"], told["next"]
            if limit == 1 and offset > 800:
                break
        assert data == whole[: len(data)] and (limit == 1 or data == whole)
    assert house.read(executions.output, execution_id, "stderr", 2, 100)["data"] == b"art"
    beyond = house.read(executions.output, execution_id, "stdout", 10**6, 100)
    assert (beyond["data"], beyond["next"]) == (b"", 10**6)


def test_what_lies_between_head_and_tail_is_passed_over_and_told(house, monkeypatch):
    from scitq.store import streams

    for name, value in (("HEAD_BYTES", 20), ("TAIL_BYTES", 20), ("OUTPUT_CAP_BYTES", 40), ("TRIM_BYTES", 0)):
        monkeypatch.setattr(streams, name, value)
    house.worker()
    (task_id,) = house.add("x")
    execution_id = house.run(1, task_id)
    whole = bytes(range(100))
    for start in range(0, 100, 10):
        house.sync(1, Report(execution_id, "running"), output=[(execution_id, "stdout", start, whole[start : start + 10])])
    head = house.read(executions.output, execution_id, "stdout", 5, 1000)
    assert (head["data"], head["next"], head["size"]) == (whole[5:20], 20, 100)
    tail = house.read(executions.output, execution_id, "stdout", 20, 1000)
    assert tail["data"] == whole[-len(tail["data"]) :] and 20 <= len(tail["data"]) <= 30
    assert (tail["offset"], tail["skipped"], tail["next"]) == (100 - len(tail["data"]), 80 - len(tail["data"]), 100)


def test_another_workers_bytes_are_not_taken(house):
    house.worker("one")
    (task_id,) = house.add("x")
    execution_id = house.run(1, task_id)
    other = house.worker("two")
    house.sync(other, output=[(execution_id, "stdout", 0, b"forged")])
    assert house.rows("output") == []


def test_the_orders_of_executions_that_ended_are_not_changed(house):
    house.worker()
    (task_id,) = house.add("x")
    execution_id = house.end(1, task_id)
    house.write(queue.order, [execution_id], "kill", WHO)
    assert desired(house, task_id) == ["run"]
