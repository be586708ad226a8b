"""How a process starts this program again, and how a long-lived one stays on the version it was started with.

The program comes in three shapes: the one file (a zip), a checkout (`scitq.py` beside `scitq_pkg/`), and an install.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from . import __spec__ as _package
from .cache import cache_folders, hold, prune
from .protocol import BUILD_DIGITS

_HELD = "SCITQ_HELD"  # descriptor of the folder that a process holds over its exec
_STARTED = "SCITQ_STARTED_FROM"  # the file that it was started from, before that
_BEFORE = "SCITQ_BEFORE"  # what it ran before it went on as another one


def command(*words: str) -> list[str]:
    """The argv that starts this very program with these words: `command("worker", url)`."""
    return _starts(_entry(), words)


def the_one_file() -> str | None:
    """The absolute path of the zip that this process runs from; None in a checkout or an install."""
    return getattr(_package.loader, "archive", None)


def build() -> str | None:
    """The sum by which the copy of the one file that this process runs is named; None without one."""
    folder = os.path.basename(os.path.dirname(the_one_file() or ""))
    return folder if len(folder) == BUILD_DIGITS and not folder.strip("0123456789abcdef") else None


def settle(words: list[str]) -> None:
    """For a long-lived process: go on from a copy of the one file that nobody replaces, so that an upgrade by `cp` or `mv` is
    safe.

    Replaces the process by one that runs the copy with the same words (same pid); returns when it runs from a copy already, or
    from no zip. Where no copy can be kept it says so on stderr and returns. Unused copies are removed after 30 days.
    """
    here = the_one_file()
    _started.words = words
    if here is None or _is_settled(here):
        _started.path, _started.before = os.environ.pop(_STARTED, None), os.environ.pop(_BEFORE, None)
        return
    try:
        _go_on_as(here, {_STARTED: here})
    except OSError:
        told = f"no place to keep a copy of {here} (set SCITQ_CACHE to a folder of yours): do not replace it while this runs"
        print(f"scitq: {told}", file=sys.stderr)


def upgrade(source: str) -> None:
    """Goes on as another one file: this process, with the same words; never returns. Raises OSError when it cannot."""
    _go_on_as(source, {_BEFORE: build() or "", **({_STARTED: _started.path} if _started.path else {})})


def was_upgraded() -> bool:
    """Whether this process was another one file before, and has not settled since."""
    return bool(_started.before)


def settle_upgrade() -> str | None:
    """Puts the one file as which this process went on where it was started from, for the next start; why not, in a sentence.

    Nothing is done by a process that did not go on as another one, and to a file that is not the one that it was before.
    """
    path, before, _started.before = _started.path, _started.before, None
    if not path or not before:
        return None
    try:
        if sum_of(path)[:BUILD_DIGITS] == before:
            _replace(os.path.realpath(path), str(the_one_file()))
    except OSError as error:
        return f"{path} stays as it is, and is what the next start runs: {error.strerror}"
    return None


class _Started:
    """How this process was started."""

    words: Sequence[str] = ()
    path: str | None = None  # the one file
    before: str | None = None  # the build that it was, if it went on as another one


_started = _Started()


def _go_on_as(source: str, variables: dict[str, str]) -> None:
    """Replaces this process by one that runs a copy of the one file `source`; raises OSError where no copy can be kept or run."""
    error = OSError("there is no folder for it")
    for cache in cache_folders():
        try:
            copy = _copied(source, os.path.join(cache, "copies"))
        except OSError as raised:  # a full or read-only cache: the next one may do
            error = raised
            continue
        os.environ.update(variables)
        argv = _starts(copy, _started.words)
        try:
            os.execv(argv[0], argv)
        finally:  # it could not be run
            os.close(int(os.environ.pop(_HELD)))
            for name in variables:
                os.environ.pop(name, None)
    raise error


def _replace(path: str, source: str) -> None:
    """Makes `path` a copy of `source` in one step, with the owner and the mode that it has."""
    import shutil

    status = os.stat(path)
    with open(source, "rb") as old, _taking_the_place_of(path) as new:
        shutil.copyfileobj(old, new)
        os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
        if os.geteuid() == 0:
            os.fchown(new.fileno(), status.st_uid, status.st_gid)


@contextlib.contextmanager
def _taking_the_place_of(path: str) -> Iterator[BinaryIO]:
    """A new file that becomes `path` when it is whole on the disk; on a disk that is full nothing is left of it."""
    beside = f"{path}.{os.getpid()}"
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def places_of(sha256: str) -> Iterator[str]:
    """Where a copy of the one file with this sum may be kept, best first. Each folder is there; each may be full."""
    for cache in cache_folders():
        with contextlib.suppress(OSError):  # a full or read-only cache: the next one may do
            folder = os.path.join(cache, "copies", sha256[:BUILD_DIGITS])
            os.makedirs(folder, mode=0o700, exist_ok=True)
            yield os.path.join(folder, "scitq.pyz")


def sum_of(path: str) -> str:
    """The sha256 of a file, in hex. Raises OSError."""
    import hashlib

    with open(path, "rb") as file:
        summed = hashlib.sha256()
        while piece := file.read(2**20):
            summed.update(piece)
    return summed.hexdigest()


def _entry() -> str:
    """The file to give to Python."""
    archive = the_one_file()
    if archive:
        return archive
    package = os.path.dirname(os.path.abspath(_package.origin))
    door = os.path.join(os.path.dirname(package), "scitq.py")
    return door if os.path.basename(package) == "scitq_pkg" and os.path.exists(door) else os.path.join(package, "__main__.py")


def interpreter() -> list[str]:
    """The words that start this Python as this process was started."""
    from subprocess import _args_from_interpreter_flags  # -I, -S, -X...: what multiprocessing does for its own processes

    return [sys.executable or "python3", *_args_from_interpreter_flags()]


def _starts(entry: str, words) -> list[str]:
    return [*interpreter(), entry, *words]


def _is_settled(here: str) -> bool:
    """Whether this process runs from a copy; if so it holds the copy until it ends."""
    inherited = os.environ.pop(_HELD, None)
    if inherited is not None:
        with contextlib.suppress(ValueError, OSError):  # not ours, then: it is no descriptor
            os.set_inheritable(int(inherited), False)
        return True
    folder = os.path.dirname(here)
    copies = os.path.dirname(folder)
    return any(copies == os.path.join(cache, "copies") for cache in cache_folders()) and hold(folder) is not None


def _copied(source: str, copies: str) -> str:
    """The copy of `source` in `copies`, whole on disk and held over an exec; raises OSError."""
    for _ in range(3):  # the source may be replaced while it is read, the copy be removed before it is held
        copy = _copy(source, copies)
        descriptor = hold(os.path.dirname(copy))
        if descriptor is not None and os.path.exists(copy):
            os.set_inheritable(descriptor, True)
            os.environ[_HELD] = str(descriptor)
            prune(copies)
            return copy
    raise OSError(f"{source} changes all the time")


def _copy(source: str, copies: str) -> str:
    """`copies/HASH/scitq.pyz`, named by its content; written beside and renamed, unless it is there."""
    import hashlib

    with open(source, "rb") as file:
        data = file.read()
    folder = os.path.join(copies, hashlib.sha256(data).hexdigest()[:BUILD_DIGITS])
    copy = os.path.join(folder, "scitq.pyz")
    if not os.path.exists(copy):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with _taking_the_place_of(copy) as file:
            file.write(data)
    return copy
