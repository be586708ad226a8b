"""Machines, jobs, flavors and what they cost, as the store keeps them: each change asked twice, late, or of what is gone.

On both databases.
"""

from __future__ import annotations

import pytest
from house import WHO
from scitq.errors import Conflict, NotAllowed, NotFound
from scitq.store import batches, costs, events, flavors, jobs, machines, providers, recruiters, tasks, tokens, workers

SPEC = {
    "batch": "b", "concurrency": 2, "prefetch": 1, "permanent": False, "provider": "p", "region": "r", "flavor": "f",
    "price": 2.0, "currency": "EUR", "wish": {"provider": "auto", "region": "auto", "flavor": "auto:cpu>=2"},
}  # fmt: skip
RULE = dict.fromkeys(("flavor", "region", "provider", "minimum_tasks", "maximum_workers", "concurrency", "prefetch"))


def plan(house, **more) -> dict:
    return house.write(machines.plan, [SPEC | more], WHO)[0]


def state(house, made: dict) -> str:
    return house.read(machines.get, made["machine"])["state"]


def job(house, job_id: int) -> dict:
    return house.read(jobs.get, job_id)


def come_up(house, made: dict, hashed: str = "own", **more) -> dict:
    """Its worker calls with its own token."""
    house.write(workers.let_in, made["worker"], hashed, "deployer")
    token = house.read(tokens.find_by_hash, hashed)["id"]
    (row,) = house.rows("worker", "id = ?", made["worker"])
    given = {"name": row["name"], "key": row["key"], "hostname": "h", "cpus": 2, "memory_bytes": 2**33, "permanent": False}
    house.sequences.setdefault(made["worker"], 0)
    return house.write(workers.register_own, made["worker"], token, given | more, row["name"])


def log_of(house) -> list[str]:
    return [event["action"] for event in house.read(events.find, {}, 100, None, False)]


# --- planned ----------------------------------------------------------------------------------------------------------


def test_what_is_planned_is_there_at_once(house):
    made = plan(house)
    row = house.read(workers.get, made["worker"])
    assert (row["name"], row["state"], row["machine_state"], row["job"]) == (made["name"], "deploying", "planned", made["job"])
    assert (row["batch"], row["concurrency"], row["price"], row["cost"]) == ("b", 2, 2.0, 0.0)
    machine, waiting = house.read(machines.get, made["machine"]), job(house, made["job"])
    assert machine["name"] == house.read(machines.prefix) + str(made["machine"]) and machine["worker"] == row["name"]
    assert (waiting["kind"], waiting["state"], waiting["worker"], waiting["batch"]) == ("deploy", "pending", row["name"], "b")
    assert log_of(house) == ["worker.deploy"], "all of it is one change"


def test_a_name_that_somebody_has_is_made_another_way(house):
    """A worker that a person called so must not stop recruiters."""
    first = plan(house)["machine"]
    house.worker(f"p-{first + 1}")
    made = plan(house)
    assert made["machine"] == first + 1 and made["name"].startswith(f"p-{first + 1}-")


def test_all_are_planned_or_none(house):
    with pytest.raises(Conflict, match="has this name") as refusal:
        house.write(machines.plan, [SPEC | {"name": "w"}, SPEC | {"name": "w"}], WHO)
    assert refusal.value.field == "name"
    assert (house.rows("machine"), house.rows("worker"), house.rows("job")) == ([], [], [])


def test_its_name_is_not_taken_by_another_machine(house):
    plan(house, name="w")
    with pytest.raises(Conflict):
        house.worker("w", key="of another machine")


# --- a machine's life, each step twice --------------------------------------------------------------------------------


