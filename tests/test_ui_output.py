"""What the web UI makes of bytes: a terminal's lines, blocks of a stream however it is cut, and the differences of two texts."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from browser import Tab
from hands import Hands

from scitq import ui

FOLDER = Path(ui.__file__).parent / "js"
RED, BOLD = "ansi-red", "ansi-bold"


@pytest.fixture(scope="module")
def run(chromium, lab):
    """Runs a function of a module of the UI in the browser; the module comes as its first argument.

    Pages get all modules as one script.
    """
    tab = Tab(chromium, lab)
    tab.context.route("**/ui/js/*.js", lambda route: route.fulfill(path=FOLDER / route.request.url.rpartition("/")[2]))
    page = tab.visit()

    def run(module: str, function: str, *values):
        return page.evaluate(
            f"async ([url, ...values]) => ({function})(await import(url), ...values)", [f"{tab.url}/ui/js/{module}", *values]
        )

    yield run
    tab.close()


def plain(*lines: str) -> list:
    return [[{"text": line, "style": ""}] if line else [] for line in lines]


TERMINAL = {
    "a\nb\r\n": plain("a", "b", ""),
    "10 %\r20 %\r100 %": plain("100 %"),
    "100 %\r7": plain("700 %"),
    "all of it\r\x1b[Knew": plain("new"),
    "abc\b\bX": plain("aXc"),
    "\x1b[3Gx": plain("  x"),
    "\x1b]0;a title\x07text\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\": plain("textlink"),
    "\x1b[2J\x1b[5;5Hhere\x1b[?25l": plain("here"),
    "\x1b[31mred\x1b[0m not": [[{"text": "red", "style": RED}, {"text": " not", "style": ""}]],
    "\x1b[31mover\nlines\x1b[m": [[{"text": "over", "style": RED}], [{"text": "lines", "style": RED}]],
    "\x1b[1;31mb\x1b[22mr": [[{"text": "b", "style": f"{RED} {BOLD}"}, {"text": "r", "style": RED}]],
    "\x1b[38;5;196mX\x1b[38;2;0;0;255mY": [
        [{"text": "X", "style": "ansi-bright-red"}, {"text": "Y", "style": "ansi-bright-blue"}]
    ],
    "\x1b[41;7mx": [[{"text": "x", "style": "ansi-inverse"}]],
    "a\0b": [[{"text": "a", "style": ""}, {"text": "␀", "style": "ansi-control"}, {"text": "b", "style": ""}]],
    "<script>alert(1)</script>": plain("<script>alert(1)</script>"),
    "\x1b[": plain(""),
}


def test_lines_are_those_of_a_terminal(run):
    texts = list(TERMINAL)
    made = run("ansi.js", "({ Terminal }, texts) => texts.map((text) => new Terminal().lines(text))", texts)
    for text, lines in zip(texts, made):
        assert lines == TERMINAL[text], repr(text)


HOSTILE = {  # as the browser makes them
    "one line of 10 MB": "'x'.repeat(10_000_000)",
    "a progress bar that never ends": "Array.from({ length: 100_000 }, (_, number) => `\\r${number} %`).join('')",
    "openings that never close": "'\\x1b['.repeat(300_000) + '\\x1b]'.repeat(300_000)",
    "a colour for every character, overwritten": "('\\x1b[31ma\\x1b[32mb'.repeat(10_000) + '\\r').repeat(3) "
    "+ '\\x1b[33mc\\b'.repeat(30_000)",
    "far to the right, again and again": "'\\x1b[99999Cx\\r'.repeat(20_000)",
}
MEASURE = """({ Terminal }) => [%s].map((text) => {
  const began = performance.now();
  const lines = new Terminal().lines(text);
  const longest = Math.max(...lines.map((line) => line.reduce((sum, run) => sum + run.text.length, 0)));
  return [lines.length, longest, (performance.now() - began) / 1000];
})"""


def test_no_output_keeps_the_page_busy(run):
    found = run("ansi.js", MEASURE % ", ".join(HOSTILE.values()))
    for what, (count, longest, seconds) in zip(HOSTILE, found):
        assert count < 1000 and longest <= 40_000, what
        assert seconds < 30, what  # less than one on a quiet machine; an hour if it grew with the square


FEED = """({ Feed }, bytes, cuts) => {
  const feed = new Feed(1000);
  const all = new Uint8Array(bytes);
  const blocks = cuts.flatMap((cut, index) => feed.take(all.subarray(cuts[index - 1] ?? 0, cut)));
  const tail = feed.unfinished();
  blocks.push(...feed.rest());
  const text = (lines) => lines.map((line) => line.map((run) => run.text).join("")).join("\\n");
  return [blocks.map(({ lines }) => text(lines)).join("\\n"), blocks.map(({ from, to }) => [from, to]), text(tail), feed.next];
}"""


def test_a_stream_reads_the_same_however_it_is_cut(run):
    text = "".join(f"\x1b[3{number % 8}mline {number} é €uro 🧬\x1b[0m\n" for number in range(1000)) + "the last, unfinished €"
    data = text.encode()
    rng = random.Random(4)
    expected = "\n".join(f"line {number} é €uro 🧬" for number in range(1000)) + "\nthe last, unfinished €"
    for pieces in (1, 7, 400):
        cuts = sorted({rng.randrange(len(data)) for _ in range(pieces)} | {len(data)})
        shown, blocks, tail, following = run("logfeed.js", FEED, list(data), cuts)
        assert shown == expected
        assert tail == "the last, unfinished €"
        assert [blocks[0][0], blocks[-1][1], following] == [1000, 1000 + len(data), 1000 + len(data)]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(blocks)), "no byte is shown twice or left out"


def test_bytes_that_are_no_text_are_shown_as_such(run):
    data = b"caf\xe9 \xff\xfe\n" + "half of a €".encode()[:-1]
    shown, _, tail, _ = run("logfeed.js", FEED, list(data), [len(data)])
    assert shown == "caf\ufffd \ufffd\ufffd\nhalf of a \ufffd"
    assert tail == "half of a ", "the rest of the character may come yet"


def test_a_long_line_comes_in_parts_and_an_overwritten_one_once(run):
    line = list(b"x" * 200_000)
    _, blocks, tail, _ = run("logfeed.js", FEED, line, [len(line)])
    assert len(blocks) > 2 and len(tail) < 70_000
    bar = list(b"".join(b"\r%d %%" % number for number in range(30_000)))
    shown, _, tail, _ = run("logfeed.js", FEED, bar, [len(bar)])
    assert tail == "29999 %" and len(shown) < 100


def test_differences_lead_from_one_text_to_the_other(run):
    rng = random.Random(7)
    pairs = [[rng.choices("abcd", k=rng.randrange(14)) for _ in range(2)] for _ in range(500)]
    found = run("diff.js", "({ differences }, pairs) => pairs.map(([before, after]) => differences(before, after))", pairs)
    for (before, after), pieces in zip(pairs, found):
        assert [item for piece in pieces if piece["kind"] != "new" for item in piece["items"]] == before
        assert [item for piece in pieces if piece["kind"] != "gone" for item in piece["items"]] == after
    words = "({ differences }) => differences('bwa mem -t 4 ref.fa'.split(' '), 'bwa mem -t 16 ref.fa'.split(' '))"
    assert [(piece["kind"], piece["items"]) for piece in run("diff.js", words)] == [
        ("same", ["bwa", "mem", "-t"]), ("gone", ["4"]), ("new", ["16"]), ("same", ["ref.fa"]),
    ]  # fmt: skip


def test_what_cannot_be_seen_is_told(run):
    told = run(
        "hidden.js",
        "({ named, visible }) => [named('invoice\\u202egpj.exe'), visible('rm\\u00a0-r\\u200b x\\n'), named('سلام é')]",
    )
    assert told == ["invoice\\u{202e}gpj.exe", "rm\\u{a0}-r\\u{200b} x\n", "سلام é"]


# --- in the page ------------------------------------------------------------------------------------------------------


def test_earlier_output_is_loaded(tab, lab):
    """15 MB, of which the page holds the end, and parts before it as they are asked for."""
    (task,) = lab.create({"command": "seq 2000000", "batch": "Default"})
    lab.wait_state(task, "succeeded")
    page = tab.visit(f"tasks/{task}")
    text = page.locator(".log-text")
    earlier = page.get_by_role("button", name="Load earlier output")
    start = "node => node.textContent.slice(0, 20)"
    shown = "node => [...node.children].map((block) => block.textContent).join('\\n')"
    page.get_by_text("The end: 15 MB in all.").wait_for()
    assert text.evaluate(shown).endswith("1999999\n2000000")
    later = page.get_by_role("button", name="Later output is not loaded")
    while later.is_hidden():  # there is a limit to what a page holds
        first = text.evaluate(start)
        earlier.click()
        lab.until(lambda was=first: text.evaluate(start) != was)
        numbers = [int(line) for line in text.evaluate(shown).split("\n")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "nothing is missing in between"
    later.click()
    page.get_by_text("The end: 15 MB in all.").wait_for()
    assert text.evaluate(shown).endswith("1999999\n2000000")


def test_hostile_output_is_text(tab, lab, batch):
    hands = Hands(lab, batch[-90:], batch)
    name = "<img src=x onerror=alert(1)>"
    (task,) = lab.create(
        {"command": "<script>alert(2)</script>", "name": name, "batch": batch, "input": ["javascript:alert(3)//x"]}
    )
    lab.until(lambda: hands.sync() and hands.held)
    output = b"\x1b]0;<script>alert(4)</script>\x07<script>alert(5)</script>\x1b[31m<img src=x onerror=alert(6)>\n"
    hands.end(task, "failed", 1, output)
    page = tab.visit(f"tasks/{task}")
    log = page.locator(".log-text")
    log.get_by_text("<script>alert(5)</script>").wait_for()
    assert "<img src=x onerror=alert(6)>" in log.text_content()
    assert page.locator("main script, main img, a[href^=javascript]").count() == 0
