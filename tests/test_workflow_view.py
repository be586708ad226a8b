"""The view of a workflow on a terminal, where keys are really pressed; and `debug`, one task at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from env import ROOT
from terminal import Session

SCRIPT = """
import os, sys
from scitq.workflow import Workflow

wf = Workflow(sys.argv[1], shell=True, debug="debug" in sys.argv)
gate = sys.argv[2]
for name in "abcdef":
    held = wf.step("hold", f"while [ ! -e {gate} ]; do sleep 0.1; done; echo {name}", name=name)
wf.step("bad", "echo oh no >&2; exit 3", name="bad one")
wf.step("end", "echo the end", required_tasks=held.gather())
summary = wf.run()
print("afterwards", summary.counts, bool(summary))
"""


@pytest.fixture
def script(lab, batch, tmp_path):
    """The words that start the script, with the gate that lets its tasks end; and what to add to its variables."""
    (tmp_path / "script.py").write_text(SCRIPT)
    yield [sys.executable, "script.py", batch, str(tmp_path / "gate")]
    for row in lab.items("/batches"):
        if row["name"].startswith(f"{batch}."):
            lab.api("DELETE", f"/batches/{row['name']}")


@pytest.fixture
def start(lab, tmp_path):
    """Starts words on a terminal."""
    sessions = []

    def starter(words: list[str], **variables: str) -> Session:
        sessions.append(Session(lab, words, tmp_path, {"PYTHONPATH": str(ROOT), **variables}))
        return sessions[-1]

    yield starter
    for session in sessions:
        session.close()


def states(lab, batch: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in lab.items("/tasks"):
        if row["batch"].startswith(f"{batch}."):
            state = "suspended" if row["suspended"] else row["state"]
            found[state] = found.get(state, 0) + 1
    return found


def test_the_keys(lab, script, start, batch, tmp_path):
    view = start(script)
    view.until("workflow")
    view.until("hold")
    view.until("p pause  s suspend  u resume")
    lab.until(lambda: states(lab, batch).get("running") == 4, what="tasks run")
    at = view.press("p")
    view.until("paused: nothing new starts", at)
    assert all(row["stopped"] for row in lab.items("/batches") if row["name"].startswith(f"{batch}."))
    view.press("S")
    lab.until(lambda: states(lab, batch).get("suspended") == 4, what="they are suspended")
    at = view.press("u")
    view.until("resumed", at)
    lab.until(lambda: states(lab, batch).get("running") == 4, what="they run on")
    view.press("r\x1b[Az")  # refreshes; keys without a meaning do nothing
    at = view.press("d")
    view.until("y / n", at)
    at = view.press("n")
    view.until("nothing was destroyed", at)
    (tmp_path / "gate").touch()
    assert view.end() == 0
    text = view.seen.decode()
    assert "\x1b[?1049h" in text and text.rindex("\x1b[?1049l") < text.index("8 tasks: 7 succeeded, 1 failed")
    assert "failed: bad/bad one" in text and "exit code 3" in text and "afterwards" in text and "False" in text
    assert view.is_as_before


def test_who_leaves_ends_nothing_and_finds_it_again(lab, script, start, batch, tmp_path):
    view = start(script)
    view.until("p pause")
    lab.until(lambda: states(lab, batch).get("running") == 4, what="tasks run")
    view.press("q")
    assert view.end() == 130 and view.is_as_before
    assert b"its tasks go on" in view.seen and b"afterwards" not in view.seen and b"Traceback" not in view.seen
    ids = [row["id"] for row in lab.items("/tasks", batch=f"{batch}.hold")]
    again = start(script)
    again.until("p pause")
    again.press("\x03")
    assert again.end() == 130 and b"Traceback" not in again.seen
    killed = start(script)
    killed.until("p pause")
    killed.process.kill()
    (tmp_path / "gate").touch()
    last = start(script)
    assert last.end() == 0 and b"afterwards" in last.seen
    assert [row["id"] for row in lab.items("/tasks", batch=f"{batch}.hold")] == ids
    assert all(row["attempts"] == 1 for row in lab.items("/tasks", batch=f"{batch}.hold"))


def test_destroyed_when_that_is_confirmed(lab, script, start, batch):
    view = start(script)
    view.until("p pause")
    lab.until(lambda: states(lab, batch).get("running") == 4, what="tasks run")
    view.until("y / n", view.press("d"))
    view.press("y")
    assert view.end() == 130 and b"is destroyed" in view.seen and b"afterwards" not in view.seen
    assert states(lab, batch) == {} and not [row for row in lab.items("/batches") if row["name"].startswith(f"{batch}.")]


# --- one at a time --------------------------------------------------------------------------------------------------------

DEBUG = """
import sys
from scitq.workflow import Workflow

wf = Workflow(sys.argv[1], shell=True, debug=True)
one = wf.step("one", "echo first; echo aside >&2; exit $(cat exit)", name="1", workdir=sys.argv[2])
two = wf.step("two", "echo second", name="2", required_tasks=one)
three = wf.step("three", "echo third", name="3")
print("summary", wf.run().counts)
"""


@pytest.fixture
def debug(lab, batch, tmp_path):
    """Starts the script with these answers; what it printed."""
    (tmp_path / "script.py").write_text(DEBUG)

    def starter(answers: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "script.py", batch, str(tmp_path)], input=answers, cwd=tmp_path, timeout=100, text=True,
            env={**lab.variables, "PYTHONPATH": str(ROOT)}, capture_output=True,
        )  # fmt: skip
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout

    return starter


def queued(lab, batch: str) -> dict[str, int]:
    """The attempts of the tasks that are there, by their names."""
    return {row["name"]: row["attempts"] for row in lab.items("/tasks") if row["batch"].startswith(f"{batch}.")}


def test_debugging_runs_what_is_chosen_and_nothing_else(lab, debug, batch, tmp_path):
    (tmp_path / "exit").write_text("7")
    shown = debug("no\n\nq\n", 130)  # not the first one, but the other that can run
    assert "one/1: echo first" in shown and "two/2" not in shown and "third" in shown and "three/3: succeeded" in shown
    assert queued(lab, batch) == {"3": 1}
    shown = debug("y\nr\nc\n")
    assert shown.count("first\n") >= 2 and "aside" in shown and shown.count("one/1: exit code 7") == 2
    assert "1 of 3 steps are done" in shown and "nothing is left that could run" in shown
    assert queued(lab, batch) == {"3": 1, "1": 2}
    (tmp_path / "exit").write_text("0")
    shown = debug("y\nc\nx\n")  # mended; the rest as usual
    assert "one/1: succeeded" in shown and "two/2: echo second" in shown and "3 tasks: 3 succeeded" in shown
    assert f"workflow {batch}: 3 tasks: 1 queued, 2 as they were" in shown
    assert queued(lab, batch) == {"3": 1, "1": 3, "2": 1}
    assert "3 of 3 steps are done" in debug("")
