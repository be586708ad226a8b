"""The keeper, as a real process spoken to over its socket."""

import json
import os
import resource
import signal
import subprocess
import time

import pytest
from env import PROGRAM, stands_still
from keeper_client import KeeperProcess, until
from scitq.keeper import processes, records


@pytest.fixture
def keeper(tmp_path):
    made = KeeperProcess(tmp_path / "w")
    yield made
    made.close()


def test_output_and_end_are_files(keeper):
    directory = keeper.sh(1, "printf 'a\\0\\377b'; echo no >&2; exit 3")
    started, end = keeper.event("started", 1), keeper.ended(1)
    assert (end["kind"], end["exit_code"], end["stdout_size"], end["stderr_size"]) == ("exited", 3, 4, 3)
    assert (directory / "stdout").read_bytes() == b"a\0\xffb"
    assert json.loads((directory / "end.json").read_text()) == {k: v for k, v in end.items() if k != "event"}
    written = json.loads((directory / "started.json").read_text())
    assert written["pid"] == started["pid"] and written["boot"] == processes.boot_id() and written["start"] > 0


def test_usage_is_measured(keeper):
    keeper.run(1, "python3", "-c", "x = b'x' * 60_000_000; open('f', 'wb').write(x); sum(range(3_000_000))")
    end = keeper.ended(1)
    assert end["peak_memory_bytes"] > 60e6 and end["cpu_seconds"] > 0.03 and end["written_bytes"] >= 60e6


def test_environment_and_directory(keeper):
    directory = keeper.sh(1, "pwd; echo $X; cat; readlink /proc/$$/fd | wc -l", env={"X": "1 2"})
    keeper.ended(1)
    lines = (directory / "stdout").read_text().splitlines()
    assert lines[:2] == [str(directory / "temp"), "1 2"]


def test_a_command_inherits_no_descriptor(keeper):
    directory = keeper.sh(1, "ls /proc/self/fd")
    keeper.ended(1)
    assert len((directory / "stdout").read_text().split()) == 4  # 0, 1, 2 and that of ls


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-command-here"], "'no-such-command-here' was not found in PATH"),
        (["/etc/passwd"], "Permission denied"),
        (["./script"], "the interpreter that its first line names does not exist"),
        (["./text"], "neither a program"),
        (["true", "x" * 200_000], "longer than this machine takes"),
        (["true", "a\0b"], "null byte"),
    ],
)  # fmt: skip
def test_what_cannot_start_says_why(keeper, argv, words):
    temp = keeper.directory / "executions" / "1" / "temp"
    temp.mkdir(parents=True)
    for name, content in (("script", "#!/no/such/interpreter\n"), ("text", "echo\n")):
        (temp / name).write_text(content)
        (temp / name).chmod(0o755)
    keeper.run(1, *argv)
    end = keeper.ended(1)
    assert end["kind"] == "unstartable" and words in end["message"] and "exit_code" not in end


def test_bad_working_directory(keeper):
    keeper.run(1, "true", cwd="/no/such/place")
    assert "the working directory /no/such/place cannot be used" in keeper.ended(1)["message"]


def test_time_limit_reaches_the_tree_and_needs_no_worker(keeper):
    directory = keeper.sh(
        1, "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 100; sleep 100\" & sleep 100; sleep 100", timeout=0.3, grace=0.3
    )
    keeper.event("started", 1)
    keeper.socket.close()
    end = until(lambda: records.read(str(directory), records.END_FILE, 1))
    assert (end["kind"], end["signal"]) == ("timeout", signal.SIGKILL)
    assert 0.5 < end["ended"] - end["started"] < 3
    assert not keeper.living(directory)
    assert keeper.connect()["ended"][0]["id"] == 1


def test_nothing_of_the_tree_outlives_the_main_process(keeper):
    own_group = 'python3 -c \'import os; os.setpgid(0, 0); os.execlp("sleep", "sleep", "104")\''
    own_session = "(setsid sh -c 'sleep 102; :' &)"
    script = f"sleep 100 & setsid sleep 101 & {own_session}; env -i setsid sleep 103 & {own_group} & sleep 0.2; exit 0"
    directory = keeper.sh(1, script)
    end = keeper.ended(1)
    assert (end["kind"], end["exit_code"]) == ("exited", 0)
    assert not keeper.living(directory)
    commands = {one.pid for one in processes.processes().values() if one.parent == keeper.process.pid}
    assert not commands


def test_orphans_of_another_command_live_on(keeper):
    one = keeper.sh(1, "(setsid sleep 100 &); sleep 100")
    until(lambda: len(keeper.living(one)) >= 2)
    for number in range(2, 12):
        keeper.run(number, "true")
        keeper.ended(number)
    assert len(keeper.living(one)) >= 2
    keeper.signal(1, "kill")
    keeper.ended(1)
    assert not keeper.living(one)


