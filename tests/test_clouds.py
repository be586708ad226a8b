"""Machines of providers from outside: the API, `Server` and the command line, on a server with real workers of its own machine.
"""

from __future__ import annotations

import json

import pytest
from env import Env
from scitq.errors import ScitqError
from scitq.lib import Server

CONFIG = """\
providers:
  here: {kind: local, maximum: 3, cpu: 2, price: 0.5, currency: EUR}
  broken: {kind: local, scratch: /proc/nowhere}
"""
HERE = {"provider": "here", "flavor": "local", "region": "local"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("cloud"))
    (env.directory / "config.yaml").write_text(CONFIG)
    env.server("--config", str(env.directory / "config.yaml"))
    yield env
    for worker in env.items("/workers"):
        env.answer("DELETE", f"/workers/{worker['id']}")
    env.until(lambda: env.items("/machines") == [], what="all machines are gone")
    env.close()


@pytest.fixture
def server(cloud):
    with Server(cloud.url, token=cloud.token) as server:
        yield server


def manage(env: Env, *words: str, code: int = 0):
    return env.cli("manage", *words, code=code)


def news(env: Env, after: str | None = None) -> tuple[dict, str]:
    told = env.api("GET", "/changes", after=after, wait=5)
    return {row["id"]: row for event in told["events"] for row in event["data"]["jobs"]}, told["next"]


# --- the way of a worker ----------------------------------------------------------------------------------------------


def test_a_worker_is_deployed_works_and_is_destroyed(cloud, batch):
    _, place = news(cloud)
    made = manage(cloud, "worker", "deploy", "-P", "here", "-b", batch, "-n", "first", "--permanent", "--wait").stdout
    assert "worker first (id" in made and "is online, local of here in local" in made
    (row,) = cloud.items("/workers", batch=batch)
    assert (row["name"], row["state"], row["concurrency"], row["permanent"]) == ("first", "online", 2, True)
    assert (row["machine_state"], row["job"], row["price"], row["currency"]) == ("up", None, 0.5, "EUR")
    (job,) = cloud.items("/jobs", worker="first")
    assert (job["kind"], job["state"], job["progress"], job["batch"]) == ("deploy", "succeeded", 100, batch)
    assert cloud.until(lambda: (found := news(cloud, place)[0]) and found.get(job["id"], {}).get("state") == "succeeded")
    log = manage(cloud, "job", "log", str(job["id"]), "--follow").stdout
    assert "worker first is up" in log and log.count("\n") == len(cloud.api("GET", f"/jobs/{job['id']}/log")["items"])
    (task,) = cloud.create({"command": "hostname", "batch": batch})
    cloud.wait_state(task, "succeeded")
    deleted = manage(cloud, "worker", "delete", "first", "--yes", "--wait").stdout
    assert "it is gone" in deleted and cloud.items("/workers", batch=batch) == []
    assert cloud.state(task) == "succeeded"
    machine = cloud.api("GET", f"/machines/{row['machine']}")
    assert machine["state"] == "gone" and machine["gone_at"] and 0 < machine["cost"] <= (machine["hours"] + 0.005) * 0.5
    assert "first" in manage(cloud, "machine", "list", "-S", "gone").stdout
    assert cloud.api("GET", f"/batches/{batch}")["currency"] == "EUR"


def test_python_deploys_follows_and_cancels(cloud, server, batch):
    (made,) = server.worker_deploy(1, batch, "local", "auto:cpu>=1", 1, "here", prefetch=1)
    assert server.job_wait(made["job"])["state"] == "succeeded"
    worker = server.worker_get(made["worker"])
    assert (worker["concurrency"], worker["prefetch"], worker["permanent"]) == (1, 1, False)
    assert [line["line"] for line in server.job_log(made["job"])][-1] == f"worker {made['name']} is up"
    destroying = server.machine_delete(made["machine"])
    assert server.machine_delete(made["machine"]) == destroying, "asked twice it is the same job"
    assert server.job_wait(destroying)["kind"] == "destroy" and server.machine_delete(made["machine"]) is None
    assert [row["id"] for row in server.machines(state="gone") if row["batch"] == batch] == [made["machine"]]
    server.job_delete(made["job"])
    assert [job["kind"] for job in server.jobs(batch=batch)] == ["destroy"]


def test_a_deployment_that_cannot_be_made_leaves_nothing_and_says_why(cloud, batch):
    failed = manage(cloud, "worker", "deploy", "2", "-P", "broken", "-b", batch, "--wait", code=1)
    assert failed.stderr.count("was not deployed") == 2 and "/proc/nowhere" in failed.stderr
    assert cloud.items("/workers", batch=batch) == []
    ids = {job["id"] for job in cloud.items("/jobs", batch=batch, state="failed")}
    told = cloud.until(lambda: {job["id"]: job for job in cloud.api("GET", "/attention")["jobs"] if job["id"] in ids})
    assert told.keys() == ids and all("/proc/nowhere" in job["message"] for job in told.values())
    diagnosis = manage(cloud, "doctor").stdout
    assert all(f"{job_id} (deploy)" in diagnosis for job_id in ids)
    manage(cloud, "job", "delete", "-b", batch, "-S", "failed", "--yes")
    assert cloud.items("/jobs", batch=batch) == []


