"""SQLite or PostgreSQL: how to connect, how a transaction begins, and what their errors mean. Nothing else differs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import peewee
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase, PooledSqliteDatabase

from ..errors import Conflict, InvalidRequest, ScitqError, StorageFull, Unavailable
from ..uris import shown
from .transaction import Transaction

READERS = 16
_WAIT_SECONDS = 30  # for a connection of theirs, or for a lock
_RACES = ("40001", "40P01")  # serialization failure, deadlock
_NOT_UNIQUE = "23505"
# The locks of a server whose machine went dark, or that was stopped in the middle of a transaction, are free within a minute.
_SESSION = (
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=4 -c idle_in_transaction_session_timeout=60s"
)


class Database:
    """A writer's connection, a pool of readers, and the words of one kind of database."""

    kind: str
    begin_write: str
    begin_read: str
    measure: str  # the query for its size in bytes

    def __init__(self, writer: peewee.Database, readers: peewee.Database):
        self.writer = writer
        self._readers = readers

    def connect_writer(self) -> None:
        """Open the writer's connection (again)."""
        if not self.writer.is_closed():
            with contextlib.suppress(Exception):  # it may be broken: that is why it is opened again
                self.writer.close()
        self.writer.connect(reuse_if_open=True)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Transaction]:
        """A read-only transaction on one snapshot. Raises Unavailable, Conflict..."""
        try:
            with self._readers.connection_context():
                transaction = Transaction(self._readers)
                transaction.run(self.begin_read)
                try:
                    yield transaction
                finally:
                    transaction.run("ROLLBACK")
        except ScitqError:
            raise
        except MaxConnectionsExceeded:
            raise Unavailable(f"{READERS} long questions are being answered: ask again in a moment") from None
        except (peewee.PeeweeException, sqlite3.Error, *self.driver_errors()) as error:
            raise self.explain(error) from error

    def driver_errors(self) -> tuple[type[Exception], ...]:
        """The exceptions of the driver, that raw SQL raises."""
        return (sqlite3.Error,)

    def explain(self, error: Exception) -> ScitqError:
        """What an error of the driver means to a user."""
        raise NotImplementedError

    def retryable(self, error: Exception) -> bool:
        """Whether the same transaction may succeed when run again at once."""
        return False

    def overtaken(self, error: Exception) -> bool:
        """Whether another server process made the same row since it was looked for: now it can be found."""
        return False

    def close(self) -> None:
        """Close what is open."""
        self._readers.close_all()


class Sqlite(Database):
    """A file in WAL mode, with `synchronous=FULL`: a commit survives a power cut."""

    kind = "sqlite"
    begin_write = "BEGIN IMMEDIATE"
    begin_read = "BEGIN"
    measure = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"

    def __init__(self, path: Path):
        self.path = path
        self._lock = _lock_for_one_server(path)
        pragmas = {"journal_mode": "wal", "synchronous": "full", "cache_size": -6000, "temp_store": "memory"}
        writer = peewee.SqliteDatabase(str(path), pragmas=pragmas, timeout=_WAIT_SECONDS, check_same_thread=False)
        readers = PooledSqliteDatabase(
            str(path), max_connections=READERS, timeout=_WAIT_SECONDS, stale_timeout=300, check_same_thread=False,
            pragmas={"query_only": 1, "cache_size": -2000, "temp_store": "memory"},
        )  # fmt: skip
        for connections in (writer, readers):
            connections.register_function(_matches, "fnmatch", 2)
        super().__init__(writer, readers)

    def explain(self, error: Exception) -> ScitqError:
        """What an error of the driver means here, and what to do about it."""
        text = str(error)
        if "database or disk is full" in text:
            return StorageFull(f"the disk of {self.path} is full, nothing was recorded: make room, then try again")
        if "not a database" in text or "malformed" in text:
            return InvalidRequest(f"{self.path} is not a usable SQLite database ({text}): give another path, or restore a backup")
        if "readonly" in text or "unable to open" in text:
            return Unavailable(f"{self.path} cannot be written ({text}): check the rights of the file and of its directory")
        return Unavailable(f"the database {self.path} failed: {text}")

    def close(self) -> None:
        super().close()
        os.close(self._lock)


