"""How much of a transfer is done: counted by all its threads, shown as a bar on a terminal."""

from __future__ import annotations

import shutil
import sys
import threading
import time

from ..errors import TransferFailed
from ..escapes import obeyed, safe

_DRAW_SECONDS = 0.2
_BAR = 20


class Meter:
    """Counts bytes and files. Once `stop` was called, `add` ends the thread that calls it."""

    def __init__(self, show: bool = False):
        self.files = self.files_done = 0
        self.bytes = self.bytes_done = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._start = self._drawn = time.monotonic()
        self._shows = show and obeyed(sys.stderr)

    def expect(self, files: int, size: int) -> None:
        """So much more is to come."""
        with self._lock:
            self.files += files
            self.bytes += size

    def add(self, size: int) -> None:
        """So many bytes have come (negative: they count no more)."""
        if self._stopped.is_set():
            raise TransferFailed("the transfer was stopped")
        with self._lock:
            self.bytes_done += size
            self._draw()

    def done(self) -> None:
        """One more file is whole."""
        with self._lock:
            self.files_done += 1
            self._draw()

    def stop(self) -> None:
        """Ends all who still count."""
        self._stopped.set()

    def wait(self, seconds: float, why: str = "") -> None:
        """Waits before it is tried again, but not after `stop`; on a terminal says why. Raises TransferFailed then."""
        if why and self._shows:
            self._put(f"again in {seconds:.0f} s: {safe(why)}")
        if self._stopped.wait(seconds):
            raise TransferFailed("the transfer was stopped")

    def close(self) -> None:
        """Leaves the last drawing on its line."""
        if self._shows:
            self._write()
            sys.stderr.write("\n")

    def _draw(self) -> None:
        if self._shows and time.monotonic() - self._drawn >= _DRAW_SECONDS:
            self._drawn = time.monotonic()
            self._write()

    def _write(self) -> None:
        seconds = max(1e-3, time.monotonic() - self._start)
        share = min(1.0, self.bytes_done / self.bytes) if self.bytes else 0.0
        filled = round(_BAR * share)
        rate = self.bytes_done / seconds
        text = (
            f"[{'#' * filled}{'.' * (_BAR - filled)}] {self.files_done}/{self.files} files  {self.bytes_done / 1e6:.1f} of "
            f"{self.bytes / 1e6:.1f} MB  {rate / 1e6:.1f} MB/s"
        )
        if rate and self.bytes > self.bytes_done:
            text += f"  {(self.bytes - self.bytes_done) / rate:.0f} s left"
        self._put(text)

    @staticmethod
    def _put(text: str) -> None:
        sys.stderr.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        sys.stderr.flush()
