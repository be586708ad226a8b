"""Unpacks archives that nobody vouches for: nothing is written outside of the folder, and the disk is not filled.

What would lead out (absolute names, `..`, links to elsewhere, names that go through such links) and what is no file (devices,
pipes) is refused, the whole archive with it: it is unpacked beside the folder's content, and moved there when all was good and
is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from .durable import settle, sync
from .errors import TransferFailed

CHUNK_BYTES = 2**20
SPARE_BYTES = 100 * 10**6  # of the disk, or
SPARE_SHARE = 0.02  # this share of a smaller one, stay free
SPARE_FILES = 1000
_ROOM_EVERY = 64 * 2**20  # bytes, or
_ROOM_FILES = 1000  # files, between two looks at the disk
_HEADER_BYTES = 2**20  # of what a tar says of one member, or of all: it is held in memory
_LINK_BYTES = 4096
_BESIDE = ".scitq-unpack-"
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def untar(archive: Path, folder: Path) -> list[Path]:
    """Unpacks a tar, plain or with gzip, bzip2 or xz, into a folder; what lies at its top there now. Raises TransferFailed."""
    return _unpacked(archive, folder, _tar_members)


def unzip(archive: Path, folder: Path) -> list[Path]:
    """Unpacks a zip into a folder; what lies at its top there now. Raises TransferFailed."""
    return _unpacked(archive, folder, _zip_members)


def gunzip(archive: Path, target: Path) -> None:
    """Unpacks one file of gzip; `target` is there when it is whole. Raises TransferFailed."""
    if archive.stat().st_size == 0:
        raise TransferFailed(f"{archive.name} is no whole gzip file: it is empty")
    room = _Room(target.parent, archive)
    with _told(archive, "is no whole gzip file"), beside(target.parent) as work:
        part = work / "file"
        with gzip.open(archive) as source, open(part, "wb") as file:
            _copy(source, file, room)
            os.fsync(file.fileno())
        os.replace(part, target)
        sync(target.parent)


def move(source: Path, target: Path) -> None:
    """Moves a file or a folder: folders become one with what is there, files take the place of what is there."""
    if source.is_dir() and not source.is_symlink() and target.is_dir() and not target.is_symlink():
        for inner in list(source.iterdir()):
            move(inner, target / inner.name)
        source.rmdir()
        return
    if target.is_dir() and not target.is_symlink():
        raise TransferFailed(f"{target} is a folder, and a file is to take its place")
    os.replace(source, target)


class _Member:
    """One thing in an archive: its name, and how it is made at a path."""

    def __init__(self, name: str, kind: str, mode: int, target: str = "", opened: Callable[[], BinaryIO] | None = None):
        self.name, self.kind, self.mode, self.target, self.opened = name, kind, mode, target, opened


def _unpacked(archive: Path, folder: Path, members: Callable[[Path], Iterator[_Member]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with _told(archive, "is no whole archive of its kind"), beside(folder) as work:
        unpacking = _Unpacking(work, archive, _Room(folder, archive))
        for member in members(archive):
            unpacking.make(member)
        unpacking.check_links()
        settle(work)
        tops = sorted(work.iterdir())
        for top in tops:
            move(top, folder / top.name)
        sync(folder)
        return [folder / top.name for top in tops]


@contextlib.contextmanager
def _told(archive: Path, broken: str) -> Iterator[None]:
    """What goes wrong inside, as users read it."""
    try:
        yield
    except TransferFailed:
        raise
    except _BROKEN as error:
        raise TransferFailed(f"{archive.name} {broken}: {error}") from error
    except OSError as error:
        raise TransferFailed(f"{archive.name} cannot be unpacked: {error.strerror}: {error.filename}") from error


@contextlib.contextmanager
def beside(folder: Path, prefix: str = _BESIDE, take_over: bool = False) -> Iterator[Path]:
    """A folder in `folder` whose name begins so, ours while we hold its lock, gone afterwards.

    Those of processes that were killed are removed; with `take_over` one of them is ours, as it was left.
    """
    made, held = _left(folder, prefix, take_over) or _made(folder, prefix)
    try:
        yield made
    finally:
        _remove(made)
        if held is not None:
            os.close(held)


def clean(folder: Path, prefix: str) -> None:
    """Removes what processes that were killed have left of `beside`."""
    _left(folder, prefix, False)


def _left(folder: Path, prefix: str, take_over: bool) -> tuple[Path, int] | None:
    found = None
    for left in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # it is in use, or another has just removed it
            lock = _lock(left)
            if take_over and found is None and left.exists():
                found = left, lock
                continue
            _remove(left)
            os.close(lock)
    return found


def _made(folder: Path, prefix: str) -> tuple[Path, int | None]:
    """A new folder and its lock; without one where the disk knows no locks: then nobody removes it but us."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        try:
            held = _lock(made)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process has just taken it for one that was left
        except OSError:
            return made, None
        if made.exists():
            return made, held
        os.close(held)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class _Unpacking:
    """One archive that is unpacked into an empty folder."""

    def __init__(self, root: Path, archive: Path, room: _Room):
        self.root, self.archive, self.room = os.path.realpath(root), archive, room
        self.folders = {self.root}  # surely in there, through no link: nothing takes the place of a folder
        self.links: list[tuple[str, str]] = []

    def make(self, member: _Member) -> None:
        """Makes one member. Raises TransferFailed if it is hostile."""
        path = self._inside(member.name)
        if path == self.root:
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if member.kind == "folder":
            os.makedirs(path, exist_ok=True)
            return
        if os.path.isdir(path) and not os.path.islink(path):
            self._refuse(f"{member.name!r:.200} is a folder and a file in it")
        with contextlib.suppress(FileNotFoundError):  # as it should be: an archive may hold a name twice
            os.unlink(path)
        self.room.count(0)
        if member.kind == "link":
            self._check_target(member)
            os.symlink(member.target, path)
            self.links.append((path, member.name))
        elif member.kind == "hard link":
            source = self._inside(member.target)
            if os.path.islink(source) or not os.path.isfile(source):
                self._refuse(f"{member.name!r:.200} is a link to what is no file in it")
            os.link(source, path)
        else:
            assert member.opened is not None
            with member.opened() as stream, open(path, "xb") as file:
                _copy(stream, file, self.room)
            os.chmod(path, member.mode & 0o755 | 0o600)

    def _inside(self, name: str) -> str:
        """The path of a name; refused if it, or a link on the way, leads out."""
        path = os.path.normpath(os.path.join(self.root, name))
        if name.startswith(("/", "\\")) or "\0" in name or ".." in name.split("/"):
            self._refuse(f"{name!r:.200} would lead out of the folder")
        parent = os.path.dirname(path)
        if path != self.root and parent not in self.folders:
            if not self._is_inside(parent):
                self._refuse(f"{name!r:.200} would lead out of the folder")
            if os.path.realpath(parent) == parent and os.path.isdir(parent):
                self.folders.add(parent)
        return path

    def check_links(self) -> None:
        """What a link led to when it was made may have become another thing since. Raises TransferFailed."""
        for path, name in self.links:
            if os.path.islink(path) and not self._is_inside(path):
                self._refuse(f"the link {name!r:.200} would lead out of the folder")

    def _check_target(self, member: _Member) -> None:
        target = os.path.join(self.root, os.path.dirname(member.name), member.target)
        if member.target.startswith("/") or not self._is_inside(target):
            self._refuse(f"the link {member.name!r:.200} to {member.target!r:.200} would lead out of the folder")

    def _is_inside(self, path: str) -> bool:
        return os.path.commonpath([self.root, os.path.realpath(path)]) == self.root

    def _refuse(self, why: str) -> NoReturn:
        raise TransferFailed(f"{self.archive.name}: {why}: refused")


