"""What a provider of machines is asked, and how it answers. One file a provider; none of them knows the database or the server.

A machine's name is chosen by us before it is asked for, and carries who it belongs to; so asking twice for one name gives one
machine, and whoever finds a machine knows whether it is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ScitqError

CREATING = "creating"  # asked for, not up yet
UP = "up"
STOPPED = "stopped"  # there, and paid for, but its worker will not come back by itself
EVICTED = "evicted"  # taken away, or about to be, by the provider
BROKEN = "broken"  # the provider failed to make it: to be deleted
DELETING = "deleting"
SILENT = "silent"  # no machine but a part of the provider that did not answer: nothing is known of it now (see `Provider.list`)
QUEUED = "queued"  # key of `Machine.extra`: why a machine that is made waits for its turn, which may take days
MACHINE_STATES = (CREATING, UP, STOPPED, EVICTED, BROKEN, DELETING, SILENT)

Tell = Callable[[str], None]  # a line for the log of the job


class CloudTrouble(ScitqError):
    """The provider cannot be reached, is too slow, or failed by itself: worth another try later."""

    code = "cloud_trouble"


class NoRoom(ScitqError):
    """The quota of the region, or its capacity for this flavor, is used up: worth a try in another region."""

    code = "no_room"


class CloudRefused(ScitqError):
    """The order is wrong, or the credentials are: the same again will fail again. Says what to do."""

    code = "cloud_refused"
    exit_code = 2
    http_status = 400


def is_of(tag: str, name: str) -> bool:
    """Whether a machine's name alone says that it carries the tag (`store.machines.prefix`): of one that was half made or half
    removed when its asker was killed, the record of whose it is may be missing.
    """
    return name.startswith(f"{tag[:14]}-")


@dataclass(frozen=True, slots=True)
class Flavor:
    """A size of machine that a provider has in a region. Sizes in GB (10^9 bytes); None: the provider does not tell."""

    name: str
    region: str
    cpu: int | None = None
    ram: float | None = None
    disk: float | None = None  # of the scratch disk
    gpus: int = 0
    gpu: str | None = None  # its model
    gpumem: float | None = None  # of one GPU
    tags: str = ""  # letters: G GPU, M bare metal, N NVMe disk
    price: float | None = None  # of an hour, in `currency`
    currency: str | None = None
    eviction: float | None = None  # percent of spot machines taken away in an hour; 0: none ever
    available: int | None = None  # how many more the quota allows


@dataclass(frozen=True, slots=True)
class Start:
    """How the worker on a machine is to be started: what the first boot, or the ssh or Slurm provider, makes a command line of.
    """

    server: str  # URL, as the machine reaches it
    token: str  # of this one worker; secret
    worker: str  # its name
    key: str  # its key (`worker.json`); secret
    concurrency: int
    prefetch: int
    batch: str
    sha256: str  # of the one file, which is at `<server>/install/scitq.pyz`
    version: str
    scratch: str | None = None
    ca: str | None = None  # PEM of the authority that signed the server's certificate, if it is none that everybody knows


@dataclass(frozen=True, slots=True)
class Order:
    """A machine to make."""

    name: str  # letters, digits and '-', at most 40; unique among all servers' machines
    tag: str  # of this server: all its machines carry it
    flavor: str
    region: str
    start: Start
    user_data: str = ""  # the cloud-init document, for providers that boot machines


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as its provider tells it."""

    name: str
    region: str
    state: str  # one of MACHINE_STATES
    id: str | None = None  # the provider's own
    flavor: str | None = None
    address: str | None = None
    message: str = ""  # why it is broken
    extra: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """A provider, made from its part of the configuration. Every call may block for as long as its deadline says, and may be
    killed at any moment: the next call with the same name goes on from whatever is there. Raises CloudTrouble, NoRoom,
    CloudRefused.
    """

    def __init__(self, name: str, config: Mapping, tag: str, tell: Tell):
        """`name`: as the configuration calls it. Raises InvalidRequest that names the key of the configuration that is wrong."""

    def check(self, flavor: str, region: str, number: int) -> None:
        """That `number` machines of this kind could be made: flavor, region, image, network, credentials, quota.

        Makes nothing.
        """

    def create(self, order: Order) -> Machine:
        """Ask for a machine. Asked again for the same name, it is the machine that is there. Need not wait until it is up."""

    def list(self) -> Iterable[Machine]:
        """All machines that carry the tag, in all regions of the configuration; broken ones and those that are being made too.

        A region (or, with `flavor`, a host) that does not answer while others do is an item without name in state SILENT, with
        the reason as its message: no machine of that region (and flavor) counts as vanished. Raises CloudTrouble when none
        answers.
        """

    def delete(self, machine: Machine) -> None:
        """Remove a machine and everything that was made for it; one that is not there is fine. Returns when it is gone."""

    def flavors(self) -> Iterable[Flavor]:
        """What it has, with prices, quotas and evictions as far as it tells them."""
