"""What the pages of the web UI ask for, beside what everybody does: on both databases."""

from __future__ import annotations

import subprocess
from dataclasses import asdict

import pytest
from env import Env
from hands import Hands, refused
from scitq.api.history import SPACING_SECONDS, SPAN_SECONDS, History
from scitq.api.livedata import measures
from scitq.api.pace import Pace
from scitq.api.trouble import full_disks
from scitq.batchtext import batch_text
from scitq.protocol import Report, TaskSpec
from scitq.store import attempts, batches, reports

from scitq import batchfile

STATS = {
    "load": [1.5, 1.0, 0.5], "cpus": 8, "cpu_percent": 40.0, "memory": {"total": 1000, "available": 400},
    "disks": {"/": {"total": 10, "free": 9}, "/scratch": {"total": 10**12, "free": 10**9}},
    "network": {"received_per_second": 7, "sent_per_second": 8}, "gpus": [{"index": 0, "name": "A", "percent": 50}],
}  # fmt: skip


class Week:
    """A batch with tasks that succeeded, failed, run and wait, on a worker that only says so."""

    def __init__(self, env: Env, batch: str):
        self.env, self.batch = env, batch
        specs = [{"command": f"step {n}", "batch": batch, "name": f"align:S{n}"} for n in range(6)]
        self.tasks = env.create(*specs, {"command": "sum", "batch": batch, "name": "sum", "require": ["#5"]})
        self.hands = Hands(env, f"w-{batch}", batch)
        self.hands.sync()
        self.executions = [self.hands.end(task, stdout=b"some output\n") for task in self.tasks[:2]]
        self.hands.sync()
        self.executions += [self.hands.end(task, "failed", 3, stdout=b"begin\nno such reference\n") for task in self.tasks[2:4]]
        (running,) = [e for e, t in self.hands.held.items() if t == self.tasks[4]]
        self.hands.sync(Report(running, "running", started_ago=30.0), stats=STATS)


@pytest.fixture
def week(served, batch) -> Week:
    return Week(served, batch)


def live_row(env: Env, kind: str, name: str, holds=lambda row: True) -> dict:
    """The row of that name in a snapshot, which may be a second old, as soon as that holds of it."""

    def look() -> dict | None:
        (event,) = env.api("GET", "/changes")["events"]
        return next((row for row in event["data"][kind] if row["name"] == name and holds(row)), None)

    return env.until(look, what=f"{name} is so")


# --- attention --------------------------------------------------------------------------------------------------------


def attention(env: Env, holds) -> dict:
    """What the server says when that holds: it looks every few seconds."""
    return env.until(lambda: (told := env.api("GET", "/attention")) and holds(told) and told, what="it is told")


def test_failures_that_look_alike_are_one_thing(week):
    told = attention(week.env, lambda told: any(group["batch"] == week.batch for group in told["failures"]))
    (group,) = [group for group in told["failures"] if group["batch"] == week.batch]
    assert (group["exit_code"], group["last_line"], group["count"]) == (3, "no such reference", 2)
    assert sorted(group["task_ids"]) == week.tasks[2:4] and group["newest_at"].endswith("Z")
    week.env.api("POST", "/tasks/relaunch", {"ids": week.tasks[2:4]})
    attention(week.env, lambda told: not any(group["batch"] == week.batch for group in told["failures"]))


def test_work_that_nobody_does(served, batch):
    env = served
    env.create({"command": "true", "batch": batch})
    why = lambda told: [row["why"] for row in told["batches"] if row["name"] == batch]  # noqa: E731
    assert "No worker is in batch" in why(attention(env, why))[0]
    hands = Hands(env, f"w-{batch}", batch, concurrency=0)
    attention(env, lambda told: "concurrency 0" in "".join(why(told)))
    env.api("PATCH", f"/workers/{hands.row['id']}", {"concurrency": 1})
    attention(env, lambda told: not why(told))
    env.create({"command": "true", "batch": batch})
    env.api("POST", f"/batches/{batch}/stop", {})
    attention(env, lambda told: "is stopped" in "".join(why(told)))


def test_workers_that_cannot_work_and_disks_that_are_full(served, batch):
    env = served
    hands = Hands(env, f"w-{batch}", batch)
    hands.sync(problem="its disk is full", stats=STATS)
    told = attention(env, lambda told: any(row["id"] == hands.row["id"] for row in told["workers"]))
    (row,) = [row for row in told["workers"] if row["id"] == hands.row["id"]]
    assert (row["state"], row["problem"]) == ("unfit", "its disk is full") and row["contact_at"]
    (disk,) = [disk for disk in told["disks"] if disk["worker"] == f"w-{batch}"]
    assert disk == {"worker": f"w-{batch}", "mount": "/scratch", "free_bytes": 10**9, "total_bytes": 10**12}


