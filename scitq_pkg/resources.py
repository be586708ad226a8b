"""Resources on a worker: fetched once however many tasks share them, remembered across restarts, shown to each by hard links.

resources/<key>/  new/           while it comes
                  files/         what came, read-only
                  resource.json  written last: without it the rest is rubbish. Holds the URI and the size and time of each file
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .durable import settle, sync
from .errors import TransferFailed

RECORD = "resource.json"
_BEGUN = re.compile(r"\..*\.scitq-.*", re.DOTALL)  # so `fetch` calls files while they come
_COPY_INSTEAD = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.ENOTSUP)


class Resources:
    """The resources of one worker. Its methods touch the disk: they are not for the event loop."""

    def __init__(self, base: str):
        self.base = Path(base)
        self.base.mkdir(mode=0o711, exist_ok=True)
        for folder in self.base.iterdir():
            if not (folder / RECORD).is_file():
                _remove(folder / "files")  # `new` stays: its fetch goes on where it was

    def coming(self, uri: str) -> str:
        """The folder that a resource is fetched into. Of an earlier time only beginnings are in it: what is whole may be another
        resource's by now, of a source that has changed since."""
        new = self._folder(uri) / "new"
        new.mkdir(parents=True, exist_ok=True)
        for path in list(_files(new)):
            if not _BEGUN.fullmatch(path.name):
                path.unlink()
        return str(new)

    def keep(self, uri: str, identity: list | None = None) -> None:
        """What was fetched is whole: it is kept from now on. `identity`: the paths, sizes and sums that its source told then."""
        folder = self._folder(uri)
        _remove(folder / "files")
        os.rename(folder / "new", folder / "files")
        for path in _files(folder / "files"):
            path.chmod(path.stat().st_mode & 0o555 | 0o444)
        settle(folder / "files")
        record = {"uri": uri, "files": _seen(folder / "files"), "identity": identity}
        beside = folder / f"{RECORD}.new"
        private = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # a URI may hold a password
        with open(private, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, folder / RECORD)
        sync(folder)

    def has(self, uri: str) -> bool:
        """Whether it is here, whole and unchanged; what was tampered with is removed."""
        record = self._record(uri)
        if record is None:
            return False
        if record.get("uri") == uri and record.get("files") == _seen(self._folder(uri) / "files"):
            return True
        _remove(self._folder(uri))
        return False

    def identity(self, uri: str) -> tuple[bool, list | None]:
        """Whether it is here, and what its source told when it was fetched: the source may be another one since."""
        return (True, (self._record(uri) or {}).get("identity")) if self.has(uri) else (False, None)

    def _record(self, uri: str) -> dict | None:
        try:
            return json.loads((self._folder(uri) / RECORD).read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError):
            return None

    def show(self, uri: str, into: str) -> None:
        """Puts hard links to its files into a task's folder. Raises TransferFailed when one of the same name is there already."""
        files = self._folder(uri) / "files"
        for path in _files(files):
            target = Path(into) / path.relative_to(files)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _link(path, target)
            except FileExistsError:
                name = target.relative_to(into)
                raise TransferFailed(f"two resources of the task have a file {name}: |mv:FOLDER parts them") from None
        os.utime(self._folder(uri) / RECORD)

    def prune(self, in_use: set[str], enough: float) -> None:
        """Removes those used longest ago, of those that no task has, until the disk has its free share; what never came whole
        first.
        """
        kept = {self._folder(uri).name for uri in in_use}
        found = [folder for folder in self.base.iterdir() if folder.name not in kept]
        for folder in sorted(found, key=_used_at):
            disk = os.statvfs(self.base)
            if disk.f_bavail >= enough * disk.f_blocks:
                return
            _remove(folder)

    def _folder(self, uri: str) -> Path:
        return self.base / hashlib.blake2s(uri.encode(errors="surrogateescape"), digest_size=12).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        yield from (Path(where, name) for name in [*names, *links])


def _used_at(folder: Path) -> float:
    """When a resource was used last, in seconds since the epoch; 0 if it is not whole."""
    with contextlib.suppress(FileNotFoundError):  # it is not
        return (folder / RECORD).stat().st_mtime
    return 0.0


def _seen(folder: Path) -> list[list]:
    """Path, size and time of each file."""
    found = []
    for path in _files(folder):
        status = path.lstat()
        found.append([str(path.relative_to(folder)), status.st_size, status.st_mtime_ns])
    return sorted(found)


def _link(path: Path, target: Path) -> None:
    if path.is_symlink():
        os.symlink(os.readlink(path), target)
        return
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in _COPY_INSTEAD:
            raise
        if target.exists():
            raise FileExistsError(str(target)) from None
        shutil.copy2(path, target)


def _remove(folder: Path) -> None:
    """The record first: half a resource must not look whole."""
    with contextlib.suppress(FileNotFoundError):  # it never had one
        (folder / RECORD).unlink()
    shutil.rmtree(folder, ignore_errors=True)
