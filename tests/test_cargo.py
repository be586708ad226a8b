"""The data of tasks on a worker: inputs, resources and outputs, under kills, cuts and wrong words; with real services."""

from __future__ import annotations

import contextlib
import os
import signal
import tarfile
from pathlib import Path

import pytest
from scitq.resources import Resources
from services import Ftp, Nginx


@pytest.fixture
def web(tmp_path):
    made = Nginx(tmp_path / "nginx")
    (made.root / "file").write_bytes(os.urandom(2**20))
    yield made
    made.close()


@pytest.fixture
def store(tmp_path):
    """A folder that stands for somebody's storage."""
    made = tmp_path / "store"
    made.mkdir()
    return made


def gets(web: Nginx, path: str) -> int:
    return sum(f'"GET {path}' in line for line in web.requests())


def couriers(env) -> list[int]:
    return [pid for pid, line in env.leftovers().items() if line.split()[-1:] == ["courier"]]


def script(text: str, **more) -> dict:
    return {"command": text, "shell": "sh", **more}


def test_what_never_came_whole_goes_when_the_disk_fills(tmp_path):
    """A resource whose fetch was broken off, and that no task wants any more."""
    resources = Resources(str(tmp_path))
    for uri in ("broken off", "coming"):
        Path(resources.coming(uri), ".big.scitq-0123456789ab").write_bytes(b"x")
    Path(resources.coming("whole"), "f").write_bytes(b"x")
    resources.keep("whole")
    resources.prune(in_use={"coming", "whole"}, enough=2.0)
    assert resources.has("whole") and len(list(tmp_path.iterdir())) == 2 and len(list(tmp_path.glob("*/new/*"))) == 1


# --- there and back ---------------------------------------------------------------------------------------------------


def test_data_comes_and_goes(env, store):
    (store / "in/deep").mkdir(parents=True)
    (store / "in/a b").write_text("one")
    (store / "in/deep/c").write_text("two")
    with tarfile.open(store / "db.tgz", "w:gz") as tar:
        tar.add(store / "in", "db")
    env.server()
    env.worker(2)
    command = 'cd $OUTPUT; cat "$INPUT/a b" $INPUT/deep/c $RESOURCE/ref/db/deep/c > all; mkdir sub; echo x > sub/ü; exit 3'
    [task] = env.create(
        script(
            command, input=[f"file://{store}/in/"], resource=[f"file://{store}/db.tgz|untar|mv:ref"], output=f"file://{store}/out"
        )
    )
    env.wait_state(task, "failed")
    assert env.task(task)["exit_code"] == 3 and env.task(task)["reason"] is None
    assert (store / "out/all").read_text() == "onetwotwo" and (store / "out/sub/ü").read_text() == "x\n"


def test_nothing_written_is_nothing_sent(env, store):
    env.server()
    env.worker(1)
    [task] = env.create(script("true", output=f"file://{store}/out/"))
    env.wait_state(task)
    assert not (store / "out").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"input": ["file:///no/such/file"]}, "input file:///no/such/file: there is no such file"),
        ({"resource": ["s4://b/x"]}, "resource s4://b/x: there is no scheme 's4'"),
        ({"resource": ["file:///etc/hostname|untar"]}, "resource hostname is no whole archive"),
        ({"input": ["file:///etc/hostname|unpack"]}, "|unpack is no action"),
        ({"output": "http://127.0.0.1:1/x"}, "cannot be written"),
        ({"input": ["ftp://ann:geheim@127.0.0.1:1/x"], "download_timeout": 2}, "took longer than 2 s"),
    ],
)
def test_what_cannot_be_had_fails_the_task_in_a_sentence(env, spec, words):
    env.server()
    env.worker(2)
    wrong, right = env.create(script("echo done > $OUTPUT/f", **spec), script("true"))
    env.wait_state(wrong, "failed")
    env.wait_state(right)
    reason = env.task(wrong)["reason"]
    assert words in reason and "geheim" not in reason


# --- resources --------------------------------------------------------------------------------------------------------


