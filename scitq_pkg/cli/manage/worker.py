"""`scitq manage worker`: the machines that run the tasks."""

from __future__ import annotations

from ...lib.server import Server
from ...protocol import WORKER_STATES
from ..parser import Parser, some_of
from . import tables
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
    Column("problem", "PROBLEM"),
    Column("prefetch", "PREFETCH", long=True, right=True),
    Column("draining", "DRAINING", long=True),
    Column("permanent", "PERMANENT", long=True),
    Column("hostname", "HOST", long=True),
    Column("cpus", "CPUS", long=True, right=True),
    Column("memory_bytes", "MEMORY", long=True, text=tables.size, right=True),
    Column("created_at", "CREATED", long=True),
)


def _list_options(parser: Parser) -> None:
    parser.add_argument("-b", "--batch", help="of this batch")
    parser.add_argument("-S", "--state", type=some_of(WORKER_STATES, "state"), metavar="STATE", help="|".join(WORKER_STATES) + ", or several")
    parser.add_argument("-n", "--name", metavar="GLOB", help="whose name matches")
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    chosen = {name: getattr(arguments, name) for name in ("batch", "state", "name") if getattr(arguments, name) is not None}
    order = "-id" if arguments.reverse else "id"
    return tables.show(server, lambda: server.workers(arguments.limit, order, **chosen), COLUMNS, arguments)


VERBS = (Verb("worker", "list", "the workers that pass the filters", _list_options, _list),)
