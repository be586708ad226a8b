"""Azure when things go wrong: the official SDK against a server that fails as the Resource Manager is documented to."""

from __future__ import annotations

import base64

import pytest
from clouds.azure import IMAGE, KEY, SUBSCRIPTION, TOKEN, AzureCloud, configuration, error
from clouds.http import Answer
from clouds.rig import Rig
from scitq.cloud.provider import BROKEN, CREATING, EVICTED, STOPPED, UP, CloudRefused, CloudTrouble, NoRoom
from scitq.errors import InvalidRequest

TAG = "scitq-00000000aaaaaaaa"
VM = "/Microsoft.Compute/virtualMachines/"
BUSY = error(429, "TooManyRequests", "The request is being throttled.", Retry_After="0")
FAILED = error(500, "InternalServerError", "Encountered internal server error.")


class Asked(Rig):
    kind, flavor, region = "azure", "Standard_D2s_v5", "westeurope"


@pytest.fixture(scope="module")
def server():
    made = AzureCloud()
    yield made
    made.close()


@pytest.fixture
def cloud(server, monkeypatch):
    """The server, with nothing in it."""
    monkeypatch.setenv("AZURE_ACCESS_TOKEN", TOKEN)
    for kept in (server.things, server.faults, server.asked, server.power):
        kept.clear()
    server.polls, server.cores = 1, 40
    return server


@pytest.fixture
def rig(cloud, tmp_path):
    made = Asked(tmp_path)
    made.config = configuration(cloud.url)
    return made


def body_of(cloud, kind: str) -> dict:
    """What was sent to make the last one of its kind."""
    return [request.body for request in cloud.asked if request.method == "PUT" and f"/{kind}/" in request.path][-1]


def path_of(name: str) -> str:
    group = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{name}"
    return f"{group}/providers/microsoft.compute/virtualmachines/{name}".lower()


def test_what_is_on_the_wire(cloud, rig):
    order = rig.order(user_data="#cloud-config\nruncmd: []\n")
    made = rig.provider(config={**rig.config, "max_price": 0.05, "ssh_from": "192.0.2.0/24", "disk": 64}).create(order)
    sent = body_of(cloud, "virtualMachines")
    properties = sent["properties"]
    assert (properties["priority"], properties["evictionPolicy"], properties["billingProfile"]) == (
        "Spot",
        "Delete",
        {"maxPrice": 0.05},
    )
    assert base64.b64decode(properties["osProfile"]["customData"]) == b"#cloud-config\nruncmd: []\n"
    linux = properties["osProfile"]["linuxConfiguration"]
    assert linux["disablePasswordAuthentication"] is True and linux["ssh"]["publicKeys"][0]["keyData"] == KEY
    image = properties["storageProfile"]["imageReference"]
    assert ":".join(image[part] for part in ("publisher", "offer", "sku", "version")) == IMAGE
    assert properties["storageProfile"]["osDisk"] == {"createOption": "FromImage", "deleteOption": "Delete", "diskSizeGB": 64}
    assert properties["networkProfile"]["networkInterfaces"][0]["properties"] == {"primary": True, "deleteOption": "Delete"}
    assert sent["tags"]["scitq-tag"] == TAG and properties["hardwareProfile"] == {"vmSize": "Standard_D2s_v5"}
    (rule,) = body_of(cloud, "networkSecurityGroups")["properties"]["securityRules"]
    assert (rule["properties"]["sourceAddressPrefix"], rule["properties"]["destinationPortRange"]) == ("192.0.2.0/24", "22")
    assert made.state == UP and made.address.startswith("198.51.100.")


def test_neither_spot_nor_public_where_that_is_said(cloud, rig):
    made = rig.provider(config={**rig.config, "spot": False, "public_address": False}).create(rig.order())
    assert "priority" not in body_of(cloud, "virtualMachines")["properties"]
    assert made.address is None and cloud.count("PUT", "publicIPAddresses") == 0
    assert body_of(cloud, "networkSecurityGroups")["properties"]["securityRules"] == []


