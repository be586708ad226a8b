"""`scitq manage job`: what the server does with providers of machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from ...errors import InvalidRequest, NotFound
from ...lib.objects import ids_of, to_datetime
from ...lib.server import Server
from ...protocol import JOB_KINDS, JOB_STATES
from ..parser import Parser, SomeOf, number
from . import selection, tables
from .tables import Column
from .verbs import Verb


def _progress(row: dict) -> str:
    return f"{row['progress']} %" if row["state"] in ("running", "pending") else ""


def _doing(row: dict) -> str:
    return row["message"] or row["step"] or "" if row["state"] != "running" else row["step"] or row["message"] or ""


COLUMNS = (
    Column("id", "ID"),
    Column("kind", "KIND"),
    Column("state", "STATE"),
    Column("", "DONE", text=_progress, whole=True, right=True),
    Column("worker", "WORKER"),
    Column("batch", "BATCH"),
    Column("provider", "PROVIDER"),
    Column("", "STEP", text=_doing, whole=True),
    Column("region", "REGION", long=True),
    Column("flavor", "FLAVOR", long=True),
    Column("machine_name", "MACHINE", long=True),
    Column("attempt", "TRY", long=True, right=True),
    Column("asked_by", "ASKED-BY", long=True),
    Column("canceled_by", "CANCELED-BY", long=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
    Column("started_at", "STARTED", long=True, text=tables.moment),
    Column("finished_at", "FINISHED", long=True, text=tables.moment),
)
MOST = 2**31 - 1
ENDED = ("succeeded", "failed", "canceled")


# --- which ones -----------------------------------------------------------------------------------------------------------


def _filters(parser: Parser) -> None:
    add = parser.add_argument
    add("-S", "--state", type=SomeOf(JOB_STATES, "state"), metavar="STATE", help="|".join(JOB_STATES) + ", or several")
    add("-k", "--kind", type=SomeOf(JOB_KINDS, "kind"), metavar="KIND", help="|".join(JOB_KINDS) + ", or several")
    add("-P", "--provider", help="of this provider")
    add("--worker", metavar="WORKER", help="that deploy or destroy this worker (name or id)")
    add("-b", "--batch", help="of workers of this batch")


def _ids_options(parser: Parser) -> None:
    parser.add_argument("numbers", nargs="*", metavar="ID", help="ids and ranges: 3 5-9")
    parser.add_argument("-i", "--ids", "--id", action="append", default=[], metavar="IDS", help="the same: 3,5-9 (repeatable)")


def _chosen_filters(arguments) -> dict:
    return {name: getattr(arguments, name) for name in ("state", "kind", "provider", "worker", "batch")}


def _ids(arguments) -> list[int]:
    ids = ids_of(",".join([*arguments.ids, *arguments.numbers])) if arguments.ids or arguments.numbers else []
    if not ids:
        raise InvalidRequest("which job? give its id")
    return ids


def _rows(server: Server, ids: Iterable[int]) -> list[dict]:
    return [server.client.get(f"/jobs/{number}") for number in ids]


# --- list, get, log ---------------------------------------------------------------------------------------------------------


def _list_options(parser: Parser) -> None:
    _filters(parser)
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    chosen, order = _chosen_filters(arguments), "-id" if arguments.reverse else "id"
    return tables.show(server, lambda: server.client.pages("/jobs", arguments.limit, order=order, **chosen), COLUMNS, arguments)


def _get_options(parser: Parser) -> None:
    _ids_options(parser)
    tables.add_details_option(parser)


def _get(server: Server, arguments) -> int:
    tables.details(_rows(server, _ids(arguments)), COLUMNS, arguments.format)
    return 0


def _log_options(parser: Parser) -> None:
    parser.add_argument("number", nargs="?", type=number(1, MOST), metavar="ID", help="its id")
    parser.add_argument("-i", "--id", type=number(1, MOST), metavar="ID", help="the same")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")


def _log(server: Server, arguments) -> int:
    if (arguments.number is None) == (arguments.id is None):
        raise InvalidRequest("which job? give its id")
    job_id = arguments.number or arguments.id
    tell(server, job_id, arguments.follow)
    return 1 if arguments.follow and not _succeeded(server, [job_id]) else 0


def tell(server: Server, job_id: int, follow: bool, before: str = "") -> None:
    """Writes the log of a job, a line a line, each with its time."""
    for line in server.job_log(job_id, follow):
        at = line["at"] if not isinstance(line["at"], str) else to_datetime(line["at"])
        print(f"{before}{at.astimezone():%H:%M:%S} {tables.safe(line['line'])}", flush=True)


def followed(server: Server, job_ids: Sequence[int]) -> int:
    """Tells the logs of jobs until they have ended, and which did not succeed; the exit code."""
    for job_id in job_ids:
        tell(server, job_id, follow=True)
    return 0 if _succeeded(server, job_ids) else 1


def _succeeded(server: Server, job_ids: Iterable[int]) -> bool:
    """Whether these jobs, which have ended, all succeeded; those that did not are told."""
    well = True
    for row in _rows(server, job_ids):
        if row["state"] != "succeeded":
            well = False
            why = tables.safe(row["message"] or "it does not say why")
            print(f"scitq: job {row['id']} {row['state']}: {why}", file=sys.stderr)
    return well


# --- cancel, relaunch, delete -------------------------------------------------------------------------------------------------


def _which_options(parser: Parser) -> None:
    _ids_options(parser)
    _filters(parser)
    selection.add_yes(parser)


def _chosen(server: Server, arguments, states: tuple[str, ...], none: str) -> list[dict]:
    """The jobs that are named, or pass the filters, in these states."""
    chosen = _chosen_filters(arguments)
    named = arguments.ids or arguments.numbers
    if not named and not any(chosen.values()):
        raise InvalidRequest(f"which jobs? give ids, or filters such as -S {','.join(states)}")
    if named:
        return _rows(server, _ids(arguments))
    found = [row for row in server.client.pages("/jobs", **chosen) if row["state"] in states]
    if not found:
        raise NotFound(none)
    return found


def _change(server: Server, arguments, verb: str, states: tuple[str, ...], how: str = "") -> int:
    rows = _chosen(server, arguments, states, f"no job that could be {verb} passes the filter")
    told = selection.some([row["id"] for row in rows], "job")
    if not selection.agree(f"{verb} {told}{how}", arguments):
        return 0 if arguments.dry_run else 1
    for row in rows:
        getattr(server, f"job_{verb}")(row["id"])
    print(f"{verb}: {told}")
    return 0


def _cancel(server: Server, arguments) -> int:
    return _change(server, arguments, "cancel", ("pending", "running"), " and destroy what they deploy")


def _relaunch(server: Server, arguments) -> int:
    return _change(server, arguments, "relaunch", ("failed", "canceled"))


def _delete(server: Server, arguments) -> int:
    return _change(server, arguments, "delete", ENDED)


VERBS = (
    Verb("job", "list", "the jobs that pass the filters", _list_options, _list),
    Verb("job", "get", "everything about jobs", _get_options, _get),
    Verb("job", "log", "what a job has done, line by line", _log_options, _log),
    Verb("job", "cancel", "end jobs; what they deploy is destroyed", _which_options, _cancel),
    Verb("job", "relaunch", "try jobs anew that failed or were canceled", _which_options, _relaunch),
    Verb("job", "delete", "forget jobs that ended, with their logs", _which_options, _delete),
)
