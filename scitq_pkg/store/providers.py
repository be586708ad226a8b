"""How it stands with the providers: whether they can be used, and when they were asked for their machines last."""

from __future__ import annotations

from .schema import Provider
from .transaction import Transaction


def told(tx: Transaction, name: str) -> None:
    """It has answered: there is no trouble, and what it told of its machines is new."""
    _put(tx, name, {"trouble": None, "trouble_at": None, "listed_at": tx.now})


def trouble(tx: Transaction, name: str, why: str) -> None:
    """It cannot be used now. The time is when that began."""
    since = tx.value("SELECT trouble_at FROM provider WHERE name = ?", (name,))
    _put(tx, name, {"trouble": why[:2000], "trouble_at": since or tx.now})


def _put(tx: Transaction, name: str, columns: dict) -> None:
    assignments = ", ".join(f"{column} = ?" for column in columns)
    if not tx.run(f"UPDATE provider SET {assignments} WHERE name = ?", (*columns.values(), name)):
        tx.insert(Provider, {"name": name, **columns})
    tx.changed = True


def all_of(tx: Transaction) -> dict[str, dict]:
    """By name: `trouble`, `trouble_at`, `listed_at`. One that was never asked is not among them."""
    return {row["name"]: row for row in tx.all("SELECT * FROM provider")}
