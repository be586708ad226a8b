"""Workers as jobs of a real Slurm, beyond what all providers do alike."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from clouds.rig import KEY, TOKEN
from clouds.slurm import Rig
from ports import free_port
from scitq.cloud.provider import BROKEN, CREATING, UP, CloudRefused, CloudTrouble, NoRoom
from services import needed
from test_cloud_providers import OURS, remove_all, until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Rig(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        yield made
        left = made.things()
    made.close()
    assert left == set()


@pytest.fixture
def order(cluster):
    yield cluster.order()
    remove_all(cluster, OURS)


def state(cluster, order) -> str:
    return cluster.machine(order.name).state


# --- a worker that works ---------------------------------------------------------------------------------------------------


def working(cluster, env, order, command: str):
    """The provider, and a task that runs on its worker."""
    env.server()
    provider = cluster.provider(config={**cluster.config, "url": env.url})
    provider.create(replace(order, start=replace(order.start, token=env.token, worker="there")))
    task = env.launch("sh", "-c", command)
    env.wait_state(task, "running")
    return provider, task


def test_slurm_ends_a_worker_in_order(cluster, env, order):
    """Before the time limit the worker is told: what it ran goes back without using a retry, and nothing stays on the node."""
    _, task = working(cluster, env, order, "sleep 1000")
    assert state(cluster, order) == UP
    cluster.cluster.said("scancel", "--batch", "--signal=TERM", cluster.job(order))
    env.until(lambda: env.state(task) == "pending", what="the task is back in the queue")
    (attempt,) = env.executions(task)
    assert (attempt["state"], attempt["reason"]) == ("lost", "its worker was stopped")
    until(lambda: state(cluster, order) == BROKEN, "its job has ended")
    assert "its job has ended" in cluster.machine(order.name).message
    assert list(cluster.scratch.iterdir()) == []


def test_deleted_it_takes_all_with_it(cluster, env, order):
    provider, task = working(cluster, env, order, "setsid sleep 1000 & echo $$ $!; sleep 1000")
    pids = [int(word) for word in env.until(lambda: env.stdout(task).split(), what="it says its processes")]
    provider.delete(cluster.machine(order.name))
    assert cluster.things() == set() and list(cluster.scratch.iterdir()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_anybody_may_see_of_a_job_holds_no_secret(cluster, order):
    cluster.provider().create(order)
    until(lambda: state(cluster, order) == UP, "it runs")
    job = cluster.job(order)
    seen = cluster.cluster.said("scontrol", "-dd", "show", "job", job) + cluster.cluster.said(
        "scontrol", "write", "batch_script", job, "-"
    )
    assert order.name in seen and OURS in seen
    assert TOKEN not in seen and KEY not in seen
    secret = [path for path in (cluster.folder / order.name).iterdir() if TOKEN in path.read_text() or KEY in path.read_text()]
    assert len(secret) == 2 and all(path.stat().st_mode & 0o77 == 0 for path in [*secret, cluster.folder / order.name])


# --- the queue, and ends ---------------------------------------------------------------------------------------------------


def test_one_that_waits_says_why_and_one_that_was_ended_too(cluster, order):
    config = {**cluster.config, "flavors": {"large": {"cpu": 64}}}
    provider, second = cluster.provider(config=config), replace(order, name=order.name + "b", flavor="large")
    provider.create(replace(order, flavor="large"))
    until(lambda: state(cluster, order) == UP, "it runs")
    assert provider.create(second).state == CREATING
    waits = until(lambda: (m := cluster.machine(second.name)).message == "its job waits: Resources" and m, "it says why it waits")
    assert (waits.state, waits.extra) == (CREATING, {"queued": "Resources"})
    cluster.cluster.said("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test")
    until(lambda: state(cluster, order) == BROKEN, "its node went away")
    cluster.cluster.said("scontrol", "update", "NodeName=node1", "State=RESUME")
    assert "NODE_FAIL" in cluster.machine(order.name).message
    until(lambda: state(cluster, second) == UP, "the other has its turn")


def test_a_turn_that_takes_longer_than_a_boot(cluster, env):
    """A worker by the server, with a token of its own: to wait in the queue is no failure, and in its turn it works."""
    port = free_port()
    keys = {**cluster.config, "url": f"http://127.0.0.1:{port}", "flavors": {"small": {"cpu": 1}}}
    config = cluster.configuration(env.directory / "server.yaml", keys, boot_timeout="1s", retry=0)
    env.server("--config", config, "--port", str(port), variables=cluster.environ)
    other = cluster.cluster.said("sbatch", "--parsable", "--cpus-per-task=64", "--output=/dev/null", "--wrap=sleep 1000").strip()
    until(lambda: cluster.cluster.said("squeue", "-h", "-j", other, "-o", "%T").strip() == "RUNNING", "somebody else has all")
    env.cli("manage", "worker", "deploy", "-P", "it", "-r", "it", "-f", "small", "-b", "long", code=0)
    env.until(lambda: "its job waits" in (env.items("/jobs", kind="deploy")[0]["step"] or ""), what="it waits")
    late = time.monotonic() + 2.0
    env.until(lambda: time.monotonic() > late, what="the time of a boot is over")
    assert [row["state"] for row in env.items("/machines")] == ["booting"]
    cluster.cluster.said("scancel", other)
    env.wait_state(env.launch("-b", "long", "true"))
    env.cli("manage", "worker", "delete", "-n", "it-1", "--wait", "--yes", code=0)
    assert cluster.things() == set()


def test_a_server_that_a_node_does_not_reach(cluster, order):
    with pytest.raises(CloudRefused, match="nodes of it cannot reach this server at http://127.0.0.1:.*: start it at .*--host"):
        cluster.provider(config={**cluster.config, "url": None}).create(
            replace(order, start=replace(order.start, server="http://127.0.0.1:9"))
        )
    assert cluster.things() == set()
    cluster.provider(config={**cluster.config, "url": "http://127.0.0.1:9"}).create(order)
    until(lambda: state(cluster, order) == BROKEN, "it finds out")
    assert "does not reach the server at 127.0.0.1:9: Connection refused" in cluster.machine(order.name).message


# --- what cannot be --------------------------------------------------------------------------------------------------------


def test_flavors_are_partitions_and_what_is_configured(cluster):
    flavors = {"gpu": {"cpu": 8, "ram": 32, "gpus": 2, "gpu": "a100", "gpumem": 80, "price": 1.5}}
    found = {
        flavor.name: flavor
        for flavor in cluster.provider(config={**cluster.config, "flavors": flavors, "currency": "EUR"}).flavors()
    }
    assert set(found) == {"main", "shut", "gpu"}
    assert (found["main"].cpu, found["main"].available, found["shut"].available) == (64, 100, 0) and found["main"].ram > 0.5
    assert (found["gpu"].gpus, found["gpu"].gpu, found["gpu"].tags, found["gpu"].price, found["gpu"].ram) == (
        2,
        "a100",
        "G",
        1.5,
        32,
    )


def test_what_slurm_would_refuse_is_refused_before(cluster, order):
    for flavor, said in (("main", None), ("gpu", "gres"), ("huge", "node configuration"), ("late", "time"), ("shut", None)):
        kinds = {"gpu": {"gpus": 1}, "huge": {"ram": 10**6}, "late": {"time": "soon"}}
        provider = cluster.provider(config={**cluster.config, "flavors": kinds})
        if said is None:
            provider.check(flavor, "it", 1)
            continue
        for ask in (lambda: provider.check(flavor, "it", 1), lambda: provider.create(replace(order, flavor=flavor))):
            with pytest.raises(CloudRefused, match=f"(?i)sbatch of provider it: .*{said}"):
                ask()
        provider.delete(cluster.machine(order.name))
    with pytest.raises(NoRoom, match="room for 0 more workers"):
        provider = cluster.provider(config={**cluster.config, "maximum": 1})
        provider.create(order)
        provider.check("small", "it", 1)


def test_a_cluster_that_is_away(cluster, order, monkeypatch, tmp_path):
    cluster.provider().create(order)
    text = (
        (cluster.cluster.folder / "slurm.conf")
        .read_text()
        .replace("SlurmctldPort=", "SlurmctldPort=9\nSlurmctldTimeout=1\nMessageTimeout=1\n#")
    )
    (tmp_path / "slurm.conf").write_text(text)
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        for ask in (lambda: cluster.provider().list(), lambda: cluster.provider().delete(cluster.machine(order.name))):
            with pytest.raises(CloudTrouble):
                ask()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(CloudRefused, match="squeue is not there"):
            cluster.provider().list()
    assert cluster.names() == [order.name]


# --- many at once, and killed ----------------------------------------------------------------------------------------------


def test_two_at_once_are_one_job_and_no_more_than_the_maximum(cluster, order):
    config, ended = {**cluster.config, "maximum": 1}, []

    def ask(one):
        try:
            ended.append(cluster.provider(config=config).create(one).name)
        except NoRoom as error:
            ended.append(str(error))

    threads = [threading.Thread(target=ask, args=[one]) for one in (order, order, replace(order, name=order.name + "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (there,) = cluster.names()
    assert len(ended) == 3 and {name for name in ended if "maximum" not in name} == {there}
    assert len([thing for thing in cluster.things() if thing.startswith("job")]) == 1


KILLER = """#!/bin/sh
test "$KILL_WHEN" = before || {program} "$@"
kill -9 0
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_job_is_submitted(cluster, order, monkeypatch, tmp_path, when):
    (tmp_path / "sbatch").write_text(KILLER.format(program=needed("sbatch", "slurm-client")))
    (tmp_path / "sbatch").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        patch.setenv("KILL_WHEN", when)
        with pytest.raises(CloudTrouble):
            cluster.call("create", order=asdict(order)).answer()
    assert cluster.names() == [order.name]
    cluster.provider().create(order)
    until(lambda: state(cluster, order) == UP, "it runs")
    assert len([thing for thing in cluster.things() if thing.startswith("job")]) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"flavors": {"a": {"cpus": 4}}}, r"flavors.a.cpus: there is no such key \(did you mean 'cpu'"),
        ({"flavors": {"a": 4}}, "flavors.a: wants a name"),
        ({"options": ["--job-name=x"]}, "options: --job-name is chosen by scitq"),
        ({"options": ["-A lab", "lab"]}, "options: 'lab' is no option of sbatch"),
        ({"python": "python3; rm"}, "python: the path of a Python"),
        ({"maximum": 0}, "maximum: a whole number of 1 or more"),
    ],
)
def test_a_wrong_configuration_is_named(cluster, config, said):
    with pytest.raises(ValueError, match="providers.it." + said):
        cluster.provider(config=config)
