"""The event log: one line a change, never altered."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .filters import moment_of
from .schema import Event
from .transaction import Transaction


def add(tx: Transaction, who: str, action: str, kind: str, ids: Iterable[int | str], detail: dict | None = None) -> None:
    """Note that `who` did `action` ("task.create") to things of a kind ("task"): ids (runs become ranges) or names."""
    (event_id,) = tx.new_ids("event", 1)
    row = {"id": event_id, "at": tx.now, "who": who, "action": action, "object": kind, "ids": json.dumps(_ranges(list(ids)))}
    tx.insert(Event, {**row, "detail": json.dumps(detail) if detail else None})


def find(tx: Transaction, chosen: dict, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Events in the order of their ids, those past `after`; `chosen`: object, who, since."""
    tests, params = ["1 = 1"], []
    for column in ("object", "who"):
        if chosen.get(column) is not None:
            tests.append(f"{column} = ?")
            params.append(chosen[column])
    if chosen.get("since") is not None:
        tests.append("at >= ?")
        params.append(moment_of(chosen["since"], tx.now))
    if after is not None:
        tests.append("id < ?" if descending else "id > ?")
        params.append(after)
    order = "DESC" if descending else "ASC"
    rows = tx.all(f"SELECT * FROM event WHERE {' AND '.join(tests)} ORDER BY id {order} LIMIT ?", (*params, limit))
    for row in rows:
        row["ids"] = json.loads(row["ids"])
        row["detail"] = json.loads(row["detail"]) if row["detail"] else None
    return rows


def _ranges(ids: list) -> list:
    """Numbers that follow each other as one text: ten thousand tasks of one request are one word."""
    found: list = []
    for value in ids:
        last = found[-1] if found else None
        if isinstance(value, int) and isinstance(last, list) and value == last[1] + 1:
            last[1] = value
        else:
            found.append([value, value] if isinstance(value, int) else value)
    return [_word(item) for item in found]


def _word(item):
    if not isinstance(item, list):
        return item
    return item[0] if item[0] == item[1] else f"{item[0]}-{item[1]}"
