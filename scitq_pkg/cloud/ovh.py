"""OVH's public catalogue of its public cloud: what its flavors cost, and what their names do not tell.

`{"locale": {"currencyCode"}, "addons": [{"planCode": "b3-8.consumption", "product": "publiccloud-instance",
"pricings": [{"price": 5080000, "intervalUnit": "hour"}], "blobs": {"technical": {"gpu", "storage"}}}]}`; prices are of 10^-8.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from .provider import CloudTrouble

URL = "https://eu.api.ovh.com/v1/order/catalog/public/cloud?ovhSubsidiary=FR"
_UNIT = 1e-8
_HOURLY = ".consumption"
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What the catalogue says of one flavor."""

    price: float | None  # of an hour
    gpus: int = 0
    gpu: str | None = None
    gpumem: float | None = None  # GB, of one
    nvme: bool = False
    disk: float | None = None  # GB, of all disks


def offers(url: str) -> tuple[dict[str, Offer], str | None]:
    """The hourly offers by name of flavor, and their currency. Raises CloudTrouble."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            catalogue = json.load(answer)
        addons = [addon for addon in catalogue["addons"] if addon.get("product") == "publiccloud-instance"]
        hourly = [addon for addon in addons if addon["planCode"].endswith(_HOURLY)]
        return {addon["planCode"].removesuffix(_HOURLY): _offer(addon) for addon in hourly}, catalogue["locale"]["currencyCode"]
    except urllib.error.URLError as error:  # an answer that is none of success, too
        raise CloudTrouble(f"OVH's catalogue {url} cannot be read: {getattr(error, 'reason', error)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CloudTrouble(f"OVH's catalogue {url} is not what it should be ({type(error).__name__}: {error})") from None


def _offer(addon: dict) -> Offer:
    technical = (addon.get("blobs") or {}).get("technical") or {}
    gpu = technical.get("gpu") or {}
    disks = (technical.get("storage") or {}).get("disks") or []
    prices = [
        pricing["price"] for pricing in addon.get("pricings") or () if pricing.get("intervalUnit", "hour") in ("hour", "none")
    ]
    return Offer(
        price=round(prices[0] * _UNIT, 8) if prices else None,
        gpus=int(gpu.get("number") or (1 if gpu else 0)),
        gpu=gpu.get("model"),
        gpumem=(gpu.get("memory") or {}).get("size"),
        nvme=any("nvme" in str(disk.get("technology")).lower() for disk in disks),
        disk=sum((disk.get("capacity") or 0) * (disk.get("number") or 1) for disk in disks) or None,
    )
