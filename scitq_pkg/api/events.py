"""The event log: who changed what, when."""

from __future__ import annotations

from ..protocol import API
from ..store import events
from .answers import iso, page
from .call import Call
from .routes import USER, route
from .schemas import EventsQuery
from .shapes import EventPage


@route("GET", f"{API}/events", USER, "Who changed what, when: append-only", query=EventsQuery, answer=EventPage)
def find(call: Call) -> dict:
    query = call.query
    rows = call.read(lambda tx: events.find(tx, query, query["limit"] + 1, query["after"], query["order"] == "-id"))
    return page([row | {"at": iso(row["at"])} for row in rows], query["limit"])
