"""The Python client against a real server and a real worker."""

from __future__ import annotations

import argparse
import datetime
import json
import numbers
import threading
import time
from concurrent.futures import CancelledError, as_completed, wait
from concurrent.futures import TimeoutError as FuturesTimeout  # the built-in one from Python 3.11 on
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scitq.lib import RESET, Executor, Server, TaskFailed
from scitq.lib.objects import id_of, ids_of, range_groups, ranges, shown, to_datetime
from scitq.lib.progress import Progress
from scitq.lib.server import query
from scitq.lib.specs import changes, task_spec

from scitq import errors


@pytest.fixture
def server(lab):
    with Server(lab.url, token=lab.token) as made:
        yield made


@pytest.fixture
def objects(lab):
    with Server(lab.url, style="object", token=lab.token) as made:
        yield made


# --- values ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 500), min_size=1))
def test_ranges_and_back(ids):
    assert ids_of(ranges(ids)) == sorted(set(ids))
    groups = range_groups(ids, most_characters=12)
    assert [i for group in groups for i in ids_of(group)] == sorted(set(ids))
    assert all(len(group) <= 12 for group in groups)


def test_a_range_without_end_is_refused():
    with pytest.raises(errors.InvalidRequest, match="too many ids"):
        ids_of("3,1-999999999999")


def test_ids_of_everything_users_hold():
    assert [id_of(thing) for thing in ({"id": 3}, argparse.Namespace(id=4), 5, "6")] == [3, 4, 5, 6]
    assert ids_of(7) == [7] and ids_of({"id": 3}) == [3] and ids_of(iter([1, {"id": 2}])) == [1, 2]


@pytest.mark.parametrize("thing", [None, "x", {}, object(), [1]])
def test_what_has_no_id(thing):
    with pytest.raises(errors.InvalidRequest, match="has no id"):
        id_of(thing)


def test_answers_as_objects():
    plain = {
        "id": 1,
        "state": "failed",
        "input": ["a"],
        "env": {"A-B": "1"},
        "created_at": "2026-11-21T10:00:00.500Z",
        "x": {"y": [{"z": 1}]},
    }
    task = shown(plain, "object", "task")
    assert (task.id, task.task_id, task.status, task.input, task.env) == (1, 1, "failed", ["a"], {"A-B": "1"})
    assert task.created_at == datetime.datetime(2026, 11, 21, 10, 0, 0, 500000, datetime.timezone.utc)
    assert task.x.y[0].z == 1
    assert shown(plain, "dict", "execution")["execution_id"] == 1
    assert "task_id" not in shown({"id": 1, "name": "w"}, "dict", "worker")


def test_times_are_aware():
    assert to_datetime("2026-11-21T10:00:00Z").utcoffset() == datetime.timedelta(0)


def test_options_of_a_task():
    spec = task_spec(
        {
            "command": "x",
            "shell": True,
            "input": "s3://a s3://b",
            "resource": ("s3://c",),
            "required_task_ids": [{"id": 1}, 2],
            "retry": None,
        }
    )
    assert spec == {"command": "x", "shell": "sh", "input": ["s3://a", "s3://b"], "resource": ["s3://c"], "require": [1, 2]}
    assert task_spec({"command": "x", "shell": False, "require": ["#0", 3]}) == {"command": "x", "require": ["#0", 3]}
    with pytest.raises(errors.InvalidRequest, match=r"contaner: .*did you mean 'container'"):
        task_spec({"command": "x", "contaner": "y"})


class Count:
    """A whole number of another library."""

    def __int__(self) -> int:
        return 3


numbers.Integral.register(Count)


def test_relatives_of_json_values_become_them():
    options = {"command": Path("/bin/true"), "workdir": Path("/w"), "input": {Path("b"), "a"}, "resource": Path("/r"),
               "env": {"A": Path("/x")}, "retry": Count(), "run_timeout": Fraction(1, 2)}  # fmt: skip
    expected = {"command": "/bin/true", "workdir": "/w", "input": ["a", "b"], "resource": ["/r"], "env": {"A": "/x"},
                "retry": 3, "run_timeout": 0.5}  # fmt: skip
    assert json.loads(json.dumps(task_spec(options))) == expected


