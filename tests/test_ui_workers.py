"""The web UI's pages of workers in a real browser: what they show and do is what the API tells."""

from __future__ import annotations

import re

import pytest
from browser import row
from hands import Hands
from playwright.sync_api import Page, expect
from scitq.protocol import Report

GB = 10**9


@pytest.fixture
def hands(lab, batch):
    """A worker by its requests alone, of the test's own batch, called `node-<test>`."""
    lab.create({"command": "true", "batch": f"{batch} other"})
    return Hands(lab, f"node-{batch}", batch, 4, prefetch=1, cpus=8, memory_bytes=64 * GB, hostname="node.example")


def worker(lab, hands: Hands) -> dict:
    return lab.api("GET", f"/workers/{hands.row['id']}")


def toasts_stay(tab) -> None:
    """So that they are still there when a busy machine comes to them."""
    tab.context.add_init_script(
        "const plain = setTimeout; window.setTimeout = (fn, ms, ...more) => plain(fn, ms === 6000 ? 120_000 : ms, ...more);"
    )


def agree(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=re.compile(f"^{verb}")).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_list_shows_what_the_api_says(tab, lab, batch, hands):
    ids = lab.create(*({"command": "sleep 1", "name": f"align:{n}", "batch": batch} for n in range(3)))
    lab.until(lambda: hands.sync() and len(hands.held) == 3)
    hands.sync(*(Report(execution, "running", started_ago=1.0) for execution in list(hands.held)[:2]))
    page = tab.visit(f"workers?batch={batch}")
    line = row(page, hands.row["name"])
    expect(line).to_contain_text("online")
    expect(line).to_contain_text("node.example")
    expect(line.get_by_role("img", name="2 of 4 slots run, 1 more held")).to_be_visible()
    expect(line.get_by_role("spinbutton", name="concurrency")).to_have_value("4")
    expect(line.get_by_role("spinbutton", name="prefetch")).to_have_value("1")
    expect(line.get_by_role("link", name=f"{ids[0]} align:0")).to_be_visible()
    hands.sync(problem="the disk of the scratch directory /scratch is full: make room there")
    expect(line).to_contain_text("unfit")
    expect(line).to_contain_text("make room there")
    page.get_by_label("State").select_option("online")
    expect(page.get_by_text("No worker passes this filter.")).to_be_visible()
    assert "state=online" in page.url


def test_slots_are_given_and_taken_at_once(tab, lab, batch, hands):
    page = tab.visit(f"workers?batch={batch}")
    line = row(page, hands.row["name"])
    more = line.get_by_role("button", name=re.compile("concurrency.*one more"))
    for _ in range(3):
        more.click()
    expect(line.get_by_role("spinbutton", name="concurrency")).to_have_value("7")
    lab.until(lambda: worker(lab, hands)["concurrency"] == 7)
    line.get_by_role("button", name=re.compile("concurrency.*one less")).click()
    line.get_by_role("spinbutton", name="prefetch").fill("12")
    line.get_by_role("spinbutton", name="prefetch").press("Enter")
    lab.until(lambda: (worker(lab, hands)["concurrency"], worker(lab, hands)["prefetch"]) == (6, 12))
    expect(line.get_by_role("img", name="0 of 6 slots run")).to_be_visible()
    assert (hands.sync().concurrency, hands.sync().prefetch) == (6, 12)


def test_a_worker_works_for_another_batch_and_back(own_tab, lab, batch, hands):
    toasts_stay(own_tab)
    page = own_tab.visit("workers")
    line = row(page, hands.row["name"])
    line.get_by_role("combobox", name="batch").select_option(f"{batch} other")
    lab.until(lambda: worker(lab, hands)["batch"] == f"{batch} other")
    page.get_by_role("button", name="Undo").click()
    lab.until(lambda: worker(lab, hands)["batch"] == batch)


def test_a_worker_is_drained_and_deleted(tab, lab, batch, hands):
    (task,) = lab.create({"command": "sleep 1", "batch": batch})
    lab.until(lambda: hands.sync() and hands.held)
    hands.sync(*(Report(execution, "running", started_ago=1.0) for execution in hands.held))
    page = tab.visit(f"workers?batch={batch}")
    line = row(page, hands.row["name"])
    expect(line.get_by_role("img", name="1 of 4 slots runs")).to_be_visible()
    line.get_by_role("button", name=re.compile("nothing more come")).click()
    expect(line).to_contain_text("draining")
    lab.until(lambda: worker(lab, hands)["draining"])
    line.get_by_role("button", name=re.compile("^Delete")).click()
    expect(page.get_by_role("dialog")).to_contain_text("1 task running there is killed and goes back to the queue.")
    agree(page, "Delete")
    page.locator("h1").click()  # until then the row stays where it is
    expect(line).to_have_count(0)
    assert lab.answer("GET", f"/workers/{hands.row['id']}").status == 404
    assert lab.state(task) == "pending"


