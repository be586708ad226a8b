"""Notifiers: who is told when a batch is done, or when tasks of it failed."""

from __future__ import annotations

from ..errors import InvalidRequest, ScitqError
from ..mailing import check_recipient
from ..protocol import API
from ..store import Transaction, notifiers
from ..webhook import check_host, check_url
from .answers import page, with_iso_times
from .call import Call, known_id
from .routes import USER, route
from .schemas import NewNotifier, NotifiersQuery
from .shapes import Notifier, NotifierPage

PATH = f"{API}/notifiers"
_TARGETS = ("webhook", "mail")


@route(
    "POST", PATH, USER, "Makes the notifier of a batch and target, or makes it this one",
    body=NewNotifier, answer=Notifier, status=201,
)  # fmt: skip
def put(call: Call) -> dict:
    """The same again changes nothing, so no request id is needed."""
    given = call.body
    chosen = [kind for kind in _TARGETS if given[kind] is not None]
    if len(chosen) != 1:
        raise InvalidRequest("wants either a webhook or a mail address", field=chosen[0] if chosen else "webhook")
    (kind,) = chosen
    wanted = {"kind": kind, "target": _checked(call, kind, given[kind])}
    if not given["done"] and given["failures"] is None:
        raise InvalidRequest("is false and `failures` is not given: then nothing is ever told", field="done")
    wanted |= {name: given[name] for name in ("batch", "done", "failures", "origin")}
    return call.write(lambda tx: _told(notifiers.put(tx, wanted, call.who)))


def _checked(call: Call, kind: str, target: str) -> str:
    """Where messages go, if this server sends there. Raises InvalidRequest, NotAllowed; neither shows a webhook."""
    settings = call.service.settings
    try:
        if kind == "mail":
            check_recipient(target)
        else:
            check_url(target)
            check_host(target, settings.webhook_host)
    except ScitqError as error:
        raise type(error)(error.message, field=kind) from None
    if kind == "mail" and settings.smtp is None:
        raise InvalidRequest("this server sends no mail: its administrator has to start it with --smtp HOST", field=kind)
    return target


@route("GET", PATH, USER, "Notifiers, a page of them", query=NotifiersQuery, answer=NotifierPage)
def find(call: Call) -> dict:
    query = call.query

    def look(tx: Transaction) -> list[dict]:
        return notifiers.find(tx, query["batch"], query["limit"] + 1, query["after"], query["order"] == "-id")

    rows = call.read(look)
    return page([_told(row) for row in rows], query["limit"])


@route("GET", f"{PATH}/<id:id>", USER, "A notifier, and how its latest message fared", answer=Notifier)
def get(call: Call, id: int) -> dict:
    return _told(call.read(lambda tx: notifiers.get(tx, known_id(id, "notifier"))))


@route("DELETE", f"{PATH}/<id:id>", USER, "Removes a notifier with what it has not sent yet", status=204)
def delete(call: Call, id: int) -> None:
    call.write(lambda tx: notifiers.delete(tx, known_id(id, "notifier"), call.who))


def _told(row: dict) -> dict:
    return with_iso_times({**row, "last": row["last"] and with_iso_times(row["last"])})