@pytest.mark.parametrize(
    "stats",
    [None, [], {}, {"disks": 1}, {"disks": {"/": 3}}, {"disks": {"/": {"free": "x", "total": None}}}, {"disks": {"/": {}}}],
)
def test_statistics_of_any_kind_are_no_full_disk(stats):
    assert full_disks("w", stats) == []


def test_a_disk_that_is_mounted_twice_is_told_once():
    disk = {"total": 10**12, "free": 10**9}
    assert len(full_disks("w", {"disks": {"/": disk, "/scratch": disk, "/data": {"total": 10**9, "free": 5 * 10**8}}})) == 1


# --- batches ----------------------------------------------------------------------------------------------------------


def test_the_row_of_a_batch_says_how_fast_it_goes(week):
    row = live_row(week.env, "batches", week.batch, lambda row: row["counts"].get("running") and row["failed_lately"] == 2)
    assert row["counts"] == {"succeeded": 2, "failed": 2, "running": 1, "assigned": 1, "waiting": 1}
    assert (row["slots"], row["workers"]) == (4, 1) and row["throughput_per_hour"] > 0
    low, high = row["eta_seconds"]
    assert 0 < low <= high < 100
    week.env.api("POST", f"/batches/{week.batch}/stop", {})
    assert live_row(week.env, "batches", week.batch, lambda row: row["stopped"])["eta_seconds"] is None


def test_the_row_of_a_worker_has_what_pages_draw(week):
    row = live_row(week.env, "workers", f"w-{week.batch}", lambda row: row["stats"])
    assert row["stats"] == {
        "load1": 1.5, "cpu_percent": 40.0, "memory_used": 600, "memory_total": 1000, "disk_used": 999 * 10**9,
        "disk_total": 10**12, "received": 7, "sent": 8,
        "gpus": [{"name": "A", "percent": 50, "memory_used": None, "memory_total": None}],
    }  # fmt: skip
    assert row["state"] == "online" and row["running"] == 1


@pytest.mark.parametrize(
    "stats",
    [
        *(3, "x", [], {"load": 1, "memory": [], "disks": [1], "gpus": {}, "network": None}),
        {"load": ["x"], "memory": {"total": True}, "cpu_percent": float("nan"), "disks": {"/": 1}, "gpus": [1]},
    ],
)
def test_statistics_of_any_kind_are_measures_or_none(stats):
    found = measures(stats) or {"gpus": []}
    assert found.pop("gpus") == [] and set(found.values()) <= {None}


def test_a_report_has_durations_in_bins_and_memory_in_words(week):
    told = week.env.api("GET", f"/batches/{week.batch}/report")
    assert told["durations"]["count"] == 2 == sum(part["count"] for part in told["histogram"])
    assert all(part["from"] < part["to"] for part in told["histogram"])
    assert told["memory"]["peak_bytes"] is None and told["memory"]["concurrency_hint"] is None and told["memory"]["sentence"]
    (group,) = told["failures"]
    assert (group["count"], group["last_line"], group["exit_code"]) == (2, "no such reference", 3)


def test_the_timeline_of_a_batch(week):
    told = week.env.api("GET", f"/batches/{week.batch}/timeline")
    assert [row["execution_id"] for row in told["items"]][1:] == week.executions[::-1]
    running = told["items"][0]
    assert (running["state"], running["ended_at"], running["worker"]) == ("running", None, f"w-{week.batch}")
    assert (running["task_id"], running["name"]) == (week.tasks[4], "align:S4")
    assert told["from"] <= min(row["started_at"] for row in told["items"]) and told["to"] > running["started_at"]
    assert [row["state"] for row in week.env.api("GET", f"/batches/{week.batch}/timeline", since="0s")["items"]] == ["running"]
    assert refused(week.env, "GET", f"/batches/{week.batch}/timeline", since="x")["field"] == "since"


def test_the_steps_of_a_batch_and_who_needs_whom(week):
    week.env.create({"command": "true", "batch": week.batch})
    first, second, third = week.env.api("GET", f"/batches/{week.batch}/steps")["items"]
    counts = {"succeeded": 2, "failed": 2, "running": 1, "assigned": 1}
    assert first == {"step": "align", "name": "align:*", "counts": counts, "needs": []}
    assert second == {"step": "sum", "name": "sum", "counts": {"waiting": 1}, "needs": ["align"]}
    assert third["step"] is None and third["needs"] == [] and sum(third["counts"].values()) == 1