def test_a_machine_comes_serves_and_goes(house):
    made = plan(house)
    for _ in range(2):
        assert house.write(machines.asked, made["machine"])
        assert house.write(machines.known, made["machine"], "id-there", "booting", "10.0.0.1")
    assert state(house, made) == "booting"
    assert come_up(house, made)["state"] == "online" and state(house, made) == "up"
    assert not house.write(machines.up, made["machine"]), "it is up already"
    assert house.write(machines.known, made["machine"], "id-there"), "told late: it stays up"
    assert state(house, made) == "up" and len(house.rows("stint")) == 1
    assert [house.write(machines.evicted, made["machine"], "spot") for _ in range(2)] == [True, False]
    row = house.read(workers.get, made["worker"])
    assert (row["state"], row["machine_state"]) == ("draining", "evicted")
    assert [house.write(machines.gone, made["machine"], "taken away") for _ in range(2)] == [True, False]
    assert state(house, made) == "gone" and house.read(workers.find, {}, 10, None, False) == []
    for late in (machines.asked, machines.up):
        assert not house.write(late, made["machine"])
    assert not house.write(machines.known, made["machine"], "id-there")
    assert not house.write(machines.evicted, made["machine"], "x")
    assert house.write(machines.destroy, made["machine"], WHO) is None
    assert house.write(machines.replan, made["machine"], "x") is None
    with pytest.raises(NotFound):
        house.write(machines.destroy, 99, WHO)


def test_what_ran_on_a_machine_that_is_gone_is_queued_again_and_uses_no_retry(house):
    made = plan(house)
    come_up(house, made)
    (task,) = house.add({"command": "x", "batch": "b"})
    house.run(made["worker"], task)
    house.write(machines.gone, made["machine"], "it vanished")
    shown = house.read(tasks.get, task)
    assert (shown["state"], shown["reason"]) == ("pending", "its machine is gone: it vanished")
    assert house.rows("task")[0]["failures"] == 0
    assert house.read(tokens.find_by_hash, "own") is None, "its token is worth nothing any more"


def test_a_worker_registers_itself_alone_and_keeps_the_token_it_came_with(house):
    made, other = plan(house, permanent=True), plan(house)
    house.write(workers.let_in, made["worker"], "of an attempt before", "deployer")
    (row,) = house.rows("worker", "id = ?", made["worker"])
    (theirs,) = house.rows("worker", "id = ?", other["worker"])
    given = {"name": row["name"], "key": row["key"], "hostname": "h", "cpus": 2, "memory_bytes": 1, "permanent": False}
    for wrong in ({"key": "k"}, {"name": theirs["name"], "key": theirs["key"]}):
        with pytest.raises(NotAllowed):
            house.write(workers.register_own, made["worker"], 1, given | wrong, "w")
    assert state(house, made) == "planned"
    house.write(workers.update, made["worker"], {"name": "renamed"}, WHO)
    for hashed in ("own", "again"):
        row = come_up(house, made, hashed, name=made["name"])
        assert (row["name"], row["permanent"]) == ("renamed", True), "as was decided here"
    assert house.read(workers.get, made["worker"])["state"] == "online" and state(house, made) == "up"
    assert house.read(tokens.find_by_hash, "again") and not house.read(tokens.find_by_hash, "of an attempt before")


@pytest.mark.parametrize("asked", [False, True])
def test_destroyed_while_it_is_on_its_way(house, asked):
    made = plan(house)
    if asked:
        (taken,) = house.write(jobs.take, "me", 9)
        house.write(machines.asked, made["machine"])
    destroying = [house.write(machines.destroy, made["machine"], WHO) for _ in range(2)]
    if not asked:
        assert destroying == [None, None] and state(house, made) == "gone" and job(house, made["job"])["state"] == "canceled"
        assert house.write(jobs.take, "me", 9) == [], "nobody asks for it any more"
        return
    assert destroying[0] == destroying[1] and house.read(workers.get, made["worker"])["state"] == "destroying"
    assert not house.write(machines.asked, made["machine"]) and not house.write(machines.known, made["machine"], "late")
    assert come_up(house, made)["state"] == "destroying", "it comes too late"
    assert house.write(jobs.take, "me", 9) == [], "its deployment is let go of first"
    assert house.read(jobs.canceled_of, "me") == [taken["id"]]
    assert house.write(jobs.finish, taken["id"], "me", "canceled")
    (last,) = house.write(jobs.take, "me", 9)
    assert (last["id"], last["kind"]) == (destroying[0], "destroy")


def test_a_worker_that_is_deleted_takes_its_machine_along(house):
    made = plan(house)
    house.write(machines.asked, made["machine"])
    come_up(house, made)
    (task,) = house.add({"command": "x", "batch": "b"})
    house.run(made["worker"], task)
    job_id = house.write(workers.delete, made["worker"], WHO)
    assert job(house, job_id)["kind"] == "destroy" and house.states(task) == ["pending"]
    assert house.read(workers.get, made["worker"])["held"] == 0
    assert log_of(house)[-1] == "worker.delete" and "machine.destroy" not in log_of(house), "one change, one line"
    house.write(machines.gone, made["machine"], "destroyed")
    with pytest.raises(NotFound):
        house.write(workers.delete, made["worker"], WHO)