def test_lengths_of_time():
    given = [90, 1.5, "90", "1h30m", datetime.timedelta(hours=2)]
    assert [task_spec({"run_timeout": one})["run_timeout"] for one in given] == [90, 1.5, 90, 5400, 7200]


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("command", b"x", "command"), ("name", {"n"}, "name"), ("env", {"A": b"1"}, "env.A"), ("env", {1: "x"}, "env"),
        ("input", b"s3://a", "input"), ("input", ["a", None], "input"), ("resource", 5, "resource"), ("output", b"o", "output"),
        ("run_timeout", float("nan"), "run_timeout"), ("run_timeout", "soon", "run_timeout"),
        ("retry", object(), "retry"),
    ],
)  # fmt: skip
def test_an_option_that_json_cannot_say_is_named(server, option, value, field):
    for call in (server.task_create, lambda **options: server.tasks_edit(ids=[1], set=options)):
        with pytest.raises(errors.InvalidRequest, match="wants") as raised:
            call(**{"command": "x", option: value})
        assert raised.value.field == field and "\n" not in str(raised.value)


def test_what_the_server_refuses_of_one_task_is_named_alone(server):
    with pytest.raises(errors.InvalidRequest, match="^retry: wants a number from 0"):
        server.task_create("x", retry=-1)


def test_so_is_one_of_any_other_request(server):
    with pytest.raises(errors.InvalidRequest, match="^flavor: wants texts"):
        server.recruiter_create("b", flavor=b"f")


def test_changes():
    assert changes({"container": RESET, "retry": RESET, "input": RESET, "name": None, "shell": False, "priority": 3}) == {
        "container": None, "retry": 0, "input": [], "shell": None, "priority": 3,
    }  # fmt: skip
    with pytest.raises(errors.InvalidRequest, match="no default"):
        changes({"command": RESET})


def test_filters():
    assert query({"status": ["failed", "canceled"], "task_id": [3, 1, 2], "batch": None}) == {
        "state": "failed,canceled",
        "ids": "1-3",
    }
    assert query({"ids": []}) == {"ids": "0"}  # nothing, not everything
    with pytest.raises(errors.InvalidRequest, match=r"stat: .*did you mean 'state'"):
        query({"stat": "failed"})


def test_unknown_style():
    with pytest.raises(errors.InvalidRequest, match="'objects'.*did you mean 'object'"):
        Server(style="objects")


def test_progress_in_a_log_is_sparse(capsys):
    with Progress(4) as progress:
        for number in range(5):
            progress.show({"succeeded": number, "running": 4 - number})
    err = capsys.readouterr().err
    assert err.splitlines() == ["4/4 done  4 succeeded  0:00:00"]


def test_progress_can_be_off(capsys):
    with Progress(4, on=False) as progress:
        progress.show({"succeeded": 4})
    assert capsys.readouterr().err == ""


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_an_older_script_runs(objects):
    tasks = [
        objects.task_create(command=f"echo it is {i}", name=f"older-{i}", batch="Default", input="", retry=0) for i in range(3)
    ]
    assert objects.join(tasks, retry=2) == {"succeeded": 3}
    found = [task for task in objects.tasks(status="succeeded", name="older-*")]
    assert [task.command for task in found] == ["echo it is 0", "echo it is 1", "echo it is 2"]
    assert found[0].task_id == tasks[0].task_id and found[0].status == "succeeded" and found[0].output is None
    assert len(found[0].input) == 0
    execution = objects.executions(task_id=found[0].task_id)[0]
    assert (execution.return_code, execution.status) == (0, "succeeded")