def test_term_then_kill_after_the_grace(keeper):
    directory = keeper.sh(1, "trap 'echo term' TERM; while :; do sleep 0.05; done")
    keeper.event("started", 1)
    until(lambda: processes.process(json.loads((directory / "started.json").read_text())["pid"]))
    time.sleep(0.1)
    keeper.signal(1, "term", grace=0.4)
    end = keeper.ended(1)
    assert (end["kind"], end["asked"], end["signal"]) == ("stopped", "term", signal.SIGKILL)
    assert (directory / "stdout").read_text() == "term\n"


def test_the_grace_is_for_what_is_left_of_the_tree_too(keeper):
    script = "sh -c 'trap \"sleep 0.2; echo saved; exit 0\" TERM; echo up; while :; do sleep 0.02; done'; echo not reached"
    directory = keeper.sh(1, script)
    keeper.event("started", 1)
    until(lambda: (directory / "stdout").read_text() == "up\n")
    keeper.signal(1, "term", grace=10.0)
    end = keeper.ended(1)
    assert (end["kind"], end["signal"], (directory / "stdout").read_text()) == ("stopped", 15, "up\nsaved\n")


def test_killed_while_the_rest_of_the_tree_has_its_grace(keeper):
    directory = keeper.sh(1, "sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.02; done'; echo not reached")
    main = keeper.event("started", 1)["pid"]
    until(lambda: (directory / "stdout").read_text() == "up\n")
    keeper.signal(1, "term", grace=60.0)
    until(lambda: processes.process(main) is None)
    assert keeper.living(directory)
    keeper.signal(1, "kill")
    assert keeper.ended(1)["asked"] == "kill" and not keeper.living(directory)


def test_suspend_stops_the_whole_tree_and_its_time_limit(keeper):
    directory = keeper.sh(1, "(setsid sh -c 'while :; do echo x; sleep 0.02; done' &); sleep 100", timeout=3.0)
    until(lambda: (directory / "stdout").exists() and (directory / "stdout").stat().st_size > 4)
    keeper.signal(1, "suspend")
    until(lambda: all(stands_still(pid) for pid in keeper.living(directory)))
    size = (directory / "stdout").stat().st_size
    time.sleep(3.2)
    assert (directory / "stdout").stat().st_size == size and not (directory / "end.json").exists()
    keeper.signal(1, "resume")
    until(lambda: (directory / "stdout").stat().st_size > size)
    assert keeper.ended(1)["kind"] == "timeout"


def test_a_suspended_command_hears_term(keeper):
    keeper.sh(1, "sleep 100")
    keeper.event("started", 1)
    keeper.signal(1, "suspend")
    keeper.signal(1, "term", grace=30)
    assert keeper.ended(1)["signal"] == signal.SIGTERM


def test_killed_from_outside(keeper):
    keeper.sh(1, "kill -9 $$")
    end = keeper.ended(1)
    assert (end["kind"], end["signal"]) == ("signaled", signal.SIGKILL) and "short_of_memory" not in end
    keeper.sh(2, "kill -TERM $$")
    assert keeper.ended(2)["kind"] == "signaled"


def test_a_keeper_that_is_stopped_interrupts(keeper):
    directory = keeper.sh(1, "sleep 100")
    keeper.event("started", 1)
    keeper.process.terminate()
    assert keeper.ended(1)["kind"] == "interrupted"
    keeper.process.wait(60)
    assert not keeper.living(directory)


def test_never_started_twice(keeper):
    directory = keeper.sh(1, "echo x")
    keeper.ended(1)
    keeper.sh(1, "echo x")
    keeper.say(op="forget", id=1)
    keeper.sh(1, "echo x")
    assert keeper.event("refused", 1)["kind"] == "before"
    assert (directory / "stdout").read_text() == "x\n"


def test_records_of_an_earlier_use_of_the_directory_count_for_nothing(keeper):
    directory = keeper.sh(1, "exit 1")
    keeper.ended(1)
    again = directory.rename(directory.with_name("2"))
    keeper.sh(2, "exit 2")
    assert keeper.ended(2)["exit_code"] == 2
    assert (
        records.read(str(again), records.END_FILE, 2)["exit_code"] == 2 and records.read(str(again), records.END_FILE, 1) is None
    )


def test_a_start_cut_short_counts_as_started(keeper):
    directory = keeper.directory / "executions" / "1"
    directory.mkdir()
    (directory / "started.json").write_text("")
    keeper.run(1, "true")
    assert keeper.event("refused", 1)["kind"] == "before"


def test_not_started_after_the_deadline(keeper):
    directory = keeper.sh(1, "echo x", deadline=processes.boot_seconds() - 1)
    assert keeper.event("refused", 1)["kind"] == "late"
    assert not (directory / "started.json").exists()


def test_the_next_worker_takes_over(keeper):
    keeper.sh(1, "sleep 100")
    keeper.event("started", 1)
    keeper.sh(2, "exit 4")
    keeper.ended(2)
    old = keeper.socket
    hello = keeper.connect()
    assert [one["id"] for one in hello["running"]] == [1]
    assert [(end["id"], end["exit_code"]) for end in hello["ended"]] == [(2, 4)]
    assert b"replaced" in old.recv(1000) and old.recv(1000) == b""
    old.close()
    keeper.say(op="forget", id=2)
    keeper.socket.close()
    assert keeper.connect()["ended"] == []


