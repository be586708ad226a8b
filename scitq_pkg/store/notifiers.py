"""Who is told what of a batch, and the messages that say it: written down before they are sent, kept until somebody took them.

That a batch is done is seen from what is there, not from the moment it happened: whoever looks later sees the same. `told` is the
newest execution of the batch that has been told of, so nothing is told twice, and whatever ran since is told again.
"""

from __future__ import annotations

import json
import secrets

from ..errors import Conflict
from ..protocol import CANCELED, FAILED, LIVE, PENDING, WAITING
from ..webhook import masked
from . import batches, events
from .schema import Message, Notifier
from .transaction import Transaction, marks

WHO = "notifier"  # its name in the event log
DONE, FAILURES = "done", "failures"
MOST = 50  # of a batch
_SELECT = (
    "SELECT notifier.id, batch_id, batch.name AS batch, kind, target, done, failures, told, failures_told, origin, "
    "notifier.created_at FROM notifier JOIN batch ON batch.id = notifier.batch_id WHERE 1 = 1"
)
_OPEN = "sent_at IS NULL AND given_up_at IS NULL"
_KEPT_SECONDS = 30 * 86400.0  # for which a message that is settled can be looked at
_BUSY = (PENDING, *LIVE)


# --- what people write ---------------------------------------------------------------------------------------------------


def put(tx: Transaction, given: dict, who: str) -> dict:
    """The notifier of this batch and target (`kind`, `target`), made or made like this one: twice is once.

    One that is made when all of a batch is done, or when so many failed already, tells of what comes, not of what was. Raises
    Conflict if the batch has too many.
    """
    batch_id = batches.ensure(tx, given["batch"])
    known = _of_target(tx, batch_id, given)
    if known is None:
        (notifier_id,) = tx.new_ids("notifier", 1)
        known = _of_target(tx, batch_id, given)  # by another server, until new ids were to be had
    if known is not None:
        return _update(tx, known, given, who)
    if tx.value("SELECT COUNT(*) FROM notifier WHERE batch_id = ?", (batch_id,)) >= MOST:
        raise Conflict(f"batch {given['batch']:.80} has {MOST} notifiers, which is the most: have a list of people told by one")
    columns = {name: given[name] for name in ("kind", "target", "done", "failures", "origin")}
    state = {"told": newest(tx, batch_id) if is_done(tx, batch_id) else None, **_known_failures(tx, batch_id, given)}
    tx.insert(Notifier, {"id": notifier_id, "batch_id": batch_id, **columns, **state, "created_at": tx.now})
    made = get(tx, notifier_id)
    detail = {name: made[name] for name in ("batch", "kind", "target", "done", "failures")}
    events.add(tx, who, "notifier.create", "notifier", [notifier_id], detail)
    tx.wake()
    return made


def _of_target(tx: Transaction, batch_id: int, given: dict) -> int | None:
    return tx.value(
        "SELECT id FROM notifier WHERE batch_id = ? AND kind = ? AND target = ?", (batch_id, given["kind"], given["target"])
    )


def _known_failures(tx: Transaction, batch_id: int, given: dict) -> dict:
    return {"failures_told": given["failures"] is not None and has_failures(tx, batch_id, given["failures"])}


def _update(tx: Transaction, notifier_id: int, given: dict, who: str) -> dict:
    known = get(tx, notifier_id)
    changes = {name: given[name] for name in ("done", "failures", "origin") if given[name] != known[name]}
    if not changes:
        return known
    batch_id = tx.value("SELECT batch_id FROM notifier WHERE id = ?", (notifier_id,))
    state = _known_failures(tx, batch_id, given) if "failures" in changes else {}
    if changes.get("done") and is_done(tx, batch_id):
        state["told"] = newest(tx, batch_id)
    tx.update(Notifier, notifier_id, changes | state)
    events.add(tx, who, "notifier.update", "notifier", [notifier_id], {"batch": known["batch"], **changes})
    tx.wake()
    return get(tx, notifier_id)


def get(tx: Transaction, notifier_id: int) -> dict:
    """A notifier and its latest message. Raises NotFound."""
    return _shown(tx, [tx.get(f"notifier {notifier_id}", f"{_SELECT} AND notifier.id = ?", (notifier_id,))])[0]


def find(tx: Transaction, batch: str | None, limit: int, after: int | None, descending: bool) -> list[dict]:
    """Notifiers in the order of their ids, those past `after`, of a batch if one is given."""
    tests, params = [], []
    if batch is not None:
        tests.append(" AND batch.name = ?")
        params.append(batch)
    if after is not None:
        tests.append(f" AND notifier.id {'<' if descending else '>'} ?")
        params.append(after)
    order = f" ORDER BY notifier.id {'DESC' if descending else 'ASC'} LIMIT ?"
    return _shown(tx, tx.all(_SELECT + "".join(tests) + order, (*params, limit)))


