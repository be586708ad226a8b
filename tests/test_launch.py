"""`scitq launch`: words into tasks, what is told about wrong ones, and real tasks from the command line to their output."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from env import PROGRAM, started
from hypothesis import example, given
from hypothesis import strategies as st
from scitq.cli import launch, options
from scitq.errors import InvalidRequest

from scitq import cli

DOOR = str(Path(__file__).resolve().parent.parent / "scitq.py")


@pytest.fixture
def dry(capsys):
    """The task that these words would queue."""

    def run(*words):
        assert launch.main(["-t", *words]) == 0
        return json.loads(capsys.readouterr().out)

    return run


# --- words ----------------------------------------------------------------------------------------------------------


def test_a_plain_command(dry):
    assert dry("echo", "Hello world!") == {"command": "echo 'Hello world!'"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=2))
@example(["a b", "'", '"', "$x", "", "\n", "*", "-b", "--"])
def test_the_words_of_a_command_are_kept(words):
    if any(word.strip() for word in words):
        assert shlex.split(launch.command_of(words, None)) == words


def test_options_end_at_the_first_word_that_is_none(dry):
    assert dry("-b", "B", "tar", "-t", "-f", "x", "--wait") == {"command": "tar -t -f x --wait", "batch": "B"}


def test_two_dashes_end_the_options(dry):
    assert dry("-b", "B", "--", "-x", "--", "y") == {"command": "-x -- y", "batch": "B"}


def test_one_word_with_spaces_is_a_command_line(dry):
    assert dry("echo 'a  b' c")["command"] == "echo 'a  b' c"


def test_a_script(dry):
    assert dry("--shell", "cat $INPUT/* | wc -l") == {"command": "cat $INPUT/* | wc -l", "shell": "sh"}
    assert dry("--shell=bash", "ls")["shell"] == "bash"
    assert dry("--shell", "ls", "-l") == {"command": "ls -l", "shell": "sh"}


def test_every_option(dry):
    words = "-b B -n N -d ubuntu:22.04 -O=--gpus=all -i s3://a/x -i s3://a/y -r s3://r/z|untar -o s3://o/ -u 1000 -g 100 --shell"
    words += " --env A=1 --env B=x=y --workdir /w --retry 2 --download-timeout 5m --run-timeout 1h30m"
    words += " -R 3,4 --require 7 --priority -5 --use-cache"
    assert dry(*words.replace("-O=", "-O ").split(), "true") == {
        "command": "true", "batch": "B", "name": "N", "container": "ubuntu:22.04", "container_options": "--gpus=all",
        "input": ["s3://a/x", "s3://a/y"], "resource": ["s3://r/z|untar"], "output": "s3://o/", "uid": 1000, "gid": 100,
        "shell": "sh", "env": {"A": "1", "B": "x=y"}, "workdir": "/w", "retry": 2, "download_timeout": 300.0,
        "run_timeout": 5400.0, "require": [3, 4, 7], "priority": -5, "use_cache": True,
    }  # fmt: skip


def test_letters_may_hold_their_values(dry):
    assert launch.parse(["-tbB", "--name=x=y", "-n", "z"][:2], launch.OPTIONS) == (
        {"dry_run": True, "batch": "B", "name": "x=y"},
        [],
    )


def test_uris_in_one_word(dry):
    assert dry("-i", "s3://a/x s3://a/y", "-i", "file:///my data/z", "true")["input"] == [
        "s3://a/x",
        "s3://a/y",
        "file:///my data/z",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "which command"),
        (["", " "], "which command"),
        (["--retri", "3", "true"], r"unknown option '--retri' \(did you mean '--retry'\?\)"),
        (["-Z", "true"], "unknown option '-Z'"),
        (["-b"], "'-b' needs a value: -b BATCH"),
        (["-b", "x", "--batch", "y", "true"], "given twice"),
        (["--wait=3", "true"], "takes no value"),
        (["--retry", "-1", "true"], "--retry cannot be '-1'"),
        (["--retry", "two", "true"], "whole number"),
        (["-u", "root", "true"], "--uid cannot be 'root'"),
        (["--run-timeout", "5x", "true"], "--run-timeout cannot be '5x'.*90s, 5m"),
        (["--env", "A", "true"], "KEY=VALUE"),
        (["--require", "a", "true"], "--require cannot be 'a'"),
        (["--shell=zsh", "true"], "--shell=bash"),
        (["--shell", "echo", "$A"], "the script is one word"),
        (["echo 'a"], "cannot be split into words"),
        (["echo", "\udcff"], "not UTF-8"),
        (["--each", "/no/such.csv", "true"], "/no/such.csv cannot be read"),
        (["-f", "x.yaml", "true"], "one word too many"),
        (["-f", "x.yaml", "-n", "y"], "--name cannot go with -f"),
        (["-s", "a b", "true"], "is not the address of a server"),
        (["--token-file", "/no/such", "true"], "/no/such cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(words, told):
    with pytest.raises(InvalidRequest, match=told) as caught:
        launch.main(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("3d", 259200), ("1h30m", 5400), ("0.5", 0.5), ("1.5h", 5400)],
)
def test_durations(text, seconds):
    assert options.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-5", "5 m", "5m3", "1e3", "nan", "inf", "m"])
def test_wrong_durations(text):
    with pytest.raises(InvalidRequest, match="90s, 5m"):
        options.duration(text)


def test_help_names_every_option(capsys):
    assert launch.main(["-h"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for option in launch.OPTIONS for name in option.names)
    assert max(map(len, shown.splitlines())) <= 130


def test_every_option_is_in_the_manual():
    manual = (Path(DOOR).parent / "docs" / "launch.md").read_text()
    assert [name for option in launch.OPTIONS for name in option.names if f"`{name}" not in manual] == []


# --- rows -----------------------------------------------------------------------------------------------------------


def test_one_task_a_row(dry, tmp_path):
    table = tmp_path / "samples.csv"
    table.write_text("sample,reads\nA,s3://b/a.fastq.gz\nit's,s3://b/c d.fq\n")
    tasks = dry(
        "--each",
        str(table),
        "-n",
        "count {sample}",
        "-i",
        "{reads}",
        "--env",
        "S={sample}",
        "wc",
        "{reads:name}",
        "${HOME}",
        "{other}",
    )
    assert [shlex.split(task["command"]) for task in tasks] == [
        ["wc", "a.fastq.gz", "${HOME}", "{other}"],
        ["wc", "c d.fq", "${HOME}", "{other}"],
    ]
    assert [(task["name"], task["input"], task["env"]) for task in tasks] == [
        ("count A", ["s3://b/a.fastq.gz"], {"S": "A"}),
        ("count it's", ["s3://b/c d.fq"], {"S": "it's"}),
    ]


def test_rows_in_a_script_and_in_a_command_line(dry, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("x\ty\na b\t1\n")
    assert dry("--each", str(table), "--shell", "echo {x:q} | wc {y}")[0]["command"] == "echo 'a b' | wc 1"
    assert dry("--each", str(table), "echo {x} {y}")[0]["command"] == "echo a b 1"


# --- how quick it is ----------------------------------------------------------------------------------------------


HEAVY = "argparse asyncio bottle concurrent.futures encodings.idna importlib.metadata logging peewee subprocess tempfile".split()
HEAVY += "urllib.request uuid yaml".split()


def test_one_launch_imports_little():
    """What a shell loop pays for each task. A module that appears here needs a reason."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(DOOR).parent)!r})