def test_elsewhere_after_a_failure_it_is_another_machine_of_the_same_worker(house):
    made = plan(house)
    house.write(machines.asked, made["machine"])
    house.write(machines.known, made["machine"], "a")
    assert house.write(machines.replan, made["machine"], "no answer") == made["machine"] and state(house, made) == "planned"
    place = {"provider": "q", "region": "s", "flavor": "g", "price": 1.0, "currency": "EUR", "concurrency": 8}
    second = house.write(machines.replan, made["machine"], "no room", place)
    assert state(house, made) == "gone" and second != made["machine"]
    ordered = house.read(machines.order_of, second)
    assert (ordered["provider"], ordered["worker"]["id"], ordered["worker"]["concurrency"]) == ("q", made["worker"], 8)
    assert ordered["wish"] == SPEC["wish"] | {"tried": [["p", "r", "f"]]}
    assert (job(house, made["job"])["machine"], job(house, made["job"])["provider"]) == (second, "q")
    assert house.write(machines.replan, made["machine"], "late", place) is None
    assert not house.write(machines.gone, made["machine"], "late")
    assert house.read(workers.get, made["worker"])["state"] == "deploying", "the first machine has no say any more"


# --- what the provider tells ------------------------------------------------------------------------------------------


def test_what_is_there_is_compared_with_what_is_written_down(house):
    vanished, fresh, taken, deleting = (plan(house) for _ in range(4))
    for made in (vanished, fresh, taken, deleting):
        house.write(machines.asked, made["machine"])
        house.write(machines.known, made["machine"], None)
    house.write(machines.destroy, deleting["machine"], WHO)
    old = "UPDATE machine SET asked_at = asked_at - 1000 WHERE id <> ?"
    house.write(lambda tx: tx.run(old, (fresh["machine"],)))
    now = house.read(lambda tx: tx.now)
    name = house.read(machines.get, taken["machine"])["name"]
    listed = [
        {"name": name, "region": "r", "state": "evicted", "id": "there"},
        {"name": "scitq-ffff-1", "region": "r", "state": "up", "id": "strange"},
    ]
    found = house.write(machines.reconcile, "p", listed, now)
    assert (found["vanished"], found["evicted"], len(found["unknown"])) == ([vanished["machine"]], [taken["machine"]], 1)
    assert [state(house, made) for made in (vanished, fresh, taken, deleting)] == ["gone", "booting", "evicted", "deleting"]
    (strange,) = house.read(machines.find, {"unknown": True}, 9, None, False)
    assert (strange["name"], strange["provider_id"], strange["worker"]) == ("scitq-ffff-1", "strange", None)
    again = house.write(machines.reconcile, "p", listed, now)
    assert again == {"unknown": [], "vanished": [], "evicted": []}, "told twice it counts once"
    job_id = house.write(machines.destroy, strange["id"], WHO)
    assert job(house, job_id)["kind"] == "destroy"


def test_a_machine_that_was_taken_for_gone_and_is_there_is_unknown(house):
    made = plan(house)
    house.write(machines.asked, made["machine"])
    house.write(machines.gone, made["machine"], "destroyed")
    listed = [{"name": house.read(machines.get, made["machine"])["name"], "region": "r", "state": "up"}]
    assert house.write(machines.unknown, "p", listed) == [], "a list may be a little old"
    house.write(lambda tx: tx.run("UPDATE machine SET gone_at = gone_at - 1000"))
    assert house.write(machines.unknown, "p", listed) == [made["machine"]]
    row = house.read(machines.get, made["machine"])
    assert row["unknown"] and row["state"] == "up" and row["worker_id"] is None


