"""The web UI's overview, batch and settings in a real browser: what they show and do is what the API tells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from browser import row
from hands import Hands
from playwright.sync_api import Page, expect
from scitq.protocol import Report
from scitq.transport import Connection


@pytest.fixture
def batch(batch):
    """A name of its own for each test, which a worker may have too."""
    return re.sub(r"\W+", "-", batch).strip("-")


@pytest.fixture
def hands(lab, batch):
    """A worker by its requests alone, for the test's own batch."""
    return Hands(lab, batch, batch, 8)


def held(lab, hands: Hands, count: int) -> Hands:
    lab.until(lambda: hands.sync() and len(hands.held) == count, what=f"{count} executions are held")
    return hands


def ended(lab, hands: Hands, batch: str, *ends: int, name: str = "step") -> list[int]:
    """Tasks that ended with these exit codes; those that failed wrote which."""
    ids = lab.create(*({"command": f"echo {n}", "name": f"{name}:{n}", "batch": batch} for n in range(len(ends))))
    held(lab, hands, len(ids))
    for task, code in zip(ids, ends):
        hands.end(task, "failed" if code else "succeeded", code, f"error {code} of task {task}\n".encode() if code else b"")
    return ids


def batch_row(lab, name: str) -> dict:
    return lab.api("GET", f"/batches/{quote(name, safe='')}")


def agree(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=re.compile(f"^{verb}")).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


# --- the overview ---------------------------------------------------------------------------------------------------------


def test_a_new_server_says_what_to_type(env, tabs):
    env.server()
    page = tabs(env).visit()
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    expect(page.locator("main")).to_contain_text(f"scitq worker {env.url}")
    expect(page.locator("main")).to_contain_text("scitq launch")
    env.create({"command": "true", "batch": "first"})
    expect(row(page, "first")).to_be_visible()


def test_the_overview_shows_what_the_api_says(tab, lab, batch, hands):
    ended(lab, hands, batch, 0, 0, 0, 5, 5)
    lab.create({"command": "true", "batch": f"{batch} lonely"})
    page = tab.visit()
    told = batch_row(lab, batch)["counts"]
    assert told == {"succeeded": 3, "failed": 2}
    line = row(page, batch)
    expect(line.get_by_role("img", name="3 succeeded, 2 failed")).to_be_visible()
    expect(row(page, f"{batch} lonely")).to_contain_text("no worker")
    attention = page.get_by_role("table", name="Needs attention")
    expect(attention).to_contain_text("2 failed, exit code 5")
    expect(attention).to_contain_text("error 5 of task #")
    expect(attention.locator("tr", has_text=f"{batch} lonely")).to_contain_text("worker")
    attention.get_by_role("link", name="2 failed, exit code 5").first.click()
    expect(page.get_by_role("heading", name="Tasks", exact=True)).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.go_back()
    row(page, batch).get_by_role("link", name="3 succeeded").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    assert "state=succeeded" in page.url


def test_the_overview_stops_and_deletes(tab, lab, batch):
    lab.create({"command": "true", "batch": batch})
    page = tab.visit()
    line = row(page, batch)
    line.get_by_role("button", name=f"Stop {batch}").click()
    agree(page, "Stop")
    expect(line).to_contain_text("stopped")
    assert batch_row(lab, batch)["stopped"]
    line.get_by_role("button", name=f"Go {batch}").click()
    expect(line).not_to_contain_text("stopped")
    assert not batch_row(lab, batch)["stopped"]
    line.get_by_role("button", name=f"Delete {batch}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 task, with all attempts")
    dialog.get_by_label("Type the name").fill("another")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog).to_be_visible()  # another name is not enough
    dialog.get_by_label("Type the name").fill(batch)
    agree(page, "Delete")
    page.locator("h1").click()  # until then the row stays where it is
    expect(line).to_have_count(0)
    assert lab.answer("GET", f"/batches/{batch}").status == 404


# --- a batch --------------------------------------------------------------------------------------------------------------


