"""An execution's directory, words, environment, output and end; what a starting worker finds of older ones."""

import contextlib
import os
import subprocess
import sys
import time

import pytest
from scitq import machine, protocol
from scitq.execution import Execution, Spares, end_leftovers, find_leftovers
from scitq.keeper import processes, records
from scitq.output import HALF_BYTES, Output


def accept(tmp_path, spares=None, number=1, **task) -> Execution:
    return Execution.accept(
        {"id": number, "task_id": 7, "attempt": 1, "task": {"command": "true", **task}}, str(tmp_path), spares
    )


def end_of(number=1, **more) -> dict:
    now = processes.boot_seconds()
    return {
        "id": number,
        "kind": "exited",
        "boot": processes.boot_id(),
        "started": now - 2,
        "ended": now - 1,
        "ended_at": time.time() - 1,
        **more,
    }


# --- command and environment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "argv"),
    [
        ({"command": "a 'b c' \"d\" e\\ f"}, ["a", "b c", "d", "e f"]),
        ({"command": "a $B; c", "shell": "sh"}, ["sh", "-c", "a $B; c"]),
        ({"command": "a", "shell": "bash"}, ["bash", "-c", "a"]),
    ],
)
def test_words(tmp_path, task, argv):
    assert accept(tmp_path, **task).order(0, 1, 1, None)["argv"] == argv


@pytest.mark.parametrize("command", ["a 'b", "", "  "])
def test_words_that_cannot_be(tmp_path, command):
    with pytest.raises(ValueError, match="command"):
        accept(tmp_path, command=command).order(0, 1, 1, None)


def test_the_tasks_variables_come_before_ours_save_its_identity(tmp_path):
    given = accept(tmp_path, name="n", env={"CPU": "9", "SCITQ_TASK_ID": "0"}).environment(2, "1")
    assert (given["CPU"], given["SCITQ_TASK_ID"], given["CUDA_VISIBLE_DEVICES"]) == ("9", "7", "1")
    assert given["TEMP"] == str(tmp_path / "1" / "temp") and os.path.isdir(given["TEMP"])


@pytest.mark.parametrize(
    ("devices", "slots", "shares"),
    [([], 2, [None, None]), (["0", "1"], 4, ["0", "1", "0", "1"]), (["0", "1", "2"], 2, ["0,2", "1"]), (["0", "1"], 1, ["0,1"])],
)
def test_gpus_are_shared_by_slots(devices, slots, shares):
    assert [machine.share_devices(devices, slot, slots) for slot in range(slots)] == shares


@pytest.mark.parametrize("said", ["No devices were found", "0, a, b, 1, 2, 3", "x, NVIDIA H200, 12, 1024, 143771"])
def test_a_driver_that_complains_is_as_good_as_none(tmp_path, monkeypatch, said):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "gpus" not in machine.Meter(str(tmp_path)).measure()


def test_a_spec_is_for_nobody_elses_eyes(tmp_path):
    one = accept(tmp_path, env={"SECRET": "x"})
    assert os.stat(os.path.join(one.directory, "spec.json")).st_mode & 0o777 == 0o600


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "state", "words"),
    [
        ({"exit_code": 0}, "succeeded", None),
        ({"exit_code": 3}, "failed", None),
        ({"exit_code": 137, "short_of_memory": True}, "failed", "ran out of memory"),
        ({"kind": "signaled", "signal": 9}, "failed", "killed by signal 9 (SIGKILL)"),
        (
            {"kind": "signaled", "signal": 9, "short_of_memory": True},
            "failed",
            "most likely because the machine ran out of memory",
        ),
        ({"kind": "signaled", "signal": 40}, "failed", "SIGRTMIN+"),
        ({"kind": "timeout", "timeout": 5.0, "signal": 15}, "failed", "its time limit of 5 s"),
        ({"kind": "stopped", "asked": "term", "exit_code": 0}, "failed", "ended on request (term)"),
        ({"kind": "stopped", "asked": "cancel", "signal": 9}, "canceled", "cancel"),
        ({"kind": "stopped", "asked": "worker", "signal": 9}, "lost", "worker was stopped"),
        ({"kind": "interrupted", "signal": 15}, "lost", "machine or its service"),
        ({"kind": "unstartable", "message": "no such thing"}, "failed", "no such thing"),
    ],
)
def test_what_an_end_means(tmp_path, end, state, words):
    one = accept(tmp_path)
    one.has_ended(end_of(**end))
    said = one.report(processes.boot_seconds(), whole=True)
    assert said.state == state and (said.reason is None if words is None else words in said.reason)
    assert said.exit_code == end.get("exit_code") and said.ended_ago == pytest.approx(1, abs=0.3)