def test_a_resource_is_fetched_once_and_remembered(env, web):
    env.server()
    worker = env.worker(3)
    tasks = env.create(
        *(script("cmp $RESOURCE/file " + str(web.root / "file"), resource=[web.url + "slow/file"]) for _ in range(6))
    )
    env.wait_state(tasks)
    worker.kill9()
    worker.start()
    tasks = env.create(*(script("cat $RESOURCE/file | wc -c", resource=[web.url + "slow/file"]) for _ in range(2)))
    env.wait_state(tasks)
    assert gets(web, "/slow/file") == 1 and env.stdout(tasks[0]) == b"1048576\n"


def test_resources_of_tasks_do_not_mix_and_cannot_be_spoilt_for_others(env, web):
    (web.root / "other").write_text("other")
    env.server()
    env.worker(1)
    one, two = (
        env.create(script("ls $RESOURCE; test ! -w $RESOURCE/* || test $(id -u) = 0", resource=[web.url + name]))[0]
        for name in ("file", "other")
    )
    env.wait_state([one, two])
    assert (env.stdout(one), env.stdout(two)) == (b"file\n", b"other\n")
    spoils, after = env.create(
        script("chmod u+w $RESOURCE/other; echo spoilt > $RESOURCE/other", resource=[web.url + "other"]),
        script("cat $RESOURCE/other", resource=[web.url + "other"]),
    )
    env.wait_state([spoils, after])
    assert env.stdout(after) == b"other" and gets(web, "/other") == 2


def test_two_resources_with_one_name_are_told(env, web, store):
    (store / "file").write_text("mine")
    env.server()
    env.worker(1)
    [task] = env.create(script("true", resource=[web.url + "file", f"file://{store}/file"]))
    env.wait_state(task, "failed")
    assert "two resources of the task have a file file" in env.task(task)["reason"]
    [task] = env.create(script("cat $RESOURCE/mine/file", resource=[web.url + "file", f"file://{store}/file|mv:mine"]))
    env.wait_state(task)
    assert env.stdout(task) == b"mine"


def test_a_worker_killed_while_a_resource_comes_fetches_it_whole(env, web):
    (web.root / "big").write_bytes(os.urandom(2**20) * 5)
    env.server()
    worker = env.worker(1)
    [task] = env.create(script("cmp $RESOURCE/big " + str(web.root / "big"), resource=[web.url + "slow/big"]))
    env.until(lambda: any(path.stat().st_size > 2**20 for path in worker.directory.glob("resources/*/new/.big*")))
    worker.kill9()
    env.until(lambda: not couriers(env), what="the courier ends with its worker")
    worker.start()
    env.wait_state(task)
    assert any('" 206 ' in line for line in web.requests()), "it went on where it was"


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_inputs_of_the_next_task_come_while_the_slot_is_taken(env, web):
    env.server()
    env.worker(1, "--prefetch", "1")
    first, second = env.create(script("sleep 100"), script("cat $INPUT/file | wc -c", input=[web.url + "file"]))
    env.wait_state(first, "running")
    env.until(lambda: gets(web, "/file"))
    assert env.state(second) == "accepted"
    env.api("POST", "/tasks/cancel", {"ids": [first]})
    env.wait_state(second)
    assert env.stdout(second) == b"1048576\n"


def test_a_canceled_task_stops_its_download(env, web):
    (web.root / "big").write_bytes(bytes(40 * 2**20))
    env.server()
    worker = env.worker(1)
    [task] = env.create(script("true", input=[web.url + "slow/big"]))
    env.until(lambda: list(worker.directory.glob("executions/*/input/.big*")))
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")
    env.until(lambda: gets(web, "/slow/big"), what="nginx writes its line when the transfer is over")
    env.until(lambda: not list(worker.directory.glob("executions/*")), what="its directory is gone")


