"""Promise 48: every change is one line of the event log: who did what to which things, and when. On both databases."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from datetime import datetime, timezone

import onefile
import pytest
from doors import TABLE
from env import Env
from hands import Hands
from scitq.errors import ScitqError
from scitq.protocol import Report
from scitq.transport import Connection

API = "/api/v1"
# A worker's own word is no change by anybody: what it says is kept in its executions. A cookie is the browser's.
NOT_LOGGED = {f"POST {API}/workers/<id:id>/sync", "POST /login", "POST /logout"}
WRITES = {f"{route.method} {route.path}": route for route in TABLE if route.writes}


class People:
    """A server, its administrator, a user, and what they work with."""

    def __init__(self, env: Env):
        self.env, self.count = env, 0
        self.tokens = {env.api("GET", "/server")["you"]["name"]: env.token}
        self.administrator = next(iter(self.tokens))
        self.tokens["ursula"] = env.api("POST", "/tokens", {"name": "ursula"})["token"]

    def new(self) -> str:
        """A name that nothing has yet."""
        self.count += 1
        return f"n{self.count}"

    def task(self, batch: str = "nobody") -> int:
        return self.env.create({"command": "true", "batch": batch})[0]

    def running(self) -> int:
        """A task that runs on a worker that only says so."""
        name = self.new()
        task, hands = self.task(name), Hands(self.env, name, name)
        hands.sync()
        (execution,) = hands.held
        hands.sync(Report(execution, "running", started_ago=1.0))
        return task

    def worker(self) -> int:
        return Hands(self.env, self.new(), "idle").row["id"]

    def recruiter(self) -> int:
        return self.env.api("POST", "/recruiters", {"batch": self.new()})["id"]

    def notifier(self) -> int:
        return self.env.api("POST", "/notifiers", {"batch": self.new(), "webhook": "https://hooks.example.org/x"})["id"]

    def machine(self, provider: str) -> dict:
        """What is being deployed there: `local` for ever, for its worker never calls; at `broken` that fails."""
        wish = {"provider": provider, "flavor": "local", "region": "local", "concurrency": 1}
        return self.env.api("POST", "/workers/deploy", wish)["items"][0]

    def failed(self) -> int:
        """A job that failed."""
        job = self.machine("broken")["job"]
        self.env.until(lambda: self.env.api("GET", f"/jobs/{job}")["state"] == "failed")
        return job

    def batch(self) -> str:
        name = self.new()
        self.task(name)
        return name

    def ask(self, who: str, route: str, number: int | str = 1, body=None, **headers):
        """One request of one of them to a route of the table; its answer."""
        method, path = route.split()
        path = re.sub(r"<\w+:id>|<name[^>]*>", str(number), path)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with Connection(self.env.url, self.tokens.get(who, who)) as connection:
            return connection.request(method, path, {} if body is None else body, headers=named)

    def lines(self, after: int) -> list[dict]:
        """What people did since then; providers and machines go on by themselves meanwhile."""
        return [line for line in self.env.api("GET", "/events", after=after, limit=5000)["items"] if line["who"] in self.tokens]

    def last(self) -> int:
        return self.env.api("GET", "/events", order="-id", limit=1)["items"][0]["id"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def people(request, tmp_path_factory):
    """On each database; with providers of which no machine ever comes up."""
    url = request.getfixturevalue("postgres").new_database() if request.param == "postgresql" else None
    env = Env(tmp_path_factory.mktemp("people"), url)
    config = env.directory / "config.yaml"
    config.write_text("url: http://127.0.0.1:9\nproviders: {broken: {kind: local, scratch: /proc/nowhere}}\n")
    one_file = env.directory / "scitq.pyz"  # where a test may make one
    env.server("--config", str(config), variables={"SCITQ_ONE_FILE": str(one_file)})
    yield People(env)
    for machine in env.items("/machines"):
        env.answer("DELETE", f"/machines/{machine['id']}")
    env.until(lambda: env.items("/machines") == [], what="all machines are gone")
    env.close()


# One change for each route that changes anything: to what (its number or name), the body, and the line that must be there.
# `None` as the ids: they are in the answer; a noun: they are so called in the items of the answer.
CHANGES = {
    f"POST {API}/tasks": lambda p: (1, {"tasks": [{"command": "true", "batch": "nobody"}] * 3}, "task.create", None),
    f"PATCH {API}/tasks/<id:id>": lambda p: ((t := p.task()), {"name": "x"}, "task.edit", [t]),
    f"DELETE {API}/tasks/<id:id>": lambda p: ((t := p.task()), {}, "task.delete", [t]),
    f"POST {API}/tasks/edit": lambda p: (1, {"ids": [t := p.task()], "set": {"retry": 2}}, "task.edit", [t]),
    f"POST {API}/tasks/relaunch": lambda p: (1, {"ids": [t := _canceled(p)]}, "task.relaunch", [t]),
    f"POST {API}/tasks/cancel": lambda p: (1, {"ids": [t := p.task()]}, "task.cancel", [t]),
    f"POST {API}/tasks/delete": lambda p: (1, {"ids": [t := p.task()]}, "task.delete", [t]),
    f"POST {API}/tasks/signal": lambda p: (1, {"ids": [t := p.running()], "action": "suspend"}, "task.suspend", [t]),
    f"POST {API}/batches/<name:path>/stop": lambda p: ((b := p.batch()), {"running": "kill"}, "batch.stop", [b]),
    f"POST {API}/batches/<name:path>/go": lambda p: ((b := p.batch()), {}, "batch.go", [b]),
    f"DELETE {API}/batches/<name:path>": lambda p: ((b := p.batch()), {}, "batch.delete", [b]),
    f"POST {API}/workers": lambda p: (1, _registration(p.new()), "worker.register", None),
    f"PATCH {API}/workers/<id:id>": lambda p: ((w := p.worker()), {"concurrency": 7, "batch": p.new()}, "worker.update", [w]),
    f"DELETE {API}/workers/<id:id>": lambda p: ((w := p.worker()), {}, "worker.delete", [w]),
    f"POST {API}/workers/<id:id>/upgrade": lambda p: ((w := _upgradable(p)), {}, "worker.upgrade", [w]),
    f"POST {API}/recruiters": lambda p: (1, {"batch": p.new()}, "recruiter.create", None),
    f"PATCH {API}/recruiters/<id:id>": lambda p: ((r := p.recruiter()), {"flavor": "auto:cpu>=8"}, "recruiter.update", [r]),
    f"DELETE {API}/recruiters/<id:id>": lambda p: ((r := p.recruiter()), {}, "recruiter.delete", [r]),
    f"POST {API}/notifiers": lambda p: (1, {"batch": p.new(), "webhook": "https://h.example.org/x"}, "notifier.create", None),
    f"DELETE {API}/notifiers/<id:id>": lambda p: ((n := p.notifier()), {}, "notifier.delete", [n]),
    f"POST {API}/workers/deploy": lambda p: (
        1, {"flavor": "local", "region": "local", "provider": "broken"}, "worker.deploy", "worker",
    ),
    f"DELETE {API}/machines/<id:id>": lambda p: ((m := p.machine("local")["machine"]), {}, "machine.destroy", [m]),
    f"POST {API}/jobs/<id:id>/cancel": lambda p: ((j := p.machine("local")["job"]), {}, "job.cancel", [j]),
    f"POST {API}/jobs/<id:id>/relaunch": lambda p: ((j := p.failed()), {}, "job.relaunch", [j]),
    f"DELETE {API}/jobs/<id:id>": lambda p: ((j := p.failed()), {}, "job.delete", [j]),
    f"POST {API}/flavors/update": lambda p: (1, {"provider": "broken"}, "flavor.ask", ["broken"]),
    f"PATCH {API}/batches/<name:path>": lambda p: ((b := p.batch()), {"budget": 50}, "batch.update", [b]),
    f"POST {API}/tokens": lambda p: (1, {"name": p.new(), "role": "admin"}, "token.create", None),
    f"DELETE {API}/tokens/<id:id>": lambda p: ((t := p.env.api("POST", "/tokens", {"name": "x"})["id"]), {}, "token.revoke", [t]),
    f"POST {API}/backup": lambda p: (1, {}, "server.backup", None),
}  # fmt: skip


def _canceled(people: People) -> int:
    task = people.task()
    people.env.api("POST", "/tasks/cancel", {"ids": [task]})
    return task


def _upgradable(people: People) -> int:
    """A worker of a server that has a one file to give out."""
    onefile.make(people.env.directory / "scitq.pyz")
    return people.worker()


def _registration(name: str) -> dict:
    return {"name": name, "key": name * 20, "hostname": "h", "concurrency": 0}


# --- the walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", sorted(WRITES.keys() - NOT_LOGGED))
def test_a_change_is_one_line(people, route):
    assert route in CHANGES, "a new route that changes things: say here which line its change is"
    if route.endswith("/backup") and people.env.database:
        pytest.skip("PostgreSQL has backups of its own")
    number, body, action, ids = CHANGES[route](people)
    who = people.administrator if "admin" in WRITES[route].roles else "ursula"
    before, began = people.last(), time.time()
    answer = people.ask(who, route, number, body)
    assert answer.status < 300, answer.body
    (line,) = people.lines(before)
    assert (line["who"], line["action"], line["object"]) == (who, action, action.partition(".")[0])
    assert _expanded(line["ids"]) == (_ids_in(answer, ids) if ids in (None, "worker") else ids)
    at = datetime.fromisoformat(line["at"].replace("Z", "+00:00"))
    assert at.tzinfo == timezone.utc and began - 1 <= at.timestamp() <= time.time() + 1


def _ids_in(answer, noun: str | None) -> list:
    told = answer.json()
    if noun is not None:
        return [item[noun] for item in told["items"]]
    return told["ids"] if "ids" in told else [told["id"]] if "id" in told else [told["path"].rpartition("/")[2]]


def _expanded(words: list) -> list:
    """The ids that `3` and `5-9` stand for."""
    found: list = []
    for word in words:
        if isinstance(word, str) and re.fullmatch(r"\d+-\d+", word):
            first, last = map(int, word.split("-"))
            found += range(first, last + 1)
        else:
            found.append(word)
    return found


def test_the_table_has_no_way_to_alter_a_line():
    assert {route.method for route in TABLE if "/events" in route.path} == {"GET"}
    assert NOT_LOGGED < WRITES.keys() and CHANGES.keys() == WRITES.keys() - NOT_LOGGED


@pytest.mark.parametrize("route", sorted(WRITES))
def test_what_is_refused_is_no_line(people, route):
    """A stranger, a worker of another number, a thing that is not there, a field that is not known."""
    worker = Hands(people.env, people.new(), "idle").row["token"]
    before = people.last()
    bodies = [{"there is no such field": 1}, [], {"ids": [1], "filter": {"name": "*"}}]
    for who in ("scitq_stranger", worker, "ursula", people.administrator):
        for body in bodies:
            for number in (2**31 - 1, "no%20such%20batch") if "<name" in route else (2**31 - 1,):
                answer = people.ask(who, route, number, body)
                assert answer.status >= 400, (who, number, body)
    assert people.lines(before) == []


# --- what is one change -----------------------------------------------------------------------------------------------


def test_looking_is_no_change(people):
    before = people.last()
    task = people.env.items("/tasks")[0]["id"]
    for path in ("/tasks", f"/tasks/{task}", f"/tasks/{task}/explain", "/tasks/counts", "/executions", "/batches", "/workers",
                 "/events", "/tokens", "/server"):  # fmt: skip
        people.env.api("GET", path)
    everything = {"filter": {"name": "*", "batch": "nobody"}, "dry_run": True}
    for verb, more in {
        "edit": {"set": {"name": "y"}},
        "relaunch": {},
        "cancel": {},
        "delete": {},
        "signal": {"action": "kill"},
    }.items():
        people.env.api("POST", f"/tasks/{verb}", everything | more)
    assert people.lines(before) == []


def test_a_thousand_tasks_of_one_request_are_one_line(people):
    before = people.last()
    ids = people.env.create(*[{"command": "true", "batch": "thousand"}] * 1000)
    people.env.api("POST", "/tasks/delete", {"filter": {"batch": "thousand"}})
    created, deleted = people.lines(before)
    assert created["ids"] == deleted["ids"] == [f"{ids[0]}-{ids[-1]}"]


def test_a_request_sent_twice_is_one_line(people):
    before = people.last()
    body, key = {"command": "true", "batch": "nobody"}, f"k{before}"
    ids = [people.ask("ursula", f"POST {API}/tasks", body=body, Idempotency_Key=key).json()["ids"] for _ in range(3)]
    assert ids[0] == ids[1] == ids[2]
    assert [line["ids"] for line in people.lines(before)] == [ids[0]]


def test_a_worker_that_comes_back_is_a_line_each_time(people):
    """It gets another token, and the one before is worth nothing: that somebody must be able to see."""
    name, before = people.new(), people.last()
    first, second = (people.ask("ursula", f"POST {API}/workers", body=_registration(name)).json() for _ in range(2))
    assert first["id"] == second["id"] and first["token"] != second["token"]
    assert [(line["action"], line["ids"]) for line in people.lines(before)] == [("worker.register", [first["id"]])] * 2


def test_what_workers_say_is_no_line(people):
    task, name = people.task("told"), people.new()
    hands = Hands(people.env, name, "told")
    before = people.last()
    hands.sync()
    hands.end(task, stdout=b"some output")
    assert people.env.state(task) == "succeeded" and people.lines(before) == []


def test_lines_outlive_what_they_tell_of(people):
    batch, before = people.batch(), people.last()
    for route, body in ((f"POST {API}/batches/<name:path>/stop", {}), (f"DELETE {API}/batches/<name:path>", {})):
        people.ask("ursula", route, batch, body)
    assert people.env.answer("GET", f"/batches/{batch}").status == 404
    assert [line["action"] for line in people.lines(before)] == ["batch.stop", "batch.delete"]
    assert [line["who"] for line in people.lines(before)] == ["ursula"] * 2
    assert people.env.items("/events", who="ursula", object="batch")[-1]["ids"] == [batch]


def test_no_secret_is_in_a_line(people):
    before = people.last()
    made = people.env.api("POST", "/tokens", {"name": people.new()})
    worker = people.ask("ursula", f"POST {API}/workers", body=_registration(people.new())).json()
    task = people.task()
    people.env.api("PATCH", f"/tasks/{task}", {"env": {"PASSWORD": "open sesame"}})
    people.env.api("POST", "/tasks/edit", {"ids": [task], "set": {"env": {"PASSWORD": "open sesame"}}})
    lines = people.lines(before)
    shown = json.dumps(lines)
    assert len(lines) == 5 and shown.count("PASSWORD") == 2
    for secret in (made["token"], worker["token"], "open sesame"):
        assert secret not in shown


def test_many_at_once_lose_no_line(people):
    before = people.last()
    made: list[int] = []

    def work() -> None:
        for _ in range(20):
            made.extend(people.ask("ursula", f"POST {API}/tasks", body={"command": "true", "batch": "nobody"}).json()["ids"])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    told = [line["ids"] for line in people.lines(before)]
    assert sorted(told) == [[task] for task in sorted(made)] and len(made) == 120


def test_a_change_and_its_line_survive_together(env_on_each):
    """The server is killed while changes come in: of each there is all or nothing, and what was acknowledged is there."""
    env = env_on_each
    server, acknowledged = env.server(), []

    def work() -> None:
        with Connection(env.url, env.token) as connection, contextlib.suppress(ScitqError):  # until it is killed
            while True:
                acknowledged.append(connection.request("POST", f"{API}/tasks", {"command": "true"}).json()["ids"][0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    env.until(lambda: len(acknowledged) > 60, what="changes")
    server.kill9()
    for thread in threads:
        thread.join(30)
    server.start()
    tasks = [row["id"] for row in env.items("/tasks")]
    lines = [line["ids"] for line in env.items("/events", object="task")]
    assert sorted(lines) == [[task] for task in tasks]
    assert set(acknowledged) <= set(tasks)
