"""A database that is at rest: brought up to date without serving it, and looked through for damage."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidRequest, NotFound
from . import Store
from .databases import Sqlite, open_database, sqlite_path
from .schema import VERSION

MOST_FAULTS = 100


@dataclass(frozen=True)
class Checked:
    """What was found in an SQLite file."""

    path: Path
    size_bytes: int
    faults: tuple[str, ...]  # in SQLite's words; none when it is whole
    schema: int | None = None  # of a whole one
    tasks: int | None = None


def upgrade(url: str, data_dir: Path) -> tuple[int, int]:
    """Bring a database up to date; its schema before, and now.

    Raises NotFound where there is none, InvalidRequest if it is not ours, Conflict while a server has the SQLite file or if
    it is newer than this program.
    """
    path = sqlite_path(url, data_dir)
    before = _schema_on_server(url, data_dir) if path is None else check_schema(path)
    Store.open(url, data_dir).close()
    return before, VERSION


def check_schema(path: Path) -> int:
    """The schema of an SQLite file, which is only read. Raises NotFound, InvalidRequest."""
    with _reader(path) as connection:
        return _schema(connection, path)


def check(path: Path) -> Checked:
    """Read every page of an SQLite file, in use or not. Raises NotFound, InvalidRequest if it is no database of ours."""
    with _reader(path) as connection:
        if faults := _faults(connection):
            return Checked(path, path.stat().st_size, faults)
        schema, (size_bytes,) = _schema(connection, path), connection.execute(Sqlite.measure).fetchone()
        return Checked(path, size_bytes, (), schema, connection.execute("SELECT COUNT(*) FROM task").fetchone()[0])


def _schema_on_server(url: str, data_dir: Path) -> int:
    database = open_database(url, data_dir)
    try:
        with database.reader() as tx:
            if not tx.db.table_exists("setting"):
                raise NotFound("there is no scitq database: scitq server makes it at its first start", field="database")
            return int(tx.value("SELECT value FROM setting WHERE name = 'schema'"))
    finally:
        database.close()


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise NotFound(f"there is no database {path}: scitq server makes one, --data or --database name another")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise InvalidRequest(
            f"{path} is not a usable SQLite database ({error}): give another path, or restore a backup"
        ) from None


def _schema(connection: sqlite3.Connection, path: Path) -> int:
    if connection.execute("SELECT name FROM sqlite_master WHERE name = 'setting'").fetchone() is None:
        raise InvalidRequest(f"{path} is not a database of scitq: it has other tables, or none")
    return int(connection.execute("SELECT value FROM setting WHERE name = 'schema'").fetchone()[0])


def _faults(connection: sqlite3.Connection) -> tuple[str, ...]:
    try:
        found = [line for (text,) in connection.execute(f"PRAGMA integrity_check({MOST_FAULTS})") for line in text.splitlines()]
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise
        return (str(error),)
    return tuple(line for line in found if line != "ok")
