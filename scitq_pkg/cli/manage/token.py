"""`scitq manage token`: who may do what."""

from __future__ import annotations

import sys

from ...errors import Conflict, NotFound, nearest
from ...lib.server import Server
from ..parser import OneOf, Parser
from . import selection, tables
from .tables import Column
from .verbs import Verb

ROLES = ("admin", "user")  # those of workers are made when a worker registers
COLUMNS = (
    Column("id", "ID"),
    Column("name", "NAME"),
    Column("role", "ROLE"),
    Column("created_at", "CREATED", text=tables.moment),
)


def _create_options(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="whom or what it is for: the event log says it of every change")
    parser.add_argument("--role", type=OneOf(ROLES, "role"), default="user", help="user (default) or admin, who makes tokens too")


def _create(server: Server, arguments) -> int:
    """The token alone on stdout, so that it can go where it is needed without being seen."""
    made = server.token_create(arguments.name, arguments.role)
    print(made["token"], flush=True)
    print(
        f"scitq: token {made['id']} of {tables.safe(made['name'])} ({made['role']}), shown this once: keep it in a file "
        f"that only its owner reads and give --token-file FILE, or set SCITQ_TOKEN; with SCITQ_SERVER={server.url}",
        file=sys.stderr,
    )
    return 0


def _list_options(parser: Parser) -> None:
    tables.add_options(parser, watch=False)


def _list(server: Server, arguments) -> int:
    tables.write(tables.rows_of(server, "tokens", arguments), COLUMNS, arguments)
    return 0


def _revoke_options(parser: Parser) -> None:
    parser.add_argument("tokens", nargs="+", metavar="TOKEN", help="ids or names")
    selection.add_yes(parser)


def _revoke(server: Server, arguments) -> int:
    known = list(server.client.pages("/tokens"))
    chosen = {row["id"]: row for row in (_named(word, known) for word in arguments.tokens)}
    told = ", ".join(f"{tables.safe(row['name'])} (id {row['id']}, {row['role']})" for row in chosen.values())
    if not selection.agree(f"revoke {'the token' if len(chosen) == 1 else 'the tokens'} of {told}", arguments):
        return 0 if arguments.dry_run else 1
    for row in chosen.values():
        server.token_delete(row["id"])
        print(f"revoked {row['id']}, {tables.safe(row['name'])}", flush=True)
    return 0


def _named(word: str, known: list[dict]) -> dict:
    """The token of this id or name. Raises NotFound, and Conflict for a name that several have."""
    found = [row for row in known if str(row["id"]) == word] or [row for row in known if row["name"] == word]
    if not found:
        raise NotFound(f"there is no token '{word:.80}'{nearest(word, [row['name'] for row in known])}")
    if len(found) > 1:
        raise Conflict(f"several tokens are called '{word:.80}': give the id, {' or '.join(str(row['id']) for row in found)}")
    return found[0]


VERBS = (
    Verb("token", "create", "make a token, shown this once", _create_options, _create),
    Verb("token", "list", "who has one, and of which role", _list_options, _list),
    Verb("token", "revoke", "make tokens worth nothing, at once", _revoke_options, _revoke),
)
