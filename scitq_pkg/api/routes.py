"""The one table of routes: Bottle's, the OpenAPI document's, and that of the test which knocks at every door.

A route is a function decorated with `@route`; a new one has its role, its validation and its documentation by birth.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from marshmallow import Schema

ANYBODY = ()  # roles of a route that is open to all
USER = ("user",)
ADMIN = ("admin",)
WORKER = ("worker",)  # a worker's token reaches the route of its own id only


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    method: str
    path: str  # with Bottle's placeholders: `/api/v1/tasks/<id:id>`
    roles: tuple[str, ...]  # what is not in here is denied
    handler: Callable  # handler(call, **placeholders) -> JSON values, or an Answer
    summary: str
    body: type[Schema] | None  # None: no JSON body
    query: type[Schema] | None
    answer: type[Schema] | str | None  # what a success holds: JSON values, or a content type
    status: int  # of a success
    raw_body: str | None  # content type of a body that the handler reads itself

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return re.sub(r"<(\w+)(:\w+)?>", r"{\1}", self.path)


TABLE: list[Route] = []


def route(
    method: str,
    path: str,
    roles: tuple[str, ...],
    summary: str,
    *,
    body: type[Schema] | None = None,
    query: type[Schema] | None = None,
    answer: type[Schema] | str | None = None,
    status: int = 200,
    raw_body: str | None = None,
) -> Callable[[Callable], Callable]:
    """Put the decorated `handler(call, **placeholders)` into the table."""

    def enter(handler: Callable) -> Callable:
        TABLE.append(Route(method, path, roles, handler, summary, body, query, answer, status, raw_body))
        return handler

    return enter
