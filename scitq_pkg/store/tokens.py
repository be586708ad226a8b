"""Tokens: only their hashes are kept."""

from __future__ import annotations

from ..errors import Conflict
from . import events
from .schema import Token
from .transaction import Transaction

_SHOWN = "id, name, role, worker_id, created_at"


def create(tx: Transaction, name: str, role: str, hashed: str, who: str, worker_id: int | None = None) -> dict:
    """A new token, without its secret."""
    (token_id,) = tx.new_ids("token", 1)
    row = {"id": token_id, "name": name, "role": role, "worker_id": worker_id, "created_at": tx.now}
    tx.insert(Token, {**row, "hash": hashed})
    if worker_id is None:
        events.add(tx, who, "token.create", "token", [token_id], {"name": name, "role": role})
    return row


def renew(tx: Transaction, token_id: int, hashed: str) -> None:
    """Give a token another secret; the one before is worth nothing."""
    tx.run("UPDATE token SET hash = ? WHERE id = ?", (hashed, token_id))


def find_by_hash(tx: Transaction, hashed: str) -> dict | None:
    """The token of this hash, unless it was revoked."""
    return tx.one(f"SELECT {_SHOWN} FROM token WHERE hash = ? AND revoked_at IS NULL", (hashed,))


def valid(tx: Transaction) -> list[dict]:
    """Every token that was not revoked, with its `hash`."""
    return tx.all(f"SELECT {_SHOWN}, hash FROM token WHERE revoked_at IS NULL")


def find(tx: Transaction, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Tokens of people that were not revoked, in the order of their ids."""
    test, order = ("id < ?", "DESC") if descending else ("id > ?", "ASC")
    return tx.all(
        f"SELECT {_SHOWN} FROM token WHERE revoked_at IS NULL AND worker_id IS NULL "
        f"AND {test if after is not None else '? IS NULL'} ORDER BY id {order} LIMIT ?", (after, limit),
    )  # fmt: skip


def revoke(tx: Transaction, token_id: int, who: str) -> None:
    """Make a token worth nothing. Raises NotFound, and Conflict for the last administrator's: nobody could make another one."""
    row = tx.get(f"token {token_id}", "SELECT * FROM token WHERE id = ? AND revoked_at IS NULL", (token_id,))
    others = tx.value("SELECT COUNT(*) FROM token WHERE role = 'admin' AND revoked_at IS NULL AND id <> ?", (token_id,))
    if row["role"] == "admin" and not others:
        raise Conflict("this is the last administrator's token: make another one first")
    _end(tx, row, who)


def _end(tx: Transaction, row: dict, who: str) -> None:
    tx.run("UPDATE token SET revoked_at = ? WHERE id = ?", (tx.now, row["id"]))
    events.add(tx, who, "token.revoke", "token", [row["id"]], {"name": row["name"], "role": row["role"]})


def withdraw(tx: Transaction, hashed: str, who: str) -> None:
    """End a token that a server made for one run of its own, without a question."""
    row = find_by_hash(tx, hashed)
    if row is not None:
        _end(tx, row, who)


def is_valid(tx: Transaction, token_id: int) -> bool:
    """Whether a token is there and was not revoked, whatever a process remembers."""
    return tx.value("SELECT id FROM token WHERE id = ? AND revoked_at IS NULL", (token_id,)) is not None


def has_any(tx: Transaction, worker_id: int) -> bool:
    """Whether a worker has a token that was not revoked."""
    return tx.value("SELECT id FROM token WHERE worker_id = ? AND revoked_at IS NULL LIMIT 1", (worker_id,)) is not None


def revoke_of_worker(tx: Transaction, worker_id: int, but: int | None = None) -> None:
    """End every token of a worker, except for one."""
    tx.run(
        "UPDATE token SET revoked_at = ? WHERE worker_id = ? AND revoked_at IS NULL AND id <> ?", (tx.now, worker_id, but or 0)
    )
