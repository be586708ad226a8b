"""What the deployer makes of what it is told, in a store, on each database."""

from __future__ import annotations

import time

import pytest
from scitq.cloud.config import Clouds, Deployment
from scitq.deployer import hiring
from scitq.deployer.context import Context
from scitq.deployer.reconciling import Rounds, reconcile
from scitq.errors import NotAllowed
from scitq.protocol import Report
from scitq.store import batches, flavors, jobs, machines, providers, recruiters, tokens, workers

WHO = "ann"
SPEC = {
    "batch": "b", "concurrency": 1, "prefetch": 0, "permanent": False, "provider": "ovh", "region": "GRA", "flavor": "b3",
    "price": 1.0, "currency": "EUR",
}  # fmt: skip


@pytest.fixture
def context(house, tmp_path):
    clouds = Clouds(
        {"ovh": {"kind": "local"}, "azure": {"kind": "local"}, "local": {"kind": "local"}},
        Deployment(),
        implied=frozenset(["local"]),
    )
    return Context(house.store, clouds, "scitq-test", "http://127.0.0.1:5000", tmp_path)


def machine(house, state: str = "up", **spec) -> dict:
    """A machine that was asked for long ago, in this state; its worker calls if it is up."""
    (made,) = house.write(machines.plan, [{**SPEC, **spec}], WHO)
    house.write(machines.asked, made["machine"])
    if state != "creating":
        house.write(machines.known, made["machine"], "id-1")
    if state in ("up", "evicted"):
        house.write(machines.up, made["machine"])
        house.write(
            lambda tx: tx.run("UPDATE worker SET offline = ?, contact_at = ? WHERE id = ?", (False, tx.now, made["worker"]))
        )
    if state == "evicted":
        house.write(machines.evicted, made["machine"], "spot")
    house.write(lambda tx: tx.run("UPDATE machine SET asked_at = asked_at - 1000 WHERE id = ?", (made["machine"],)))
    house.sequences[made["worker"]] = 0
    return {**made, "machine_name": house.read(machines.get, made["machine"])["name"]}


def state(house, made: dict) -> str:
    return house.read(machines.get, made["machine"])["state"]


def listed(made: dict, told: str, **more) -> dict:
    return {"name": made["machine_name"], "region": "GRA", "state": told, "id": "id-1", "flavor": "b3", "address": None, **more}


def told(house, *rows: dict, destroy_unknown: bool = False) -> None:
    house.write(reconcile, "ovh", rows, time.time(), destroy_unknown)


# --- reconciliation --------------------------------------------------------------------------------------------------------


def test_what_vanished_is_gone_and_what_does_not_answer_is_not(house):
    hidden, lost, there = machine(house), machine(house, region="SBG"), machine(house)
    told(
        house,
        listed(there, "up"),
        {"name": "", "region": "GRA", "state": "silent", "id": None, "message": "GRA does not answer"},
    )
    assert [state(house, made) for made in (hidden, lost, there)] == ["up", "gone", "up"]
    assert house.read(providers.all_of)["ovh"]["trouble"] == "GRA does not answer"
    told(house, listed(there, "up"))
    assert [state(house, made) for made in (hidden, lost, there)] == ["gone", "gone", "up"]
    assert house.read(providers.all_of)["ovh"]["trouble"] is None


def test_what_is_configured_no_more_does_not_vanish(house):
    clouds = Clouds({"ovh": {"kind": "openstack", "regions": ["GRA"]}, "lab": {"kind": "ssh", "hosts": ["n1"]}}, Deployment())
    left_out, lost = machine(house, region="SBG"), machine(house)
    house.write(reconcile, "ovh", [], time.time(), False, clouds.looks_at)
    assert [state(house, made) for made in (left_out, lost)] == ["up", "gone"]
    assert "not in the configuration" in house.read(machines.get, left_out["machine"])["message"]
    hosts = {host: {"provider": "lab", "region": "lab", "provider_id": host} for host in ("n1", "n2")}
    assert [clouds.looks_at(row) for row in hosts.values()] == [True, False]


def test_a_silent_host_hides_its_own_machines_alone(house):
    hidden, lost = machine(house, flavor="node1"), machine(house, flavor="node2")
    told(house, {"name": "", "region": "GRA", "flavor": "node1", "state": "silent", "id": None, "message": "node1"})
    assert [state(house, hidden), state(house, lost)] == ["up", "gone"]


