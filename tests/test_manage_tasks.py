"""`scitq manage task` and `execution`, from outside; and the pure functions below them."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time

import pytest
from env import PROGRAM
from hypothesis import given
from hypothesis import strategies as st
from scitq.cli.manage import changes, main, selection, tables
from scitq.errors import InvalidRequest
from scitq.lib import RESET
from terminal import on_terminal

from scitq import cli


@pytest.fixture(scope="module")
def seeds(lab):
    """Tasks of a batch that have ended: two succeeded, one failed."""
    good = [lab.launch("-b", "seeds", "-n", f"good{i}", "--", "sh", "-c", f"echo out{i}; echo err{i} >&2") for i in range(2)]
    bad = lab.launch("-b", "seeds", "-n", "bad", "--", "sh", "-c", "echo no >&2; exit 3")
    lab.api("PATCH", f"/workers/{lab.items('/workers')[0]['id']}", {"batch": "seeds"})
    lab.wait_state([*good, bad], "succeeded", "failed")
    return {"good": good, "bad": bad}


def manage(lab, *words, code=0, **options):
    return lab.cli("manage", *words, code=code, **options)


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_table_has_its_ids_first(lab, seeds):
    lines = manage(lab, "task", "list", "-b", "seeds").stdout.splitlines()
    assert lines[0].split()[:5] == ["ID", "STATE", "NAME", "BATCH", "WORKER"] and lines[0].split()[-1] == "COMMAND"
    assert [int(line.split()[0]) for line in lines[1:]] == [*seeds["good"], seeds["bad"]]
    assert "exit 3" in lines[3] and "sh -c 'echo no" in lines[3]


def test_the_pipeline_of_the_manual(lab, seeds):
    scitq = " ".join(PROGRAM)
    line = f"{scitq} manage task list -bseeds -S succeeded -H | cut -d' ' -f1 | xargs -n 1 {scitq} manage task output --output -i"
    done = subprocess.run(["sh", "-c", line], env=lab.variables, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out0\nout1\n", "", 0)


def test_formats_for_programs(lab, seeds):
    rows = json.loads(manage(lab, "task", "list", "-b", "seeds", "-o", "json").stdout)
    assert rows == lab.items("/tasks", batch="seeds")
    lines = manage(lab, "task", "list", "-b", "seeds", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert manage(lab, "task", "list", "-b", "seeds", "-o", "ids", "--reverse").stdout.split() == [
        str(row["id"]) for row in rows[::-1]
    ]
    table = list(csv.DictReader(io.StringIO(manage(lab, "task", "list", "-b", "seeds", "-o", "csv", "-L").stdout)))
    assert [(row["id"], row["command"], row["exit_code"]) for row in table] == [
        (str(row["id"]), row["command"], str(row["exit_code"])) for row in rows
    ]
    assert json.loads(table[0]["require"]) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-S", "failed"], ["bad"]),
        (["-n", "good*", "--limit", "1"], ["good0"]),
        (["--exit-code", "3"], ["bad"]),
        (["--grep", "err1"], ["good1"]),
        (["--since", "1h", "-S", "succeeded,failed", "--reverse"], ["bad", "good1", "good0"]),
        (["--since", "2100-01-01"], []),
        (["--worker", "w1", "-S", "failed"], ["bad"]),
    ],
)
def test_filters(lab, seeds, words, found):
    rows = json.loads(manage(lab, "task", "list", "-b", "seeds", "-o", "json", *words).stdout)
    assert [row["name"] for row in rows] == found


def test_a_batch_that_does_not_exist_is_told_and_one_without_such_tasks_is_not(lab, seeds):
    for noun in ("task", "execution"):
        told = manage(lab, noun, "list", "-b", "sedes", "-o", "json")
        assert told.stdout == "[]\n" and told.stderr == "scitq: there is no batch 'sedes' (did you mean 'seeds'?)\n"
        assert manage(lab, noun, "list", "-b", "seeds", "-n", "nobody", "-o", "json").stderr == ""


def test_ids_may_stand_as_words(lab, seeds):
    first, second = seeds["good"]
    for words in (
        [f"{first}-{second}"],
        [str(first), str(second)],
        ["-i", f"{first},{second}"],
        ["-i", str(first), "-i", str(second)],
    ):
        assert manage(lab, "task", "list", "-o", "ids", *words).stdout.split() == [str(first), str(second)]


def test_names_and_output_never_reach_the_terminal_as_orders(lab):
    task = lab.create({"command": "echo '\x1b[2J'\n\techo ü", "name": "näme"})[0]
    line = manage(lab, "task", "list", task, "-H").stdout
    assert "\x1b" not in line and line.count("\n") == 1 and r"echo '\x1b[2J'\n\techo ü" in line and "näme" in line
    assert json.loads(manage(lab, "task", "get", task, "-o", "json").stdout)["command"] == "echo '\x1b[2J'\n\techo ü"


def test_a_list_ends_quietly_when_nobody_reads_on(lab):
    lab.create(*({"command": f"echo {'x' * 200}", "batch": "many"} for _ in range(3000)))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(PROGRAM)} manage task list -b many | head -n 2"],
        env=lab.variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.count("\n"), done.stderr) == (2, "")
    assert len(manage(lab, "task", "list", "-b", "many", "-H").stdout.splitlines()) == 3000


def test_watch_shows_what_changed_until_interrupted(lab):
    task = lab.create({"command": "true", "batch": "watched"})[0]
    words = [*PROGRAM, "manage", "task", "list", str(task), "--watch", "30"]
    watch = subprocess.Popen(words, env=lab.variables, stdout=subprocess.PIPE)
    try:
        _read_until(watch.stdout.fileno(), b"pending")
        lab.api("POST", "/tasks/cancel", {"ids": [task]})
        _read_until(watch.stdout.fileno(), b"canceled")
    finally:
        watch.send_signal(signal.SIGINT)
        assert watch.wait(60) == 130
        watch.stdout.close()


def _read_until(descriptor: int, word: bytes, seconds: float = 60.0) -> bytes:
    """What comes, up to the word; fails when it does not come."""
    deadline, found = time.monotonic() + seconds, b""
    while word not in found:
        assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], found
        found += os.read(descriptor, 4096)
    return found


# --- one task, its output ---------------------------------------------------------------------------------------------


def test_everything_about_a_task(lab, seeds):
    text = manage(lab, "task", "get", seeds["bad"]).stdout
    shown = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in text.splitlines()}
    assert shown["ID"] == str(seeds["bad"]) and shown["END"] == "exit 3" and shown["NAME"] == "bad" and "WHY" not in shown
    assert (shown["MEMORY"], shown["STDERR"], shown["LAST-OUTPUT"]) != ("0 B", "0 B", "") and shown["LAST-OUTPUT"] == "no"
    whole = json.loads(manage(lab, "task", "get", seeds["bad"], "-o", "json").stdout)
    assert whole.pop("execution") == lab.executions(seeds["bad"])[-1] and whole == lab.task(seeds["bad"])
    waiting = lab.create({"command": "true", "require": [seeds["bad"]], "batch": "waits"})[0]
    assert f"waits for task {seeds['bad']}" in manage(lab, "task", "get", waiting).stdout
    assert manage(lab, "task", "explain", waiting).stdout == lab.api("GET", f"/tasks/{waiting}/explain")["sentence"] + "\n"


def test_output_goes_where_it_came_from(lab, seeds):
    first, second = seeds["good"]
    done = manage(lab, "task", "output", "-i", first)
    assert (done.stdout, done.stderr) == ("out0\n", "err0\n")
    done = manage(lab, "task", "output", "-e", "-n", "good1")
    assert (done.stdout, done.stderr) == ("err1\n", "")
    done = manage(lab, "task", "output", "-o", first, second)
    assert done.stdout == f"==> task {first} good0 <==\nout0\n==> task {second} good1 <==\nout1\n"


def test_output_is_byte_for_byte(lab, seeds):
    command = r"printf '\000\377\033[31m\r\n'; head -c 3000000 /dev/zero"
    task = lab.create({"command": command, "shell": "sh", "batch": "seeds"})[0]
    lab.wait_state(task)
    done = subprocess.run([*PROGRAM, "manage", "task", "output", str(task)], env=lab.variables, capture_output=True, check=True)
    assert done.stdout == b"\0\xff\x1b[31m\r\n" + bytes(3_000_000) and done.stderr == b""


@pytest.mark.parametrize("follow", ["", "-f"])
def test_output_ends_quietly_when_nobody_reads_on(lab, seeds, follow):
    task = lab.create({"command": "head -c 3000000 /dev/zero", "batch": "seeds"})[0]
    lab.wait_state(task)
    line = f"{' '.join(PROGRAM)} manage task output {task} {follow} | head -c 5; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", line], env=lab.variables, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (bytes(5), b"0\n")


def test_each_attempt_has_its_output(lab, seeds):
    task = lab.create({"command": "echo $SCITQ_EXECUTION_ID; exit 1", "shell": "sh", "retry": 2, "batch": "seeds"})[0]
    lab.wait_state(task, "failed")
    ids = [str(execution["id"]) for execution in lab.executions(task)]
    outputs = [manage(lab, "task", "output", task, "--attempt", n).stdout.strip() for n in (1, 2, 3, -1, -3)]
    assert outputs == [ids[0], ids[1], ids[2], ids[2], ids[0]]
    assert manage(lab, "execution", "list", "--task", task, "-o", "ids").stdout.split() == ids
    assert manage(lab, "execution", "output", ids[1], "-o").stdout == f"{ids[1]}\n"
    assert json.loads(manage(lab, "execution", "get", ids[1], "-o", "json").stdout)["attempt"] == 2
    assert f"TASK  {task}" in re.sub(" +", "  ", manage(lab, "execution", "get", "-i", ids[1]).stdout)
    assert "there are 3" in manage(lab, "task", "output", task, "--attempt", "4", code=3).stderr
    assert manage(lab, "task", "output", task, "-f").stdout == f"{ids[2]}\n"
    seven = lab.create({"command": "printf 7", "shell": "sh", "batch": "seeds", "name": "seven"})[0]
    lab.wait_state(seven)
    assert (
        manage(lab, "task", "output", task, seven, task, "-o").stdout
        == f"==> task {task} <==\n{ids[2]}\n==> task {seven} seven <==\n7"
    )
    assert manage(lab, "task", "output", "-n", "seven").stdout == "7"


@pytest.mark.parametrize("noun", ["task", "execution"])
def test_output_is_followed_to_the_end(lab, seeds, tmp_path, noun):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task = lab.create({"command": f"echo begun; cat {gate}; echo over >&2", "shell": "sh", "batch": "seeds"})[0]
    lab.wait_state(task, "running")
    number = task if noun == "task" else lab.executions(task)[0]["id"]
    follow = subprocess.Popen(
        [*PROGRAM, "manage", noun, "output", "-f", str(number)],
        env=lab.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout.readline() == "begun\n" and follow.poll() is None
    gate.write_text("through the gate\n")
    assert follow.communicate(timeout=60) == ("through the gate\n", "over\n") and follow.returncode == 0


def test_who_follows_goes_on_when_the_server_comes_back(env, tmp_path):
    server = env.server()
    env.worker()
    os.mkfifo(tmp_path / "gate")
    task = env.create({"command": f"echo begun; cat {tmp_path}/gate", "shell": "sh"})[0]
    words = [*PROGRAM, "manage", "task", "output", "-f", str(task)]
    follow = subprocess.Popen(words, env=env.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follow.stdout.readline() == "begun\n"
    server.kill9()
    server.start()
    (tmp_path / "gate").write_text("and over\n")
    out, err = follow.communicate(timeout=30)
    assert (out, follow.returncode) == ("and over\n", 0) and "Traceback" not in err


def test_no_output_yet_is_told(lab):
    task = lab.create({"command": "true", "batch": "nobody is there"})[0]
    done = manage(lab, "task", "output", task)
    assert done.stdout == "" and f"task {task} has no output yet: it is pending" in done.stderr


# --- changes ----------------------------------------------------------------------------------------------------------


def test_nothing_is_changed_unless_it_was_agreed_to(lab, seeds):
    before = lab.task(seeds["bad"])
    done = manage(lab, "task", "relaunch", seeds["bad"], code=2)
    assert f"this would relaunch task {seeds['bad']}: give --yes" in done.stderr and done.stderr.count("\n") == 1
    assert manage(lab, "task", "relaunch", seeds["bad"], "--dry-run").stdout == f"would relaunch task {seeds['bad']}\n"
    assert lab.task(seeds["bad"]) == before


@pytest.mark.parametrize(("answer", "state"), [("y\n", "canceled"), ("n\n", "pending"), ("\n", "pending")])
def test_a_terminal_is_asked(lab, answer, state):
    task = lab.create({"command": "true", "batch": "asked"})[0]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "manage", "task", "cancel", str(task)], env=lab.variables, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = _read_until(ours, b"[y/N]")
    os.write(ours, answer.encode())
    process.communicate(timeout=30)
    os.close(ours)
    assert f"cancel task {task}?".encode() in shown
    assert lab.state(task) == state and process.returncode == (0 if state == "canceled" else 1)


def test_a_typing_error_is_mended_in_all_that_failed(lab, seeds):
    ids = lab.create(*({"command": f"ecko {i}/{i}", "shell": "sh", "batch": "seeds", "name": "typo"} for i in range(3)))
    lab.wait_state(ids, "failed")
    words = ("task", "edit", "-n", "typo", "-S", "failed", "--sub", "s,ecko (.)/,echo <\\1> ,", "--relaunch")
    look = manage(lab, *words, "--dry-run").stdout
    assert f"task {ids[1]}\n- ecko 1/1\n+ echo <1> 1\n" in look and lab.task(ids[1])["command"] == "ecko 1/1"
    done = manage(lab, *words, "--yes").stdout
    asked = f"would edit 3 tasks ({ids[0]}-{ids[2]}), and queue again what has ended"
    assert asked in look and done == look.replace(asked, f"edit: 3 tasks ({ids[0]}-{ids[2]})")
    assert [lab.task(task)["command"] for task in ids] == [f"echo <{i}> {i}" for i in range(3)]
    lab.wait_state(ids, "failed", "succeeded")


def test_only_what_the_substitution_changes_is_relaunched(lab, seeds):
    ids = lab.create(*({"command": command, "shell": "sh", "batch": "seeds", "name": "part"} for command in ("exit 4", "exit 5")))
    lab.wait_state(ids, "failed")
    manage(lab, "task", "edit", "-n", "part", "--sub", "s/exit 4/exit 0/", "--relaunch", "--yes")
    lab.wait_state(ids[0])
    assert lab.task(ids[1])["attempts"] == 1


def test_sub_is_once_in_each_command_or_everywhere(lab):
    first, second = lab.create(*({"command": "a a A", "batch": "subs"} for _ in range(2)))
    manage(lab, "task", "edit", first, "--sub", "s/a/b/", "-y")
    manage(lab, "task", "edit", second, "--sub", "s/a/b/gi", "-y")
    assert [lab.task(task)["command"] for task in (first, second)] == ["b a A", "b b b"]


def test_of_a_script_the_lines_that_change_are_shown(lab):
    script = "set -e\nfirst\nold one\nmiddle\nlong\nway\nold two\nlast\n"
    (task,) = lab.create({"command": script, "shell": "sh", "batch": "scripts"})
    look = manage(lab, "task", "edit", task, "--sub", "s/old/new/g", "-t").stdout
    assert look == (
        f"task {task}\n  first\n- old one\n+ new one\n  middle\n  ...\n"
        f"  way\n- old two\n+ new two\n  last\nwould edit task {task}\n"
    )


def test_a_terminal_sees_differences_in_colour(lab):
    (task,) = lab.create({"command": "old", "batch": "colours"})
    code, seen = on_terminal(lab, "manage", "task", "edit", str(task), "--sub", "s/old/new/", typed=b"y\n")
    assert code == 0 and b"\x1b[31m- old\x1b[0m" in seen and b"\x1b[32m+ new\x1b[0m" in seen and b"[y/N]" in seen
    assert lab.task(task)["command"] == "new"


def test_what_somebody_else_changed_meanwhile_is_told():
    shown = {"changes": [{"id": i, "before": "a", "after": "b"} for i in range(4)]}
    done = {"changes": [{"id": 0, "before": "a", "after": "b"}, {"id": 1, "before": "ca", "after": "cb"}], "skipped": [{"id": 3}]}
    assert selection._surprises(shown, done) == [1, 2]


def test_what_a_filter_cannot_change_is_told_and_no_failure(lab, seeds):
    done, queued = lab.create(
        {"command": "true", "batch": "seeds", "name": "mixed"}, {"command": "true", "batch": "mixed", "name": "mixed"}
    )
    lab.wait_state(done)
    told = manage(lab, "task", "cancel", "-n", "mixed", "--yes")
    assert told.stdout == f"cancel: task {queued}\n" and f"left out task {done}: has ended" in told.stderr
    manage(lab, "task", "relaunch", "-n", "mixed", "-S", "canceled", "--yes")
    assert "left out" in manage(lab, "task", "cancel", done, queued, "--yes", code=1).stderr


def test_properties_are_set_back(lab):
    (task,) = lab.create({"command": "true", "batch": "u", "container": "x", "retry": 3, "run_timeout": 5, "env": {"A": "1"}})
    words = ("task", "update", task, "--unset", "retry", "--unset", "run-timeout", "--shell")
    look = manage(lab, *words, "-t").stdout
    assert look == f"would update task {task}: shell=sh, retry back to its default, run_timeout back to its default\n"
    manage(lab, *words, "--yes")
    assert lab.task(task).items() >= {"container": "x", "retry": 0, "run_timeout": None, "shell": "sh"}.items()
    manage(lab, "task", "edit", task, "--yes", "--unset", "shell,env", "--set", "container=")
    assert lab.task(task).items() >= {"container": None, "shell": None, "env": {}}.items()
    manage(lab, "task", "update", task, "--yes", "--shell=bash")
    assert lab.task(task)["shell"] == "bash"


def test_properties_are_updated(lab):
    need, task = lab.create({"command": "true", "batch": "u"}, {"command": "true", "batch": "u", "env": {"OLD": "1"}})
    words = [
        "-c", "echo 'new one'", "-N", "renamed", "-b", "v", "-d", "image", "-O", "--cpus 2", "-j", "s3://b/a s3://b/c", "-r",
        "s3://b/r", "-o", "s3://b/o/", "-R", need, "-u", "1", "-g", "2", "--env", "A=1", "--env", "B=x=y", "--workdir", "/tmp",
        "--shell", "bash", "--retry", "4", "--priority", "-5", "--download-timeout", "1h30m", "--run-timeout", "90",
        "--use-cache", "yes",
    ]  # fmt: skip
    manage(lab, "task", "update", "-i", task, "--yes", *words)
    assert lab.task(task).items() >= {
        "command": "echo 'new one'", "name": "renamed", "batch": "v", "container": "image", "container_options": "--cpus 2",
        "input": ["s3://b/a", "s3://b/c"], "resource": ["s3://b/r"], "output": "s3://b/o/", "require": [need], "uid": 1, "gid": 2,
        "env": {"A": "1", "B": "x=y"}, "workdir": "/tmp", "shell": "bash", "retry": 4, "priority": -5, "download_timeout": 5400.0,
        "run_timeout": 90.0, "use_cache": True, "state": "waiting",
    }.items()  # fmt: skip
    manage(lab, "task", "update", task, "--yes", "-d", "", "--env", "", "-R", "", "--retry", "")
    assert (
        lab.task(task).items()
        >= {"container": None, "env": {}, "require": [], "retry": 0, "name": "renamed", "state": "pending"}.items()
    )
    manage(lab, "task", "edit", "-i", task, "--yes", "--set", "priority=7", "--set", "run-timeout=", "--set", "env=C=3")
    assert lab.task(task).items() >= {"priority": 7, "run_timeout": None, "env": {"C": "3"}}.items()


def test_running_ones_are_signaled_canceled_and_deleted(lab, seeds):
    task = lab.create({"command": "sleep 100", "batch": "seeds"})[0]
    lab.wait_state(task, "running")
    manage(lab, "task", "signal", "suspend", task, "--yes")
    lab.until(lambda: " suspended " in manage(lab, "task", "list", task).stdout)
    manage(lab, "task", "signal", "resume", "-i", task, "--yes")
    lab.until(lambda: " running " in manage(lab, "task", "list", task).stdout)
    done = manage(lab, "task", "relaunch", task, "--yes", code=1)
    assert f"left out task {task}: is running" in done.stderr
    assert manage(lab, "task", "delete", task, "-t").stdout == f"would delete task {task}, 1 running\n"
    assert manage(lab, "task", "cancel", task, "--yes").stdout == f"cancel: task {task}\n"
    lab.wait_state(task, "canceled")
    assert manage(lab, "task", "delete", task, "-t").stdout == f"would delete task {task}\n"
    manage(lab, "task", "delete", task, "--yes")
    assert manage(lab, "task", "get", task, code=3).stderr == f"scitq: there is no task {task}\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["list", "-S", "fialed"], 2, "unknown state 'fialed' (did you mean 'failed'?)"),
        (["list", "--fromat", "csv"], 2, "unknown option '--fromat' (did you mean '--format'?)"),
        (["list", "-o", "xml"], 2, "unknown format 'xml'"),
        (["list", "-i", "x"], 2, "ids"),
        (["list", "--since", "soon"], 2, "since"),
        (["list", "--watch", "soon"], 2, "--watch cannot be 'soon'"),
        (["lst"], 2, "unknown verb 'lst' (did you mean 'list'?)"),
        ([], 2, "which verb?"),
        (["get"], 2, "get which tasks?"),
        (["get", "999999"], 3, "there is no task 999999"),
        (["output", "-n", "no such name"], 3, "no task passes the filter"),
        (["output", "-f", "-n", "good*"], 2, "--follow wants one task"),
        (["delete", "--yes"], 2, "delete which tasks?"),
        (["delete", "999999", "--yes"], 3, "is not there"),
        (["cancel", "-b", "none such", "--yes"], 3, "no task passes the filter"),
        (["signal", "stop", "3"], 2, "unknown action 'stop'"),
        (["edit", "-b", "seeds", "--yes"], 2, "edit changes nothing"),
        (["edit", "-b", "seeds", "--sub", "s/(/x/", "--yes"], 2, "is no regular expression"),
        (["edit", "-b", "seeds", "--sub", "s/exit/\\9/", "--yes"], 2, "is no replacement"),
        (["edit", "-b", "seeds", "--sub", "s/nothing like it/x/", "--yes"], 3, "has a command that this changes"),
        (["edit", "-b", "seeds", "--set", "naem=x", "--yes"], 2, "a task has no field 'naem' (did you mean 'name'?)"),
        (["update", "3", "--yes"], 2, "update changes nothing"),
        (["update", "3", "--unset", "nmae", "--yes"], 2, "a task has no field 'nmae' (did you mean 'name'?)"),
        (["update", "3", "--unset", "name", "-N", "x", "--yes"], 2, "given a value and set back at once"),
        (["update", "3", "--unset", "command", "--yes"], 2, "it has no default"),
        (["update", "3", "--retry", "-1", "--yes"], 2, "--retry cannot be '-1'"),
        (["update", "3", "--shell", "zsh", "--yes"], 2, "--shell cannot be 'zsh'"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(lab, seeds, words, code, told, capsys, monkeypatch):
    for name in ("SCITQ_SERVER", "SCITQ_CONFIG"):
        monkeypatch.setenv(name, lab.variables[name])
    assert cli.main(["manage", "task", *words]) == code
    out, err = capsys.readouterr()
    assert told in err and out == "" and err.splitlines()[-1].startswith("scitq: ")
    assert err.count("\n") == 1 or "left out" in err


def test_a_server_that_is_away_is_told_soon(lab):
    start = time.monotonic()
    done = lab.cli("manage", "-s", "127.0.0.1:1", "-t", "1s", "task", "list", code=5)
    assert "no server answers at http://127.0.0.1:1" in done.stderr and done.stderr.count("\n") == 1
    assert time.monotonic() - start < 20


def test_a_server_that_does_not_answer_is_told_as_soon_as_was_wished(lab):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the connection, and that is all
        words = ["manage", "-s", f"127.0.0.1:{silent.getsockname()[1]}", "-t", "1s", "task", "list"]
        assert "did not answer in time" in lab.cli(*words, code=5, timeout=50).stderr


def test_a_wrong_token_is_told(lab, tmp_path):
    (tmp_path / "token").write_text("not-a-token")
    assert "token" in lab.cli("manage", "--token-file", str(tmp_path / "token"), "task", "list", code=4).stderr
    assert "cannot be read" in lab.cli("manage", "--token-file", str(tmp_path / "none"), "task", "list", code=2).stderr


# --- below ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("s/a/b/", ("a", "b", 1)),
        ("s/a/b/g", ("a", "b", 0)),
        ("s/a//gi", ("(?i)a", "", 0)),
        ("s|/a/|/b/|", ("/a/", "/b/", 1)),
        (r"s/\/a\//\\1/", ("/a/", r"\\1", 1)),
        (r"s/a\.b/\1/", (r"a\.b", r"\1", 1)),
        (r"s|a\|b|\||", (r"a\|b", "|", 1)),
        (r"s|\\|x|", (r"\\", "x", 1)),
        (r"s.a\.b.c.", (r"a\.b", "c", 1)),
        ("s]a]b]g", ("a", "b", 0)),
        ("s#x#two\nlines#", ("x", "two\nlines", 1)),
    ],
)
def test_substitutions(text, meaning):
    assert changes.substitution(text) == meaning


@pytest.mark.parametrize(
    "text", ["", "s", "s/a/b", "s/a", "s//b/", "a/b/c/", "s/a/b/x", "sxaxbx", "s/a/b/c/", r"s/a\/b/", r"s/a/b\/", "s a b "]
)
def test_wrong_substitutions(text):
    with pytest.raises(InvalidRequest, match="--sub wants s/OLD/NEW/"):
        changes.substitution(text)


def test_values_of_fields():
    assert changes.value_of("require", ["3,5", "7"]) == [3, 5, 7]
    assert changes.value_of("shell", [""]) is RESET
    with pytest.raises(InvalidRequest, match="given twice"):
        changes.value_of("name", ["a", "b"])
    with pytest.raises(InvalidRequest, match="KEY=VALUE"):
        changes.value_of("env", ["a"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (0.44, "0.4s"),
        (9.96, "10s"),
        (59.7, "1m00s"),
        (61, "1m01s"),
        (3600, "1h00m"),
        (7320, "2h02m"),
        (90000, "1d01h"),
        (-3, "0.0s"),
    ],
)
def test_short_durations(seconds, text):
    assert tables.short_duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1536, "1.54 kB"), (999_600, "1 MB"), (2.5e9, "2.5 GB"), (3e15, "3e+03 TB")],
)
def test_sizes(amount, text):
    assert tables.byte_size(amount) == text


@given(st.text())
def test_what_is_shown_is_printable_and_one_line(text):
    assert tables.safe(text).isprintable()


def test_ids_in_sentences_are_short():
    assert selection.some([3]) == "task 3"
    assert selection.some([5, 3, 4, 9]) == "4 tasks (3-5,9)"
    long = selection.some(list(range(1, 1000, 2)))
    assert long.startswith("500 tasks (1,3,5") and long.endswith(",...)") and len(long) < 90


def test_help_leads_to_every_verb(capsys):
    assert main(["-h"]) == 0
    objects = re.findall(r"^  (\w+) ", capsys.readouterr().out.partition("options:")[0], re.MULTILINE)
    for name in objects:
        with pytest.raises(SystemExit):
            main([name, "-h"])
        told = capsys.readouterr().out
        assert f"scitq manage {name}" in told
    assert objects[:4] == ["task", "batch", "execution", "worker"]
