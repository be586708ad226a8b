"""The page: what is told of a batch, from the most important to the details."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from .. import __version__
from ..protocol import FAILED, SUCCEEDED, TASK_STATES
from . import charts
from .facts import MOST_ATTEMPTS, SHOWN, Attempt, Facts, Given, Step, median, occupancy
from .markup import amount, code, note, section, share, size, span, table, text

BINS = 240  # of what ran over time
LANES = 40  # workers, those that did most
_LANE_BINS = 240
_OTHERS = "still there, canceled or lost"
_IDS = 8  # that are named of a group
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(facts: Facts) -> str:
    """The whole document."""
    style = (pkgutil.get_data(__package__, "style.css") or b"").decode()
    title = text(f"Batch {facts.batch}")
    parts = (_overview, _steps, _failures, _over_time, _durations, _memory, _cores, _moved, _attempts, _workers)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<style>{style}</style></head>\n<body><header><p>scitq report</p><h1>{title}</h1>{_when(facts)}</header>\n<main>"
        f"{''.join(part(facts) for part in parts)}</main>\n"
        f"<footer>scitq {text(__version__)}. Times are UTC.</footer></body></html>\n"
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _when(facts: Facts) -> str:
    told = f"as it was at {_moment(facts.now)} UTC"
    if facts.span:
        told += f"; it ran from {_moment(facts.span[0])} to {_moment(facts.span[1])}"
    cut = f"; of its attempts the newest {amount(MOST_ATTEMPTS)} are counted" if facts.is_cut else ""
    return f"<p>{text(told)}{'; it is stopped' if facts.stopped else ''}{cut}</p>"


def _states(counts: dict[str, int]) -> list[tuple[str, int]]:
    order = (SUCCEEDED, FAILED, *(state for state in TASK_STATES if state not in (SUCCEEDED, FAILED)))
    return [(state, counts[state]) for state in order if counts.get(state)]


# --- the most important -----------------------------------------------------------------------------------------------------


def _overview(facts: Facts) -> str:
    states = _states(facts.counts)
    tiles = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in _tiles(facts))
    bar = charts.stacked_bar(states) if states else ""
    key = "".join(f'<li><span class="key s-{state}"></span>{amount(count)} {state}</li>' for state, count in states)
    return section("overview", "Overview", f'{bar}<ul class="keys">{key}</ul><dl class="tiles">{tiles}</dl>')


def _tiles(facts: Facts) -> Iterator[tuple[str, str]]:
    total, done = sum(facts.counts.values()), facts.counts.get(SUCCEEDED, 0)
    yield "tasks", amount(total)
    yield "succeeded", share(done, total)
    if facts.span:
        yield "from start to end", span(facts.span[1] - facts.span[0])
    took = [one.seconds for one in facts.attempts if one.seconds is not None]
    if took:
        yield "time of all attempts", span(sum(took))
    wasted = sum(one.seconds or 0.0 for one in facts.attempts if one.state != SUCCEEDED and one.end is not None)
    if wasted:
        yield "of that in vain", span(wasted)
    cpu = sum(one.cpu_seconds or 0.0 for one in facts.attempts)
    if cpu:
        yield "processor time", span(cpu)
    yield "attempts", amount(len(facts.attempts))
    if facts.cost:
        yield "cost of its machines", facts.cost


def _steps(facts: Facts) -> str:
    if len(facts.steps) < 2:
        return ""
    rows = [
        (code(step.name or "(no name)"), _step_bar(step), amount(sum(step.counts.values())), amount(step.counts.get(FAILED, 0)),
         *(span(of(step.seconds) if step.seconds else None) for of in (median, max, sum)))
        for step in facts.steps
    ]  # fmt: skip
    heads = ("step", "", "tasks", "failed", "half took up to", "longest", "all together")
    return section("steps", "Steps", table(heads, rows, range(2, 7), wide=1))


def _step_bar(step: Step) -> str:
    states = _states(step.counts)
    return charts.stacked_bar(states, 10) if states else ""


def _failures(facts: Facts) -> str:
    groups = facts.report["failures"]
    rows = [(amount(group["count"]), text(_end(group)), code(group["last_line"] or ""), _ids(group)) for group in groups]
    heads = ("tasks", "end", "last line", "ids")
    failed = facts.counts.get(FAILED, 0)
    told = f"{amount(failed)} task{'' if failed == 1 else 's'} failed."
    few = note(f"{told} Those that ended alike with the same last line are one group.") if groups else ""
    return section("failures", "Failures", few, table(heads, rows, (0,), wide=2))


def _end(group: dict) -> str:
    if group["exit_code"] is not None:
        return f"exit code {group['exit_code']}"
    return f"signal {group['signal']}" if group["signal"] is not None else group["reason"] or "unknown"


def _ids(group: dict) -> str:
    named = ", ".join(map(str, group["task_ids"][:_IDS]))
    return text(named + (f" and {amount(group['count'] - _IDS)} more" if group["count"] > _IDS else ""))


# --- over time --------------------------------------------------------------------------------------------------------------


def _over_time(facts: Facts) -> str:
    if facts.span is None:
        return ""
    seconds = facts.span[1] - facts.span[0]
    kinds = (("succeeded", "a-succeeded"), ("failed", "a-failed"), (_OTHERS, "a-others"))
    series = []
    for name, kind in kinds:
        chosen = [one for one in facts.ran if (one.state if one.state in (SUCCEEDED, FAILED) else _OTHERS) == name]
        series.append(charts.Series(name, kind, occupancy(chosen, facts.span, facts.now, BINS)))
    keys = "".join(f'<li><span class="key {kind}"></span>{name}</li>' for name, kind in kinds)
    chart = charts.areas(series, seconds, clock, "attempts that ran at once, over time")
    rows = _lanes(facts, facts.span)
    lanes = charts.lanes(rows, seconds, clock, "how busy each worker was, over time") if rows else ""
    more = f", those {LANES} that did most" if len(rows) == LANES else ""
    about = note(f"The stronger the colour, the more ran there at once{more}.")
    return section(
        "timeline", "Timeline", note("How many attempts ran at once, by how they ended; from the first start on."),
        chart, f'<ul class="keys">{keys}</ul>', f"<h3>By worker</h3>{about}{lanes}",
    )  # fmt: skip


def clock(seconds: float) -> str:
    """A time since the start, on an axis, or a length of time."""
    for unit, length, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= length:
            whole, rest = divmod(round(seconds / part), length // part)
            return f"{whole}{unit}" + (f"{rest}{lesser}" if rest else "")
    return f"{seconds:.3g}s"


def _lanes(facts: Facts, over: tuple[float, float]) -> list[tuple[str, list[float], float]]:
    by_worker: dict[str, list[Attempt]] = {}
    for one in facts.ran:
        by_worker.setdefault(one.worker, []).append(one)
    busiest = sorted(by_worker.items(), key=lambda item: -sum(one.seconds or 0.0 for one in item[1]))[:LANES]
    found = [(name or "(gone)", occupancy(own, over, facts.now, _LANE_BINS)) for name, own in sorted(busiest)]
    return [(name, values, max(values)) for name, values in found]


def _durations(facts: Facts) -> str:
    starts = [span(one["from"]) for one in facts.report["histogram"]]
    ticks = ["" if start == before else start for start, before in zip(starts, ["", *starts])]
    bins = [
        (tick, f"{start} to {span(one['to'])}", one["count"])
        for tick, start, one in zip(ticks, starts, facts.report["histogram"], strict=True)
    ]
    told = facts.report["durations"]
    if not bins or not told["count"]:
        return ""
    rows = _ranges(facts, "seconds")
    chart = charts.ranges(rows, clock, "how long the tasks of each step took", True) if len(rows) > 1 else ""
    least, mean, most = (span(told[name]) for name in ("least", "mean", "most"))
    worst = [
        (str(one.task_id), code(one.name), text(one.worker), text(one.how), span(one.seconds)) for one in facts.slowest()
    ]  # fmt: skip
    return section(
        "durations", "Durations",
        note(f"{amount(told['count'])} tasks succeeded: in {least} to {most}, {mean} on average."),
        charts.columns(bins, "how many tasks took how long"), chart and f"<h3>By step</h3>{chart}", "<h3>The longest</h3>",
        table(("task", "name", "worker", "end", "took"), worst, (0, 4), wide=1),
    )  # fmt: skip


def _ranges(facts: Facts, measure: str, limits: Sequence[float] = ()) -> list[charts.Range]:
    """A row for each step of which there are measures (`seconds`, `peaks` or `cores`)."""
    found = [(step.name or "all", getattr(step, measure)) for step in facts.steps]
    return [charts.Range(name, min(values), median(values), max(values), limits) for name, values in found if values]


# --- used against given -----------------------------------------------------------------------------------------------------


def _limits(facts: Facts, what: str) -> list[float]:
    """What the workers that ran it have for each slot, each amount once."""
    used = {one.worker for one in facts.ran}
    found = {getattr(given, what) for worker, given in facts.given.items() if worker in used}
    return sorted(value for value in found if value)


def _memory(facts: Facts) -> str:
    limits = _limits(facts, "memory_bytes")
    rows = _ranges(facts, "peaks", limits)
    if not rows:
        return ""
    sentence = facts.report["memory"]["sentence"]
    return section(
        "memory", "Memory",
        note(f"The most that each task held at once; half of them are below the dot. {_marks(limits, 'memory')}"),
        charts.ranges(rows, size, "memory used by the tasks of each step, against what was given"), note(text(sentence)),
    )  # fmt: skip


def _cores(facts: Facts) -> str:
    limits = _limits(facts, "cpus")
    rows = _ranges(facts, "cores", limits)
    if not rows:
        return ""
    return section(
        "processors", "Processors",
        note(f"Processor time over duration: how many processors each task kept busy. {_marks(limits, 'processors')}"),
        charts.ranges(rows, lambda value: f"{value:.3g}", "processors used by the tasks of each step, against what was given"),
    )  # fmt: skip


def _marks(limits: list[float], what: str) -> str:
    """What the marks of a chart mean; a machine's share is by its slots as they are now."""
    return f"The marks are what a slot of a worker has of its machine's {what}." if limits else ""


