"""The web UI in a real Chromium: a tab that is signed in, and remembers all that went wrong in it.

    def test_it(tab):
        page = tab.visit("tasks?state=failed")
        page.get_by_role("button", name="Relaunch").click()

A script error, a word of the console, a report of the content security policy, a request that failed or was refused fails the
test, unless it was said before (`tab.allow("...")`) that it may come.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from env import PATIENCE_SECONDS, Env
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

WORDS = (
    "--no-sandbox", "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 1000 * PATIENCE_SECONDS  # ms
LEFT = "net::ERR_ABORTED"  # the page was left, or took its question back
SCREEN, PHONE = {"width": 1280, "height": 900}, {"width": 320, "height": 640}
PATH = re.compile(r"^https?://[^/]+")
_WATCH = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile} ${event.sample}`));
window.sinceLoaded = Math.random();
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Where it is not installed its tests are skipped, or fail if they have to run."""
    path = shutil.which("chromium")
    if path is None:
        missing = pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip
        missing("chromium is not installed: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=WORDS, timeout=PATIENCE)
        yield browser
        browser.close()


class Tab:
    """A tab of its own profile on the UI of a server. `page` is Playwright's; `close` checks that all went well."""

    def __init__(self, browser: Browser, env: Env, signed_in: bool = True, dark: bool = False, size: dict = SCREEN):
        self.env, self.url = env, env.url
        self.troubles: list[str] = []
        self._allowed: list[re.Pattern] = []
        self.context = _context(browser, "dark" if dark else "light", size)
        self.page = self._open()
        if signed_in:
            self.sign_in(env.token)

    def sign_in(self, token: str) -> None:
        """The cookie, without the form."""
        answer = self.context.request.post(f"{self.url}/login", data={"token": token}, headers={"Origin": self.url})
        assert answer.ok, answer.text()

    def renew(self) -> None:
        """For the next test: an empty page, as wide as all, and nothing that was said or went wrong before."""
        self.page.goto("about:blank")
        self.page.set_viewport_size(SCREEN)
        self.page.emulate_media(color_scheme="light")
        self.troubles.clear()
        self._allowed.clear()

    def visit(self, path: str = "") -> Page:
        """A page of the UI, by its path below `/ui/`, loaded; its first heading is there."""
        self.page.goto(f"{self.url}/ui/{path}")
        expect(self.page.locator("h1").first).to_be_visible()
        return self.page

    def allow(self, pattern: str) -> None:
        """What contains this (a regular expression) is no trouble in this test."""
        self._allowed.append(re.compile(pattern))

    @property
    def was_loaded(self) -> float:
        """Another number after every load of a document."""
        return self.page.evaluate("window.sinceLoaded")

    @property
    def where(self) -> str:
        """The address, from `/ui/` on, with its query."""
        return PATH.sub("", self.page.url)

    def check(self) -> None:
        """Raises if anything went wrong so far."""
        wrong = [trouble for trouble in self.troubles if not any(pattern.search(trouble) for pattern in self._allowed)]
        assert not wrong, "in the browser:\n" + "\n".join(wrong)

    def close(self) -> None:
        self.context.close()
        self.check()

    def _open(self) -> Page:
        page = self.context.new_page()
        note = self.troubles.append
        page.on(
            "console", lambda message: message.type in ("error", "warning") and note(f"console: {message.text} {_place(message)}")
        )
        page.on("pageerror", lambda error: note(f"script: {error}\n{error.stack}"))
        page.on("dialog", lambda dialog: (note(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "requestfailed", lambda request: _failure(request) != LEFT and note(f"request: {request.url} {_failure(request)}")
        )
        page.on("response", lambda response: response.status >= 400 and note(f"answer: {response.status} {response.url}"))
        return page


def _context(browser: Browser, scheme: str, size: dict) -> BrowserContext:
    context = browser.new_context(
        color_scheme=scheme, viewport=size, reduced_motion="reduce", locale="en-GB", timezone_id="UTC", accept_downloads=True
    )
    context.set_default_timeout(PATIENCE)
    context.add_init_script(_WATCH)
    return context


def _failure(request) -> str:
    return request.failure or ""


def _place(message) -> str:
    return f"({message.location.get('url')}:{message.location.get('lineNumber')})"


def row(page: Page, name: object) -> Locator:
    """The row of a table that has a link of this name: an id, a batch, a worker."""
    return page.locator("tbody tr", has=page.get_by_role("link", name=str(name), exact=True))


@cache
def _axe() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def barriers(page: Page) -> list[str]:
    """What axe finds on the page as it is: a rule, and each place that breaks it. Of a long table it looks at the first rows."""
    page.evaluate(f"{_axe()};0")
    found = page.evaluate(
        "axe.run({include: document, exclude: ['tbody tr:nth-child(n+13)']}, {resultTypes: ['violations'], preload: false})"
        ".then((told) => told.violations)"
    )
    return [f"{rule['id']}: {rule['help']}: {node['html']:.200} {_seen(node)}" for rule in found for node in rule["nodes"]]


def _seen(node: dict) -> str:
    """The colours, where they are what is wrong."""
    data = [check["data"] for check in node["any"] if isinstance(check.get("data"), dict) and "contrastRatio" in check["data"]]
    return f"({data[0]['fgColor']} on {data[0]['bgColor']}: {data[0]['contrastRatio']})" if data else ""


def check_look(page: Page) -> None:
    """Everybody can use it, in light on a screen and in dark on a phone's, where it is not too wide."""
    page.emulate_media(color_scheme="light")
    assert barriers(page) == []
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    assert overflow(page) == []
    assert barriers(page) == []
    page.set_viewport_size(SCREEN)


def overflow(page: Page) -> list[str]:
    """What makes the page wider than its window; nothing where it cannot be scrolled sideways."""
    return page.evaluate(
        """() => {
          const root = document.documentElement, width = root.clientWidth;
          if (root.scrollWidth <= width) return [];
          const wide = [...document.body.querySelectorAll("*")].filter((it) => it.getBoundingClientRect().right > width + 0.5);
          return [`${root.scrollWidth} px in ${width} px`, ...wide.slice(-8).map((it) => it.cloneNode().outerHTML.slice(0, 160))];
        }"""
    )
