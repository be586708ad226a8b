"""Parts of a large file: where they begin and end, and how each is read on its way up."""

from __future__ import annotations

import os

from ..errors import TransferFailed
from .scheme import CHUNK_BYTES

_SHORTER = "the file became shorter while it was sent"


def spans(size: int, part: int, most: int | None = None) -> list[tuple[int, int]]:
    """Begin and end of parts of `part` bytes, or of larger ones where there would be more than `most`."""
    part = max(part, -(-size // most)) if most else part
    return [(start, min(start + part, size)) for start in range(0, size, part)]


class Slice:
    """A part of a file as senders read one: from the disk while it is sent, so that parts cost no memory.

    Raises TransferFailed when the file does not reach so far any more; a sender may hide that in an error of its own.
    """

    def __init__(self, descriptor: int, start: int, stop: int):
        if os.fstat(descriptor).st_size < stop:
            raise TransferFailed(_SHORTER)
        self._descriptor, self._start, self._stop, self._at = descriptor, start, stop, start

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; a sender that asks for little gets more, as it takes whatever comes. Raises TransferFailed."""
        left = self._stop - self._at
        data = os.pread(self._descriptor, left if size < 0 else min(max(size, CHUNK_BYTES), left), self._at)
        if left and not data:
            raise TransferFailed(_SHORTER)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes there; positions count from the beginning of the part."""
        self._at = offset + {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._stop}[whence]
        return self.tell()

    def tell(self) -> int:
        """Where it is."""
        return self._at - self._start
