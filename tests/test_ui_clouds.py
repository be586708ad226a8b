"""The web UI's pages of machines in a real browser: deployed, followed, destroyed, by jobs on this machine; budgets, recruiters,
notifiers.
"""

from __future__ import annotations

import contextlib
import re
import time

import onefile
import pytest
from browser import check_look, row
from env import Env
from hands import Hands
from machines import Site
from playwright.sync_api import Locator, Page, expect
from receivers import Receiver

HOSTILE = '<img src=x onerror="window.owned=1"> \u202e${7*7} javascript:alert(1)'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("clouds"))
    env.variables["SCITQ_ONE_FILE"] = str(onefile.make(env.directory / "scitq.pyz"))  # what workers are upgraded to
    env.variables |= {"SCITQ_WEBHOOK_HOST": "127.0.0.1", "SCITQ_SMTP": "127.0.0.1:9"}  # where nobody takes mail
    made = Site(env, reconcile="2s")
    made.there.mkdir()
    made.until_quiet()  # it has asked its providers for their flavors
    yield made
    made.clear()
    env.close()


@pytest.fixture
def tab(kept_tabs, site):
    with kept_tabs(site.env) as kept:
        yield kept


def agree(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=verb, exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def order(page: Page, **values: str) -> None:
    for label, value in values.items():
        page.get_by_role("dialog").get_by_label(label, exact=True).fill(value)


def until(site: Site, path: str, **wanted) -> dict:
    """A row of the API, once it has these values."""

    def look() -> dict | None:
        told = site.env.api("GET", path)
        return told if {key: told[key] for key in wanted} == wanted else None

    return site.env.until(look, what=f"{path} says {wanted}")


# --- from the order to the end ----------------------------------------------------------------------------------------


def test_a_worker_is_deployed_followed_canceled_and_tried_anew(tab, site, batch):
    tab.allow("400")  # of an order that cannot be
    page = tab.visit("workers")
    with site.holding(site.there / "lock"):
        page.get_by_role("button", name="Deploy…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Provider").select_option("there")
        order(page, Flavor="auto:cpu>=100000", Batch=batch, Name="gra", Concurrency="1")
        expect(dialog).to_contain_text("No known flavor passes")
        dialog.get_by_role("button", name="Deploy").click()
        expect(dialog.get_by_role("alert")).to_contain_text("auto:cpu>=100000")  # refused, and nothing typed is lost
        order(page, Flavor="auto:cpu>=1")
        expect(dialog.get_by_role("table").get_by_role("row")).to_have_count(2)
        price = f"€{site.env.items('/flavors', provider='there')[0]['price']:.2f}"
        expect(dialog.get_by_role("table")).to_contain_text(price)
        dialog.get_by_role("button", name="local").click()
        expect(dialog.get_by_label("Flavor")).to_have_value("local")
        check_look(page)
        agree(page, "Deploy")
        line = row(page, "gra")
        expect(line).to_contain_text("deploying")
        (machine,) = site.machines()
        assert (machine["provider"], machine["batch"], machine["worker"]) == ("there", batch, "gra")
        expect(line.get_by_role("progressbar")).to_be_visible()
        check_look(page)
        line.get_by_role("link", name=f"job {machine['job']}").click()
        expect(page.get_by_role("heading", name=f"Job {machine['job']}: deploy gra")).to_be_visible()
        expect(page.get_by_role("log")).to_contain_text(machine["name"])
        check_look(page)
        page.get_by_role("button", name="Cancel").click()
        agree(page, "Cancel the job")
        expect(page.locator(".page-head")).to_contain_text("canceled")
        until(site, f"/jobs/{machine['job']}", state="canceled")
    site.env.until(lambda: not site.machines(), what="nothing is left")
    page.get_by_role("button", name="Relaunch").click()
    expect(page.locator(".page-head")).to_contain_text("succeeded")
    (worker,) = site.until_online(1)
    assert worker["batch"] == batch
    expect(page.get_by_role("log")).to_contain_text("up")
    page.get_by_role("link", name="gra", exact=True).click()
    expect(page.locator(".facts-list")).to_contain_text("local of there in local")
    expect(page.locator(".facts-list")).to_contain_text(price)
    page.get_by_role("button", name="Delete…").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 machine is destroyed")
    agree(page, "Delete")
    site.env.until(lambda: not site.machines() and not site.running(), what="it is destroyed")
    expect(page.get_by_text("This worker does not exist any more")).to_be_visible()


def test_what_needs_attention_leads_to_jobs_and_machines(tab, site):
    (lost,) = site.deploy(name="lost")
    site.until_online(1)
    site.until_quiet()
    site.change(f"UPDATE machine SET state = 'gone', gone_at = 1 WHERE id = {lost['machine']}")  # an older database, say
    now = time.time()
    site.change(
        "INSERT INTO job "
        "(id, kind, state, provider, attempt, retry, progress, message, asked_by, created_at, started_at, finished_at) "
        f"VALUES (900, 'deploy', 'failed', 'there', 3, 2, 40, '{HOSTILE}', '{HOSTILE}', {now}, {now}, {now})"
    )
    site.change(f"INSERT INTO joblog (job_id, seq, at, line) VALUES (900, 1, {now}, '{HOSTILE}')")
    site.env.until(lambda: site.machines(unknown="true"), what="it is found that nobody asked for it")
    tab.allow("404")  # of the job that is forgotten, if it is asked for at that moment
    page = tab.visit()
    attention = page.get_by_role("table", name="Needs attention")
    attention.get_by_role("link", name="Job 900 failed").click()
    expect(page.get_by_role("log")).to_contain_text("<img src=x")
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    assert site.env.answer("GET", "/jobs/900").status == 404
    page.get_by_role("link", name="Overview", exact=True).click()
    attention.get_by_role("link", name="Unknown machine").click()
    line = page.locator("tr", has_text="unknown").filter(has_text=site.machines(unknown="true")[0]["name"])
    expect(line).to_be_visible()
    check_look(page)
    line.get_by_role("button", name="Destroy").click()
    agree(page, "Destroy")
    site.env.until(lambda: not site.machines() and not site.running(), what="it is destroyed")
    page.locator("h1").click()  # until then the row stays where it is
    expect(line).to_have_count(0)
    page.get_by_role("combobox", name="kind").select_option("destroy")
    expect(page.get_by_role("table", name=re.compile("Jobs")).locator("tbody")).not_to_contain_text("flavors")
    assert "kind=destroy" in page.url
    assert page.evaluate("window.owned") is None


def test_providers_are_asked_for_their_flavors(tab, site):
    site.change("DELETE FROM flavor WHERE provider = 'there'")
    page = tab.visit("jobs")
    page.get_by_role("button", name="Ask there for its flavors", exact=True).click()
    site.env.until(lambda: site.env.items("/flavors", provider="there"), what="it has told them")
    expect(page.get_by_role("table", name="Providers").get_by_role("row", name="there local 1")).to_be_visible()


def test_a_worker_of_another_version_is_upgraded(tab, site, batch):
    hands = Hands(site.env, "older", batch)
    hands.sync()
    page = tab.visit("workers?name=older")
    line = row(page, "older")
    expect(line).to_contain_text("1, not ")
    line.get_by_role("button", name="Upgrade").click()
    expect(line).to_contain_text("is being upgraded")
    until(site, f"/workers/{hands.row['id']}", upgrading=True)
    assert hands.sync().upgrade is not None
    expect(line.get_by_role("button", name="Upgrade")).to_have_count(0)


# --- of a batch -------------------------------------------------------------------------------------------------------


def test_the_budget_of_a_batch(tab, site, batch):
    site.env.create({"command": "true", "batch": batch})
    page = tab.visit(f"batches/{batch}")
    page.get_by_role("button", name="Budget…").click()
    order(page, Budget="12.5")
    agree(page, "Set")
    expect(page.get_by_role("region", name="Progress")).to_contain_text("0.00 of 12.50")
    assert until(site, f"/batches/{batch}", budget=12.5)
    page.get_by_role("button", name="Budget…").click()
    order(page, Budget="0")
    agree(page, "Set")
    until(site, f"/batches/{batch}", budget=0)
    page.get_by_role("link", name="Overview", exact=True).click()
    attention = page.get_by_role("table", name="Needs attention")
    expect(attention.locator("tr", has_text="The budget is spent")).to_contain_text(batch)
    attention.get_by_role("link", name="The budget is spent").click()
    page.get_by_role("button", name="Budget…").click()
    order(page, Budget="")
    agree(page, "Set")
    until(site, f"/batches/{batch}", budget=None)


def test_recruiters_are_made_changed_and_deleted(tab, site, batch):
    site.env.create({"command": "true", "batch": batch})
    site.env.api("POST", f"/batches/{batch}/stop", {"running": None})  # so that nobody is taken
    Hands(site.env, "plain", "elsewhere").sync()
    Hands(site.env, "big", "elsewhere", flavor="big", cpus=64).sync()
    tab.allow("400")  # of a flavor that nobody can read
    page = tab.visit(f"batches/{batch}")
    page.get_by_role("button", name="Add a recruiter").click()
    dialog = page.get_by_role("dialog")
    order(page, Flavor="auto:cpuu>=8", **{"Workers at most": "3"})
    dialog.get_by_role("button", name="Add").click()
    expect(dialog.get_by_role("alert")).to_contain_text("cpu")
    check_look(page)
    dialog.get_by_label("Provider").select_option("here")
    order(page, Flavor="auto:cpu>=1")
    expect(dialog.get_by_role("button", name="local")).to_be_visible()  # what would be deployed
    dialog.get_by_label("Provider").select_option("")
    order(page, Flavor="auto:cpu>=8")
    agree(page, "Add")
    (made,) = site.env.items("/recruiters", batch=batch)
    known = {
        "rank": 1,
        "flavor": "auto:cpu>=8",
        "provider": None,
        "maximum_workers": 3,
        "concurrency": None,
        "tasks_per_worker": 1,
    }
    assert {key: made[key] for key in known} == known
    table = page.get_by_role("table", name=f"Recruiters of {batch}")
    expect(table).to_contain_text("1 worker, 1 idle: big")
    table.get_by_role("button", name="Change recruiter 1").click()
    order(page, Flavor="", **{"Tasks a worker": "5", "Slots there": "2"})
    agree(page, "Change")
    expect(table).to_contain_text("a worker for 5 tasks, up to 3 workers")
    expect(table).to_contain_text("plain, big")
    changed = site.env.api("GET", f"/recruiters/{made['id']}")
    assert (changed["flavor"], changed["tasks_per_worker"], changed["concurrency"]) == (None, 5, 2)
    table.get_by_role("button", name="Delete recruiter 1").click()
    agree(page, "Delete")
    expect(page.get_by_text("A recruiter takes workers that idle elsewhere")).to_be_visible()
    assert site.env.items("/recruiters", batch=batch) == []


def test_notifiers_are_made_and_deleted(tab, site, batch):
    (task,) = site.env.create({"command": "true", "batch": batch})
    hands = Hands(site.env, batch, batch)
    site.env.until(lambda: hands.sync() and hands.held, what="the task is held")
    tab.allow("400")  # of an address that is none
    page = tab.visit(f"batches/{batch}")
    table = page.get_by_role("table", name=f"Notifiers of {batch}")

    def add(target: str) -> None:
        page.get_by_role("button", name="Add a notifier").click()
        order(page, **{"Mail address, or URL of a webhook": target})

    with contextlib.closing(Receiver()) as receiver:
        add("hooks.example.org/T0")
        page.get_by_role("dialog").get_by_role("button", name="Add").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("webhook")
        check_look(page)
        order(page, **{"Mail address, or URL of a webhook": receiver.url, "Tell when more tasks failed than": "2"})
        agree(page, "Add")
        expect(row_of(table, str(receiver.port))).to_contain_text("when it is done, when more than 2 tasks failed")
        assert "geheim" not in page.content()
        add("ann@example.org")
        agree(page, "Add")
        site.env.api(
            "POST", "/notifiers", {"batch": batch, "mail": "eve@example.org", "done": False, "failures": 0, "origin": HOSTILE}
        )
        expect(row_of(table, "eve@example.org")).to_contain_text("of <img src=x")
        expect(table.get_by_text("none yet")).to_have_count(3)
        hands.end(task)
        expect(row_of(table, str(receiver.port))).to_contain_text("done, sent")
        assert [body["event"] for body in receiver.bodies] == ["done"]
    expect(row_of(table, "ann@example.org")).to_contain_text(re.compile(r"done, on its way after \d+ attempt"))
    table.get_by_role("button", name="Delete notifier of ann@example.org").click()
    expect(page.get_by_role("dialog")).to_contain_text("ann@example.org is told nothing more")
    check_look(page)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert len(site.env.items("/notifiers", batch=batch)) == 3
    table.get_by_role("button", name="Delete notifier of ann@example.org").click()
    agree(page, "Delete")
    expect(row_of(table, "ann@example.org")).to_have_count(0)
    assert [row["kind"] for row in site.env.items("/notifiers", batch=batch)] == ["webhook", "mail"]
    assert page.evaluate("window.owned") is None


def row_of(table: Locator, words: str) -> Locator:
    return table.locator("tbody tr", has_text=words)
