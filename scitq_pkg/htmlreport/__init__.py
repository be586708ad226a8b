"""One page about a batch that stands for itself: a file to keep, print or send, without a script and without anything fetched."""

from __future__ import annotations

import contextlib
import os

from ..errors import InvalidRequest
from ..lib import Server
from .facts import gather
from .page import page

__all__ = ["write"]


def write(server: Server, batch: str, path: str) -> None:
    """Write the report of a batch, whole or not at all. Raises NotFound, InvalidRequest for a path that cannot be written."""
    text = page(gather(server.client, batch))
    beside = f"{path}.{os.getpid()}"
    try:
        with open(beside, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # it was never there
            os.unlink(beside)
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="-o") from None
