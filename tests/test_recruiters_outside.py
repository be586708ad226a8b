"""Recruiters from outside: the API, `lib`, `scitq manage recruiter`, real workers, a server that is killed in the middle."""

from __future__ import annotations

import json

import pytest
from hands import Hands, refused
from scitq.errors import InvalidRequest, NotFound
from scitq.lib import RESET, Server


def worker_of(env, name):
    return next(row for row in env.items("/workers") if row["name"] == name)


def moves(env, action):
    return [row for row in env.items("/events", object="worker") if row["action"] == action]


# --- the API ----------------------------------------------------------------------------------------------------------


def test_made_changed_listed_and_deleted(served, batch):
    made = served.api("POST", "/recruiters", {"batch": batch, "flavor": "auto:cpu>=8", "concurrency": 3})
    assert (made["batch"], made["rank"], made["tasks_per_worker"], made["prefetch"]) == (batch, 1, 3, 0)
    second = served.api("POST", "/recruiters", {"batch": batch, "rank": 2})
    assert (second["tasks_per_worker"], second["flavor"], second["concurrency"]) == (1, None, None)
    assert served.api("POST", "/recruiters", {"batch": batch, "rank": 2}) == second
    assert [r["id"] for r in served.items("/recruiters", batch=batch)] == [made["id"], second["id"]]
    assert served.items("/recruiters", batch=batch, rank=2) == [second]
    page = served.api("GET", "/recruiters", batch=batch, limit=1)
    assert page["items"] == [made] and served.api("GET", "/recruiters", batch=batch, after=page["next"])["items"] == [second]
    changed = served.api("PATCH", f"/recruiters/{made['id']}", {"flavor": None, "maximum_workers": 7})
    assert changed == made | {"flavor": None, "maximum_workers": 7} == served.api("GET", f"/recruiters/{made['id']}")
    served.api("DELETE", f"/recruiters/{made['id']}")
    refused(served, "GET", f"/recruiters/{made['id']}", status=404)
    served.api("DELETE", f"/batches/{batch}")
    assert served.items("/recruiters", batch=batch) == []


