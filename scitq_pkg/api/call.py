"""One request, as a handler sees it: who calls, what was asked (checked), and the store."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ..cloud.config import Clouds
from ..deployer import Deployer
from ..errors import InvalidRequest, NotFound, TooLarge, Unavailable
from ..scheduler import Monitor
from ..settings import Settings
from ..store import Store, Transaction, requests
from .answers import JSON
from .callers import Caller, Callers
from .feed import Feed
from .history import History
from .inputs import MAX_INT, load
from .polls import Bells, Seats
from .readiness import Readiness
from .routes import Route
from .trouble import Trouble

MAX_PARAMETERS = 50
MAX_KEY = 200  # characters of an Idempotency-Key


@dataclass
class Service:
    """What all requests share."""

    settings: Settings
    clouds: Clouds
    deployer: Deployer
    url: str  # by which others reach this server, as far as it knows
    store: Store
    monitor: Monitor
    callers: Callers
    bells: Bells
    seats: Seats
    readiness: Readiness
    feed: Feed
    history: History
    trouble: Trouble
    server_id: str
    login: str  # name of the user who runs the server
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def cookie_name(self) -> str:
        """Browsers keep one jar for all ports of a host: each server has a cookie of its own."""
        return f"scitq-{self.server_id[:8]}"


class Call:
    """One request. `body` and `query` are what their schemas made of them."""

    def __init__(self, service: Service, environ: dict, route: Route, caller: Caller | None):
        self.service = service
        self.environ = environ
        self.route = route
        self.caller = caller
        self.raw = _read(environ, service.settings.max_body) if route.writes else b""
        self.query: dict[str, Any] = load(route.query(), _query(environ)) if route.query else _no_query(environ)
        self._plain: object = None

    @property
    def body(self) -> dict[str, Any]:
        """The checked JSON body."""
        assert self.route.body is not None
        return load(self.route.body(), self.plain)  # type: ignore[return-value]

    @property
    def plain(self) -> object:
        """The JSON body as it came; nothing counts as an empty object."""
        if self._plain is None:
            self._plain = _json(self.environ, self.raw) if self.raw else {}
        return self._plain

    @property
    def who(self) -> str:
        """The caller's name, for the event log."""
        return self.caller.name if self.caller else ""

    @property
    def token(self) -> str:
        """The token of the header that the caller sent; empty if it came otherwise."""
        return self.environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2].strip()

    @property
    def you(self) -> dict[str, str]:
        """Who calls, as the caller is told."""
        return {"name": self.caller.name, "role": self.caller.role} if self.caller else {}

    def read(self, question: Callable[[Transaction], Any]) -> Any:
        """What `question(tx)` answers."""
        return self.service.store.read(question)

    def write(self, change: Callable[[Transaction], Any], again: Callable[[Transaction, Any], None] | None = None) -> Any:
        """What `change(tx)` answers (JSON values), once it is durable; sent again with the same Idempotency-Key it is done once.

        Then `again(tx, answer)` is called, for what the kept answer must not hold.
        """
        key = self._key()
        if key is None:
            return self.service.store.write(change)
        return self.service.store.write(lambda tx: _once(tx, key, self._fingerprint(), change, again))

    def answered(self) -> Any:
        """What this very write was answered before, as far as it is kept; None: it is to be done.

        For checks that take their time.
        """
        key = self._key()
        seen = None if key is None else self.service.store.read(lambda tx: requests.seen(tx, key, self._fingerprint()))
        return None if seen is None else seen["answer"]

    def _key(self) -> str | None:
        key = self.environ.get("HTTP_IDEMPOTENCY_KEY")
        if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            raise InvalidRequest(f"wants 1 to {MAX_KEY} printable ASCII characters", field="Idempotency-Key")
        return key

    def _fingerprint(self) -> str:
        """Of all that was asked, and by whom: another request under the same key is a mistake that must be told."""
        asked = (self.route.method, self.environ["PATH_INFO"], self.environ.get("QUERY_STRING", ""), self.who)
        return hashlib.sha256(json.dumps(asked).encode() + self.raw).hexdigest()


def _once(tx: Transaction, key: str, fingerprint: str, change: Callable, again: Callable | None) -> Any:
    seen = requests.seen(tx, key, fingerprint)
    if seen is None:
        seen = {"answer": change(tx)}
        requests.remember(tx, key, fingerprint, seen)
    elif again is not None:
        again(tx, seen["answer"])
    return seen["answer"]


def known_id(number: int, what: str) -> int:
    """An id of a path. Raises NotFound for one that no database could hold."""
    if number > MAX_INT:
        raise NotFound(f"no {what} {number}")
    return number


def _read(environ: dict, most: int) -> bytes:
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        raise InvalidRequest("is no number", field="Content-Length") from None
    if length > most:
        raise TooLarge(f"the request has {length} bytes, this server takes {most}: send it in parts", field="body")
    body = environ["wsgi.input"].read(length) if length else b""
    if len(body) < length:
        raise Unavailable("the request ended early")
    return body


def _json(environ: dict, raw: bytes) -> object:
    """Only what says that it is JSON: a form of another site cannot say so."""
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise InvalidRequest(f"is {kind!r:.80}: send JSON, with the header `Content-Type: {JSON}`", field="Content-Type")
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"is not JSON: {error}", field="body") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _query(environ: dict) -> dict[str, str]:
    try:
        pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidRequest(f"cannot be read: {error}", field="query") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest("names a parameter twice: write several values with commas between", field="query")
    return found


def _no_query(environ: dict) -> dict:
    for name in _query(environ):
        raise InvalidRequest("there is no such parameter", field=name)
    return {}
