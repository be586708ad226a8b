"""Which flavor is meant: pure decisions over a catalogue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scitq.choosing import candidates, dealt, fits, passes, refusal, room

REGIONS = {"ovh": ["GRA11", "SBG5"], "azure": []}


def flavor(name: str, price: float | None = 1.0, provider: str = "ovh", region: str = "GRA11", **more) -> dict:
    known = {"cpu": 8, "ram": 32.0, "disk": 100.0, "gpus": 0, "gpu": None, "gpumem": None, "tags": "", "eviction": 0.0}
    place = {"provider": provider, "region": region, "name": name, "price": price, "currency": "EUR"}
    return {**known, **place, "available": None, "planned": 0, **more}


def names(wish: dict, flavors: list[dict], tried=()) -> list[str]:
    return [row["name"] for row in candidates(wish, flavors, lambda name: REGIONS.get(name, []), tried)]


@pytest.mark.parametrize(
    "text, more, whether",
    [
        ("auto", {}, True), ("auto", {"eviction": 5.0}, True), ("auto", {"eviction": 6.0}, False),
        ("auto", {"eviction": None}, True),
        ("auto:eviction<=20", {"eviction": 20.0}, True), ("auto", {"tags": "M"}, False), ("auto:tags#M", {"tags": "MN"}, True),
        ("auto:tags#G", {"tags": "G"}, True), ("auto:cpu>=8:ram>=32", {}, True), ("auto:cpu>=9", {}, False),
        ("auto:cost<=1", {}, True), ("auto:cost<=0.5", {}, False), ("auto:cost<=5", {"price": None}, False),
        ("auto:gpumem>=16", {"gpus": 1, "gpumem": 24.0}, True), ("auto:gpumem>=16", {"gpus": 1}, False),
        ("auto:gpumem<=1", {}, True),
        ("auto:ram>=1", {"ram": None}, False), ("auto:region~gra%", {}, True), ("auto:provider==azure", {}, False),
    ],
)  # fmt: skip
def test_protofilters_and_their_silent_limits(text, more, whether):
    assert passes(text, flavor("f", **{"price": 1.0, **more})) is whether


def test_the_cheapest_first_and_what_has_no_price_last():
    catalogue = [flavor("b", 2.0), flavor("none", None), flavor("a", 1.0), flavor("c", 1.5, provider="azure", region="west")]
    wish = {"provider": "auto", "region": "auto", "flavor": "auto"}
    assert names(wish, catalogue) == ["a", "c", "b", "none"]


def test_preferred_regions_of_a_provider_that_is_named_go_first():
    catalogue = [flavor("far", 0.5, region="WAW1"), flavor("second", 1.0, region="SBG5"), flavor("first", 2.0)]
    assert names({"provider": "ovh", "region": "auto", "flavor": "auto"}, catalogue) == ["first", "second", "far"]
    assert names({"provider": "auto", "region": "auto", "flavor": "auto"}, catalogue) == ["far", "second", "first"]
    assert names({"provider": "ovh", "region": "SBG5", "flavor": "auto"}, catalogue) == ["second"]


def test_quotas_that_are_used_up_and_places_that_were_tried_are_out():
    catalogue = [flavor("full", 0.1, available=2, planned=2), flavor("a", available=3, planned=1), flavor("b", 2.0)]
    wish = {"provider": "auto", "region": "auto", "flavor": "auto"}
    assert names(wish, catalogue) == ["a", "b"]
    assert names(wish, catalogue, [("ovh", "GRA11", "a")]) == ["b"]
    assert [row["name"] for row in dealt(candidates(wish, catalogue, lambda name: []), 4)] == ["a", "a", "b", "b"]
    assert len(dealt([catalogue[1]], 4)) == 2


@given(st.lists(st.tuples(st.integers(0, 5) | st.none(), st.integers(0, 3)), max_size=8), st.integers(0, 20))
def test_no_more_is_dealt_than_asked_for_and_than_there_is_room(quotas, number):
    catalogue = [flavor(f"f{n}", available=most, planned=planned) for n, (most, planned) in enumerate(quotas)]
    out = dealt(candidates({}, catalogue, lambda name: []), number)
    assert len(out) <= number
    for row in catalogue:
        assert room(row) is None or out.count(row) <= room(row)
    if len(out) < number:
        assert all(room(row) is not None and out.count(row) == room(row) for row in catalogue)


@pytest.mark.parametrize(
    "wish, told, field",
    [
        ({"provider": "ohv"}, "did you mean 'ovh'", "provider"),
        ({"provider": "ovh", "region": "GRA1"}, "did you mean 'GRA11'", "region"),
        ({"provider": "ovh", "region": "GRA11", "flavor": "b3"}, "no flavor 'b3' of ovh", "flavor"),
        ({"flavor": "auto:cpu>=500"}, "none of 2 flavors passes auto:cpu>=500", "flavor"),
        ({"flavor": "b3-8"}, "room for 1 of 3 machines", "number"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said_of_its_first_wrong_part(wish, told, field):
    catalogue = [flavor("b3-8", available=1), flavor("c3-8", region="SBG5")]
    error = refusal({"provider": "auto", "region": "auto", "flavor": "auto", **wish}, catalogue, 3)
    assert told in error.message and error.field == field


def test_a_name_is_that_flavor_whatever_it_is_like():
    assert fits({"flavor": "metal"}, flavor("metal", tags="M", eviction=50.0))
    assert not fits({"flavor": "metal"}, flavor("metal2"))