def test_every_option_arrives(server):
    options = {
        "name": "all", "batch": "nobody", "input": ["s3://a/x"], "output": "s3://o/", "container": "ubuntu",
        "container_options": "--gpus all", "resource": ["s3://r"],
        "shell": "bash", "retry": 2, "download_timeout": 5.0, "run_timeout": 6.0, "use_cache": True,
        "priority": -3, "env": {"A": "1"}, "uid": 1, "gid": 2, "workdir": "/w",
    }  # fmt: skip
    task = server.task_create("true", **options)
    assert {name: task[name] for name in options} == options
    assert task["state"] == task["status"] == "pending"
    assert task["created_at"].tzinfo is not None


def test_update_reset_and_delete(server):
    task = server.task_create("true", batch="nobody", container="a", retry=3, name="x")
    changed = server.task_update(task, container=RESET, retry=RESET, priority=5)
    assert (changed["container"], changed["retry"], changed["priority"], changed["name"]) == (None, 0, 5, "x")
    server.task_delete(task["id"])
    with pytest.raises(errors.NotFound, match=str(task["id"])):
        server.task_get(task)


def test_many_in_one_call(server):
    ids = server.tasks_create([{"command": "true", "batch": "nobody"}, {"command": "true", "batch": "nobody", "require": ["#0"]}])
    assert server.task_get(ids[1])["require"] == [ids[0]]
    assert server.task_status(ids) == ["pending", "waiting"]
    assert server.tasks_create([]) == []


def test_many_are_all_or_none(server):
    before = server.counts(batch="none")["counts"]
    with pytest.raises(errors.InvalidRequest, match=r"tasks\[1\]\.retry"):
        server.tasks_create([{"command": "true", "batch": "none"}, {"command": "true", "batch": "none", "retry": -1}])
    assert server.counts(batch="none")["counts"] == before


def test_lists_are_whole_over_all_pages(server):
    ids = server.tasks_create([{"command": "true", "batch": "pages", "name": f"p{i}"} for i in range(2300)])
    found = server.tasks(batch="pages")
    assert isinstance(found, list) and [task["id"] for task in found] == ids
    assert [task["id"] for task in server.tasks(batch="pages", limit=1500, order="-id")] == ids[:-1501:-1]
    scattered = ids[::2]
    assert [task["id"] for task in server.tasks(ids=scattered)] == scattered
    assert [task["id"] for task in server.tasks(ids=scattered, limit=3, order="-id")] == scattered[:-4:-1]
    assert server.tasks(ids=[]) == []
    one, other, walk = server.tasks(batch="pages"), server.tasks(batch="pages"), iter(server.tasks(batch="pages"))
    assert [next(walk)["id"] for _ in range(1000)] == ids[:1000]
    assert [len(one), one[-1]["id"], len(one + one), len([0] + one)] == [2300, ids[-1], 4600, 2301]
    assert len(json.loads(json.dumps([task["id"] for task in other]))) == 2300 and sorted(task["id"] for task in other) == ids
    server.batch_delete("pages")
    assert next(walk, None) is None, "the second page is asked when the first one is over"
    assert list(one) == one and list(other) == [] and not server.tasks(batch="pages")
    assert server.task_status([ids[0], ids[-1]]) == ["deleted", "deleted"]


def test_bulk_wants_to_know_which(server):
    for call in (server.tasks_relaunch, server.tasks_cancel, server.tasks_delete):
        with pytest.raises(errors.InvalidRequest, match="which tasks"):
            call()
    with pytest.raises(errors.InvalidRequest, match="which tasks"):
        server.tasks_signal("kill")
    assert server.tasks_delete([])["ids"] == []


def test_bulk_edit(server):
    ids = server.tasks_create([{"command": f"old {i}", "batch": "edit"} for i in range(3)])
    told = server.tasks_edit(ids[:2], sub=("old", "new"), dry_run=True, batch="edit")
    assert [change["after"] for change in told["changes"]] == ["new 0", "new 1"]
    server.tasks_edit(batch="edit", sub=("old", "new"), set={"priority": 2})
    assert [(task["command"], task["priority"]) for task in server.tasks(batch="edit")] == [
        ("new 0", 2),
        ("new 1", 2),
        ("new 2", 2),
    ]
    assert server.tasks_cancel(batch="edit")["ids"] == ids


