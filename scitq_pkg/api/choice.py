"""Where workers that somebody asked for are deployed: checked, and chosen, before anything is written down."""

from __future__ import annotations

from collections.abc import Sequence

from ..choosing import candidates, dealt, refusal
from ..cloud.config import Clouds
from ..errors import Conflict
from ..protofilter import AUTO


def fitting(clouds: Clouds, rows: list[dict], flavor: str) -> list[dict]:
    """The flavors (rows of the store) that are meant, in the order in which they are taken."""
    wish = {"provider": _only([row["provider"] for row in rows]), "region": AUTO, "flavor": flavor}
    return candidates(wish, rows, lambda name: _regions(clouds, name))


def _only(providers: Sequence[str]) -> str:
    """The provider, where there is only one: then its preferred regions matter."""
    return providers[0] if len(set(providers)) == 1 else AUTO


def _regions(clouds: Clouds, name: str) -> Sequence[str]:
    return clouds.regions(name) if name in clouds.providers else ()


def places(clouds: Clouds, own_url: str, rows: list[dict], asked: dict) -> list[dict]:
    """A flavor for each of the workers that were asked for, the best ones that have room.

    Raises InvalidRequest (no such provider, region or flavor, nothing that passes, no room), Conflict (no flavors known yet).
    """
    provider = asked["provider"]
    rows = _of_provider(clouds, rows, provider)
    found = candidates(asked, rows, lambda name: _regions(clouds, name))
    chosen = dealt(found, asked["number"])
    if len(chosen) < asked["number"]:
        raise refusal(asked, rows, asked["number"])
    for name in {row["provider"] for row in chosen}:
        clouds.address(name, own_url)
    return [dict(row) for row in chosen]


def _of_provider(clouds: Clouds, rows: list[dict], provider: str) -> list[dict]:
    """The rows of a provider; of `auto` those of all that somebody has configured."""
    if provider != AUTO:
        clouds.check_name(provider)
        names = {provider}
    else:
        names = set(clouds.providers) - clouds.implied or set(clouds.providers)
    rows = [row for row in rows if row["provider"] in names]
    if not rows:
        named = "" if provider == AUTO else f" -P {provider}"
        whose = "the providers" if provider == AUTO else f"provider {provider}"
        raise Conflict(
            f"nothing is known yet of what {whose} can make: wait a moment, or ask again with `scitq manage flavor update{named}`",
            field="provider",
        )
    return rows