import scitq.cli
scitq.cli.main(["launch", "-s", "127.0.0.1:1", "true"])
print(*sorted(name for name in sys.modules if name.startswith("scitq")))
print(*sorted(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60)
    ours, heavy = done.stdout.splitlines()
    expected = (
        "scitq scitq.address scitq.aliases scitq.auth scitq.cli scitq.cli.launch scitq.cli.options scitq.errors scitq.layers"
    )
    more = "scitq.cache scitq.escapes scitq.protocol scitq.transport scitq.uris"
    assert set(ours.split()) <= {*expected.split(), *more.split()}, done.stderr
    assert heavy == ""


def test_a_server_that_is_not_there(capfd):
    assert cli.main(["launch", "-s", "127.0.0.1:1", "true"]) == 5
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and "no server answers at http://127.0.0.1:1" in err


# --- real tasks ---------------------------------------------------------------------------------------------------------


def test_it_prints_the_id_alone(lab):
    done = lab.cli("launch", "-n", "hello", "echo", "a  b", "$HOME", code=0)
    assert done.stdout == f"{int(done.stdout)}\n" and done.stderr == ""
    lab.wait_state(int(done.stdout))
    assert lab.stdout(int(done.stdout)) == b"a  b $HOME\n"


def test_words_arrive_to_the_letter(lab):
    words = ["", " ", "a'b", 'c"d', "*", "$x", "-n", "\\", "é", "\t", "#", "a\nb"]
    program = "import sys; sys.stdout.write(chr(1).join(sys.argv[1:]))"
    task = lab.launch("--", sys.executable, "-c", program, *words)
    lab.wait_state(task)
    assert lab.stdout(task).decode().split("\1") == words


def test_a_required_task_that_does_not_exist(lab):
    assert "1000000" in lab.cli("launch", "--require", "1000000", "true", code=2).stderr


def test_a_token_that_is_not_known(lab):
    lab.cli("launch", "true", variables={"SCITQ_TOKEN": "scitq_wrong"}, code=4)


def test_a_token_in_a_file(lab, tmp_path):
    (tmp_path / "token").write_text(lab.token + "\n")
    lab.cli("launch", "--token-file", str(tmp_path / "token"), "true", variables={"SCITQ_CONFIG": "/nonexistent"}, code=0)


def run_waiting(lab, *words):
    done = subprocess.run(
        [*PROGRAM, "launch", "--wait", *words], env=lab.variables, capture_output=True, timeout=60, cwd=lab.directory
    )
    return done.returncode, done.stdout, done.stderr


def test_waiting_shows_both_streams_to_the_byte(lab):
    code, out, err = run_waiting(lab, "--shell", r"printf 'a\0\377\r\n'; printf 'err\n' >&2; sleep 0.3; printf end")
    assert (code, out) == (0, b"a\0\xff\r\nend")
    assert err == b"err\n"


def test_waiting_ends_with_the_code_of_the_task(lab):
    assert run_waiting(lab, "--shell", "exit 7")[0] == 7


def test_waiting_for_what_has_no_code(lab):
    code, out, err = run_waiting(lab, "/no/such/program")
    assert code == 10 and out == b"" and b"/no/such/program" in err.splitlines()[-1]
    assert run_waiting(lab, "--shell", "kill -9 $$")[0] == 10


def test_waiting_tells_why_beside_a_code(capsys):
    ended = {"id": 4, "state": "failed", "exit_code": 143, "reason": "ran longer than its time limit of 2 s and was ended"}
    assert launch._exit_code(ended) == 143 and capsys.readouterr().err == f"scitq: task 4 failed: {ended['reason']}\n"
    assert launch._exit_code({**ended, "exit_code": 7, "reason": None}) == 7 and capsys.readouterr().err == ""


def test_waiting_shows_every_attempt(lab, tmp_path):
    code, out, err = run_waiting(
        lab, "--retry", "2", "--shell", f"echo x >> {tmp_path}/n; wc -l < {tmp_path}/n; [ $(wc -l < {tmp_path}/n) = 3 ]"
    )
    assert (code, out) == (0, b"1\n2\n3\n")


def test_waiting_shows_a_lot(lab):
    code, out, err = run_waiting(lab, "--shell", "seq 1 300000")
    assert code == 0 and out == b"".join(b"%d\n" % i for i in range(1, 300001))


def test_ctrl_c_leaves_the_task_running(lab):
    waiting = subprocess.Popen(
        [*PROGRAM, "launch", "--wait", "--shell", "echo started; sleep 100"],
        env=lab.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=lab.directory,
    )  # fmt: skip
    with waiting:
        assert waiting.stdout.readline() == b"started\n"
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) == 130
        told = waiting.stderr.read().decode()
    task = int(re.search(r"task (\d+) goes on", told)[1])
    assert lab.state(task) == "running"
    lab.api("POST", "/tasks/signal", {"ids": [task], "action": "kill"})
    lab.wait_state(task, "failed")