def test_what_stands_still_is_given_up_unless_its_worker_calls_or_is_permanent(house):
    quiet, calling, permanent = machine(house), machine(house), machine(house, permanent=True)
    for made in (quiet, permanent):
        house.write(
            lambda tx, worker=made["worker"]: tx.run("UPDATE worker SET contact_at = contact_at - 100 WHERE id = ?", (worker,))
        )
    told(house, *(listed(made, "stopped", message="halted") for made in (quiet, calling, permanent)))
    assert [state(house, made) for made in (quiet, calling, permanent)] == ["deleting", "up", "up"]
    assert [job["machine"] for job in house.read(jobs.find, {"kind": "destroy"}, 10, None, False)] == [quiet["machine"]]
    told(house, *(listed(made, "broken") for made in (quiet, calling, permanent)))
    assert state(house, calling) == "up"


def test_an_evicted_machine_gives_its_tasks_back_when_it_is_gone(house):
    made = machine(house)
    (task,) = house.add({"command": "x", "batch": "b", "retry": 0})
    house.run(made["worker"], task)
    told(house, listed(made, "evicted", message="spot"))
    assert state(house, made) == "evicted" and house.states(task) == ["running"]
    assert house.read(hiring.left_behind) == []
    told(house)
    assert state(house, made) == "gone" and house.states(task) == ["pending"]
    assert house.rows("task", "id = ?", task)[0]["failures"] == 0


def test_an_evicted_machine_that_holds_nothing_is_removed(house):
    made = machine(house, "evicted")
    assert house.read(hiring.left_behind) == [made["machine"]]
    still = machine(house, "evicted")
    told(house, listed(made, "evicted"), listed(still, "stopped"))
    assert [state(house, made), state(house, still)] == ["evicted", "deleting"]


def test_what_comes_or_goes_without_a_job_is_removed(house):
    coming, going, up = machine(house, "booting"), machine(house), machine(house)
    house.write(machines.destroy, going["machine"], WHO)
    assert house.read(hiring.left_behind) == []
    house.write(
        lambda tx: tx.run("UPDATE job SET state = 'failed' WHERE machine_id IN (?, ?)", (coming["machine"], going["machine"]))
    )
    assert house.read(hiring.left_behind) == [coming["machine"], going["machine"]]
    assert state(house, up) == "up"


@pytest.mark.parametrize("destroyed", [False, True])
def test_an_unknown_machine(house, destroyed):
    told(
        house,
        {"name": "scitq-x-9", "region": "GRA", "state": "up", "id": "id-9", "flavor": None, "address": None},
        destroy_unknown=destroyed,
    )
    (found,) = house.read(machines.find, {"unknown": True}, 10, None, False)
    assert found["state"] == ("deleting" if destroyed else "up")
    assert len(house.read(jobs.find, {"kind": "destroy"}, 10, None, False)) == destroyed


def test_what_was_to_go_and_comes_late_goes(house):
    """Its provider was asked, the asker killed; it listed nothing when it was to be removed, and made it after all."""
    late, vanished = machine(house, "creating"), machine(house)
    house.write(machines.destroy, late["machine"], WHO)
    for job in house.write(jobs.take, "me", 9):
        house.write(jobs.finish, job["id"], "me", "succeeded" if job["kind"] == "destroy" else "canceled")
    for job in house.write(jobs.take, "me", 9):
        house.write(jobs.finish, job["id"], "me", "succeeded")
    for made in (late, vanished):
        house.write(machines.gone, made["machine"], "why")
    house.write(lambda tx: tx.run("UPDATE machine SET gone_at = gone_at - 1000"))
    told(house, listed(late, "up"), listed(vanished, "up"))
    assert [state(house, made) for made in (late, vanished)] == ["deleting", "up"]


