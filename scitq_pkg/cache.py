"""Folders for what this program can make again or do without: parts it unpacked, copies of itself, tracebacks, notes of uploads.

Code is run from them, so a folder that others may write to is not used.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

UNUSED_DAYS = 30


def cache_folders() -> Iterator[str]:
    """The folders to try, best first: `$SCITQ_CACHE`, the user's cache directory, `TMPDIR/scitq-UID`.

    Each exists; each may be full.
    """
    for folder in _candidates():
        with contextlib.suppress(OSError):  # cannot be made or looked at: the next one may do
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if _is_private(folder):
                yield folder


def hold(folder: str) -> int | None:
    """Marks a folder as used today and in use until this process ends; its descriptor, or None when the folder is not there.

    The lock is the one that `prune` asks for; systemd-tmpfiles too leaves a locked directory alone.
    """
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # no locks on this file system: then prune gets none either and removes nothing
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    with contextlib.suppress(OSError):  # somebody else's shared cache, or a read-only one
        os.utime(folder)
    if _is_still(folder, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def prune(parent: str) -> None:
    """Removes the folders in `parent` that no process holds and nobody used for UNUSED_DAYS."""
    with contextlib.suppress(OSError):  # tidying up must not stop anyone
        for entry in os.scandir(parent):
            if entry.is_dir(follow_symlinks=False) and time.time() - entry.stat().st_mtime > UNUSED_DAYS * 86400:
                _remove_unheld(entry.path)


def _candidates() -> Iterator[str]:
    chosen = os.environ.get("SCITQ_CACHE")
    if chosen:
        yield os.path.abspath(chosen)
    home = os.environ.get("HOME", "")
    base = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else "")
    if os.path.isabs(base) and _is_ours(base):
        yield os.path.join(base, "scitq")
    yield os.path.join(os.path.abspath(os.environ.get("TMPDIR") or "/tmp"), f"scitq-{os.geteuid()}")


def _is_ours(path: str) -> bool:
    """Whether the path, or the folder in which it would be made, is this user's: under sudo with a kept HOME it is not."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_uid == os.geteuid()


def _is_private(folder: str) -> bool:
    """Whether only this user writes there; the folder that was asked for with `$SCITQ_CACHE` may be anybody's but not
    everybody's.
    """
    if folder == os.path.abspath(os.environ.get("SCITQ_CACHE") or os.sep):
        return not os.stat(folder).st_mode & stat.S_IWOTH
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_still(folder: str, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    return False


def _remove_unheld(folder: str) -> None:
    import fcntl
    import shutil

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(descriptor).st_mtime > UNUSED_DAYS * 86400:
            doomed = f"{folder}.old-{os.getpid()}"
            os.rename(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    except BlockingIOError:
        return  # in use
    finally:
        os.close(descriptor)
