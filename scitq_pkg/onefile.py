"""The one file that a server gives to other machines: which one it is, what is in it."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from functools import lru_cache

from . import program
from .errors import Conflict

VARIABLE = "SCITQ_ONE_FILE"  # for a server that runs from a checkout or an install
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class OneFile:
    """A one file as it was looked at last."""

    path: str
    size: int  # bytes
    sha256: str
    version: str  # of scitq


def published() -> OneFile:
    """The one file that this process runs from, else the one that `$SCITQ_ONE_FILE` names.

    Raises Conflict where there is none, or where it cannot be read.
    """
    path = program.the_one_file() or os.environ.get(VARIABLE)
    if not path:
        raise Conflict(
            "this server runs from a checkout or an install, and has no one file to give to other machines: start it from one "
            f"(python3 build_zipapp.py makes dist/scitq.pyz), or name one with {VARIABLE}"
        )
    try:
        found = os.stat(path)
        return _looked_at(path, found.st_size, found.st_mtime_ns, found.st_ino)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise Conflict(f"{path} is not the one file of scitq, or cannot be read: {error}") from None


def pieces(path: str):
    """The bytes of a file, a piece at a time."""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


@lru_cache(maxsize=1)
def _looked_at(path: str, size: int, _changed: int, _inode: int) -> OneFile:
    with zipfile.ZipFile(path) as archive:
        text = archive.read("scitq/__init__.py").decode("utf-8", "replace")
    version = re.search(r'^__version__ = "([^"\n]{1,100})"', text, re.MULTILINE)
    return OneFile(os.path.abspath(path), size, program.sum_of(path), version[1] if version else "")
