"""How it stands with the providers: whether they can be used, and when they were asked for their machines last."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .schema import Provider, Setting
from .transaction import Transaction


def told(tx: Transaction, name: str) -> None:
    """It has answered: there is no trouble, and what it told of its machines is new."""
    _put(tx, name, {"trouble": None, "trouble_at": None, "listed_at": tx.now})


def trouble(tx: Transaction, name: str, why: str) -> None:
    """It cannot be used now. The time is when that began."""
    since = tx.value("SELECT trouble_at FROM provider WHERE name = ?", (name,))
    _put(tx, name, {"trouble": why[:2000], "trouble_at": since or tx.now})


def configured(tx: Transaction, sums: Mapping[str, str]) -> list[str]:
    """These are the providers from now on, each with a sum of its configuration: those whose sum is another than before, or new.

    What is known of others is forgotten: nobody asks them any more.
    """
    before = json.loads(tx.value("SELECT value FROM setting WHERE name = 'providers'") or "{}")
    if before != sums:
        tx.run("DELETE FROM setting WHERE name = 'providers'")
        tx.insert(Setting, {"name": "providers", "value": json.dumps(dict(sums))})
    for name in all_of(tx).keys() - sums.keys():
        tx.run("DELETE FROM provider WHERE name = ?", (name,))
    return [name for name, found in sums.items() if before.get(name) != found]


def _put(tx: Transaction, name: str, columns: dict) -> None:
    assignments = ", ".join(f"{column} = ?" for column in columns)
    if not tx.run(f"UPDATE provider SET {assignments} WHERE name = ?", (*columns.values(), name)):
        tx.insert(Provider, {"name": name, **columns})
    tx.changed = True


def all_of(tx: Transaction) -> dict[str, dict]:
    """By name: `trouble`, `trouble_at`, `listed_at`. One that was never asked is not among them."""
    return {row["name"]: row for row in tx.all("SELECT * FROM provider")}
