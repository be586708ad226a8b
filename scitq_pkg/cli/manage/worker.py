"""`scitq manage worker`: the machines that run the tasks."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections.abc import Iterable
from functools import partial

from ...errors import Conflict, InvalidRequest, NotFound, nearest
from ...lib import RESET, Server
from ...protocol import WORKER_STATES
from ..parser import Parser, SomeOf, number
from . import selection, tables
from .deploy import DEPLOY
from .flavor import money
from .machine import report
from .tables import Column
from .verbs import Verb

COLUMNS = (
    Column("id", "ID"),
    Column("name", "NAME"),
    Column("state", "STATE"),
    Column("batch", "BATCH"),
    Column("concurrency", "SLOTS", right=True),
    Column("running", "RUNNING", right=True),
    Column("held", "HELD", right=True),
    Column("contact_at", "SEEN", text=tables.ago, right=True),
    Column("problem", "PROBLEM", text=lambda row: _trouble(row), whole=True),
    Column("prefetch", "PREFETCH", long=True, right=True),
    Column("draining", "DRAINING", long=True),
    Column("permanent", "PERMANENT", long=True),
    Column("hostname", "HOST", long=True),
    Column("version", "VERSION", long=True),
    Column("cpus", "CPUS", long=True, right=True),
    Column("memory_bytes", "MEMORY", long=True, text=tables.byte_size, right=True),
    Column("gpus", "GPUS", long=True, text=lambda row: _gpus(row), whole=True),
    Column("flavor", "FLAVOR", long=True),
    Column("provider", "PROVIDER", long=True),
    Column("region", "REGION", long=True),
    Column("machine_state", "MACHINE", long=True),
    Column("job", "JOB", right=True, long=True),
    Column("", "AN HOUR", text=lambda row: money(row["price"], row["currency"]), whole=True, right=True, long=True),
    Column("hours", "HOURS", right=True, long=True),
    Column("", "COST", text=lambda row: money(row["cost"], row["currency"]), whole=True, right=True, long=True),
    Column("home", "HOME", long=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
)
MOST_SLOTS = 100_000
_MACHINE = ("flavor", "provider", "region")
LOOK_SECONDS = 0.5  # between two looks at what a draining worker still holds


def _trouble(row: dict) -> str:
    """What is wrong with a worker; with its version, when that is all."""
    if row["problem"]:
        return row["problem"]
    if row["upgrade_problem"]:
        return f"not upgraded: {row['upgrade_problem']}"
    if row["upgrading"]:
        return "is told to run the server's version"
    return f"runs scitq {row['version']}, which is not the server's version" if row["outdated"] else ""


def _gpus(row: dict) -> str:
    return " ".join(filter(None, (f"{row['gpus']} x" if (row["gpus"] or 0) > 1 else "", row["gpu"]))) or tables.plain(row["gpus"])


# --- which ones -----------------------------------------------------------------------------------------------------------


def _choice_options(parser: Parser) -> None:
    add = parser.add_argument_group("which workers").add_argument
    add("workers", nargs="*", metavar="WORKER", help="ids, names or globs: 3 node1 'gpu*'")
    add("-i", "--id", action="append", default=[], metavar="IDS", help="ids and ranges: 3,5-9 (repeatable)")
    add("-n", "--name", action="append", default=[], metavar="GLOB", help="a name or a glob (repeatable)")


def _chosen(server: Server, arguments) -> list[dict]:
    """The workers that the words name, in the order of their ids. Raises NotFound for a word that names none."""
    parts = [part.strip() for text in arguments.id for part in text.split(",")]
    if not (arguments.workers or arguments.name or parts):
        raise InvalidRequest("which workers? give ids or names; '*' means all of them")
    known = _rows(server)
    found = [_named(word, known) for word in arguments.name]
    found += [_numbered(word, known) if word.isdigit() else _named(word, known) for word in arguments.workers]
    found += [_in_range(part, known) for part in parts]
    ids = {row["id"] for rows in found for row in rows}
    return [row for row in known if row["id"] in ids]


def _rows(server: Server, ids: Iterable[int] | None = None) -> list[dict]:
    """The workers as the server has them now; those of some ids, as far as they are there."""
    wanted = None if ids is None else set(ids)
    return [row for row in server.client.pages("/workers") if wanted is None or row["id"] in wanted]


def _named(word: str, known: list[dict]) -> list[dict]:
    found = [row for row in known if row["name"] == word] or [row for row in known if fnmatch.fnmatchcase(row["name"], word)]
    if not found:
        raise NotFound(f"there is no worker '{word}'{nearest(word, [row['name'] for row in known])}")
    return found


def _numbered(word: str, known: list[dict]) -> list[dict]:
    """By id; a name of digits is found too."""
    return [row for row in known if row["id"] == int(word)] or _named(word, known)


def _in_range(part: str, known: list[dict]) -> list[dict]:
    first, dash, last = part.partition("-")
    if not (first.isdigit() and first.isascii()) or (dash and not (last.isdigit() and last.isascii())):
        raise InvalidRequest(f"'{part:.60}' holds no ids: numbers and ranges are expected, such as 3,5-9", field="--id")
    found = [row for row in known if int(first) <= row["id"] <= int(last or first)]
    if not found:
        raise NotFound(f"there is no worker {part}" + (f": there are {_told(known)}" if known else ""))
    return found


def _told(rows: list[dict]) -> str:
    """`w1 (id 1), w2 (id 2)...`."""
    texts = [f"{tables.safe(row['name'])} (id {row['id']})" for row in rows[:10]]
    return ", ".join(texts) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")


def _held(row: dict) -> str:
    return {0: "nothing", 1: "1 task"}.get(row["held"], f"{row['held']} tasks")


# --- list and get -----------------------------------------------------------------------------------------------------------


def _list_options(parser: Parser) -> None:
    parser.add_argument("-b", "--batch", help="of this batch")
    parser.add_argument(
        "-S", "--state", type=SomeOf(WORKER_STATES, "state"), metavar="STATE", help="|".join(WORKER_STATES) + ", or several"
    )
    parser.add_argument("-n", "--name", metavar="GLOB", help="whose name matches")
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    chosen = {name: getattr(arguments, name) for name in ("batch", "state", "name")}
    return tables.show(server, lambda: tables.rows_of(server, "workers", arguments, **chosen), COLUMNS, arguments)


def _get_options(parser: Parser) -> None:
    _choice_options(parser)
    tables.add_details_option(parser)


def _get(server: Server, arguments) -> int:
    rows = _chosen(server, arguments)
    tables.details(rows, (*COLUMNS, *_machine_columns(rows)), arguments.format)
    return 0


def _machine_columns(rows: list[dict]) -> list[Column]:
    """What the machines of these workers measured, a line each."""
    mounts = {mount: None for row in rows for mount in _stats(row).get("disks", {})}
    gpus = {gpu["index"]: None for row in rows for gpu in _stats(row).get("gpus", [])}
    return [
        _measured("LOAD", _load),
        _measured("PROCESSOR", lambda stats: f"{stats['cpu_percent']:g} %"),
        _measured("FREE MEMORY", lambda stats: _free(stats["memory"]["available"], stats["memory"]["total"])),
        _measured("FREE SWAP", lambda stats: _free(stats["memory"]["swap_free"], stats["memory"]["swap_total"])),
        *(_measured(f"FREE {mount}", partial(_disk, mount=mount)) for mount in mounts),
        _measured("NETWORK", _network),
        *(_measured(f"GPU {index}", partial(_gpu, index=index)) for index in gpus),
    ]


def _measured(title: str, text) -> Column:
    """A column of a part of the statistics; empty for a worker that has not measured it."""

    def of(row: dict) -> str:
        try:
            return text(_stats(row))
        except KeyError:
            return ""

    return Column("stats", tables.safe(title), text=of, whole=True)


def _stats(row: dict) -> dict:
    return row.get("stats") or {}


def _load(stats: dict) -> str:
    return " ".join(f"{value:.2f}" for value in stats["load"]) + f" on {stats['cpus']} processors"


def _free(free: float, total: float) -> str:
    return f"{tables.byte_size(free)} of {tables.byte_size(total)}" if total else ""


def _disk(stats: dict, mount: str) -> str:
    return _free(stats["disks"][mount]["free"], stats["disks"][mount]["total"])


def _network(stats: dict) -> str:
    network = stats["network"]
    return f"{tables.byte_size(network['received_per_second'])}/s in, {tables.byte_size(network['sent_per_second'])}/s out"


def _gpu(stats: dict, index: int) -> str:
    gpu = next((gpu for gpu in stats["gpus"] if gpu["index"] == index), {})
    parts = [gpu.get("name", ""), f"{gpu['percent']} %" if "percent" in gpu else ""]
    if "memory_used" in gpu and "memory_total" in gpu:
        parts.append(f"{tables.byte_size(gpu['memory_used'])} of {tables.byte_size(gpu['memory_total'])} used")
    return ", ".join(filter(None, parts))


# --- update and drain -------------------------------------------------------------------------------------------------------


def _update_options(parser: Parser) -> None:
    _choice_options(parser)
    add = parser.add_argument_group("what is changed").add_argument
    add("-N", "--new-name", metavar="NAME", help="its name from now on")
    add("-b", "--batch", help="the batch it works for; what it holds it still ends")
    add("-C", "--concurrency", type=number(0, MOST_SLOTS), metavar="N", help="tasks that run at once")
    add("-p", "--prefetch", type=number(0, MOST_SLOTS), metavar="N", help="tasks held ready beyond those")
    add("--permanent", action=argparse.BooleanOptionalAction, help="whether its machine is kept when idle")
    for name in _MACHINE:
        add(f"--{name}", metavar="NAME", help=f"its {name}, for recruiters ('': none)")
    add("--drain", action=argparse.BooleanOptionalAction, help="whether it ends what it has and gets nothing more")
    tables.add_details_option(parser)
    parser.set_defaults(long=False, no_header=False)


def _update(server: Server, arguments) -> int:
    """At once, without a question: it undoes itself with the value before."""
    changes = {name: getattr(arguments, name) for name in ("batch", "concurrency", "prefetch", "permanent")}
    changes |= {"name": arguments.new_name, "draining": arguments.drain}
    changes |= {name: RESET if (value := getattr(arguments, name)) == "" else value for name in _MACHINE}
    if all(value is None for value in changes.values()):
        raise InvalidRequest("what should be changed? -C, -p, -b, -N, --flavor, --drain, --permanent (-h tells more)")
    chosen = _chosen(server, arguments)
    if arguments.new_name is not None and len(chosen) > 1:
        raise InvalidRequest(f"one name cannot be given to {len(chosen)} workers: {_told(chosen)}", field="--new-name")
    changed: list[int] = []
    try:
        for row in chosen:
            server.worker_update(row["id"], **changes)
            changed.append(row["id"])
    finally:
        if changed:
            tables.write(_rows(server, changed), COLUMNS, arguments)
    return 0


def _drain_options(parser: Parser) -> None:
    _choice_options(parser)
    parser.add_argument("--undo", action="store_true", help="let them have tasks again")
    parser.add_argument("--wait", action="store_true", help="until they hold nothing any more")


def _drain(server: Server, arguments) -> int:
    if arguments.undo and arguments.wait:
        raise InvalidRequest("what is undone is not waited for: give --undo or --wait")
    chosen = _chosen(server, arguments)
    for row in chosen:
        row = server.worker_drain(row["id"], not arguments.undo)
        state = "gets tasks again" if arguments.undo else f"gets nothing more, and holds {_held(row)}"
        print(f"{_told([row])} {state}", flush=True)
    if arguments.wait:
        _wait_until_empty(server, {row["id"] for row in chosen})
    return 0


def _wait_until_empty(server: Server, ids: set[int]) -> None:
    """Returns when none of the workers holds anything, or is there. Raises Conflict when one is given tasks again."""
    told: set[int] = set()
    while rows := [row for row in _rows(server, ids) if row["held"]]:
        for row in rows:
            if not row["draining"]:
                raise Conflict(f"{_told([row])} gets tasks again: somebody has undone it")
            if row["state"] == "offline" and row["id"] not in told:
                told.add(row["id"])
                print(f"scitq: {_told([row])} is offline: what it holds is waited for until it counts as lost", file=sys.stderr)
        time.sleep(LOOK_SECONDS)
    print("they hold nothing any more" if len(ids) > 1 else "it holds nothing any more")


# --- upgrade ----------------------------------------------------------------------------------------------------------------


def _upgrade_options(parser: Parser) -> None:
    _choice_options(parser)
    parser.add_argument("--wait", action="store_true", help="until they run it, or have told why they cannot")


def _upgrade(server: Server, arguments) -> int:
    chosen = _chosen(server, arguments)
    for row in chosen:
        told = server.worker_upgrade(row["id"])
        when = ", when it is back" if row["state"] == "offline" else ""
        print(f"{_told([row])} runs {row['version'] or 'nothing yet'} and is told to run {told['to_version']}{when}", flush=True)
    return _wait_until_upgraded(server, {row["id"] for row in chosen}) if arguments.wait else 0


def _wait_until_upgraded(server: Server, ids: set[int]) -> int:
    """Tells what has become of each; 1 when one could not be upgraded."""
    failed = False
    while True:
        rows = _rows(server, ids)
        for row in rows:
            if row["upgrade_problem"]:
                failed = True
                print(f"scitq: {_told([row])} goes on as {row['version']}: {row['upgrade_problem']}", file=sys.stderr)
            elif not row["upgrading"]:
                print(f"{_told([row])} runs {row['version']}", flush=True)
        ids = {row["id"] for row in rows if row["upgrading"]}
        if not ids:
            return int(failed)
        time.sleep(LOOK_SECONDS)


# --- delete -----------------------------------------------------------------------------------------------------------------


def _delete_options(parser: Parser) -> None:
    _choice_options(parser)
    parser.add_argument("-w", "--wait", action="store_true", help="until the machines of those that were deployed are gone")
    selection.add_yes(parser)


def _delete(server: Server, arguments) -> int:
    chosen = _chosen(server, arguments)
    for row in chosen:
        if row["held"]:
            what = "what runs of it is killed" if row["state"] != "offline" else "what may run of it there does not count"
            print(f"{_told([row])} holds {_held(row)}, which go back to the queue; {what}", file=sys.stderr)
    deployed = [row for row in chosen if row["machine"] is not None]
    question = f"delete {'worker' if len(chosen) == 1 else f'{len(chosen)} workers:'} {_told(chosen)}"
    if not selection.agree(question + (f", and destroy {_machines(len(deployed))}" if deployed else ""), arguments):
        return 0 if arguments.dry_run else 1
    jobs = []
    for row in chosen:
        jobs.append(server.worker_delete(row["id"]))
        if row not in deployed:
            print(f"deleted {_told([row])}, which held {_held(row)}", flush=True)
    return report(server, [job for job in jobs if job is not None], arguments.wait, _told(deployed)) if deployed else 0


def _machines(count: int) -> str:
    return "its machine" if count == 1 else f"the machines of {count} of them"


VERBS = (
    Verb("worker", "list", "the workers that pass the filters", _list_options, _list),
    Verb("worker", "get", "everything about workers, what their machines measured too", _get_options, _get),
    Verb("worker", "update", "change workers while they work, at once", _update_options, _update),
    Verb("worker", "drain", "let workers end what they have and give them nothing more", _drain_options, _drain),
    Verb("worker", "upgrade", "have workers run the server's version; what they run goes on", _upgrade_options, _upgrade),
    DEPLOY,
    Verb("worker", "delete", "forget workers; what they hold goes back to the queue", _delete_options, _delete),
)
