"""The worker, from outside: a real server, real worker processes, killed and starved."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from env import PROGRAM, Env, started
from scitq.keeper.processes import process
from strikes import changed_program


def keeper_of(env: Env) -> int:
    return env.until(lambda: [pid for pid, line in env.leftovers().items() if "keeper" in line.split()], what="a keeper")[0]


def commands(env: Env, text: str) -> list[int]:
    """The living processes of the test whose command line holds a text."""
    return [pid for pid, line in env.leftovers().items() if text in line and "scitq.py" not in line]


def memory(pid: int, field: str = "VmHWM") -> int:
    """Bytes, from /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


# --- what a command gets and gives -----------------------------------------------------------------------------------


def test_environment(env):
    env.server()
    env.worker(1, batch="B")
    values = 'echo "$X|$SCITQ_TASK_ID|$SCITQ_TASK_NAME|$SCITQ_BATCH|$SCITQ_EXECUTION_ID|$CPU|${SCITQ_TOKEN-none}"'
    script = f"{values}; ls -d $INPUT $OUTPUT $RESOURCE $TEMP; pwd"
    [task] = env.create(
        {"command": script, "shell": "bash", "name": "N", "batch": "B", "env": {"X": "a b", "SCITQ_TASK_ID": "fake"}}
    )
    env.wait_state(task)
    first, *directories = env.stdout(task).decode().splitlines()
    execution = env.executions(task)[-1]["id"]
    assert first == f"a b|{task}|N|B|{execution}|{os.cpu_count()}|none"
    base = env.directory / "scratch" / "w1" / "executions" / str(execution)
    assert directories == [*sorted(str(base / name) for name in ("input", "output", "resource", "temp")), str(base / "temp")]


def test_words_are_split_as_a_shell_would_and_no_shell_runs(env):
    env.server()
    env.worker(1)
    [task] = env.create({"command": "printf '%s\\n' 'a b' $HOME *"})
    env.wait_state(task)
    assert env.stdout(task) == b"a b\n$HOME\n*\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"command": "no-such-command-here 1"}, "'no-such-command-here' was not found in PATH"),
        ({"command": "echo 'open"}, "cannot be split"),
        ({"command": "true", "workdir": "/no/such"}, "the working directory /no/such cannot be used"),
    ],
)
def test_what_cannot_run_fails_with_a_sentence(env, spec, words):
    env.server()
    env.worker(1)
    [task] = env.create(spec)
    env.wait_state(task, "failed")
    [execution] = env.executions(task)
    assert words in execution["reason"] and execution["exit_code"] is None


def test_any_bytes_come_through(env):
    env.server()
    env.worker(1)
    [task] = env.create("printf 'a\\000b\\377\\033[31m'; seq 10000 >&2")
    env.wait_state(task)
    assert env.stdout(task) == b"a\0b\xff\x1b[31m"
    assert env.stdout(task, "stderr") == "".join(f"{n}\n" for n in range(1, 10001)).encode()


def test_output_is_seen_while_it_runs(env):
    env.server()
    env.worker(1)
    [task] = env.create("echo first; sleep 100")
    env.wait_state(task, "running")
    env.until(lambda: env.stdout(task) == b"first\n", seconds=2.0)
    env.api("POST", "/tasks/signal", {"ids": [task], "action": "kill"})
    env.wait_state(task, "failed")


def test_output_after_the_command_emptied_its_file(env):
    env.server()
    env.worker(1)
    [task] = env.create("echo one >&2; sleep 2.5; echo two > /dev/stderr; sleep 1.2; echo three >&2")
    env.wait_state(task)
    assert env.stdout(task, "stderr") == b"one\ntwo\nthree\n"


def test_200_mb_of_output_cost_little_memory_and_keep_head_and_tail(env):
    server = env.server()
    worker = env.worker(1)
    numbered = "''.join('%019d\\n' % (100000 * i + j) for j in range(100000))"  # each line tells where it is
    [task] = env.create({"command": f'python3 -c "import sys\nfor i in range(100): sys.stdout.write({numbered})"'})
    env.wait_state(task)
    assert env.executions(task)[-1]["stdout_size"] == 200_000_000
    head = env.answer("GET", f"/executions/{env.executions(task)[-1]['id']}/stdout", offset=0, limit=40).body
    assert head == b"%019d\n%019d\n" % (0, 1)
    end = env.answer("GET", f"/executions/{env.executions(task)[-1]['id']}/stdout", offset=199_999_980).body
    assert end == b"%019d\n" % 9_999_999
    assert memory(worker.pid) < 45e6 and memory(worker.pid) + memory(server.pid) < 150e6


