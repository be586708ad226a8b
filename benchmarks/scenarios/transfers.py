"""`scitq fetch` from the one file beside programs that move files to and from S3; and how soon a worker is there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import buckets
import movers
from measure import PeakMemory
from results import OURS

from . import Bench, scenario

LARGE_BYTES = 10**9
SMALL, SMALL_BYTES = 2_000, 10_000
LISTED = 5_000
MEGABYTE = 1e6
GO = ("s5cmd", "rclone copy")
UP, DOWN = "up", "down"


@scenario
def fetch_large(bench: Bench) -> None:
    """1 GB as one file, up and down, on rclone's S3."""
    _large(bench, buckets.Rclone, min(3, bench.rounds))


@scenario
def fetch_small(bench: Bench) -> None:
    """2,000 files of 10 kB, up and down, on rclone's S3."""
    _small(bench, buckets.Rclone, bench.rounds)


@scenario(on_request=True)
def fetch_large_swift(bench: Bench) -> None:
    """1 GB as one file, up and down, on Swift's S3."""
    _large(bench, buckets.Swift, min(3, bench.rounds))


@scenario(on_request=True)
def fetch_small_swift(bench: Bench) -> None:
    """2,000 files of 10 kB, up and down, on Swift's S3."""
    _small(bench, buckets.Swift, min(2, bench.rounds))


@scenario
def fetch_list(bench: Bench) -> None:
    """`scitq fetch list` of 5,000 objects on rclone's S3, against the bare requests for the list by boto3."""
    with _place(bench, buckets.Rclone) as place:
        scitq = movers.Scitq(place.bucket, place.home)
        _write(place.folder / "many", LISTED, 1)
        scitq.run(scitq.up(place.folder / "many", "many/"))
        for _ in range(bench.rounds):
            raw = _seconds(lambda: place.bucket.sizes("many/"))
            ours = _seconds(lambda: scitq.run(scitq.list("many/")))
            bench.results.add(bench.scenario, "5,000 objects", "s", "the bare requests", raw)
            bench.results.add(bench.scenario, "5,000 objects", "s", OURS, ours)
            bench.results.add(bench.scenario, "more than the bare requests", "s", OURS, ours - raw)
    bench.results.at_most(bench.scenario, "more than the bare requests", 1, "s")


@scenario
def worker_cold(bench: Bench) -> None:
    """From the start of `scitq worker` until it is online, its native parts unpacked before (warm) or not (cold)."""
    with bench.running("scitq", workers=False) as systems, TemporaryDirectory(prefix="scitq-bench-") as caches:
        systems["scitq"].worker()
        for turn in range(bench.rounds):
            for what, variables in (("warm", {}), ("cold", {"XDG_CACHE_HOME": f"{caches}/{turn}"})):
                seconds = _seconds(lambda: systems["scitq"].worker(**variables))
                bench.results.add(bench.scenario, f"ready, {what}", "ms", OURS, 1000 * seconds)
    for what in ("warm", "cold"):
        bench.results.at_most(bench.scenario, f"ready, {what}", 1000, "ms")


# --- transfers ----------------------------------------------------------------------------------------------------------------


@dataclass
class Place:
    """An S3 server, and a folder of this machine for what comes and goes."""

    bucket: buckets.Bucket
    folder: Path
    home: Path  # of the movers: the same for all rounds, so that what they keep for the next time is there