def _copy(source: BinaryIO, file: BinaryIO, room: _Room) -> None:
    while data := source.read(CHUNK_BYTES):
        file.write(data)
        room.count(len(data))
    file.flush()


class _Room:
    """Looks at the disk now and then, so that what is unpacked cannot fill it."""

    def __init__(self, folder: Path, archive: Path):
        self.folder, self.archive = folder, archive
        disk = os.statvfs(folder)
        size = disk.f_blocks * disk.f_frsize
        self.every = min(_ROOM_EVERY, size // 20)
        self.spare = self.every + min(SPARE_BYTES, SPARE_SHARE * size)
        self.bytes, self.files = self.every, 0

    def count(self, size: int) -> None:
        """So many bytes (0: one file) are more. Raises TransferFailed when there is no room for much more."""
        self.bytes, self.files = self.bytes + size, self.files + (size == 0)
        if self.bytes < self.every and self.files < _ROOM_FILES:
            return
        self.bytes = self.files = 0
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < self.spare or (disk.f_files and disk.f_favail < SPARE_FILES):
            raise TransferFailed(f"{self.archive.name}: the disk of {self.folder} has no room for all that is in it")


# --- kinds of archives ----------------------------------------------------------------------------------------------------


def _tar_members(archive: Path) -> Iterator[_Member]:
    with _Tar.open(archive, "r|*") as tar:
        for one in tar:
            tar.members = []  # a million of them need no memory
            tar.headers.end(tar.pax_headers)
            if one.isdir():
                yield _Member(one.name, "folder", one.mode)
            elif one.issym():
                yield _Member(one.name, "link", one.mode, one.linkname)
            elif one.islnk():
                yield _Member(one.name, "hard link", one.mode, one.linkname)
            elif one.isfile():
                yield _Member(one.name, "file", one.mode, opened=lambda one=one: tar.extractfile(one))  # type: ignore[misc]
            else:
                raise TransferFailed(f"{archive.name}: {one.name!r:.200} is a device or a pipe: refused")
            tar.headers.begin()


class _Tar(tarfile.TarFile):
    """A tar that is read as a stream, through a guard of its headers."""

    def __init__(self, name, mode, fileobj, **options):
        self.headers = _Headers(fileobj, name)
        super().__init__(name, mode, self.headers, **options)


class _Headers:
    """The stream of a tar, of which only so much is taken for what it says of a member: that is held in memory."""

    def __init__(self, stream, name: Path | str):
        self._stream, self._archive = stream, os.path.basename(name)
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close
        self.begin()

    def begin(self) -> None:
        """A header comes."""
        self._left: int | None = _HEADER_BYTES

    def end(self, of_all: dict) -> None:
        """Data comes, as much as there is. `of_all`: what the headers so far said of all members."""
        self._left = None
        if sum(len(name) + len(value) for name, value in of_all.items()) > _HEADER_BYTES:
            self._refuse()

    def read(self, size: int) -> bytes:
        """As of a file."""
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                self._refuse()
        return self._stream.read(size)

    def _refuse(self) -> NoReturn:
        raise TransferFailed(f"{self._archive}: a name or another property in it is larger than 1 MB: refused")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for one in file.infolist():
            mode = one.external_attr >> 16
            if one.is_dir():
                yield _Member(one.filename, "folder", mode)
            elif stat.S_ISLNK(mode):
                with file.open(one) as stream:
                    target = stream.read(_LINK_BYTES)
                yield _Member(one.filename, "link", mode, os.fsdecode(target))
            else:
                yield _Member(one.filename, "file", mode or 0o644, opened=lambda one=one: file.open(one))  # type: ignore[misc]


def _remove(folder: Path) -> None:
    _make_removable(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _make_removable(folder: Path) -> None:
    for path, folders, _ in os.walk(folder):
        for name in folders:
            with contextlib.suppress(OSError):  # what cannot be removed then is told by nobody, and harms nobody
                os.chmod(os.path.join(path, name), 0o700)
