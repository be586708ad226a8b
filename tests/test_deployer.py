"""Recruiters that deploy, machines that nobody needs, machines that vanish: a real server, real workers on this machine."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from env import Env
from machines import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("clouds"))
    made = Site(env, idle="2s", price=1000.0)
    env.orphans_expected = True  # of a keeper that a test kills
    yield made
    made.clear()
    assert made.running() == {} and made.folders() == set()
    env.close()


@pytest.fixture(autouse=True)
def nothing_left(site):
    yield
    for recruiter in site.env.items("/recruiters"):
        site.env.api("DELETE", f"/recruiters/{recruiter['id']}")
    for batch in site.env.items("/batches"):
        site.env.api("POST", "/tasks/cancel", {"filter": {"batch": batch["name"]}})
    site.clear()


def recruit(site, batch: str, **words) -> dict:
    return site.env.api("POST", "/recruiters", {"batch": batch, "rank": 1, "provider": "there", "concurrency": 1, **words})


def made_for(site, batch: str) -> list[dict]:
    """All machines that were ever made for a batch."""
    states = "planned,creating,booting,up,evicted,deleting,gone"
    return [row for row in site.machines(state=states) if row["batch"] == batch]


def tasks(site, batch: str, number: int, command: str = "true") -> list[int]:
    return site.env.create(*[{"command": command, "shell": "sh", "batch": batch}] * number)


def test_a_recruiter_deploys_no_more_than_it_may_and_idle_workers_go(site):
    recruit(site, "crowd", tasks_per_worker=1, maximum_workers=2, flavor="auto:cpu>=1")
    site.env.wait_state(tasks(site, "crowd", 12, "sleep 0.2"))
    made = made_for(site, "crowd")
    assert len(made) == 2 and {row["provider"] for row in made} == {"there"}
    site.until(lambda: {row["state"] for row in made_for(site, "crowd")} == {"gone"}, what="they idled, and are gone")
    assert len(made_for(site, "crowd")) == 2
    hours = [row["hours"] for row in made_for(site, "crowd")]
    assert site.env.api("GET", "/batches/crowd")["cost"] == pytest.approx(
        sum(row["cost"] for row in made_for(site, "crowd")), abs=0.01
    )
    assert all(hour >= 0 for hour in hours)


def test_a_permanent_worker_stays(site):
    (kept,) = site.deploy(number=1, batch="still", permanent=True)
    site.until_online(1)
    (idle,) = site.deploy(number=1, batch="still")
    site.until(lambda: site.env.api("GET", f"/machines/{idle['machine']}")["state"] == "gone", what="the other one has idled")
    (row,) = site.machines()
    assert row["id"] == kept["machine"] and row["state"] == "up"


def test_idle_workers_of_others_go_first(site):
    """A worker that was deployed for one batch serves the next one before another is deployed."""
    site.there.mkdir(exist_ok=True)
    recruit(site, "first", maximum_workers=1, tasks_per_worker=10)
    (task,) = tasks(site, "first", 1, f"until test -e {site.there}/go; do sleep 0.1; done")
    (worker,) = site.until_online(1)
    site.env.api("PATCH", f"/workers/{worker['id']}", {"permanent": True})  # or it might be gone before the next ones come
    (site.there / "go").touch()
    site.env.wait_state(task)
    recruit(site, "second", maximum_workers=1, tasks_per_worker=10)
    site.env.wait_state(tasks(site, "second", 3))
    (machine,) = made_for(site, "second")
    assert machine["worker_id"] == worker["id"]


def test_a_budget_that_is_spent_stops_recruiting(site):
    recruit(site, "poor", maximum_workers=5, tasks_per_worker=1)
    site.env.api("PATCH", "/batches/poor", {"budget": 0.0001})
    tasks(site, "poor", 1, "sleep 1000")
    site.until(lambda: (site.env.api("GET", "/batches/poor")["cost"] or 0) > 0.0001, what="the budget is spent")
    waiting = tasks(site, "poor", 2)
    recruit(site, "rich", maximum_workers=1, tasks_per_worker=1)
    site.env.wait_state(tasks(site, "rich", 1))  # which began to wait later, and was served
    assert len(made_for(site, "poor")) == 1
    assert {site.env.state(task) for task in waiting} == {"pending"}
    assert "budget" in site.env.api("GET", f"/tasks/{waiting[0]}/explain")["sentence"]
    assert "poor" in str(site.env.api("GET", "/attention"))
    site.env.api("PATCH", "/batches/poor", {"budget": None})
    site.env.wait_state(waiting)


def test_what_a_vanished_machine_ran_is_done_elsewhere(site):
    """It costs none of the task's retries, and the machine is told of as gone."""
    (order,) = site.deploy(number=1, provider="there", batch="fragile")
    site.until_online(1)
    (task,) = tasks(site, "fragile", 1, f"test -e {site.there}/second || sleep 1000")
    site.env.wait_state(task, "running")
    machine = site.env.api("GET", f"/machines/{order['machine']}")
    for pid, line in site.env.leftovers().items():
        if machine["name"] in line:
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(site.there / machine["name"])
    (site.there / "second").touch()
    site.change(f"UPDATE machine SET asked_at = asked_at - 1000 WHERE id = {order['machine']}")  # it was not made just now
    site.server.restart()  # which begins with a look at what is there
    site.until(lambda: site.env.api("GET", f"/machines/{order['machine']}")["state"] == "gone", what="it is found to be gone")
    recruit(site, "fragile", maximum_workers=1)
    site.env.wait_state(task)
    lost, done = site.env.executions(task)
    assert (lost["state"], done["state"]) == ("lost", "succeeded") and "vanished" in lost["reason"]
    assert site.env.task(task)["failures"] == 0
    for pid, line in site.env.leftovers().items():
        if "sleep 1000" in line:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("killed", ["nobody", "the worker", "its keeper too"])