def _shown(tx: Transaction, rows: list[dict]) -> list[dict]:
    """Without what is secret, with `last`: how its latest message fared."""
    ids = [row["id"] for row in rows]
    found = tx.all(
        "SELECT notifier_id, event, attempts, created_at, sent_at, given_up_at, error FROM message WHERE id IN "
        f"(SELECT MAX(id) FROM message WHERE notifier_id IN ({marks(ids)}) GROUP BY notifier_id)", ids,
    ) if ids else []  # fmt: skip
    last = {row.pop("notifier_id"): row for row in found}
    for row in rows:
        row["target"] = shown_target(row)
        row["done"] = bool(row["done"])
        row["last"] = last.get(row["id"])
        for name in ("batch_id", "told", "failures_told"):
            del row[name]
    return rows


def shown_target(row: dict) -> str:
    """Where messages go, as it may be shown."""
    return masked(row["target"]) if row["kind"] == "webhook" else row["target"]


def delete(tx: Transaction, notifier_id: int, who: str) -> None:
    """Remove a notifier with what it has not sent yet. Raises NotFound."""
    known = get(tx, notifier_id)
    tx.run(f"DELETE FROM message WHERE notifier_id = ? AND {_OPEN}", (notifier_id,))
    tx.run("DELETE FROM notifier WHERE id = ?", (notifier_id,))
    events.add(tx, who, "notifier.delete", "notifier", [notifier_id], {name: known[name] for name in ("batch", "kind", "target")})


# --- what there is to tell ------------------------------------------------------------------------------------------------


def standing(tx: Transaction) -> list[dict]:
    """All notifiers, as they are kept."""
    return tx.all(_SELECT)


def newest(tx: Transaction, batch_id: int) -> int:
    """The newest execution of the tasks of a batch, 0 if there was none."""
    return tx.value("SELECT MAX(execution_id) FROM task WHERE batch_id = ?", (batch_id,)) or 0


def newest_of_all(tx: Transaction) -> int:
    """The newest execution of all, 0 if there was none."""
    return tx.value("SELECT MAX(id) FROM execution") or 0


def stirred(tx: Transaction, after: int) -> set[int]:
    """The batches that have executions newer than that one."""
    return set(tx.column("SELECT DISTINCT batch_id FROM execution WHERE id > ?", (after,)))


def is_done(tx: Transaction, batch_id: int) -> bool:
    """Whether a batch has tasks, and none that will do anything before somebody does: what waits for a failed one does not."""
    busy = tx.value(f"SELECT 1 FROM task WHERE batch_id = ? AND state IN ({marks(_BUSY)}) LIMIT 1", (batch_id, *_BUSY))
    if busy or tx.value("SELECT 1 FROM task WHERE batch_id = ? LIMIT 1", (batch_id,)) is None:
        return False
    waits = tx.value("SELECT 1 FROM task WHERE batch_id = ? AND state = ? LIMIT 1", (batch_id, WAITING))
    return waits is None or not _may_go_on(tx, batch_id)


def _may_go_on(tx: Transaction, batch_id: int) -> bool:
    """Whether any waiting task of a batch needs no failed or canceled one, be it by others of the batch."""
    return tx.value(
        "WITH RECURSIVE stuck(id) AS ("
        "SELECT task.id FROM task JOIN requirement ON requirement.task_id = task.id "
        "JOIN task AS needed ON needed.id = required_id "
        "WHERE task.batch_id = ? AND task.state = ? AND needed.state IN (?, ?) UNION "
        "SELECT task.id FROM stuck JOIN requirement ON required_id = stuck.id JOIN task ON task.id = requirement.task_id "
        "WHERE task.batch_id = ? AND task.state = ?) "
        "SELECT 1 FROM task WHERE batch_id = ? AND state = ? AND id NOT IN (SELECT id FROM stuck) LIMIT 1",
        (batch_id, WAITING, FAILED, CANCELED, batch_id, WAITING, batch_id, WAITING),
    ) is not None  # fmt: skip


def has_failures(tx: Transaction, batch_id: int, more_than: int) -> bool:
    """Whether so many tasks of a batch failed; counted no further than it matters."""
    found = "SELECT 1 FROM task WHERE batch_id = ? AND state = ? LIMIT ?"
    return tx.value(f"SELECT COUNT(*) FROM ({found}) AS found", (batch_id, FAILED, more_than + 1)) > more_than