def test_an_end_is_told_with_the_last_bytes_only(tmp_path):
    one = accept(tmp_path)
    (tmp_path / "1" / "stdout").write_bytes(b"abc")
    one.has_ended(end_of(exit_code=0))
    now = processes.boot_seconds()
    assert one.behind and one.report(now, whole=False).state == protocol.UPLOADING
    assert one.report(now, whole=True).stdout_size == 3


def test_an_end_of_before_a_reboot_has_its_age_by_the_clock(tmp_path):
    one = accept(tmp_path)
    one.has_ended(end_of(exit_code=0) | {"boot": "another", "started": 1e9, "ended": 1e9 + 5, "ended_at": time.time() - 100})
    said = one.report(processes.boot_seconds(), whole=True)
    assert said.ended_ago == pytest.approx(100, abs=1) and said.started_ago == pytest.approx(105, abs=1)


# --- output -------------------------------------------------------------------------------------------------------------


def read_all(stream: Output, limit: int) -> list[tuple[int, bytes]]:
    pieces = []
    while stream.look():
        offset, data = stream.read(limit)
        assert data and len(data) <= limit
        pieces.append((offset, data))
        stream.sent(offset + len(data), data[-32:])
    return pieces


def test_output_in_pieces(tmp_path):
    path = tmp_path / "out"
    stream = Output(str(path))
    assert not stream.look()
    path.write_bytes(b"0123456789")
    assert read_all(stream, 4) == [(0, b"0123"), (4, b"4567"), (8, b"89")]
    with path.open("ab") as file:
        file.write(b"x")
    assert read_all(stream, 4) == [(10, b"x")]


def test_a_piece_that_was_not_answered_is_read_again(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"0123456789")
    stream = Output(str(path))
    stream.look()
    assert stream.read(4) == stream.read(4) == (0, b"0123")


def test_the_middle_of_much_output_is_passed_over(tmp_path):
    path = tmp_path / "out"
    size = 5 * HALF_BYTES
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    pieces = read_all(Output(str(path)), 2**22)
    head = [piece for piece in pieces if piece[0] < HALF_BYTES]
    tail = pieces[len(head) :]
    assert sum(len(data) for _, data in head) == HALF_BYTES
    assert tail[0][0] == size - HALF_BYTES and sum(len(data) for _, data in tail) == HALF_BYTES
    assert tail[-1][1].endswith(b"end")


@pytest.mark.parametrize("second", [b"b\n", b"two\n", b"longer than it was\n"])
def test_a_file_that_its_command_empties(tmp_path, second):
    path = tmp_path / "out"
    path.write_bytes(b"one\n")
    stream = Output(str(path))
    read_all(stream, 100)
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:  # the file system's clock ticks
        path.write_bytes(second)
    assert read_all(stream, 100) == [(4, second)]


def test_a_file_that_its_command_removes(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"one\n")
    stream = Output(str(path))
    stream.look()
    path.unlink()
    assert stream.read(100)[1] == b"" and not stream.behind


# --- directories used again -----------------------------------------------------------------------------------------------


def ended(one: Execution, state_end: dict) -> Execution:
    for name in ("started.json", "end.json"):
        records.write(one.directory, name, {"id": one.id})
    for name in protocol.STREAMS:
        with open(os.path.join(one.directory, name), "w") as file:
            file.write("old")
    one.has_ended(state_end)
    return one


def test_a_spare_directory_is_as_a_new_one(tmp_path):
    (tmp_path / "executions").mkdir()
    spares = Spares(str(tmp_path / "spare"))
    first = ended(accept(tmp_path / "executions", spares), end_of(exit_code=0))
    assert first.remove(spares) and not os.path.exists(first.directory)
    second = accept(tmp_path / "executions", spares, number=2)
    assert os.listdir(tmp_path / "spare") == []
    assert not records.was_started(second.directory, 2) and records.read(second.directory, records.END_FILE, 2) is None
    assert records.read(second.directory, records.SPEC_FILE, 2)["id"] == 2 and not second.look()


@pytest.mark.parametrize("left", ["temp/x", "x", "output/d/"])
def test_what_a_command_left_is_not_given_to_another(tmp_path, left):
    (tmp_path / "executions").mkdir()
    spares = Spares(str(tmp_path / "spare"))
    one = ended(accept(tmp_path / "executions", spares), end_of(exit_code=0))
    path = os.path.join(one.directory, left)
    os.mkdir(path) if left.endswith("/") else open(path, "w").close()
    assert not one.remove(spares) and os.listdir(tmp_path / "spare") == []


