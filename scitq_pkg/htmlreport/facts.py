"""What a report tells of a batch, asked by the API: all of its attempts are looked at once, as numbers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from ..lib.client import Client
from ..lib.objects import to_datetime
from ..protocol import SUCCEEDED
from ..uris import shown

MOST_ATTEMPTS = 200_000  # the newest
MOST_STEPS = 30  # more, or nearly as many as tasks, are no steps
FEW_TASKS = 5
SHOWN = 15  # rows of a table of the worst
_ENDED_BADLY = ("failed", "lost", "canceled")


@dataclass(slots=True)
class Attempt:
    """One attempt. Times are seconds since the epoch."""

    id: int
    task_id: int
    name: str
    step: str
    worker: str
    number: int
    state: str
    how: str  # it ended, in words
    start: float | None
    end: float | None
    cpu_seconds: float | None
    peak_bytes: int | None

    @property
    def seconds(self) -> float | None:
        """How long its command ran; None if it has not, or does."""
        return max(0.0, self.end - self.start) if self.start is not None and self.end is not None else None


@dataclass(slots=True)
class Moved:
    """What was moved from or to one place."""

    what: str
    uri: str
    times: int = 0
    size: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(slots=True)
class Given:
    """What a worker has for each of its slots."""

    memory_bytes: float | None
    cpus: float | None


@dataclass(slots=True)
class Step:
    """The tasks of one step, and what those that succeeded took."""

    name: str
    counts: dict[str, int]
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Facts:
    """All that a page needs."""

    batch: str
    stopped: bool
    counts: dict[str, int]
    report: dict
    server: dict
    cost: str | None  # of its machines, if they cost
    attempts: list[Attempt]
    steps: list[Step]
    moved: list[Moved]
    given: dict[str, Given]  # by worker
    is_cut: bool  # there are more attempts than were looked at

    @property
    def now(self) -> float:
        """The server's time."""
        return seconds_of(self.server["time_at"]) or 0.0

    @property
    def ran(self) -> list[Attempt]:
        """The attempts whose command began."""
        return [one for one in self.attempts if one.start is not None]

    @property
    def span(self) -> tuple[float, float] | None:
        """From the first start to the last end, or to now while anything runs."""
        ran = self.ran
        if not ran:
            return None
        first = min(one.start for one in ran if one.start is not None)
        return first, max(first + 1.0, *(self.now if one.end is None else one.end for one in ran))

    def ends(self) -> Counter:
        """How many attempts ended how."""
        return Counter(one.how for one in self.attempts if one.state == SUCCEEDED or one.state in _ENDED_BADLY)

    def tries(self) -> Counter:
        """How many tasks had how many attempts."""
        last: dict[int, int] = {}
        for one in self.attempts:
            last[one.task_id] = max(one.number, last.get(one.task_id, 0))
        return Counter(last.values())

    def slowest(self) -> list[Attempt]:
        """Those that ran longest."""
        return sorted((one for one in self.attempts if one.seconds is not None), key=lambda one: -(one.seconds or 0.0))[:SHOWN]


def gather(client: Client, batch: str) -> Facts:
    """Asks the server. Raises NotFound."""
    path = f"/batches/{quote(batch, safe='')}"
    row, told = client.get(path), client.get(f"{path}/report")
    known = _steps(client.get(f"{path}/steps")["items"])
    moved: dict[tuple[str, str], Moved] = {}
    attempts = list(_attempts(client.pages("/executions", MOST_ATTEMPTS, batch=batch, order="-id"), known, moved))
    _measure(attempts, known)
    given = {worker["name"]: _given(worker) for worker in client.pages("/workers")}
    slowest = sorted(moved.values(), key=lambda one: -one.seconds)[:SHOWN]
    is_cut = len(attempts) >= MOST_ATTEMPTS
    cost = f"{row['cost']:.2f} {row['currency'] or ''}".strip() if row.get("cost") else None
    server = client.get("/server")
    return Facts(
        batch, row["stopped"], row["counts"], told, server, cost, attempts, list(known.values()), slowest, given, is_cut
    )  # fmt: skip