def test_success_leaves_nothing_failure_keeps_its_files(env):
    env.server()
    worker = env.worker(1)
    good, bad = env.create("touch $TEMP/x", "touch $TEMP/x; exit 1")
    env.wait_state([good, bad], "succeeded", "failed")
    kept = env.executions(bad)[-1]["id"]
    executions = worker.directory / "executions"
    env.until(lambda: [path.name for path in executions.iterdir()] == [str(kept)])
    assert (executions / str(kept) / "temp" / "x").exists()
    worker.restart()
    [again] = env.create("true")
    env.wait_state(again)
    env.until(lambda: [path.name for path in executions.iterdir()] == [str(kept)])


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user wants root")
def test_another_user(env):
    for parent in [env.directory, *env.directory.parents]:
        if not os.stat(parent).st_mode & 0o001:
            os.chmod(parent, 0o711)
    env.server()
    env.worker(1)
    [task] = env.create(
        {
            "command": "id -u; id -g; id -G; echo $HOME; touch $TEMP/x $OUTPUT/y; echo again > /dev/stderr; cat ../spec.json",
            "shell": "sh",
            "uid": 65534,
        }
    )
    env.wait_state(task, "failed")  # spec.json is not its to read
    lines = env.stdout(task).decode().split()
    assert lines[0] == "65534" and lines[1] == lines[2] != "0" and lines[3] != os.environ.get("HOME")
    assert b"again" in env.stdout(task, "stderr") and b"denied" in env.stdout(task, "stderr")


# --- signals and limits ------------------------------------------------------------------------------------------------


def test_suspend_resume_and_kill_reach_the_tree(env):
    env.server()
    env.worker(1)
    [task] = env.create("sleep 1001 & setsid sleep 1001 & sleep 1001; echo no")
    env.wait_state(task, "running")
    env.until(lambda: len(commands(env, "sleep 1001")) >= 4)
    for action, states in (("suspend", "T"), ("resume", "S")):
        env.api("POST", "/tasks/signal", {"ids": [task], "action": action})
        env.until(lambda states=states: {process(pid).state for pid in commands(env, "sleep 1001")} == {states})
        env.until(lambda action=action: env.executions(task)[-1]["suspended"] == (action == "suspend"))
    env.api("POST", "/tasks/signal", {"ids": [task], "action": "kill"})
    env.wait_state(task, "failed")
    assert not commands(env, "sleep 1001")
    assert "ended on request (kill)" in env.executions(task)[-1]["reason"]


def test_cancel(env):
    env.server()
    env.worker(1)
    [task] = env.create("sleep 1002")
    env.wait_state(task, "running")
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")
    assert not commands(env, "sleep 1002")


def test_run_timeout(env):
    env.server()
    env.worker(1)
    [task] = env.create({"command": "sleep 1003", "run_timeout": 0.5})
    env.wait_state(task, "failed")
    execution = env.executions(task)[-1]
    assert (
        execution["reason"] == "ran longer than its time limit of 0.5 s and was ended" and execution["signal"] == signal.SIGTERM
    )


def test_killed_by_the_kernel_is_said(env):
    env.server()
    env.worker(1)
    [task] = env.create("kill -9 $$")
    env.wait_state(task, "failed")
    execution = env.executions(task)[-1]
    assert (execution["signal"], execution["exit_code"], execution["reason"]) == (9, None, "killed by signal 9 (SIGKILL)")


# --- the worker comes and goes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill9", "stop"])
def test_commands_outlive_their_worker(env, how):
    env.server()
    worker = env.worker(2)
    runs, ends = env.create(
        "echo a; while [ ! -e go ]; do sleep 0.05; done; echo b", "while [ ! -e go ]; do sleep 0.05; done; echo c; exit 7"
    )
    env.wait_state([runs, ends], "running")
    env.until(lambda: env.stdout(runs) == b"a\n")
    pids = {task: env.executions(task)[-1]["pid"] for task in (runs, ends)}
    before = time.monotonic()
    getattr(worker, how)()
    assert time.monotonic() - before < 20
    places = {task: worker.directory / "executions" / str(env.executions(task)[-1]["id"]) for task in (runs, ends)}
    (places[ends] / "temp" / "go").touch()
    env.until(lambda: process(pids[ends]) is None)
    assert process(pids[runs]) is not None
    worker.start()
    env.wait_state(ends, "failed")
    assert env.state(runs) == "running"
    (places[runs] / "temp" / "go").touch()
    env.wait_state(runs)
    assert env.stdout(runs) == b"a\nb\n" and env.stdout(ends) == b"c\n"
    assert env.executions(ends)[-1]["exit_code"] == 7
    assert all(len(env.executions(task)) == 1 and env.executions(task)[0]["pid"] == pids[task] for task in pids)


