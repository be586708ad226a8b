"""What the configuration says of providers and of deployment, checked when the server starts: errors name the wrong key."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..address import is_loopback, server_url, split_url
from ..durations import EXAMPLES, seconds_of
from ..errors import InvalidRequest, nearest
from ..settings import Settings
from . import keys, kind_of, provider

LOCAL, SLURM = "local", "slurm"
AUTO = "auto"
BOOTED = ("openstack", "azure")  # kinds whose machines have to reach the server over a network
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,29}")
FIRST_BOOT = ("swap", "packages", "docker", "rclone_conf", "registry_login", "nfs", "ssh_keys", "ca")  # checked by `firstboot`


@dataclass(frozen=True, slots=True)
class Deployment:
    """How machines are made and kept. Times in seconds."""

    concurrency: int = 10  # questions to providers at once
    retry: int = 2  # failed attempts of a deployment that are followed by another one
    boot_timeout: float = 900.0  # from when a machine exists until its worker has called
    idle: float = 300.0  # for which a worker has nothing to do before its machine is destroyed
    reconcile: float = 300.0  # between two looks at what a provider has
    destroy_unknown: bool = False  # machines that carry our tag and were not asked for by this server's database
    first_boot: Mapping = field(default_factory=dict)  # the rest, for `firstboot.user_data`


@dataclass(frozen=True, slots=True)
class Clouds:
    """All of it. `providers` by name, each with its `kind`; `local` is always one of them."""

    providers: Mapping[str, Mapping]
    deployment: Deployment
    url: str | None = None  # by which machines reach the server, if that is not the one that it serves
    implied: frozenset[str] = frozenset()  # providers that nobody has configured: used only where they are named

    @property
    def per_provider(self) -> int:
        """Questions to one provider at once: if all the others hang, there is still one left."""
        others = len(self.providers) - 1
        return max(1, (self.deployment.concurrency - 1) // others) if others else self.deployment.concurrency

    def sums(self) -> dict[str, str]:
        """Of each provider a sum of what is said of it."""
        return {
            name: hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]
            for name, config in self.providers.items()
        }  # fmt: skip

    def kind(self, name: str) -> str:
        return self.providers[name]["kind"]

    def regions(self, name: str) -> Sequence[str]:
        """Those of the configuration, preferred ones first; empty: it does not say."""
        return keys.texts(self.providers[name].get("regions"))

    def looks_at(self, machine: Mapping) -> bool:
        """Whether the list of its provider would have a machine of the table: its region and host may be configured no more."""
        config = self.providers[machine["provider"]]
        regions = self.regions(machine["provider"])
        if config["kind"] == "openstack" and regions and machine["region"] not in regions:
            return False
        hosts = [host["host"] if isinstance(host, Mapping) else host for host in config.get("hosts") or ()]
        return machine["provider_id"] is None or not hosts or machine["provider_id"] in hosts

    def check_name(self, name: str) -> None:
        """Raises InvalidRequest for a provider that is not configured."""
        if name not in self.providers:
            known = ", ".join(self.providers)
            raise InvalidRequest(
                f"there is no provider {name!r:.80}{nearest(name, self.providers)}: there is {known}", field="provider"
            )

    def address(self, name: str, own: str) -> str:
        """The URL by which machines of a provider reach this server, which serves `own`. Raises InvalidRequest if they cannot."""
        url = self.url or own
        elsewhere = self.kind(name) in BOOTED or (self.kind(name) == SLURM and self.providers[name].get("url") is None)
        if elsewhere and is_loopback(split_url(url)[1]):
            raise InvalidRequest(
                f"machines of {name} cannot reach this server at {url}: start it at an address of its network (--host), "
                "and say with --url by which address they find it",
                field="url",
            )
        return url


def checked(settings: Settings) -> Clouds:
    """The providers and the deployment that the settings name. Raises InvalidRequest."""
    providers = {str(name): _provider(str(name), config, settings.data) for name, config in settings.providers.items()}
    implied = frozenset({LOCAL} - providers.keys())
    for name in implied:
        providers[name] = _provider(name, {}, settings.data)
    url = None if settings.url is None else server_url(settings.url)
    return Clouds(providers, _deployment(settings.deployment), url, implied)


def _provider(name: str, config: object, data: Path) -> Mapping:
    if not _NAME.fullmatch(name) or name == AUTO:
        raise InvalidRequest(
            "cannot be the name of a provider: letters, digits, '-' and '_', up to 30", field=f"providers.{name:.80}"
        )
    if not isinstance(config, (Mapping, type(None))):
        raise InvalidRequest("wants lines of `name: value` below it, such as `kind: openstack`", field=f"providers.{name}")
    whole = {**(config or {}), "kind": kind_of(name, config or {})}
    if whole["kind"] == LOCAL:
        whole.setdefault("scratch", str(data / "machines"))
    provider(name, whole, "scitq-check", lambda line: None)
    return whole


def _deployment(given: Mapping) -> Deployment:
    own = {f.name: f for f in fields(Deployment) if f.name != "first_boot"}
    keys.checked("deployment", given, dict.fromkeys((*own, *FIRST_BOOT), object))
    values = {key: _CONVERTERS[own[key].type](key, value) for key, value in given.items() if key in own}
    rest = {key: value for key, value in given.items() if key not in own}
    return Deployment(**values, first_boot=rest)


def _count(key: str, value: object) -> int:
    least = 0 if key == "retry" else 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 100:
        raise InvalidRequest(f"wants a whole number from {least} to 100, not {value!r:.80}", field=f"deployment.{key}")
    return value


def _seconds(key: str, value: object) -> float:
    seconds = None if isinstance(value, bool) else seconds_of(str(value))
    if not seconds:
        raise InvalidRequest(f"wants a duration such as {EXAMPLES}, not {value!r:.80}", field=f"deployment.{key}")
    return seconds


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"wants true or false, not {value!r:.80}", field=f"deployment.{key}")
    return value


_CONVERTERS = {"int": _count, "float": _seconds, "bool": _flag}