def test_a_quota_that_is_used_up_is_no_room(cloud, rig):
    cloud.cores = 3
    with pytest.raises(NoRoom, match="room for 1 more of Standard_D2s_v5, not for 2"):
        rig.provider().check(rig.flavor, rig.region, 2)
    rig.provider().create(rig.order())
    with pytest.raises(NoRoom, match="OperationNotAllowed.*quota"):
        rig.provider().create(rig.order())


def test_no_capacity_is_no_room_and_what_was_made_is_broken_until_deleted(cloud, rig):
    with pytest.raises(NoRoom, match="AllocationFailed"):
        rig.provider().create(rig.order(flavor="Standard_E16ds_v5"))
    (left,) = rig.provider().list()
    assert (left.state, left.message) == (
        BROKEN,
        "Allocation failed. We do not have sufficient capacity for the requested VM size.",
    )
    rig.provider().delete(left)
    assert cloud.things == {}


def test_an_operation_that_fails_is_trouble(cloud, rig):
    cloud.failing["Standard_D2s_v5"] = ("InternalExecutionError", "An internal execution error occurred.")
    try:
        with pytest.raises(CloudTrouble, match="InternalExecutionError"):
            rig.provider().create(rig.order())
    finally:
        del cloud.failing["Standard_D2s_v5"]


def test_busy_and_stumbling_it_is_asked_again(cloud, rig):
    cloud.polls = 5
    cloud.fail("GET", "/skus$", BUSY, times=2)
    cloud.fail("PUT", "/virtualNetworks/", FAILED)
    cloud.fail("GET", "/operations/", FAILED)
    cloud.fail("PUT", VM, BUSY)
    assert rig.provider().create(rig.order()).state == UP
    assert len(cloud.machines()) == 1


def test_done_but_not_answered_it_is_one_machine(cloud, rig):
    order = rig.order()
    cloud.fail("PUT", VM, None, times=9, done=True)
    with pytest.raises(CloudTrouble):
        rig.provider().create(order)
    cloud.faults.clear()
    assert rig.provider().create(order).state == UP
    assert len(cloud.machines()) == 1


@pytest.mark.parametrize(
    "kind", ["networkSecurityGroups", "virtualNetworks", "publicIPAddresses", "networkInterfaces", "virtualMachines"]
)
def test_left_half_made_it_is_listed_finished_and_removed(cloud, rig, kind):
    order = rig.order()
    cloud.fail("PUT", f"/{kind}/", error(400, "BadRequest", "As if the server had been killed here."))
    with pytest.raises(CloudRefused):
        rig.provider().create(order)
    assert [(one.name, one.state) for one in rig.provider().list()] == [(order.name, CREATING)]
    made = rig.provider().create(order)
    assert made.state == UP
    rig.provider().delete(made)
    assert cloud.things == {}


def test_evicted_stopped_and_vanished(cloud, rig):
    orders = [rig.order() for _ in range(3)]
    for order in orders:
        rig.provider().create(order)
    evicted, stopped, vanished = (order.name for order in orders)
    cloud.evict(evicted)
    cloud.power[path_of(stopped)] = "deallocated"
    cloud.drop(path_of(vanished).split("/providers/")[0])
    assert {one.name: one.state for one in rig.provider().list()} == {evicted: EVICTED, stopped: EVICTED}
    paid = rig.provider(config={**rig.config, "spot": False})
    assert {one.name: one.state for one in paid.list()} == {evicted: EVICTED, stopped: STOPPED}
    for machine in rig.provider().list():
        rig.provider().delete(machine)
    assert cloud.things == {}


def test_a_list_that_fails_is_no_list(cloud, rig):
    rig.provider().create(rig.order())
    cloud.fail("GET", "/virtualMachines$", error(403, "AuthorizationFailed", "The client does not have authorization."))
    with pytest.raises(CloudRefused, match="AuthorizationFailed"):
        list(rig.provider().list())