def test_a_provider_that_is_gone_too_is_not_waited_for(house):
    made = plan(house)
    house.write(machines.asked, made["machine"])
    destroying = house.write(machines.destroy, made["machine"], WHO)
    for _ in range(2):
        house.write(machines.forget, made["machine"], WHO)
    assert state(house, made) == "gone" and job(house, destroying)["state"] == "canceled"


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_jobs_are_taken_as_far_as_there_is_room(house):
    for provider in "ppq":
        plan(house, provider=provider)
    assert [row["provider"] for row in house.write(jobs.take, "me", 9, 1)] == ["p", "q"], "one that hangs leaves room for others"
    assert [row["provider"] for row in house.write(jobs.take, "you", 9, 2)] == ["p"]
    assert house.write(jobs.take, "me", 9) == [] and house.read(jobs.next_due) is None


def test_only_who_runs_a_job_ends_it_and_once(house):
    made = plan(house)
    assert not house.write(jobs.finish, made["job"], "me", "failed"), "it has not begun"
    (row,) = house.write(jobs.take, "me", 1)
    assert row["attempt"] == 1 and not house.write(jobs.again, row["id"], "you", None, "x")
    assert house.write(jobs.again, row["id"], "me", 1e12, "no answer")
    assert house.write(jobs.take, "me", 1) == [] and job(house, row["id"])["message"] == "no answer"
    house.write(lambda tx: tx.run("UPDATE job SET not_before = 0"))
    (row,) = house.write(jobs.take, "me", 1)
    assert row["attempt"] == 2
    assert [house.write(jobs.finish, row["id"], "me", "failed", "no") for _ in range(2)] == [True, False]
    assert not house.write(jobs.again, row["id"], "me", None, "late") and job(house, row["id"])["state"] == "failed"


def test_jobs_of_a_process_that_is_gone_wait_again_and_none_is_lost(house):
    first, second = plan(house), plan(house)
    house.write(jobs.take, "dead", 9)
    house.write(jobs.cancel, second["job"], WHO)
    assert len(house.write(jobs.orphans, "me")) == 2 and house.write(jobs.orphans, "me") == []
    assert [job(house, made["job"])["state"] for made in (first, second)] == ["pending", "canceled"]
    (row,) = house.write(jobs.take, "me", 9)
    assert row["attempt"] == 1, "the attempt that was cut short does not count"
    assert house.write(jobs.orphans, "me") == []


def test_the_same_is_not_asked_twice(house):
    first = house.write(jobs.add, "flavors", "p", WHO)
    assert house.write(jobs.add, "flavors", "p", WHO) == first != house.write(jobs.add, "flavors", "q", WHO)
    house.write(jobs.take, "me", 9)
    assert house.write(jobs.add, "flavors", "p", WHO) == first
    house.write(jobs.finish, first, "me", "failed")
    assert house.write(jobs.add, "flavors", "p", WHO) > first


def test_a_log_keeps_its_end(house):
    made = plan(house)
    house.write(jobs.write_log, made["job"], ["a" * 5000, "b\0"], 30, "begins")
    assert [len(row["line"]) for row in house.read(jobs.log, made["job"], 0, 9)] == [jobs.KEPT_CHARACTERS, 1]
    house.write(jobs.write_log, made["job"], [str(n) for n in range(jobs.KEPT_LINES)])
    kept = house.read(jobs.log, made["job"], 0, 5000)
    assert len(kept) == jobs.KEPT_LINES and (kept[0]["seq"], kept[-1]["line"]) == (3, str(jobs.KEPT_LINES - 1))
    assert house.read(jobs.log, made["job"], kept[-2]["seq"], 9) == [kept[-1]]
    row = job(house, made["job"])
    assert (row["progress"], row["step"]) == (30, "begins")
    house.write(jobs.write_log, 99, ["of nothing"])
    with pytest.raises(NotFound):
        house.read(jobs.log, 99, 0, 9)


def test_a_job_that_failed_is_tried_anew_with_a_new_machine(house):
    made = plan(house, name="mine")
    house.write(jobs.take, "me", 1)
    with pytest.raises(Conflict, match="is running"):
        house.write(jobs.delete, made["job"], WHO)
    with pytest.raises(Conflict):
        house.write(machines.relaunch, made["job"], WHO)
    house.write(machines.asked, made["machine"])
    house.write(jobs.finish, made["job"], "me", "failed", "no room")
    house.write(machines.gone, made["machine"], "no room")
    row = house.write(machines.relaunch, made["job"], WHO)
    assert (row["state"], row["worker"], row["attempt"], row["message"]) == ("pending", "mine", 0, None)
    assert row["machine"] != made["machine"] and house.read(machines.order_of, row["machine"])["wish"] == SPEC["wish"]
    with pytest.raises(Conflict):
        house.write(machines.relaunch, made["job"], WHO)
    house.write(machines.cancel, made["job"], WHO)
    house.write(machines.cancel, made["job"], WHO)
    assert job(house, made["job"])["state"] == "canceled" and house.read(workers.find, {}, 9, None, False) == []
    house.write(jobs.delete, made["job"], WHO)
    with pytest.raises(NotFound):
        house.write(jobs.delete, made["job"], WHO)
    assert house.rows("joblog") == []


