"""`scitq manage recruiter`: rules by which batches take idle workers."""

from __future__ import annotations

import sys

from ...errors import InvalidRequest, nearest
from ...lib import RESET, Server
from ...protocol import DEFAULT_BATCH
from ...protofilter import AUTO, is_protofilter
from ..parser import OneOf, Parser, number
from . import selection, tables
from .tables import Column
from .verbs import Verb

COLUMNS = (
    Column("id", "ID"),
    Column("batch", "BATCH"),
    Column("rank", "RANK", right=True),
    Column("flavor", "FLAVOR"),
    Column("tasks_per_worker", "TASKS/WORKER", right=True),
    Column("maximum_workers", "MOST WORKERS", right=True),
    Column("concurrency", "SLOTS", right=True),
    Column("minimum_tasks", "LEAST TASKS", long=True, right=True),
    Column("prefetch", "PREFETCH", long=True, right=True),
    Column("provider", "PROVIDER", long=True),
    Column("region", "REGION", long=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
)
MATCHES = (
    Column("id", "ID"),
    Column("batch", "BATCH"),
    Column("rank", "RANK", right=True),
    Column("flavor", "FLAVOR"),
    Column("provider", "PROVIDER", long=True),
    Column("region", "REGION", long=True),
    Column("workers", "IDLE", text=lambda found: _named(found, True)),
    Column("", "NOT IDLE", text=lambda row: _named(row["workers"], False), whole=True),
)
MOST = 2**31 - 1
MOST_SLOTS = 100_000
FIRST_RANK = 1


def _which_options(parser: Parser) -> None:
    parser.add_argument("-b", "--batch", default=DEFAULT_BATCH, help=f"the batch that takes workers (default: {DEFAULT_BATCH})")
    parser.add_argument(
        "-n", "--rank", type=number(0, MOST), default=FIRST_RANK, metavar="N",
        help=f"which of its recruiters: the lowest goes first (default: {FIRST_RANK})",
    )  # fmt: skip


def _rule_options(parser: Parser) -> None:
    add = parser.add_argument_group("what it looks for, and when").add_argument
    add("-f", "--flavor", help="a name, or a protofilter: 'auto:cpu>=8:ram>=30'")
    add("-P", "--provider", help="whose machine it must be")
    add("-r", "--region", help="where it must be")
    add("-T", "--tasks-per-worker", type=number(1, MOST), metavar="N", help="pending tasks for which it wants a worker")
    add("-m", "--minimum-tasks", type=number(0, MOST), metavar="N", help="with fewer pending tasks it takes none")
    add("-W", "--maximum-workers", type=number(0, MOST), metavar="N", help="with as many workers in the batch it takes none")
    add("-C", "--concurrency", type=number(1, MOST_SLOTS), metavar="N", help="tasks that run at once on a worker it takes")
    add("-p", "--prefetch", type=number(0, MOST_SLOTS), metavar="N", help="tasks that such a worker holds ready beyond those")
    tables.add_details_option(parser)
    parser.set_defaults(long=True, no_header=False)


_RULE = ("flavor", "provider", "region", "tasks_per_worker", "minimum_tasks", "maximum_workers", "concurrency", "prefetch")
_UNSET = tuple(name for name in _RULE if name != "tasks_per_worker")


def _list_options(parser: Parser) -> None:
    parser.add_argument("-b", "--batch", help="of this batch")
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    return tables.show(server, lambda: tables.rows_of(server, "recruiters", arguments, batch=arguments.batch), COLUMNS, arguments)


def _create_options(parser: Parser) -> None:
    _which_options(parser)
    _rule_options(parser)


def _create(server: Server, arguments) -> int:
    given = {name: value for name in _RULE if (value := getattr(arguments, name)) is not None}
    made = server.recruiter_create(arguments.batch, arguments.rank, **given)
    return _show(server, made["id"], arguments)


def _update_options(parser: Parser) -> None:
    _which_options(parser)
    parser.add_argument("-N", "--new-rank", type=number(0, MOST), metavar="N", help="its rank from now on")
    parser.add_argument(
        "--unset", action="append", default=[], type=OneOf(_UNSET, "property"), metavar="FIELD",
        help="take this away, so that it no longer matters (repeatable): " + ", ".join(_UNSET),
    )  # fmt: skip
    _rule_options(parser)


def _update(server: Server, arguments) -> int:
    changes = {name: getattr(arguments, name) for name in _RULE} | {"new_rank": arguments.new_rank}
    for name in arguments.unset:
        if changes[name] is not None:
            raise InvalidRequest(f"{name} cannot be given a value and taken away at once", field="--unset")
        changes[name] = RESET
    if all(value is None for value in changes.values()):
        raise InvalidRequest("what should be changed? -f, -P, -r, -T, -m, -W, -C, -p, -N, --unset (-h tells more)")
    changed = server.recruiter_update(arguments.batch, arguments.rank, **changes)
    return _show(server, changed["id"], arguments)


def _show(server: Server, recruiter_id: int, arguments) -> int:
    recruiter = server.client.get(f"/recruiters/{recruiter_id}")
    tables.write([recruiter], COLUMNS, arguments)
    if recruiter["provider"] is not None and (why := _deploys_nothing(server, recruiter)):
        so = "until that changes it deploys nothing, and only takes workers that are there"
        print(f"scitq: {tables.safe(why)}; {so}", file=sys.stderr)
    return 0


def _deploys_nothing(server: Server, recruiter: dict) -> str | None:
    """Why one that has a provider can deploy nothing there now."""
    try:
        known = server.flavors(provider=recruiter["provider"])
    except InvalidRequest as error:
        return error.message
    for name, column in (("region", "region"), ("flavor", "name")):
        there, wanted = {row[column] for row in known}, recruiter[name]
        if there and wanted not in (None, AUTO, *there) and not is_protofilter(wanted):
            return f"no {name} {wanted!r:.80} of provider {recruiter['provider']} is known{nearest(wanted, there)}"
    found = server.flavors(recruiter["flavor"], provider=recruiter["provider"], region=recruiter["region"])
    return None if found else "no provider has room for what it looks for (`scitq manage flavor list`)"


def _delete_options(parser: Parser) -> None:
    _which_options(parser)
    selection.add_yes(parser)


def _delete(server: Server, arguments) -> int:
    if not selection.agree(f"delete recruiter {arguments.rank} of batch {tables.safe(arguments.batch)}", arguments):
        return 0 if arguments.dry_run else 1
    server.recruiter_delete(arguments.batch, arguments.rank)
    print(f"deleted recruiter {arguments.rank} of batch {tables.safe(arguments.batch)}")
    return 0


def _match_options(parser: Parser) -> None:
    _list_options(parser)
    parser.add_argument("-n", "--rank", type=number(0, MOST), metavar="N", help="of this rank")


def _match(server: Server, arguments) -> int:
    chosen = {"batch": arguments.batch, "rank": arguments.rank}
    order = "-id" if arguments.reverse else "id"
    return tables.show(
        server, lambda: server.client.pages("/recruiters/match", arguments.limit, order=order, **chosen), MATCHES, arguments
    )


def _named(workers: list[dict], idle: bool) -> str:
    """Workers by name, those of other batches with theirs."""
    return ", ".join(f"{worker['name']} ({worker['batch']})" for worker in workers if worker["idle"] is idle)


VERBS = (
    Verb("recruiter", "list", "the recruiters, of all batches or of one", _list_options, _list),
    Verb("recruiter", "match", "the workers that are what each recruiter looks for", _match_options, _match),
    Verb("recruiter", "create", "make the recruiter of a batch and rank, or make it this one", _create_options, _create),
    Verb("recruiter", "update", "change a recruiter", _update_options, _update),
    Verb("recruiter", "delete", "remove a recruiter; what it took stays until it idles", _delete_options, _delete),
)