def test_a_courier_that_is_killed_is_started_again(env, web):
    (web.root / "big").write_bytes(os.urandom(2**20) * 5)
    env.server()
    worker = env.worker(1)
    [task] = env.create(script("cmp $INPUT/big " + str(web.root / "big"), input=[web.url + "slow/big"]))
    env.until(lambda: list(worker.directory.glob("executions/*/input/.big*")))
    for pid in couriers(env):
        os.kill(pid, signal.SIGKILL)
    env.wait_state(task)


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_ftp(store):
    """Takes 300 kB a second."""
    made = Ftp(store, limit=300_000)
    yield made
    made.close()


def test_the_slot_is_free_while_outputs_are_sent(env, slow_ftp, store):
    env.server()
    env.worker(1)
    first, second = env.create(
        script("head -c 1500000 /dev/urandom > $OUTPUT/f", output=slow_ftp.writable + "out/"), script("true")
    )
    env.wait_state(first, "uploading")
    env.wait_state(second)
    assert env.state(first) == "uploading"
    env.wait_state(first)
    assert (store / "out/f").stat().st_size == 1_500_000


def test_a_worker_killed_while_outputs_are_sent_sends_them_and_does_not_run_again(env, slow_ftp, store, tmp_path):
    env.server()
    worker = env.worker(1)
    command = f"echo run >> {tmp_path}/runs; head -c 1500000 /dev/zero > $OUTPUT/f; exit 4"
    [task] = env.create(script(command, output=slow_ftp.writable + "out/"))
    env.wait_state(task, "uploading")
    env.until(lambda: list(store.glob("out/.f*")))
    worker.kill9()
    worker.start()
    env.wait_state(task, "failed")
    assert (tmp_path / "runs").read_text() == "run\n" and (store / "out/f").read_bytes() == bytes(1_500_000)
    assert env.task(task)["exit_code"] == 4


def test_outputs_that_cannot_be_sent_fail_the_task_and_stay(env):
    env.server()
    worker = env.worker(1)
    [task] = env.create(script("echo precious > $OUTPUT/f", output="http://127.0.0.1:1/out/"))
    env.wait_state(task, "failed")
    assert env.task(task)["exit_code"] == 0 and env.task(task)["reason"].startswith("output http://127.0.0.1:1/out/f")
    assert [path.read_text() for path in worker.directory.glob("executions/*/output/f")] == ["precious\n"]


def test_a_task_is_ended_while_its_outputs_are_sent(env, slow_ftp, store):
    env.server()
    env.worker(1)
    [task] = env.create(script("head -c 9000000 /dev/zero > $OUTPUT/f", output=slow_ftp.writable + "out/"))
    env.wait_state(task, "uploading")
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")
    env.until(lambda: not list(store.glob("out/*")), what="nothing half is left")


@pytest.mark.skipif(os.geteuid() != 0, reason="other users' tasks want root")
def test_links_of_another_users_task_lead_nowhere(env, store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    env.server()
    for parent in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o111)
    env.worker(1)
    [task] = env.create(
        script(
            f"ln -s {secret} $OUTPUT/stolen; echo mine > $OUTPUT/own; ln -s own $OUTPUT/link",
            uid=65534,
            gid=65534,
            output=f"file://{store}/out/",
        )
    )
    env.wait_state(task, "succeeded", "failed")
    assert env.executions(task)[-1]["reason"] is None, env.stdout(task, "stderr")
    assert sorted(path.name for path in Path(store / "out").iterdir()) == ["link", "own"]


# --- the outputs of an equal task ------------------------------------------------------------------------------------


@pytest.fixture
def cache(env, store, tmp_path):
    """A server, a worker, and a way to launch a task that counts its runs."""
    env.server()
    env.worker(2)
    (store / "in").write_text("first")

    class Cache:
        runs = tmp_path / "runs"

        def launch(self, output: str, **more) -> dict:
            command = f"echo run >> {self.runs}; cp $INPUT/in $OUTPUT/copy; mkdir $OUTPUT/d; echo x > $OUTPUT/d/x"
            spec = {"input": [f"file://{store}/in"], "output": f"file://{store}/{output}", "use_cache": True}
            [task] = env.create(script(command, **spec | more))
            env.wait_state(task)
            return env.executions(task)[-1]

        def count(self) -> int:
            return self.runs.read_text().count("run")

    return Cache()