@pytest.mark.parametrize("left", ["replanned", "relaunched", "forgotten"])
def test_what_was_left_behind_and_comes_late_goes(house, left):
    """Its deployment went on elsewhere, or anew, when nothing of it was there. One that a person forgot is shown."""
    made = machine(house, "creating")
    if left == "replanned":
        house.write(machines.replan, made["machine"], "full", {"provider": "azure", "region": "west", "flavor": "spot"})
    elif left == "forgotten":
        house.write(machines.forget, made["machine"], WHO)
    else:
        (job,) = house.write(jobs.take, "me", 9)
        house.write(jobs.finish, job["id"], "me", "failed")
        house.write(machines.gone, made["machine"], "why")
        house.write(machines.relaunch, job["id"], WHO)
    house.write(lambda tx: tx.run("UPDATE machine SET gone_at = gone_at - 1000"))
    told(house, listed(made, "up"))
    row = house.read(machines.get, made["machine"])
    assert (row["state"], row["unknown"]) == ("up" if left == "forgotten" else "deleting", True)
    others = [one for one in house.read(machines.find, {}, 9, None, False) if one["id"] != made["machine"]]
    assert [one["state"] for one in others] == ["planned"] * (left != "forgotten"), "the one elsewhere is not touched"


def test_young_machines_and_those_that_are_being_made_do_not_vanish(house):
    young, making = machine(house), machine(house, "creating")
    house.write(lambda tx: tx.run("UPDATE machine SET asked_at = ? WHERE id = ?", (tx.now, young["machine"])))
    told(house)
    assert [state(house, young), state(house, making)] == ["up", "creating"]


def test_what_is_on_the_move_is_looked_at_more_often():
    rounds = Rounds(300.0)
    assert rounds.due("ovh", 1000.0)
    rounds.began("ovh", 1000.0, ["up"])
    assert not rounds.due("ovh", 1299.0) and rounds.due("ovh", 1300.0)
    rounds.hasten("ovh", 1001.0, ["up", "booting"])
    assert rounds.due("ovh", 1031.0) and not rounds.due("ovh", 1030.0)
    rounds.began("ovh", 1031.0, ["evicted"])
    assert rounds.due("ovh", 1041.0)
    rounds.began("ovh", 1041.0, [])
    rounds.failed("ovh", 1041.0)
    assert not rounds.due("ovh", 1100.0) and rounds.due("ovh", 1101.0)


def test_a_machine_that_was_given_up_is_not_let_in(house):
    """Its token is remembered for some seconds by whoever saw it; its worker calls while the machine is being removed."""
    made = machine(house, "booting")
    key = house.rows("worker", "id = ?", made["worker"])[0]["key"]
    given = {"name": made["name"], "key": key, "hostname": "h", "cpus": 1, "memory_bytes": 1}
    for hashed in ("first", "second"):
        house.write(workers.let_in, made["worker"], hashed, WHO)
        if hashed == "first":
            house.write(tokens.revoke_of_worker, made["worker"])
    first, second = (house.rows("token", "hash = ?", hashed)[0]["id"] for hashed in ("first", "second"))
    with pytest.raises(NotAllowed):
        house.write(workers.register_own, made["worker"], first, given, WHO)
    assert state(house, made) == "booting"
    house.write(workers.register_own, made["worker"], second, given, WHO)
    assert state(house, made) == "up"


# --- recruiting ------------------------------------------------------------------------------------------------------------


def catalogue(house, provider: str, *rows: tuple[str, float, int | None]) -> None:
    found = [
        {
            "name": name,
            "region": "GRA",
            "cpu": 4,
            "ram": 16.0,
            "price": price,
            "currency": "EUR",
            "available": available,
            "eviction": 0.0,
        }
        for name, price, available in rows
    ]
    house.write(flavors.replace, provider, found, WHO)


def recruiter(house, rank: int = 1, **words) -> None:
    nothing = {
        "flavor": None,
        "provider": "auto",
        "region": None,
        "minimum_tasks": None,
        "maximum_workers": None,
        "concurrency": None,
        "prefetch": None,
    }
    house.write(recruiters.put, {"batch": "b", "rank": rank, "tasks_per_worker": 1, **nothing, **words}, WHO)


def recruit(house, context) -> list[tuple[str, str]]:
    ids = {want["recruiter"]["batch_id"] for want in house.read(hiring.wants, context)}
    made = house.write(hiring.recruit, context, ids)
    rows = [house.read(machines.get, machine_id) for machine_id in made]
    return [(row["provider"], row["flavor"]) for row in rows]


