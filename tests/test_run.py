"""`scitq run`: a file or a command from nothing to its end, going on after every kind of interruption, leaving no process."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from env import PROGRAM, ROOT, Process


@pytest.fixture
def folder(env, tmp_path):
    """A folder for runs; and at the end nothing of any run may be left."""
    path = tmp_path / "work"
    path.mkdir()
    yield path
    try:
        env.until(lambda: not env.leftovers(), what="no process of a run is left")
    except AssertionError:
        pytest.fail(f"left by a run: {env.leftovers()}")


def run(env, folder: Path, *words, code: int | None = 0, **more):
    return env.cli("run", *words, cwd=folder, code=code, **more)


def start(env, folder: Path, *words) -> Process:
    """A run in the background."""
    return env.start("run", "run", *words, cwd=folder)


def write(folder: Path, text: str, name: str = "b.yaml") -> None:
    (folder / name).write_text(text)


CHAIN = """
defaults: {shell: true}
tasks:
- {name: 'part-{item}', command: 'echo {item} >> {item}.txt', each: [a, b, c]}
- {name: sum, command: 'cat ?.txt > sum.txt; test -e good || { echo no good >&2; exit 3; }; echo x >> sums', needs: part-*}
- {name: after, command: 'cp sum.txt after.txt', needs: sum}
"""


def test_a_failure_is_shown_and_a_second_run_goes_on(env, folder):
    write(folder, CHAIN)
    first = run(env, folder, "b.yaml", code=10)
    assert re.search(r"^failed +sum +exit code 3\n +\| no good$", first.stdout, re.M)
    assert "5 tasks: 3 succeeded, 1 failed, 1 waits for what did not succeed" in first.stdout
    (folder / "good").touch()
    second = run(env, folder, "b.yaml")
    assert "5 tasks: 2 succeeded (3 before)" in second.stdout
    assert [(folder / name).read_text() for name in ("a.txt", "after.txt", "sums")] == ["a\n", "a\nb\nc\n", "x\n"]
    assert "5 tasks: all of them had succeeded before" in run(env, folder, "b.yaml").stdout
    assert (folder / "sums").read_text() == "x\n"


def test_again_runs_what_succeeded(env, folder):
    write(folder, "{command: 'echo x >> log', shell: true}")
    for options in ([], [], ["--again"]):
        run(env, folder, "b.yaml", *options)
    assert (folder / "log").read_text() == "x\nx\n"
    shutil.rmtree(folder / ".scitq" / "scratch")  # somebody made room: the worker begins anew
    run(env, folder, "b.yaml", "--again", "--jobs", "1")
    assert (folder / "log").read_text() == "x\nx\nx\n"


def test_a_changed_task_and_what_needs_it_are_done_again(env, folder):
    text = """
