"""The report of a batch as one page: what it tells is true, nothing in it runs or is fetched, and hostile texts are text."""

from __future__ import annotations

import random
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hands import Hands
from scitq.htmlreport.charts import round_steps, time_steps
from scitq.htmlreport.facts import Attempt, how_it_ended, occupancy
from scitq.htmlreport.markup import share, text
from scitq.htmlreport.page import clock
from scitq.protocol import Report

NAME = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
HOSTILE = f"{NAME}\x1b[31m\u202e"
NEVER = {
    "script",
    "iframe",
    "object",
    "embed",
    "link",
    "base",
    "form",
    "img",
    "image",
    "a",
    "use",
    "foreignobject",
    "animate",
    "set",
}
POINTING = {"src", "href", "xlink:href", "action", "srcset", "data", "background", "poster", "formaction"}


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0, "0s"),
        (0.1, "0.1s"),
        (1.23456, "1.23s"),
        (90, "1m30s"),
        (119.7, "2m"),
        (7199, "2h"),
        (129_600, "1d12h"),
        (172_799, "2d"),
    ],
)
def test_lengths_of_time_have_no_sixty_seconds(seconds, words):
    assert clock(seconds) == words


class Read(HTMLParser):
    """What a page holds: its tags, its text, and whether any of it points elsewhere or could run."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.words, self.bad, self.open = set(), [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open += [] if tag in ("meta", "rect", "line", "path") else [tag]
        self.bad += [tag] if tag in NEVER else []
        self.bad += [name for name, _ in attributes if name.startswith("on") or name in POINTING]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


def attempt(start, end, **more) -> Attempt:
    return replace(Attempt(1, 1, "n", "", "w", 1, "succeeded", "succeeded", start, end, None, None), **more)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_what_ran_over_time_adds_up_to_what_all_took(seed):
    chance = random.Random(seed)
    found = []
    for _ in range(50):
        start = chance.uniform(0, 90)
        found.append(attempt(start, chance.choice([start, start + chance.expovariate(0.1), None])))
    now = 100.0
    span = (0.0, max([now, *(one.end or now for one in found)]))
    bins = chance.choice([1, 7, 240])
    values = occupancy(found, span, now, bins)
    taken = sum((now if one.end is None else one.end) - one.start for one in found)
    assert sum(values) * span[1] / bins == pytest.approx(taken) and min(values) >= -1e-9


def test_scales_are_round_and_long_enough():
    for most in (1e-5, 0.3, 1, 7, 20, 99, 1e9, 3.2e11):
        steps = round_steps(most, 5)
        assert steps[-1] >= most and 2 <= len(steps) <= 7
        assert 1 <= len(time_steps(most)) <= 9
    assert time_steps(7300)[:3] == [0, 1800, 3600] and [share(0, 0), share(1, 900), share(899, 900), share(9, 9)] == [
        "0 %", "<1 %", "99 %", "100 %",
    ]  # fmt: skip


def test_how_attempts_end_in_words():
    row = {"state": "failed", "exit_code": None, "signal": None}
    assert [how_it_ended(row | more) for more in ({}, {"exit_code": 3}, {"signal": 9}, {"state": "lost"})] == [
        "failed before its command ran", "exit code 3", "signal 9", "lost",
    ]  # fmt: skip
    assert "<" not in text(HOSTILE) and "\\x1b" in text(HOSTILE) and len(text("x" * 9999)) < 500


# --- from outside -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A batch of which everything is hostile, and its page."""
    from env import Env

    env = Env(tmp_path_factory.mktemp("told"))
    env.server()
    batch = f"b/{NAME}"
    hands = Hands(env, "w", batch, concurrency=6, cpus=12, memory_bytes=64 * 10**9)
    specs = [
        {"command": "true", "batch": batch, "name": f"{NAME}{step}:{n}", "retry": int(n == 0)} for step in "ab" for n in range(3)
    ]
    ids = env.create(*specs)
    hands.sync()
    for number, task in enumerate(ids):
        (execution,) = [e for e, t in hands.held.items() if t == task]
        failed = number in (0, 4)
        moved = [{"what": "input", "uri": f"https://me:geheim@h/{NAME}", "files": 1, "bytes": 10**9, "seconds": 5.0 + number}]
        hands.sync(
            Report(execution,
            "failed" if failed else "succeeded", exit_code=int(failed), started_ago=100.0 - number, ended_ago=10.0,
                   cpu_seconds=180.0, peak_memory_bytes=(number + 1) * 10**9, stdout_size=0,
                   stderr_size=len(HOSTILE), transfers=moved),
            output=[(execution, "stderr", 0, HOSTILE.encode())],
        )  # fmt: skip
    done = env.cli("manage", "batch", "report", batch, "-o", "told.html", code=0)
    assert done.stdout == "told.html\n"
    page = (env.directory / "told.html").read_text()
    yield env, batch, page
    env.close()


def test_hostile_texts_are_text_and_nothing_is_fetched_or_run(told):
    _, _, page = told
    read = Read(page)
    assert read.bad == [] and read.open == [] and "svg" in read.tags
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page and "http-equiv" in page
    assert "<script>alert(1)</script>" in read.text and "\x1b" not in page and "\u202e" not in page
    assert "geheim" not in page, "passwords in URIs are not shown"


def test_the_page_tells_what_happened(told):
    _, _, page = told
    shown = Read(page).text
    for words in (
        "4 succeeded", "1 failed", "1 task failed", "exit code 1", "Slowest transfers", "6 GB", "133 MB/s", "processors a slot",
        "10.7 GB", "attempts 7",
        "Steps", "Timeline", "Memory", "Processors",
    ):  # fmt: skip
        assert words in shown, words


def test_a_browser_shows_it_and_asks_for_nothing(told, chromium):
    env, _, _ = told
    asked, said = [], []
    page = chromium.new_context(color_scheme="dark").new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    url = f"file://{env.directory}/told.html"
    page.goto(url)
    assert page.title().startswith("Batch b/<script>") and asked == [url] and said == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.close()


def test_a_batch_without_anything_and_paths_that_cannot_be(told):
    env, batch, _ = told
    env.api("POST", "/recruiters", {"batch": "empty"})
    env.cli("manage", "batch", "report", "empty", "-o", "empty.html", code=0)
    assert Read((env.directory / "empty.html").read_text()).bad == []
    assert "cannot be written" in env.cli("manage", "batch", "report", "empty", "-o", "no/such/folder.html", code=2).stderr
    assert "report of one batch" in env.cli("manage", "batch", "report", "empty", batch, "-o", "both.html", code=2).stderr
    assert "unknown format" in env.cli("manage", "batch", "report", "empty", "-o", "report.pdf", code=2).stderr
    assert sorted(path.name for path in env.directory.glob("*.html*")) == ["empty.html", "told.html"]