def test_a_killed_keeper_loses_its_commands_and_says_so(env):
    env.server()
    env.worker(1)
    [task] = env.create("setsid sleep 1004 & sleep 1004")
    env.wait_state(task, "running")
    first = env.until(lambda: set(commands(env, "sleep 1004")) if len(commands(env, "sleep 1004")) >= 3 else None)
    os.kill(keeper_of(env), signal.SIGKILL)
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running")
    lost = env.executions(task)[0]
    assert lost["state"] == "lost" and "looked after its command was killed" in lost["reason"]
    assert not first & set(commands(env, "sleep 1004"))
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")


def test_worker_and_keeper_killed_together(env):
    env.server()
    worker = env.worker(1)
    [task] = env.create("setsid sleep 1005 & sleep 1005")
    env.wait_state(task, "running")
    first = env.until(lambda: set(commands(env, "sleep 1005")) if len(commands(env, "sleep 1005")) >= 3 else None)
    worker.kill9()
    os.kill(keeper_of(env), signal.SIGKILL)
    worker.start()
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running")
    assert env.executions(task)[0]["state"] == "lost" and not first & set(commands(env, "sleep 1005"))
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")


@pytest.mark.parametrize("forged", ["other boot", "reused pid"])
def test_another_process_is_not_mistaken_for_the_command(env, forged):
    env.server()
    worker = env.worker(1)
    [task] = env.create("sleep 1006")
    env.wait_state(task, "running")
    worker.kill9()
    os.kill(keeper_of(env), signal.SIGKILL)
    for pid in commands(env, "sleep 1006"):
        os.kill(pid, signal.SIGKILL)
    stranger = subprocess.Popen(["sleep", "1007"], start_new_session=True)
    try:
        path = worker.directory / "executions" / str(env.executions(task)[-1]["id"]) / "started.json"
        record = json.loads(path.read_text())
        assert record["start"] != process(stranger.pid).start
        record["pid"] = stranger.pid
        if forged == "other boot":
            record |= {"boot": "0-0", "start": process(stranger.pid).start}
        path.write_text(json.dumps(record))
        worker.start()
        env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running")
        lost = env.executions(task)[0]
        assert lost["state"] == "lost" and ("restarted" in lost["reason"]) == (forged == "other boot")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    env.api("POST", "/tasks/cancel", {"ids": [task]})
    env.wait_state(task, "canceled")


def test_ends_with_its_parent(env):
    env.server()
    command = [*PROGRAM, "worker", env.url, "2", "--name", "child", "--scratch", str(env.directory / "s"), "--stop-with-parent"]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env.variables) as worker:
        assert worker.stdout.readline().startswith("worker child (id 1)")
        [task] = env.create("sleep 1008")
        env.wait_state(task, "running")
        worker.stdin.close()
        assert worker.wait(60) == 0
    assert not commands(env, "sleep 1008")
    assert env.executions(task)[0]["state"] == "lost" and env.state(task) == "pending"
    env.until(lambda: not env.leftovers().keys() - {env.processes[0].pid})


# --- the server comes and goes ------------------------------------------------------------------------------------------


def test_results_wait_for_the_server(env):
    server = env.server()
    env.worker(2)
    ids = env.create(*[f"sleep 0.{n + 3}; echo {n}" for n in range(2)])
    env.wait_state(ids, "running")
    server.kill9()
    env.until(lambda: not commands(env, "sleep 0."))
    server.start()
    env.wait_state(ids)
    assert [env.stdout(task) for task in ids] == [b"0\n", b"1\n"]
    assert all(len(env.executions(task)) == 1 for task in ids)


def test_prefetched_tasks_follow_at_once(env):
    env.server()
    env.worker(1, "--prefetch", "2")
    ids = env.create(*["sleep 0.1"] * 6)
    env.wait_state(ids)
    rows = [env.executions(task) for task in ids]
    assert all(len(row) == 1 for row in rows)