def test_a_step_says_what_finds_its_tasks(served, batch):
    names = ["a", "a:1", "a", "b[*]?:1", "b[*]?:2", "c?"]
    ids = served.create(*({"command": "true", "batch": batch, "name": name} for name in names))
    steps = served.api("GET", f"/batches/{batch}/steps")["items"]
    assert [step["step"] for step in steps] == ["a", "b[*]?", "c?"]
    found = [[row["id"] for row in served.items("/tasks", batch=batch, name=step["name"])] for step in steps]
    assert found == [ids[:3], ids[3:5], ids[5:]]


@pytest.mark.parametrize("what", ["report", "timeline", "steps", "file"])
def test_no_such_batch(served, what):
    assert refused(served, "GET", f"/batches/none/{what}", status=404)["code"] == "not_found"


def test_a_batch_file_makes_the_tasks_again(served, batch, tmp_path):
    env = served
    (other,) = env.create({"command": "true", "batch": "elsewhere"})
    spec = {"batch": batch, "shell": "sh", "retry": 2}
    env.create(
        {
            **spec,
            "command": "echo {name} ${name} {name:q}\n  indented 'x' \"y\"\n",
            "name": "a: b",
            "env": {"X": "1 # 2", "Y": "\x1b"},
        },
        {**spec, "command": "sort", "name": "sort", "require": ["#0", other], "input": ["s3://b/k|gunzip", "file:///x"]},
        {**spec, "command": "sort", "name": "sort", "run_timeout": 90.5, "priority": -2, "container": "debian:12"},
        {**spec, "command": "no name", "use_cache": True, "output": "s3://b/out/"},
    )
    answer = env.answer("GET", f"/batches/{batch}/file")
    assert answer.headers["Content-Type"].startswith("application/yaml")
    path = tmp_path / "again.yaml"
    path.write_bytes(answer.body)
    again = batchfile.load(str(path))
    rows = env.items("/tasks", batch=batch)
    plain = asdict(TaskSpec(command=""))
    for row, task in zip(rows, again.tasks, strict=True):
        for name in plain.keys() - {"name", "require"}:
            assert (plain | task)[name] == row[name], name
    assert again.batch == batch and [task["name"] for task in again.tasks][0] == "a: b"
    assert again.tasks[1]["require"] == [other, "a: b"] and len({task["name"] for task in again.tasks}) == 4


@pytest.mark.parametrize(
    "command",
    ["true", "007", "null", "a: b", "- a", "{x}", "{batch}", "{row:q}", "x #y", " lead", "trail ",
     "a\n b\n", "a\n\n\nb", "a\n  ", "'", "\t", "a\tb",
     "\u2028é\x7f😀", "a\r\nb", "|", "a\n", "a\n\n", "\n a", "%a", "@b", "`c`", "*d", "&e", "!f", "12:30", "~", "=", "x:"],
)  # fmt: skip
def test_any_command_comes_back_from_a_batch_file(tmp_path, command):
    command = f"{command}x" if not command.strip() else command
    path = tmp_path / "f.yaml"
    rows = [asdict(TaskSpec(command=command, name=f"n{number}", env={"V": command})) | {"id": number} for number in (1, 2)]
    path.write_text(batch_text("b", rows), newline="")
    assert [(task["command"], task["env"]) for task in batchfile.load(str(path)).tasks] == [(command, {"V": command})] * 2


# --- tasks, workers ---------------------------------------------------------------------------------------------------


def test_the_ends_of_what_tasks_wrote(week):
    env = week.env
    long = env.create({"command": "long", "batch": f"{week.batch}-long", "name": "long"})[0]
    hands = Hands(env, f"v-{week.batch}", f"{week.batch}-long")
    hands.sync()
    (execution,) = hands.held
    hands.sync(Report(execution, "running", started_ago=1.0), output=[(execution, "stdout", 0, b"a" * 50_000)])
    hands.sync(Report(execution, "running"), output=[(execution, "stdout", 50_000, b"b" * 60_000 + b"\xff")])
    rows, after = [], None
    while True:
        page = env.api("GET", "/tasks/outputs", batch=week.batch, limit=3, after=after)
        rows, after = rows + page["items"], page["next"]
        if after is None:
            break
    assert [row["id"] for row in rows] == week.tasks and rows[0]["stdout"] == "some output\n" and not rows[0]["truncated"]
    assert rows[2]["stdout"].endswith("no such reference\n") and rows[6]["stdout"] == "" and rows[6]["state"] == "waiting"
    (row,) = env.api("GET", "/tasks/outputs", ids=str(long))["items"]
    assert (
        row["truncated"] and len(row["stdout"]) == 64 * 1024 and row["stdout"].endswith("bbb\ufffd") and row["stdout"][0] == "a"
    )
    assert refused(env, "GET", "/tasks/outputs", limit=1000)["field"] == "limit"


