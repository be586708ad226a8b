"""Which flavors of the catalogue a protofilter means."""

from __future__ import annotations

from collections.abc import Sequence

from ..choosing import candidates
from ..cloud.config import Clouds
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
