"""The web UI's pages on a lab's week: axe finds nothing in light and dark, no screen is too narrow or too wide."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from browser import Tab, check_look, overflow
from env import Env
from lab import Week
from playwright.sync_api import Locator, Page, expect

COHORT, ASSEMBLY = quote("wgs/cohort-7/2026-47", safe=""), "metagenome-soil-assembly"
PAGES = {  # a page: its address, and what is there when it is whole
    "overview": ("", "table >> tr:has-text('metagenome-soil-assembly')"),
    "batch": (f"batches/{COHORT}", ".timeline rect"),
    "batch with failures": (f"batches/{ASSEMBLY}", "text=SIGKILL"),
    "tasks": (f"tasks?batch={ASSEMBLY}", "tbody tr"),
    "failed tasks": ("tasks?state=failed", "tbody tr"),
    "no tasks": ("tasks?name=nothing-has-this-name", "text=No task passes the filter"),
    "running task": ("tasks/{running}", ".log-text span"),
    "failed task": ("tasks/{failed}", ".log-text div"),
    "waiting task": ("tasks/{waiting}", ".sentence:has-text('waits')"),
    "workers": ("workers", "tbody tr:has-text('hemera')"),
    "worker": ("workers/{worker}", "text=GPUs"),
    "settings": ("settings", "table >> text=create"),
}


class Looks:
    """A lab's week, and the numbers that addresses need."""

    def __init__(self, env: Env):
        self.env, self.week = env, Week(env)
        states = {state: env.items("/tasks", batch=ASSEMBLY, state=state)[0]["id"] for state in ("failed", "waiting")}
        worker = next(row["id"] for row in env.items("/workers") if row["name"] == "gpu-a100")
        self.numbers = {**states, "running": self.week.running[0], "worker": worker}

    def visit(self, tab: Tab, name: str) -> Page:
        path, whole = PAGES[name]
        page = tab.visit(path.format(**self.numbers))
        expect(page.locator(whole).first).to_be_visible()
        return page


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("week"))
    env.server()
    made = Looks(env)
    yield made
    made.week.close()
    env.close()


@pytest.fixture
def tab(kept_tabs, looks):
    with kept_tabs(looks.env) as kept:
        yield kept


@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_use_it_on_every_screen(tab, looks, name):
    page = looks.visit(tab, name)
    check_look(page)
    page.set_viewport_size({"width": 768, "height": 900})
    assert overflow(page) == []
    page.set_viewport_size({"width": 3840, "height": 2160})
    assert overflow(page) == []


def test_the_row_that_keys_go_to_is_not_behind_what_stays_on_top(tab, looks):
    page = looks.visit(tab, "tasks")
    page.set_viewport_size({"width": 1280, "height": 420})
    for above, key in (("#header", "j"), (".bulk", "a")):
        page.keyboard.press(key)
        page.locator("tbody tr").last.focus()
        for _ in range(18):
            page.keyboard.press("k")
        cover, row = page.locator(above).bounding_box(), page.locator("tbody tr:focus").bounding_box()
        assert row["y"] >= cover["y"] + cover["height"], f"{above} covers it"


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def test_everybody_can_use_the_dialogs(tab, looks):
    page = looks.visit(tab, "failed tasks")
    page.locator("h1").click()
    page.keyboard.press("?")
    check_look(page)
    page.keyboard.press("Escape")
    page.get_by_role("checkbox", name="Select all rows shown").check()
    for name, whole in {"Edit…": "Search for", "Move…": "Move", "Delete": "gone for good"}.items():
        page.get_by_role("group", name="What is done to the selected tasks").get_by_role("button", name=name).click()
        expect(dialog(page).get_by_text(whole).first).to_be_visible()
        if name == "Edit…":
            page.get_by_label("Search for").fill("spades")
            page.get_by_label("Replace with").fill("SPAdes")
            page.get_by_label("Set another field").select_option(label="Retries")
            dialog(page).get_by_role("spinbutton", name="Retries").fill("2")
            expect(dialog(page).locator(".diff").first).to_be_visible()
        check_look(page)
        page.keyboard.press("Escape")
        expect(dialog(page)).to_have_count(0)


def test_everybody_can_sign_in(tabs, looks):
    tab = tabs(looks.env, signed_in=False)
    tab.allow("401")
    page = tab.visit()
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    check_look(page)


def test_a_page_has_one_heading_and_landmarks(tab, looks):
    for name in ("overview", "tasks", "settings"):
        page = looks.visit(tab, name)
        assert page.locator("h1").count() == 1
        assert [page.get_by_role(role).count() for role in ("banner", "main", "navigation")][:2] == [1, 1]
        assert page.title().endswith("scitq")
        expect(page.get_by_role("navigation", name="Pages").locator("[aria-current]")).to_have_count(1)


def test_the_eye_is_led_to_what_needs_attention(tab, looks):
    page = looks.visit(tab, "overview")
    attention = page.get_by_role("table", name="Needs attention")
    if page.get_by_role("button", name="Show more").first.is_visible():
        page.get_by_role("button", name="Show more").first.click()
    for words in ("old-xeon is silent", "dtn is unfit", "imputation-chr22", "exit code 3", "SIGKILL"):
        expect(attention.locator("tr", has_text=words).first).to_be_visible()
