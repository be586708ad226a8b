"""What somebody orders, looked at before anything is made: which flavors it means, and whether the provider would make them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from .. import choosing
from ..cloud.calls import Call
from ..cloud.config import AUTO
from ..cloud.provider import CloudTrouble, NoRoom
from ..errors import Conflict, InvalidRequest
from ..protofilter import is_protofilter, parse
from ..store import flavors, providers
from .context import WHO, Context
from .hiring import known_flavors, wish_of
from .work import FAULTS

_CHECK_SECONDS = 45.0
_FRESH_SECONDS = 60.0  # for which quotas are taken as they were told
_MOST_CHECKS = 3  # of places that turn out to be full, where there are others


def order(context: Context, asked: Mapping, number: int) -> list[dict]:
    """So many places for machines, each `provider`, `region`, `flavor`, `price`, `currency`, `cpus` (None: unknown).

    Raises InvalidRequest, and Conflict when the provider cannot be asked or its quota is used up.
    """
    wish = wish_of(asked)
    if is_protofilter(wish["flavor"]):
        parse(wish["flavor"])
    if wish["provider"] != AUTO:
        context.clouds.check_name(wish["provider"])
        context.clouds.address(wish["provider"], context.url)
    places = _places(context, wish, number)
    if _is_named(wish):
        _check(context, places[0], number)
        return places
    return _checked(context, wish, places)


def _checked(context: Context, wish: Mapping, places: list[dict]) -> list[dict]:
    """The places, or others where the provider says that the best one is full."""
    full: list[tuple] = []
    while True:
        try:
            _check(context, places[0], places.count(places[0]))
            return places
        except Conflict as error:
            full.append(tuple(places[0][name] for name in ("provider", "region", "flavor")))
            found = _chosen(context, _rows(context, wish), wish, len(places), full)
            if len(full) == _MOST_CHECKS or len(found) < len(places):
                raise error from None
            places = found


def _places(context: Context, wish: Mapping, number: int) -> list[dict]:
    rows = _rows(context, wish)
    if _is_named(wish):
        row = next((row for row in rows if choosing.fits(wish, row)), None)
        return [_place(row) if row is not None else {**wish, "price": None, "currency": None, "cpus": None}] * number
    found = _chosen(context, rows, wish, number)
    if len(found) < number and _is_old(rows) and wish["provider"] != AUTO:
        _ask_for_flavors(context, wish["provider"])
        rows = _rows(context, wish)
        found = _chosen(context, rows, wish, number)
    if len(found) < number:
        raise choosing.refusal(wish, rows, number)
    return found


def _rows(context: Context, wish: Mapping) -> list[dict]:
    """The catalogue; a provider that is used for the first time is asked what it has."""
    rows = context.store.read(lambda tx: known_flavors(tx, context, wish))
    if wish["provider"] != AUTO and not rows:
        _ask_for_flavors(context, wish["provider"])
        rows = context.store.read(lambda tx: known_flavors(tx, context, wish))
    return rows


def _chosen(context: Context, rows: list[dict], wish: Mapping, number: int, out: Sequence[tuple] = ()) -> list[dict]:
    return [_place(row) for row in choosing.dealt(choosing.candidates(wish, rows, context.clouds.regions, out), number)]


def _is_old(rows: list[dict]) -> bool:
    """Whether what is said of quotas may have changed since."""
    return any(row["available"] is not None and row["updated_at"] < time.time() - _FRESH_SECONDS for row in rows)


def _is_named(wish: Mapping) -> bool:
    """Whether there is nothing to choose: the provider itself says whether it has that."""
    return AUTO not in (wish["provider"], wish["region"]) and not is_protofilter(wish["flavor"])


def _place(row: Mapping) -> dict:
    place = {name: row[name] for name in ("provider", "region", "price", "currency")}
    return {**place, "flavor": row["name"], "cpus": row["cpu"]}


def _check(context: Context, place: Mapping, number: int) -> None:
    call = context.call(
        place["provider"],
        "check",
        lambda line: None,
        _CHECK_SECONDS,
        flavor=place["flavor"],
        region=place["region"],
        number=number,
    )
    _answer(context, place["provider"], call)


def _ask_for_flavors(context: Context, provider: str) -> None:
    """The catalogue has nothing of a provider that is used for the first time."""
    found = _answer(context, provider, context.call(provider, "flavors", lambda line: None, _CHECK_SECONDS))

    def keep(tx) -> None:
        flavors.replace(tx, provider, found, WHO)
        providers.told(tx, provider)

    context.write(keep)


def _answer(context: Context, provider: str, call: Call):
    """Raises Conflict, InvalidRequest."""
    try:
        with context.orders.turn(provider, context.stopping):
            return call.answer()
    except (CloudTrouble, NoRoom) as error:
        raise Conflict(error.message) from None
    except FAULTS as error:
        raise InvalidRequest(error.message) from None
