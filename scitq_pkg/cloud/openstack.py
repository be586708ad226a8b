"""Machines of OpenStack: OVH's public cloud, or any other one, by openstacksdk.

A machine is one server; its tag is the metadata `scitq-tag`. Nova makes two servers of one name when it is asked twice, so
whoever was killed before the answer came asks what is there first, and what is there twice is removed but for the oldest.
"""

from __future__ import annotations

import base64
import gzip
import ipaddress
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ..errors import nearest
from . import ovh
from .keys import checked, texts
from .nova import Region, is_no_room, together
from .provider import (
    BROKEN,
    CREATING,
    DELETING,
    SILENT,
    STOPPED,
    UP,
    CloudRefused,
    CloudTrouble,
    Flavor,
    Machine,
    NoRoom,
    Order,
    Tell,
)

TAG = "scitq-tag"
_KEYS = {
    **dict.fromkeys(("kind", "cloud", "image", "gpu_image", "keypair", "currency", "catalog"), str),
    **dict.fromkeys(("regions", "network", "security_groups"), list),
    "config_drive": bool,
    "volume": (int, 1),
    "prices": dict,
}
_STATES = {
    **dict.fromkeys(("BUILD", "BUILDING", "REBUILD"), CREATING),
    **dict.fromkeys(("SHUTOFF", "STOPPED", "SUSPENDED", "PAUSED", "SHELVED", "SHELVED_OFFLOADED", "RESCUE", "RESCUED"), STOPPED),
    **dict.fromkeys(("DELETED", "SOFT_DELETED"), DELETING),
    "ERROR": BROKEN,
}
_USER_DATA_BYTES = 65535  # Nova's limit, in base64
_BUILD_SECONDS = 600.0
_DELETE_SECONDS = 600.0
_LIST_SECONDS = 90.0  # for which a region may be silent: the question for all of them has 120
_ASK_AGAIN_SECONDS = 60.0  # to delete what is still there
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_MIB, _GIB, _GB = 2**20, 2**30, 1e9
_NO_GPU = re.compile(r"nvme|ssd|disk|nic|sriov|net", re.IGNORECASE)  # aliases of other devices that are passed through


