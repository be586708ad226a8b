"""How a process starts this program again, and how a long-lived one stays on the version it was started with.

The program comes in three shapes: the one file (a zip), a checkout (`scitq.py` beside `scitq_pkg/`), and an install.
"""

from __future__ import annotations

import contextlib
import os
import sys

from . import __spec__ as _package
from .cache import cache_folders, hold, prune

_HELD = "SCITQ_HELD"  # descriptor of the folder that a process holds over its exec


def command(*words: str) -> list[str]:
    """The argv that starts this very program with these words: `command("worker", url)`."""
    return _starts(_entry(), words)


def the_one_file() -> str | None:
    """The absolute path of the zip that this process runs from; None in a checkout or an install."""
    return getattr(_package.loader, "archive", None)


def settle(words: list[str]) -> None:
    """For a long-lived process: go on from a copy of the one file that nobody replaces, so that an upgrade by `cp` or `mv` is safe.

    Replaces the process by one that runs the copy with the same words (same pid); returns when it runs from a copy already, or
    from no zip. Where no copy can be kept it says so on stderr and returns. Unused copies are removed after 30 days.
    """
    here = the_one_file()
    if here is None or _is_settled(here):
        return
    for cache in cache_folders():
        try:
            copy = _copied(here, os.path.join(cache, "copies"))
        except OSError:
            continue  # a full or read-only cache: the next one may do
        argv = _starts(copy, words)
        os.execv(argv[0], argv)
    print(f"scitq: no place to keep a copy of {here} (set SCITQ_CACHE to a folder of yours): do not replace it while this runs", file=sys.stderr)


def _entry() -> str:
    """The file to give to Python."""
    archive = the_one_file()
    if archive:
        return archive
    package = os.path.dirname(os.path.abspath(_package.origin))
    door = os.path.join(os.path.dirname(package), "scitq.py")
    return door if os.path.basename(package) == "scitq_pkg" and os.path.exists(door) else os.path.join(package, "__main__.py")


def _starts(entry: str, words) -> list[str]:
    from subprocess import _args_from_interpreter_flags  # -I, -S, -X...: what multiprocessing does for its own processes

    return [sys.executable or "python3", *_args_from_interpreter_flags(), entry, *words]


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
    folder = os.path.join(copies, hashlib.sha256(data).hexdigest()[:32])
    copy = os.path.join(folder, "scitq.pyz")
    if not os.path.exists(copy):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        beside = f"{copy}.{os.getpid()}"
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, copy)
    return copy
