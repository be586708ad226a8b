"""The one file for machines that join: never without a token."""

from __future__ import annotations

from ..onefile import pieces, published
from .answers import Answer
from .call import Call
from .routes import USER, WORKER, route

BYTES = "application/octet-stream"


@route("GET", "/install/scitq.pyz", USER + WORKER, "The one file that this server runs; HEAD tells its sha256", answer=BYTES)
def one_file(call: Call) -> Answer:
    """In pieces: it is 30 MB, and many machines may come at the same time."""
    found = published()
    tag = f'"{found.sha256}"'
    headers = {"ETag": tag, "X-Scitq-Sha256": found.sha256, "X-Scitq-Version": found.version}
    if call.environ.get("HTTP_IF_NONE_MATCH") == tag:
        return Answer(b"", 304, headers)
    headers |= {"Content-Type": BYTES, "Content-Length": str(found.size)}
    return Answer(pieces(found.path), headers=headers)
