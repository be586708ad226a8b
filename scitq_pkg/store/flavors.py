"""The flavors of all providers, as each told them last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import events
from .schema import Flavor
from .transaction import Transaction

_TOLD = ("region", "name", "cpu", "ram", "disk", "gpus", "gpu", "gpumem", "tags", "price", "currency", "eviction", "available")
_COLUMNS = ("provider", *_TOLD, "updated_at")
_FIRST = {"gpus": 0, "tags": ""}  # where a provider says nothing


def replace(tx: Transaction, provider: str, flavors: Iterable[Mapping], who: str) -> int:
    """What a provider has is this (the fields of `cloud.provider.Flavor`), and nothing else; how many. Wakes who waits for it."""
    told = {(flavor["region"], flavor["name"]): flavor for flavor in flavors}
    tx.run("DELETE FROM flavor WHERE provider = ?", (provider,))
    rows = [(provider, *(_value(flavor, name) for name in _TOLD), tx.now) for flavor in told.values()]
    tx.insert_many(Flavor, _COLUMNS, rows)
    events.add(tx, who, "flavor.update", "flavor", [provider], {"flavors": len(rows)})
    tx.wake()
    return len(rows)


def _value(flavor: Mapping, name: str) -> object:
    value = flavor.get(name)
    return _FIRST.get(name) if value is None else value


def find(tx: Transaction, provider: str | None = None, region: str | None = None, name: str | None = None) -> list[dict]:
    """Flavors, cheapest first, those without a price last; `planned`: how many machines of it are coming, or came since its
    provider told of it.
    """
    given = (("provider", provider), ("region", region), ("name", name))
    chosen = {column: value for column, value in given if value is not None}
    tests = "".join(f" AND {column} = ?" for column in chosen)
    rows = tx.all(
        f"SELECT * FROM flavor WHERE 1 = 1{tests} ORDER BY price IS NULL, price, provider, region, name", list(chosen.values())
    )
    planned = _planned(tx)
    return [row | {"planned": planned.get((row["provider"], row["region"], row["name"]), 0)} for row in rows]


def _planned(tx: Transaction) -> dict[tuple, int]:
    """By provider, region and name. From the machines to the flavors: there are far more of the latter."""
    rows = tx.all(
        "SELECT machine.provider, machine.region, machine.flavor, COUNT(*) AS n FROM machine JOIN flavor ON "
        "flavor.provider = machine.provider AND flavor.region = machine.region AND flavor.name = machine.flavor "
        "WHERE machine.state IN ('planned', 'creating', 'booting') OR (machine.state IN ('up', 'evicted', 'deleting') "
        "AND machine.created_at > flavor.updated_at) GROUP BY machine.provider, machine.region, machine.flavor"
    )
    return {(row["provider"], row["region"], row["flavor"]): row["n"] for row in rows}


def counts(tx: Transaction) -> dict[str, int]:
    """How many flavors each provider has told."""
    return {row["provider"]: row["n"] for row in tx.all("SELECT provider, COUNT(*) AS n FROM flavor GROUP BY provider")}
