"""Several servers on one PostgreSQL database: one decides, all answer, and any of them may die."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import time

import pytest
from env import Env, ServerProcess
from postgres import Postgres
from scitq.protocol import API
from scitq.store.cluster import RETRY_SECONDS
from scitq.transport import Connection

TAKE_OVER_SECONDS = RETRY_SECONDS + 10.0  # until the next try to lead, and what a busy machine takes


@pytest.fixture
def cluster(tmp_path, postgres):
    made = Env(tmp_path, postgres.new_database())
    yield made
    made.close()


def servers_of(cluster: Env, *names: str, options: tuple[str, ...] = ()) -> list[ServerProcess]:
    """Servers that are started at the same moment."""
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: cluster.server(*options, name=name), names))


def ask(cluster: Env, server: ServerProcess, method: str, path: str, body=None, token: str | None = None, **query):
    """One request to this server."""
    with Connection(server.url, token=token or cluster.token, timeout=30) as connection:
        answer = connection.request(method, API + path, body, query)
    assert answer.status < 300, answer.body[:300]
    return json.loads(answer.body) if answer.body else None


def deciders(cluster: Env, servers: list[ServerProcess]) -> list[ServerProcess]:
    return [server for server in servers if server.alive and ask(cluster, server, "GET", "/server")["decides"]]


def one_decides(cluster: Env, servers: list[ServerProcess], seconds: float = TAKE_OVER_SECONDS) -> ServerProcess:
    cluster.until(lambda: len(deciders(cluster, servers)) == 1, seconds, "one of the servers decides")
    return deciders(cluster, servers)[0]


def test_servers_started_at_once_on_an_empty_database_agree(cluster):
    servers = servers_of(cluster, "one", "two", "three", "four")
    one_decides(cluster, servers)
    told = [ask(cluster, server, "GET", "/server") for server in servers]
    assert len({server["id"] for server in told}) == 1, "one made the database, the others found it"
    assert [batch["name"] for batch in cluster.items("/batches")] == ["Default"]
    made = ask(cluster, servers[1], "POST", "/tokens", {"name": "bob"})
    for server in servers:
        assert ask(cluster, server, "GET", "/server", token=made["token"])["you"]["name"] == "bob", "known everywhere at once"


def test_a_task_added_at_one_server_starts_on_a_worker_of_another_within_a_second(cluster):
    servers = servers_of(cluster, "one", "two", "three")
    decider = one_decides(cluster, servers)
    asked, polled = (server for server in servers if server is not decider)
    cluster.worker(1, server=polled.url)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        heard, began_after = [], []
        for number in range(3):
            seen = ask(cluster, polled, "GET", "/tasks/counts")
            waiting = pool.submit(ask, cluster, polled, "GET", "/tasks/counts", wait=20, version=seen["version"])
            began = time.time()
            (task,) = ask(cluster, asked, "POST", "/tasks", {"command": "date +%s.%N", "name": f"t{number}"})["ids"]
            waiting.result(60)
            heard.append(time.time() - began)
            cluster.wait_state(task)
            began_after.append(float(cluster.stdout(task)) - began)
    assert min(heard) < 1.0, f"who waits for news at another server hears of it too: {heard}"
    assert min(began_after) < 1.0 and max(heard + began_after) < 15.0, f"a busy machine may be late, not always: {began_after}"
    assert cluster.task(task)["worker"] == "w1"


def test_when_the_decider_is_killed_another_takes_over(cluster):
    servers = servers_of(cluster, "one", "two", "three")
    for _ in range(2):
        decider = one_decides(cluster, servers)
        decider.kill9()
        servers.remove(decider)
        one_decides(cluster, servers)  # though nothing happens that would wake anybody
        (asked, *_) = servers
        worker = cluster.worker(1, server=servers[-1].url, ready=False)
        (task,) = ask(cluster, asked, "POST", "/tasks", {"command": "true"})["ids"]
        cluster.until(
            lambda asked=asked, task=task: ask(cluster, asked, "GET", f"/tasks/{task}")["state"] == "succeeded",
            what="the task ended",
        )
        worker.stop()
    assert one_decides(cluster, servers) is servers[0]


def test_the_decider_hears_of_workers_that_speak_to_others(cluster):
    """It takes none for lost that is there, and each that is gone."""
    servers = servers_of(cluster, "one", "two", options=("--lost-after", "4"))
    decider = one_decides(cluster, servers)
    (polled,) = (server for server in servers if server is not decider)
    worker = cluster.worker(1, server=polled.url)
    (task,) = cluster.create("sleep 5.5; echo done")
    cluster.wait_state(task)
    assert len(cluster.executions(task)) == 1 and worker.row["state"] == "online"
    (task,) = cluster.create("sleep 60")
    cluster.wait_state(task, "running")
    worker.pause()
    cluster.until(lambda: cluster.executions(task)[0]["state"] == "lost", what="its worker is taken for lost")
    worker.resume()
    cluster.until(lambda: len(cluster.executions(task)) == 2, what="it is tried again")
    cluster.api("POST", "/tasks/cancel", {"ids": [task]})
    cluster.wait_state(task, "canceled")


def test_no_task_runs_twice_while_servers_die(cluster):
    """Workers of every server, tasks that note that they ran, and whoever decides is killed again and again."""
    servers = servers_of(cluster, "one", "two", "three")
    for server in servers:
        cluster.worker(4, "--prefetch", "2", server=server.url)
    log = cluster.directory / "ran"
    specs = [{"command": f"sleep 0.2; echo $SCITQ_TASK_ID >> {log}", "shell": "sh", "retry": 2} for _ in range(200)]
    tasks = ask(cluster, servers[0], "POST", "/tasks", {"tasks": specs})["ids"]
    (last,) = ask(cluster, servers[1], "POST", "/tasks", {"command": "true", "require": tasks})["ids"]
    for _ in range(3):
        decider = one_decides(cluster, servers)
        decider.kill9()
        one_decides(cluster, servers)
        decider.start()
    cluster.wait_state([*tasks, last])
    assert sorted(map(int, log.read_text().split())) == tasks, "each ran once"
    started = [row["task_id"] for row in cluster.items("/executions") if row["started_at"]]
    assert sorted(started) == [*tasks, last], "what was given back before it started is no second run"


def test_the_database_dies_and_comes_back(tmp_path):
    database = Postgres(("-c", "max_connections=100"))  # durable: the quick ones forget when they are killed
    cluster = Env(tmp_path, database.new_database())
    try:
        servers = servers_of(cluster, "one", "two")
        one_decides(cluster, servers)
        cluster.worker(1, server=servers[1].url)
        first, second = cluster.create(f"sleep 1; echo a >> {tmp_path}/ran", f"echo b >> {tmp_path}/ran")
        cluster.wait_state(first, "running")
        database.kill9()
        with Connection(servers[0].url, token=cluster.token, timeout=30) as connection:
            answer = connection.request("POST", f"{API}/tasks", {"command": "lost"})
            assert answer.status == 503 and answer.json()["error"]["message"], "refused, not lost in silence"
        database.start()
        one_decides(cluster, servers, 2 * TAKE_OVER_SECONDS)
        cluster.wait_state([first, second])
        assert (tmp_path / "ran").read_text() == "a\nb\n" and len(cluster.items("/tasks")) == 2
    finally:
        with contextlib.closing(database):
            cluster.close()