def test_whatever_a_worker_runs_ends_with_its_machine(site, killed):
    """Commands outlive their worker, and even its keeper; but not the machine. The task waits for another one."""
    (order,) = site.deploy(number=1, batch="busy")
    site.until_online(1)
    (task,) = tasks(site, "busy", 1, "setsid sleep 1001 & sleep 1001")
    site.env.wait_state(task, "running")
    site.until(lambda: len(lines_with(site, "sleep 1001")) >= 2, what="both run")
    for word in {"nobody": (), "the worker": ("worker",), "its keeper too": ("worker", "keeper")}[killed]:
        for pid in [pid for pid, line in site.env.leftovers().items() if f" {word} " in line and "machines" in line]:
            os.kill(pid, signal.SIGKILL)
    site.env.answer("DELETE", f"/workers/{order['worker']}")
    site.until(lambda: not site.machines(), what="it is gone")
    assert lines_with(site, "sleep 1001") == [] and site.folders() == set()
    assert site.env.state(task) == "pending" and site.env.task(task)["failures"] == 0


def lines_with(site, text: str) -> list[str]:
    return [line for line in site.env.leftovers().values() if text in line]


def test_a_deployment_is_canceled_while_it_is_made(site):
    site.there.mkdir(exist_ok=True)
    with site.holding(site.there / "lock"):
        (order,) = site.deploy(number=1, provider="there")
        site.until(lambda: site.env.api("GET", f"/machines/{order['machine']}")["state"] == "creating", what="it is asked for")
        site.env.api("POST", f"/jobs/{order['job']}/cancel", {})
        site.until(lambda: site.env.api("GET", f"/jobs/{order['job']}")["state"] == "canceled", what="it is canceled")
    site.until(lambda: not site.machines(), what="nothing is left")
    job = site.env.api("POST", f"/jobs/{order['job']}/relaunch", {})
    site.until(lambda: site.env.api("GET", f"/jobs/{job['id']}")["state"] == "succeeded", what="it is made after all")
    lines = [row["line"] for row in site.env.api("GET", f"/jobs/{job['id']}/log")["items"]]
    assert lines and not any("scitq_" in line for line in lines)


@pytest.mark.parametrize(
    "asked, told",
    [
        ({"provider": "heer"}, "did you mean 'here'"),
        ({"flavor": "locale"}, "did you mean 'local'"),
        ({"region": "nowhere"}, "nowhere"),
        ({"flavor": "auto:cpu>=100000", "region": "auto"}, "auto:cpu>=100000"),
        ({"flavor": "auto:cpuu>=1", "region": "auto"}, "character 6"),
        ({"number": 21}, "20"),
        ({"number": 21, "flavor": "auto", "region": "auto"}, "20"),
    ],
)
def test_orders_that_cannot_be_are_refused_as_a_whole(site, asked, told):
    before = site.rows("SELECT COUNT(*) FROM machine")
    body = {"provider": "here", "flavor": "local", "region": "local", "number": 1, **asked}
    answer = site.env.answer("POST", "/workers/deploy", body, timeout=60)
    assert answer.status in (400, 409), answer.body
    assert told in str(answer.json()["error"]), answer.body
    assert site.rows("SELECT COUNT(*) FROM machine") == before