def test_what_destroys_is_not_canceled(house):
    made = plan(house)
    house.write(machines.asked, made["machine"])
    destroying = house.write(machines.destroy, made["machine"], WHO)
    with pytest.raises(Conflict, match="costs money"):
        house.write(machines.cancel, destroying, WHO)


# --- what it costs ----------------------------------------------------------------------------------------------------


def hours_ago(house, hours: float) -> None:
    """The stints that last began so much earlier."""
    house.write(lambda tx: tx.run("UPDATE stint SET started_at = started_at - ? WHERE ended_at IS NULL", (3600 * hours,)))


def cost(house, name: str) -> tuple:
    row = house.read(batches.get, name)
    return row["cost"] and round(row["cost"], 1), row["currency"], round(row["hours"], 1)


def test_each_batch_pays_for_the_time_in_which_it_was_served(house):
    made = plan(house, permanent=True)
    assert cost(house, "b") == (None, None, 0.0)
    house.write(machines.asked, made["machine"])
    assert house.rows("stint") == [], "what does not exist costs nothing"
    house.write(machines.known, made["machine"], "id")
    come_up(house, made)
    hours_ago(house, 3)
    house.write(workers.update, made["worker"], {"batch": "c"}, WHO)
    hours_ago(house, 2)
    house.write(recruiters.put, {"batch": "d", "rank": 1, "tasks_per_worker": 1, **RULE}, WHO)
    (task,) = house.add({"command": "x", "batch": "d"})
    assert house.read(workers.get, made["worker"])["batch"] == "d", "a recruiter took it"
    hours_ago(house, 1)
    house.run(made["worker"], task)
    house.end(made["worker"], task)
    house.write(recruiters.go_home, [made["worker"]], "scheduler")
    assert house.read(workers.get, made["worker"])["batch"] == "c"
    hours_ago(house, 1)
    house.write(batches.delete, "c", WHO)
    hours_ago(house, 0.5)
    house.write(machines.gone, made["machine"], "destroyed")
    hours_ago(house, 100)
    assert [cost(house, name) for name in ("b", "d", "Default")] == [(6.0, "EUR", 3.0), (2.0, "EUR", 1.0), (1.0, "EUR", 0.5)]
    whole = house.read(machines.get, made["machine"])
    assert (round(whole["cost"], 1), round(whole["hours"], 1)) == (15.0, 7.5)


def test_a_budget_is_reached_when_it_is_spent(house):
    made = plan(house)
    house.write(machines.asked, made["machine"])
    house.write(machines.known, made["machine"], "id")
    house.write(batches.update, "b", {"budget": 4.0}, WHO)
    hours_ago(house, 1.9)
    assert house.read(costs.reached) == {}
    hours_ago(house, 0.2)
    (spent,) = house.read(costs.reached).values()
    assert (spent["name"], spent["budget"], round(spent["cost"], 1)) == ("b", 4.0, 4.2)
    before = log_of(house)
    house.write(batches.update, "b", {"budget": 4.0}, WHO)
    assert log_of(house) == before, "what stays as it was is no change"
    house.write(batches.update, "b", {"budget": None}, WHO)
    assert house.read(costs.reached) == {}


def forget_old(house, monkeypatch) -> tuple[int, int]:
    """As the deployer does until nothing is left, one at a time; how many jobs and machines."""
    monkeypatch.setattr(jobs, "FORGOTTEN_AT_ONCE", 1)
    found = [0, 0]
    while True:
        gone, ended = house.read(machines.forgettable), house.write(jobs.forget_old)
        assert len(gone) <= 1 and ended <= 1
        house.write(machines.forget_old, gone)
        found = [found[0] + ended, found[1] + len(gone)]
        if not gone and not ended:
            return tuple(found)


