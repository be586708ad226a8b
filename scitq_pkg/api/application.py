"""The WSGI application: the gate, then who calls and what they may, then the handler, then its answer or error as JSON."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie

import bottle

from ..auth import permits
from ..errors import NotAllowed, NotAuthenticated, ScitqError, Unavailable
from . import (  # noqa: F401 - they fill the table
    admin, attention, batches, events, executions, flavors, health, install, jobs, machines, notifiers, pages, providers,
    recruiters, signin, stream, sync, tasks, tokens, ui, upgrades, workers,
)  # fmt: skip
from .answers import JSON, error_body, error_response, response
from .call import Call, Service
from .callers import Caller
from .gate import HEADERS, Gate, check_own_page
from .routes import TABLE, Route

log = logging.getLogger(__name__)


NOBODY_ASKED = "no-auth"  # the role of everybody on a server without tokens
_REFUSED = "scitq.refused"  # key of the environ: the error that the gate raised


class Application:
    """Answers every request; no exception and no traceback leaves it."""

    def __init__(self, service: Service):
        self.service = service
        self._gate = Gate(service.settings.host, service.settings.allowed_host)
        self._bottle = _Bottle()
        self._bottle.router.add_filter("id", lambda config: (r"\d{1,18}", int, str))
        for entry in TABLE:
            self._bottle.route(entry.path, entry.method, self._callback(entry))

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        """WSGI."""
        began = time.monotonic()
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")

        def start(status: str, headers: list[tuple[str, str]], exc_info=None):
            given = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in HEADERS.items() if name.lower() not in given]
            log.info("%s %s %s %.1f ms", method, path, status[:3], (time.monotonic() - began) * 1000)
            return start_response(status, headers, exc_info)

        try:
            self._gate.check(environ)
        except ScitqError as error:
            environ[_REFUSED] = error
        return self._bottle(environ, start)

    def _callback(self, entry: Route) -> Callable:
        return lambda **placeholders: self._answer(entry, placeholders)

    def _answer(self, entry: Route, placeholders: dict) -> bottle.HTTPResponse:
        try:
            if self.service.stopping.is_set():
                raise Unavailable("the server is stopping: try again when it is back")
            environ = bottle.request.environ
            caller = self._permitted(entry, environ, placeholders)
            return response(entry.handler(Call(self.service, environ, entry, caller), **placeholders), entry.status)
        except ScitqError as error:
            return error_response(error)
        except Exception:
            return _unexpected(entry)

    def _permitted(self, entry: Route, environ: dict, placeholders: dict) -> Caller | None:
        """Who calls. Raises NotAuthenticated, NotAllowed: what a role is not given is denied."""
        if not entry.roles:
            return None
        caller = self._caller(entry, environ)
        if caller.role == NOBODY_ASKED:
            return caller
        if not any(permits(caller.role, wanted) for wanted in entry.roles):
            raise NotAllowed(
                f"this wants the role {' or '.join(entry.roles)}, the token of {caller.name!r:.80} has the role {caller.role}"
            )
        if caller.role == "worker" and placeholders.get("id", caller.worker_id) != caller.worker_id:
            raise NotAllowed("a worker's token reaches that worker alone")
        return caller

    def _caller(self, entry: Route, environ: dict) -> Caller:
        if self.service.settings.no_auth:
            return Caller(self.service.login, NOBODY_ASKED)
        bearer = _bearer(environ)
        token = bearer or _cookie(environ, self.service.cookie_name)
        if not token:
            raise NotAuthenticated("this wants a token: give it with SCITQ_TOKEN, or as `Authorization: Bearer TOKEN`")
        if bearer is None and entry.writes:
            check_own_page(environ)
        return self.service.callers.of_token(token, environ.get("REMOTE_ADDR", ""))


def _bearer(environ: dict) -> str | None:
    given = environ.get("HTTP_AUTHORIZATION")
    if not given:
        return None
    kind, _, token = given.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("the header Authorization wants `Bearer TOKEN`", field="Authorization")
    return token.strip()


def _cookie(environ: dict, name: str) -> str | None:
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(name)
    except CookieError:
        return None
    return found.value if found else None


def _unexpected(entry: Route) -> bottle.HTTPResponse:
    number = secrets.token_hex(4)
    log.exception("error %s in %s %s", number, entry.method, entry.path)
    error = ScitqError(f"the server met an unexpected error, which its log calls {number}: please report it")
    return error_response(error)


class _Bottle(bottle.Bottle):
    """Bottle, whose own errors (no such path, no such method) look like all others."""

    def __init__(self):
        super().__init__()
        self.add_hook("before_request", _refuse)

    def default_error_handler(self, res: bottle.HTTPError) -> bytes:
        number = res.status_code
        code, message = _BOTTLE_ERRORS.get(number, ("error", "the request could not be answered"))
        bottle.response.content_type = JSON
        if number >= 500:
            log.error("unexpected error outside of a route: %r", res.exception)
        return error_body(code, message)


_BOTTLE_ERRORS = {
    400: ("invalid_request", "the request cannot be read"),
    404: ("not_found", "there is no such path: /docs lists them"),
    405: ("method_not_allowed", "this path does not take this method: /docs lists them"),
}


def _refuse() -> None:
    """What the gate refused goes no further than Bottle's first hook."""
    error = bottle.request.environ.get(_REFUSED)
    if error is not None:
        raise error_response(error)