def test_as_many_as_are_wanted_where_there_is_room_the_cheapest_first(house, context):
    catalogue(house, "ovh", ("small", 1.0, 2), ("large", 3.0, None))
    catalogue(house, "azure", ("spot", 2.0, 1))
    catalogue(house, "local", ("local", 0.0, 8))  # which nobody has configured
    recruiter(house, maximum_workers=4)
    house.add(*[{"command": "x", "batch": "b"}] * 10)
    assert recruit(house, context) == [("ovh", "small"), ("ovh", "small"), ("azure", "spot"), ("ovh", "large")]
    assert recruit(house, context) == [], "they are coming"


def test_lower_ranks_first_and_what_they_cannot_have_the_next_ones_may(house, context):
    catalogue(house, "ovh", ("small", 1.0, 1))
    catalogue(house, "azure", ("spot", 2.0, None))
    recruiter(house, 2, provider="azure", maximum_workers=3)
    recruiter(house, 1, provider="ovh", maximum_workers=3)
    house.add(*[{"command": "x", "batch": "b"}] * 10)
    assert recruit(house, context) == [("ovh", "small"), ("azure", "spot"), ("azure", "spot")]


def test_nobody_is_recruited_where_there_is_trouble_or_was_none_to_be_had(house, context):
    catalogue(house, "ovh", ("small", 1.0, None), ("large", 3.0, None))
    catalogue(house, "azure", ("spot", 0.5, None))
    recruiter(house, maximum_workers=1)
    house.add({"command": "x", "batch": "b"})
    house.write(providers.trouble, "azure", "does not answer")
    context.rest({"provider": "ovh", "region": "GRA", "flavor": "small"})
    assert recruit(house, context) == [("ovh", "large")]


def test_where_a_part_of_a_provider_is_silent_the_others_recruit(house, context):
    catalogue(house, "ovh", ("node1", 1.0, None), ("node2", 3.0, None))
    recruiter(house, maximum_workers=3)
    house.add(*[{"command": "x", "batch": "b"}] * 3)
    house.write(providers.trouble, "ovh", "node1 does not answer")
    assert recruit(house, context) == [], "nobody knows of which part that is"
    context.heard("ovh", [{"region": "GRA", "flavor": "node1"}])
    assert recruit(house, context) == [("ovh", "node2")] * 3
    house.write(lambda tx: tx.run("UPDATE machine SET state = 'gone'"))
    context.heard("ovh", [{"region": "GRA", "flavor": None}])
    assert recruit(house, context) == []
    context.heard("ovh", None)
    assert recruit(house, context) == []
    house.write(providers.told, "ovh")
    assert recruit(house, context) == [("ovh", "node1")] * 3


def test_nobody_is_recruited_for_a_batch_that_stands_or_has_spent_its_budget(house, context):
    catalogue(house, "ovh", ("small", 1.0, None))
    recruiter(house)
    house.add({"command": "x", "batch": "b"})
    house.write(batches.update, "b", {"budget": 0.0}, WHO)
    assert house.read(hiring.wants, context) == []
    house.write(batches.update, "b", {"budget": 1.0}, WHO)
    assert len(house.read(hiring.wants, context)) == 1
    house.write(batches.stop, "b", WHO)
    assert house.read(hiring.wants, context) == []


def test_a_provider_of_which_nothing_is_known_is_asked(house, context):
    recruiter(house, provider="azure")
    house.add({"command": "x", "batch": "b"})
    assert recruit(house, context) == []
    assert [job["provider"] for job in house.read(jobs.find, {"kind": "flavors"}, 10, None, False)] == ["azure"]


def test_quotas_that_are_used_up_are_asked_for_again_after_a_while(house, context):
    catalogue(house, "ovh", ("small", 1.0, 0))
    recruiter(house, provider="ovh")
    house.add({"command": "x", "batch": "b"})
    assert recruit(house, context) == [] and house.rows("job") == []
    house.write(lambda tx: tx.run("UPDATE flavor SET updated_at = updated_at - 1000"))
    assert recruit(house, context) == []
    assert [job["provider"] for job in house.rows("job")] == ["ovh"]


def test_machines_that_came_since_the_quota_was_told_count(house, context):
    catalogue(house, "ovh", ("b3", 1.0, 2))
    machine(house)
    recruiter(house, provider="ovh", maximum_workers=10)
    house.add(*[{"command": "x", "batch": "b"}] * 10)
    assert recruit(house, context) == [("ovh", "b3")]


