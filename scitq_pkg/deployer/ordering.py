"""What somebody orders, looked at before anything is made: which flavors it means, and whether the provider would make them."""

from __future__ import annotations

from collections.abc import Mapping

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
_MOST_CHECKS = 3  # of places that were chosen among many


def order(context: Context, asked: Mapping, number: int) -> list[dict]:
    """So many places for machines, each `provider`, `region`, `flavor`, `price`, `currency`, `cpus` (of the flavor; None: unknown).

    Raises InvalidRequest, and Conflict when the provider cannot be asked or its quota is used up.
    """
    wish = wish_of(asked)
    if is_protofilter(wish["flavor"]):
        parse(wish["flavor"])
    if wish["provider"] != AUTO:
        context.clouds.check_name(wish["provider"])
        context.clouds.address(wish["provider"], context.url)
    places = _places(context, wish, number)
    for place in _distinct(places)[:_MOST_CHECKS]:
        _check(context, place, sum(other == place for other in places))
    return places


def _places(context: Context, wish: Mapping, number: int) -> list[dict]:
    rows = context.store.read(lambda tx: known_flavors(tx, context, wish))
    if wish["provider"] != AUTO and not rows:
        _ask_for_flavors(context, wish["provider"])
        rows = context.store.read(lambda tx: known_flavors(tx, context, wish))
    if _is_named(wish):
        row = next((row for row in rows if choosing.fits(wish, row)), None)
        return [_place(row) if row is not None else {**wish, "price": None, "currency": None, "cpus": None}] * number
    found = choosing.dealt(choosing.candidates(wish, rows, context.clouds.regions), number)
    if len(found) < number:
        raise choosing.refusal(wish, rows, number)
    return [_place(row) for row in found]


def _is_named(wish: Mapping) -> bool:
    """Whether there is nothing to choose: the provider itself says whether it has that."""
    return AUTO not in (wish["provider"], wish["region"]) and not is_protofilter(wish["flavor"])


def _place(row: Mapping) -> dict:
    place = {name: row[name] for name in ("provider", "region", "price", "currency")}
    return {**place, "flavor": row["name"], "cpus": row["cpu"]}


def _distinct(places: list[dict]) -> list[dict]:
    return [place for n, place in enumerate(places) if place not in places[:n]]


def _check(context: Context, place: Mapping, number: int) -> None:
    call = context.call(
        place["provider"], "check", lambda line: None, _CHECK_SECONDS, flavor=place["flavor"], region=place["region"], number=number
    )
    _asked(call)


def _ask_for_flavors(context: Context, provider: str) -> None:
    """The catalogue has nothing of a provider that is used for the first time."""
    found = _asked(context.call(provider, "flavors", lambda line: None, _CHECK_SECONDS))

    def keep(tx) -> None:
        flavors.replace(tx, provider, found, WHO)
        providers.told(tx, provider)

    context.write(keep)


def _asked(call: Call):
    try:
        return call.answer()
    except (NoRoom, CloudTrouble) as error:
        raise Conflict(error.message) from None
    except FAULTS as error:
        raise InvalidRequest(error.message) from None