def test_output_is_bytes(server):
    task = server.task_create(r"printf 'a\0\377\n'; printf 'err' >&2", shell=True)
    server.join([task], progress=False)
    assert server.task_output(task) == b"a\0\xff\n"
    assert server.task_output(task, "stderr") == b"err"
    execution = server.executions(task)[0]
    assert server.execution_output(execution, offset=1, limit=2) == b"\0\xff"
    with pytest.raises(errors.InvalidRequest, match="no stream"):
        server.task_output(task, "stdlog")


def test_explained(server):
    task = server.task_create("true", batch="nobody")
    assert "nobody" in server.task_explain(task)


def test_suspended_resumed_killed(lab, server):
    task = server.task_create("sleep 100")
    lab.wait_state(task["id"], "running")
    assert server.task_signal(task, "suspend")["ids"] == [task["id"]]
    lab.until(lambda: server.executions(task)[0]["suspended"])
    server.task_signal(task, "resume")
    server.task_signal(task, "kill")
    assert server.join([task], retry=0, progress=False) == {"failed": 1}


def test_workers_and_batches(lab, server):
    worker = server.workers()[0]
    assert worker["worker_id"] == worker["id"] and server.worker_get(worker["name"])["id"] == worker["id"]
    assert server.worker_update(worker["name"], prefetch=1)["prefetch"] == 1
    assert server.worker_update(worker, prefetch=0)["prefetch"] == 0
    with pytest.raises(errors.NotFound, match="there is no worker 'w2'"):
        server.worker_drain("w2")
    task = server.task_create("true", batch="a/b c?")
    server.batch_stop("a/b c?")
    assert server.batch_get("a/b c?")["stopped"] is True
    server.batch_go("a/b c?")
    assert "a/b c?" in [batch["name"] for batch in server.batches()]
    server.batch_report("a/b c?")
    server.batch_delete("a/b c?")
    assert server.task_status(task) == ["deleted"]


def test_tokens_events_and_what_it_says_of_itself(lab, server):
    token = server.token_create("guest", "user")
    with Server(lab.url, token=token["token"]) as guest:
        assert guest.tasks(limit=1) is not None
        with pytest.raises(errors.NotAllowed):
            guest.tokens()
    assert "guest" in [row["name"] for row in server.tokens()]
    server.token_delete(token)
    with Server(lab.url, token=token["token"]) as guest, pytest.raises(errors.NotAuthenticated):
        guest.tasks()
    assert server.events(limit=5, order="-id")[0]["id"] > 0
    assert server.info()["version"]


def test_a_wrong_value_is_told_at_once(server):
    start = time.monotonic()
    with pytest.raises(errors.InvalidRequest, match="retry"):
        server.task_create("true", retry=-1)
    with pytest.raises(errors.InvalidRequest, match="there is no task"):
        server.task_create("true", require=[10**9])
    with pytest.raises(errors.InvalidRequest):
        server.task_create("  ")
    assert time.monotonic() - start < 15


# --- join -------------------------------------------------------------------------------------------------------------


def test_join_nothing(server):
    assert server.join([]) == {}


def test_join_waits_for_those_that_wait(server):
    first = server.task_create("sleep 0.3")
    then = server.task_create("true", require=first)
    assert server.join([then], progress=False) == {"succeeded": 1}
    assert server.task_status([first, then]) == ["succeeded", "succeeded"]


def test_join_gives_second_chances(server, tmp_path):
    """Fails twice, then succeeds: one chance is not enough, two are."""
    script = f"echo x >> {tmp_path}/$SCITQ_TASK_ID; [ $(wc -l < {tmp_path}/$SCITQ_TASK_ID) -ge 3 ]"
    task = server.task_create(script, shell=True)
    assert server.join([task], retry=1, progress=False) == {"failed": 1}
    assert len(server.executions(task)) == 2
    assert server.join([task], retry=1, progress=False) == {"succeeded": 1}
    assert len(server.executions(task)) == 3