def test_a_reader_that_goes_away_stops_the_waiting(lab):
    with started(
        [*PROGRAM, "launch", "--wait", "yes"], env=lab.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as waiting:
        waiting.stdout.read(10)
        waiting.stdout.close()
        assert waiting.wait(60) == 0
    task = lab.items("/tasks", state="running")[-1]["id"]
    lab.api("POST", "/tasks/cancel", {"ids": [task]})
    lab.wait_state(task, "canceled")


def test_rows_to_tasks(lab, tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"a {i},{i}\n" for i in range(20)))
    done = lab.cli("launch", "--each", str(tmp_path / "t.csv"), "--wait", "echo", "{x}", code=0)
    ids = [int(line) for line in done.stdout.splitlines()]
    assert [lab.stdout(task) for task in ids] == [b"a %d\n" % i for i in range(20)]
    assert "20/20 done  20 succeeded" in done.stderr
    done = lab.cli("launch", "--each", str(tmp_path / "t.csv"), "--wait", "--shell", "exit $(( {y} > 17 ))", code=10)
    assert "2 of 20 tasks did not succeed" in done.stderr


def test_a_batch_file(lab, tmp_path):
    (tmp_path / "b.yaml").write_text(
        "batch: Default\ntasks:\n- name: one\n  command: echo 1\n- name: two\n  command: echo 2\n  needs: one\n"
    )
    first = lab.cli("launch", "-f", str(tmp_path / "b.yaml"), "--wait", code=0).stdout
    assert len(first.splitlines()) == 2
    assert lab.cli("launch", "-f", str(tmp_path / "b.yaml"), code=0).stdout == first


def test_a_server_that_is_no_scitq_server(lab):
    import http.server
    import threading

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        done = lab.cli("launch", "-s", f"127.0.0.1:{other.server_port}", "true", code=5)
        other.shutdown()
    assert "is not a scitq server" in done.stderr and done.stderr.count("\n") == 1


def test_a_lost_answer_and_a_killed_server_queue_the_task_once(env):
    process = env.server()
    relay = env.relay()
    relay.silent = {"down"}
    with started(
        [*PROGRAM, "launch", "-s", relay.url, "-b", "nobody", "true"], env={**env.variables, "SCITQ_TOKEN": env.token},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as launching:  # fmt: skip
        env.until(lambda: env.items("/tasks"), what="the server has recorded the task")
        process.kill9()
        process.start()
        relay.silent = set()
        relay.cut()
        out, err = launching.communicate(timeout=60)
    assert launching.returncode == 0, err
    assert [task["id"] for task in env.items("/tasks")] == [int(out)]
