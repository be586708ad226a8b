"""News of batches, workers and jobs: as one open stream (server-sent events), or asked for again and again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from ..protocol import API
from .answers import JSON, Answer
from .call import Call
from .feed import Event
from .routes import USER, route
from .schemas import ChangesQuery, StreamQuery
from .shapes import Changes

EVENTS = "text/event-stream"
HEARTBEAT_SECONDS = 6.0  # who went away is noticed at the second write after that
RETRY_MS, CROWDED_RETRY_MS = 1000, 5000  # after which a browser connects again


@route(
    "GET",
    f"{API}/stream",
    USER,
    "News as server-sent events: first a snapshot, or what was missed",
    query=StreamQuery,
    answer=EVENTS,
)
def stream(call: Call) -> Answer:
    """Ends when the server stops, when the token is revoked, after `wait` seconds; at once when too many requests are held."""
    after = call.environ.get("HTTP_LAST_EVENT_ID") or call.query["after"]  # a browser that connects again repeats its old query
    headers = {"Content-Type": f"{EVENTS}; charset=utf-8", "X-Accel-Buffering": "no"}
    return Answer(_lines(call, after, time.monotonic() + call.query["wait"]), headers=headers)


@route(
    "GET",
    f"{API}/changes",
    USER,
    "The same news by asking: what came after the event `after`, waited for",
    query=ChangesQuery,
    answer=Changes,
)
def changes(call: Call) -> Answer:
    service, after = call.service, call.query["after"]
    with service.seats.seat() as seated, service.feed.listening():
        events = service.feed.news(after, call.you, call.query["wait"] if seated else 0.0)
    told = b",".join(b'{"id":"%b","event":"%b","data":%b}' % (e.id.encode(), e.kind.encode(), e.data) for e in events)
    place = json.dumps(events[-1].id if events else after).encode()
    return Answer(b'{"events":[%b],"next":%b}' % (told, place), headers={"Content-Type": JSON})


def _lines(call: Call, after: str | None, deadline: float) -> Iterator[bytes]:
    service = call.service
    with service.seats.seat() as seated, service.feed.listening():
        yield b"retry: %d\n\n" % (RETRY_MS if seated else CROWDED_RETRY_MS)
        while True:
            left = deadline - time.monotonic()
            events = service.feed.news(after, call.you, min(HEARTBEAT_SECONDS, max(0.0, left)) if seated else 0.0)
            yield b"".join(map(_message, events)) or b":\n\n"
            if events:
                after = events[-1].id
            if not seated or left <= 0 or service.stopping.is_set() or not _is_known(call):
                return


def _message(event: Event) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.kind.encode(), event.data)


def _is_known(call: Call) -> bool:
    """Whether the token is still good."""
    assert call.caller is not None
    return call.service.settings.no_auth or call.service.callers.knows(call.caller)