def test_join_relaunches_only_what_failed(server, tmp_path):
    tasks = server.tasks_create([{"command": f"echo x >> {tmp_path}/{i}; [ {i} != 3 ]", "shell": "sh"} for i in range(8)])
    assert server.join(tasks, retry=2, progress=False) == {"succeeded": 7, "failed": 1}
    assert [len((tmp_path / str(i)).read_text().splitlines()) for i in range(8)] == [1, 1, 1, 3, 1, 1, 1, 1]


def test_join_does_not_wait_for_what_cannot_come(server, capsys):
    bad = server.task_create("false")
    middle = server.task_create("true", require=[bad])
    last = server.task_create("true", require=[middle, server.task_create("true")])
    fine = server.task_create("true")
    assert server.join([last["id"], fine], retry=1) == {"waiting": 1, "succeeded": 1}
    assert f"task {last['id']} is not waited for: it needs task {bad['id']}, which is failed" in capsys.readouterr().err


def test_join_releases_dependents_by_its_second_chance(server, tmp_path):
    bad = server.task_create(f"test -e {tmp_path}/x || {{ touch {tmp_path}/x; false; }}", shell=True)
    last = server.task_create("true", require=[bad])
    assert server.join([bad, last], retry=1, progress=False) == {"succeeded": 2}


def test_join_and_tasks_that_are_deleted(lab, server):
    task, other = server.tasks_create([{"command": "true", "batch": "nobody"}, {"command": "true"}])
    threading.Timer(0.3, lambda: lab.api("DELETE", f"/tasks/{task}")).start()
    assert server.join([task, other], progress=False) == {"deleted": 1, "succeeded": 1}


def test_join_can_raise(server):
    tasks = server.tasks_create([{"command": "false"}, {"command": "true"}])
    with pytest.raises(TaskFailed, match=rf"1 of 2 tasks did not succeed \(1 failed\): look at {tasks[0]} first"):
        server.join(tasks, retry=0, check=True, progress=False)


def test_join_many(server):
    tasks = server.tasks_create([{"command": "true"}] * 300)
    assert server.join(tasks, progress=False) == {"succeeded": 300}


# --- when the server goes away ----------------------------------------------------------------------------------------


def test_a_server_that_was_never_there():
    start = time.monotonic()
    with pytest.raises(errors.Unreachable, match="no server answers"):
        Server("127.0.0.1:1", connect_timeout=0.3).tasks()
    assert time.monotonic() - start < 15


def test_without_a_token(lab):
    with Server(lab.url, token="scitq_wrong") as stranger, pytest.raises(errors.NotAuthenticated):
        stranger.tasks()


def test_calls_outlive_restarts_of_the_server(env):
    process = env.server()
    server = Server(env.url, token=env.token)
    created: list[int] = []

    def write():
        for i in range(60):
            created.append(server.tasks_create([{"command": "true", "batch": "nobody", "name": str(i)}])[0])

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(2):
        size = len(created)
        env.until(lambda: len(created) > size + 5)
        process.kill9()
        process.start()
    thread.join(60)
    tasks = server.tasks(batch="nobody")
    assert [task["name"] for task in tasks] == [str(i) for i in range(60)]
    assert [task["id"] for task in tasks] == created
    process.kill9()
    server.client._patience = {True: 0.5, False: 0.5}
    with pytest.raises(errors.Unreachable):
        server.tasks()


def test_join_outlives_a_restart_of_the_server(env):
    process = env.server()
    env.worker()
    server = Server(env.url, token=env.token)
    task = server.task_create("sleep 1.5")
    env.wait_state(task["id"], "running")
    counts: dict = {}
    thread = threading.Thread(target=lambda: counts.update(server.join([task], progress=False)))
    thread.start()
    process.kill9()
    process.start()
    thread.join(60)
    assert counts == {"succeeded": 1}
    assert len(server.executions(task)) == 1


