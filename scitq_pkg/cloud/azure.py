"""Machines of Azure, by its own SDK. All of a machine lies in a resource group of its name, and goes with it.

    resource group  tags: scitq-tag whose, scitq-flavor, scitq-made once its virtual machine was there
        <name>      virtual machine (spot: Azure deletes what it evicts), its disk, interface, address, network, security group

Every step may be asked for twice. A group that has a `scitq-made` and no virtual machine any more: Azure took it away.
"""

from __future__ import annotations

import base64
import os
import urllib.parse
from collections.abc import Iterator, Mapping

from ..errors import InvalidRequest, nearest
from . import azuresizes
from .arm import ENDPOINT, Subscription
from .keys import checked, texts
from .provider import (
    BROKEN,
    CREATING,
    DELETING,
    EVICTED,
    STOPPED,
    UP,
    CloudRefused,
    CloudTrouble,
    Flavor,
    Machine,
    NoRoom,
    Order,
    Tell,
)  # fmt: skip

TAG, FLAVOR_TAG, MADE_TAG = "scitq-tag", "scitq-flavor", "scitq-made"
_KEYS = {
    **dict.fromkeys(
        ("kind", "subscription", "image", "gpu_image", "ssh_key", "ssh_from", "admin", "currency", "endpoint", "catalog"), str
    ),
    "regions": list,
    "spot": bool,
    "public_address": bool,
    "max_price": (float, 0),
    "disk": (int, 1),
}
_CUSTOM_DATA_BYTES = 65535  # before base64
_DELETE_SECONDS = 840.0
_MADE_WITH = "Microsoft.Compute/virtualMachines"


