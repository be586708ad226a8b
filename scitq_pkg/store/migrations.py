"""A new database is made from the models; an older one is brought up to date by numbered steps, each one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from peewee import SchemaManager

from ..errors import Conflict
from ..protocol import DEFAULT_BATCH
from .schema import CACHE_INDEX, INDEXES, RECRUITER_INDEX, TABLES, VERSION, Batch, Counter

MIGRATION_LOCK = 0x5C18

def _data_of_executions(tx) -> None:
    for column, kind in (("transfers", "TEXT"), ("reused_id", "INTEGER"), ("cache_key", "TEXT"), ("outputs", "TEXT")):
        tx.run(f"ALTER TABLE execution ADD COLUMN {column} {kind}")
    tx.run(CACHE_INDEX)


def _recruiters(tx) -> None:
    for column, kind in (
        ("flavor", "TEXT"), ("provider", "TEXT"), ("region", "TEXT"), ("home_batch_id", "INTEGER"),
        ("home_concurrency", "INTEGER"), ("home_prefetch", "INTEGER"),
    ):  # fmt: skip
        tx.run(f"ALTER TABLE worker ADD COLUMN {column} {kind}")
    number = "DOUBLE PRECISION" if tx.postgresql else "REAL"
    tx.run(
        "CREATE TABLE recruiter (id INTEGER NOT NULL PRIMARY KEY, batch_id INTEGER NOT NULL, rank INTEGER NOT NULL, flavor TEXT, "
        "provider TEXT, region TEXT, tasks_per_worker INTEGER NOT NULL, minimum_tasks INTEGER, maximum_workers INTEGER, "
        f"concurrency INTEGER, prefetch INTEGER, created_at {number} NOT NULL)"
    )
    tx.run(RECRUITER_INDEX)
    tx.run("INSERT INTO counter (name, next) VALUES ('recruiter', 1)")


STEPS: dict[int, Callable] = {2: _data_of_executions, 3: _recruiters}  # version reached -> step(tx)


def migrate(tx) -> None:
    """Make or upgrade the schema inside the transaction `tx`. Raises Conflict when the database is newer than the program."""
    if tx.postgresql:  # servers that start at the same time take turns; each sees what the one before has made
        tx.value("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
    if not tx.db.table_exists("setting"):
        _create(tx)
        return
    found = int(tx.value("SELECT value FROM setting WHERE name = 'schema'"))
    if found > VERSION:
        raise Conflict(
            f"the database has schema {found}, this program knows {VERSION}: start it with the newer scitq that wrote it, "
            "or restore a backup made before the upgrade"
        )
    for version in range(found + 1, VERSION + 1):
        STEPS[version](tx)
        tx.run("UPDATE setting SET value = ? WHERE name = 'schema'", (str(version),))


def _create(tx) -> None:
    for table in TABLES:
        tx.run(_create_sql(tx, table))
    for index in INDEXES:
        tx.run(index)
    settings = {"schema": str(VERSION), "server_id": secrets.token_hex(8)}
    tx.many("INSERT INTO setting (name, value) VALUES (?, ?)", list(settings.items()))
    tx.many("INSERT INTO counter (name, next) VALUES (?, 1)", [(t._meta.table_name,) for t in TABLES if t is not Counter])
    (batch_id,) = tx.new_ids("batch", 1)
    tx.insert(Batch, {"id": batch_id, "name": DEFAULT_BATCH, "stopped": False, "created_at": tx.now})


def _create_sql(tx, table) -> str:
    return SchemaManager(table, tx.db)._create_table(safe=False).query()[0]
