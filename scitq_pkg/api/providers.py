"""Providers of machines: which there are, and whether they can be used."""

from __future__ import annotations

from ..protocol import API
from ..store import Transaction, flavors, providers
from .answers import with_iso_times
from .call import Call
from .cloudforms import ProviderPage
from .routes import USER, route


@route("GET", f"{API}/providers", USER, "The providers of the configuration, and what troubles them", answer=ProviderPage)
def find(call: Call) -> dict:
    return {"items": call.read(lambda tx: _told(tx, call)), "next": None}


def _told(tx: Transaction, call: Call) -> list[dict]:
    known, counts = providers.all_of(tx), flavors.counts(tx)
    clouds = call.service.clouds
    nothing = {"trouble": None, "trouble_at": None, "listed_at": None}
    told = ({"name": name, "kind": clouds.kind(name), "regions": list(clouds.regions(name))} for name in clouds.providers)
    return [
        with_iso_times({**nothing, **known.get(row["name"], {}), **row, "flavors": counts.get(row["name"], 0)}) for row in told
    ]  # fmt: skip
