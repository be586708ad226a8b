"""Many: tasks submitted at once, tasks of a batch file, tasks in the queue, rows in a list."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from measure import median
from peers.base import BARE_PYTHON
from results import OURS
from surroundings import ONE_FILE

from . import Bench, scenario

MANY = 100_000
PEERS_MANY = 5_000
FEW, QUEUED = 1_000, 10_000
LOOKS = 20
PAGE = 100
FILE_ROWS = 3_334
FILE = """
each: samples.csv
defaults: {shell: true, container: 'debian:12', retry: 2}
steps:
- {step: align, input: '{reads}', output: 's3://lab/align/{sample}/', command: 'align {sample} {reads:stem:q}'}
- {step: count, input: '{align.output}', output: 's3://lab/count/{sample}/', command: 'count {sample} > $OUTPUT/count'}
- {step: check, needs: count, command: 'check {sample} {count.output:q} {align.name}'}
"""


@scenario
def bulk(bench: Bench) -> None:
    """100,000 tasks submitted (peers: 5,000), no worker there."""

    def ask(system) -> None:
        count = MANY if system.title == OURS else PEERS_MANY
        bench.results.add("bulk", "submitted", "/s", system.title, count / system.submit(count))

    with bench.running(workers=False) as systems:
        bench.warm(systems, lambda system: system.submit(10))
        bench.alternate(systems, ask, min(3, bench.rounds))
    bench.results.at_least("bulk", "submitted", 15_000, "/s", bench.results.median("bulk", "submitted"))


@scenario
def batch_file(bench: Bench) -> None:
    """scitq alone: `scitq launch -f` of a file of 10,000 tasks in 3 linked steps: new, again, and again with a change in each
    task.
    """

    def launch(system, folder: Path, text: str) -> float:
        (folder / "steps.yaml").write_text(text)
        words = [BARE_PYTHON, str(ONE_FILE), "launch", "-f", "steps.yaml"]
        start = time.perf_counter()
        done = subprocess.run(words, cwd=folder, env={**os.environ, **system.variables}, capture_output=True, check=True)
        taken = time.perf_counter() - start
        assert len(set(done.stdout.split())) == 3 * FILE_ROWS
        return taken

    def ask(system) -> None:
        folder = system.directory
        rows = (f"S{n},s3://lab/reads/{n}.fq.gz\n" for n in range(FILE_ROWS))
        (folder / "samples.csv").write_text("sample,reads\n" + "".join(rows))
        new = f"batch: b{time.time_ns()}{FILE}"
        taken = [launch(system, folder, text) for text in (new, new, new.replace("retry: 2", "retry: 3"))]
        for what, seconds in zip(("queued", "again", "again, changed"), taken, strict=True):
            bench.results.add("batch_file", what, "s", OURS, seconds)

    with bench.running("scitq", workers=False) as systems:
        bench.alternate(systems, ask)
    bench.results.at_most("batch_file", "queued", 5, "s")


@scenario
def queued(bench: Bench) -> None:
    """scitq alone: 10,000 queued tasks against 1,000, and the first page of a list over 100,000."""
    few, many = f"{FEW:,} queued", f"{QUEUED:,} queued"

    def ask(system) -> None:
        for what, count in ((few, FEW), (many, QUEUED)):
            bench.results.add("queued", what, "/s", OURS, count / system.burst(count))

    with bench.running("scitq") as systems:
        bench.warm(systems, lambda system: system.burst(200))
        bench.alternate(systems, ask, min(3, bench.rounds))
    ratio = bench.results.median("queued", many) / bench.results.median("queued", few)
    bench.results.at_least("queued", f"tasks/s with {many} against {few}", 0.9, "x", ratio)
    with bench.running("scitq", workers=False) as systems:
        systems["scitq"].submit(MANY)
        _look(bench, systems["scitq"].client)


def _look(bench: Bench, client) -> None:
    """The pages that people look at first."""
    for what, query in {
        "first page": {}, "newest first": {"order": "-id"}, "first page of pending": {"state": "pending"},
        "first page of failed (none)": {"state": "failed"}, "first page by name (none)": {"name": "x*"},
    }.items():  # fmt: skip
        times = []
        for _ in range(LOOKS):
            start = time.perf_counter()
            client.get("/tasks", limit=PAGE, **query)
            times.append(1000 * (time.perf_counter() - start))
        bench.results.add("queued", f"{what}, p50", "ms", OURS, median(times))
    bench.results.at_most("queued", "first page, p50", 50, "ms")
