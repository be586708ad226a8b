"""One file from anywhere to a local path, and many at once: resumed, tried again, checked, and there only when whole.

While it comes it is called `.NAME.scitq-KEY`: the key is made of what is known of its content, so that a beginning is gone on
with only while the source is the same. Parts of a large file come in parallel; which of them are whole is written beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import random
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from ..durable import sync
from ..errors import InvalidRequest, NotAllowed, ScitqError, TransferFailed
from .arrivals import Arrivals
from .parts import PART_BYTES, done_file, in_parts, write_at
from .progress import Meter
from .refusals import behind
from .scheme import CHUNK_BYTES, Entry, Replaced, Scheme

TRIES = 6  # without a byte of progress between
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
SMALL_BYTES = 4 * 2**20  # of such a file nobody waits for its disk alone
_LEFT = re.compile(r"((\..*\.scitq-)[0-9a-f]{12}(?:-\d+)?)(?:\.parts|\.aria2)?", re.DOTALL)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def download(
    scheme: Scheme, entry: Entry, target: Path, meter: Meter, tries: int = TRIES, arrivals: Arrivals | None = None
) -> None:  # fmt: skip
    """Brings a file to `target`, which is there only when it is whole. Raises NotFound, NotAllowed, TransferFailed.

    `tries`: failures without progress between, after which it is given up. With `arrivals` a small one gets its name only there.
    """
    with _telling(entry), _Held(target.parent / f"{_before(target)}{_key(entry)}") as part:
        small = entry.size is not None and entry.size <= SMALL_BYTES
        if not small:  # else the disk says it soon enough
            _check_room(entry, part.path)
        counted = _Counted(meter)
        insist(lambda: _bring(scheme, entry, part, counted), counted, f"{entry.uri}", tries)
    settle = partial(_settle, entry, part, target, meter)
    if arrivals is None or not small:
        settle()
    else:
        arrivals.add(part.descriptor, settle)


def _settle(entry: Entry, part: _Held, target: Path, meter: Meter) -> None:
    """Brings it to the disk, and then gives it its name."""
    with _telling(entry), part:
        os.fsync(part.descriptor)
        if entry.modified_at is not None:
            os.utime(part.path, times=(entry.modified_at.timestamp(),) * 2)
        os.replace(part.path, target)
        if _has_parts(entry):
            done_file(part.path).unlink(missing_ok=True)
    part.close()
    meter.done()


@contextlib.contextmanager
def _telling(entry: Entry) -> Iterator[None]:
    try:
        yield
    except ScitqError:
        raise
    except OSError as error:  # a folder where the file should be, a name that this disk does not take
        raise _told(error, f"{entry.uri}") from error


def replaceable(path: Path) -> Path:
    """The path, if a file may come there. Raises InvalidRequest for a device, a pipe or a socket: a file would take its place."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InvalidRequest(f"{path}: it is a device, a pipe or a socket, which a file would replace: name a file")
    return path


def clean(targets: Iterable[Path]) -> None:
    """Removes what is left of earlier transfers to these files, of what their sources were then, unless somebody is at it."""
    folders: dict[Path, list[Path]] = {}
    for target in targets:
        folders.setdefault(target.parent, []).append(target)
    for folder, files in folders.items():
        left = [found for name in os.listdir(folder) if ".scitq-" in name and (found := _LEFT.fullmatch(name))]
        beginnings = {_before(target) for target in files} if left else set()
        for found in left:
            if found[2] in beginnings:
                _remove_if_left(folder / found[1], folder / found[0])


def upload(scheme: Scheme, path: Path, uri, meter: Meter) -> None:
    """Sends a file. Raises NotFound, NotAllowed, TransferFailed."""
    counted = _Counted(meter)
    try:
        insist(lambda: scheme.put(path, uri, counted), counted, f"{uri}", from_start=True)
    except UnicodeEncodeError as error:
        raise TransferFailed(f"{str(path)!a}: its name is not UTF-8, which {uri.scheme}:// wants: rename it") from error
    meter.done()


