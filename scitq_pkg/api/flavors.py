"""Flavors: what providers have, as they told it last."""

from __future__ import annotations

from ..choosing import candidates
from ..errors import InvalidRequest, nearest
from ..protocol import API
from ..protofilter import AUTO
from ..store import Transaction, events, flavors, jobs
from .answers import with_iso_times
from .call import Call
from .cloudforms import FlavorPage, FlavorsQuery, FlavorsUpdate, JobsMade
from .routes import USER, route

PATH = f"{API}/flavors"


@route("GET", PATH, USER, "Flavors that pass the filter, the best first", query=FlavorsQuery, answer=FlavorPage)
def find(call: Call) -> dict:
    """By a protofilter in the order in which a deployment takes them, which leaves those out that nobody would want unasked."""
    query, clouds = call.query, call.service.clouds
    provider, region = (None if query.get(name) == AUTO else query.get(name) for name in ("provider", "region"))
    if provider is not None:
        clouds.check_name(provider)
    rows = call.read(lambda tx: flavors.find(tx, provider, region))
    rows = [row for row in rows if row["provider"] in clouds.providers]
    if region is not None and not rows:
        known = {row["region"] for row in call.read(lambda tx: flavors.find(tx, provider)) if row["provider"] in clouds.providers}
        if known:
            raise InvalidRequest(
                f"there is no region {region!r:.80}{nearest(region, known)}: there is {', '.join(sorted(known))}", field="region"
            )
    if query.get("filter") is not None:
        rows = candidates({"provider": provider, "flavor": query["filter"]}, rows, clouds.regions)
    return {"items": [with_iso_times(row) for row in rows[: query["limit"]]], "next": None}


@route("POST", f"{PATH}/update", USER, "Asks providers what they have", body=FlavorsUpdate, answer=JobsMade, status=202)
def update(call: Call) -> dict:
    """A job for each; one that is under way is not begun twice."""
    given, clouds = call.body["provider"], call.service.clouds
    if given is not None:
        clouds.check_name(given)
    names = list(clouds.providers) if given is None else [given]

    def change(tx: Transaction) -> dict:
        events.add(tx, call.who, "flavor.ask", "flavor", names)
        return {"items": [{"job": jobs.add(tx, "flavors", name, call.who)} for name in names]}

    return call.write(change)
