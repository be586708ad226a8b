"""A whole copy of the database while it is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from ..durable import sync
from ..errors import Conflict, StorageFull, Unavailable
from .databases import Database, Sqlite


def check(database: Database) -> None:
    """Raises Conflict for a database that is not copied from here."""
    if not isinstance(database, Sqlite):
        raise Conflict("this database is PostgreSQL: back it up with pg_dump")


def copy(database: Database, path: Path) -> None:
    """Copy to `path`, which is whole or absent, by SQLite's own online backup. Raises StorageFull, Unavailable, Conflict."""
    check(database)
    assert isinstance(database, Sqlite)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of one that was killed
        _copy(database.path, part)
        os.replace(part, path)
        sync(path.parent)
    except (sqlite3.Error, OSError) as error:
        with contextlib.suppress(OSError):  # it was never begun
            part.unlink()
        kind = StorageFull if "full" in str(error) or "No space" in str(error) else Unavailable
        raise kind(f"the backup {path} could not be written: {error}") from None


def _copy(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader:
        with contextlib.closing(sqlite3.connect(target)) as copied:
            reader.backup(copied)
    sync(target)
