"""Every error a caller can meet.

ScitqError                      1   500   something failed
├── InvalidRequest              2   400   a value, option or file is wrong (also a ValueError); names the field
├── NotFound                    3   404   no such task, worker, batch... (also a LookupError)
├── NotAllowed                  4   403   the token's role does not reach this far (also a PermissionError)
│   └── NotAuthenticated        4   401   no token, or one that is not known here
├── Conflict                    1   409   the thing is in a state in which this cannot be done
├── TooLarge                    2   413   the request is larger than the server takes
├── Unavailable                 5   503   the server is starting, stopping or not ready: try again
│   ├── StorageFull             1   507   the database's disk is full: nothing was recorded
│   └── TooManyRequests         5   429   too many wrong tokens came from there: wait
├── TransferFailed              1    -    a file could not be brought whole from where it is to where it should be
├── TaskFailed                 10    -    a task that was waited for did not succeed (also a RuntimeError)
└── Unreachable                 5    -    no server answers there, or not ours (also a ConnectionError)

The first number is the exit code of the command line, the second the HTTP status. A message is one sentence
that says what, where and what to do; `field` names the part of the request that is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScitqError(Exception):
    """Something failed."""

    code = "error"
    exit_code = 1
    http_status = 500

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.message = message
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidRequest(ScitqError, ValueError):
    """A value, an option or a file is wrong."""

    code = "invalid_request"
    exit_code = 2
    http_status = 400


class NotFound(ScitqError, LookupError):
    """There is no such thing."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class NotAllowed(ScitqError, PermissionError):
    """The role of the token does not reach this far."""

    code = "not_allowed"
    exit_code = 4
    http_status = 403


class NotAuthenticated(NotAllowed):
    """No token came with the request, or one that is not known here."""

    code = "not_authenticated"
    http_status = 401


class Conflict(ScitqError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"
    http_status = 409


class TooLarge(ScitqError):
    """The request is larger than the server takes."""

    code = "too_large"
    exit_code = 2
    http_status = 413


class Unavailable(ScitqError):
    """The server is starting, stopping or not ready."""

    code = "unavailable"
    exit_code = 5
    http_status = 503


class StorageFull(Unavailable):
    """The disk of the database is full; nothing was recorded."""

    code = "storage_full"
    exit_code = 1
    http_status = 507


class TooManyRequests(Unavailable):
    """Too many wrong tokens came from this address; it may try again later."""

    code = "too_many_requests"
    http_status = 429


class TransferFailed(ScitqError, OSError):
    """A file could not be brought. `again`: trying once more may help (a lost connection, a crowded server)."""

    code = "transfer_failed"

    def __init__(self, message: str, field: str | None = None, again: bool = False):
        super().__init__(message, field)
        self.again = again


class TaskFailed(ScitqError, RuntimeError):
    """A task that was waited for did not succeed; `result` holds what is known of it."""

    code = "task_failed"
    exit_code = 10

    def __init__(self, message: str, field: str | None = None, result=None):
        super().__init__(message, field)
        self.result = result


class Unreachable(ScitqError, ConnectionError):
    """No server answers there, or what answers is not a scitq server."""

    code = "unreachable"
    exit_code = 5


def error_from_answer(status: int, body: dict) -> ScitqError:
    """The error that an answer `{"error": {"code", "message", "field"}}` of the API stands for."""
    told = body.get("error") or {}
    by_code = {kind.code: kind for kind in _all_kinds(ScitqError)}
    by_status = {kind.http_status: kind for kind in reversed(_all_kinds(ScitqError))}  # of several, the most general
    kind = by_code.get(told.get("code")) or by_status.get(status) or ScitqError
    return kind(told.get("message") or f"the server answered {status}", field=told.get("field"))


def _all_kinds(kind: type[ScitqError]) -> list[type[ScitqError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all_kinds(child))]


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