def due(tx: Transaction, rows: list[dict], done: bool) -> list[tuple[dict, str]]:
    """What notifiers (rows of `standing`) of one batch have to tell now; `done`: whether it is for good."""
    mark = newest(tx, rows[0]["batch_id"]) if done and rows else 0
    told = [(row, FAILURES) for row in rows if _exceeds(tx, row) and not row["failures_told"]]
    return told + [(row, DONE) for row in rows if done and row["done"] and (row["told"] is None or row["told"] < mark)]


def _exceeds(tx: Transaction, row: dict) -> bool:
    return row["failures"] is not None and has_failures(tx, row["batch_id"], row["failures"])


def calmed(tx: Transaction, rows: list[dict]) -> list[dict]:
    """Notifiers that told of failures of which there are fewer again: the next ones are news."""
    return [row for row in rows if row["failures_told"] and not _exceeds(tx, row)]


def tell(tx: Transaction, batch_id: int, done: bool) -> int:
    """Write down the messages of what the notifiers of a batch have to tell now; how many."""
    locking = " FOR UPDATE OF notifier" if tx.postgresql else ""
    rows = tx.all(f"{_SELECT} AND batch_id = ?{locking}", (batch_id,))
    for row in calmed(tx, rows):
        tx.run("UPDATE notifier SET failures_told = ? WHERE id = ?", (False, row["id"]))
    found = due(tx, rows, done and is_done(tx, batch_id))
    for row, event in found:
        if event == DONE:
            tx.run("UPDATE notifier SET told = ? WHERE id = ?", (newest(tx, batch_id), row["id"]))
        else:
            tx.run("UPDATE notifier SET failures_told = ? WHERE id = ?", (True, row["id"]))
        _write(tx, row, event)
    return len(found)


def _write(tx: Transaction, row: dict, event: str) -> None:
    counts = {
        found["state"]: found["n"]
        for found in tx.all("SELECT state, COUNT(*) AS n FROM task WHERE batch_id = ? GROUP BY state", (row["batch_id"],))
    }
    (message_id,) = tx.new_ids("message", 1)
    tx.insert(Message, {
        "id": message_id, "key": secrets.token_hex(16), "notifier_id": row["id"], "batch": row["batch"], "kind": row["kind"],
        "target": row["target"], "event": event, "counts": json.dumps(counts), "failures": row["failures"],
        "created_at": tx.now, "attempts": 0, "next_at": tx.now,
    })  # fmt: skip


# --- what is sent ---------------------------------------------------------------------------------------------------------


def unsent(tx: Transaction, longest_pause: float, most: int) -> list[dict]:
    """Messages whose time has come, the first first; a clock that was set back holds none up for longer than the pause."""
    rows = tx.all(
        f"SELECT * FROM message WHERE {_OPEN} AND (next_at <= ? OR next_at > ?) ORDER BY next_at, id LIMIT ?",
        (tx.now, tx.now + longest_pause, most),
    )  # fmt: skip
    for row in rows:
        row["counts"] = json.loads(row["counts"])
    return rows


def next_at(tx: Transaction) -> float | None:
    """When the next message is to be sent; None: there is none."""
    return tx.value(f"SELECT MIN(next_at) FROM message WHERE {_OPEN}")


def attempt(tx: Transaction, message_id: int, pause: float) -> bool:
    """Note that a message is being sent, and is again after the pause if nobody says that it was; whether it is still to be."""
    return tx.run(
        f"UPDATE message SET attempts = attempts + 1, next_at = ?, error = NULL WHERE id = ? AND {_OPEN}",
        (tx.now + pause, message_id),
    ) > 0  # fmt: skip


def resume(tx: Transaction) -> None:
    """What a server was sending when it ended is sent again now."""
    tx.run(f"UPDATE message SET next_at = ? WHERE {_OPEN} AND attempts > 0 AND error IS NULL", (tx.now,))


def sent(tx: Transaction, message_id: int) -> None:
    """Somebody took a message."""
    tx.run("UPDATE message SET sent_at = ?, error = NULL WHERE id = ?", (tx.now, message_id))


def failed(tx: Transaction, message: dict, error: str, pause: float, last: bool) -> None:
    """Nobody took a message: it goes again after the pause, or after the `last` attempt never."""
    given_up = tx.now if last else None
    changed = tx.run(
        f"UPDATE message SET error = ?, next_at = ?, given_up_at = ? WHERE id = ? AND {_OPEN}",
        (error, tx.now + pause, given_up, message["id"]),
    )  # fmt: skip
    if changed and last:
        detail = {"batch": message["batch"], "target": shown_target(message), "event": message["event"], "error": error}
        events.add(tx, WHO, "notifier.give-up", "notifier", [message["notifier_id"]], detail)


def forget_old(tx: Transaction) -> None:
    """Remove messages that were settled long ago."""
    tx.run("DELETE FROM message WHERE COALESCE(sent_at, given_up_at) < ?", (tx.now - _KEPT_SECONDS,))