def test_the_line_by_hand_runs(served, batch, tmp_path):
    env, place = served, tmp_path / "an empty place"
    place.mkdir()
    spec = {"batch": batch, "name": "it's", "env": {"GREETING": "hello 'you'"}}
    plain, shell, moved, boxed = env.create(
        {**spec, "command": "printenv GREETING SCITQ_TASK_NAME"},
        {**spec, "command": 'echo "$GREETING" > "$OUTPUT/x"; cat "$OUTPUT/x"; pwd', "shell": "sh"},
        {**spec, "command": "pwd", "workdir": "/usr/lib"},
        {
            **spec,
            "command": "id",
            "container": "debian:12",
            "container_options": "--gpus all",
            "input": ["s3://b/k"],
            "uid": 5,
            "gid": 6,
        },
    )

    def run(task: int) -> str:
        line = env.api("GET", f"/tasks/{task}/by-hand")["line"]
        return subprocess.run(["sh", "-c", line], cwd=place, capture_output=True, text=True, check=True, timeout=60).stdout

    assert run(plain) == "hello 'you'\nit's\n"
    assert run(shell) == f"hello 'you'\n{place}\n" and (place / "output" / "x").exists()
    assert run(moved) == "/usr/lib\n"
    line = env.api("GET", f"/tasks/{boxed}/by-hand")["line"]
    assert "scitq fetch get s3://b/k input/ && docker run --rm -it -v" in line and line.endswith(
        " -u 5:6 --gpus all debian:12 id"
    )
    assert refused(env, "GET", "/tasks/99999999/by-hand", status=404)


def test_the_history_of_a_worker(served, batch):
    hands = Hands(served, f"w-{batch}", batch)
    assert served.api("GET", f"/workers/{hands.row['id']}/history") == {"items": []}
    hands.sync(stats=STATS)
    hands.sync(stats=STATS)
    (point,) = served.api("GET", f"/workers/{hands.row['id']}/history")["items"]
    assert (point["load1"], point["memory_used"], point["disk_total"], point["sent"]) == (1.5, 600, 10**12, 8)
    assert point["at"].endswith("Z") and refused(served, "GET", "/workers/99999999/history", status=404)


def test_a_history_is_as_long_as_an_hour():
    now = [1000.0]
    history = History(lambda: now[0])
    for _ in range(1000):
        history.note(1, {"cpu_percent": now[0]})
        now[0] += SPACING_SECONDS / 2
    rows = history.of(1)
    assert len(rows) == SPAN_SECONDS / SPACING_SECONDS and rows[-1]["cpu_percent"] >= now[0] - 2 * SPACING_SECONDS
    assert rows[0]["load1"] is None and rows[0]["at"] >= now[0] - SPAN_SECONDS
    now[0] += SPAN_SECONDS
    assert history.of(1) == [] and history.of(2) == []
    now[0] -= 10 * SPAN_SECONDS  # the clock was set back
    history.note(1, {"cpu_percent": 5.0})
    assert history.of(1)[-1]["cpu_percent"] == 5.0


# --- what is made of numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[0.0], [5.0], [1, 2, 3], [0.001, 1000], [60 + n for n in range(100)], [0, 1e6], [3.3] * 9, [1e-9, 1e-8]]
)
def test_bins_hold_every_value_once(values):
    bins = reports.histogram(values)
    assert sum(part["count"] for part in bins) == len(values) and len(bins) < 40
    for part in bins:
        assert part["from"] < part["to"]
        assert part["count"] == sum(part["from"] <= value < part["to"] for value in values)
    assert [part["to"] for part in bins[:-1]] == [part["from"] for part in bins[1:]]


GB = 10**9


