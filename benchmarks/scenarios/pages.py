"""The web UI in a real browser, on much: first rows, what ten browsers cost the server, memory of a page, bytes of it all; and
the report of a batch as one page."""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import cpu_seconds, until
from peers.base import BARE_PYTHON, PYTHON
from results import OURS
from surroundings import ONE_FILE

from . import Bench, scenario

BATCHES = [f"cohort-{number:02}" for number in range(1, 21)]
TASKS = 100_000
ENDED = 60_000
CROWD = (("node-a", 100, 2), ("node-b", 100, 3))  # 200 workers, 500 slots
TASK_SECONDS = 40
BROWSERS = 10
CPU_SECONDS = 60.0
MEMORY_MINUTES = 10
PAGES = {  # a page: what its first rows are
    "overview": ("", "main tbody tr"),
    "batch": (f"batches/{BATCHES[0]}", "main .cards a"),
    "tasks": ("tasks", "main tbody tr"),
    "tasks, ended of a batch": (f"tasks?batch={BATCHES[3]}&state=succeeded", "main tbody tr"),
    "task": ("tasks/17", "main h1"),
    "workers": ("workers", "main tbody tr"),
    "worker": ("workers/25", "main h1"),
    "settings": ("settings", "main h2"),
}
BUSY_WORKERS = Path(__file__).resolve().parent.parent / "busy_workers.py"
CHROMIUM = (
    "--no-sandbox", "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
MEGABYTE = 1e6
REPORTED = 10_000  # attempts that ended


@scenario(on_request=True)
def ui(bench: Bench) -> None:
    """The web UI on 100,000 tasks in 20 batches, 200 workers, 500 running: first rows, ten browsers, memory over ten minutes."""
    with bench.running("scitq", workers=False) as systems:
        system = systems["scitq"]
        bench.results.add("ui", "all its files, gzipped", "kB", OURS, _sent_bytes(system) / 1000)
        _fill(system)
        with _at_work(system):
            bench.say("  a crowd at work")
            with _browser() as browser:
                _first_rows(bench, system, browser)
            _listeners(bench, system)
            with _browser() as browser:
                _memory(bench, system, browser)
    bench.results.at_most("ui", "all its files, gzipped", 100, "kB")
    for page in PAGES:
        bench.results.at_most("ui", f"{page}: first rows", 1, "s")
    bench.results.at_most("ui", "ten browsers more, share of a core", 5, "%")
    bench.results.at_most("ui", "memory of a page after ten minutes, against one", 1.1, "x")


@scenario
def report(bench: Bench) -> None:
    """scitq alone: `scitq manage batch report -o FILE.html` of a batch of which 10,000 tasks in 3 steps have ended."""
    with bench.running("scitq", workers=False) as systems:
        system, workers = systems["scitq"], 10
        steps = ("align", "count", "check")
        tasks = [{"command": "true", "batch": "cohort", "name": f"{steps[n % 3]}:S{n // 3:05}"} for n in range(REPORTED * 6 // 5)]
        system.create(tasks)
        process = _busy(system, "filler", workers, 400, 0, REPORTED // workers, "cohort")
        if process.stdout.readline() != "done\n":
            raise RuntimeError("the tasks were not brought to their ends")
        process.communicate()
        page = system.directory / "report.html"
        words = [BARE_PYTHON, str(ONE_FILE), "manage", "batch", "report", "cohort", "-o", str(page)]
        for _ in range(bench.rounds):
            start = time.perf_counter()
            subprocess.run(words, env={**os.environ, **system.variables}, capture_output=True, check=True)
            bench.results.add("report", "written", "s", OURS, time.perf_counter() - start)
        bench.results.add("report", "its size", "kB", OURS, page.stat().st_size / 1000)
    bench.results.at_most("report", "written", 10, "s")


# --- a lab at work ----------------------------------------------------------------------------------------------------


def _fill(system) -> None:
    """The tasks; most of them have ended, by workers that are gone."""
    per_batch = TASKS // len(BATCHES)
    for batch in BATCHES:
        steps = ("align", "sort", "call", "annotate")
        system.create([
            {"command": f"bwa mem -t 4 ref.fa S{number // 4:05}_1.fq.gz S{number // 4:05}_2.fq.gz", "batch": batch,
             "name": f"{steps[number % 4]}:S{number // 4:05}", "retry": number % 2}
            for number in range(per_batch)
        ])  # fmt: skip
    process = _busy(system, "filler", len(BATCHES), 400, 0, ENDED // len(BATCHES))
    if process.stdout.readline() != "done\n":
        raise RuntimeError("the tasks were not brought to their ends")
    process.communicate()
    for worker in list(system.client.pages("/workers")):
        system.client.send("DELETE", f"/workers/{worker['id']}")


def _busy(
    system, prefix: str, count: int, concurrency: int, seconds: float, ends: int, *batches: str
) -> subprocess.Popen:
    words = [PYTHON, str(BUSY_WORKERS), system.url, prefix, count, concurrency, seconds, ends, *(batches or BATCHES)]
    process = subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(system.token + "\n")
    process.stdin.flush()
    return process


@contextmanager
def _at_work(system) -> Iterator[None]:
    """500 tasks run on 200 workers; some twelve a second end."""
    crowds = [_busy(system, prefix, count, concurrency, TASK_SECONDS, 0) for prefix, count, concurrency in CROWD]
    try:
        for crowd in crowds:
            if crowd.stdout.readline() != "ready\n":
                raise RuntimeError("the workers did not come up")
        yield
    finally:
        for crowd in crowds:
            crowd.kill()
            crowd.communicate()


# --- the browser ------------------------------------------------------------------------------------------------------


@contextmanager
def _browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser
        browser.close()


def _tab(system, browser):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.request.post(f"{system.url}/login", data={"token": system.token}, headers={"Origin": system.url})
    return context.new_page()


def _first_rows(bench: Bench, system, browser) -> None:
    """From the address to the first rows on the screen, by the browser's own clock; a fresh document each time."""
    page = _tab(system, browser)
    page.add_init_script(
        """window.firstRows = (chosen) => new Promise((resolve) => {
             const look = () => document.querySelector(chosen) ? requestAnimationFrame(() => resolve(performance.now())) : 0;
             if (look() === 0) setInterval(look, 5);
           });"""
    )
    for _ in range(bench.rounds):
        for name, (path, chosen) in PAGES.items():
            page.goto(f"{system.url}/ui/{path}", wait_until="commit")
            bench.results.add(
                "ui", f"{name}: first rows", "s", OURS, page.evaluate("(chosen) => firstRows(chosen)", chosen) / 1000
            )


def _memory(bench: Bench, system, browser) -> None:
    """The heap and the nodes of the overview and of the tasks, both open, after one minute and after ten."""
    pages = [_tab(system, browser) for _ in range(2)]
    for page, path in zip(pages, ("", "tasks")):
        page.goto(f"{system.url}/ui/{path}")
    told = []
    for minute in range(1, MEMORY_MINUTES + 1):
        pages[0].wait_for_timeout(60_000)
        told.append([_held(page) for page in pages])
        bench.say(f"  minute {minute}: " + ", ".join(f"{heap / MEGABYTE:.1f} MB, {nodes} nodes" for heap, nodes in told[-1]))
    first, last = (sum(heap for heap, _ in told[place]) / MEGABYTE for place in (0, -1))
    bench.results.add("ui", "memory of two pages (overview, tasks) after a minute", "MB", OURS, first)
    bench.results.add("ui", "memory of two pages (overview, tasks) after ten minutes", "MB", OURS, last)
    bench.results.add("ui", "memory of a page after ten minutes, against one", "x", OURS, last / first)


def _held(page) -> tuple[float, int]:
    """The bytes of the heap after its garbage went, and the nodes of the document."""
    line = page.context.new_cdp_session(page)
    line.send("HeapProfiler.collectGarbage")
    heap = line.send("Runtime.getHeapUsage")["usedSize"]
    line.detach()
    return heap, page.evaluate("document.querySelectorAll('*').length")


# --- the server -------------------------------------------------------------------------------------------------------


def _listeners(bench: Bench, system) -> None:
    """What the server uses for the work alone, and with the event streams of ten browsers; in turns."""
    alone = together = 0.0
    for _ in range(2):
        alone += _server_share(system) / 2
        with _streams(system) as heard:
            together += _server_share(system) / 2
        bench.say(f"  {sum(heard)} bytes came over {BROWSERS} streams")
    bench.results.add("ui", "server at work, share of a core", "%", OURS, 100 * alone)
    bench.results.add("ui", "server at work with ten browsers, share of a core", "%", OURS, 100 * together)
    bench.results.add("ui", "ten browsers more, share of a core", "%", OURS, 100 * (together - alone))


def _server_share(system) -> float:
    pids = system.pids()
    before, start = cpu_seconds(pids), time.perf_counter()
    time.sleep(CPU_SECONDS)
    return (cpu_seconds(pids) - before) / (time.perf_counter() - start)


@contextmanager
def _streams(system) -> Iterator[list[int]]:
    """Ten event streams are read, as browsers do; how many bytes came over each."""
    heard, over = [0] * BROWSERS, threading.Event()

    def read(place: int) -> None:
        headers = {"Authorization": f"Bearer {system.token}", "Accept": "text/event-stream"}
        while not over.is_set():
            with urllib.request.urlopen(
                urllib.request.Request(f"{system.url}/api/v1/stream", headers=headers), timeout=60
            ) as stream:
                while not over.is_set() and (piece := stream.read1(65536)):
                    heard[place] += len(piece)
            over.wait(random.uniform(0.5, 1.5))

    threads = [threading.Thread(target=read, args=(place,), daemon=True) for place in range(BROWSERS)]
    for thread in threads:
        thread.start()
    until(lambda: all(heard), "every stream brought its snapshot", 60)
    yield heard
    over.set()
    for thread in threads:
        thread.join()


def _sent_bytes(system) -> int:
    """What a browser gets of all files together."""
    page = _sent(f"{system.url}/ui/")
    paths = re.findall(r'(?:src|href)="\./([^"]+)"', gzip.decompress(page).decode())
    return len(page) + sum(len(_sent(f"{system.url}/ui/{path}")) for path in paths)


def _sent(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})) as answer:
        return answer.read()