@contextmanager
def _place(bench: Bench, kind: type[buckets.Bucket]) -> Iterator[Place]:
    kind.check()
    with TemporaryDirectory(prefix="scitq-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "home").mkdir()
        bucket = kind(folder / "bucket")
        try:
            bucket.start()
            yield Place(bucket, folder, folder / "home")
        finally:
            bucket.stop()


def _large(bench: Bench, kind: type[buckets.Bucket], rounds: int) -> None:
    _compare(bench, kind, rounds, "1 GB", 1, LARGE_BYTES)
    for way in (UP, DOWN):
        what = f"1 GB {way}"
        _bar(bench, what, GO, 1.2)
        _bar(bench, what, ("aws s3 cp",), 1.0)


def _small(bench: Bench, kind: type[buckets.Bucket], rounds: int) -> None:
    _compare(bench, kind, rounds, "2,000 x 10 kB", SMALL, SMALL_BYTES)
    for way in (UP, DOWN):
        what = f"2,000 x 10 kB {way}"
        ours, loop = bench.results.median(bench.scenario, what), bench.results.median(bench.scenario, what, movers.Boto3.title)
        if loop:
            bench.results.at_least(bench.scenario, f"{what}: speed against a loop of boto3", 2.5, "x", loop / ours)
        _bar(bench, what, ("aws s3 cp",), 1.0)
        _bar(bench, what, ("rclone copy",), 1.3)


def _bar(bench: Bench, what: str, others: tuple[str, ...], limit: float) -> None:
    """The time of scitq against that of the fastest of these."""
    found = [seconds for title in others if (seconds := bench.results.median(bench.scenario, what, title))]
    if found:
        against = f"{what}: time against {' or '.join(others)}"
        bench.results.add(bench.scenario, against, "x", OURS, bench.results.median(bench.scenario, what) / min(found))
        bench.results.at_most(bench.scenario, against, limit, "x")


def _compare(bench: Bench, kind: type[buckets.Bucket], rounds: int, what: str, count: int, size: int) -> None:
    """Every mover sends the same files and fetches the same objects, once a round, and once more while its memory is watched."""
    found, missing = movers.load()
    bench.results.missing |= missing
    with _place(bench, kind) as place:
        source, expected = place.folder / "source", [size] * count
        _write(source, count, size)
        systems = {name: mover(place.bucket, place.home) for name, mover in found.items()}
        movers.Scitq(place.bucket, place.home).run(systems["scitq"].up(source, "source/"))
        turns = iter(range(1_000_000))

        def once(mover: movers.Mover) -> Iterator[tuple[str, list[str]]]:
            """The two commands; what was moved by each is checked, then deleted."""
            prefix, back = f"{next(turns)}/", place.folder / "back"
            yield UP, mover.up(source, prefix)
            _check(place.bucket.sizes(prefix), expected)
            place.bucket.empty(prefix)
            back.mkdir()
            yield DOWN, mover.down("source/", back)
            _check([path.stat().st_size for path in back.iterdir()], expected)
            shutil.rmtree(back)

        def timed(mover: movers.Mover) -> None:
            for way, words in once(mover):
                os.sync()  # nobody waits for what another has written
                bench.results.add(bench.scenario, f"{what} {way}", "s", mover.title, _seconds(lambda: mover.run(words)))

        def weighed(mover: movers.Mover) -> None:
            for way, words in once(mover):
                with PeakMemory(mover.pids) as peak:
                    mover.run(words)
                bench.results.add(bench.scenario, f"{what} {way}: peak memory", "MB", mover.title, peak.bytes / MEGABYTE)

        bench.alternate(systems, weighed, 1)
        bench.alternate(systems, timed, rounds)
    for way in (UP, DOWN):
        bench.results.at_most(bench.scenario, f"{what} {way}: peak memory", 200, "MB")


def _check(sizes: list[int], expected: list[int]) -> None:
    if sizes != expected:
        raise RuntimeError(f"{len(sizes)} files of {sum(sizes)} bytes are there, not {len(expected)} of {sum(expected)}")


def _write(folder: Path, count: int, size: int) -> None:
    """So many files of so many bytes, each another."""
    folder.mkdir()
    for number in range(count):
        with open(folder / f"file{number:05}", "wb") as file:
            for start in range(0, size, 10**7):
                file.write(os.urandom(min(10**7, size - start)))


def _seconds(act) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
