"""What a command writes, read piece by piece from where the server is.

The server keeps the first and the last half of the cap. So the first half is read in full; after it the reader jumps ahead, but
never past what may yet be the last half: whatever the command writes, no more than the cap is carried after its end.
"""

from __future__ import annotations

import contextlib
import os

from .protocol import OUTPUT_CAP_BYTES

HALF_BYTES = OUTPUT_CAP_BYTES // 2


class Output:
    """One stream of one execution. Offsets go on when the command empties its own file."""

    __slots__ = ("path", "position", "size", "_cut", "_changed_at", "_last")

    def __init__(self, path: str):
        self.path = path
        self.position = 0  # the server has all before it that it wants
        self.size = 0  # seen so far
        self._cut = 0  # bytes of the stream before the file begins: a command may empty it (`> /dev/stderr` does)
        self._changed_at = 0
        self._last = b""  # the bytes before `position`, by which an emptied and refilled file is told

    def look(self) -> bool:
        """Brings `size` up to date; whether there is something to send."""
        try:
            status = os.stat(self.path)
            in_file, changed_at = status.st_size, status.st_mtime_ns
        except OSError:  # not made yet, or removed by the command itself
            in_file = changed_at = 0
        refilled = self._cut + in_file == self.size and changed_at > self._changed_at and self.size > 0
        if self._cut + in_file < self.size or refilled or self.position < self._cut:
            self._begin_again()
        self.size, self._changed_at = self._cut + in_file, changed_at
        return self.behind

    def _begin_again(self) -> None:
        """The file is another one now; what was in it and not sent is gone, and the stream goes on from here."""
        self._cut, self._last = self.position, b""

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
            if start == self.position and not self._is_same(file.fileno()):
                self._begin_again()
                self.size = self._cut + os.fstat(file.fileno()).st_size
            data = os.pread(file.fileno(), min(limit, self.size - start), start - self._cut)
        if not data:
            self.size = self.position
        return start, data

    def _is_same(self, fd: int) -> bool:
        """Whether what is in the file before the position is what was sent."""
        before = self.position - self._cut - len(self._last)
        return os.pread(fd, len(self._last), before) == self._last if self._last else True

    def sent(self, position: int, last: bytes = b"") -> None:
        """The server has all before `position`; `last` are the bytes before it."""
        self.position, self._last = position, last

    def probe(self) -> int:
        """Up to where a server that has all has certainly got: asked about after a restart, instead of sending all again."""
        self.look()
        self.position = min(self.size, HALF_BYTES)
        return self.position
