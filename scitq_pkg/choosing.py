"""Which flavor of which provider and region a wish means: pure functions over rows of the catalogue of flavors.

A wish has `provider`, `region` and `flavor`; each may be `auto`, the flavor a protofilter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from .errors import InvalidRequest, nearest
from .protofilter import AUTO, Condition, is_protofilter, parse

MOST_EVICTION = 5.0  # percent, unless the filter names `eviction`
BARE_METAL = "M"  # not without being asked for, unless the filter names `tags`
_COLUMNS = {"cost": "price"}  # of items of protofilters that are called otherwise in the catalogue
_UNLESS_TOLD = {"eviction": 0.0}  # what a flavor has of which the provider does not say


def passes(text: str, flavor: Mapping) -> bool:
    """Whether a flavor of the catalogue passes a protofilter, with its silent limits. What is not known passes no condition."""
    conditions = parse(text)
    named = {condition.item for condition in conditions}
    if "eviction" not in named and (flavor["eviction"] or 0.0) > MOST_EVICTION:
        return False
    if "tags" not in named and BARE_METAL in (flavor["tags"] or ""):
        return False
    return all(_holds(condition, flavor) for condition in conditions)


def _holds(condition: Condition, flavor: Mapping) -> bool:
    known = flavor[_COLUMNS.get(condition.item, condition.item)]
    if known is None:
        known = 0.0 if condition.item == "gpumem" and not flavor["gpus"] else _UNLESS_TOLD.get(condition.item)
    return known is not None and condition.holds(known)


def fits(wish: Mapping, flavor: Mapping) -> bool:
    """Whether a flavor of the catalogue is what a wish means."""
    for name in ("provider", "region"):
        if wish.get(name) not in (None, AUTO, flavor[name]):
            return False
    wanted = wish.get("flavor") or AUTO
    return passes(wanted, flavor) if is_protofilter(wanted) else wanted == flavor["name"]


def room(flavor: Mapping) -> int | None:
    """How many more machines of it the quota allows, those that are planned counted as made; None: nobody says."""
    return None if flavor["available"] is None else max(0, flavor["available"] - flavor["planned"])


def candidates(
    wish: Mapping, flavors: Iterable[Mapping], regions: Callable[[str], Sequence[str]], tried: Iterable[Sequence[str]] = ()
) -> list[Mapping]:  # fmt: skip
    """The flavors that a wish means and that there is room for, the best first; `tried`: (provider, region, flavor) that are out.

    `regions(provider)`: as the configuration orders them. Of a provider that is named its preferred regions go first, then what
    is cheapest; among several providers the cheapest goes first. What has no price comes last.
    """
    out = {tuple(place) for place in tried}
    found = [
        flavor for flavor in flavors
        if fits(wish, flavor) and room(flavor) != 0 and (flavor["provider"], flavor["region"], flavor["name"]) not in out
    ]  # fmt: skip
    named = wish.get("provider") not in (None, AUTO)
    return sorted(found, key=lambda flavor: _order(flavor, regions(flavor["provider"]), named))


def _order(flavor: Mapping, regions: Sequence[str], region_first: bool) -> tuple:
    price = (flavor["price"] is None, flavor["price"] or 0.0)
    region = regions.index(flavor["region"]) if flavor["region"] in regions else len(regions)
    last = (flavor["provider"], flavor["region"], flavor["name"])
    return (region, price, *last) if region_first else (price, region, *last)


def dealt(found: Sequence[Mapping], number: int) -> list[Mapping]:
    """The flavors of so many machines, as far as the quotas go: of each as many as there is room for, the first one first."""
    dealt_out: list[Mapping] = []
    for flavor in found:
        left = number - len(dealt_out)
        free = room(flavor)
        dealt_out += [flavor] * (left if free is None else min(left, free))
    return dealt_out


def refusal(wish: Mapping, flavors: Sequence[Mapping], number: int = 1) -> InvalidRequest:
    """Why a wish cannot be fulfilled by this catalogue, said of the first part that is wrong."""
    left = list(flavors)
    for name, column in (("provider", "provider"), ("region", "region"), ("flavor", "name")):
        word = wish.get(name)
        if word in (None, AUTO) or (name == "flavor" and is_protofilter(word)):
            continue
        known = {flavor[column] for flavor in left}
        if word not in known:
            of = f" of {wish['provider']}" if name != "provider" and wish.get("provider") not in (None, AUTO) else ""
            there = (
                f": there is {', '.join(sorted(known)[:10])}" if known else ": `scitq manage flavor update` asks what there is"
            )
            return InvalidRequest(f"no {name} {word!r:.80}{of}{nearest(word, known)}{there}", field=name)
        left = [flavor for flavor in left if flavor[column] == word]
    left = [flavor for flavor in left if fits(wish, flavor)]
    if not left:
        limits = f" (`eviction<={MOST_EVICTION:g}` and no bare metal unless it names eviction or tags)"
        return InvalidRequest(f"none of {len(flavors)} flavors passes {wish.get('flavor') or AUTO}{limits}", field="flavor")
    rooms = [room(flavor) or 0 for flavor in left]
    return InvalidRequest(
        f"the quotas have room for {sum(rooms)} of {number} machines: fewer, or another flavor, region or provider",
        field="number",
    )