class Azure:
    """A subscription of Azure as a provider."""

    def __init__(self, name: str, config: Mapping, tag: str, tell: Tell):
        self.name, self._tag, self._tell = name, tag, tell
        self._config = checked(f"providers.{name}", config, _KEYS)
        for key in ("subscription", "regions"):
            if not config.get(key):
                raise InvalidRequest("Azure needs it", field=f"providers.{name}.{key}")
        self._subscription = Subscription(name, config["subscription"], _endpoint(name, config.get("endpoint") or ENDPOINT))
        self._spot = config.get("spot", True)
        self._max_price = -1.0 if config.get("max_price") is None else float(config["max_price"])

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def check(self, flavor: str, region: str, number: int) -> None:
        self._check_region(region)
        size = self._size(flavor, region)
        self._check_image(region, size)
        self._public_key()
        room = self._sizes().room(region, size)
        if room is not None and room < number:
            raise NoRoom(
                f"the quota of region {region} of provider {self.name} has room for {room} more of {flavor}, not for {number}"
            )

    def create(self, order: Order) -> Machine:
        self._check_region(order.region)
        group = self._group(order.name)
        if group is not None and self._state_of(group) == DELETING:
            raise CloudTrouble(f"provider {self.name}: {order.name} is being deleted")
        if group is None or self._virtual_machine(order.name) is None:
            self._make(order)
        self._make_group(order, made=True)
        return self._machine(self._group(order.name), self._virtual_machine(order.name), self._addresses(order.name))

    def list(self) -> Iterator[Machine]:
        query = f"tagName eq '{TAG}' and tagValue eq '{self._tag}'"
        groups = self._subscription.ask(
            "listing groups", lambda: list(self._subscription.resources.resource_groups.list(filter=query))
        )
        if not groups:
            return
        machines = self._subscription.ask(
            "listing machines", lambda: list(self._subscription.compute.virtual_machines.list_all())
        )
        by_name = {machine.name.lower(): machine for machine in machines}
        addresses = self._addresses()
        for group in groups:
            yield self._machine(group, by_name.get(group.name.lower()), addresses)

    def delete(self, machine: Machine) -> None:
        if self._group(machine.name) is None:
            return
        groups = self._subscription.resources.resource_groups
        poller = self._subscription.ask(
            f"deleting {machine.name}", groups.begin_delete, machine.name, force_deletion_types=_MADE_WITH
        )
        self._subscription.ask(f"deleting {machine.name}", poller.wait, _DELETE_SECONDS)
        if not poller.done() or self._group(machine.name) is not None:
            raise CloudTrouble(
                f"provider {self.name}: {machine.name} is still there {_DELETE_SECONDS:g} s after it was to be deleted"
            )

    def flavors(self) -> Iterator[Flavor]:
        for region in texts(self._config["regions"]):
            yield from self._sizes().flavors(region)

    def _make(self, order: Order) -> None:
        """Everything of a machine, or what is missing of it. What is wrong with the order is told before anything is made."""
        described = self._described(order, self._size(order.flavor, order.region))
        self._make_group(order)
        interface = self._make_network(order)
        described.properties.network_profile = self._profile(interface)
        self._tell(f"asking for virtual machine {order.name} ({order.flavor})")
        machines = self._subscription.compute.virtual_machines
        self._finish(f"making {order.name}", machines.begin_create_or_update, order.name, order.name, described)

    # --- groups and what is in them -----------------------------------------------------------------------------------

    def _group(self, name: str):
        """The resource group of a machine; None if there is none. Raises CloudRefused for another server's."""
        group = self._subscription.found("asking for the group", self._subscription.resources.resource_groups.get, name)
        if group is not None and (group.tags or {}).get(TAG) != self._tag:
            raise CloudRefused(f"{name} of provider {self.name} is another server's")
        return group

    def _virtual_machine(self, name: str):
        return self._subscription.found("asking for the machine", self._subscription.compute.virtual_machines.get, name, name)

    def _make_group(self, order: Order, made: bool = False) -> None:
        from azure.mgmt.resource.resources.models import ResourceGroup

        tags = {TAG: order.tag, FLAVOR_TAG: order.flavor, **({MADE_TAG: "yes"} if made else {})}
        wanted = ResourceGroup(location=order.region, tags=tags)
        self._subscription.ask(
            f"making group {order.name}", self._subscription.resources.resource_groups.create_or_update, order.name, wanted
        )

    def _make_network(self, order: Order) -> str:
        """The id of the interface of a machine, made with all that it needs."""
        from azure.mgmt.network import models

        network, name, where = self._subscription.network, order.name, {"location": order.region, "tags": {TAG: order.tag}}
        self._tell(f"making the network of {name}")
        rules = models.NetworkSecurityGroupPropertiesFormat(security_rules=self._rules())
        guard = self._made(name, network.network_security_groups, models.NetworkSecurityGroup(properties=rules, **where))
        subnet = models.Subnet(name=name, properties=models.SubnetPropertiesFormat(
            address_prefix="10.0.0.0/24", network_security_group=models.NetworkSecurityGroup(id=guard.id)
        ))  # fmt: skip
        space = models.VirtualNetworkPropertiesFormat(
            address_space=models.AddressSpace(address_prefixes=["10.0.0.0/24"]), subnets=[subnet]
        )
        around = self._made(name, network.virtual_networks, models.VirtualNetwork(properties=space, **where))
        words = {"subnet": models.Subnet(id=around.properties.subnets[0].id)}
        if self._config.get("public_address", True):
            form = models.PublicIPAddressPropertiesFormat(public_ip_allocation_method="Static")
            wanted = models.PublicIPAddress(sku=models.PublicIPAddressSku(name="Standard"), properties=form, **where)
            words["public_ip_address"] = models.PublicIPAddress(id=self._made(name, network.public_ip_addresses, wanted).id)
        inner = models.NetworkInterfaceIPConfiguration(
            name=name, properties=models.NetworkInterfaceIPConfigurationPropertiesFormat(**words)
        )
        form = models.NetworkInterfacePropertiesFormat(ip_configurations=[inner])
        return self._made(name, network.network_interfaces, models.NetworkInterface(properties=form, **where)).id

    def _made(self, name: str, things, wanted):
        what = type(wanted).__name__
        return self._finish(f"making {what} {name}", things.begin_create_or_update, name, name, wanted)

    def _finish(self, what: str, begin, *words):
        """What comes of an operation that takes its time."""
        return self._subscription.ask(what, lambda: begin(*words).result())

    def _rules(self) -> list:
        """From outside nobody gets in, but to ssh those whom `ssh_from` names."""
        from azure.mgmt.network import models

        if not self._config.get("ssh_from"):
            return []
        form = models.SecurityRulePropertiesFormat(
            protocol="Tcp", access="Allow", priority=100, direction="Inbound", source_port_range="*", destination_port_range="22",
            source_address_prefix=self._config["ssh_from"], destination_address_prefix="*",
        )  # fmt: skip
        return [models.SecurityRule(name="ssh", properties=form)]

    # --- the virtual machine ------------------------------------------------------------------------------------------

    def _described(self, order: Order, size):
        from azure.mgmt.compute import models

        user = self._config.get("admin") or "scitq"
        key = models.SshPublicKey(path=f"/home/{user}/.ssh/authorized_keys", key_data=self._public_key())
        linux = models.LinuxConfiguration(disable_password_authentication=True, ssh=models.SshConfiguration(public_keys=[key]))
        data = _custom_data(order.user_data)
        system = models.OSProfile(computer_name=order.name, admin_username=user, custom_data=data, linux_configuration=linux)
        disk = models.OSDisk(create_option="FromImage", delete_option="Delete", disk_size_gb=self._config.get("disk"))
        words = {
            "priority": "Spot",
            "eviction_policy": "Delete",
            "billing_profile": models.BillingProfile(max_price=self._max_price),
        }
        properties = models.VirtualMachineProperties(
            hardware_profile=models.HardwareProfile(vm_size=order.flavor),
            storage_profile=models.StorageProfile(image_reference=self._image(size), os_disk=disk),
            os_profile=system,
            **(words if self._spot else {}),
        )
        return models.VirtualMachine(location=order.region, tags={TAG: order.tag}, properties=properties)

    def _profile(self, interface: str):
        from azure.mgmt.compute import models

        attached = models.NetworkInterfaceReferenceProperties(primary=True, delete_option="Delete")
        return models.NetworkProfile(network_interfaces=[models.NetworkInterfaceReference(id=interface, properties=attached)])

    def _image(self, size):
        """`publisher:offer:sku:version`, or the id of an image. Raises CloudRefused."""
        from azure.mgmt.compute import models

        gpu = self._config.get("gpu_image")
        wanted = gpu if gpu and azuresizes.gpus(size) else self._config.get("image") or ""
        if wanted.startswith("/"):
            return models.ImageReference(id=wanted)
        parts = wanted.split(":")
        if len(parts) != 4 or not all(parts):
            raise CloudRefused(
                f"provider {self.name} needs an image: `image` of providers.{self.name} is publisher:offer:sku:version, or an id"
            )
        return models.ImageReference(**dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True)))

    def _check_image(self, region: str, size) -> None:
        """Raises CloudRefused with the nearest name for an image that the region does not have."""
        image, images = self._image(size), self._subscription.compute.virtual_machine_images
        if image.id:
            return
        for words, wanted, listing in (
            ((image.publisher,), image.offer, images.list_offers),
            ((image.publisher, image.offer), image.sku, images.list_skus),
        ):
            found = [one.name for one in self._subscription.found("looking for the image", listing, region, *words) or ()]
            if wanted.lower() not in (one.lower() for one in found):
                raise CloudRefused(
                    f"region {region} of provider {self.name} has no image {wanted!r:.80} of {':'.join(words)}"
                    + nearest(wanted, found)
                )

    def _public_key(self) -> str:
        """The public key of the configuration, or in the file that it names. Raises CloudRefused."""
        wanted = self._config.get("ssh_key") or ""
        if wanted.startswith(("ssh-", "ecdsa-")):
            return wanted
        try:
            with open(os.path.expanduser(wanted), encoding="utf-8") as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a text"
            raise CloudRefused(
                f"Azure wants a public key: `ssh_key` of providers.{self.name}, {wanted!r:.200}, cannot be read ({why})"
            ) from None

    # --- what is there ------------------------------------------------------------------------------------------------

    def _machine(self, group, virtual, addresses: Mapping[str, str]) -> Machine:
        """A machine by its group and its virtual machine, of which either may be gone."""
        state, message = self._state(group, virtual)
        flavor = (group.tags or {}).get(FLAVOR_TAG)
        identity = virtual.id if virtual is not None else group.id
        return Machine(group.name, group.location, state, identity, flavor, addresses.get(group.name.lower()), message)

    def _state_of(self, group) -> str | None:
        return DELETING if group.properties is not None and group.properties.provisioning_state == "Deleting" else None

    def _state(self, group, virtual) -> tuple[str, str]:
        if deleting := self._state_of(group):
            return deleting, ""
        if virtual is None:
            return (EVICTED, "Azure has taken it away") if (group.tags or {}).get(MADE_TAG) else (CREATING, "")
        state = (virtual.properties.provisioning_state or "").lower()
        if state == "deleting":
            return EVICTED, "Azure is taking it away"
        if state in ("creating", "updating"):
            return CREATING, ""
        return self._running_state(group.name, state == "failed")

    def _running_state(self, name: str, failed: bool) -> tuple[str, str]:
        machines = self._subscription.compute.virtual_machines
        view = self._subscription.found("asking for the state", machines.instance_view, name, name)
        if view is None:
            return (EVICTED, "Azure has taken it away")
        statuses = view.statuses or []
        codes = {(status.code or "").lower() for status in statuses}
        if failed:
            said = [
                status.message or status.code
                for status in statuses
                if (status.code or "").lower().startswith("provisioningstate/failed")
            ]
            return BROKEN, " ".join(" ".join(said).split())[:400]
        if codes & {"powerstate/stopped", "powerstate/deallocated", "powerstate/deallocating", "powerstate/stopping"}:
            return (EVICTED, "Azure has stopped it") if self._spot else (STOPPED, "")
        return (UP if "powerstate/running" in codes else CREATING), ""

    def _addresses(self, name: str | None = None) -> dict[str, str]:
        """Public addresses by the name of the machine; of one, or of all."""
        if not self._config.get("public_address", True):
            return {}
        listing = self._subscription.network.public_ip_addresses
        call = (lambda: list(listing.list(name))) if name else (lambda: list(listing.list_all()))
        found = self._subscription.ask("listing addresses", call)
        return {one.name.lower(): one.properties.ip_address for one in found if one.properties and one.properties.ip_address}

    # --- sizes --------------------------------------------------------------------------------------------------------

    def _sizes(self) -> azuresizes.Sizes:
        return azuresizes.Sizes(
            self._subscription, self._spot, self._config.get("currency") or "USD", self._config.get("catalog"), self._tell
        )

    def _size(self, flavor: str, region: str):
        """Raises CloudRefused for one that is not there, NoRoom where this subscription may not have it."""
        known = {size.name: size for size in self._sizes().all(region)}
        if flavor not in known:
            raise CloudRefused(f"region {region} of provider {self.name} has no flavor {flavor!r:.80}{nearest(flavor, known)}")
        if reason := azuresizes.restriction(known[flavor]):
            raise NoRoom(f"region {region} of provider {self.name} does not give {flavor} to this subscription ({reason})")
        return known[flavor]

    def _check_region(self, region: str) -> None:
        known = texts(self._config["regions"])
        if region not in known:
            raise CloudRefused(
                f"provider {self.name} has no region {region!r:.80}{nearest(region, known)}: `regions` has {', '.join(known)}"
            )


def _endpoint(name: str, url: str) -> str:
    """Plain HTTP would show the token: it is for stand-ins on this machine only. Raises InvalidRequest."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
        return url
    raise InvalidRequest(f"an https:// URL is needed, not {url!r:.80}", field=f"providers.{name}.endpoint")


def _custom_data(user_data: str) -> str | None:
    """In base64. Raises CloudRefused for what Azure does not take."""
    data = user_data.encode()
    if len(data) > _CUSTOM_DATA_BYTES:
        raise CloudRefused(
            f"what the machine is told for its first boot takes {len(data)} bytes, and Azure takes {_CUSTOM_DATA_BYTES}"
        )
    return base64.b64encode(data).decode() if data else None
