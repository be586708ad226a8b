"""Output of executions: pieces by offset, the first half and the last half of the cap are kept."""

from __future__ import annotations

from ..protocol import OUTPUT_CAP_BYTES, STREAMS
from .transaction import Transaction

HEAD_BYTES = OUTPUT_CAP_BYTES // 2
TAIL_BYTES = OUTPUT_CAP_BYTES - HEAD_BYTES
TRIM_BYTES = 2**20  # the tail may be longer by so much, before its oldest pieces are dropped
LAST_BYTES = 2000  # of the output, kept beside the execution to search and group by


def append(tx: Transaction, row: dict, stream: str, offset: int, data: memoryview) -> None:
    """Store bytes at `offset`; what is here already is passed over, what would leave a hole in the head is refused silently.

    `row` is the execution's; its size of the stream is brought up to date. The answer's `offsets` tell the worker of a refusal.
    """
    have = row[f"{stream}_size"]
    end = offset + len(data)
    if end <= have or (offset > have and have < HEAD_BYTES):
        return
    number = STREAMS.index(stream)
    if offset > have:
        tx.run("DELETE FROM output WHERE execution_id = ? AND stream = ? AND start >= ?", (row["id"], number, HEAD_BYTES))
    else:
        data, offset = data[have - offset :], have
    for start, piece in _split_at_head(offset, data):
        tx.run(
            "INSERT INTO output (execution_id, stream, start, data) VALUES (?, ?, ?, ?)", (row["id"], number, start, bytes(piece))
        )
    tx.run(f"UPDATE execution SET {stream}_size = ? WHERE id = ?", (end, row["id"]))
    tx.changed = True
    row[f"{stream}_size"] = end
    if end > OUTPUT_CAP_BYTES + TRIM_BYTES:
        tx.run(
            "DELETE FROM output WHERE execution_id = ? AND stream = ? AND start >= ? AND start + length(data) <= ?",
            (row["id"], number, HEAD_BYTES, end - TAIL_BYTES),
        )


def _split_at_head(offset: int, data: memoryview) -> list[tuple[int, memoryview]]:
    """No stored piece crosses the end of the head, so that the tail can be dropped by whole pieces."""
    if offset < HEAD_BYTES < offset + len(data):
        cut = HEAD_BYTES - offset
        return [(offset, data[:cut]), (HEAD_BYTES, data[cut:])]
    return [(offset, data)]


def last_lines(tx: Transaction, row: dict) -> str | None:
    """The end of stderr, or of stdout when nothing was written there; printable text, for searching."""
    for stream in ("stderr", "stdout"):
        size = row[f"{stream}_size"]
        if size:
            return _tail(tx, row["id"], STREAMS.index(stream), size)
    return None


def _tail(tx: Transaction, execution_id: int, number: int, size: int) -> str:
    pieces = tx.column(
        "SELECT data FROM output WHERE execution_id = ? AND stream = ? AND start + length(data) > ? ORDER BY start",
        (execution_id, number, size - LAST_BYTES),
    )
    return b"".join(bytes(piece) for piece in pieces)[-LAST_BYTES:].decode("utf-8", "replace").replace("\0", "\ufffd")
