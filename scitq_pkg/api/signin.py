"""How a browser is signed in and out: a token for a cookie, which goes to this server only."""

from __future__ import annotations

from ..errors import InvalidRequest
from .answers import Answer
from .call import Call
from .gate import check_own_page
from .routes import ANYBODY, route
from .schemas import LoginBody, LoginQuery, Nothing


@route("GET", "/login", ANYBODY, "Trades a token for a cookie; leads to the web UI", query=LoginQuery, status=303)
def login(call: Call) -> Answer:
    """Without a token the web UI asks for one."""
    cookie = {"Set-Cookie": _cookie(call, call.query["token"])} if "token" in call.query else {}
    return Answer(b"", 303, {**cookie, "Location": "ui/"})


@route("POST", "/login", ANYBODY, "Trades a token for a cookie", body=LoginBody, status=204)
def sign_in(call: Call) -> Answer:
    """From a page of ours alone: another site must not sign anybody in as somebody else."""
    check_own_page(call.environ)
    return Answer(status=204, headers={"Set-Cookie": _cookie(call, call.body["token"])})


@route("POST", "/logout", ANYBODY, "Takes the cookie back", body=Nothing, status=204)
def sign_out(call: Call) -> Answer:
    check_own_page(call.environ)
    assert not call.body
    return Answer(status=204, headers={"Set-Cookie": _set_cookie(call, "", "; Max-Age=0")})


def _cookie(call: Call, token: str) -> str:
    """The cookie for a token. Raises NotAuthenticated, TooManyRequests; InvalidRequest for a worker's."""
    if call.service.settings.no_auth:
        return _set_cookie(call, "none")
    caller = call.service.callers.of_token(token, call.environ.get("REMOTE_ADDR", ""))
    if caller.role == "worker":
        raise InvalidRequest("is a worker's: browsers want a user's or an administrator's", field="token")
    return _set_cookie(call, token)


def _set_cookie(call: Call, value: str, more: str = "") -> str:
    """Never sent with a request that another site started, never shown to scripts."""
    secure = "; Secure" if call.environ.get("wsgi.url_scheme") == "https" else ""
    return f"{call.service.cookie_name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}"
