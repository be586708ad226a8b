"""The web UI's pages of tasks in a real browser: what they show and do is what the API tells."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from browser import row
from hands import Hands
from playwright.sync_api import Locator, Page, expect
from scitq.protocol import Report


@pytest.fixture
def hands(lab, batch):
    """A worker by its requests alone, for the test's own batch."""
    return Hands(lab, batch[-90:], batch)


def made(lab, batch: str, *names: str, **more) -> list[int]:
    return lab.create(*({"command": f"echo {name}", "name": name, "batch": batch, **more} for name in names))


def held(lab, hands: Hands, count: int) -> Hands:
    lab.until(lambda: hands.sync() and len(hands.held) == count, what=f"{count} executions are held")
    return hands


def running(lab, hands: Hands, ids: list[int], **more) -> dict[int, int]:
    """The tasks run; task -> execution."""
    held(lab, hands, len(ids))
    hands.sync(*(Report(execution, "running", started_ago=1.0, **more) for execution in hands.held))
    return {task: execution for execution, task in hands.held.items()}


def wanted(hands: Hands, execution: int) -> str:
    return next((order.desired for order in hands.sync().orders if order.id == execution), "gone")


def select(page: Page, *ids: int) -> None:
    for task in ids:
        page.get_by_role("checkbox", name=f"Select {task}", exact=True).check()


def bulk(page: Page) -> Locator:
    return page.get_by_role("group", name="What is done to the selected tasks")


def agree(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=re.compile(f"^{verb}")).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def saved(page: Page, name: str, within: str) -> str:
    """The text of a file that a button saves."""
    with page.expect_download() as download:
        page.get_by_role("group", name=within).get_by_role("button", name=name).click()
    return Path(download.value.path()).read_bytes().decode()


# --- the list -------------------------------------------------------------------------------------------------------------


def test_the_list_shows_what_the_api_says(tab, lab, batch, hands):
    ids = made(lab, batch, "one", "two", "three")
    (waits,) = lab.create({"command": "echo four", "batch": batch, "require": [ids[2]]})
    held(lab, hands, 3)
    hands.end(ids[0])
    hands.end(ids[1], "failed", 42)
    hands.sync(Report(next(iter(hands.held)), "running", started_ago=90.0))
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("main")).to_contain_text("4 tasks")
    for task, words in {ids[0]: "succeeded", ids[1]: "failed", ids[2]: "running", waits: "waiting"}.items():
        assert lab.state(task) == words
        expect(row(page, task)).to_contain_text(words)
    expect(row(page, ids[1])).to_contain_text("exit code 42")
    expect(row(page, ids[2])).to_contain_text(hands.row["name"])
    expect(row(page, ids[2])).to_contain_text(re.compile(r"1m3\d|1m 3\d|1 min"))
    expect(row(page, waits)).to_contain_text("no name")
    chips = page.get_by_role("group", name="States")
    expect(chips.get_by_role("button", name="failed")).to_contain_text("1")
    page.get_by_role("button", name="Id").click()
    expect(page.locator("tbody tr").first).to_contain_text("one")
    assert "order=id" in page.url


def test_a_long_list_comes_in_pages(tab, lab, batch):
    ids = lab.create(*[{"command": "true", "batch": batch}] * 230)
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(100)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("tbody tr")).to_have_count(200)
    page.get_by_role("button", name="Show more").click()
    expect(row(page, ids[0])).to_have_count(1)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_relaunch(tab, lab, batch, hands):
    ids = made(lab, batch, "a", "b", "c")
    held(lab, hands, 3)
    for task in ids[:2]:
        hands.end(task, "failed", 1)
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(3)
    select(page, *ids)
    bulk(page).get_by_role("button", name="Relaunch").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 task left out")  # the one that runs
    agree(page, "Relaunch 2 tasks")
    held(lab, hands, 3)
    assert [lab.task(task)["attempts"] for task in ids] == [2, 2, 1]


@pytest.mark.parametrize("verb, order", [("Suspend", "suspend"), ("Terminate", "term"), ("Kill", "kill"), ("Cancel", "cancel")])
def test_what_runs_is_told(tab, lab, batch, hands, verb, order):
    ids = made(lab, batch, "a", "b")
    executions = running(lab, hands, ids)
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(2)
    select(page, ids[0])
    bulk(page).get_by_role("button", name=verb, exact=True).click()
    if order != "suspend":
        agree(page, verb)
    lab.until(lambda: wanted(hands, executions[ids[0]]) == order)
    assert wanted(hands, executions[ids[1]]) == "run"


def test_suspended_is_shown_and_resumed(tab, lab, batch, hands):
    ids = made(lab, batch, "a")
    executions = running(lab, hands, ids)
    hands.sync(Report(executions[ids[0]], "running", suspended=True, started_ago=2.0))
    page = tab.visit(f"tasks?batch={batch}")
    expect(row(page, ids[0])).to_contain_text("suspended")
    lab.api("POST", "/tasks/signal", {"ids": ids, "action": "suspend"})
    select(page, *ids)
    bulk(page).get_by_role("button", name="Resume").click()
    lab.until(lambda: wanted(hands, executions[ids[0]]) == "run")