def insist(act: Callable[[], None], counted: _Counted, what: str, tries: int = TRIES, from_start: bool = False) -> None:
    """Does it, and again after a failure that may pass, with longer and longer pauses; bytes that came begin the count anew."""
    failures = 0
    while True:
        before = counted.bytes
        try:
            return act()
        except OSError as error:
            if refusal := behind(error):
                raise NotAllowed(f"{what}: {refusal}") from error
            if isinstance(error, Replaced) or isinstance(error, ScitqError) and not may_pass(error):
                raise
            if not may_pass(error):
                raise _told(error, what) from error
            came = counted.bytes > before
            if from_start:
                counted.add(before - counted.bytes)
            failures = 1 if came and not from_start else failures + 1
            if failures >= tries:
                told = _sentence(error).removeprefix(f"{what}: ")
                raise TransferFailed(f"{what}: {told} (tried {tries} times)", again=True) from error
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
            counted.wait(pause * random.uniform(0.5, 1.0), _sentence(error))


def may_pass(error: OSError) -> bool:
    """Whether trying again may help: a connection that was lost or is silent, a server that is crowded."""
    if isinstance(error, ScitqError):
        return getattr(error, "again", False)
    return isinstance(error, (ConnectionError, TimeoutError))


def _told(error: OSError, what: str) -> Exception:
    """The error as users read it."""
    if isinstance(error, ScitqError):
        return error
    if error.errno in _FULL:
        return TransferFailed(f"{what}: no space left for it on {error.filename or 'the disk'}: make room there")
    return TransferFailed(f"{what}: {_sentence(error)}")


def _sentence(error: OSError) -> str:
    if isinstance(error, ScitqError):
        return error.message
    return (error.strerror or str(error) or type(error).__name__) + (f": {error.filename}" if error.filename else "")


class _Counted:
    """A Meter that knows how much one file added to it."""

    def __init__(self, meter: Meter):
        self._meter, self.bytes, self.wait = meter, 0, meter.wait

    def add(self, size: int) -> None:
        self.bytes += size
        self._meter.add(size)


# --- one file ---------------------------------------------------------------------------------------------------------------


def _bring(scheme: Scheme, entry: Entry, part: _Held, meter) -> None:
    """Fills `part` from where it is, and checks it. A wrong one is emptied, and may be tried again."""
    try:
        md5 = _fill(scheme, entry, part, meter)
    except OSError as error:
        if error.errno in _FULL:
            _empty(part.path)  # the disk is not left full of a beginning
        raise
    fault = _fault(scheme, entry, part.path, md5)
    if fault:
        meter.add(-part.path.stat().st_size)
        _empty(part.path)
        raise TransferFailed(f"{entry.uri}: {fault}", again=True)


def _empty(part: Path) -> None:
    os.truncate(part, 0)
    done_file(part).unlink(missing_ok=True)


def _fill(scheme: Scheme, entry: Entry, part: _Held, meter) -> str | None:
    """Brings what is not there yet; its md5, where one is to be compared and it could be summed on the way."""
    if (data := scheme.whole(entry)) is not None:
        return _at_once(data, entry, part.descriptor, meter)
    if scheme.fetch(entry, part.path, meter):
        sync(part.path)  # a program may have made another file of that name
        return None
    if scheme.streams > 1 and entry.ranges and _has_parts(entry):
        return in_parts(scheme, entry, part.path, meter)
    return _in_one(scheme, entry, part.path, meter)


def _has_parts(entry: Entry) -> bool:
    return entry.size is not None and entry.size > 2 * PART_BYTES


def _at_once(data: bytes, entry: Entry, descriptor: int, meter) -> str | None:
    if os.fstat(descriptor).st_size > len(data):
        os.ftruncate(descriptor, 0)
    write_at(descriptor, data, 0)
    meter.add(len(data))
    return hashlib.md5(data, usedforsecurity=False).hexdigest() if entry.md5 else None


