"""A large file on its way here: its parts come side by side, each written where it belongs.

Beside those who fetch, one thread brings what has come to the disk and remembers which parts are whole, and one sums the file
from its beginning on, so that nobody has to wait for the disk or for the sum of a whole file at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ..errors import TransferFailed
from .parallel import together
from .progress import Meter
from .scheme import Entry, Scheme
from .slices import spans

PART_BYTES = 32 * 2**20
_PIECE_BYTES = 256 * 1024


def done_file(part: Path) -> Path:
    """Where it is remembered which parts of this file are whole."""
    return part.with_name(part.name + ".parts")


def in_parts(scheme: Scheme, entry: Entry, part: Path, meter) -> str | None:
    """Brings the parts of `entry` that are not there yet into `part`; the md5 of the file, if one is to be compared with it."""
    assert entry.size is not None
    stops = dict(spans(entry.size, PART_BYTES))
    done = _read_done(part, entry.size) & stops.keys()
    known = sum(stops[start] - start for start in done)
    if meter.bytes < known:
        meter.add(known - meter.bytes)
    with open(part, "r+b") as file, open(done_file(part), "ab", buffering=0) as record:
        os.ftruncate(file.fileno(), entry.size)
        landing = _Landing(file.fileno(), record.fileno(), stops, done)

        def bring(start: int) -> None:
            _bring_span(scheme, entry, file.fileno(), (start, stops[start]), meter)
            landing.add(start)

        with landing.beside(sums=entry.md5 is not None):
            together(bring, [start for start in stops if start not in done], scheme.streams, Meter())
        return landing.md5


def _bring_span(scheme: Scheme, entry: Entry, descriptor: int, span: tuple[int, int], meter) -> None:
    position, stop = span
    for data in scheme.read(entry, position, stop):
        size = len(data)
        write_at(descriptor, data, position)
        position += size
        meter.add(size)
    if position != stop:
        raise TransferFailed(f"{entry.uri}: the connection ended {stop - position} bytes too soon", again=True)


def write_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """Writes all of it there. Raises OSError."""
    written = os.pwrite(descriptor, data, position)
    while written < len(data):  # the disk is nearly full: the rest says so
        written += os.pwrite(descriptor, memoryview(data)[written:], position + written)


def _read_done(part: Path, size: int) -> set[int]:
    """The starts of the parts that are whole; a line that was cut off counts for nothing.

    The file has its size before the first of them is: else the record is that of one that was killed when it had got its name.
    """
    record = done_file(part)
    if part.stat().st_size != size:
        record.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # none is
        lines = record.read_text(encoding="ascii").split("\n")[:-1]
        return {int(line) for line in lines if line.isdigit()}
    return set()


class _Landing:
    """What is done with parts that have come, while others come."""

    def __init__(self, descriptor: int, record: int, stops: dict[int, int], done: set[int]):
        self._descriptor, self._record, self._stops = descriptor, record, stops
        self._here, self._unsettled = set(done), []
        self._changed = threading.Condition()
        self._all_came = self._broken_off = False
        self._error: OSError | None = None
        self.md5: str | None = None

    def add(self, start: int) -> None:
        """A part has come. Raises OSError if an earlier one could not be brought to the disk."""
        with self._changed:
            self._here.add(start)
            self._unsettled.append(start)
            self._changed.notify_all()
        if self._error:
            raise self._error

    @contextlib.contextmanager
    def beside(self, sums: bool):
        """Settles (and sums) until the block has ended and all that came is on the disk. Raises OSError."""
        members = [threading.Thread(target=self._guarded, args=(act,)) for act in [self._settle, *([self._sum] if sums else [])]]
        for member in members:
            member.start()
        try:
            yield
        except BaseException:
            self._broken_off = True
            raise
        finally:
            with self._changed:
                self._all_came = True
                self._changed.notify_all()
            for member in members:
                member.join()
        if self._error:
            raise self._error

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._error = self._error or error

    def _settle(self) -> None:
        """Parts to the disk, all that wait at once, then their lines into the record."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsettled or self._all_came)
                starts, self._unsettled = self._unsettled, []
            if not starts:
                return
            os.fdatasync(self._descriptor)
            os.write(self._record, "".join(f"{start}\n" for start in starts).encode())

    def _sum(self) -> None:
        """The md5 of the file; a part is read as soon as it and all before it have come."""
        digest, view = hashlib.md5(usedforsecurity=False), memoryview(bytearray(_PIECE_BYTES))
        for start, stop in self._stops.items():
            with self._changed:
                self._changed.wait_for(lambda: start in self._here or self._all_came)
            at = start
            while at < stop:
                size = 0 if self._broken_off else os.preadv(self._descriptor, [view[: stop - at]], at)
                if not size:
                    return
                digest.update(view[:size])
                at += size
        self.md5 = digest.hexdigest()
