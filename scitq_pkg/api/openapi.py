"""The OpenAPI document, made from the table of routes and the schemas that check the requests."""

from __future__ import annotations

import re
from functools import lru_cache

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from .. import __version__
from .answers import JSON
from .routes import TABLE, Route
from .shapes import Error

_ABOUT = (
    'A distributed task queue. Times are ISO 8601 in UTC; errors are `{"error": {"code", "message", "field"}}`; '
    "a write that carries an `Idempotency-Key` is done once, however often it is sent."
)
_ERRORS = {
    "400": "The request is wrong; `field` says where",
    "401": "No token, or one that is not known",
    "403": "The role does not reach this far",
    "404": "There is no such thing",
    "409": "Its state does not allow this",
    "413": "The request is too large",
    "431": "The headers are too large",
    "429": "Too many wrong tokens",
    "503": "Not ready: try again",
    "507": "The disk is full",
}


@lru_cache(maxsize=1)
def document() -> dict:
    """The whole document."""
    spec = APISpec(
        title="scitq",
        version=__version__,
        openapi_version="3.0.3",
        info={"description": _ABOUT},
        plugins=[MarshmallowPlugin(schema_name_resolver=_schema_name)],
    )
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    for route in TABLE:
        spec.path(path=route.template, operations={route.method.lower(): _operation(route)})
    return spec.to_dict()


def _schema_name(schema: type[Schema] | Schema) -> str:
    return (schema if isinstance(schema, type) else type(schema)).__name__


def _operation(route: Route) -> dict:
    operation: dict = {
        "summary": route.summary,
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "tags": [_tag(route)],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": {str(route.status): _success(route), **_failures()},
        "security": [{"token": []}] if route.roles else [],
    }
    if route.body:
        operation["requestBody"] = {"content": {JSON: {"schema": route.body}}, "required": True}
    elif route.raw_body:
        operation["requestBody"] = {
            "content": {route.raw_body: {"schema": {"type": "string", "format": "binary"}}},
            "required": True,
        }
    return operation


def _tag(route: Route) -> str:
    parts = route.path.split("/")
    return parts[3] if route.path.startswith("/api/") else "server"


def _path_parameters(route: Route) -> list[dict]:
    kinds = {"id": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}}
    return [
        {"in": "path", "name": name, "required": True, "schema": kinds.get(kind, {"type": "string", "minLength": 1})}
        for name, kind in re.findall(r"<(\w+):?(\w*)>", route.path)
    ]


def _query_parameters(route: Route) -> list[dict]:
    return [{"in": "query", "schema": route.query}] if route.query else []


def _header_parameters(route: Route) -> list[dict]:
    if not route.writes or route.raw_body:
        return []
    about = "A text of the caller's choice: the same request under the same key is done once"
    return [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "schema": {"type": "string", "minLength": 1, "maxLength": 200},
            "description": about,
        }
    ]


_BYTES = {"type": "string", "format": "binary"}
_PARSED = {  # what those who know these types make of them
    "text/event-stream": {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}},
    "application/yaml": {"type": "object"},
}


def _success(route: Route) -> dict:
    if route.answer is None:
        return {"description": "Done"}
    if isinstance(route.answer, str):
        return {"description": "Done", "content": {route.answer: {"schema": _PARSED.get(route.answer, _BYTES)}}}
    return {"description": "Done", "content": {JSON: {"schema": route.answer}}}


def _failures() -> dict:
    return {status: {"description": about, "content": {JSON: {"schema": Error}}} for status, about in _ERRORS.items()}
