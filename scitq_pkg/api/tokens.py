"""Tokens: made, listed without their secret, revoked."""

from __future__ import annotations

from .. import auth
from ..protocol import API
from ..store import tokens
from .answers import page, with_iso_times
from .call import Call, known_id
from .routes import ADMIN, route
from .schemas import NewToken, PageQuery
from .shapes import MadeToken, TokenPage

PATH = f"{API}/tokens"


@route("GET", PATH, ADMIN, "Who has a token, and of which role", query=PageQuery, answer=TokenPage)
def find(call: Call) -> dict:
    query = call.query
    return page(
        call.read(lambda tx: tokens.find(tx, query["limit"] + 1, query["after"], query["order"] == "-id")), query["limit"]
    )


@route("POST", PATH, ADMIN, "Makes a token, shown this once", body=NewToken, answer=MadeToken, status=201)
def create(call: Call) -> dict:
    """The secret is not kept with the answer: the same request again gives the same token another secret."""
    given, secret = call.body, auth.new_token()
    hashed = auth.hash_token(secret)
    row = call.write(
        lambda tx: tokens.create(tx, given["name"], given["role"], hashed, call.who),
        again=lambda tx, made: tokens.renew(tx, made["id"], hashed),
    )
    call.service.callers.forget()
    return with_iso_times(row) | {"token": secret}


@route("DELETE", f"{PATH}/<id:id>", ADMIN, "Revokes a token", status=204)
def revoke(call: Call, id: int) -> None:
    call.write(lambda tx: tokens.revoke(tx, known_id(id, "token"), call.who))
    call.service.callers.forget()
