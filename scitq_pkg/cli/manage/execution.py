"""`scitq manage execution`: the attempts to run tasks."""

from __future__ import annotations

from ...lib.follow import follow_execution
from ...lib.server import Server
from ...protocol import EXECUTION_STATES
from ..parser import Parser, number
from . import selection, tables
from .tables import Column
from .task import Outlet, end, output_options, state, took
from .verbs import Verb


def _transfers(found: list[dict]) -> str:
    """`input s3://b/f, 3 files, 1.2 GB, 12s`, one after the other."""
    size, duration = tables.byte_size, tables.short_duration
    return "; ".join(f"{x['what']} {x['uri']}, {x['files']} files, {size(x['bytes'])}, {duration(x['seconds'])}" for x in found)


COLUMNS = (
    Column("id", "ID"),
    Column("task_id", "TASK", right=True),
    Column("attempt", "TRY", right=True),
    Column("state", "STATE", text=state, whole=True),
    Column("name", "NAME"),
    Column("batch", "BATCH"),
    Column("worker", "WORKER"),
    Column("", "TIME", text=took, whole=True, right=True),
    Column("cpu_seconds", "CPU", text=tables.short_duration, right=True),
    Column("peak_memory_bytes", "MEMORY", text=tables.byte_size, right=True),
    Column("exit_code", "END", text=end, whole=True),
    Column("read_bytes", "READ", long=True, text=tables.byte_size, right=True),
    Column("written_bytes", "WRITTEN", long=True, text=tables.byte_size, right=True),
    Column("stdout_size", "STDOUT", long=True, text=tables.byte_size, right=True),
    Column("stderr_size", "STDERR", long=True, text=tables.byte_size, right=True),
    Column("assigned_at", "ASSIGNED", long=True, text=tables.moment),
    Column("started_at", "STARTED", long=True, text=tables.moment),
    Column("ended_at", "ENDED", long=True, text=tables.moment),
)
DETAILS = (
    *COLUMNS,
    Column("accepted_at", "ACCEPTED", text=tables.moment),
    Column("finished_at", "FINISHED", text=tables.moment),
    Column("desired", "WANTED"),
    Column("asked_by", "ASKED-BY"),
    Column("pid", "PID"),
    Column("transfers", "TRANSFERS", text=_transfers),
    Column("reused_id", "REUSED"),
    Column("last_output", "LAST-OUTPUT"),
)


def _list_options(parser: Parser) -> None:
    parser.add_argument("--task", type=number(1, 2**31 - 1), metavar="ID", help="of this task")
    selection.add_filters(parser, "executions", EXECUTION_STATES)
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    more = {"task": arguments.task} if arguments.task else {}
    return tables.show(server, lambda: selection.listed(server, "executions", arguments, **more), COLUMNS, arguments)


def _one(parser: Parser) -> None:
    parser.add_argument("number", nargs="?", type=number(1, 2**31 - 1), metavar="ID", help="its id")
    parser.add_argument("-i", "-x", "--id", type=number(1, 2**31 - 1), metavar="ID", help="the same")


def _id(parser: Parser, arguments) -> int:
    if (arguments.number is None) == (arguments.id is None):
        parser.error("which execution? give its id")
    return arguments.number or arguments.id


def _get_options(parser: Parser) -> None:
    _one(parser)
    tables.add_details_option(parser)


def _get(server: Server, arguments) -> int:
    execution = server.client.get(f"/executions/{_id(GET.parser, arguments)}")
    tables.details([execution], DETAILS, arguments.format)
    return 0


def _output_options(parser: Parser) -> None:
    _one(parser)
    output_options(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the execution is over")


def _output(server: Server, arguments) -> int:
    execution = server.client.get(f"/executions/{_id(OUTPUT.parser, arguments)}")
    outlet = Outlet(arguments)
    if arguments.follow:
        follow_execution(server.client, execution["id"], outlet.write)
    else:
        outlet.write_all(server, execution["id"])
    return 0


GET = Verb("execution", "get", "everything about an execution", _get_options, _get)
OUTPUT = Verb("execution", "output", "what it wrote, byte for byte", _output_options, _output)
VERBS = (Verb("execution", "list", "the executions that pass the filters", _list_options, _list), GET, OUTPUT)
