"""What machines cost: hours by price, of a batch the hours in which they served it."""

from __future__ import annotations

from collections.abc import Sequence

from .transaction import Transaction, marks

_HOURS = "(COALESCE(stint.ended_at, ?) - stint.started_at) / 3600.0"


def of_batches(tx: Transaction, batch_ids: Sequence[int] | None = None) -> dict[int, dict]:
    """By batch, None: all, those alone that machines served: `cost` in `currency` so far, and `hours`.

    `cost` is None where no price is known. Where prices have several currencies, which are not converted, only one is named.
    """
    if batch_ids is not None and not batch_ids:
        return {}
    which = "" if batch_ids is None else f"WHERE stint.batch_id IN ({marks(batch_ids)}) "
    rows = tx.all(
        f"SELECT stint.batch_id, SUM({_HOURS}) AS hours, SUM({_HOURS} * price) AS cost, MAX(currency) AS currency FROM stint "
        f"JOIN machine ON machine.id = stint.machine_id {which}GROUP BY stint.batch_id", (tx.now, tx.now, *(batch_ids or ())),
    )  # fmt: skip
    return {row["batch_id"]: _rounded(row) for row in rows}


def _rounded(row: dict) -> dict:
    cost = row["cost"]
    return {"cost": None if cost is None else round(cost, 4), "currency": row["currency"], "hours": round(row["hours"], 2)}


def reached(tx: Transaction) -> dict[int, dict]:
    """The batches whose budget is spent: `name`, `budget`, `cost`, `currency` by id."""
    limited = tx.all("SELECT id, name, budget FROM batch WHERE budget IS NOT NULL")
    spent = of_batches(tx, [row["id"] for row in limited])
    found = {row["id"]: {"name": row["name"], "budget": row["budget"], **_spent(spent.get(row["id"]))} for row in limited}
    return {batch_id: row for batch_id, row in found.items() if row["cost"] >= row["budget"]}


def _spent(known: dict | None) -> dict:
    return {"cost": known["cost"] or 0.0, "currency": known["currency"]} if known else {"cost": 0.0, "currency": None}
