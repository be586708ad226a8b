"""A new database is made from the models; an older one is brought up to date by numbered steps, each one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from peewee import SchemaManager

from ..errors import Conflict
from ..protocol import DEFAULT_BATCH
from .schema import CACHE_INDEX, CLOUD_INDEXES, INDEXES, NOTIFIER_INDEXES, RECRUITER_INDEX, TABLES, VERSION, Batch, Counter

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


_CLOUD_TABLES = (  # `FLAG` and `REAL` are written as the database writes them
    "machine (id INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, provider TEXT NOT NULL, region TEXT NOT NULL, flavor TEXT, "
    "wish TEXT, state TEXT NOT NULL, provider_id TEXT, address TEXT, worker_id INTEGER, price REAL, currency TEXT, message TEXT, "
    "asked_by TEXT NOT NULL, created_at REAL NOT NULL, asked_at REAL, up_at REAL, gone_at REAL, seen_at REAL, "
    "unknown FLAG NOT NULL)",
    "stint (id INTEGER NOT NULL PRIMARY KEY, machine_id INTEGER NOT NULL, batch_id INTEGER NOT NULL, started_at REAL NOT NULL, "
    "ended_at REAL)",
    "job (id INTEGER NOT NULL PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, provider TEXT NOT NULL, machine_id INTEGER, "
    "worker_id INTEGER, attempt INTEGER NOT NULL, retry INTEGER NOT NULL, progress INTEGER NOT NULL, step TEXT, message TEXT, "
    "owner TEXT, not_before REAL, canceled_by TEXT, asked_by TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, "
    "finished_at REAL)",
    "joblog (job_id INTEGER NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, line TEXT NOT NULL, PRIMARY KEY (job_id, seq))",
    "flavor (provider TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, cpu INTEGER, ram REAL, disk REAL, "
    "gpus INTEGER NOT NULL, gpu TEXT, gpumem REAL, tags TEXT NOT NULL, price REAL, currency TEXT, eviction REAL, "
    "available INTEGER, updated_at REAL NOT NULL, PRIMARY KEY (provider, region, name))",
    "provider (name TEXT NOT NULL PRIMARY KEY, trouble TEXT, trouble_at REAL, listed_at REAL)",
)


def _clouds(tx) -> None:
    tx.run(f"ALTER TABLE batch ADD COLUMN budget {'DOUBLE PRECISION' if tx.postgresql else 'REAL'}")
    tx.run("ALTER TABLE worker ADD COLUMN machine_id INTEGER")
    _add_tables(tx, _CLOUD_TABLES, CLOUD_INDEXES)


_NOTIFIER_TABLES = (
    "notifier (id INTEGER NOT NULL PRIMARY KEY, batch_id INTEGER NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL, "
    "done FLAG NOT NULL, failures INTEGER, told INTEGER, failures_told FLAG NOT NULL, origin TEXT, created_at REAL NOT NULL)",
    "message (id INTEGER NOT NULL PRIMARY KEY, key TEXT NOT NULL, notifier_id INTEGER NOT NULL, batch TEXT NOT NULL, "
    "kind TEXT NOT NULL, target TEXT NOT NULL, event TEXT NOT NULL, counts TEXT NOT NULL, failures INTEGER, "
    "created_at REAL NOT NULL, attempts INTEGER NOT NULL, next_at REAL NOT NULL, sent_at REAL, given_up_at REAL, error TEXT)",
)


def _clouds_and_notifiers(tx) -> None:
    _clouds(tx)
    tx.run("ALTER TABLE recruiter ADD COLUMN origin TEXT")
    for column in ("upgrade", "upgrade_problem", "unfit"):
        tx.run(f"ALTER TABLE worker ADD COLUMN {column} TEXT")
    _add_tables(tx, _NOTIFIER_TABLES, NOTIFIER_INDEXES)


def _add_tables(tx, tables: tuple[str, ...], indexes: tuple[str, ...]) -> None:
    flag, real = ("BOOLEAN", "DOUBLE PRECISION") if tx.postgresql else ("INTEGER", "REAL")
    for table in tables:
        tx.run("CREATE TABLE " + table.replace("FLAG", flag).replace("REAL", real))
    for index in indexes:
        tx.run(index)
    tx.many("INSERT INTO counter (name, next) VALUES (?, 1)", [(table.partition(" ")[0],) for table in tables])


STEPS: dict[int, Callable] = {2: _data_of_executions, 3: _recruiters, 4: _clouds_and_notifiers}  # version reached -> step(tx)


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
