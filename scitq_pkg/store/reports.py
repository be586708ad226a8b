"""What the tasks of a batch took, when they ran, how they hang together, and what went wrong."""

from __future__ import annotations

import re
import statistics

from ..protocol import FAILED, SUCCEEDED
from . import batches, costs
from .transaction import Transaction

_FAILURES = 20  # groups of failures in a report
_NAMED = 100  # tasks of each that are named
_MEASURED = 20_000  # newest tasks of which each duration is looked at
_BINS = 15  # of a histogram, about
_WIDE = 20  # the longest over the shortest duration from which on bins grow
_FREE_SHARE = 0.9  # of a machine's memory that tasks may use
_LINES_CHARACTERS = 300
_NUMBER = re.compile(r"(0x[0-9a-fA-F]+|\d+|#)")  # what lines of the same failure differ in: samples, positions, addresses

# The latest attempts of the tasks of a batch that are in a state.
_LATEST = "FROM task JOIN execution ON execution.id = task.execution_id WHERE task.batch_id = ? AND task.state = ?"
_SECONDS = "COALESCE(execution.ended_at, execution.finished_at) - execution.started_at"


def report(tx: Transaction, name: str, alike: bool = False) -> dict:
    """Durations (seconds) and memory of what succeeded, failures by exit code, signal and last line, costs. Raises NotFound.

    `alike`: lines that differ in their numbers alone are the same.
    """
    batch = batches.row(tx, name)
    batch_id = batch["id"]
    spent = costs.of_batches(tx, [batch_id]).get(batch_id, {"cost": None, "currency": None, "hours": 0.0})
    measured = tx.all(
        f"SELECT {_SECONDS} AS seconds, execution.peak_memory_bytes AS peak, execution.cpu_seconds AS cpu {_LATEST} "
        "AND execution.started_at IS NOT NULL ORDER BY task.id DESC LIMIT ?", (batch_id, SUCCEEDED, _MEASURED),
    )  # fmt: skip
    peaks = [row["peak"] for row in measured if row["peak"]]
    return {
        "batch": name,
        "durations": _durations(tx, batch_id),
        "histogram": histogram([max(0.0, row["seconds"]) for row in measured]),
        "peak_memory_bytes": max(peaks, default=None),
        "memory": memory_advice(peaks, _least_worker(tx, batch_id), _processors(measured)),
        "failures": grouped(_failed(tx, batch_id), ("exit_code", "signal", "last_line"), _NAMED, alike)[:_FAILURES],
        **spent,
        "budget": batch["budget"],
    }


def _durations(tx: Transaction, batch_id: int) -> dict | None:
    return tx.one(
        f"SELECT COUNT(*) AS count, MIN({_SECONDS}) AS least, AVG({_SECONDS}) AS mean, MAX({_SECONDS}) AS most {_LATEST} "
        "AND execution.started_at IS NOT NULL", (batch_id, SUCCEEDED),
    )  # fmt: skip


# --- durations --------------------------------------------------------------------------------------------------------


def histogram(values: list[float]) -> list[dict]:
    """`from`, `to` and `count` of each bin, with round edges; bins grow where the values are very different."""
    if not values:
        return []
    edges = _edges(min(values), max(values))
    counts = [0] * (len(edges) - 1)
    place = 0
    for value in sorted(values):
        while place < len(counts) - 1 and value >= edges[place + 1]:
            place += 1
        counts[place] += 1
    return [{"from": low, "to": high, "count": count} for low, high, count in zip(edges, edges[1:], counts)]


def _edges(least: float, most: float) -> list[float]:
    if least > 0 and most / least > _WIDE:
        return _growing(least, most)
    step = _round_steps((most - least) / _BINS or max(most, 1.0) / _BINS)
    first = int(least / step)
    return [float(f"{number * step:.6g}") for number in range(first, int(most / step) + 2)]