def test_many_workers_are_changed_together(own_tab, lab, batch, hands):
    toasts_stay(own_tab)
    other = Hands(lab, f"node2-{batch}", batch, 1)
    page = own_tab.visit(f"workers?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("checkbox", name="Select all rows shown").check()
    bulk = page.get_by_role("region", name="Selected workers")
    bulk.get_by_role("button", name="Concurrency…").click()
    page.get_by_role("dialog").get_by_label("Concurrency").fill("9")
    agree(page, "Set")
    lab.until(lambda: [worker(lab, one)["concurrency"] for one in (hands, other)] == [9, 9])
    page.get_by_role("button", name="Undo").click()
    lab.until(lambda: [worker(lab, one)["concurrency"] for one in (hands, other)] == [4, 1])
    bulk.get_by_role("button", name="Drain", exact=True).click()
    lab.until(lambda: all(worker(lab, one)["draining"] for one in (hands, other)))
    bulk.get_by_role("button", name="Batch…").click()
    page.get_by_role("dialog").get_by_label("Batch").fill(f"{batch} new")
    agree(page, "Move")
    lab.until(lambda: all(worker(lab, one)["batch"] == f"{batch} new" for one in (hands, other)))


def test_a_worker_tells_all_of_itself(tab, lab, batch, hands):
    (task,) = lab.create({"command": "sleep 1", "name": "align:1", "batch": batch})
    lab.until(lambda: hands.sync() and hands.held)
    (execution,) = hands.held
    stats = {
        "load": [3.5, 3, 2], "cpus": 8, "cpu_percent": 44.0, "memory": {"total": 64 * GB, "available": 16 * GB},
        "disks": {"/": {"total": 100 * GB, "free": 2 * GB}}, "network": {"received_per_second": 10**6, "sent_per_second": 10**3},
        "gpus": [{"index": 0, "name": "A100", "percent": 91, "memory_used": GB, "memory_total": 80 * GB}],
    }  # fmt: skip
    hands.sync(Report(execution, "running", started_ago=5.0), stats=stats)
    page = tab.visit(f"workers/{hands.row['id']}")
    expect(page.get_by_role("heading", name=hands.row["name"])).to_be_visible()
    expect(page.get_by_role("region", name="The last hour")).to_contain_text("75 %")
    expect(page.get_by_role("region", name="Disks")).to_contain_text("2 GB free of 100 GB")
    expect(page.get_by_role("region", name="GPUs")).to_contain_text("91 %")
    expect(page.get_by_role("region", name="Runs now").get_by_role("link", name=f"{task} align:1")).to_be_visible()
    attempts = page.get_by_role("region", name=re.compile("Attempts"))
    expect(attempts).to_contain_text("running")
    hands.end(task, "failed", 9)
    expect(attempts).to_contain_text("exit code 9")
    page.get_by_role("button", name=re.compile("concurrency.*one more")).click()
    lab.until(lambda: worker(lab, hands)["concurrency"] == 5)
    page.get_by_role("button", name="Drain", exact=True).click()
    expect(page.get_by_role("button", name="Undrain")).to_be_visible()
    lab.until(lambda: worker(lab, hands)["draining"])


def test_a_worker_is_renamed(tab, lab, batch, hands):
    page = tab.visit(f"workers/{hands.row['id']}")
    page.get_by_role("button", name="Rename…").click()
    page.get_by_role("dialog").get_by_label("Name").fill("quite-another")
    agree(page, "Rename")
    expect(page.get_by_role("heading", name="quite-another")).to_be_visible()
    lab.until(lambda: worker(lab, hands)["name"] == "quite-another")


def test_what_the_server_refuses_is_told_and_taken_back(tab, lab, batch, hands):
    tab.allow("409")
    other = Hands(lab, f"node2-{batch}", batch, 1)
    page = tab.visit(f"workers/{hands.row['id']}")
    page.get_by_role("button", name="Rename…").click()
    page.get_by_role("dialog").get_by_label("Name").fill(other.row["name"])
    agree(page, "Rename")
    expect(page.get_by_role("alert")).to_contain_text(f"worker {other.row['id']} has this name")
    expect(page.get_by_role("heading", name=hands.row["name"])).to_be_visible()


def test_keys_change_the_slots(tab, lab, batch, hands):
    page = tab.visit(f"workers?batch={batch}")
    expect(row(page, hands.row["name"])).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("+")
    page.keyboard.press("+")
    lab.until(lambda: worker(lab, hands)["concurrency"] == 6)
    page.keyboard.press("d")
    lab.until(lambda: worker(lab, hands)["draining"])


def test_the_line_that_adds_a_worker_is_told(tab, lab):
    page = tab.visit("workers")
    page.get_by_text("Add a worker").click()
    page.get_by_label("Batch", exact=True).last.fill("it's mine")
    line = page.get_by_role("region", name="start a worker on the machine of the server")
    expect(line).to_have_text(f"scitq worker {lab.url} --batch 'it'\\''s mine'")
