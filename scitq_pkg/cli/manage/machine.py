"""`scitq manage machine`: what providers run for the server."""

from __future__ import annotations

from ...lib.server import Server
from ...protocol import MACHINE_STATES
from ..parser import Parser, SomeOf, number
from . import selection, tables
from .flavor import money
from .job import followed
from .tables import Column
from .verbs import Verb

MOST = 2**31 - 1
COLUMNS = (
    Column("id", "ID"),
    Column("name", "NAME"),
    Column("state", "STATE"),
    Column("provider", "PROVIDER"),
    Column("region", "REGION"),
    Column("flavor", "FLAVOR"),
    Column("worker", "WORKER"),
    Column("hours", "HOURS", right=True),
    Column("cost", "COST", text=lambda row: money(row["cost"], row["currency"]), whole=True, right=True),
    Column("message", "MESSAGE"),
    Column("unknown", "UNKNOWN", long=True),
    Column("batch", "BATCH", long=True),
    Column("price", "AN HOUR", long=True, right=True),
    Column("provider_id", "ID THERE", long=True),
    Column("address", "ADDRESS", long=True),
    Column("job", "JOB", long=True, right=True),
    Column("asked_by", "ASKED-BY", long=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
    Column("up_at", "UP", long=True, text=tables.moment),
    Column("seen_at", "SEEN", long=True, text=tables.moment),
    Column("gone_at", "GONE", long=True, text=tables.moment),
)


def _list_options(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "-S", "--state", type=SomeOf(MACHINE_STATES, "state"), metavar="STATE",
        help="|".join(MACHINE_STATES) + ", or several (default: all but gone)",
    )  # fmt: skip
    add("-P", "--provider", help="of this provider")
    add("--unknown", action="store_true", help="those alone that carry the server's tag, and nobody there asked for")
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    chosen = {"state": arguments.state, "provider": arguments.provider, "unknown": "true" if arguments.unknown else None}
    order = "-id" if arguments.reverse else "id"
    return tables.show(
        server, lambda: server.client.pages("/machines", arguments.limit, order=order, **chosen), COLUMNS, arguments
    )


def _delete_options(parser: Parser) -> None:
    parser.add_argument("numbers", nargs="+", type=number(1, MOST), metavar="ID", help="their ids")
    parser.add_argument(
        "--forget", action="store_true", help="take them for gone without asking the provider, where they may go on and cost"
    )
    parser.add_argument("-w", "--wait", action="store_true", help="until they are gone")
    selection.add_yes(parser)


def _delete(server: Server, arguments) -> int:
    rows = [server.client.get(f"/machines/{machine}") for machine in arguments.numbers]
    told = ", ".join(f"{tables.safe(row['name'])} of {row['provider']}" for row in rows)
    verb = "forget" if arguments.forget else "destroy"
    if not selection.agree(f"{verb} {told}, with what runs there", arguments):
        return 0 if arguments.dry_run else 1
    jobs = [server.machine_delete(row["id"], arguments.forget) for row in rows]
    return report(server, [job for job in jobs if job is not None], arguments.wait, told)


def report(server: Server, jobs: list[int], wait: bool, told: str) -> int:
    """Tells by what jobs something is destroyed, and with `wait` how that goes; the exit code."""
    if not jobs:
        print(f"{told}: gone")
        return 0
    print(f"{told}: being destroyed by {selection.some(jobs, 'job')}", flush=True)
    if not wait:
        return 0
    return followed(server, jobs)


VERBS = (
    Verb("machine", "list", "the machines that are there, or on their way", _list_options, _list),
    Verb("machine", "delete", "destroy machines, with their workers", _delete_options, _delete),
)
