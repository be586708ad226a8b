"""`scitq manage batch`, from outside: what is shown of batches, and what stops, goes on and goes away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal import on_terminal


def manage(lab, *words, code: int | None = 0, **options):
    return lab.cli("manage", "batch", *words, code=code, **options)


@pytest.fixture
def crew(lab):
    """Puts the worker of all these tests into a batch."""

    def move(batch: str) -> None:
        lab.api("PATCH", f"/workers/{lab.items('/workers')[0]['id']}", {"batch": batch})

    yield move
    move("Default")


@pytest.fixture
def running(lab, batch, crew, tmp_path):
    """Two tasks of a batch that run until a file is there, and one that waits for them."""
    crew(batch)
    line = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    first = lab.create(*({"command": line, "shell": "sh", "batch": batch} for _ in range(2)))
    last = lab.create({"command": "true", "batch": batch, "require": first})
    lab.wait_state(first, "running")
    yield first + last
    (tmp_path / "go").touch()


@pytest.fixture
def failures(lab, batch, crew):
    """One task that succeeds, and four that fail in three ways."""
    crew(batch)
    lines = ["sleep 0.1", "echo no disk >&2; exit 3", "echo no disk >&2; exit 3", "echo no net; exit 3", "kill -9 $$"]
    ids = lab.create(*({"command": line, "shell": "sh", "batch": batch} for line in lines))
    lab.wait_state(ids, "succeeded", "failed")
    return ids


def state(lab, name: str) -> dict:
    return lab.api("GET", f"/batches/{name}")


# --- looking ----------------------------------------------------------------------------------------------------------------


def test_a_line_a_batch_the_name_first(lab, batch, failures):
    lines = manage(lab, "list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "WORKERS", "TASKS", "COST"]
    (line,) = [line for line in lines if line.startswith(batch)]
    assert line.split()[1:] == ["going", "1", "1", "succeeded,", "4", "failed", "-"]
    assert [line for line in manage(lab, "list", "-H").stdout.splitlines() if line.split()[0] == "NAME"] == []


def test_a_name_or_a_glob_chooses(lab, batch, failures):
    """As with tasks and workers."""
    assert [line.split()[0] for line in manage(lab, "list", "-H", "-n", batch[:-1] + "?").stdout.splitlines()] == [batch]
    assert manage(lab, "list", "-H", "--name", "no such*").stdout == ""
    assert "[z-a] holds nothing" in manage(lab, "list", "-n", "[z-a]", code=2).stderr


def test_formats_for_programs(lab, batch, failures):
    rows = json.loads(manage(lab, "list", "-o", "json").stdout)
    assert rows == lab.items("/batches")
    assert manage(lab, "list", "-o", "ids").stdout.split() == [row["name"] for row in rows]
    assert json.loads(manage(lab, "list", "-o", "jsonl", "--reverse", "--limit", "1").stdout) == rows[-1]


def test_get_tells_everything(lab, batch, failures):
    told = manage(lab, "get", batch).stdout
    assert batch in told and "1 succeeded, 4 failed" in told and "CREATED" in told
    assert json.loads(manage(lab, "get", "-n", batch, "-o", "json").stdout)["counts"] == {"succeeded": 1, "failed": 4}


def test_a_report_groups_the_failures(lab, batch, failures):
    told = manage(lab, "report", batch).stdout
    assert "1 succeeded, 4 failed" in told and "took" in told
    rows = [line.split() for line in told.splitlines()]
    (disk,) = [row for row in rows if row[-1] == f"{failures[1]}-{failures[2]}"]
    assert disk[:3] == ["2", "exit", "3"] and " ".join(disk).count("no disk") == 1
    (net,) = [row for row in rows if "net" in row]
    assert (net[0], net[-1]) == ("1", str(failures[3]))
    (killed,) = [row for row in rows if "(SIGKILL)" in row]
    assert killed[-1] == str(failures[4])
    whole = json.loads(manage(lab, "report", "-n", batch, "-o", "json").stdout)
    assert whole["durations"]["count"] == 1 and whole["durations"]["most"] > 0


def test_a_report_of_nothing(lab, batch):
    lab.create({"command": "true", "batch": batch})
    assert "1 pending" in manage(lab, "report", batch).stdout


def test_last_lines_cannot_move_the_cursor(lab, batch, crew):
    crew(batch)
    (task,) = lab.create({"command": "printf 'a\\033[2Jb'; exit 1", "shell": "sh", "batch": batch})
    lab.wait_state(task, "failed")
    assert r"a\x1b[2Jb" in manage(lab, "report", batch).stdout


# --- export ---------------------------------------------------------------------------------------------------------------


def test_an_export_makes_the_batch_again(lab, batch, tmp_path):
    first, second = lab.create(
        {"name": "a", "command": "cat <<'é'\n{item} ${X}\né", "shell": "sh", "batch": batch, "env": {"X": "1"}, "retry": 2},
        {"name": "b", "command": "true", "batch": batch, "require": ["#0"], "priority": -1},
    )
    text = manage(lab, "export", batch).stdout
    path = tmp_path / "again.yaml"
    assert manage(lab, "export", "-n", batch, "-o", str(path)).stdout == f"{path}\n" and path.read_text() == text
    assert lab.cli("launch", "-f", str(path), code=0).stdout.split() == [str(first), str(second)], "all of it is there"
    other = [int(word) for word in lab.cli("launch", "-f", str(path), "-b", f"{batch}-2", code=0).stdout.split()]
    for old, new in zip((first, second), map(lab.task, other), strict=True):
        assert {
            key: lab.task(old)[key] for key in ("name", "command", "shell", "env", "retry", "priority", "state")
        }.items() <= new.items()
    assert lab.task(other[1])["require"] == [other[0]]
    told = manage(lab, "export", batch, "-o", f"{tmp_path}/no/where", code=2).stderr
    assert told.endswith("cannot be written: No such file or directory\n") and told.count("\n") == 1


# --- stop and go ----------------------------------------------------------------------------------------------------------


def test_stop_and_go_do_not_ask(lab, batch, running, tmp_path):
    assert "stopped" in manage(lab, "stop", batch).stdout
    assert "stopped" in [line.split()[1] for line in manage(lab, "list").stdout.splitlines() if line.startswith(batch)]
    (tmp_path / "go").touch()
    lab.wait_state(running[:2])
    lab.wait_state(running[2], "pending")
    assert f"batch go -n {batch}" in lab.api("GET", f"/tasks/{running[2]}/explain")["sentence"]
    manage(lab, "go", "-n", batch)
    lab.wait_state(running)


def test_suspend_stops_the_processes_and_go_resumes_them(lab, batch, running, tmp_path):
    manage(lab, "stop", "-n", batch, "--suspend")
    lab.until(lambda: all(lab.task(task)["suspended"] for task in running[:2]), what="they are suspended")
    assert "suspended" in lab.cli("manage", "task", "list", "-b", batch, code=0).stdout
    manage(lab, "go", batch)
    (tmp_path / "go").touch()
    lab.wait_state(running)


@pytest.mark.parametrize(("option", "number"), [("--term", 15), ("--kill", 9)])
def test_what_ends_tasks_wants_a_yes(lab, batch, running, option, number):
    refused = manage(lab, "stop", "-n", batch, option, code=2)
    assert "2 running tasks" in refused.stderr and "--yes" in refused.stderr and refused.stderr.count("\n") == 1
    assert "2 running tasks" in manage(lab, "stop", "-n", batch, option, "--dry-run").stdout
    assert not state(lab, batch)["stopped"] and lab.state(running[0]) == "running"
    manage(lab, "stop", "-n", batch, option, "--yes")
    lab.wait_state(running[:2], "failed")
    assert state(lab, batch)["stopped"] and {lab.task(task)["signal"] for task in running[:2]} == {number}


def test_one_way_to_end_at_a_time(lab, batch, running):
    assert "not allowed with" in manage(lab, "stop", batch, "--term", "--kill", "--yes", code=2).stderr


def test_several_batches_at_once(lab, batch):
    names = [f"{batch}-{i}" for i in range(3)]
    lab.create(*({"command": "true", "batch": name} for name in names))
    manage(lab, "stop", "-n", *names[:2])
    assert [state(lab, name)["stopped"] for name in names] == [True, True, False]
    manage(lab, "go", names[0], "-n", names[1])
    assert [state(lab, name)["stopped"] for name in names] == [False, False, False]


# --- delete ---------------------------------------------------------------------------------------------------------------


def test_delete_says_what_it_takes_with_it(lab, batch, running):
    refused = manage(lab, "delete", "-n", batch, code=2)
    assert "3 tasks" in refused.stderr and "2 of them held by workers" in refused.stderr and "--yes" in refused.stderr
    assert state(lab, batch)["counts"]
    manage(lab, "delete", "-n", batch, "--yes")
    assert lab.answer("GET", f"/batches/{batch}").status == 404
    assert lab.items("/tasks", batch=batch) == []


def test_no_is_no(lab, batch):
    lab.create({"command": "true", "batch": batch})
    code, seen = on_terminal(lab, "manage", "batch", "delete", batch, typed=b"n\n")
    assert code == 1 and b"[y/N]" in seen and b"nothing was changed" in seen
    assert state(lab, batch)["counts"] == {"pending": 1}
    assert on_terminal(lab, "manage", "batch", "delete", batch, typed=b"y\n")[0] == 0
    assert lab.answer("GET", f"/batches/{batch}").status == 404


# --- what is wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["get", "stop", "go", "delete", "report", "export"])
def test_an_unknown_name_is_told_with_the_nearest(lab, verb):
    lab.create({"command": "true", "batch": "reads"})
    told = manage(lab, verb, "raeds", *(["--yes"] if verb == "delete" else []), code=3).stderr
    assert told == "scitq: there is no batch 'raeds' (did you mean 'reads'?)\n"
    assert "which batch?" in manage(lab, verb, code=2).stderr


def test_one_unknown_name_changes_none(lab, batch):
    lab.create({"command": "true", "batch": batch})
    manage(lab, "stop", batch, "no-such-batch", code=3)
    assert not state(lab, batch)["stopped"]


def test_names_of_any_letters(lab, tmp_path: Path):
    name = "a/b c%20?é'*"
    lab.create({"command": "true", "batch": name})
    manage(lab, "stop", name)
    assert state(lab, "a%2Fb%20c%2520%3F%C3%A9'*")["stopped"]
    assert name in manage(lab, "list", "-o", "ids").stdout.splitlines()
    manage(lab, "delete", name, "--yes")