def test_a_machine_is_forgotten_without_its_provider(cloud, server, batch):
    """Nobody asks the provider: whatever is there would go on, and be unknown the next time the provider tells what it has."""
    (made,) = server.worker_deploy(1, batch, "local", "local", provider="broken")
    assert server.job_wait(made["job"])["state"] == "failed"
    assert "would forget scitq-" in manage(cloud, "machine", "delete", str(made["machine"]), "--forget", "--dry-run").stdout
    assert "gone" in manage(cloud, "machine", "delete", str(made["machine"]), "--forget", "--yes").stdout
    assert server.machine_delete(made["machine"], forget=True) is None
    relaunched = server.job_relaunch(made["job"])
    assert relaunched["machine"] > made["machine"] and server.job_wait(made["job"])["state"] == "failed"


# --- sent twice -------------------------------------------------------------------------------------------------------


def test_the_same_request_twice_is_one_deployment(cloud, batch):
    key = {"Idempotency-Key": batch}
    body = {**HERE, "provider": "broken", "batch": batch}
    first, second = (cloud.answer("POST", "/workers/deploy", body, headers=key) for _ in range(2))
    assert (first.status, second.status) == (202, 202) and first.json() == second.json()
    assert len(cloud.items("/jobs", batch=batch)) == 1


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, field, told",
    [
        ({"provider": "hier"}, "provider", "did you mean 'here'?"),
        ({"flavor": "auto:cpu>=8:rim>=3"}, "flavor", "character 13"),
        ({"flavor": "auto:cpu>=8"}, "flavor", "none of 1 flavors passes auto:cpu>=8"),
        ({"flavor": "auto", "region": "locl"}, "region", "did you mean 'local'?"),
        ({"flavor": "big"}, None, "'big'"),
        ({"number": 4}, None, "maximum"),
        ({"number": 0}, "number", "1"),
        ({"name": "../x"}, "name", "letters"),
        ({"name": "x" * 99, "number": 2}, "name", "100 characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_is_made(cloud, wrong, field, told):
    before = [row["id"] for row in cloud.items("/jobs", kind="deploy")]
    answer = cloud.answer("POST", "/workers/deploy", {**HERE, **wrong})
    assert answer.status in (400, 409), answer.body
    error = answer.json()["error"]
    assert told in error["message"] and (field is None or error["field"] == field), error
    assert [row["id"] for row in cloud.items("/jobs", kind="deploy")] == before


@pytest.mark.parametrize(
    "words",
    [
        ("job", "get", "999999"), ("job", "log", "999999"), ("machine", "delete", "999999", "--yes"),
        ("job", "cancel", "999999", "--yes"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(cloud, words):
    assert f"no {words[0]} 999999" in manage(cloud, *words, code=3).stderr


# --- flavors, budgets -------------------------------------------------------------------------------------------------


def test_flavors_are_listed_and_asked_for(cloud, server):
    assert server.job_wait(server.flavors_update("here")[0])["state"] == "succeeded"
    (row,) = json.loads(manage(cloud, "flavor", "list", "auto:cost<=1", "-P", "here", "-o", "json").stdout)
    assert (row["name"], row["cpu"], row["price"], row["available"]) == ("local", 2, 0.5, row["available"])
    assert server.flavors("auto:cost<=0.1", provider="here") == []
    assert "here" in {row["provider"] for row in server.flavors("auto:cost<=1", provider="auto", region="auto")}
    names = {provider["name"]: provider for provider in server.providers()}
    assert names["here"]["kind"] == "local" and names["here"]["flavors"] == 1 and names["here"]["trouble"] is None
    with pytest.raises(ScitqError, match="there is no region 'locl' .did you mean 'local'"):
        server.flavors(provider="here", region="locl")
    with pytest.raises(ScitqError, match="there is no provider"):
        server.flavors(provider="hier")


def test_a_budget_is_set_shown_and_taken_away(cloud, batch):
    cloud.create({"command": "true", "batch": batch})
    assert "has a budget of 12.5" in manage(cloud, "batch", "update", batch, "--budget", "12.5").stdout
    assert cloud.api("GET", f"/batches/{batch}")["budget"] == 12.5
    assert "no amount of money" in manage(cloud, "batch", "update", batch, "--budget", "much", code=2).stderr
    assert cloud.answer("PATCH", f"/batches/{batch}", {"budget": -1}).status == 400
    manage(cloud, "batch", "update", batch, "--budget", "none")
    assert cloud.api("GET", f"/batches/{batch}")["budget"] is None