# --- Executor ---------------------------------------------------------------------------------------------------------


def test_results(server):
    with Executor(server, shell=True) as executor:
        future = executor.submit(r"printf 'out\0'; echo err >&2")
        result = future.result(60)
    assert (result.stdout, result.stderr, result.exit_code, result.state) == (b"out\0", b"err\n", 0, "succeeded")
    assert result.succeeded and result.task_id == future.task_id


def test_a_failure_raises_with_its_result(server):
    with Executor(server, shell=True) as executor:
        future = executor.submit("echo bad luck >&2; exit 7", name="unlucky")
        with pytest.raises(TaskFailed, match=r"exit code 7\): bad luck") as caught:
            future.result(60)
    assert caught.value.result.exit_code == 7 and caught.value.result.stderr == b"bad luck\n"


def test_failures_can_be_results(server):
    with Executor(server, check=False) as executor:
        assert executor.submit("false").result(60).exit_code == 1
        missing = executor.submit("/no/such/program").result(60)
    assert missing.state == "failed" and missing.reason


def test_map_keeps_the_order(server):
    with Executor(server, shell=True) as executor:
        results = list(executor.map([f"sleep 0.{9 - i}; echo {i}" for i in range(8)], timeout=30))
    assert [result.stdout for result in results] == [b"%d\n" % i for i in range(8)]


def test_map_has_a_timeout(server):
    executor = Executor(server)
    with pytest.raises(FuturesTimeout):
        list(executor.map(["sleep 100"], timeout=0.3))
    executor.shutdown(cancel_futures=True)


def test_as_completed(server):
    with Executor(server) as executor:
        futures = executor.submit_all({"command": "true"} for _ in range(50))
        assert {future.result().state for future in as_completed(futures, timeout=30)} == {"succeeded"}


def test_cancel_what_runs_and_what_waits(lab, server):
    executor = Executor(server)
    running, queued = executor.submit("sleep 100"), executor.submit("sleep 100", batch="nobody")
    lab.wait_state(running.task_id, "running")
    assert running.cancel() and queued.cancel() and running.cancelled()
    executor.shutdown()
    with pytest.raises(CancelledError):
        running.result()
    lab.until(lambda: server.task_status([running.task_id, queued.task_id]) == ["canceled", "canceled"])


def test_cancel_of_which_the_watcher_hears_first(server, monkeypatch):
    executor = Executor(server)
    future = executor.submit("sleep 100", batch="nobody")
    send = server.client.send

    def sent_late(*words, **named):
        answer = send(*words, **named)
        wait([future], 60)
        return answer

    monkeypatch.setattr(server.client, "send", sent_late)
    assert future.cancel() and future.cancelled()
    executor.shutdown()


def test_cancel_is_too_late_for_what_ended(server):
    with Executor(server) as executor:
        future = executor.submit("true")
        future.result(60)
        assert not future.cancel()


def test_a_task_that_somebody_else_cancels_or_deletes(lab, server):
    executor = Executor(server, batch="nobody")
    canceled, deleted = executor.submit("true"), executor.submit("true")
    server.task_cancel(canceled.task_id)
    server.task_delete(deleted.task_id)
    with pytest.raises(TaskFailed, match="canceled"):
        canceled.result(60)
    with pytest.raises(TaskFailed, match="deleted"):
        deleted.result(60)
    executor.shutdown()


def test_nothing_after_shutdown(server):
    executor = Executor(server)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit("true")


def test_submits_after_a_pause(server):
    """The watcher ends when there is nothing to watch, and starts again."""
    with Executor(server) as executor:
        executor.submit("true").result(60)
        assert executor.submit("true").result(60).succeeded


def test_wrong_options_raise_in_submit(server):
    with Executor(server) as executor, pytest.raises(errors.InvalidRequest, match="did you mean 'retry'"):
        executor.submit("true", retri=3)