def test_a_line_that_is_cut_stops_nothing(env):
    """Half-dead connections: what ended meanwhile is told over the next one."""
    env.server()
    relay = env.relay()
    env.worker(1, server=relay.url)
    [task] = env.create("sleep 0.5; echo x")
    env.wait_state(task, "running")
    relay.refusing = True
    relay.cut()
    env.until(lambda: not commands(env, "sleep 0.5"))
    relay.refusing = False
    env.wait_state(task)
    assert env.stdout(task) == b"x\n" and len(env.executions(task)) == 1


def test_concurrency_changes_while_it_works(env):
    env.server()
    worker = env.worker(1)
    ids = env.create(*["sleep 1009"] * 3)
    env.wait_state(ids[0], "running")
    env.api("PATCH", f"/workers/{worker.row['id']}", {"concurrency": 3})
    env.wait_state(ids, "running")
    env.api("POST", "/tasks/cancel", {"ids": ids})
    env.wait_state(ids, "canceled")


def test_a_deleted_worker_ends_its_commands_and_itself(env):
    env.server()
    worker = env.worker(1)
    [task] = env.create("sleep 1010")
    env.wait_state(task, "running")
    env.api("DELETE", f"/workers/{worker.row['id']}")
    assert worker.wait_exit() == 3
    assert not commands(env, "sleep 1010")
    assert "deleted" in worker.output()


# --- what can be wrong at the start -----------------------------------------------------------------------------------


def start(env: Env, *words: str, **variables: str) -> subprocess.CompletedProcess:
    return env.cli("worker", *words, variables=variables, timeout=20)


def test_one_worker_a_directory(env):
    env.server()
    env.worker(1, name="a")
    second = start(env, env.url, "1", "--name", "a", "--scratch", str(env.directory / "scratch"))
    assert second.returncode == 1 and "a worker a runs already in" in second.stderr


def test_a_taken_name(env):
    env.server()
    env.worker(1, name="a")
    second = start(env, env.url, "1", "--name", "a", "--scratch", str(env.directory / "other"))
    assert second.returncode == 1 and "worker a exists" in second.stderr and "--name" in second.stderr


def test_a_wrong_token(env):
    env.server()
    refused = start(env, env.url, "1", "--scratch", str(env.directory / "s"), SCITQ_TOKEN="scitq_wrong")
    assert refused.returncode == 4 and len(refused.stderr.splitlines()) == 1


def test_something_else_answers(env):
    env.server()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            connection, _ = door.accept()
            with connection:
                connection.recv(10000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        other = start(env, url, "1", "--scratch", str(env.directory / "s"), SCITQ_TOKEN="x")
        thread.join()
    assert other.returncode == 5 and "not a scitq server" in other.stderr


def test_waits_for_a_server_that_is_not_there_and_says_so_once(env):
    server = env.server()
    server.kill9()
    worker = env.worker(1, ready=False)
    env.until(lambda: "waiting for it" in worker.output())
    server.start()
    env.until(lambda: "worker w1 (id 1)" in worker.output())
    assert worker.output().count("waiting for it") == 1


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a b", "x" * 101])
def test_a_name_that_cannot_be_a_directory(env, name):
    refused = start(env, "http://127.0.0.1:1", "1", "--name", name, "--scratch", str(env.directory / "s"))
    assert refused.returncode == 2 and "name" in refused.stderr


def test_a_scratch_that_cannot_be(env):
    (env.directory / "file").write_text("")
    refused = start(env, "http://127.0.0.1:1", "1", "--scratch", str(env.directory / "file"))
    assert refused.returncode == 4 and "--scratch" in refused.stderr


def test_a_full_disk_takes_no_work_until_there_is_room(env):
    if os.getuid() != 0:
        pytest.skip("mounting wants root")
    scratch = env.directory / "small"
    scratch.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(scratch)], capture_output=True).returncode:
        pytest.skip("mounting is not possible here")
    try:
        env.program = changed_program(env.directory / "copy", {"protocol": {"POLL_SECONDS": 1.0}})
        env.server()
        worker = env.worker(1, scratch=scratch)
        (scratch / "big").write_bytes(b"x" * 7_000_000)
        env.until(lambda: worker.row["problem"], what="the worker says that its disk is full")
        assert "full" in worker.row["problem"] and worker.row["state"] == "unfit"
        [task] = env.create("echo x")
        (scratch / "big").unlink()
        env.wait_state(task)
        assert worker.row["problem"] is None and len(env.executions(task)) == 1
        worker.stop()
    finally:
        subprocess.run(["umount", "-l", str(scratch)], check=True)
