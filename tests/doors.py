"""Every door of a server: all routes of its table, and all kinds of callers that knock at them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from urllib.parse import urlsplit

from env import Env
from hands import Hands
from scitq.api import application  # noqa: F401 - it fills the table
from scitq.api.routes import TABLE, Route
from scitq.transport import Answer, Connection

# What needs no token. Whatever is not written here wants one: a new route too.
OPEN = {
    "/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/<name>", "/login", "/logout", "/", "/ui", "/ui/",
    "/ui/<name:path>",
}  # fmt: skip
GUARDED = [route for route in TABLE if route.path not in OPEN]
EVERY = [f"{route.method} {route.path}" for route in TABLE]

_API = "/api/v1"
# Bodies with which a request would be done: a refusal is then for nothing but its caller. Others are asked with `{}`.
BODIES = {
    f"POST {_API}/tasks": {"command": "touch /nobody-may-make-this"},
    f"PATCH {_API}/tasks/<id:id>": {"command": "touch /nobody-may-make-this", "relaunch": True},
    f"POST {_API}/tasks/edit": {"filter": {"name": "*"}, "set": {"command": "touch /nobody-may-make-this"}, "relaunch": True},
    f"POST {_API}/tasks/relaunch": {"filter": {"name": "*"}},
    f"POST {_API}/tasks/cancel": {"filter": {"name": "*"}},
    f"POST {_API}/tasks/delete": {"filter": {"name": "*"}},
    f"POST {_API}/tasks/signal": {"filter": {"name": "*"}, "action": "kill"},
    f"POST {_API}/workers": {"name": "intruder", "key": "i" * 40, "hostname": "h", "concurrency": 100},
    f"POST {_API}/workers/deploy": {"flavor": "local", "region": "local", "provider": "local", "batch": "intruders"},
    f"PATCH {_API}/batches/<name:path>": {"budget": 77},
    f"PATCH {_API}/workers/<id:id>": {"concurrency": 77, "batch": "intruders"},
    f"POST {_API}/recruiters": {"batch": "intruders", "rank": 1},
    f"PATCH {_API}/recruiters/<id:id>": {"maximum_workers": 77},
    f"POST {_API}/notifiers": {"batch": "intruders", "webhook": "https://hooks.example.org/x"},
    f"POST {_API}/tokens": {"name": "intruder", "role": "admin"},
    "POST /login": {"token": "scitq_intruder"},
}
QUERIES = {f"GET {_API}/stream": {"wait": 0}}  # which would last for an hour
_LISTS = ("tasks", "executions", "batches", "workers", "recruiters", "notifiers", "tokens", "events")


class Doors:
    """A server with tasks and workers, and tokens of every kind of caller."""

    def __init__(self, env: Env):
        self.env = env
        self.server = env.server()
        self.admin = env.token
        self.user = env.api("POST", "/tokens", {"name": "ursula", "role": "user"})["token"]
        self.tasks = env.create({"command": "true", "batch": "held"}, {"command": "true", "batch": "nobody"})
        hands = Hands(env, "w", "held")
        hands.sync()
        self.worker, self.worker_id = hands.row["token"], hands.row["id"]
        self.other_id = Hands(env, "v", "other").row["id"]
        self.execution_id = next(iter(hands.held))
        env.api("POST", "/recruiters", {"batch": "nobody", "flavor": "auto:cpu>=1000"})
        revoked = env.api("POST", "/tokens", {"name": "gone", "role": "admin"})
        env.api("DELETE", f"/tokens/{revoked['id']}")
        self.revoked = revoked["token"]
        self._numbers = {"tasks": self.tasks[1], "executions": self.execution_id, "workers": self.worker_id, "tokens": 1}

    def path(self, route: Route, number: int | None = None) -> str:
        """The path of a route with things that are there; `number`: another id."""
        number = number or self._numbers.get((route.path.split("/") + [""] * 4)[3], 1)
        return re.sub(r"<\w+:id>", str(number), re.sub(r"<name[^>]*>", "Default", route.path))

    def knock(
        self, route: Route, token: str | None, headers: dict | None = None, number: int | None = None, body=None, query=None
    ) -> Answer:
        """One request to a route, on a connection of its own, with an empty body unless one is given."""
        sent = {"Content-Type": "application/json"} if route.writes else {}
        content = json.dumps(body or {}).encode() if route.writes else None
        with Connection(self.server.url, token) as connection:
            return connection.request(
                route.method,
                self.path(route, number),
                content,
                query={**QUERIES.get(f"{route.method} {route.path}", {}), **(query or {})},
                headers={**sent, **(headers or {})},
            )

    def get(self, path: str, token: str | None = None, **headers) -> Answer:
        with Connection(self.server.url, token) as connection:
            return connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def picture(self) -> dict:
        """All there is, without what time alone changes."""
        return {noun: [_still(row) for row in self.env.items(f"/{noun}")] for noun in _LISTS}


def body_of(route: Route) -> dict:
    """A body that the route would take."""
    return BODIES.get(f"{route.method} {route.path}", {})


def error(answer: Answer) -> dict:
    return json.loads(answer.body)["error"]


def raw(url: str, request: str | bytes, timeout: float = 10.0) -> str:
    """The whole answer to bytes that no client would send."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # a refusal may come before all was sent, and the end after it
            connection.sendall(request.encode() if isinstance(request, str) else request)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    return received.decode("latin-1")


def _still(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("contact_at", "stats", "state", "counts")}
