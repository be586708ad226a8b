"""`scitq manage batch`: names that tasks and workers share."""

from __future__ import annotations

import argparse
import sys

from ...durable import write_whole
from ...errors import InvalidRequest, NotFound, nearest
from ...lib import RESET, Server
from ...lib.objects import ranges
from ...protocol import LIVE, RUNNING
from ..parser import OneOf, Parser
from . import selection, tables
from .flavor import money
from .tables import Column
from .task import end
from .verbs import Verb

COLUMNS = (
    Column("name", "NAME"),
    Column("stopped", "STATE", text=lambda stopped: "stopped" if stopped else "going"),
    Column("workers", "WORKERS", right=True),
    Column("counts", "TASKS", text=tables.counts),
    Column("", "COST", text=lambda row: money(row["cost"], row["currency"]), whole=True, right=True),
    Column("budget", "BUDGET", long=True, right=True),
    Column("hours", "HOURS", long=True, right=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
)
MOST_MONEY = 1e12
PAGES = (".html", ".htm")
FAILURES = (
    Column("count", "TASKS", right=True),
    Column("exit_code", "END", text=end, whole=True),
    Column("last_line", "LAST LINE"),
    Column("task_ids", "IDS", text=lambda row: _ids(row["task_ids"], row["count"]), whole=True),
)


def _list_options(parser: Parser) -> None:
    parser.add_argument("-n", "--name", metavar="GLOB", help="whose name matches: 'wgs*'")
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    return tables.show(server, lambda: tables.rows_of(server, "batches", arguments, name=arguments.name), COLUMNS, arguments)


def _names(parser: Parser) -> None:
    parser.add_argument("batches", nargs="*", metavar="BATCH", help="its name")
    parser.add_argument("-n", "--name", "-b", "--batch", nargs="+", action="extend", default=[], metavar="BATCH", help="the same")


def _chosen(server: Server, arguments) -> list[dict]:
    """The batches that were named. Raises NotFound with the nearest name."""
    names = [*arguments.batches, *arguments.name]
    if not names:
        raise InvalidRequest("which batch? give its name")
    known = {batch["name"]: batch for batch in server.client.pages("/batches")}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no batch '{name}'{nearest(name, known)}")
    return [known[name] for name in names]


def _get_options(parser: Parser) -> None:
    _names(parser)
    tables.add_details_option(parser)


def _get(server: Server, arguments) -> int:
    tables.details(_chosen(server, arguments), COLUMNS, arguments.format)
    return 0


# --- stop, go, delete -------------------------------------------------------------------------------------------------------


def _stop_options(parser: Parser) -> None:
    _names(parser)
    running = parser.add_argument_group("what happens to what runs (default: it runs on)").add_mutually_exclusive_group()
    running.add_argument(
        "--suspend", "--pause", dest="running", action="store_const", const="suspend", help="it is suspended, go resumes it"
    )
    running.add_argument("--term", dest="running", action="store_const", const="term", help="it gets SIGTERM, then SIGKILL")
    running.add_argument("--kill", dest="running", action="store_const", const="kill", help="it gets SIGKILL")
    selection.add_yes(parser)


def _stop(server: Server, arguments) -> int:
    found = _chosen(server, arguments)
    running = sum(batch["counts"].get(RUNNING, 0) for batch in found)
    ends = arguments.running in ("term", "kill") and running
    question = f"stop {_told(found)}" + (f" and {arguments.running} {_tasks(running, 'running ')}" if ends else "")
    if (ends or arguments.dry_run) and not selection.agree(question, arguments):
        return 0 if arguments.dry_run else 1
    for batch in found:
        server.batch_stop(batch["name"], arguments.running)
    print(f"stopped {_told(found)}: nothing of it starts until scitq manage batch go")
    return 0


def _go(server: Server, arguments) -> int:
    found = _chosen(server, arguments)
    for batch in found:
        server.batch_go(batch["name"])
    print(f"{_told(found)}: going")
    return 0


def _update_options(parser: Parser) -> None:
    _names(parser)
    parser.add_argument(
        "--budget", required=True, type=_budget, metavar="MONEY",
        help="what its machines may cost before no more are recruited for it, in the currency of the providers; none: any",
    )  # fmt: skip


def _budget(text: str) -> object:
    """A number of 0 or more, or RESET: the type of an argument."""
    if text.lower() in ("none", ""):
        return RESET
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < MOST_MONEY:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is no amount of money: give a number such as 50, or none")
    return amount


def _update(server: Server, arguments) -> int:
    for batch in _chosen(server, arguments):
        row = server.batch_update(batch["name"], budget=arguments.budget)
        told = "no budget" if row["budget"] is None else f"a budget of {money(row['budget'], row['currency'])}"
        spent = f", of which {money(row['cost'], row['currency'])} are spent" if row["cost"] and row["budget"] is not None else ""
        print(f"batch {tables.safe(row['name'])} has {told}{spent}")
    return 0


def _delete_options(parser: Parser) -> None:
    _names(parser)
    selection.add_yes(parser)


def _delete(server: Server, arguments) -> int:
    found = _chosen(server, arguments)
    tasks = sum(sum(batch["counts"].values()) for batch in found)
    held = sum(batch["counts"].get(state, 0) for batch in found for state in LIVE)
    question = f"delete {_told(found)} with {_tasks(tasks)} and all output" + (
        f", {held} of them held by workers" if held else ""
    )
    if not selection.agree(question, arguments):
        return 0 if arguments.dry_run else 1
    for batch in found:
        server.batch_delete(batch["name"])
    print(f"deleted {_told(found)}")
    return 0


def _tasks(count: int, which: str = "") -> str:
    return f"{count} {which}task{'' if count == 1 else 's'}"


def _told(batches: list[dict]) -> str:
    return ("batch " if len(batches) == 1 else "batches ") + ", ".join(tables.safe(batch["name"]) for batch in batches)


# --- report -----------------------------------------------------------------------------------------------------------------


def _report_options(parser: Parser) -> None:
    _names(parser)
    parser.add_argument(
        "-o", "--format", type=_format_or_file, default="table", metavar="FORMAT|FILE.html",
        help="table|json, or a file that the report is written to as one page, with charts",
    )  # fmt: skip


def _format_or_file(text: str) -> str:
    return text if text.lower().endswith(PAGES) else OneOf(("table", "json", "FILE.html"), "format")(text)


def _report(server: Server, arguments) -> int:
    found = _chosen(server, arguments)
    if arguments.format.lower().endswith(PAGES):
        return _write_page(server, found, arguments.format)
    reports = [server.batch_report(batch["name"]) for batch in found]
    if arguments.format == "json":
        tables.details(reports, (), "json")
        return 0
    for batch, report in zip(found, reports):
        _show_report(batch, report)
    return 0


def _write_page(server: Server, found: list[dict], path: str) -> int:
    if len(found) > 1:
        raise InvalidRequest(f"{path} is a report of one batch: name one, or give each a file of its own")
    from ... import htmlreport  # which nothing else needs

    htmlreport.write(server, found[0]["name"], path)
    print(path)
    return 0


def _show_report(batch: dict, report: dict) -> None:
    durations, memory = report["durations"], report["peak_memory_bytes"]
    print(f"{tables.safe(batch['name'])}: {tables.counts(batch['counts']) or 'no tasks'}")
    if durations["count"]:
        least, mean, most = (tables.short_duration(durations[name]) for name in ("least", "mean", "most"))
        print(f"those that succeeded took {mean} on average, from {least} to {most}")
    if memory is not None:
        print(f"the most memory was {tables.byte_size(memory)}")
    if report["cost"] is not None:
        budget = "" if report["budget"] is None else f", of {money(report['budget'], report['currency'])}"
        print(f"its machines ran for {report['hours']:g} hours and cost {money(report['cost'], report['currency'])}{budget}")
    if report["failures"]:
        print("failures:")
        tables.write_table(report["failures"], FAILURES)


def _ids(ids: list[int], count: int) -> str:
    return ranges(ids) + (f" and {count - len(ids)} more" if count > len(ids) else "")


# --- export -----------------------------------------------------------------------------------------------------------------


def _export_options(parser: Parser) -> None:
    _names(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="where it is written (default: stdout)")


def _export(server: Server, arguments) -> int:
    found = _chosen(server, arguments)
    if len(found) > 1:
        raise InvalidRequest("a batch file is of one batch: name one")
    text = server.batch_file(found[0]["name"])
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    try:
        write_whole(arguments.output, text.encode())
    except OSError as error:
        raise InvalidRequest(f"{arguments.output} cannot be written: {error.strerror}", field="-o") from None
    print(arguments.output)
    return 0


VERBS = (
    Verb("batch", "list", "the batches, with their tasks by state", _list_options, _list),
    Verb("batch", "get", "batches by name", _get_options, _get),
    Verb("batch", "stop", "nothing of a batch starts any more", _stop_options, _stop),
    Verb("batch", "go", "reverse stop; what was suspended goes on", _names, _go),
    Verb("batch", "update", "change what batches may cost", _update_options, _update),
    Verb("batch", "delete", "delete batches with all their tasks and output", _delete_options, _delete),
    Verb("batch", "report", "durations, memory, and failures by exit code and last line", _report_options, _report),
    Verb("batch", "export", "a batch file that makes a batch again", _export_options, _export),
)