@pytest.mark.parametrize(
    "body, field, words",
    [
        ({"flavor": "auto:cpuu>=8"}, "flavor", "did you mean 'cpu'"), ({"flavor": "cpu>=8"}, "flavor", "begins with 'auto:'"),
        ({"flavor": ""}, "flavor", ""), ({"concurrency": 0}, "concurrency", ""),
        ({"tasks_per_worker": 0}, "tasks_per_worker", ""),
        ({"rank": -1}, "rank", ""), ({"minimum_task": 3}, "minimum_task", "did you mean"),
        ({"maximum_workers": "3"}, "maximum_workers", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_name(served, batch, body, field, words):
    error = refused(served, "POST", "/recruiters", {"batch": batch, **body})
    assert error["field"] == field and words in error["message"]
    assert served.items("/recruiters", batch=batch) == []


def test_a_worker_says_what_it_is_and_people_change_it(served, batch):
    hands = Hands(served, batch, batch, flavor="b2-30", provider="ovh", region="GRA11")
    assert (hands.row["flavor"], hands.row["provider"], hands.row["region"], hands.row["home"]) == ("b2-30", "ovh", "GRA11", None)
    changed = served.api("PATCH", f"/workers/{hands.row['id']}", {"flavor": "b2-60", "region": None})
    assert (changed["flavor"], changed["provider"], changed["region"]) == ("b2-60", "ovh", None)
    again = Hands(served, batch, batch, region="SBG5").row
    assert (again["id"], again["flavor"], again["region"]) == (hands.row["id"], "b2-60", "SBG5"), "what it does not say stays"
    assert "protofilter" in refused(served, "PATCH", f"/workers/{again['id']}", {"flavor": "auto"})["message"]


def test_match_tells_who_would_do(served, batch):
    known = {"cpus": 8, "memory_bytes": 32 * 10**9}
    for name, flavor in (("big", "b2-60"), ("small", "b2-15"), ("hand", None)):
        Hands(served, f"{batch}-{name}", f"{batch}-{name}", flavor=flavor, region=batch, **known)
    for rank, flavor in enumerate(("b2-60", "auto:cpu>=8:ram>=30", "auto:cpu>8", None), 1):
        served.api("POST", "/recruiters", {"batch": batch, "rank": rank, "flavor": flavor, "region": batch})
    found = served.items("/recruiters/match", batch=batch)
    names = [[w["name"].rpartition("-")[2] for w in one["workers"]] for one in found]
    assert names == [["big"], ["big", "small"], [], ["big", "small", "hand"]]
    assert all(w["idle"] for one in found for w in one["workers"])


def test_recruiters_of_lib_in_both_styles(served, batch):
    with Server(served.url, token=served.token) as plain, Server(served.url, token=served.token, style="object") as server:
        made = plain.recruiter_create(batch, 2, 10, "auto:cpu>=8", 4, "GRA11", "ovh", 1, 5, 3)
        assert (made["rank"], made["tasks_per_worker"]) == (2, 10)
        assert (made["worker_flavor"], made["maximum_workers"]) == ("auto:cpu>=8", 3)
        changed = server.recruiter_update(batch, 2, flavor=RESET, minimum_tasks=6, new_rank=3)
        assert (changed.rank, changed.flavor, changed.minimum_tasks, changed.concurrency) == (3, None, 6, 4)
        assert [one.id for one in server.recruiters(batch=batch)] == [made["id"]]
        assert server.recruiters_match(batch)[0].workers == []
        with pytest.raises(InvalidRequest, match="at character 6"):
            server.recruiter_create(batch, flavor="auto:nothing")
        server.recruiter_delete(batch, 3)
        with pytest.raises(NotFound, match="has no recruiter of rank 3"):
            server.recruiter_delete(batch, 3)


def test_the_verbs_of_manage(lab, batch):
    cli = lab.cli
    cli("manage", "recruiter", "create", "-b", batch, "-f", "auto:cpu>=900", "-C", "2", "-T", "5", "-W", "3", code=0)
    told = cli("manage", "recruiter", "list", "-b", batch, "-o", "json", code=0).stdout
    (row,) = json.loads(told)
    assert (row["flavor"], row["tasks_per_worker"], row["maximum_workers"], row["concurrency"]) == ("auto:cpu>=900", 5, 3, 2)
    cli("manage", "recruiter", "update", "-b", batch, "-m", "4", "--unset", "maximum_workers", code=0)
    (row,) = json.loads(cli("manage", "recruiter", "list", "-b", batch, "-o", "json", code=0).stdout)
    assert (row["minimum_tasks"], row["maximum_workers"]) == (4, None)
    bad = cli("manage", "recruiter", "create", "-b", batch, "-n", "2", "-f", "auto:cpu=>8", code=2)
    assert "at character 9" in bad.stderr and len(bad.stderr.splitlines()) == 1
    cli("manage", "recruiter", "create", "-b", batch, "-n", "3", code=0)
    lines = cli("manage", "recruiter", "match", "-b", batch, code=0).stdout.splitlines()
    assert lines[0].split("  ")[-1] == "NOT IDLE" and lines[1].endswith("-") and lines[2].endswith("w1 (Default)  -")
    (row,) = json.loads(cli("manage", "recruiter", "match", "-b", batch, "-n", "3", "-o", "json", code=0).stdout)
    assert [(one["name"], one["idle"]) for one in row["workers"]] == [("w1", True)]
    assert "what should be changed" in cli("manage", "recruiter", "update", "-b", batch, code=2).stderr
    assert "--yes" in cli("manage", "recruiter", "delete", "-b", batch, code=2).stderr
    cli("manage", "recruiter", "delete", "-b", batch, "--yes", code=0)
    cli("manage", "recruiter", "delete", "-b", batch, "--yes", code=3)


# --- real workers -----------------------------------------------------------------------------------------------------


def test_an_idle_worker_does_the_work_of_another_batch_and_then_its_own(env_on_each):
    env = env_on_each
    env.server()
    env.worker(2, "--flavor", "local", "--region", "here", name="mine", batch="own")
    env.worker(2, name="by-hand", batch="own2")
    env.api("POST", "/recruiters", {"batch": "other", "flavor": "auto:cpu>=1", "region": "here", "concurrency": 1})
    theirs = env.create(*({"command": "true", "batch": "other"} for _ in range(3)))
    env.wait_state(theirs)
    row = worker_of(env, "mine")
    assert (row["batch"], row["concurrency"], row["home"]) == ("other", 1, "own")
    assert worker_of(env, "by-hand")["batch"] == "own2", "it has no flavor"
    (own,) = env.create({"command": "true", "batch": "own"})
    env.wait_state(own)
    row = worker_of(env, "mine")
    assert (row["batch"], row["concurrency"], row["home"]) == ("own", 2, None)
    assert [(e["who"], e["detail"]["batch"]) for e in moves(env, "worker.recruit")] == [("scheduler", "other")]
    assert len(moves(env, "worker.return")) == 1


def test_what_runs_is_not_disturbed_when_its_worker_is_called_home(env):
    env.server()
    env.worker(2, name="w", batch="own")
    env.api("POST", "/recruiters", {"batch": "other", "concurrency": 1})
    gate = env.directory / "gate"
    (long,) = env.create({"command": f"while [ ! -e {gate} ]; do sleep 0.05; done; echo whole", "shell": "sh", "batch": "other"})
    env.wait_state(long, "running")
    (own,) = env.create({"command": "true", "batch": "own"})
    env.wait_state(own)
    assert env.state(long) == "running" and worker_of(env, "w")["batch"] == "own"
    gate.touch()
    env.wait_state(long)
    assert env.stdout(long) == b"whole\n" and len(env.executions(long)) == 1


def test_a_server_that_is_killed_forgets_neither_recruiters_nor_whom_they_took(env_on_each):
    """Killed while workers move to and fro; every task runs, once, and a worker ends where it is at home or was taken to."""
    env = env_on_each
    server = env.server()
    for name in ("a", "b"):
        env.worker(1, name=name, batch=f"of-{name}")
    for name in ("left", "right"):
        env.api("POST", "/recruiters", {"batch": name, "maximum_workers": 1})
    gate = env.directory / "gate"
    held = env.create({"command": f"while [ ! -e {gate} ]; do sleep 0.05; done", "shell": "sh", "batch": "left"})
    ran = {"command": f"echo ran >> {env.directory}/ran", "shell": "sh"}
    tasks = env.create(*({**ran, "batch": side} for side in ("left", "right") * 6))
    env.wait_state(held, "running")
    server.kill9()
    gate.touch()
    server.start()
    env.wait_state([*held, *tasks])
    assert len((env.directory / "ran").read_text().split()) == len(tasks)
    assert [r["batch"] for r in env.items("/recruiters")] == ["left", "right"]
    rows = {name: worker_of(env, name) for name in ("a", "b")}
    for name, row in rows.items():
        away = row["home"] == f"of-{name}" and row["batch"] in ("left", "right")
        assert away or (row["home"], row["batch"]) == (None, f"of-{name}")
    own = env.create({"command": "true", "batch": "of-a"}, {"command": "true", "batch": "of-b"})
    env.wait_state(own)
    assert [worker_of(env, name)["batch"] for name in ("a", "b")] == ["of-a", "of-b"]
    ran = sum(len(env.executions(task)) for task in [*held, *tasks, *own])
    assert ran == len([*held, *tasks, *own])
    assert len(moves(env, "worker.recruit")) + len(moves(env, "worker.return")) <= 2 * ran