def test_all_that_pass_the_filter_are_deleted_shown_or_not(tab, lab, batch):
    lab.create(*[{"command": "true", "batch": batch, "name": "gone"}] * 120, {"command": "true", "batch": batch, "name": "stays"})
    page = tab.visit(f"tasks?batch={batch}&name=gone")
    expect(page.locator("tbody tr")).to_have_count(100)
    page.get_by_role("checkbox", name="Select all rows shown").check()
    bulk(page).get_by_role("button", name="select all 120 that pass the filter").click()
    bulk(page).get_by_role("button", name="Delete").click()
    agree(page, "Delete 120 tasks")
    expect(page.get_by_text("No task passes the filter")).to_be_visible()
    assert [task["name"] for task in lab.items("/tasks", batch=batch)] == ["stays"]


def test_move(tab, lab, batch):
    ids = made(lab, batch, "a", "b")
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(2)
    select(page, ids[1])
    bulk(page).get_by_role("button", name="Move…").click()
    page.get_by_role("dialog").get_by_label("Batch").fill(f"{batch}/new")
    agree(page, "Move")
    expect(row(page, ids[1])).to_have_count(0)
    assert [lab.task(task)["batch"] for task in ids] == [batch, f"{batch}/new"]


def test_edit_shows_the_differences_before_it_happens(tab, lab, batch):
    ids = lab.create(*({"command": f"bwa mem -t 4 ref.fa S{number}.fq", "batch": batch} for number in (1, 2, 3)))
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(3)
    select(page, *ids[:2])
    bulk(page).get_by_role("button", name="Edit…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Search for").fill(r"-t (\d)")
    dialog.get_by_label("Replace with").fill(r"-t 1\1")
    expect(dialog.locator(".diff")).to_have_count(2)
    expect(dialog.get_by_role("heading", name=f"Task {ids[0]}")).to_be_visible()
    expect(dialog.locator(".diff").first).to_contain_text("bwa mem -t 14 ref.fa S")
    assert "-t 4 " in lab.task(ids[0])["command"], "nothing has happened yet"
    dialog.get_by_label("Set another field").select_option(label="Retries")
    dialog.get_by_role("spinbutton", name="Retries").fill("3")
    agree(page, "Change 2 tasks")
    lab.until(lambda: lab.task(ids[1])["retry"] == 3)
    rows = [lab.task(task) for task in ids]
    assert [(task["command"], task["retry"]) for task in rows] == [
        ("bwa mem -t 14 ref.fa S1.fq", 3), ("bwa mem -t 14 ref.fa S2.fq", 3), ("bwa mem -t 4 ref.fa S3.fq", 0),
    ]  # fmt: skip


def test_an_expression_that_is_none_is_told(tab, lab, batch):
    tab.allow("400")
    (task,) = made(lab, batch, "a")
    page = tab.visit(f"tasks?batch={batch}")
    select(page, task)
    bulk(page).get_by_role("button", name="Edit…").click()
    page.get_by_label("Search for").fill("(")
    expect(page.get_by_role("dialog").locator(".field-error")).to_contain_text("pattern")
    expect(page.get_by_role("dialog").get_by_role("button", name="Change", exact=True)).to_be_disabled()


def test_exports(tab, lab, batch, hands):
    ids = made(lab, batch, 'a "b", c', "=1+1")
    held(lab, hands, 2)
    hands.end(ids[0], stdout=b"line 1\nline 2\n")
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(2)
    group = "Export what is selected, or all that pass the filter"
    expected = lab.items("/tasks", batch=batch)
    rows = json.loads(saved(page, "JSON", group))
    assert {one["id"]: one["name"] for one in rows} == {one["id"]: one["name"] for one in expected}
    table = list(csv.DictReader(io.StringIO(saved(page, "CSV", group), newline="")))
    assert {int(one["id"]): one["name"] for one in table} == {one["id"]: one["name"] for one in expected}
    select(page, ids[0])
    (output,) = json.loads(saved(page, "Outputs", group))
    assert (output["id"], output["stdout"]) == (ids[0], "line 1\nline 2\n")


# --- one task ---------------------------------------------------------------------------------------------------------------