class OpenStack:
    """A project of an OpenStack cloud as a provider."""

    def __init__(self, name: str, config: Mapping, tag: str, tell: Tell):
        self.name, self._tag, self._tell = name, tag, tell
        self._config = checked(f"providers.{name}", config, _KEYS)
        prices = config.get("prices") or {}
        self._prices = checked(f"providers.{name}.prices", prices, dict.fromkeys(prices, (float, 0)))
        self._regions: dict[str | None, Region] = {}

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def check(self, flavor: str, region: str, number: int) -> None:
        where = self._region(region)
        size = self._flavor(where, flavor)
        self._parts(where, size)
        room = _room(where.ask("asking for the quota", where.compute.get_limits).absolute, size)
        if room is not None and room < number:
            raise NoRoom(
                f"the quota of region {where.name} of provider {self.name} has room for {room} more of {flavor}, not for {number}"
            )

    def create(self, order: Order) -> Machine:
        region = self._region(order.region)
        if not self._named(region, order.name):
            self._ask_for(region, order)
        machine = self._built(region, order.name)
        if machine.state == BROKEN and is_no_room(machine.message):
            self.delete(machine)
            raise NoRoom(f"region {region.name} of provider {self.name} has no room for {order.flavor}: {machine.message}")
        return machine

    def list(self) -> Iterator[Machine]:
        names = texts(self._config.get("regions")) or [None]
        calls = [partial(self._listed, name) for name in names]
        answers = together(f"provider {self.name}: listing servers", calls, _LIST_SECONDS)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if len(failed) == len(answers):
            raise failed[0]
        for name, answer in zip(names, answers):
            if isinstance(answer, Exception):
                yield Machine("", name, SILENT, message=f"region {name}: {answer}")
            else:
                yield from answer

    def delete(self, machine: Machine) -> None:
        region = self._connected(machine.region)  # one that is configured no more, too
        end = time.monotonic() + _DELETE_SECONDS
        again, pause = 0.0, _FIRST_PAUSE_SECONDS
        while servers := self._named(region, machine.name):
            if time.monotonic() > end:
                raise CloudTrouble(
                    f"provider {self.name}: {machine.name} is still there {_DELETE_SECONDS:g} s after it was to be deleted"
                )
            if time.monotonic() > again:
                again = time.monotonic() + _ASK_AGAIN_SECONDS
                self._remove(region, servers)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    def flavors(self) -> Iterator[Flavor]:
        offers, currency = self._offers()
        for region in self._all_regions():
            limits = region.ask("asking for the quota", region.compute.get_limits).absolute
            sizes = region.ask("listing flavors", lambda compute: list(compute.flavors()), region.compute)
            for size in sizes:
                if not size.is_disabled:
                    offer = offers.get(size.name) or ovh.Offer(None)
                    price = self._prices.get(size.name, offer.price)
                    yield _flavor(size, region.name, offer, price, currency if price is not None else None, _room(limits, size))

    # --- regions ------------------------------------------------------------------------------------------------------

    def _region(self, name: str) -> Region:
        """The connection to a region of the configuration. Raises CloudRefused."""
        known: dict = {region: region for region in texts(self._config.get("regions"))} or {self._connected(None).name: None}
        if name not in known:
            there = ", ".join(known)
            raise CloudRefused(f"provider {self.name} has no region {name!r:.80}{nearest(name, known)}: `regions` has {there}")
        return self._connected(known[name])

    def _connected(self, name: str | None) -> Region:
        if name not in self._regions:
            self._regions[name] = Region(self.name, self._config.get("cloud"), name, self._tell)
        return self._regions[name]

    def _all_regions(self) -> list[Region]:
        return [self._connected(name) for name in texts(self._config.get("regions")) or [None]]

    def _listed(self, name: str | None) -> Sequence[Machine]:
        region = self._connected(name)
        by_name: dict[str, list] = {}
        for server in self._servers(region):
            by_name.setdefault(server.name, []).append(server)
        return [_machine(region, self._one(region, servers)) for servers in by_name.values()]

    # --- servers ------------------------------------------------------------------------------------------------------

    def _servers(self, region: Region, **query) -> list:
        """Those of our tag, but what is deleted already."""
        found = region.ask("listing servers", lambda: list(region.compute.servers(**query)))
        return [server for server in found if (server.metadata or {}).get(TAG) == self._tag and server.status != "DELETED"]

    def _named(self, region: Region, name: str) -> list:
        return [server for server in self._servers(region, name=f"^{re.escape(name)}$") if server.name == name]

    def _one(self, region: Region, servers: list):
        """The oldest; the others go. None if there is none."""
        servers = sorted(servers, key=lambda server: (server.task_state == "deleting", server.created_at or "", server.id))
        surplus = [server for server in servers[1:] if server.task_state != "deleting"]
        if surplus:
            self._tell(f"{servers[0].name} is there more than once: {', '.join(server.id for server in surplus)} deleted")
            self._remove(region, surplus)
        return servers[0] if servers else None

    def _remove(self, region: Region, servers: list) -> None:
        for server in servers:
            region.ask(f"deleting server {server.id}", region.compute.delete_server, server.id, ignore_missing=True)

    def _ask_for(self, region: Region, order: Order) -> None:
        size = self._flavor(region, order.flavor)
        words = {"name": order.name, "flavor_id": size.id, "metadata": {TAG: order.tag}, **self._parts(region, size)}
        if order.user_data:
            words["user_data"] = _encoded(order.user_data)
        region.ask(f"asking for server {order.name}", region.compute.create_server, again=False, **words)

    def _built(self, region: Region, name: str) -> Machine:
        """The machine when the cloud has done building it, for good or bad, or has taken too long for anybody to wait."""
        end, pause = time.monotonic() + _BUILD_SECONDS, _FIRST_PAUSE_SECONDS
        while server := self._one(region, self._named(region, name)):
            machine = _machine(region, server)
            if machine.state != CREATING or time.monotonic() > end:
                return machine
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        raise CloudTrouble(f"provider {self.name}: {name} vanished from region {region.name} while it was built")

    # --- what a server is made of -------------------------------------------------------------------------------------

    def _flavor(self, region: Region, name: str):
        return region.find("flavor", name, region.compute.flavors)

    def _parts(self, region: Region, size) -> dict:
        """The words of an order that the configuration decides, looked up in the region. Raises CloudRefused."""
        words = {
            "networks": [{"uuid": one} for one in self._networks(region)],
            "config_drive": self._config.get("config_drive", True),
        }
        image = self._image(region, size)
        if volume := self._config.get("volume"):
            disk = {"boot_index": 0, "uuid": image, "source_type": "image", "destination_type": "volume"}
            words["block_device_mapping"] = [{**disk, "volume_size": volume, "delete_on_termination": True}]
        else:
            words["image_id"] = image
        if keypair := self._config.get("keypair"):
            words["key_name"] = region.find("keypair", keypair, region.compute.keypairs).name
        if groups := texts(self._config.get("security_groups")):
            words["security_groups"] = [
                {"name": region.find("security group", one, region.network.security_groups).id} for one in groups
            ]
        return words

    def _image(self, region: Region, size) -> str:
        gpu = self._config.get("gpu_image")
        wanted = gpu if gpu and _gpus(size) else self._config.get("image")
        if not wanted:
            raise CloudRefused(f"provider {self.name} has no image: set `image` of providers.{self.name}")
        return region.find("image", wanted, region.image.images).id

    def _networks(self, region: Region) -> list[str]:
        if wanted := texts(self._config.get("network")):
            return [region.find("network", one, region.network.networks).id for one in wanted]
        known = region.ask("listing networks", lambda: list(region.network.networks()))
        if len(known) == 1:
            return [known[0].id]
        names = ", ".join(sorted(one.name or one.id for one in known)) or "none"
        raise CloudRefused(f"region {region.name} of provider {self.name} has several networks or none: set `network` ({names})")

    def _offers(self) -> tuple[dict[str, ovh.Offer], str | None]:
        currency, url = self._config.get("currency"), self._config.get("catalog")
        if not url:
            return {}, currency
        offers, theirs = ovh.offers(ovh.URL if url == "ovh" else url)
        return offers, currency or theirs


