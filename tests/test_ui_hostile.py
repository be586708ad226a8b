"""Names, commands and outputs that want to be more than text, on every page of the web UI: no script of theirs runs."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from browser import Tab, overflow, row
from env import Env
from hands import Hands
from playwright.sync_api import Page, expect
from scitq.protocol import Report

RUN = "window.owned=1"
CORPUS = (
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"\"><svg onload={RUN}>",
    f"'\" onmouseover={RUN} autofocus onfocus={RUN} x='",
    f"</title></textarea></script><iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"javascript:{RUN}",
    f"{{{{constructor.constructor('{RUN}')()}}}}${{{RUN}}}",
    "<style>@import 'http://127.0.0.1:1/x';*{display:none}</style><base href=//127.0.0.1:1/><meta http-equiv=refresh content=0>",
    "__proto__", "constructor", "../../tasks/1?x=#y%2e%00", "%3Cscript%3E&lt;b&gt;&#x3c;",
    "𓀀\u202egnp.exe\u2066\u200f\ufeff é\u0301\u0301\u0301",
    "a" * 200,
)  # fmt: skip
SEEN = {ord(mark): f"\\u{{{ord(mark):x}}}" for mark in "\u202e\u2066\ufeff"}  # what turns or hides names is written out
OUTPUT = b"".join(text.encode() + b"\n" for text in CORPUS) + (
    b"\x1b[31mred\x1b[0m \x1b]8;;javascript:window.owned=1\x1b\\a link\x1b]8;;\x1b\\ \x1b]0;title\x07"
    b"\x1b[2J\x1b[1;1H\x1b[999999999C"
    b"\x1b[38;2;300;300;300mx\x1b[0m\x1b[38;5;<img src=x>m\x1b[\x00\x01\x7f\xff\xfe\xed\xa0\x80 end of it\n"
    + b"\r" * 1000
    + b"x" * 100_000
    + b"\n"
)


class Hostile:
    """A server where all that may be chosen was chosen by somebody who means harm."""

    def __init__(self, env: Env):
        self.env = env
        self.ids = []
        for number, text in enumerate(CORPUS):
            self.ids += env.create(self._spec(number, text, text))
        self.hands = Hands(env, "hands", CORPUS[1], 4, hostname=CORPUS[0])
        self._run(0, CORPUS[1])
        for number, text in enumerate(CORPUS):
            env.create({**self._spec(number, text, CORPUS[2]), "retry": 0})
        env.api("POST", "/tokens", {"name": CORPUS[1][:100]})

    @staticmethod
    def _spec(number: int, text: str, batch: str) -> dict:
        return {
            "command": f"{text}\n\u202e{text}", "name": f"{text}:{number}", "batch": batch, "env": {"X": text},
            "container": "<b>img</b>",
            "container_options": f"--name '{RUN}'", "output": f"file:///{quote(text)}",
            "input": [f"https://127.0.0.1:1/{quote(text)}"],
        }  # fmt: skip

    def _run(self, number: int, batch: str) -> None:
        """The first of a batch fails with hostile last words, on a worker that tells hostile things of itself."""
        env, hands = self.env, self.hands
        env.until(lambda: hands.sync() and hands.held)
        (execution,) = hands.held
        self.failed = hands.held[execution]
        stats = {"disks": {f"/{CORPUS[0]}": {"total": 100, "free": 1}}, "gpus": [{"index": 0, "name": CORPUS[1], "percent": 3}]}
        transfers = [{"what": CORPUS[0], "uri": f"javascript:{RUN}", "files": 1, "bytes": 3, "seconds": 0.1}]
        report = Report(
            execution, "failed", exit_code=1, reason=CORPUS[1], started_ago=3.0, ended_ago=1.0, stdout_size=len(OUTPUT),
            stderr_size=len(OUTPUT), transfers=transfers,
        )  # fmt: skip
        hands.sync(
            report, output=[(execution, stream, 0, OUTPUT) for stream in ("stdout", "stderr")], problem=CORPUS[0], stats=stats
        )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("hostile"))
    env.server()
    yield Hostile(env)
    env.close()


@pytest.fixture
def tab(kept_tabs, hostile):
    with kept_tabs(hostile.env) as kept:
        yield kept


def check_nothing_ran(tab: Tab) -> None:
    page = tab.page
    assert page.evaluate("window.owned") is None
    assert page.evaluate(
        "[...document.querySelectorAll('script, iframe, object, embed, base, meta[http-equiv], style')]"
        ".map((it) => it.src ?? it.outerHTML)"
    ) == [
        f"{tab.url}/ui/js/{name}.js" for name in ("theme", "main")
    ]  # fmt: skip
    assert page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((node) => [...node.attributes]).filter(({name, value}) => "
        "/^on/i.test(name) || (/^(href|src|action|formaction|srcdoc|xlink:href)$/i.test(name) && "
        "!/^(https?:|\\.{0,2}\\/|#)/i.test(value)))"
        ".map(({name, value}) => `${name}=${value}`)"
    ) == []  # fmt: skip
    tab.check()


def click_about(page: Page) -> None:
    """Whatever can be hovered and focused is."""
    for node in page.locator("tbody tr").all()[:8]:
        node.hover()
    for _ in range(10):
        page.keyboard.press("Tab")


def test_the_overview(tab, hostile):
    page = tab.visit()
    for text in CORPUS:
        expect(page.get_by_role("link", name=text.translate(SEEN), exact=True).first).to_be_visible()
    expect(page.get_by_role("table", name="Needs attention")).to_contain_text(CORPUS[1])
    click_about(page)
    check_nothing_ran(tab)


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_a_batch(tab, hostile, number):
    page = tab.visit(f"batches/{quote(CORPUS[number], safe='')}")
    expect(page.locator("h1")).to_have_text(CORPUS[number].translate(SEEN))
    expect(page.get_by_role("list", name="Tasks by state")).to_be_visible()
    check_nothing_ran(tab)


def test_failures_of_a_batch(tab, hostile):
    page = tab.visit(f"batches/{quote(CORPUS[1], safe='')}")
    expect(page.get_by_role("table", name="Failures")).to_contain_text("exit code 1")
    page.get_by_role("button", name="Delete…").click()
    expect(page.get_by_role("dialog")).to_contain_text(CORPUS[1])
    check_nothing_ran(tab)


def test_the_tasks(tab, hostile):
    page = tab.visit("tasks")
    expect(page.locator("tbody tr")).to_have_count(2 * len(CORPUS))
    for text in CORPUS:
        expect(page.locator("tbody tr", has_text=text.translate(SEEN)).first).to_be_visible()
    click_about(page)
    page.get_by_role("checkbox", name="Select all rows shown").check()
    page.get_by_role("button", name="Edit…").click()
    page.get_by_label("Search for").fill("a")
    page.get_by_label("Replace with").fill(f"<img src=x onerror={RUN}>")
    expect(page.get_by_role("dialog").locator(".diff").first).to_contain_text("onerror")
    check_nothing_ran(tab)


@pytest.mark.parametrize("query", ["name=", "batch=", "state=", "since=", "ids=", "worker="])
def test_a_filter_of_a_link_that_somebody_sent(tab, hostile, query):
    tab.allow("400")
    tab.page.goto(f"{tab.url}/ui/tasks?{query}x{quote(CORPUS[1])}&order={quote(CORPUS[0])}&attempt=<b>")
    expect(
        tab.page.get_by_text("No task passes the filter").or_(tab.page.get_by_role("alert").filter(visible=True)).first
    ).to_be_visible()
    check_nothing_ran(tab)


@pytest.mark.parametrize("number", [0, 1, 5, 12, 13])
def test_a_task(tab, hostile, number):
    page = tab.visit(f"tasks/{hostile.ids[number]}")
    expect(page.locator("h1")).to_contain_text(CORPUS[number].translate(SEEN))
    expect(page.get_by_label("Command", exact=True)).to_have_value(f"{CORPUS[number]}\n\u202e{CORPUS[number]}")
    expect(page.get_by_text("It holds characters that are not seen")).to_contain_text("\\u{202e}")
    expect(page.locator(".by-hand")).to_contain_text("docker")
    check_nothing_ran(tab)
    page.set_viewport_size({"width": 320, "height": 640})
    assert overflow(page) == []


def test_an_output(tab, hostile):
    page = tab.visit(f"tasks/{hostile.failed}")
    log = page.locator(".log-text")
    expect(log).to_contain_text("end of it")
    for text in CORPUS:
        if "\u202e" not in text:
            expect(log).to_contain_text(text)
    assert log.evaluate("node => [...node.querySelectorAll('*')].every((it) => ['DIV', 'SPAN'].includes(it.tagName))")
    assert not set("\x00\x01\x07\x1b\x7f") & set(log.evaluate("node => node.textContent"))
    page.get_by_label("Find in the output").fill("<script>")
    expect(page.locator(".log-find")).to_contain_text("2")
    expect(page.locator("main")).to_contain_text(f"javascript:{RUN}")  # the transfer, as text
    assert page.get_by_role("link", name=f"javascript:{RUN}").count() == 0
    check_nothing_ran(tab)


def test_the_workers(tab, hostile):
    page = tab.visit("workers")
    expect(row(page, "hands")).to_contain_text(CORPUS[0])
    click_about(page)
    page.get_by_role("combobox", name="batch of hands").select_option(CORPUS[2])
    check_nothing_ran(tab)
    page = tab.visit(f"workers/{hostile.hands.row['id']}")
    expect(page.get_by_role("region", name="GPUs")).to_contain_text(CORPUS[1])
    expect(page.get_by_role("region", name="Disks")).to_contain_text(CORPUS[0])
    check_nothing_ran(tab)


def test_settings_and_events(tab, hostile):
    page = tab.visit("settings")
    expect(page.get_by_role("table", name="Tokens")).to_contain_text(CORPUS[1])
    expect(page.get_by_role("table", name="Events")).to_contain_text("create")
    check_nothing_ran(tab)


def test_an_address_that_is_a_script(tab, hostile):
    tab.allow("404|400")
    encoded = base64.b64encode(RUN.encode()).decode()
    for path in (
        f"javascript:{RUN}",
        f"//127.0.0.1:1/{RUN}",
        f"tasks/<svg onload={RUN}>",
        f"data:text/html;base64,{encoded}",
    ):
        tab.page.goto(f"{tab.url}/ui/{path}")
        expect(tab.page.locator("h1").first).to_be_visible()
        assert tab.page.url.startswith(tab.url)
        check_nothing_ran(tab)