defaults: {shell: true}
tasks:
- {name: a, command: 'echo 1 > a'}
- {name: b, command: 'cat a >> b', needs: a}
- {name: c, command: 'echo c >> c'}
"""
    write(folder, text)
    run(env, folder, "b.yaml")
    write(folder, text.replace("echo 1", "echo 2"))
    run(env, folder, "b.yaml")
    assert ((folder / "b").read_text(), (folder / "c").read_text()) == ("1\n2\n", "c\n")


def test_a_task_taken_out_of_the_file_is_not_run(env, folder):
    write(folder, "defaults: {shell: true}\ntasks:\n- {name: a, command: exit 1}\n- {name: b, command: 'touch b', needs: a}\n")
    run(env, folder, "b.yaml", code=10)
    write(folder, "defaults: {shell: true}\ntasks:\n- {name: a, command: 'true'}\n")
    run(env, folder, "b.yaml")
    assert not (folder / "b").exists()


def test_retries_are_counted(env, folder):
    write(folder, "{command: 'test -e x || { touch x; exit 1; }', shell: true, retry: 1, name: n}")
    assert re.search(r"^succeeded +n +\d+\.\d s, attempt 2$", run(env, folder, "b.yaml").stdout, re.M)


def test_quiet_tells_of_failures_only(env, folder):
    write(folder, "tasks: ['true']")
    assert run(env, folder, "-q", "b.yaml").stdout == ""


def test_jobs_is_how_many_run_at_once_and_may_change(env, folder):
    count = "touch in.{item}; ls in.* | wc -l >> most; sleep 0.3; rm in.{item}"
    for jobs in ("3", "1"):
        write(folder, f"{{name: 'x{jobs}-{{item}}', command: '{count}', shell: true, each: [1, 2, 3]}}")
        run(env, folder, "-j", jobs, "b.yaml")
        assert max(map(int, (folder / "most").read_text().split())) == int(jobs)
        (folder / "most").unlink()


def test_the_dry_run_prints_the_tasks_and_makes_nothing(env, folder):
    write(folder, CHAIN)
    shown = run(env, folder, "-t", "b.yaml").stdout.splitlines()
    assert shown[0] == "part-a: echo a >> a.txt"
    assert shown[3].endswith("(needs part-a, part-b, part-c)")
    assert os.listdir(folder) == ["b.yaml"]


def test_the_schema_is_printed(env, folder):
    assert json.loads(run(env, folder, "--schema").stdout)["title"] == "scitq batch file"


# --- one command ----------------------------------------------------------------------------------------------------


def test_a_command_gives_its_output_and_its_exit_code(env, folder):
    done = run(env, folder, "--", "sh", "-c", "echo out; echo err >&2; pwd; exit 7", code=7)
    assert (done.stdout, done.stderr) == (f"out\n{folder}\n", "err\n")


def test_a_command_that_succeeded_shows_again_what_it_wrote(env, folder):
    words = ("--shell", "--", "date +%N | tee -a log")
    first, second = run(env, folder, *words), run(env, folder, *words)
    assert first.stdout == second.stdout == (folder / "log").read_text()
    assert "succeeded before" in second.stderr
    assert run(env, folder, "--again", *words).stdout != first.stdout


def test_a_command_ended_by_a_signal(env, folder):
    done = run(env, folder, "--shell", "--", "kill -9 $$", code=137)
    assert "signal 9" in done.stderr


def test_a_command_that_does_not_exist(env, folder):
    done = run(env, folder, "--", "no-such-command", code=10)
    assert "'no-such-command' was not found" in done.stderr


def test_output_comes_while_the_command_runs(env, folder):
    process = start(env, folder, "--shell", "--", "echo first; while [ ! -e go ]; do sleep 0.1; done; echo last")
    env.until(lambda: "first" in process.output(), 10, "the first line")
    (folder / "go").touch()
    assert process.wait_exit() == 0
    assert process.output() == "first\nlast\n"


# --- interrupted ------------------------------------------------------------------------------------------------------

LONG = """
name: '{item}'
command: 'echo x >> {item}.started; while [ ! -e go ]; do sleep 0.1; done; touch {item}.done'
shell: true
each: [a, b]
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_it_stops_everything_and_goes_on_later(env, folder, number, code):
    write(folder, LONG)
    process = start(env, folder, "b.yaml", "-j", "2")
    env.until(lambda: (folder / "b.started").exists() and (folder / "a.started").exists(), what="both run")
    process.signal(number)
    assert process.wait_exit() == code
    assert "the same command goes on" in process.output()
    env.until(lambda: not env.leftovers(), 5, "no process is left")
    (folder / "go").touch()
    assert "2 tasks: 2 succeeded" in run(env, folder, "b.yaml").stdout


def test_killed_its_children_end_and_the_next_run_goes_on(env, folder):
    write(folder, LONG)
    process = start(env, folder, "b.yaml", "-j", "2")
    env.until(lambda: (folder / "b.started").exists(), what="it runs")
    process.kill9()
    (folder / "go").touch()
    assert "2 tasks: 2 succeeded" in run(env, folder, "b.yaml").stdout


def child_of(env, kind: str) -> int:
    (pid,) = [pid for pid, line in env.leftovers().items() if f" {kind} " in line]
    return pid


def test_a_server_that_dies_ends_the_run_with_one_line(env, folder):
    write(folder, LONG)
    process = start(env, folder, "b.yaml")
    env.until(lambda: (folder / "a.started").exists(), what="it runs")
    os.kill(child_of(env, "server"), signal.SIGKILL)
    assert process.wait_exit(40) == 1
    assert "the private server ended (signal 9)" in process.output()
    env.until(lambda: not env.leftovers(), 10, "no process is left")
    (folder / "go").touch()
    assert "2 succeeded" in run(env, folder, "b.yaml").stdout


