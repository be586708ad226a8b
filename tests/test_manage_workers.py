"""`scitq manage worker`: which ones, what is shown of them, and what is changed while they work."""

from __future__ import annotations

import json

import pytest
from env import Env
from hands import Hands


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    """A server and two workers, of which only the first has slots."""
    made = Env(tmp_path_factory.mktemp("farm"))
    made.server()
    made.worker(2, name="alpha")
    made.worker(0, name="beta", batch="side")
    yield made
    made.close()


def manage(env: Env, *words: str, code: int | None = 0, **options):
    return env.cli("manage", "worker", *words, code=code, **options)


def rows(env: Env, *words: str) -> list[dict]:
    return json.loads(manage(env, "list", "-o", "json", *words).stdout)


def names(env: Env, *words: str) -> list[str]:
    return [row["name"] for row in rows(env, *words)]


def row(env: Env, name: str) -> dict:
    return next(row for row in rows(env) if row["name"] == name)


# --- list and get -----------------------------------------------------------------------------------------------------------


def test_list_is_a_table_with_the_id_first(farm):
    lines = manage(farm, "list").stdout.splitlines()
    assert lines[0].split()[:6] == ["ID", "NAME", "STATE", "BATCH", "SLOTS", "RUNNING"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["1", "alpha", "online", "Default", "2"],
        ["2", "beta", "online", "side", "0"],
    ]
    assert manage(farm, "list", "-H").stdout.splitlines()[0].split()[:2] == ["1", "alpha"]


@pytest.mark.parametrize(
    "words, found",
    [(["-b", "side"], ["beta"]), (["-n", "al*"], ["alpha"]), (["-S", "offline,unfit"], []), (["-S", "online"], ["alpha", "beta"]),
     (["--limit", "1", "--reverse"], ["beta"])],
)  # fmt: skip
def test_list_filters(farm, words, found):
    assert names(farm, *words) == found


def test_list_in_other_formats(farm):
    assert manage(farm, "list", "-o", "ids").stdout == "1\n2\n"
    assert "hostname" in manage(farm, "list", "-o", "csv", "-L").stdout.splitlines()[0].split(",")
    assert [json.loads(line)["name"] for line in manage(farm, "list", "-o", "jsonl").stdout.splitlines()] == ["alpha", "beta"]


def test_get_shows_what_the_machine_measured(farm):
    farm.until(lambda: row(farm, "alpha")["stats"], what="a measurement")
    told = manage(farm, "get", "alpha").stdout
    for title in ("NAME", "HOST", "VERSION", "LOAD", "FREE MEMORY", "FREE /"):
        assert title in told
    assert "B of" in told and "processors" in told and "{" not in told
    whole = json.loads(manage(farm, "get", "1", "-o", "json").stdout)
    assert whole["name"] == "alpha" and whole["stats"]["memory"]["total"] > 0


def test_get_shows_rates_and_gpus(farm):
    gpu = {"index": 0, "name": "H200", "percent": 35, "memory_used": 2 * 10**9, "memory_total": 141 * 10**9}
    stats = {"cpu_percent": 12.5, "network": {"received_per_second": 1500, "sent_per_second": 20}, "gpus": [gpu]}
    Hands(farm, "gpu1", "elsewhere").sync(stats=stats)
    lines = manage(farm, "get", "gpu1").stdout.splitlines()
    assert {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[-3:-1]} == {
        "PROCESSOR": "12.5 %",
        "NETWORK": "1.5 kB/s in, 20 B/s out",
    }
    assert lines[-1].split(maxsplit=2)[2] == "H200, 35 %, 2 GB of 141 GB used"
    manage(farm, "delete", "gpu1", "--yes")


@pytest.mark.parametrize(
    "words", [["alpha", "beta"], ["*"], ["-i", "1-2"], ["-i", "1,2"], ["-n", "alpha", "-i", "2"], ["1", "be*"]]
)
def test_workers_are_named_in_every_way(farm, words):
    told = manage(farm, "get", *words, "-o", "jsonl").stdout
    assert [json.loads(line)["name"] for line in told.splitlines()] == ["alpha", "beta"]


def test_words_may_stand_before_and_after_options(farm):
    assert manage(farm, "get", "alpha", "-o", "jsonl", "beta").stdout.count('"name"') == 2


@pytest.mark.parametrize("verb", ["get", "update", "drain", "delete"])
def test_what_names_no_worker_is_told_with_the_nearest_name(farm, verb):
    more = {"update": ["-C", "1"], "delete": ["--yes"]}.get(verb, [])
    told = manage(farm, verb, "alpa", *more, code=3).stderr
    assert told == "scitq: there is no worker 'alpa' (did you mean 'alpha'?)\n"
    assert "no worker 77" in manage(farm, verb, "-i", "77", *more, code=3).stderr
    assert "which workers?" in manage(farm, verb, *more, code=2).stderr
    assert "holds no ids" in manage(farm, verb, "-i", "alpha", *more, code=2).stderr


