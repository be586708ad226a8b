"""One page about a batch that stands for itself: a file to keep, print or send, without a script and without anything fetched."""

from __future__ import annotations

from ..durable import write_whole
from ..errors import InvalidRequest
from ..lib import Server
from .facts import gather
from .page import page

__all__ = ["write"]


def write(server: Server, batch: str, path: str) -> None:
    """Write the report of a batch, whole or not at all. Raises NotFound, InvalidRequest for a path that cannot be written."""
    text = page(gather(server.client, batch))
    try:
        write_whole(path, text.encode(errors="replace"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="-o") from None
