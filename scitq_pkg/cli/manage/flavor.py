"""`scitq manage flavor`: the sizes of machines that providers have."""

from __future__ import annotations

from ...lib.server import Server
from ..parser import Parser
from . import tables
from .job import followed
from .tables import Column
from .verbs import Verb


def money(amount: float | None, currency: str | None) -> str:
    """`0.35 EUR`, with as many digits as matter."""
    if amount is None:
        return ""
    return f"{amount:.4g} {currency or ''}".rstrip() if amount < 100 else f"{amount:.2f} {currency or ''}".rstrip()


def _gpus(row: dict) -> str:
    return f"{row['gpus']} {row['gpu'] or ''}".strip() if row["gpus"] else ""


def _gigabytes(value: float) -> str:
    return f"{value:g}"


COLUMNS = (
    Column("name", "FLAVOR"),
    Column("provider", "PROVIDER"),
    Column("region", "REGION"),
    Column("cpu", "CPU", right=True),
    Column("ram", "RAM GB", text=_gigabytes, right=True),
    Column("disk", "DISK GB", text=_gigabytes, right=True),
    Column("gpus", "GPU", text=_gpus, whole=True),
    Column("tags", "TAGS"),
    Column("price", "AN HOUR", text=lambda row: money(row["price"], row["currency"]), whole=True, right=True),
    Column("eviction", "EVICTED %", text=_gigabytes, right=True),
    Column("available", "LEFT", right=True),
    Column("gpumem", "GPU GB", long=True, text=_gigabytes, right=True),
    Column("planned", "PLANNED", long=True, right=True),
    Column("updated_at", "TOLD", long=True, text=tables.moment),
)


def _list_options(parser: Parser) -> None:
    parser.add_argument("flavor", nargs="?", metavar="FLAVOR", help="a name, or a protofilter: 'auto:cpu>=8:ram>=30'")
    parser.add_argument("-f", "--filter", metavar="FLAVOR", help="the same")
    parser.add_argument("-P", "--provider", help="of this provider")
    parser.add_argument("-r", "--region", help="in this region")
    tables.add_options(parser, watch=False)
    parser.set_defaults(watch=None)


def _list(server: Server, arguments) -> int:
    chosen = {"filter": arguments.flavor or arguments.filter, "provider": arguments.provider, "region": arguments.region}

    def rows() -> list[dict]:
        found = server.client.get("/flavors", **chosen)["items"]
        return (found[::-1] if arguments.reverse else found)[: arguments.limit]

    return tables.show(server, rows, COLUMNS, arguments)


def _update_options(parser: Parser) -> None:
    parser.add_argument("-P", "--provider", help="this provider alone")
    parser.add_argument("-w", "--wait", action="store_true", help="until they have answered")


def _update(server: Server, arguments) -> int:
    jobs = server.flavors_update(arguments.provider)
    if not arguments.wait:
        print("asking: scitq manage job list -k flavors shows how it goes")
        return 0
    return followed(server, jobs)


VERBS = (
    Verb("flavor", "list", "flavors, cheapest first; of a protofilter in the order they are taken", _list_options, _list),
    Verb("flavor", "update", "ask the providers what they have, at what price", _update_options, _update),
)
