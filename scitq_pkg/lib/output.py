"""The kept bytes of an execution, piece by piece; where the middle of a very long output is not kept, a line says so."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InvalidRequest, nearest
from ..protocol import STREAMS
from ..transport import Answer
from .client import Client


def pieces(client: Client, execution_id: int, stream: str, offset: int = 0, limit: int | None = None) -> Iterator[bytes]:
    """The bytes of 'stdout' or 'stderr' from an offset, all that is there or at most `limit`, as the server answers them."""
    if stream not in STREAMS:
        raise InvalidRequest(f"{stream!r} is no stream{nearest(stream, STREAMS)}: there are stdout and stderr", field="stream")
    left = limit
    while left is None or left > 0:
        answer = client.get_answer(f"/executions/{execution_id}/{stream}", offset=offset, limit=left)
        if not answer.body:
            return
        yield marked(answer)
        offset = int(answer.headers["X-Scitq-Next"])
        if offset >= int(answer.headers["X-Scitq-Size"]):
            return
        left = None if left is None else left - len(answer.body)


def marked(answer: Answer) -> bytes:
    """The bytes of an answer, after a line about those that were passed over between the kept head and tail."""
    skipped = int(answer.headers["X-Scitq-Skipped"])
    return (b"\n[scitq: %d bytes of this output were not kept]\n" % skipped if skipped else b"") + answer.body
