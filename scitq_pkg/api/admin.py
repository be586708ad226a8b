"""The server itself: what it says of itself, and its backup."""

from __future__ import annotations

import time

from ..protocol import API
from ..store import backup as backups
from ..store import events, tasks
from ..store.filters import Filter
from .call import Call
from .livedata import about
from .routes import ADMIN, USER, route
from .schemas import Nothing
from .shapes import Backup, ServerInfo


@route("GET", f"{API}/server", USER, "Version, database, time, counts, and who you are", answer=ServerInfo)
def info(call: Call) -> dict:
    """`counts` are of all tasks, `you` is the caller; of several servers on one PostgreSQL database one `decides`."""
    store = call.service.store
    counts, size = call.read(lambda tx: (tasks.counts(tx, Filter()), tx.value(store.database.measure)))
    return about(store, call.service.server_id, counts) | {"you": call.you, "database_bytes": size}


@route("POST", f"{API}/backup", ADMIN, "SQLite: a whole copy in the data directory", body=Nothing, answer=Backup)
def backup(call: Call) -> dict:
    """It has no ids that the database could give again, so it can be put in its place."""
    assert not call.body
    database = call.service.store.database
    backups.check(database)
    path = call.service.settings.data / "backups" / time.strftime("scitq-%Y%m%dT%H%M%S.db", time.gmtime())
    call.write(lambda tx: events.add(tx, call.who, "server.backup", "server", [path.name]))
    backups.copy(database, path)
    return {"path": str(path), "size_bytes": path.stat().st_size}
