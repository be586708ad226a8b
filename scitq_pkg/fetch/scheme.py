"""What one kind of place can do: a file of this package for each, behind this one interface.

A scheme moves bytes; trying again, resuming, parts in parallel, checking and renaming when whole is done once, in `transfer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from ..errors import InvalidRequest, TransferFailed, nearest
from .progress import Meter
from .uri import Uri

CHUNK_BYTES = 2**20
STALL_SECONDS = 60.0  # without a byte a transfer counts as failed


class Replaced(TransferFailed):
    """It is another file now than it was. What has come of it is of no use; whoever asks for it anew gets the new one."""

    def __init__(self, uri: Uri):
        super().__init__(f"{uri}: the file was replaced while it was fetched: fetch it again", again=True)


@dataclass(frozen=True)
class Entry:
    """One file somewhere."""

    uri: Uri
    path: str  # relative to what was listed
    size: int | None = None  # bytes; None: the place does not say
    modified_at: datetime | None = None  # aware
    md5: str | None = None  # hexadecimal
    etag: str | None = None  # changes when the content does
    ranges: bool = True  # whether it can be read from the middle on


class Scheme:
    """The base of all schemes.

    Every method raises NotFound, NotAllowed (credentials, rights) or TransferFailed; one with `again` may be tried again.
    """

    options: tuple[str, ...] = ()  # the transport options it knows

    def __init__(self, name: str, options: tuple[str, ...]):
        for option in options:
            if option not in self.options:
                known = f"there are {', '.join(f'@{one}' for one in self.options)}" if self.options else "it has none"
                raise InvalidRequest(f"{name}:// knows no option @{option}{nearest(option, self.options)}: {known}")
        self.name, self.chosen = name, options

    many = False  # whether one URI is several files
    streams = 4  # so many parts of a large file at once
    files = 8  # so many files at once

    def info(self, uri: Uri) -> Entry:
        """What is known of a file without fetching it."""
        raise NotImplementedError

    def list(self, uri: Uri, recursive: bool = True) -> Iterator[Entry]:
        """The files of a folder; not recursive: those directly in it, and folders as entries whose path ends in `/`."""
        self.refuse(uri, "cannot be listed: name the files")

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes | memoryview]:
        """The bytes from `start` up to `stop` (None: the end), as they come; a piece holds only until the next is asked for.

        Raises Replaced if it is another file now.
        """
        raise NotImplementedError

    def whole(self, entry: Entry) -> bytes | None:
        """The whole content of a small file, where there is a quicker way to it than `read`; None: there is none."""
        return None

    def fetch(self, entry: Entry, part: Path, meter: Meter) -> bool:
        """Brings the whole file to `part` in this scheme's own way, resuming what is there; False: it has none."""
        return False

    def bring_all(self, uri: Uri, folder: Path, meter: Meter, threads: int | None = None) -> list[Path]:
        """Where one URI is several files: all of them into a folder, in the scheme's own way; the files."""
        raise NotImplementedError

    def put(self, path: Path, uri: Uri, meter: Meter) -> None:
        """Sends a file; what is there afterwards is the whole file or what was there before."""
        self.refuse(uri, "cannot be written")

    def copy(self, entry: Entry, uri: Uri, meter: Meter) -> bool:
        """Copies within the place, without fetching; False: it cannot."""
        return False

    def delete(self, entries: list[Entry]) -> None:
        """Removes files; one that is not there any more is fine."""
        self.refuse(entries[0].uri, "cannot be deleted")

    def vouches(self, entry: Entry) -> bool:
        """Whether the md5 of an entry surely is that of the content; asked only when what came has another."""
        return True

    def refuse(self, uri: Uri, what: str) -> NoReturn:
        """Raises the error of what a scheme cannot do."""
        raise InvalidRequest(f"{uri}: what lies at {uri.scheme}:// {what}")
