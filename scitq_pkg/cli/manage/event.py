"""`scitq manage event`: who changed what, when."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from ...errors import InvalidRequest
from ...lib.server import Server
from .. import reader_is_gone
from ..parser import OneOf, Parser
from . import tables
from .tables import Column
from .verbs import Verb

KINDS = ("task", "batch", "worker", "recruiter", "notifier", "machine", "job", "flavor", "token", "server")
COLUMNS = (
    Column("id", "ID"),
    Column("at", "AT", text=tables.moment),
    Column("who", "WHO"),
    Column("action", "ACTION"),
    Column("ids", "OF"),
    Column("detail", "DETAIL"),
)
_WIDTHS = {"id": 6, "at": 25, "who": 10, "action": 15, "ids": 12}  # of what is written line by line
SHOWN = 100  # of a log that has no end, unless more is asked for
FOLLOW_SECONDS = 1.0  # between two looks at what is new


def _list_options(parser: Parser) -> None:
    add = parser.add_argument_group("which events (all that is given must hold)").add_argument
    add("--object", type=OneOf(KINDS, "object"), metavar="OBJECT", help="what was changed: " + "|".join(KINDS))
    add("--who", metavar="NAME", help="who changed it: the name of a token")
    add("--since", metavar="TIME", help="since then: 2h, 3d or 2026-02-28T12:00 (of this machine's zone)")
    add("--all", action="store_true", help=f"all of them (default: the newest {SHOWN})")
    tables.add_options(parser, watch=False)
    parser.add_argument("--follow", action="store_true", help="go on with new ones as they come, until Ctrl-C")


def _list(server: Server, arguments) -> int:
    """The newest last, unless --reverse."""
    if arguments.follow and (arguments.format == "json" or arguments.reverse):
        raise InvalidRequest("what is followed has no end: -o jsonl instead of json, and no --reverse", field="--follow")
    last = 0

    def noted(rows: Iterator[dict]) -> Iterator[dict]:
        nonlocal last
        for row in rows:
            last = max(last, row["id"])
            yield row

    columns = tuple(map(_of_fixed_width, COLUMNS)) if arguments.follow else COLUMNS
    tables.write(noted(_found(server, arguments)), columns, arguments)
    while arguments.follow:
        arguments.no_header = True
        sys.stdout.flush()
        time.sleep(FOLLOW_SECONDS)
        if reader_is_gone():  # as `| head` does: the next event may be far away
            return 0
        new = server.client.pages("/events", object=arguments.object, who=arguments.who, after=last)
        tables.write(noted(new), columns, arguments)
    return 0


def _found(server: Server, arguments) -> Iterator[dict]:
    chosen = {"object": arguments.object, "who": arguments.who, "since": tables.zoned(arguments.since)}
    if arguments.limit is None and (arguments.all or arguments.since):
        return server.client.pages("/events", order="-id" if arguments.reverse else "id", **chosen)
    most = arguments.limit or SHOWN
    newest = list(server.client.pages("/events", most + 1, order="-id", **chosen))
    if len(newest) > most and arguments.limit is None:
        print(f"scitq: the newest {most} are shown; --all shows all, --since 2h those of two hours", file=sys.stderr)
    return itertools.islice(newest, most) if arguments.reverse else reversed(newest[:most])


def _of_fixed_width(column: Column) -> Column:
    """What comes later stands under what was written before."""
    width, text = _WIDTHS.get(column.key, 0), column.text or tables.plain
    return replace(column, title=column.title.ljust(width), text=lambda value: text(value).ljust(width))


VERBS = (Verb("event", "list", "who changed what, when; the newest last", _list_options, _list),)