class Postgresql(Database):
    """A PostgreSQL database, possibly served by several server processes."""

    kind = "postgresql"
    begin_write = "BEGIN"
    begin_read = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
    measure = "SELECT pg_database_size(current_database())"

    def __init__(self, url: str):
        name, options = _postgresql_options(url)
        self._options = {"dbname": name, **options}
        self.shown = shown(url)
        writer = peewee.PostgresqlDatabase(name, **options)
        readers = PooledPostgresqlDatabase(name, max_connections=READERS, timeout=_WAIT_SECONDS, stale_timeout=300, **options)
        super().__init__(writer, readers)

    def driver_errors(self) -> tuple[type[Exception], ...]:
        import psycopg2

        return (psycopg2.Error,)

    def explain(self, error: Exception) -> ScitqError:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if getattr(getattr(error, "__cause__", None) or error, "pgcode", None) == "53100":
            return StorageFull(f"the disk of {self.shown} is full, nothing was recorded: make room, then try again")
        return Unavailable(f"the database {self.shown} failed: {first_line}")

    def connect(self):
        """A psycopg2 connection of the caller's own, in autocommit mode."""
        import psycopg2

        connection = psycopg2.connect(**self._options)
        connection.autocommit = True
        return connection

    def retryable(self, error: Exception) -> bool:
        return getattr(error, "pgcode", None) in _RACES

    def overtaken(self, error: Exception) -> bool:
        return getattr(error, "pgcode", None) == _NOT_UNIQUE


def sqlite_path(url: str, data_dir: Path) -> Path | None:
    """The file that an SQLite URL names, None for another one's. Raises InvalidRequest."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        return None
    if parts.netloc:
        told = f"{shown(url)!r} has a host: write sqlite:///relative/path or sqlite:////absolute/path"
        raise InvalidRequest(told, field="database")
    return Path(unquote(parts.path[1:])) if parts.path not in ("", "/") else data_dir / "scitq.db"


def open_database(url: str, data_dir: Path) -> Database:
    """The database a URL names. Raises InvalidRequest for a URL that is none, Unavailable if it does not answer."""
    path = sqlite_path(url, data_dir)
    if path is not None:
        database: Database = Sqlite(path)
    elif urlsplit(url).scheme in ("postgresql", "postgres"):
        database = Postgresql(url)
    else:
        told = f"{shown(url)!r} is no database URL: write sqlite:///path or postgresql://user@host/name"
        raise InvalidRequest(told, field="database")
    try:
        database.connect_writer()
    except (peewee.PeeweeException, *database.driver_errors()) as error:
        database.close()
        raise database.explain(error) from error
    return database


def _matches(text: str | None, pattern: str) -> bool:
    """`fnmatch(text, pattern)` in SQL: the GLOB of SQLite reads brackets differently."""
    return text is not None and fnmatch.fnmatchcase(text, pattern)


def _lock_for_one_server(path: Path) -> int:
    """Hold `<path>.lock`: two servers on one SQLite file would both decide. The lock goes with the process.

    It lies beside the file itself, as SQLite's own do, whatever links lead there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{os.path.realpath(path)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot open {path}: {error.strerror}; give a path that can be written with --database") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise Unavailable(f"cannot lock {path}: {error.strerror}; put the database on a local disk") from None
        raise Conflict(f"another scitq server has {path}: stop it first, or give another --data or --database") from None
    return descriptor


def _postgresql_options(url: str) -> tuple[str, dict]:
    """Name and connection options; each side notices within a minute, by TCP keep-alives, that the other went away."""
    parts = urlsplit(url)
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise InvalidRequest("the URL names no database: write postgresql://user@host/name", field="database")
    try:
        port = parts.port
    except ValueError:
        raise InvalidRequest(f"{shown(url)!r} has a port that is no number", field="database") from None
    options = {"host": parts.hostname, "port": port, "user": parts.username, "password": parts.password}
    options = {key: unquote(value) if isinstance(value, str) else value for key, value in options.items() if value}
    for pair in filter(None, parts.query.split("&")):
        key, _, value = pair.partition("=")
        options[key] = unquote(value)
    keepalives = {"keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 4}
    return name, {"connect_timeout": 10, "options": _SESSION, **keepalives, **options}
