"""OpenStack when things go wrong: the official SDK against a server that fails as Keystone, Nova, Glance and Neutron do."""

from __future__ import annotations

import base64
import gzip
import threading
from dataclasses import asdict
from typing import ClassVar

import pytest
from clouds.http import Answer, Cloud
from clouds.openstack import PASSWORD, OpenStackCloud, credentials
from clouds.rig import Rig
from scitq.cloud.nova import together
from scitq.cloud.provider import BROKEN, SILENT, UP, CloudRefused, CloudTrouble, NoRoom
from scitq.errors import InvalidRequest

TAG = "scitq-00000000aaaaaaaa"
BUSY = Answer(429, {"overLimit": {"code": 429, "message": "Too many requests"}}, {"Retry-After": "0"})
FAILED = Answer(500, {"computeFault": {"code": 500, "message": "Unexpected API Error"}})


class Asked(Rig):
    """Orders and providers for the server of one test."""

    kind, flavor, region = "openstack", "b3-8", "GRA11"
    config: ClassVar = {"regions": ["GRA11", "SBG5"], "image": "Ubuntu 24.04", "network": "Ext-Net"}


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    made = OpenStackCloud()
    for name, value in credentials(tmp_path, made.url).items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def rig(cloud, tmp_path):
    return Asked(tmp_path)


def the_order(cloud) -> dict:
    """What Nova was asked for."""
    return next(
        request.body["server"] for request in cloud.asked if request.method == "POST" and request.path.endswith("/servers")
    )


def test_what_nova_is_asked_for(cloud, rig):
    config = {**rig.config, "keypair": "lab", "security_groups": "default", "volume": 40}
    made = rig.provider(config=config).create(rig.order(user_data="#cloud-config\nruncmd: []\n"))
    asked = the_order(cloud)
    assert base64.b64decode(asked["user_data"]) == b"#cloud-config\nruncmd: []\n"
    assert asked["metadata"] == {"scitq-tag": TAG} and asked["config_drive"] is True and asked["key_name"] == "lab"
    disk = asked["block_device_mapping_v2"][0]
    assert (disk["volume_size"], disk["delete_on_termination"], disk["boot_index"]) == (40, True, 0) and "imageRef" not in asked
    assert (made.state, made.address, made.flavor) == (UP, "198.51.100.7", "b3-8")


def test_a_long_first_boot_is_compressed_and_a_longer_one_refused(cloud, rig):
    rig.provider().create(rig.order(user_data="#cloud-config\n" + "# again and again\n" * 5000))
    assert gzip.decompress(base64.b64decode(the_order(cloud)["user_data"])).startswith(b"#cloud-config")
    noise = "".join(chr(33 + number * number % 9001 % 90) + str(number**7 % 99991) for number in range(60000))
    with pytest.raises(CloudRefused, match="takes 65535"):
        rig.provider().create(rig.order(user_data=noise))


def test_a_quota_that_is_used_up_is_no_room(cloud, rig):
    cloud.limits["maxTotalCores"] = 3
    with pytest.raises(NoRoom, match=r"room for 1 more of b3-8, not for 2"):
        rig.provider().check("b3-8", "GRA11", 2)
    rig.provider().create(rig.order())
    with pytest.raises(NoRoom, match="Quota exceeded for cores"):
        rig.provider().create(rig.order())
    assert len(cloud.servers) == 1


def test_where_no_host_has_room_nothing_stays(cloud, rig):
    with pytest.raises(NoRoom, match="No valid host was found"):
        rig.provider().create(rig.order(flavor="nowhere"))
    assert cloud.servers == {}


def test_what_ends_in_error_is_broken_and_says_why(cloud, rig):
    made = rig.provider().create(rig.order(flavor="breaks"))
    assert (made.state, made.message) == (BROKEN, "Build of instance aborted: the hypervisor gave up")
    (listed,) = rig.provider().list()
    assert (listed.state, listed.message) == (made.state, made.message)


