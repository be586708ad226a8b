"""`scitq manage db`: the database is backed up, upgraded and checked."""

from __future__ import annotations

import sys
from pathlib import Path

from ...errors import InvalidRequest
from ...lib.server import Server
from ..parser import Parser
from . import tables
from .verbs import Verb


def _backup_options(parser: Parser) -> None:
    """None of its own."""


def _backup(server: Server, arguments) -> int:
    """The path alone on stdout."""
    made = server.backup()
    print(made["path"], flush=True)
    print(
        f"scitq: a whole copy of the database, {tables.byte_size(made['size_bytes'])}, on the machine of the server",
        file=sys.stderr,
    )
    return 0


def _place_options(parser: Parser) -> None:
    """Which database: the same words, variables and file as those of `scitq server`."""
    add = parser.add_argument_group("which database (as for scitq server)").add_argument
    add(
        "--database",
        metavar="URL",
        help="sqlite:///path or postgresql://user@host/name (default: scitq.db in the data directory)",
    )
    add("--data", metavar="DIR", help="the data directory (default: ~/.local/share/scitq)")
    add("--config", metavar="FILE", help="a YAML file of settings")


def _settings(arguments):
    from ... import settings

    return settings.load({"database": arguments.database, "data": arguments.data}, arguments.config)


def _upgrade(arguments) -> int:
    from ...store import upkeep

    chosen = _settings(arguments)
    before, now = upkeep.upgrade(chosen.database, chosen.data)
    told = f"is up to date, at schema {now}" if before == now else f"was upgraded from schema {before} to {now}"
    print(f"the database {told}")
    return 0


def _check_options(parser: Parser) -> None:
    parser.add_argument("path", nargs="?", metavar="PATH", help="an SQLite file, a backup for instance (default: the server's)")
    _place_options(parser)


def _check(arguments) -> int:
    """Looks at a file that a server may have open."""
    from ...store import upkeep
    from ...store.databases import sqlite_path

    chosen = _settings(arguments)
    path = Path(arguments.path) if arguments.path else sqlite_path(chosen.database, chosen.data)
    if path is None:
        raise InvalidRequest("only SQLite files are checked here: PostgreSQL has pg_amcheck", field="--database")
    found = upkeep.check(path)
    for fault in found.faults:
        print(tables.safe(fault))
    size = tables.byte_size(found.size_bytes)
    if found.faults:
        print(f"scitq: {path} is damaged: restore a backup (docs/server.md)", file=sys.stderr)
        return 1
    print(f"{path} is whole: {found.tasks} task{'s' if found.tasks != 1 else ''}, {size}, schema {found.schema}")
    return 0


VERBS = (
    Verb("db", "backup", "copy an SQLite database while it is in use; the path of the copy", _backup_options, _backup),
    Verb("db", "upgrade", "bring a database up to date without serving it", _place_options, _upgrade, local=True),
    Verb("db", "check", "read an SQLite file through and tell what is damaged", _check_options, _check, local=True),
)
