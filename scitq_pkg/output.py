"""What a command writes, read piece by piece from where the server is.

The server keeps the first and the last half of the cap. So the first half is read in full; after it the reader jumps ahead, but never past
what may yet be the last half: whatever the command writes, no more than the cap is carried after its end.
"""

from __future__ import annotations

import contextlib
import os

from .protocol import OUTPUT_CAP_BYTES

HALF_BYTES = OUTPUT_CAP_BYTES // 2


class Output:
    """One stream of one execution. Offsets go on when the command empties its own file."""

    __slots__ = ("path", "position", "size", "_cut")

    def __init__(self, path: str):
        self.path = path
        self.position = 0  # the server has all before it that it wants
        self.size = 0  # seen so far
        self._cut = 0  # bytes of the stream before the file begins: a command may empty it (`> /dev/stderr` does)

    def look(self) -> bool:
        """Brings `size` up to date; whether there is something to send."""
        try:
            in_file = os.stat(self.path).st_size
        except OSError:  # not made yet, or removed by the command itself
            in_file = 0
        if self._cut + in_file < self.size or self.position < self._cut:
            self._cut = self.position  # what was in the file and not sent is gone: the stream goes on from here
        self.size = self._cut + in_file
        return self.behind

    @property
    def behind(self) -> bool:
        return self.position < self.size

    def read(self, limit: int) -> tuple[int, bytes]:
        """The offset and at most `limit` of the next bytes; the position stays until `sent`."""
        start = self.position
        if start < HALF_BYTES:
            limit = min(limit, HALF_BYTES - start)
        else:
            start = max(start, self.size - HALF_BYTES)
        data = b""
        with contextlib.suppress(OSError), open(self.path, "rb", buffering=0) as file:  # the command may have removed it
            data = os.pread(file.fileno(), min(limit, self.size - start), start - self._cut)
        if not data:
            self.size = self.position
        return start, data

    def sent(self, position: int) -> None:
        """The server has all before `position`."""
        self.position = position

    def probe(self) -> int:
        """Up to where a server that has all would certainly have got: asked about after a restart, instead of sending all again."""
        self.look()
        self.position = min(self.size, HALF_BYTES)
        return self.position