def test_a_worker_that_dies_is_started_again_and_costs_no_task(env, folder):
    write(folder, LONG)
    process = start(env, folder, "b.yaml", "-j", "2")
    env.until(lambda: (folder / "b.started").exists() and (folder / "a.started").exists(), what="it runs")
    victim = child_of(env, "worker")
    os.kill(victim, signal.SIGKILL)
    env.until(
        lambda: any(" worker " in line and pid != victim for pid, line in env.leftovers().items()), what="there is another worker"
    )
    (folder / "go").touch()
    assert process.wait_exit() == 0
    assert [(folder / f"{name}.started").read_text() for name in "ab"] == ["x\n", "x\n"]


def test_a_second_run_in_the_same_folder_is_refused(env, folder):
    write(folder, LONG)
    process = start(env, folder, "b.yaml")
    env.until(lambda: (folder / "a.started").exists(), what="it runs")
    refused = run(env, folder, "b.yaml", code=1)
    assert refused.stderr.count("\n") == 1 and f"(process {process.pid})" in refused.stderr
    assert run(env, folder, "--state", "other", "--", "echo", "beside").stdout == "beside\n"
    (folder / "go").touch()
    assert process.wait_exit() == 0


def test_serve_leaves_the_server_up_until_it_is_interrupted(env, folder):
    process = start(env, folder, "--serve", "--", "echo", "hello")
    env.until(lambda: "stays up" in process.output(), what="the command is over")
    url = re.search(r"http://127\.0\.0\.1:\d+", process.output())[0]
    assert "scitq_" not in process.output(), "a token is for a terminal alone"
    listed = env.cli("launch", "-s", url, "-b", "command", "true", variables={"SCITQ_CONFIG": str(folder / ".scitq")}, code=0)
    assert int(listed.stdout) == 2
    process.signal(signal.SIGINT)
    assert process.wait_exit() == 0


# --- what is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["nope.yaml"], 2, "nope.yaml cannot be read"),
        (["bad.yaml"], 2, "bad.yaml:2: unknown key 'comand' (did you mean 'command'?)"),
        ([], 2, "what should be run?"),
        (["b.yaml", "--", "true"], 2, "what should be run?"),
        (["--"], 2, "which command should be run?"),
        (["--shell", "--", "a", "b"], 2, "the script is one word"),
        (["--state", "/proc/none", "--", "true"], 4, "/proc/none cannot be used"),
        (["--jobs", "0", "--", "true"], 2, "not a whole number from 1"),
        (["--bogus"], 2, "--bogus"),
    ],
)
def test_wrong_words_are_told(env, folder, words, code, message):
    write(folder, "batch: x\ncomand: y\n", "bad.yaml")
    write(folder, "command: x", "b.yaml")
    assert message in run(env, folder, *words, code=code).stderr
    assert not (folder / ".scitq").exists()


def test_settings_meant_for_other_servers_do_not_matter(env, folder):
    other = {
        "SCITQ_SERVER": "http://127.0.0.1:1",
        "SCITQ_TOKEN": "nonsense",
        "SCITQ_DATABASE": "postgresql://nowhere/x",
        "SCITQ_PORT": "1",
    }
    assert run(env, folder, "--", "echo", "fine", variables=other).stdout == "fine\n"


def test_a_bar_on_a_terminal(env, folder):
    write(folder, "{command: sleep 0.4, each: [1, 2, 3]}")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "run", "b.yaml"], cwd=folder, env=env.variables, stdout=slave, stderr=slave, stdin=slave
    )
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 65536):
            seen += data
    except OSError:  # the last one closed it
        pass
    os.close(master)
    assert process.wait(20) == 0
    assert b"[####################] 3/3 done" in seen and b"\x1b[Ksucceeded" in seen


# --- the example --------------------------------------------------------------------------------------------------------


def test_the_first_example_fails_is_mended_and_ends(env, tmp_path):
    done = subprocess.run(
        ["sh", str(ROOT / "examples" / "first.sh")], capture_output=True, text=True, timeout=100,
        env={**env.variables, "SCITQ": " ".join(PROGRAM), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| sea1: the number of reads must be a number, not 25OO" in done.stdout
    assert "50 tasks: 45 succeeded, 1 failed, 4 wait for what did not succeed" in done.stdout
    assert "50 tasks: 5 succeeded (45 before)" in done.stdout
    assert re.search(r"^succeeded +reference +[\d.]+ s, attempt 2$", done.stdout, re.M)
    assert re.search(r"^sea1 +2500 ", done.stdout, re.M)
    assert not env.leftovers()