def seconds_of(text: str | None) -> float | None:
    """An ISO time as seconds since the epoch."""
    return None if text is None else to_datetime(text).timestamp()


def _steps(items: list[dict]) -> dict[str, Step]:
    """By name; one of all tasks, named '', where names have no steps in them."""
    tasks = sum(sum(item["counts"].values()) for item in items)
    if len(items) <= 1 or len(items) > MOST_STEPS or (tasks < 2 * len(items) and len(items) > FEW_TASKS):
        counts: Counter = Counter()
        for item in items:
            counts.update(item["counts"])
        return {"": Step("", dict(counts))}
    return {item["step"] or "": Step(item["step"] or "", item["counts"]) for item in items}


def _attempts(rows: Iterable[dict], steps: dict[str, Step], moved: dict[tuple[str, str], Moved]) -> Iterator[Attempt]:
    """Each attempt as it is needed; what it moved is added up."""
    for row in rows:
        name = row["name"] or ""
        step = name.partition(":")[0]
        for line in row["transfers"]:
            _add(moved, line)
        yield Attempt(
            row["id"], row["task_id"], name, step if step in steps else "", row["worker"] or "", row["attempt"], row["state"],
            how_it_ended(row), seconds_of(row["started_at"]), seconds_of(row["ended_at"] or row["finished_at"]),
            row["cpu_seconds"], row["peak_memory_bytes"],
        )  # fmt: skip


def how_it_ended(row: dict) -> str:
    """`exit code 1`, `signal 9`, `lost`... Reasons tell of one attempt each: they are no way to group."""
    if row["state"] != "failed":
        return row["state"]
    if row["exit_code"] is not None:
        return f"exit code {row['exit_code']}"
    return f"signal {row['signal']}" if row["signal"] is not None else "failed before its command ran"


def _add(moved: dict[tuple[str, str], Moved], line: dict) -> None:
    what, uri = str(line.get("what", "")), shown(str(line.get("uri", "")))
    one = moved.get((what, uri))
    if one is None:
        one = moved[what, uri] = Moved(what, uri)
    seconds = float(line.get("seconds") or 0.0)
    one.times += 1
    one.size += int(line.get("bytes") or 0)
    one.seconds += seconds
    one.longest = max(one.longest, seconds)


def _measure(attempts: list[Attempt], steps: dict[str, Step]) -> None:
    for one in attempts:
        step, seconds = steps.get(one.step), one.seconds
        if step is None or one.state != SUCCEEDED or seconds is None:
            continue
        step.seconds.append(seconds)
        if one.peak_bytes:
            step.peaks.append(one.peak_bytes)
        if one.cpu_seconds is not None and seconds > 0:
            step.cores.append(one.cpu_seconds / seconds)


def _given(worker: dict) -> Given:
    slots = worker["concurrency"]
    memory, cpus = worker.get("memory_bytes"), worker.get("cpus")
    return Given(memory / slots if memory and slots else None, cpus / slots if cpus and slots else None)


def median(values: list) -> float:
    """The middle one; 0 of none."""
    return statistics.median(values) if values else 0.0


# --- over time --------------------------------------------------------------------------------------------------------------


def occupancy(attempts: Iterable[Attempt], span: tuple[float, float], now: float, bins: int) -> list[float]:
    """How many ran at once, on average, in each of so many equal parts of a span."""
    begin, width = span[0], (span[1] - span[0]) / bins
    whole, parts = [0.0] * (bins + 1), [0.0] * bins
    for one in attempts:
        if one.start is None:
            continue
        first = min(bins - 1e-9, max(0.0, (one.start - begin) / width))
        last = min(bins - 1e-9, max(first, ((now if one.end is None else one.end) - begin) / width))
        low, high = int(first), int(last)
        if low == high:
            parts[low] += last - first
            continue
        parts[low] += low + 1 - first
        parts[high] += last - high
        whole[low + 1] += 1
        whole[high] -= 1
    found, level = [], 0.0
    for place in range(bins):
        level += whole[place]
        found.append(level + parts[place])
    return found