def test_a_batch_tells_all_of_itself(tab, lab, batch, hands):
    name = f"{batch}/2026 #7?"
    lab.api("PATCH", f"/workers/{hands.row['id']}", {"batch": name})
    ids = ended(lab, hands, name, 0, 0, 3, name="align")
    lab.create({"command": "true", "name": "sort:0", "batch": name, "require": [ids[0]]})
    held(lab, hands, 1)
    (execution,) = hands.held
    usage = {"cpu_seconds": 2.0, "peak_memory_bytes": 3 * 10**9}
    hands.sync(
        Report(execution, "succeeded", exit_code=0, started_ago=40.0, ended_ago=1.0, stdout_size=0, stderr_size=0, **usage)
    )
    page = tab.visit(f"batches/{quote(name, safe='')}")
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    cards = page.get_by_role("list", name="Tasks by state")
    expect(cards.get_by_role("link", name=re.compile("succeeded"))).to_contain_text("3")
    expect(cards.get_by_role("link", name=re.compile("failed"))).to_contain_text("1")
    expect(page.get_by_role("table", name=re.compile("Failures"))).to_contain_text("error 3")
    report = lab.api("GET", f"/batches/{quote(name, safe='')}/report")
    expect(page.get_by_role("region", name="How long tasks took")).to_contain_text(f"{report['durations']['count']} succeeded")
    assert sum(bin["count"] for bin in report["histogram"]) == 3
    expect(page.get_by_role("region", name="Memory")).to_contain_text(re.compile(r"3(\.\d+)? GB"))
    steps = page.get_by_role("region", name="Steps")
    expect(steps.get_by_role("listitem")).to_have_count(2)
    expect(steps).to_contain_text("after align")
    expect(page.get_by_role("region", name="Workers")).to_contain_text(hands.row["name"])
    timeline = page.get_by_role("region", name="What ran when")
    timeline.get_by_text("As a table").click()
    expect(timeline.locator("tbody tr")).to_have_count(4)
    cards.get_by_role("link", name=re.compile("failed")).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(row(page, ids[2])).to_be_visible()


def test_failures_are_relaunched_by_group(tab, lab, batch, hands):
    ids = ended(lab, hands, batch, 3, 4, 3, 0)
    page = tab.visit(f"batches/{batch}")
    groups = page.get_by_role("table", name=re.compile("Failures"))
    expect(groups.locator("tbody tr")).to_have_count(2)
    groups.locator("tbody tr", has_text="exit code 3").get_by_role("button", name="Relaunch", exact=True).click()
    agree(page, "Relaunch 2 tasks")
    held(lab, hands, 2)
    assert sorted(hands.held.values()) == [ids[0], ids[2]]
    page.locator("h1").click()
    expect(groups.locator("tbody tr")).to_have_count(1)
    groups.get_by_role("button", name="Edit and relaunch").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Search for").fill("echo")
    dialog.get_by_label("Replace with").fill("printf")
    expect(dialog.locator(".diff")).to_contain_text("printf 1")
    agree(page, "Change and relaunch")
    held(lab, hands, 3)
    assert lab.task(ids[1])["command"] == "printf 1"
    page.locator("h1").click()
    expect(groups.locator("tbody tr")).to_have_count(0)


def test_a_failure_leads_to_one_of_its_tasks(tab, lab, batch, hands):
    ids = ended(lab, hands, batch, 3)
    page = tab.visit(f"batches/{batch}")
    page.get_by_role("link", name="Show one").click()
    expect(page.get_by_role("heading", name=f"Task {ids[0]}")).to_be_visible()
    expect(page.locator(".log-text")).to_contain_text("error 3")