@pytest.mark.parametrize(
    "changes, flavor, said",
    [
        ({"image": IMAGE.replace("-lts", "-lst")}, "Standard_D2s_v5", "did you mean 'ubuntu-24_04-lts'"),
        ({"image": IMAGE.replace("server", "serve")}, "Standard_D2s_v5", "did you mean 'server'"),
        ({"image": IMAGE.replace("Canonical", "Canonicle")}, "Standard_D2s_v5", "no image 'ubuntu-24_04-lts' of Canonicle"),
        ({"image": "Ubuntu"}, "Standard_D2s_v5", "publisher:offer:sku:version"),
        ({"ssh_key": "~/nothing.pub"}, "Standard_D2s_v5", "`ssh_key` of providers.it.*cannot be read"),
        ({}, "Standard_D2_v5", "did you mean 'Standard_D2s_v5'"),
        ({}, "Standard_B2s", "no flavor 'Standard_B2s'"),  # not as a spot machine
        ({"regions": ["westeurop"]}, "Standard_D2s_v5", "no virtual machines in a region 'westeurop'"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(cloud, rig, changes, flavor, said):
    provider = rig.provider(config={**rig.config, **changes})
    with pytest.raises(CloudRefused, match=said):
        provider.check(flavor, (changes.get("regions") or ["westeurope"])[0], 1)


def test_what_a_subscription_may_not_have_is_no_room(cloud, rig):
    with pytest.raises(NoRoom, match="NotAvailableForSubscription"):
        rig.provider().check("Standard_L8s_v3", "westeurope", 1)


@pytest.mark.parametrize("token", ["wrong", None])
def test_credentials_that_are_wrong_or_missing_are_named(cloud, rig, monkeypatch, token):
    monkeypatch.delenv("AZURE_ACCESS_TOKEN")
    if token:
        monkeypatch.setenv("AZURE_ACCESS_TOKEN", token)
    else:  # nothing of this machine, and quickly
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(CloudRefused, match="AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET") as refused:
        rig.provider().check(rig.flavor, rig.region, 1)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "key, value",
    [("regions", None), ("subscription", ""), ("endpoint", "http://example.org"), ("spot", "yes"), ("max_price", -3.0)],
)
def test_a_wrong_value_of_the_configuration_is_named(rig, key, value):
    with pytest.raises(InvalidRequest, match=f"providers.it.{key}"):
        rig.provider(config={**rig.config, key: value})


def test_flavors_with_prices_evictions_and_quotas(cloud, rig):
    cloud.fail("GET", "^/prices", Answer(429, {}, {"Retry-After": "0"}))
    found = {flavor.name: flavor for flavor in rig.provider().flavors() if flavor.region == "westeurope"}
    assert set(found) == {"Standard_D2s_v5", "Standard_E16ds_v5", "Standard_NC24ads_A100_v4"}
    small, large, gpu = (found[name] for name in ("Standard_D2s_v5", "Standard_E16ds_v5", "Standard_NC24ads_A100_v4"))
    assert (small.cpu, small.ram, small.price, small.currency, small.eviction, small.available) == (2, 8.6, 0.0176, "USD", 10, 20)
    assert (large.disk, large.price, large.currency, large.eviction, large.available) == (644.2, None, None, 5, 2)
    assert (gpu.gpus, gpu.gpu, gpu.gpumem, gpu.tags, gpu.disk) == (1, "A100", 80, "GN", 960.0)
    paid = {flavor.name: flavor for flavor in rig.provider(config={**rig.config, "spot": False}).flavors()}
    assert (paid["Standard_D2s_v5"].price, paid["Standard_D2s_v5"].eviction, paid["Standard_D2s_v5"].available) == (0.1, 0, 10)


def test_evictions_that_may_not_be_read_do_not_keep_the_flavors(cloud, rig):
    cloud.fail("POST", "ResourceGraph", error(403, "AuthorizationFailed", "No."), times=2)
    assert {flavor.eviction for flavor in rig.provider().flavors()} == {5}
    assert any("evictions are not told" in line for line in rig.said)