def test_what_ended_long_ago_is_forgotten_and_what_costs_are_made_of_is_not(house, monkeypatch):
    served, unserved, failed, there = (plan(house, batch=name) for name in ("b", "c", "c", "c"))
    for made in (served, unserved, there):
        house.write(machines.asked, made["machine"])
        house.write(machines.known, made["machine"], "id")
    hours_ago(house, 3)
    for made in (served, unserved, failed):
        house.write(machines.gone, made["machine"], "why")
    for job_row in house.write(jobs.take, "me", 9):
        if job_row["machine_id"] != there["machine"]:
            house.write(jobs.write_log, job_row["id"], ["line", "another"])
            house.write(jobs.finish, job_row["id"], "me", "failed", "why")
    house.write(batches.delete, "c", WHO)
    assert forget_old(house, monkeypatch) == (0, 0), "it is not old yet"
    for table, column in (("machine", "gone_at"), ("job", "finished_at")):
        aged = f"UPDATE {table} SET {column} = {column} - 91 * 86400.0"
        house.write(lambda tx, aged=aged: tx.run(aged))
    assert forget_old(house, monkeypatch) == (3, 2)
    assert {row["id"] for row in house.rows("machine")} == {served["machine"], there["machine"]}
    assert [row["id"] for row in house.rows("job")] == [there["job"]] and house.rows("joblog") == []
    assert cost(house, "b") == (6.0, "EUR", 3.0) and {row["machine_id"] for row in house.rows("stint")} == {
        served["machine"], there["machine"],
    }  # fmt: skip
    house.write(batches.delete, "b", WHO)
    assert forget_old(house, monkeypatch) == (0, 1)
    house.write(machines.forget_old, [there["machine"]])
    assert state(house, there) == "booting", "one that is there is never forgotten"


# --- flavors and providers --------------------------------------------------------------------------------------------


def test_a_provider_has_what_it_told_last(house):
    rows = [{"region": "r", "name": "f", "cpu": 2, "price": 3.0}, {"region": "r", "name": "g", "gpus": 1, "tags": "G"}]
    assert house.write(flavors.replace, "p", rows * 2, WHO) == 2
    house.write(flavors.replace, "q", [{"region": "s", "name": "f", "price": 1.0}], WHO)
    plan(house)
    found = house.read(flavors.find)
    assert [(row["provider"], row["name"], row["planned"]) for row in found] == [("q", "f", 0), ("p", "f", 1), ("p", "g", 0)]
    house.write(flavors.replace, "p", rows[1:], WHO)
    assert [row["name"] for row in house.read(flavors.find, "p")] == ["g"] and house.read(flavors.counts) == {"p": 1, "q": 1}


def test_providers_that_are_configured_another_way_are_told_and_others_forgotten(house):
    assert set(house.write(providers.configured, {"p": "1", "q": "1"})) == {"p", "q"}
    house.write(providers.trouble, "p", "no answer")
    house.write(providers.trouble, "q", "no answer")
    assert house.write(providers.configured, {"p": "1", "q": "1"}) == []
    assert house.write(providers.configured, {"q": "2"}) == ["q"]
    assert house.read(providers.all_of).keys() == {"q"}


def test_flavors_that_were_asked_for_again_since_are_no_trouble(house):
    for provider in ("p", "q", "p"):
        house.write(jobs.add, "flavors", provider, WHO)
        (taken,) = house.write(jobs.take, "me", 9)
        house.write(jobs.finish, taken["id"], "me", "failed", "no answer")
    assert [row["provider"] for row in house.read(jobs.troubled, 9)] == ["p", "q"]
    house.write(jobs.forget_others, {"p": {}})
    assert [row["provider"] for row in house.read(jobs.troubled, 9)] == ["p"]


def test_trouble_lasts_until_the_provider_answers(house):
    house.write(providers.trouble, "p", "no answer")
    since = house.read(providers.all_of)["p"]["trouble_at"]
    house.write(providers.trouble, "p", "no credentials")
    row = house.read(providers.all_of)["p"]
    assert (row["trouble"], row["trouble_at"]) == ("no credentials", since)
    house.write(providers.told, "p")
    assert house.read(providers.all_of)["p"]["trouble"] is None