def test_an_equal_task_takes_the_outputs_of_the_first(cache, store, env):
    first = cache.launch("one/")
    assert [line["what"] for line in first["transfers"]] == ["input", "output"] and first["transfers"][1]["files"] == 2
    same, elsewhere = cache.launch("one/"), cache.launch("two")
    assert cache.count() == 1
    assert [run["reused_id"] for run in (first, same, elsewhere)] == [None, first["id"], first["id"]]
    assert (store / "two/copy").read_text() == "first" and (store / "two/d/x").read_text() == "x\n"
    assert f"took the outputs of execution {first['id']}" in elsewhere["reason"]
    shown = env.cli("manage", "execution", "get", str(elsewhere["id"]), code=0).stdout
    assert f"reuse file://{store}/two, " in shown and f"REUSED {first['id']}" in " ".join(shown.split())


def test_a_folder_of_many_files_is_known_again(cache, store):
    """All that is said of them, one answer of the courier, is longer than a line that asyncio reads unasked."""
    (store / "many").mkdir()
    for number in range(700):
        (store / "many" / f"{number:03}-{'x' * 100}").touch()
    (store / "many" / "in").write_text("one of many")
    first, again = (cache.launch(output, input=[f"file://{store}/many/"]) for output in ("one/", "two/"))
    assert cache.count() == 1 and again["reused_id"] == first["id"]


@pytest.mark.parametrize(
    "change", ["other input", "other command", "output changed", "output gone", "not asked for", "first deleted"]
)
def test_whatever_is_not_equal_runs(cache, store, env, change):
    first = cache.launch("one/")
    more: dict = {}
    if change == "other input":
        (store / "in").write_text("second, and longer")
    elif change == "other command":
        more = {"env": {"OTHER": "1"}}
    elif change == "output changed":
        (store / "one/copy").write_text("edited by hand")
    elif change == "output gone":
        (store / "one/d/x").unlink()
    elif change == "not asked for":
        more = {"use_cache": False}
    else:
        env.api("DELETE", f"/tasks/{first['task_id']}")
    again = cache.launch("two/", **more)
    assert cache.count() == 2 and again["reused_id"] is None
    assert (store / "two/copy").read_text() == (store / "in").read_text()


def test_a_resource_counts_as_it_is_here_not_as_its_source_is_now(cache, store, env):
    (store / "db").write_text("old")
    cache.launch("one/", resource=[f"file://{store}/db"])
    (store / "db").write_text("new and longer")
    assert cache.launch("two/", resource=[f"file://{store}/db"])["reused_id"], "this worker has the old one, and so had the first"
    assert cache.count() == 1


def test_files_of_others_at_the_same_output_do_not_matter(cache, store):
    (store / "one").mkdir()
    (store / "one/mine").write_text("was here before")
    first = cache.launch("one/")
    (store / "one/mine").write_text("and changes")
    assert cache.launch("two/")["reused_id"] == first["id"]
    assert not (store / "two/mine").exists()


def test_what_failed_is_never_reused(cache, store, env):
    spec = {"output": f"file://{store}/bad/", "use_cache": True}
    tasks = [env.create(script(f"echo run >> {cache.runs}; echo x > $OUTPUT/x; exit 1", **spec))[0]]
    env.wait_state(tasks, "failed")
    tasks += env.create(script(f"echo run >> {cache.runs}; echo x > $OUTPUT/x; exit 1", **spec))
    env.wait_state(tasks, "failed")
    assert cache.count() == 2


def test_outputs_that_no_uri_can_name_are_made_again(cache, store, env):
    spec = {"output": f"file://{store}/bars/", "use_cache": True}
    for _ in range(2):
        [task] = env.create(script(f'echo run >> {cache.runs}; echo x > "$OUTPUT/a|b"', **spec))
        env.wait_state(task)
    assert cache.count() == 2 and (store / "bars/a|b").read_text() == "x\n"