def test_a_hard_link_to_the_output_is_left_alone(tmp_path):
    (tmp_path / "executions").mkdir()
    spares = Spares(str(tmp_path / "spare"))
    one = ended(accept(tmp_path / "executions", spares), end_of(exit_code=0))
    os.link(os.path.join(one.directory, "stdout"), tmp_path / "copy")
    assert one.remove(spares) and os.listdir(tmp_path / "spare") == []
    assert (tmp_path / "copy").read_text() == "old"


# --- what a starting worker finds ------------------------------------------------------------------------------------------


def test_leftovers(tmp_path):
    accept(tmp_path, number=3)
    accept(tmp_path, number=1)
    accept(tmp_path, number=2).keep()
    (tmp_path / "4").mkdir()
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "spec.json").write_text('{"id": 5, "ta')
    os.rename(tmp_path / "1", tmp_path / "6")  # a spare put in place whose new spec was not written any more
    held, kept, rubbish = find_leftovers(str(tmp_path))
    assert [one.id for one in held] == [3] and [os.path.basename(path) for path in kept] == ["2"]
    assert sorted(os.path.basename(path) for path in rubbish) == ["4", "5", "6"]


@pytest.mark.parametrize("step", range(7))
def test_killed_while_it_is_accepted(tmp_path, monkeypatch, step):
    """What a starting worker goes on with is whole."""
    left = [step]

    def dying(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise SystemExit
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patched, contextlib.suppress(SystemExit):
        patched.setattr(os, "mkdir", dying(os.mkdir))
        patched.setattr(records, "write", dying(records.write))
        accept(tmp_path, number=1)
    held, _, rubbish = find_leftovers(str(tmp_path))
    whole = {"input", "output", "resource", "temp", "spec.json"}
    assert [set(os.listdir(one.directory)) for one in held] == ([whole] if step == 6 else [])
    assert len(rubbish) == (0 < step < 6)


def test_processes_of_a_killed_keeper_are_ended_and_no_others(tmp_path):
    one, two = accept(tmp_path, number=1), accept(tmp_path, number=2)
    marked = subprocess.Popen(["sleep", "100"], env={**os.environ, "SCITQ_EXECUTION_DIR": one.directory}, start_new_session=True)
    main = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"], start_new_session=True)
    reused = subprocess.Popen(["sleep", "100"], start_new_session=True)
    identity = {"boot": processes.boot_id(), "started": 0.0}
    records.write(
        one.directory, records.STARTED_FILE, {"id": 1, "pid": main.pid, "start": processes.process(main.pid).start, **identity}
    )
    records.write(two.directory, records.STARTED_FILE, {"id": 2, "pid": reused.pid, "start": 1, **identity})
    try:
        end_leftovers([one, two])
        assert marked.wait(60) == -9 and main.wait(60) in (-9, 137)  # a shell may just see its child killed
        assert reused.poll() is None
        assert not [p for p in processes.processes().values() if p.session == main.pid and p.state != "Z"]
    finally:
        for process in (marked, main, reused):
            process.kill()
            process.wait()


# --- the machine ------------------------------------------------------------------------------------------------------------


def test_the_machine_is_measured(tmp_path):
    meter = machine.Meter(str(tmp_path))
    assert "network" not in meter.measure()
    stats = meter.measure()
    assert stats["memory"]["total"] >= stats["memory"]["available"] > 0 and stats["memory"]["swap_total"] >= 0
    assert stats["network"]["received_per_second"] >= 0 and len(stats["load"]) == 3
    assert 0 <= stats["cpu_percent"] <= 100 and stats["disks"][str(tmp_path)]["free"] > 0
    assert machine.cpu_count() >= 1 and machine.memory_bytes() > 0


def test_without_psutil_what_is_not_measured_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    told: list[str] = []
    meter = machine.Meter(str(tmp_path), told.append)
    meter.measure()
    assert set(meter.measure()) - {"gpus"} == {"load", "cpus", "disks"}
    assert len(told) == 1 and "not measured here" in told[0]


def test_a_scratch_that_is_not_there_is_told(tmp_path):
    assert "cannot be read" in machine.disk_problem(str(tmp_path / "no"))
    assert machine.disk_problem(str(tmp_path)) is None
