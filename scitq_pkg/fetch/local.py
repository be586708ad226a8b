"""`file://`: paths of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from ..errors import NotFound, TransferFailed
from .progress import Meter
from .scheme import CHUNK_BYTES, Entry, Replaced, Scheme
from .transfer import replaceable, sending
from .uri import Uri


class Place(Scheme):
    """Files of this machine, or of what is mounted on it."""

    streams = 1

    def info(self, uri: Uri) -> Entry:
        path = Path(uri.place)
        if not path.is_file():
            raise NotFound(f"{uri}: {'it is a folder: end it with /' if path.is_dir() else 'there is no such file'}")
        return _entry(uri, path, path.name)

    def list(self, uri: Uri, recursive: bool = True) -> Iterator[Entry]:
        root = Path(uri.place)
        if not root.is_dir():
            raise NotFound(f"{uri}: there is no such folder")
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file():  # no pipe, no socket, no link to nowhere
                    relative = str(path.relative_to(root))
                    yield _entry(uri.child(relative), path, relative)
            if not recursive:
                for name in folders:
                    yield Entry(uri.child(name + "/"), name + "/")
                return

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes]:
        with open(entry.uri.place, "rb") as file:
            if start and _etag(os.fstat(file.fileno())) != entry.etag:
                raise Replaced(entry.uri)
            file.seek(start)
            left = None if stop is None else stop - start
            while left is None or left > 0:
                data = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not data:
                    return
                left = None if left is None else left - len(data)
                yield data

    def put(self, path: Path, uri: Uri, meter: Meter) -> None:
        target = replaceable(Path(uri.place))
        target.parent.mkdir(parents=True, exist_ok=True)
        with sending(path, target.name) as name:
            self._put(path, target.with_name(name), target, uri, meter)

    def _put(self, path: Path, part: Path, target: Path, uri: Uri, meter: Meter) -> None:
        try:
            with open(path, "rb") as source, open(part, "wb") as file:
                while data := source.read(CHUNK_BYTES):
                    file.write(data)
                    meter.add(len(data))
                file.flush()
                os.fsync(file.fileno())
            shutil.copystat(path, part)
            os.replace(part, target)
        except IsADirectoryError:
            raise TransferFailed(f"{uri}: there is a folder of that name") from None
        finally:
            part.unlink(missing_ok=True)

    def copy(self, entry: Entry, uri: Uri, meter: Meter) -> bool:
        self.put(Path(entry.uri.place), uri, meter)
        return True

    def delete(self, entries: list[Entry]) -> None:
        for entry in entries:
            Path(entry.uri.place).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is more in it, or it is where the deleting began
                Path(entry.uri.place).parent.rmdir() if "/" in entry.path else None


def _entry(uri: Uri, path: Path, relative: str) -> Entry:
    status = path.stat()
    return Entry(
        uri,
        relative,
        status.st_size,
        datetime.fromtimestamp(status.st_mtime, timezone.utc),
        etag=_etag(status),
    )


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_mtime_ns}"