def test_busy_and_stumbling_reads_are_asked_again(cloud, rig):
    cloud.fail("GET", "/servers/detail", FAILED)
    cloud.fail("GET", "/flavors/detail", BUSY, times=3)
    cloud.fail("GET", "/images", None)  # the line is cut
    cloud.fail("POST", "/servers$", BUSY)  # surely not begun
    assert rig.provider().create(rig.order()).state == UP
    assert len(cloud.servers) == 1 and any("asking again" in line for line in rig.said)


def test_a_failure_of_the_order_itself_is_trouble_and_not_asked_twice(cloud, rig):
    cloud.fail("POST", "/servers$", FAILED)
    with pytest.raises(CloudTrouble, match="500"):
        rig.provider().create(rig.order())
    assert cloud.count("POST", "/servers$") == 1


def test_done_but_not_answered_it_is_found_by_the_next_try(cloud, rig):
    order = rig.order()
    cloud.fail("POST", "/servers$", None, done=True)
    with pytest.raises(CloudTrouble):
        rig.provider().create(order)
    assert rig.provider().create(order).id in cloud.servers and len(cloud.servers) == 1


def test_what_is_there_twice_is_there_once_soon(cloud, rig):
    """An order that was on its way when its server was killed arrives after the second one."""
    order = rig.order()
    first = rig.provider().create(order)
    cloud.leaving = 0
    cloud.make(the_order(cloud), "GRA11")
    for _ in range(2):
        assert [machine.id for machine in rig.provider().list()] == [first.id]
    assert set(cloud.servers) == {first.id} and cloud.count("DELETE", "/servers/") == 1


def test_two_at_once_make_one(cloud, rig):
    order, made = rig.order(), []
    rig.provider().check("b3-8", "GRA11", 1)  # what both need is loaded
    providers = [rig.provider(), rig.provider()]
    together = [threading.Thread(target=lambda one=one: made.append(one.create(order).id)) for one in providers]
    for one in together:
        one.start()
    for one in together:
        one.join()
    (kept,) = rig.provider().list()
    rig.provider().delete(kept)
    assert kept.id in made and cloud.servers == {}


def test_a_region_that_fails_hides_its_own_machines_alone(cloud, rig):
    """Machines there must not pass for vanished, and what the others tell is used."""
    made = rig.provider().create(rig.order())
    rig.provider().create(rig.order(region="SBG5"))
    cloud.fail("GET", "/SBG5/compute/v2.1/servers/detail", FAILED, times=99)
    there, silent = rig.provider().list()
    assert (there.name, there.state, there.region) == (made.name, UP, "GRA11")
    assert (silent.name, silent.state, silent.region) == ("", SILENT, "SBG5") and "region SBG5: provider it" in silent.message
    cloud.fail("GET", "/GRA11/compute/v2.1/servers/detail", FAILED, times=99)
    with pytest.raises(CloudTrouble, match="500"):
        list(rig.provider().list())


def test_a_region_that_hangs_holds_up_no_other():
    released = threading.Event()
    try:
        (silence,) = together("listing", [released.wait], 0)
        assert isinstance(silence, CloudTrouble) and "listing: no answer within 0 s" in str(silence)
    finally:
        released.set()
    assert together("listing", [lambda: "there", lambda: "too"], 60) == ["there", "too"]


def test_what_does_not_go_away_is_asked_again_and_what_vanished_is_gone(cloud, rig):
    made = rig.provider().create(rig.order())
    cloud.leaving = 3
    rig.provider().delete(made)
    again = rig.provider().create(rig.order())
    cloud.servers.clear()  # by somebody else
    assert list(rig.provider().list()) == []
    rig.provider().delete(again)


def test_what_vanishes_while_it_is_built_is_trouble(cloud, rig):
    cloud.fail("POST", "/servers$", Answer(202, {"server": {"id": "gone"}}))
    with pytest.raises(CloudTrouble, match="vanished"):
        rig.provider().create(rig.order())