@pytest.mark.parametrize(
    "peaks, concurrency, cpus, hint, words",
    [
        ([2 * GB, 4 * GB, 3 * GB], 8, 16, 3, "3 at once fit there, not 8"),
        ([1 * GB], 8, 16, 14, "room for 14"),
        ([1 * GB], 8, 10, 10, "room for 10"),
        ([1 * GB], 8, 8, None, "8 at once fit there."),
        ([1 * GB], 8, None, None, "8 at once fit there."),
        ([20 * GB], 2, 4, 1, "hardly enough for one"),
        ([20 * GB], 1, 4, None, "hardly enough for one"),
        ([], 1, 4, None, "Nothing is known"),
    ],
)
def test_the_concurrency_that_fits_the_memory(peaks, concurrency, cpus, hint, words):
    worker = {"name": "w", "memory_bytes": 16 * GB, "concurrency": concurrency, "cpus": cpus}
    told = reports.memory_advice(peaks, worker)
    assert told["concurrency_hint"] == hint and words in told["sentence"]
    assert told == reports.memory_advice(peaks, {**worker, "cpus": cpus and 3 * cpus}, 3.0) | {"sentence": told["sentence"]}
    assert reports.memory_advice(peaks, None)["concurrency_hint"] is None


def test_what_ended_is_found_once(house):
    """New attempts by their ids, old ones when they are live no more."""
    worker = house.worker(concurrency=9)
    ids = house.add(*["true"] * 4)
    first = [house.run(worker, task) for task in ids[:3]]
    house.end(worker, ids[0])
    found, seen = house.read(attempts.ended, 0, [])
    assert [row["id"] for row in found] == first[:1]
    assert {row["id"] for row in house.read(attempts.live)} == {row["id"] for row in house.rows("execution")} - set(first[:1])
    house.end(worker, ids[1], "failed", 1)
    found, seen = house.read(attempts.ended, seen, [first[1]])
    assert [(row["id"], row["state"]) for row in found] == [(first[1], "failed")]
    assert house.read(attempts.ended, seen, [])[0] == []
    (batch,) = {row["batch_id"] for row in house.rows("task")}
    (newest,) = house.read(attempts.newest_succeeded, batch, 10)
    assert newest["id"] == first[0] and newest["ended_at"] > newest["started_at"]


class Going:
    """A batch in a store, and what is remembered of its pace."""

    def __init__(self, house, monkeypatch, newest: int = 1000):
        monkeypatch.setattr(attempts, "NEWEST", newest)
        self.house, self.pace = house, Pace()

    def row(self, slots: int = 2) -> dict:
        """The pace of the default batch, looked at now."""

        def look(tx) -> dict:
            rows = batches.find(tx, 10, None, False)
            self.pace.look(tx, rows)
            return self.pace.of(rows[0], slots, tx.now)

        return self.house.read(look)


def test_the_pace_of_a_batch(house, monkeypatch):
    """Tasks of 1.5 seconds each, as the worker says."""
    going, worker = Going(house, monkeypatch), house.worker(concurrency=2)
    assert going.row() == {"throughput_per_hour": 0.0, "eta_seconds": None, "failed_lately": 0}
    ids = house.add(*["true"] * 20)
    assert going.row()["eta_seconds"] is None  # nothing has ended yet
    for task in ids[:10]:
        house.end(worker, task)
    row = going.row()
    low, high = row["eta_seconds"]
    assert 7 < low <= high < 8 and row["throughput_per_hour"] > 10 * 6  # ten tasks of 1.5 s by two
    assert going.row(slots=0)["eta_seconds"] is None
    house.end(worker, ids[10], "failed", 1)
    assert going.row()["failed_lately"] == 1
    for task in ids[11:]:
        house.end(worker, task)
    assert going.row()["eta_seconds"] is None and going.row()["throughput_per_hour"] > 0


def test_a_batch_that_goes_on_knows_its_old_durations(house, monkeypatch):
    """Though more attempts of others were made since than are looked at."""
    worker = house.worker(concurrency=1)
    ids = house.add(*["true"] * 9)
    for task in ids[:6]:
        house.end(worker, task)
    row = Going(house, monkeypatch, newest=0).row()
    assert row["eta_seconds"] is not None and row["throughput_per_hour"] > 0


def test_few_durations_make_a_wide_range(house, monkeypatch):
    worker = house.worker(concurrency=1)
    ids = house.add(*["true"] * 5)
    house.end(worker, ids[0])
    low, high = Going(house, monkeypatch).row(slots=1)["eta_seconds"]
    assert low == pytest.approx(3.0, rel=0.1) and high == pytest.approx(12.0, rel=0.1)


def test_what_only_waits_for_failures_has_no_end(house, monkeypatch):
    worker = house.worker(concurrency=2)
    done, failed = house.add("true", "true")
    house.add({"command": "true", "require": [failed]})
    house.end(worker, done)
    house.end(worker, failed, "failed", 1)
    assert Going(house, monkeypatch).row()["eta_seconds"] is None
