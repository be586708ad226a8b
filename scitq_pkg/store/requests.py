"""Request ids: a write that was answered is not done again, its answer is given again."""

from __future__ import annotations

import json
from typing import Any

from ..errors import Conflict
from .schema import Request
from .transaction import Transaction

KEPT_SECONDS = 7 * 24 * 3600.0  # longer than any client goes on trying


def seen(tx: Transaction, key: str, fingerprint: str) -> Any | None:
    """The answer to the request of this key, None if there was none. Raises Conflict if it was another request."""
    row = tx.one("SELECT fingerprint, answer FROM request WHERE key = ?", (key,))
    if row is None:
        return None
    if row["fingerprint"] != fingerprint:
        raise Conflict("another request was sent with this key: give every request a key of its own", field="Idempotency-Key")
    return json.loads(row["answer"])


def remember(tx: Transaction, key: str, fingerprint: str, answer: Any) -> None:
    """Keep the answer, in the transaction of the change itself."""
    tx.insert(Request, {"key": key, "fingerprint": fingerprint, "answer": json.dumps(answer), "at": tx.now})


def forget_old(tx: Transaction) -> int:
    """Remove answers that nobody will ask for again; how many."""
    return tx.run("DELETE FROM request WHERE at < ?", (tx.now - KEPT_SECONDS,))