def test_deleted_in_a_region_that_is_configured_no_more(cloud, rig):
    made = rig.provider().create(rig.order())
    rig.provider(config={**rig.config, "regions": ["SBG5"]}).delete(made)
    assert cloud.servers == {}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"image": "Ubuntu 24.4"}, "did you mean 'Ubuntu 24.04'"),
        ({"image": "Twice"}, "2 images called 'Twice': give the id"),
        ({"image": None}, "set `image` of providers.it"),
        ({"network": "Ext-Nat"}, "did you mean 'Ext-Net'"),
        ({"network": None}, r"set `network` \(Ext-Net, private\)"),
        ({"keypair": "labb"}, "did you mean 'lab'"),
        ({"security_groups": ["defaul"]}, "did you mean 'default'"),
        ({"regions": ["GRA12"]}, "did you mean 'GRA11'"),
        ({"cloud": "awai"}, "did you mean 'away'.*OS_CLOUD"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(cloud, rig, changes, said):
    provider = rig.provider(config={**rig.config, **changes})
    region = (changes.get("regions") or ["GRA11"])[0]
    with pytest.raises(CloudRefused, match=said):
        provider.check("b3-8", region, 1)


def test_several_regions_and_none_named(cloud, rig):
    with pytest.raises(CloudRefused, match=r"name yours in `regions` \(GRA11, SBG5\)"):
        list(rig.provider(config={**rig.config, "regions": None}).list())


@pytest.mark.parametrize("variables", [{"OS_PASSWORD": "wrong"}, {"OS_AUTH_URL": None}])
def test_credentials_that_are_wrong_or_missing_are_named(cloud, rig, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    (name,) = variables
    with pytest.raises(CloudRefused, match=name) as refused:
        rig.provider().check("b3-8", "GRA11", 1)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("key, value", [("regions", 3), ("prices", {"b3-8": "cheap"}), ("config_drive", "yes"), ("volume", 1.5)])
def test_a_wrong_value_of_the_configuration_is_named(rig, key, value):
    with pytest.raises(InvalidRequest, match=f"providers.it.{key}"):
        rig.provider(config={**rig.config, key: value})


class Catalogue(Cloud):
    """OVH's, as it publishes it."""

    def answer(self, request):
        gpu = {"model": "Tesla V100S", "number": 2, "memory": {"size": 32}}
        disks = [{"capacity": 500, "number": 1, "technology": "NVMe"}]
        addons = [
            self.addon("b3-8.consumption", 5_080_000, {}),
            self.addon("b3-8.monthly.postpaid", 2_200_000_000, {}),
            self.addon("t2-le-90.consumption", 160_000_000, {"gpu": gpu, "storage": {"disks": disks}}),
            {"planCode": "volume.classic.consumption", "product": "publiccloud-volume", "pricings": []},
        ]
        return Answer(200, {"locale": {"currencyCode": "EUR"}, "addons": addons})

    def addon(self, plan: str, price: int, technical: dict) -> dict:
        pricings = [{"price": price, "intervalUnit": "hour", "capacities": ["consumption"]}]
        return {"planCode": plan, "product": "publiccloud-instance", "pricings": pricings, "blobs": {"technical": technical}}


def test_flavors_with_prices_of_the_catalogue_and_of_the_configuration(cloud, rig):
    shop = Catalogue()
    try:
        config = {**rig.config, "catalog": f"{shop.url}/catalog", "prices": {"b3-64": 0.4}}
        found = {flavor.name: flavor for flavor in rig.provider(config=config).flavors() if flavor.region == "SBG5"}
        shop.fail("GET", "/catalog", FAILED)
        with pytest.raises(CloudTrouble, match="catalogue"):
            list(rig.provider(config=config).flavors())
    finally:
        shop.close()
    small, large, gpu = (asdict(found[name]) for name in ("b3-8", "b3-64", "t2-le-90"))
    assert (small["cpu"], small["ram"], small["price"], small["currency"], small["available"]) == (2, 8.6, 0.0508, "EUR", 10)
    assert (large["price"], large["available"], large["eviction"]) == (0.4, 2, 0)
    assert (gpu["gpus"], gpu["gpu"], gpu["gpumem"], gpu["tags"], gpu["price"], gpu["disk"]) == (
        2,
        "Tesla V100S",
        32,
        "GN",
        1.6,
        500,
    )
