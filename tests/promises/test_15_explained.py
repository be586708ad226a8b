"""Promise 15: every accepted task ends, or says why it waits; and what it says to do moves it on."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import re
import shlex
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from env import Env
from hands import Hands
from scitq.protocol import FINAL, Report

from scitq import explain

SAID: dict[str, dict[str, set[str]]] = {}  # by database and situation: every sentence that was said


@pytest.fixture(scope="module")
def work(served):
    """The server of this file, and one real worker for all its batches."""
    served.real = served.worker(4, name="real")
    return served


def why(env: Env, task: int) -> str:
    told = env.api("GET", f"/tasks/{task}/explain")
    assert told["state"] == env.state(task) and re.search(r"[.`]$", told["sentence"]), told
    SAID.setdefault(env.database or "sqlite", {}).setdefault(told["state"], set()).add(told["sentence"])
    return told["sentence"]


def obey(env: Env, sentence: str) -> None:
    """Does what the sentence says is to be done, as it says it."""
    [command] = re.findall(r"`scitq (manage .+?)`", sentence)
    done = env.cli(*shlex.split(command))
    if "--yes" in done.stderr:
        done = env.cli(*shlex.split(command), "--yes")
    assert done.returncode == 0, f"{command}: {done.stderr}"


def one(work: Env, batch: str, command: str = "true", **more) -> int:
    return work.create({"command": command, "shell": "sh", "batch": batch, **more})[0]


def move_real_worker(env: Env, batch: str) -> None:
    """The real worker works for this batch from now on."""
    env.api("PATCH", f"/workers/{env.real.row['id']}", {"batch": batch, "concurrency": 4, "prefetch": 0, "draining": False})


def set_offline(env: Env, worker_id: int) -> None:
    """What the monitor notes after a minute of silence, noted now."""
    statement = f"UPDATE worker SET offline = {'TRUE' if env.database else 1} WHERE id = {worker_id}"
    if env.database:
        import psycopg2

        connection = psycopg2.connect(env.database)
    else:
        connection = sqlite3.connect(env.directory / "server" / "scitq.db", timeout=20)
    with contextlib.closing(connection), connection:
        connection.cursor().execute(statement)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_it_waits_for_others(work, batch):
    first, second, *rest = [one(work, batch) for _ in range(8)]
    task = one(work, batch, require=[first, second, *rest])
    assert "waits for tasks" in why(work, task) and f"{first} (pending)" in why(work, task) and "and 3 more" in why(work, task)
    single = one(work, batch, require=[second])
    assert why(work, single) == f"It waits for task {second} (pending) to succeed."
    move_real_worker(work, batch)
    work.wait_state([task, single])


def test_what_it_waits_for_has_ended_badly(work, batch):
    move_real_worker(work, batch)
    bad = one(work, batch, "[ -e $SCITQ_TEST_FLAG ]", env={"SCITQ_TEST_FLAG": str(work.directory / batch)})
    task = one(work, batch, require=[bad])
    work.wait_state(bad, "failed")
    assert f"task {bad} (failed): relaunch what failed" in why(work, task)
    (work.directory / batch).touch()
    obey(work, why(work, bad))
    work.wait_state(task)


# --- pending ----------------------------------------------------------------------------------------------------------


def test_its_batch_is_stopped(work, batch):
    move_real_worker(work, batch)
    work.api("POST", f"/batches/{batch}/stop", {})
    task = one(work, batch)
    assert f"Batch {batch} is stopped" in why(work, task)
    obey(work, why(work, task))
    work.wait_state(task)


def test_no_worker_is_in_its_batch(work, batch):
    task = one(work, batch)
    assert f"No worker is in batch {batch}" in why(work, task)
    worker = work.worker(1, batch=batch)  # as the sentence says
    work.wait_state(task)
    work.api("DELETE", f"/workers/{worker.row['id']}")
    assert worker.wait_exit() == 3
    assert f"No worker is in batch {batch}" in why(work, one(work, batch))


def test_no_worker_of_its_batch_takes_work(work, batch):
    """Offline, draining, in trouble; more of them than a sentence names."""
    hands = [Hands(work, f"{batch}-{n}", batch) for n in range(7)]
    for one_hand in hands[2:]:
        work.api("PATCH", f"/workers/{one_hand.row['id']}", {"draining": True})
    hands[0].sync(problem="the disk of /scratch is full")
    set_offline(work, hands[1].row["id"])
    task = one(work, batch)
    said = why(work, task)
    assert f"{batch}-0 says: the disk of /scratch is full" in said and f"{batch}-1 is offline" in said
    assert f"{batch}-2 is draining" in said and said.endswith("and 2 more.")
    hands[1].sync()  # it is back
    assert work.state(task) == "assigned"
    hands[1].sync()
    hands[1].end(task)
    assert work.state(task) == "succeeded"


def test_its_workers_have_no_slots(work, batch):
    move_real_worker(work, batch)
    work.api("PATCH", f"/workers/{work.real.row['id']}", {"concurrency": 0})
    task = one(work, batch)
    said = why(work, task)
    assert f"The workers of batch {batch} have concurrency 0" in said
    obey(work, said.replace("NAME", "real"))
    work.wait_state(task)


def test_all_slots_are_busy(work, batch):
    move_real_worker(work, batch)
    busy = [one(work, batch, "while [ ! -e $SCITQ_TEST_FLAG ]; do sleep 0.02; done", env=flag(work, batch)) for _ in range(4)]
    work.wait_state(busy, "running")
    next_one, second, third = (one(work, batch) for _ in range(3))
    assert why(work, next_one) == f"All 4 slots of batch {batch} are busy; it is the next."
    assert "1 task is before it" in why(work, second) and "2 tasks are before it" in why(work, third)
    urgent = one(work, batch, priority=5)
    assert "it is the next" in why(work, urgent) and "1 task is before it" in why(work, next_one)
    (work.directory / batch).touch()
    work.wait_state([*busy, next_one, second, third, urgent])


def test_its_recruiters_find_nobody(work, batch):
    task = one(work, batch)
    here = {"region": batch}
    for rule in (
        {"flavor": "rare", **here},
        {"rank": 2, **here},
        {"rank": 3, "minimum_tasks": 5},
        {"rank": 4, "maximum_workers": 0},
    ):
        work.api("POST", "/recruiters", {"batch": batch, **rule})
    assert why(work, task) == (
        f"It waits for a worker: recruiter 1 of batch {batch} looks for a worker of flavor rare, region {batch}, and none idles; "
        f"recruiter 2 of batch {batch} looks for any worker, region {batch}, and none idles; "
        f"recruiter 3 of batch {batch} takes no worker for less than 5 pending tasks; "
        f"recruiter 4 of batch {batch} takes no worker where there are 0."
    )
    hands = Hands(work, f"{batch}-0", batch, concurrency=1)
    second = one(work, batch)
    for rank, each in ((1, 1), (2, 7)):
        work.api("POST", "/recruiters", {"batch": batch, "rank": rank, "tasks_per_worker": each, "region": batch})
    told = why(work, second)
    assert f"Recruiter 1 of batch {batch} takes a worker for every pending task, and the batch has 1; recruiter 2" in told
    assert "takes a worker for every 7 pending tasks, and the batch has 1;" in told
    hands.sync()
    hands.end(task)
    hands.sync()
    hands.end(second)


def flag(env: Env, batch: str) -> dict:
    return {"SCITQ_TEST_FLAG": str(env.directory / batch)}


# --- held by a worker -------------------------------------------------------------------------------------------------


def test_a_worker_was_given_it(work, batch):
    hands = Hands(work, batch, batch)
    task = one(work, batch)
    assert why(work, task) == f"Worker {batch} was given it a moment ago."
    hands.sync()
    [execution] = hands.held
    hands.sync(Report(execution, "accepted"))
    assert why(work, task) == f"Worker {batch} holds it, and starts it when a slot is free."
    hands.sync(Report(execution, "running", started_ago=1.0))
    set_offline(work, hands.row["id"])
    assert re.fullmatch(
        rf"Its command runs on worker {batch} for [\d.hms]+. The worker is silent for [\d.hms]+.", why(work, task)
    )
    hands.sync(Report(execution, "uploading", started_ago=1.0, ended_ago=0.1))
    assert why(work, task) == f"Its command ended, its outputs are being uploaded on worker {batch}."
    hands.end(task)
    assert why(work, task) == f"It succeeded at attempt 1, on worker {batch}."


def test_it_is_suspended(work, batch):
    move_real_worker(work, batch)
    task = one(work, batch, "while [ ! -e $SCITQ_TEST_FLAG ]; do sleep 0.02; done", env=flag(work, batch))
    work.wait_state(task, "running")
    work.api("POST", "/tasks/signal", {"ids": [task], "action": "suspend"})
    work.until(lambda: work.executions(task)[-1]["suspended"])
    (work.directory / batch).touch()
    assert "suspended on worker real" in why(work, task)
    obey(work, why(work, task))
    work.wait_state(task)


def test_it_is_being_ended(work, batch):
    move_real_worker(work, batch)
    task = one(work, batch, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    work.until(lambda: work.executions(task) and work.stdout(task) == b"ready\n")
    work.api("POST", "/tasks/signal", {"ids": [task], "action": "term"})
    assert re.fullmatch(r"It is being ended on worker real \(term, asked by .+\)\.", why(work, task))
    work.api("POST", "/tasks/signal", {"ids": [task], "action": "kill"})
    work.wait_state(task, "failed")


# --- ended ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"command": "exit 3"}, "exit code 3"),
        ({"command": "exit 3", "retry": 1}, "after 2 failures"),
        ({"command": "kill -9 $$"}, "killed by signal 9 (SIGKILL)"),
        ({"command": "sleep 100", "run_timeout": 0.1}, "ran longer than its time limit"),
        ({"command": "no-such-command", "shell": None}, "was not found in PATH"),
    ],
)
def test_it_failed(work, spec, told):
    move_real_worker(work, "failing")
    task = one(work, "failing", **spec) if "shell" not in spec else work.create({**spec, "batch": "failing"})[0]
    work.wait_state(task, "failed")
    assert told in why(work, task) and "on worker real" in why(work, task)
    before = len(work.executions(task))
    obey(work, why(work, task))
    work.until(lambda: len(work.executions(task)) == 2 * before and work.state(task) == "failed")


def test_it_was_ended_by_a_signal_without_a_word(work, batch):
    hands = Hands(work, batch, batch)
    task = one(work, batch)
    hands.sync()
    [execution] = hands.held
    hands.sync(Report(execution, "failed", signal=11, started_ago=1.0, ended_ago=0.5))
    assert f"on worker {batch}: signal 11." in why(work, task)


def test_its_workers_were_lost_too_often(work, batch):
    hands = Hands(work, batch, batch)
    task = one(work, batch)
    while work.state(task) not in FINAL:
        hands.sync()
        [execution] = [number for number, of in hands.held.items() if of == task]
        hands.sync(Report(execution, "running", started_ago=0.1))
        hands.sync(Report(execution, "lost", started_ago=0.2, reason="the machine went up in smoke"))
        del hands.held[execution]
    assert re.search(r"It failed after 11 lost workers on worker .+: the machine went up in smoke\.", why(work, task))


def test_it_was_canceled(work, batch):
    task = one(work, batch)
    work.api("POST", "/tasks/cancel", {"ids": [task]})
    assert why(work, task) == "It was canceled before it started."
    move_real_worker(work, batch)
    running = one(work, batch, "sleep 100")
    work.wait_state(running, "running")
    work.api("POST", "/tasks/cancel", {"ids": [running]})
    work.wait_state(running, "canceled")
    assert why(work, running).startswith("It was canceled on worker real: ended on request")


def test_it_runs(work, batch):
    move_real_worker(work, batch)
    task = one(work, batch, "while [ ! -e $SCITQ_TEST_FLAG ]; do sleep 0.02; done", env=flag(work, batch))
    work.wait_state(task, "running")
    assert re.fullmatch(r"Its command runs on worker real for [\d.hms]+\.", why(work, task))
    (work.directory / batch).touch()
    work.wait_state(task)


def test_no_such_task(work):
    assert work.answer("GET", "/tasks/999999/explain").status == 404


# --- machines of providers --------------------------------------------------------------------------------------------


@pytest.fixture
def clouds(tmp_path):
    """A store in which machines are planned, and what is said of a task of batch `b` at each step."""
    from house import House
    from scitq.store import Store, batches, jobs, machines, providers, recruiters

    store = Store.open("sqlite:///", tmp_path)
    house, said = House(store), {}
    (task,) = house.add({"command": "x", "batch": "b"})
    spec = {"batch": "b", "concurrency": 1, "prefetch": 0, "permanent": False, "provider": "p", "region": "r", "flavor": "f"}

    def say(situation: str) -> None:
        said[situation] = house.read(explain.explain, task)["sentence"]

    first, second = house.write(machines.plan, [spec | {"price": 3600.0, "currency": "EUR"}, spec], "ann")
    say("planned")
    house.write(jobs.take, "me", 1)
    house.write(jobs.again, first["job"], "me", None, "the provider is away")
    say("failed once")
    house.write(jobs.cancel, second["job"], "ann")
    house.write(machines.gone, second["machine"], "gone")
    house.write(machines.up, first["machine"])
    house.write(machines.evicted, first["machine"], "spot")
    say("evicted")
    house.write(machines.destroy, first["machine"], "ann")
    say("destroyed")
    house.write(machines.gone, first["machine"], "gone")
    house.write(recruiters.put, {"batch": "b", "rank": 1, "tasks_per_worker": 1, "provider": "p", **NO_RULE}, "ann")
    say("recruited")
    house.write(providers.trouble, "p", "no credentials: set OS_CLOUD")
    say("trouble")
    house.write(batches.update, "b", {"budget": 0.0}, "ann")
    say("spent")
    yield said
    store.close()


NO_RULE = dict.fromkeys(("flavor", "region", "minimum_tasks", "maximum_workers", "concurrency", "prefetch"))


def test_what_becomes_of_machines_is_told(clouds):
    recruiter = "It waits for a worker: recruiter 1 of batch b looks for any worker, provider p, and none idles; "
    assert clouds == {
        "planned": "It waits for a worker: deploying 2 workers (jobs 1, 2).",
        "failed once": "It waits for a worker: deploying 2 workers (jobs 1, 2), of which an attempt has failed: "
        "the provider is away.",
        "evicted": "No worker of batch b can take work: p-1 is being taken away by its provider.",
        "destroyed": "No worker of batch b can take work: p-1 is being destroyed.",
        "recruited": recruiter
        + "it deploys one as soon as a provider has room: `scitq manage flavor list` shows what they have.",
        "trouble": recruiter + "provider p is in trouble: no credentials: set OS_CLOUD.",
        "spent": recruiter + "the budget of 0 EUR is reached: raise it with `scitq manage batch update -n b --budget 10`.",
    }


def test_every_sentence_there_is_was_said(work, request, clouds):
    """Each piece of a sentence of explain.py: a new reason is covered by a test, or this one fails."""
    if len(request.session.items) < len([name for name in globals() if name.startswith("test_")]):
        pytest.skip("only some of the tests of this file were asked for")
    said = " ".join([*(sentence for them in SAID[work.database or "sqlite"].values() for sentence in them), *clouds.values()])
    assert [piece for piece in sentence_pieces() if piece not in said] == []


def sentence_pieces() -> list[str]:
    """The constant parts of all texts that the functions of explain.py put together; SQL, keys and what is compared are none."""
    tree = ast.parse(Path(explain.__file__).read_text())
    found = []
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        other = {id(part) for node in ast.walk(function) if _is_no_sentence(node) for part in ast.walk(node)}
        texts = [node for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found += [text.value for text in texts if id(text) not in other and " " in text.value.strip()]
    return found


def _is_no_sentence(node: ast.AST) -> bool:
    is_sql = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "tx"
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_sql or is_docstring or isinstance(node, (ast.Subscript, ast.Compare))


# --- every task ends --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_after_any_trouble_all_tasks_end(env_on_each):
    """Tasks of all kinds while server, workers and keepers are killed, lines are cut and batches stopped; then it is quiet."""
    env = env_on_each
    env.orphans_expected = True  # keepers are killed
    chance = random.Random(15)
    server = env.server()
    relay = env.relay()
    workers = [env.worker(3, server=relay.url), env.worker(2, "--prefetch", "3")]
    kinds = ["sleep 0.{}", "sleep 0.{}; exit 1", "sleep 0.{}; kill -9 $$", "seq {}00; sleep 0.{}", "true"]
    tasks: list[int] = []

    def submit() -> None:
        specs = [
            {
                "command": chance.choice(kinds).replace("{}", str(chance.randint(1, 4))),
                "shell": "sh",
                "retry": chance.randint(0, 2),
                "require": chance.sample(tasks, min(len(tasks), chance.choice([0, 0, 1, 2]))),
            }
            for _ in range(6)
        ]
        tasks.extend(env.create(*specs))

    def kill(process) -> None:
        process.kill9()
        process.start()

    def kill_keeper() -> None:
        keepers = [pid for pid, line in env.leftovers().items() if "keeper" in line.split()]
        with contextlib.suppress(ProcessLookupError, IndexError):  # it ended meanwhile, or there is none
            os.kill(chance.choice(keepers), signal.SIGKILL)

    def stop_and_go() -> None:
        env.api("POST", "/batches/Default/stop", {"running": chance.choice([None, "suspend"])})
        env.api("POST", "/batches/Default/go", {})

    troubles = [lambda: kill(server), lambda: kill(workers[0]), lambda: kill(workers[1]), kill_keeper, relay.cut, stop_and_go]
    for trouble in [*troubles, *chance.sample(troubles, 3)]:
        submit()
        trouble()
        time.sleep(chance.uniform(0.05, 0.2))  # any moment will do
    env.until(lambda: all(is_settled(env, row) for row in env.items("/tasks")), what="every task ends, or waits for a failed one")
    assert len(env.items("/tasks")) == len(tasks)


def is_settled(env: Env, row: dict) -> bool:
    """Whether it has ended, or waits, over any number of others, for one that failed; and says so."""
    if row["state"] in FINAL:
        return True
    states = env.items("/tasks", ids=row["require"]) if row["require"] else []
    failed = [other for other in states if other["state"] in ("failed", "canceled")]
    if failed:
        return "relaunch what failed" in env.api("GET", f"/tasks/{row['id']}/explain")["sentence"]
    return row["state"] == "waiting" and any(other["state"] == "waiting" and is_settled(env, other) for other in states)