# --- update -----------------------------------------------------------------------------------------------------------------


def test_update_changes_a_worker_at_once_and_shows_it(farm):
    told = manage(farm, "update", "alpha", "-C", "3", "-p", "1", "-b", "new", "--no-permanent", "--drain", "-o", "json").stdout
    (new,) = json.loads(told)
    changed = {key: new[key] for key in ("concurrency", "prefetch", "batch", "permanent", "draining", "state")}
    assert changed == {
        "concurrency": 3, "prefetch": 1, "batch": "new", "permanent": False, "draining": True, "state": "draining",
    }  # fmt: skip
    told = manage(farm, "update", "-n", "alpha", "-C", "2", "-p", "0", "-b", "Default", "--permanent", "--no-drain").stdout
    assert told.splitlines()[1].split()[:5] == ["1", "alpha", "online", "Default", "2"]


def test_more_slots_start_what_waits(farm):
    tasks = farm.create(*["sleep 30"] * 3)
    farm.wait_state(tasks[:2], "running")
    assert farm.state(tasks[2]) == "pending"
    manage(farm, "update", "-i", "1", "-C", "3")
    farm.wait_state(tasks, "running")
    manage(farm, "update", "1", "--concurrency", "2")
    farm.api("POST", "/tasks/cancel", {"ids": tasks})
    farm.until(lambda: row(farm, "alpha")["held"] == 0)


def test_update_gives_a_new_name_to_one_alone(farm):
    assert manage(farm, "update", "beta", "-N", "gamma").stdout.splitlines()[1].split()[:2] == ["2", "gamma"]
    assert "one name cannot be given to 2 workers" in manage(farm, "update", "*", "-N", "x", code=2).stderr
    assert "has this name" in manage(farm, "update", "gamma", "-N", "alpha", code=1).stderr
    manage(farm, "update", "gamma", "-N", "beta")


def test_update_wants_something_to_change(farm):
    assert "what should be changed?" in manage(farm, "update", "alpha", code=2).stderr
    assert "'--concurrency'" in manage(farm, "update", "alpha", "--concurency", "2", code=2).stderr
    assert "not a whole number" in manage(farm, "update", "alpha", "-C", "many", code=2).stderr


# --- drain and delete -------------------------------------------------------------------------------------------------------


def test_a_drained_worker_ends_what_it_has(farm):
    first, second = farm.create({"command": "sleep 1", "batch": "Default"}, "true")
    farm.wait_state(first, "running", "succeeded")
    assert "alpha (id 1) gets nothing more, and holds" in manage(farm, "drain", "alpha").stdout
    later = farm.create("true")
    told = manage(farm, "drain", "alpha", "--wait").stdout
    assert told.endswith("it holds nothing any more\n") and row(farm, "alpha")["held"] == 0
    farm.wait_state([first, second])
    assert farm.state(later[0]) == "pending" and row(farm, "alpha")["state"] == "draining"
    assert manage(farm, "drain", "alpha", "--undo").stdout == "alpha (id 1) gets tasks again\n"
    farm.wait_state(later)


def test_waiting_for_a_drained_worker_ends_when_it_is_undone(farm):
    (task,) = farm.create("sleep 30")
    farm.wait_state(task, "running")
    waiting = farm.start("waiting", "manage", "worker", "drain", "alpha", "--wait")
    farm.until(lambda: "gets nothing more, and holds 1 task" in waiting.output())
    manage(farm, "drain", "--undo", "alpha")
    assert waiting.wait_exit() == 1 and "somebody has undone it" in waiting.output()
    farm.api("POST", "/tasks/cancel", {"ids": [task]})
    assert "give --undo or --wait" in manage(farm, "drain", "alpha", "--undo", "--wait", code=2).stderr


def test_delete_tells_what_it_held_and_asks(env):
    env.server()
    env.worker(1, name="left")
    gone = env.worker(1, name="gone")
    tasks = env.create("sleep 30", "sleep 30")
    env.wait_state(tasks, "running")
    assert "give --yes to do it" in manage(env, "delete", "gone", code=2).stderr
    looked = manage(env, "delete", "gone", "--dry-run")
    assert looked.stdout == "would delete worker gone (id 2)\n" and "holds 1 task" in looked.stderr
    assert names(env) == ["left", "gone"]
    assert manage(env, "delete", "gone", "--yes").stdout == "deleted gone (id 2), which held 1 task\n"
    assert gone.wait_exit() == 3 and names(env) == ["left"]
    env.until(lambda: sorted(map(env.state, tasks)) == ["pending", "running"], what="its task is back in the queue")
    env.api("POST", "/tasks/cancel", {"ids": tasks})