def _machine(region: Region, server) -> Machine:
    state = _STATES.get(server.status, UP)
    if state != BROKEN and server.task_state == "deleting":
        state = DELETING
    message = (server.fault or {}).get("message") or "Nova says ERROR, without a reason" if state == BROKEN else ""
    flavor = server.flavor.name if server.flavor is not None else None
    return Machine(server.name, region.name, state, server.id, flavor, _address(server), message)


def _address(server) -> str | None:
    """Where it can be reached: a public IPv4 address before any other."""
    found = [server.access_ipv4] + [one["addr"] for network in (server.addresses or {}).values() for one in network]
    known = [ipaddress.ip_address(one) for one in found if one]
    return str(min(known, key=lambda one: (one.version, not one.is_global))) if known else None


def _encoded(user_data: str) -> str:
    """In base64, compressed if it is too long; cloud-init reads both. Raises CloudRefused."""
    data = user_data.encode()
    for form in (data, gzip.compress(data, mtime=0)):
        encoded = base64.b64encode(form).decode()
        if len(encoded) <= _USER_DATA_BYTES:
            return encoded
    raise CloudRefused(
        f"what the machine is told for its first boot takes {len(encoded)} bytes, and OpenStack takes {_USER_DATA_BYTES}"
    )


def _room(limits, size) -> int | None:
    """How many more of this flavor the quota allows; None where it sets no limit."""
    parts = (
        (limits.instances, limits.instances_used, 1),
        (limits.total_cores, limits.total_cores_used, size.vcpus),
        (limits.total_ram, limits.total_ram_used, size.ram),
    )
    rooms = [max(0, most - (used or 0)) // each for most, used, each in parts if most is not None and most >= 0 and each]
    return min(rooms, default=None)


def _gpus(size) -> int:
    """What is passed through of GPUs, by `pci_passthrough:alias` (`a100:2,nvme:1`) or as resources of the flavor."""
    specs = size.extra_specs or {}
    aliases = [one.rpartition(":") for one in specs.get("pci_passthrough:alias", "").split(",") if one]
    passed = sum(int(count) for alias, _, count in aliases if count.isdigit() and not _NO_GPU.search(alias))
    return passed or sum(int(specs.get(f"resources:{kind}") or 0) for kind in ("VGPU", "PGPU"))


def _flavor(size, region: str, offer: ovh.Offer, price: float | None, currency: str | None, room: int | None) -> Flavor:
    specs = size.extra_specs or {}
    gpus = _gpus(size) or offer.gpus
    metal = size.name.startswith(("bm-", "metal")) or any("BAREMETAL" in key.upper() for key in specs)
    alias = specs.get("pci_passthrough:alias", "").partition(":")[0]
    return Flavor(
        name=size.name,
        region=region,
        cpu=size.vcpus,
        ram=round(size.ram * _MIB / _GB, 1),
        disk=offer.disk or round((size.disk + (size.ephemeral or 0)) * _GIB / _GB, 1),
        gpus=gpus,
        gpu=offer.gpu or (alias if gpus and alias else None),
        gpumem=offer.gpumem,
        tags=("G" if gpus else "") + ("M" if metal else "") + ("N" if offer.nvme else ""),
        price=price,
        currency=currency,
        eviction=0.0,
        available=room,
    )
