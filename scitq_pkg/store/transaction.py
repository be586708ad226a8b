"""One transaction: SQL with `?` on both databases, rows as dicts, and what it tells the rest of the server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache

import peewee

from ..errors import NotFound


@lru_cache(maxsize=1000)
def _for_postgresql(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=200)
def _insert_sql(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


class Transaction:
    """What functions of the store work with. Lives in one thread, until the commit."""

    def __init__(self, db: peewee.Database, now: float | None = None):
        self.db = db
        self.now = time.time() if now is None else now
        self.postgresql = isinstance(db, peewee.PostgresqlDatabase)
        self.for_update = " FOR UPDATE" if self.postgresql else ""  # other servers write too; SQLite has one writer
        self.lost = False  # the database gave up all of it
        self.woken = False
        self.changed = False
        self.touched: set[int] = set()
        self._cursor = db.cursor()

    # --- what it tells others ---

    def wake(self) -> None:
        """Tasks or workers changed: let the decider look before the commit."""
        self.woken = self.changed = True

    def touch(self, worker_id: int) -> None:
        """The orders of this worker changed: answer its long poll after the commit."""
        self.touched.add(worker_id)
        self.changed = True

    # --- SQL ---

    def _execute(self, sql: str, params: Sequence = ()):
        if self.postgresql:
            self._cursor.execute(_for_postgresql(sql), params)
        else:
            self._cursor.execute(sql, params)
        return self._cursor

    def all(self, sql: str, params: Sequence = ()) -> list[dict]:
        """Every row."""
        cursor = self._execute(sql, params)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]

    def one(self, sql: str, params: Sequence = ()) -> dict | None:
        """The first row, or None."""
        cursor = self._execute(sql, params)
        row = cursor.fetchone()
        return None if row is None else dict(zip((column[0] for column in cursor.description), row))

    def get(self, what: str, sql: str, params: Sequence = ()) -> dict:
        """The first row. Raises NotFound: `no <what>`."""
        row = self.one(sql, params)
        if row is None:
            raise NotFound(f"no {what}")
        return row

    def value(self, sql: str, params: Sequence = ()):
        """The first column of the first row, or None."""
        row = self._execute(sql, params).fetchone()
        return None if row is None else row[0]

    def column(self, sql: str, params: Sequence = ()) -> list:
        """The first column of every row."""
        return [row[0] for row in self._execute(sql, params).fetchall()]

    def run(self, sql: str, params: Sequence = ()) -> int:
        """Execute; how many rows changed."""
        return self._execute(sql, params).rowcount

    def many(self, sql: str, rows: Iterable[Sequence]) -> None:
        """Execute for each row of parameters."""
        if self.postgresql:
            from psycopg2.extras import execute_batch

            execute_batch(self._cursor, _for_postgresql(sql), rows, page_size=500)
        else:
            self._cursor.executemany(sql, rows)

    def query(self, query: peewee.Query) -> list[dict]:
        """The rows of a Peewee query as dicts."""
        return list(query.dicts().execute(self.db))

    def insert(self, table: type[peewee.Model] | str, row: dict) -> None:
        """Insert one row; columns left out have the database's default (NULL)."""
        name = table if isinstance(table, str) else table._meta.table_name
        self._execute(_insert_sql(name, tuple(row)), tuple(row.values()))

    def insert_many(self, table: type[peewee.Model], columns: tuple[str, ...], rows: Iterable[Sequence]) -> None:
        """Insert rows of the same columns."""
        self.many(_insert_sql(table._meta.table_name, columns), rows)

    def update(self, table: type[peewee.Model], row_id: int, changes: dict) -> int:
        """Set columns of the row with this id."""
        if not changes:
            return 0
        assignments = ", ".join(f"{name} = ?" for name in changes)
        return self.run(f"UPDATE {table._meta.table_name} SET {assignments} WHERE id = ?", (*changes.values(), row_id))

    def new_ids(self, table: str, count: int) -> range:
        """Reserve `count` ids that were never given before."""
        after = self.value("UPDATE counter SET next = next + ? WHERE name = ? RETURNING next", (count, table))
        return range(after - count, after)


def marks(values: Sequence) -> str:
    """As many `?` as there are values, for an IN list."""
    return ", ".join("?" * len(values))
