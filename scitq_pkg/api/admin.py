"""The server itself: what it says of itself, and its backup."""

from __future__ import annotations

import os
import sqlite3
import time

from .. import __version__
from ..errors import Conflict, StorageFull, Unavailable
from ..protocol import API
from ..store import events, tasks
from ..store.filters import Filter
from .answers import iso
from .call import Call
from .routes import ADMIN, USER, route
from .schemas import Nothing
from .shapes import Backup, ServerInfo


@route("GET", f"{API}/server", USER, "Version, database, time, counts, and who you are", answer=ServerInfo)
def info(call: Call) -> dict:
    assert call.caller is not None
    return {
        "version": __version__,
        "id": call.service.server_id,
        "database": call.service.store.database.kind,
        "time_at": iso(time.time()),
        "counts": call.read(lambda tx: tasks.counts(tx, Filter())),
        "you": {"name": call.caller.name, "role": call.caller.role},
    }


@route("POST", f"{API}/backup", ADMIN, "SQLite: a whole copy in the data directory", body=Nothing, answer=Backup)
def backup(call: Call) -> dict:
    """The copy is whole or absent. It has no ids that the database could give again, so it can be put in its place."""
    assert not call.body
    database = call.service.store.database
    if database.kind != "sqlite":
        raise Conflict("this database is PostgreSQL: back it up with pg_dump")
    folder = call.service.settings.data / "backups"
    path = folder / time.strftime("scitq-%Y%m%dT%H%M%S.db", time.gmtime())
    call.write(lambda tx: events.add(tx, call.who, "server.backup", "server", [path.name]))
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _copy(str(database.path), f"{path}.part")
        os.replace(f"{path}.part", path)
    except sqlite3.Error as error:
        kind = StorageFull if "full" in str(error) else Unavailable
        raise kind(f"the backup {path} could not be written: {error}") from None
    except OSError as error:
        raise Unavailable(f"the backup {path} could not be written: {error.strerror}") from None
    return {"path": str(path)}


def _copy(source: str, target: str) -> None:
    """SQLite's own online backup: a snapshot, while writes go on."""
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as reader, sqlite3.connect(target) as copy:
        reader.backup(copy)
    copy.close()
    reader.close()