def _in_one(scheme: Scheme, entry: Entry, part: Path, meter) -> str | None:
    start = part.stat().st_size if entry.ranges else 0
    if start and entry.size is not None and start > entry.size:
        start = 0
    digest = hashlib.md5(usedforsecurity=False) if entry.md5 and not start else None
    with open(part, "r+b") as file:
        file.truncate(start)
        file.seek(start)
        if meter.bytes < start:
            meter.add(start - meter.bytes)  # from an earlier time
        if start == 0 or start != entry.size:
            for data in scheme.read(entry, start, None):
                file.write(data)
                if digest:
                    digest.update(data)
                meter.add(len(data))
    return digest.hexdigest() if digest else None


def _fault(scheme: Scheme, entry: Entry, part: Path, md5: str | None) -> str | None:
    """What is wrong with what came, whose md5 may be known already, in a few words; None if nothing is."""
    size = part.stat().st_size
    if entry.size is not None and size != entry.size:
        return f"{size} bytes came, it has {entry.size}"
    if entry.md5 is not None and (found := md5 or md5_of(part)) != entry.md5 and scheme.vouches(entry):
        return f"its md5 is {found}, it should be {entry.md5}"
    return None


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()


# --- its name while it comes ------------------------------------------------------------------------------------------------


def _key(entry: Entry) -> str:
    """Of what is surely the same content, wherever it comes from, or else of one place and what it tells."""
    told = f"{entry.size}|{entry.md5}"
    if entry.md5 is None:
        told = f"{entry.uri.without_actions()}|{entry.size}|{entry.etag}|{entry.md5}|{entry.modified_at}"
    return hashlib.blake2s(told.encode(errors="surrogateescape"), digest_size=6).hexdigest()


def _before(target: Path) -> str:
    """How the names begin of what becomes this file: so much of its name that a longer one still fits in 255 bytes."""
    return f".{os.fsdecode(os.fsencode(target.name)[:180])}.scitq-"


@contextlib.contextmanager
def sending(path: Path, name: str) -> Iterator[str]:
    """How a file is called at another place until it is whole there: the same, each time that it is sent, so that what was begun
    is written over; unless it is being sent there by another already."""
    mark = hashlib.blake2s(os.fsencode(f"{platform.node()}:{path.absolute()}"), digest_size=6).hexdigest()
    part = f".{os.fsdecode(os.fsencode(name)[:180])}.scitq-{mark}"
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # or the disk knows no locks
            part = f"{part}-{os.getpid()}-{file.fileno()}"
        yield part


class _Held:
    """The file to write to, which nobody else writes to: `part`, or one beside it where another process is at that.

    It is held until `close`, or until a block fails: what has come is left for the next try then, if there is any and it is
    known by its name.
    """

    def __init__(self, part: Path):
        self.path, self.descriptor = _locked(part)
        self._is_beside = self.path != part

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            return
        with contextlib.suppress(FileNotFoundError):  # it has its name now
            status = self.path.stat()
            if (status.st_size == 0 or self._is_beside) and status.st_ino == os.fstat(self.descriptor).st_ino:
                self.path.unlink()
                done_file(self.path).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)


def _locked(part: Path) -> tuple[Path, int]:
    path, number = part, 0
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return path, descriptor
        except BlockingIOError:
            number += 1
            path = part.with_name(f"{part.name}-{number}")
        except FileNotFoundError:
            pass  # another process has just finished it under its name
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: Path) -> int:
    """A new or an old file; its folder is made if there is none."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


def _remove_if_left(part: Path, path: Path) -> None:
    """Removes `path`, which is `part` or belongs to it, if nobody holds that."""
    with contextlib.suppress(OSError):  # in use, or removed meanwhile
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            path.unlink()
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _check_room(entry: Entry, part: Path) -> None:
    """Raises TransferFailed when the disk has not the room that a file will take: before it is full."""
    disk = os.statvfs(part.parent)
    free = disk.f_bavail * disk.f_frsize + part.stat().st_blocks * 512
    if entry.size is not None and entry.size > free:
        raise TransferFailed(f"{entry.uri}: no space left for its {entry.size} bytes in {part.parent}: make room there")