def test_a_task_tells_all_of_itself(tab, lab, batch, hands):
    (needed,) = made(lab, batch, "first")
    spec = {"retry": 1, "output": "file:///results/x", "env": {"LANG": "C"}, "input": ["https://example.org/reads.fq"]}
    (task,) = made(lab, batch, "second", require=[needed], **spec)
    held(lab, hands, 1)
    hands.end(needed)
    held(lab, hands, 1)
    execution = hands.end(task, "failed", 7, b"the first try\n")
    held(lab, hands, 1)
    (second,) = hands.held
    hands.sync(Report(second, "running", started_ago=3.0), output=[(second, "stdout", 0, b"the second try\n")])
    page = tab.visit(f"tasks/{task}")
    expect(page.get_by_role("heading", name=f"Task {task} second")).to_be_visible()
    sentence, _, _ = lab.api("GET", f"/tasks/{task}/explain")["sentence"].partition(" for ")
    expect(page.locator(".sentence")).to_contain_text(sentence)
    expect(page.locator(".log-text")).to_contain_text("the second try")
    expect(page.get_by_label("Command", exact=True)).to_have_value("echo second")
    expect(page.get_by_label("Variables")).to_have_value("LANG=C")
    expect(page.get_by_role("link", name="https://example.org/reads.fq")).to_have_attribute("rel", re.compile("noopener"))
    expect(page.locator("main")).to_contain_text("file:///results/x")
    expect(page.get_by_role("link", name=str(needed), exact=True)).to_be_visible()
    expect(page.locator(".by-hand")).to_have_text(lab.api("GET", f"/tasks/{task}/by-hand")["line"])
    attempts = page.get_by_role("table", name="Attempts")
    expect(attempts.locator("tbody tr")).to_have_count(2)
    expect(attempts).to_contain_text("exit code 7")
    attempts.locator("tbody tr").nth(1).get_by_role("rowheader").click()
    expect(page.locator(".log-text")).to_contain_text("the first try")
    assert f"attempt={execution}" in page.url
    page.go_back()
    expect(page.locator(".log-text")).to_contain_text("the second try")
    page.get_by_role("link", name=str(needed), exact=True).click()
    expect(page.get_by_role("heading", name="Needed by")).to_be_visible()


def test_the_log_is_followed_live(tab, lab, tmp_path):
    """On a real worker: what the command writes comes, in colours, and its end."""
    go_on = tmp_path / "go-on"
    script = f"printf '\\033[1;31mred\\033[0m and plain\\n'; until test -e {go_on}; do sleep 0.05; done; seq 1 300; echo done >&2"
    (task,) = lab.create(script)
    lab.wait_state(task, "running", "succeeded")
    page = tab.visit(f"tasks/{task}")
    log = page.locator(".log-scroll")
    expect(log).to_contain_text("red and plain")
    assert log.evaluate("node => node.textContent").count("\x1b") == 0
    red = page.locator(".log span", has_text=re.compile("^red$"))
    assert red.evaluate("node => getComputedStyle(node).color") != log.evaluate("node => getComputedStyle(node).color")
    loaded = tab.was_loaded
    go_on.touch()
    expect(log).to_contain_text("299\n300")
    expect(page.locator(".page-head")).to_contain_text("succeeded")
    page.wait_for_function(
        "() => [document.querySelector('.log-scroll')].every((it) => it.scrollHeight - it.scrollTop - it.clientHeight < 30)"
    )
    assert tab.was_loaded == loaded
    page.get_by_label("Find in the output").fill("29")
    expect(page.locator(".log-find")).to_contain_text("13")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert Path(download.value.path()).read_bytes() == lab.stdout(task)
    page.get_by_role("button", name="stderr").click()
    expect(page.locator(".log-scroll")).to_have_text(re.compile("done"))
    assert "stream=stderr" in page.url


def test_a_command_is_changed_and_queued_again(tab, lab, batch, hands):
    (task,) = made(lab, batch, "first")
    held(lab, hands, 1)
    hands.end(task, "failed", 1)
    page = tab.visit(f"tasks/{task}")
    page.get_by_label("Command", exact=True).fill("echo first\necho second")
    expect(page.locator(".diff")).to_contain_text("echo second")
    page.get_by_role("button", name="Save", exact=True).click()
    lab.until(lambda: lab.task(task)["command"] == "echo first\necho second")
    assert lab.state(task) == "failed"
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_hidden()
    page.get_by_label("Priority").fill("5")
    page.get_by_role("button", name="Save and relaunch").click()
    held(lab, hands, 1)
    assert (lab.task(task)["priority"], lab.task(task)["attempts"]) == (5, 2)
    expect(page.get_by_label("Command", exact=True)).to_be_disabled()  # a worker holds it


def test_one_task_is_killed_and_deleted(tab, lab, batch, hands):
    (task,) = made(lab, batch, "first")
    executions = running(lab, hands, [task])
    page = tab.visit(f"tasks/{task}")
    page.get_by_role("button", name="Kill", exact=True).click()
    agree(page, "Kill")
    lab.until(lambda: wanted(hands, executions[task]) == "kill")
    hands.sync(Report(executions[task], "failed", signal=9, reason="ended on request (kill)", started_ago=3.0, ended_ago=0.0))
    expect(page.locator(".page-head")).to_contain_text("failed")
    expect(page.locator(".sentence")).to_contain_text("asked by")
    page.get_by_role("button", name="Delete").click()
    agree(page, "Delete")
    expect(page.get_by_role("heading", name="Tasks", exact=True)).to_be_visible()
    assert lab.answer("GET", f"/tasks/{task}").status == 404
