"""`scitq manage notifier`: who is told when a batch is done, or when tasks of it failed."""

from __future__ import annotations

import sys
from pathlib import Path

from ...errors import InvalidRequest
from ...lib.server import Server
from ...protocol import DEFAULT_BATCH
from ..parser import Parser, number
from . import selection, tables
from .tables import Column
from .verbs import Verb

COLUMNS = (
    Column("id", "ID"),
    Column("batch", "BATCH"),
    Column("target", "TO"),
    Column("", "WHEN", text=lambda row: _when(row), whole=True),
    Column("last", "LAST MESSAGE", text=lambda last: _fared(last)),
    Column("kind", "KIND", long=True),
    Column("origin", "MADE BY", long=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
)
MOST = 2**31 - 1


def _when(row: dict) -> str:
    words = ["done"] if row["done"] else []
    return ", ".join(words + ([f"more than {row['failures']} failed"] if row["failures"] is not None else []))


def _fared(last: dict) -> str:
    """What became of a message."""
    if last["sent_at"]:
        return f"{last['event']}, sent {tables.ago(last['sent_at'])} ago"
    told = f"given up {tables.ago(last['given_up_at'])} ago" if last["given_up_at"] else "on its way"
    tries = f" after {last['attempts']} attempts: {last['error']}" if last["error"] else ""
    return f"{last['event']}, {told}{tries}"


def _list_options(parser: Parser) -> None:
    parser.add_argument("-b", "--batch", help="of this batch")
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    return tables.show(server, lambda: tables.rows_of(server, "notifiers", arguments, batch=arguments.batch), COLUMNS, arguments)


def _create_options(parser: Parser) -> None:
    add = parser.add_argument
    add("-b", "--batch", default=DEFAULT_BATCH, help=f"the batch (default: {DEFAULT_BATCH})")
    add("--webhook-file", metavar="FILE", help="a file with the URL that gets JSON; - is stdin. It is a secret: no argument")
    add("--mail", metavar="ADDRESS", help="the address that gets mail")
    add("--failures", type=number(0, MOST), metavar="N", help="tell when more tasks than this failed")
    add("--no-done", action="store_true", help="do not tell when the batch is done")
    tables.add_details_option(parser)
    parser.set_defaults(long=True, no_header=False)


def _create(server: Server, arguments) -> int:
    if (arguments.webhook_file is None) == (arguments.mail is None):
        raise InvalidRequest("who should be told? give --webhook-file FILE or --mail ADDRESS")
    webhook = _text_of(arguments.webhook_file) if arguments.webhook_file else None
    done = not arguments.no_done
    made = server.notifier_create(arguments.batch, webhook, arguments.mail, done, arguments.failures)
    tables.write([server.client.get(f"/notifiers/{made['id']}")], COLUMNS, arguments)
    return 0


def _text_of(path: str) -> str:
    """The one line of a file. Raises InvalidRequest."""
    try:
        return (sys.stdin.read() if path == "-" else Path(path).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is no text"
        raise InvalidRequest(f"{path} cannot be read: {told}", field="--webhook-file") from None


def _delete_options(parser: Parser) -> None:
    parser.add_argument("id", type=number(1, MOST), metavar="ID", help="of the notifier")
    selection.add_yes(parser)


def _delete(server: Server, arguments) -> int:
    found = server.client.get(f"/notifiers/{arguments.id}")
    told = f"notifier {found['id']} of batch {tables.safe(found['batch'])}, to {tables.safe(found['target'])}"
    if not selection.agree(f"delete {told}, and what it has not sent yet", arguments):
        return 0 if arguments.dry_run else 1
    server.notifier_delete(arguments.id)
    print(f"deleted {told}")
    return 0


VERBS = (
    Verb("notifier", "list", "who is told of batches, and how the latest message fared", _list_options, _list),
    Verb("notifier", "create", "have somebody told by the server", _create_options, _create),
    Verb("notifier", "delete", "tell nobody any more", _delete_options, _delete),
)