def test_one_keeper_a_directory(keeper):
    second = subprocess.run([*PROGRAM, "keeper", str(keeper.directory)], timeout=60)
    assert second.returncode == 0
    keeper.run(1, "true")
    keeper.ended(1)


def test_leaves_when_asked_and_nothing_runs(keeper):
    keeper.sh(1, "sleep 0.3")
    keeper.event("started", 1)
    keeper.say(op="leave")
    keeper.ended(1)
    keeper.process.wait(60)
    assert not (keeper.directory / "keeper.sock").exists()


def test_nonsense_on_the_socket_harms_nobody(tmp_path):
    keeper = KeeperProcess(tmp_path / "w")
    keeper.sh(1, "sleep 0.3; exit 5")
    keeper.socket.sendall(b"hello?\n{}\n" + b'{"op": "run"}\n[]\n')
    assert keeper.ended(1)["exit_code"] == 5
    with pytest.raises(AssertionError):  # it told its log
        keeper.close()


def test_no_room_for_a_process_is_no_failure(tmp_path):
    keeper = KeeperProcess(tmp_path / "w")
    files = len(os.listdir(f"/proc/{keeper.process.pid}/fd"))
    resource.prlimit(keeper.process.pid, resource.RLIMIT_NOFILE, (files + 1, 1000))
    directory = keeper.run(1, "true")
    refused = keeper.event("refused", 1)
    assert refused["kind"] == "now" and "open files" in refused["why"]
    resource.prlimit(keeper.process.pid, resource.RLIMIT_NOFILE, (1000, 1000))
    keeper.run(1, "true")
    assert keeper.ended(1)["exit_code"] == 0 and (directory / "end.json").exists()
    keeper.close()


def test_a_full_disk_does_not_lose_an_end(keeper):
    if os.getuid() != 0:
        pytest.skip("mounting wants root")
    place = keeper.directory / "executions" / "1"
    (place / "temp").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting is not possible here")
    try:
        keeper.sh(1, "head -c 1000000 /dev/zero > full; exit 6")
        assert keeper.ended(1)["exit_code"] == 6
        assert records.read(str(place), records.END_FILE, 1) is None
        (place / "temp" / "full").unlink()
        until(lambda: records.read(str(place), records.END_FILE, 1))
    finally:
        keeper.say(op="forget", id=1)
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user wants root")
def test_another_user_without_our_groups(keeper):
    os.chmod(keeper.directory.parent, 0o755)
    for parent in keeper.directory.parents:
        if not os.stat(parent).st_mode & 0o001:
            os.chmod(parent, 0o711)
    directory = keeper.run(1, "sh", "-c", "id -u; id -g; id -G; echo again > /dev/stderr", uid=65534, gid=65533, cwd="/")
    end = keeper.ended(1)
    assert end.get("exit_code") == 0, end
    assert (directory / "stdout").read_text().split() == ["65534", "65533", "65533"]
    assert (directory / "stderr").read_text() == "again\n"


def test_a_path_longer_than_a_socket_may_have(tmp_path):
    keeper = KeeperProcess(tmp_path / ("d" * 120) / "w")
    directory = keeper.sh(1, "echo x")
    keeper.ended(1)
    assert (directory / "stdout").read_text() == "x\n"
    keeper.close()


def test_others_cannot_reach_its_socket(keeper):
    assert (keeper.directory / "keeper.sock").stat().st_mode & 0o777 == 0o600


def test_many_short_commands(keeper):
    for number in range(200):
        keeper.run(number, "true")
    for number in range(200):
        assert keeper.ended(number)["exit_code"] == 0


# --- commands that are only the client of something else ------------------------------------------------------------------


def test_verbs_take_the_place_of_signals(keeper):
    """Each verb writes its name, and fails the first time; the real process is the one whose pid is in a file."""
    script = 'echo $0 $GRACE >> verbs; [ $(grep -c $0 verbs) -gt 1 ] || exit 1; [ $0 != kill ] || kill -9 $(cat pid)'
    directory = keeper.directory / "executions" / "1"
    verbs = {name: ["sh", "-c", f"cd {directory}/temp; {script}", name] for name in ("suspend", "resume", "term", "kill")}
    keeper.run(1, "sh", "-c", "echo $$ > pid; exec sleep 100", verbs=verbs)
    pid = keeper.event("started", 1)["pid"]
    said = directory / "temp" / "verbs"
    for order in ("suspend", "resume"):
        keeper.signal(1, order)
        until(lambda: said.exists() and said.read_text().count(order) == 2)
    assert processes.process(pid).state == "S", "a signal reached it"
    keeper.signal(1, "term", grace=0.6)
    end = keeper.ended(1)
    assert end["kind"] == "stopped" and end["signal"] == 9 and "cpu_seconds" not in end
    assert said.read_text().split("\n")[-3:] == ["kill 0", "kill 0", ""] and "term 1" in said.read_text()