def _growing(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, 20, 50..."""
    edges, power = [], 0
    while 10.0**power > least:
        power -= 1
    while not edges or edges[-1] <= most:
        edges += [float(f"{factor * 10.0**power:.6g}") for factor in (1, 2, 5)]
        power += 1
    first = max(place for place, edge in enumerate(edges) if edge <= least)
    last = min(place for place, edge in enumerate(edges) if edge > most)
    return edges[first : last + 1]


def _round_steps(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** float(f"{step:e}".partition("e")[2])
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


# --- memory -----------------------------------------------------------------------------------------------------------


def _least_worker(tx: Transaction, batch_id: int) -> dict | None:
    """The worker of a batch that has the least memory."""
    return tx.one(
        "SELECT name, memory_bytes, concurrency, cpus FROM worker WHERE batch_id = ? AND deleted_at IS NULL AND memory_bytes > 0 "
        "AND concurrency > 0 ORDER BY memory_bytes, id LIMIT 1", (batch_id,),
    )  # fmt: skip


def _processors(measured: list[dict]) -> float | None:
    """How many processors a task kept busy on average; None where nobody told."""
    told = [row for row in measured if row["cpu"] is not None and row["seconds"] > 0]
    return sum(row["cpu"] for row in told) / sum(row["seconds"] for row in told) if told else None


def memory_advice(peaks: list[int], worker: dict | None, processors: float | None = None) -> dict:
    """What tasks took beside what the smallest worker has, and the concurrency that fits it, if that is another one.

    More at once are advised as far as its processors go, of which a task keeps so many busy.
    """
    peak = max(peaks, default=None)
    told = {"peak_bytes": peak, "typical_bytes": int(statistics.median(peaks)) if peaks else None}
    if worker is None or peak is None:
        sentence = (
            "Nothing is known of its tasks' memory yet." if peak is None else "No worker that tells its memory is in this batch."
        )
        return {**told, "worker_bytes": worker and worker["memory_bytes"], "concurrency": worker and worker["concurrency"],
                "concurrency_hint": None, "sentence": sentence}  # fmt: skip
    hint, sentence = _fitting(peak, worker, processors)
    told |= {"worker_bytes": worker["memory_bytes"], "concurrency": worker["concurrency"]}
    return {**told, "concurrency_hint": hint, "sentence": sentence}


def _fitting(peak: int, worker: dict, processors: float | None) -> tuple[int | None, str]:
    name, present = worker["name"], worker["concurrency"]
    fits = int(worker["memory_bytes"] * _FREE_SHARE // peak)
    each = f"A task took up to {_shown(peak)}, {name} has {_shown(worker['memory_bytes'])}"
    if fits < 1:
        return (1 if present > 1 else None), f"{each}: that is hardly enough for one; give the batch larger machines."
    if fits < present:
        return fits, f"{each}: {fits} at once fit there, not {present}. `scitq manage worker update -n {name} -C {fits}`"
    more = min(fits, int((worker["cpus"] or 0) / max(1.0, processors or 1.0)))
    if more > present:
        uses = "if each uses one processor"
        if processors is not None:
            uses = f"each keeps {processors:.1f} of {worker['cpus']} processors busy"
        return more, f"{each}: there is room for {more} at once, not only {present}, {uses}."
    return None, f"{each}: {present} at once fit there."


def _shown(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


# --- failures ---------------------------------------------------------------------------------------------------------

_FAILURE = "execution.task_id, execution.exit_code, execution.signal, execution.reason, execution.last_output"


def _failed(tx: Transaction, batch_id: int) -> list[dict]:
    return tx.all(f"SELECT {_FAILURE} {_LATEST} ORDER BY execution.id", (batch_id, FAILED))


def newest_failed(tx: Transaction, count: int) -> list[dict]:
    """The newest failed tasks of all batches, as their latest attempts ended, the newest end first; rows for `grouped`."""
    return tx.all(
        f"SELECT {_FAILURE}, execution.finished_at, batch.name AS batch "
        "FROM task JOIN execution ON execution.id = task.execution_id JOIN batch ON batch.id = task.batch_id "
        "WHERE task.id IN (SELECT id FROM task WHERE state = ? AND batch_id IN (SELECT id FROM batch) ORDER BY +id DESC LIMIT ?) "
        "ORDER BY execution.finished_at DESC", (FAILED, count),
    )  # fmt: skip


def grouped(rows: list[dict], keys: tuple[str, ...], named: int, alike: bool = False) -> list[dict]:
    """Failures with the same keys (`last_line` is one of `last_output`) together, the largest group first, so many ids each.

    Where rows have `finished_at`, that of its first row is `newest_at` of a group. With `alike` the numbers in a line are all the
    same: `last_line` is that of the first row, `pattern` has `#` for each that differs, or is None where all lines are this one.
    """
    groups: dict[tuple, dict] = {}
    for row in rows:
        line = row["last_line"] = (row.pop("last_output") or "").rstrip().rpartition("\n")[2][:_LINES_CHARACTERS] or None
        same = _NUMBER.sub("#", line) if alike and line else line
        key = tuple(same if name == "last_line" else row[name] for name in keys)
        group = groups.get(key)
        if group is None:
            group = groups[key] = {name: row[name] for name in keys}
            group |= {"reason": row["reason"], "count": 0, "task_ids": []} | ({"pattern": None} if alike else {})
            group |= {"newest_at": row["finished_at"]} if "finished_at" in row else {}
        if line != group["last_line"] and group["pattern"] != same:  # else no further number can differ
            group["pattern"] = _pattern(group["pattern"] or group["last_line"], line)
        group["count"] += 1
        if group["count"] <= named:
            group["task_ids"].append(row["task_id"])
    return sorted(groups.values(), key=lambda group: -group["count"])


def _pattern(known: str, line: str) -> str:
    """A line, or the pattern of some, with `#` for each number that is another one in a line that is like it but for numbers."""
    pieces = zip(_NUMBER.split(known), _NUMBER.split(line))
    return "".join(one if one == other else "#" for one, other in pieces)


# --- who needs whom ---------------------------------------------------------------------------------------------------


def steps(tx: Transaction, name: str, most: int) -> list[dict]:
    """The tasks of a batch by the part of their name before a `:`, `counts` by state, and the steps each one `needs`.

    `name` is the filter that finds them: a glob, null for those without a name.

    The `most` largest ones, in the order in which they were queued. Raises NotFound.
    """
    batch_id = batches.row(tx, name)["id"]
    found: dict[str | None, dict] = {}
    for row in tx.all(
        f"SELECT {_step(tx, 'name')} AS step, state, COUNT(*) AS n, MIN(id) AS first, "
        f"SUM(CASE WHEN name = {_step(tx, 'name')} THEN 1 ELSE 0 END) AS bare FROM task WHERE batch_id = ? GROUP BY 1, state",
        (batch_id,),
    ):
        step = found.setdefault(row["step"], {"step": row["step"], "counts": {}, "needs": [], "first": row["first"], "bare": 0})
        step["counts"][row["state"]] = row["n"]
        step["bare"] += row["bare"]
        step["first"] = min(step["first"], row["first"])
    kept = sorted(found.values(), key=lambda step: -sum(step["counts"].values()))[:most]
    known = {step["step"]: step for step in kept}
    for edge in _edges_of(tx, batch_id):
        if edge["step"] in known and edge["needed"] in known and edge["step"] != edge["needed"]:
            known[edge["step"]]["needs"].append(edge["needed"])
    ordered = sorted(kept, key=lambda step: step["first"])
    return [{**{key: step[key] for key in ("step", "counts", "needs")}, "name": _glob(step)} for step in ordered]


def _glob(step: dict) -> str | None:
    """What finds the names of a step; where only some go on after it, perhaps those of other steps that begin so too."""
    if step["step"] is None:
        return None
    own = re.sub(r"[\[*?]", r"[\g<0>]", step["step"])
    return own if step["bare"] == sum(step["counts"].values()) else f"{own}*" if step["bare"] else f"{own}:*"


def _edges_of(tx: Transaction, batch_id: int) -> list[dict]:
    return tx.all(
        f"SELECT DISTINCT {_step(tx, 'task.name')} AS step, {_step(tx, 'needed.name')} AS needed FROM task "
        "JOIN requirement ON requirement.task_id = task.id JOIN task AS needed ON needed.id = requirement.required_id "
        "WHERE task.batch_id = ? AND needed.batch_id = ? ORDER BY 1, 2", (batch_id, batch_id),
    )  # fmt: skip


def _step(tx: Transaction, column: str) -> str:
    return f"split_part({column}, ':', 1)" if tx.postgresql else f"substr({column}, 1, instr({column} || ':', ':') - 1)"
