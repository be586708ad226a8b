"""What leaves the server: JSON values with times as ISO 8601, and errors in one shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from bottle import HTTPResponse

from ..errors import NotAuthenticated, ScitqError, Unavailable

JSON = "application/json"


@dataclass
class Answer:
    """A success that is not simply JSON values with the status of its route."""

    body: object = None  # JSON values; bytes, or an iterator of bytes, as they are
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


def iso(seconds: float) -> str:
    """Seconds since the epoch as `2026-11-21T10:00:00.123Z`."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def with_iso_times(row: dict) -> dict:
    """The row, its `*_at` written as ISO 8601 (in place)."""
    for name, value in row.items():
        if isinstance(value, float) and name.endswith("_at"):
            row[name] = iso(value)
    return row


def page(rows: list[dict], limit: int) -> dict:
    """A page of a list from one row more than its limit: `next` is the cursor of the next page, None on the last."""
    more = len(rows) > limit
    rows = rows[:limit]
    return {"items": [with_iso_times(row) for row in rows], "next": rows[-1]["id"] if more else None}


def response(answer: object, status: int) -> HTTPResponse:
    """The HTTP response for what a handler returned."""
    if not isinstance(answer, Answer):
        answer = Answer(answer)
    status = answer.status or status
    if isinstance(answer.body, (bytes, Iterator)):
        return HTTPResponse(answer.body, status, answer.headers)
    if status == 204:
        return HTTPResponse(b"", status, answer.headers)
    return HTTPResponse(json.dumps(answer.body, separators=(",", ":")).encode(), status, {"Content-Type": JSON, **answer.headers})


def error_response(error: ScitqError) -> HTTPResponse:
    """The HTTP response for an error that its caller is told."""
    headers = {"Content-Type": JSON}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    return HTTPResponse(error_body(error.code, error.message, error.field), error.http_status, headers)


def error_body(code: str, message: str, field: str | None = None) -> bytes:
    """The JSON of every error."""
    return json.dumps({"error": {"code": code, "message": message, "field": field}}, separators=(",", ":")).encode()