# --- details ----------------------------------------------------------------------------------------------------------------


def _moved(facts: Facts) -> str:
    rows = [
        (text(one.what), code(one.uri), amount(one.times), size(one.size), span(one.seconds), span(one.longest),
         f"{size(one.size / one.seconds)}/s" if one.seconds and one.size else "–")
        for one in facts.moved
    ]  # fmt: skip
    heads = ("", "from or to", "times", "moved", "took", "longest", "speed")
    few = note(f"The {SHOWN} inputs, resources and outputs that took most time, all attempts together.") if rows else ""
    return section("transfers", "Slowest transfers", few, table(heads, rows, range(2, 7), wide=1))


def _attempts(facts: Facts) -> str:
    if not facts.attempts:
        return ""
    tries = facts.tries()
    often = [(amount(number), amount(count), share(count, sum(tries.values()))) for number, count in sorted(tries.items())]
    ends = facts.ends()
    how = [(text(words), amount(count), share(count, sum(ends.values()))) for words, count in ends.most_common(SHOWN)]
    return section(
        "attempts", "Attempts", '<div class="pair">',
        f"<div><h3>How many a task took</h3>{table(('attempts', 'tasks', ''), often, (0, 1, 2))}</div>",
        f"<div><h3>How they ended</h3>{table(('end', 'attempts', ''), how, (1, 2))}</div></div>",
    )  # fmt: skip


def _workers(facts: Facts) -> str:
    by_worker: dict[str, list[Attempt]] = {}
    for one in facts.ran:
        by_worker.setdefault(one.worker, []).append(one)
    rows = []
    for name, own in sorted(by_worker.items(), key=lambda item: -len(item[1]))[:LANES]:
        took = [one.seconds for one in own if one.seconds is not None and one.state == SUCCEEDED]
        failed = sum(one.state == FAILED for one in own)
        given = facts.given.get(name, Given(None, None))
        cpus = "–" if given.cpus is None else f"{given.cpus:.3g}"
        half = span(median(took) if took else None)
        who = code(name or "(gone)")
        rows.append((who, amount(len(own)), amount(failed), share(failed, len(own)), half, cpus, size(given.memory_bytes)))
    heads = ("worker", "attempts", "failed", "", "half took up to", "processors a slot", "memory a slot")
    return section("workers", "Workers", table(heads, rows, range(1, 7)))
