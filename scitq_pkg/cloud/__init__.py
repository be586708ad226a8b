"""Machines of providers: made, listed, removed. One file a provider, found by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ..errors import InvalidRequest, nearest
from .provider import Provider, Tell

KINDS = {  # kind -> module and class, imported on first use
    "local": ("local", "Local"),
    "ssh": ("ssh", "Ssh"),
    "slurm": ("slurm", "Slurm"),
    "openstack": ("openstack", "OpenStack"),
    "azure": ("azure", "Azure"),
}


def kind_of(name: str, config: Mapping) -> str:
    """The kind of the provider that the configuration calls `name`. Raises InvalidRequest with those that there are."""
    kind = config.get("kind", name)
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidRequest(
            f"there is no kind of provider {kind!r:.80}{nearest(str(kind), KINDS)}: there are {', '.join(KINDS)}",
            field=f"providers.{name}.kind",
        )
    return kind


def provider(name: str, config: Mapping, tag: str, tell: Tell) -> Provider:
    """The provider that the configuration calls `name`. Raises InvalidRequest."""
    module, cls = KINDS[kind_of(name, config)]
    return getattr(import_module(f".{module}", __name__), cls)(name, config, tag, tell)