def test_whoever_was_deployed_and_cannot_work_counts_and_whoever_came_by_hand_does_not(house, context):
    catalogue(house, "ovh", ("small", 1.0, None))
    recruiter(house, maximum_workers=2)
    deployed = [machine(house, batch="b") for _ in range(2)]
    house.worker("by hand", batch="b")
    house.add(*[{"command": "x", "batch": "b"}] * 10)
    house.write(lambda tx: tx.run("UPDATE worker SET problem = 'no docker'"))
    assert recruit(house, context) == [], "the next one would be as unfit, and paid for too"
    house.write(lambda tx: tx.run("UPDATE worker SET problem = NULL"))
    house.write(machines.destroy, deployed[0]["machine"], WHO)
    house.write(lambda tx: tx.run("UPDATE worker SET problem = 'no docker' WHERE id = ?", (deployed[1]["worker"],)))
    house.write(lambda tx: tx.run("UPDATE worker SET offline = ? WHERE name = 'by hand'", (True,)))
    assert recruit(house, context) == [("ovh", "small")]


def test_patience():
    patience = hiring.Patience(2.0)
    assert patience.over([1], 10.0) == set()
    assert patience.over([1, 2], 12.0) == {1}
    assert patience.over([2], 13.0) == set(), "the first one has found workers"
    assert patience.over([1, 2], 14.0) == {2}


# --- machines that nobody needs --------------------------------------------------------------------------------------------


def test_who_idles(house):
    made = machine(house)
    permanent = machine(house, permanent=True)
    house.write(lambda tx: tx.run("UPDATE worker SET offline = ? WHERE id = ?", (True, permanent["worker"])))
    booting = machine(house, "booting")
    assert house.read(hiring.idle) == [made["machine"]]
    (task,) = house.add({"command": "x", "batch": "b"})
    assert house.read(hiring.idle) == [], "it runs something"
    house.run(made["worker"], task)
    house.sync(
        made["worker"], Report(house.rows("execution")[0]["id"], "uploading", exit_code=0, started_ago=1.0, ended_ago=0.5)
    )
    assert house.states(task) == ["uploading"]
    assert house.read(hiring.idle) == [], "it sends what it made"
    assert state(house, booting) == "booting"


def test_who_idles_again_and_again_and_runs_nothing(house):
    """Each time it is fit again before it has idled for long, and is given a task that it gives back."""
    made = machine(house)
    machine_id, restless = made["machine"], hiring.Restless(300.0)
    for minute in range(9):  # it idles for 40 s of each
        now = 60.0 * minute
        restless.due([machine_id], [machine_id], 0, now)
        over = restless.due([machine_id], [machine_id], 0, now + 40.0)
        assert over == ({machine_id: 0} if 40 * (minute + 1) >= 300 else {}), minute
        assert restless.due([], [machine_id], 0, now + 50.0) == {}
    assert not house.read(hiring.has_run, machine_id, 0)
    tasks = house.add(*[{"command": "x", "batch": "b"}] * 2)
    execution = house.rows("execution")[0]["id"]
    assert not house.read(hiring.has_run, machine_id, 0), "it was given one, and has not started it"
    house.run(made["worker"], tasks[0])
    assert house.read(hiring.has_run, machine_id, execution - 1) and not house.read(hiring.has_run, machine_id, execution)
    restless.begin_anew(machine_id)
    assert restless.due([machine_id], [machine_id], execution, 9999.0) == {}
    assert restless.due([], [], 0, 99999.0) == {} and restless.due([machine_id], [machine_id], 7, 99999.0) == {}


@pytest.mark.parametrize("column, value", [("draining", True), ("problem", "disk full"), ("offline", True), ("concurrency", 0)])
def test_who_could_take_nothing_idles_whatever_waits(house, column, value):
    made = machine(house)
    house.write(lambda tx: tx.run(f"UPDATE worker SET {column} = ? WHERE id = ?", (value, made["worker"])))
    house.add({"command": "x", "batch": "b"})
    assert house.read(hiring.idle) == [made["machine"]]
    house.write(hiring.destroy_idle, [made["machine"], made["machine"] + 1])
    assert state(house, made) == "deleting"


def test_whoever_has_work_by_now_is_not_destroyed(house):
    made = machine(house)
    house.add({"command": "x", "batch": "b"})
    house.write(hiring.destroy_idle, [made["machine"]])
    assert state(house, made) == "up"