@pytest.mark.parametrize(
    "what, order", [("^goes on", "run"), ("suspended", "suspend"), ("asked to end", "term"), ("killed", "kill")]
)
def test_a_batch_is_stopped_and_goes(tab, lab, batch, hands, order, what):
    lab.create({"command": "sleep 1", "batch": batch})
    held(lab, hands, 1)
    (execution,) = hands.held
    hands.sync(Report(execution, "running", started_ago=1.0))
    page = tab.visit(f"batches/{batch}")
    page.get_by_role("button", name="Stop…").click()
    options = page.get_by_role("dialog").get_by_role("combobox")
    options.select_option(label=options.locator("option", has_text=re.compile(what)).inner_text())
    agree(page, "Stop")
    expect(page.get_by_role("button", name="Go", exact=True)).to_be_visible()
    assert batch_row(lab, batch)["stopped"]
    assert [one.desired for one in hands.sync().orders if one.id == execution] == [order]
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_role("button", name="Stop…")).to_be_visible()
    assert not batch_row(lab, batch)["stopped"]


def test_a_batch_as_files(tab, lab, batch, hands):
    ids = ended(lab, hands, batch, 0, 1)
    page = tab.visit(f"batches/{batch}")

    def saved(name: str) -> str:
        with page.expect_download() as download:
            page.get_by_role("button", name=re.compile(f"Export {name}")).click()
        return Path(download.value.path()).read_text()

    assert [task["id"] for task in json.loads(saved("JSON"))] == ids
    assert len(saved("CSV").splitlines()) == 3
    assert saved("Batch file") == lab.answer("GET", f"/batches/{batch}/file").body.decode()


def test_a_batch_that_is_deleted_elsewhere_says_so(tab, lab, batch):
    lab.create({"command": "true", "batch": batch})
    tab.allow("404")  # no news came of it: the page asks
    page = tab.visit(f"batches/{batch}")
    lab.api("DELETE", f"/batches/{batch}")
    expect(page.get_by_text("This batch does not exist any more")).to_be_visible()


# --- settings -------------------------------------------------------------------------------------------------------------


def test_tokens_are_made_and_revoked(tab, lab, batch):
    page = tab.visit("settings")
    page.get_by_role("button", name="Make a token").click()
    page.get_by_label("For whom or what").fill(batch)
    agree(page, "Make")
    token = page.get_by_role("region", name=f"the token of {batch}").inner_text()
    with Connection(lab.url, token=token) as connection:
        you = connection.request("GET", "/api/v1/server").json()["you"]
    assert (you["name"], you["role"]) == (batch, "user")
    page.get_by_role("button", name="I have it").click()
    page.reload()
    expect(page.locator("main")).to_contain_text(batch)
    assert token not in page.content()
    page.get_by_role("button", name=f"Revoke the token of {batch}").click()
    agree(page, "Revoke")
    expect(page.get_by_role("button", name=f"Revoke the token of {batch}")).to_have_count(0)
    with Connection(lab.url, token=token) as connection:
        assert connection.request("GET", "/api/v1/server").status == 401


def test_a_backup_is_made(tab, lab):
    page = tab.visit("settings")
    expect(page.get_by_role("region", name="Health")).to_contain_text("ready")
    page.get_by_role("button", name="Make a backup now").click()
    said = page.get_by_role("region", name="Backup").locator("code")
    path = Path(said.inner_text())
    assert path.is_file() and path.read_bytes().startswith(b"SQLite format 3")


def test_the_event_log_tells_who_did_what(tab, lab, batch):
    lab.create({"command": "true", "batch": batch})
    page = tab.visit("settings?object=batch")
    events = page.get_by_role("table", name=re.compile("Events"))
    lab.api("POST", f"/batches/{batch}/stop", {"running": None})
    expect(events.get_by_role("link", name=batch, exact=True)).to_be_visible()
    expect(events).to_contain_text("stop batch")
    expect(events).not_to_contain_text("create task")


def test_a_user_is_not_offered_what_administrators_do(tabs, lab):
    tab = tabs(lab, signed_in=False)
    tab.sign_in(lab.api("POST", "/tokens", {"name": "ursula"})["token"])
    page = tab.visit("settings")
    expect(page.get_by_text("Tokens are made and revoked by administrators.")).to_be_visible()
    expect(page.get_by_role("button", name="Make a backup now")).to_be_disabled()
    expect(page.locator("header")).to_contain_text("ursula")
